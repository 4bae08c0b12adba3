"""Folders in and out: what transformers reads from ours, what we say to broken ones, and nothing half-written."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer, PreTrainedTokenizerFast

from prefloop.errors import ConfigError, DataError, RunError
from prefloop.models import load
from prefloop.models.adapters import with_adapter
from prefloop.models.heads import policy_logprobs, sequence_rewards
from prefloop.models.load import (
    context_length,
    count_parameters,
    load_policy,
    load_reward,
    merge,
    new_reward,
    save_model,
    verify_saved,
)
from prefloop.models.tokenizer import load_tokenizer
from tests.helpers import assert_close
from tests.models.tiny import ARCHITECTURES, CONTEXT, encoder, policy, prompts, tokenizer

TOKENS = torch.randint(3, 200, (3, 10), generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def policies(tmp_path_factory) -> dict[str, Path]:
    """A saved policy of each architecture."""
    folder = tmp_path_factory.mktemp("policies")
    return {name: save_model(policy(name), tokenizer(), folder / name, card={"method": "test"}) for name in ARCHITECTURES}


@pytest.fixture
def broken(policies, tmp_path) -> Path:
    """A copy of a good folder, to be broken."""
    return shutil.copytree(policies["llama"], tmp_path / "broken")


# ------------------------------------------------------------------------------------------------ policies


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@torch.no_grad()
def test_a_saved_policy_is_an_ordinary_folder_that_says_the_same(policies, architecture):
    expected = policy(architecture)(TOKENS).logits
    loaded = load_policy(policies[architecture])
    assert not loaded.training
    assert torch.equal(loaded(TOKENS).logits, expected), "the same weights on memory of their own: no rounding may differ"
    assert_close(AutoModelForCausalLM.from_pretrained(str(policies[architecture]))(TOKENS).logits, expected)
    assert load_tokenizer(policies[architecture]).get_vocab() == tokenizer().get_vocab()
    names = {path.name for path in policies[architecture].iterdir()}
    assert {
        "config.json",
        "model.safetensors",
        "generation_config.json",
        "tokenizer.json",
        "chat_template.jinja",
        "README.md",
    } <= names


def test_generate_on_a_loaded_policy_draws_from_its_own_distribution(policies):
    settings = load_policy(policies["llama"]).generation_config
    assert (settings.do_sample, settings.temperature, settings.top_k, settings.top_p) == (True, 1.0, 0, 1.0)
    assert settings.eos_token_id == tokenizer().eos_token_id


def test_the_card_tells_the_figures_the_template_and_how_to_load(tmp_path):
    folder = save_model(
        policy(), tokenizer(), tmp_path / "m", card={"method": "sft", "steps": 12}, encoder=encoder(max_prompt=33)
    )
    card = (folder / "README.md").read_text()
    assert "method: sft" in card
    assert "steps: 12" in card
    assert "AutoModelForCausalLM" in card
    assert "<|user|>Hello<|assistant|>" in card
    assert json.loads((folder / "config.json").read_text())["prefloop_encoding"] == {
        "template": "chat",
        "max_prompt": 33,
        "max_completion": 512,
    }


def test_sizes_are_those_of_the_model():
    model = policy()
    width, inner, kv, vocabulary = 32, 48, 16, len(tokenizer())
    layer = 2 * width * width + 2 * width * kv + 3 * width * inner + 2 * width
    assert count_parameters(model) == 2 * layer + width + vocabulary * width  # tied embeddings count once
    assert context_length(model) == context_length(policy("gpt2")) == CONTEXT


def test_weights_can_be_read_in_another_precision(policies):
    assert next(load_policy(policies["llama"], dtype="bfloat16").parameters()).dtype == torch.bfloat16
    with pytest.raises(ConfigError, match="dtypes: float32"):
        load_policy(policies["llama"], dtype="int3")


# ------------------------------------------------------------------------------------------------ reward models


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@torch.no_grad()
def test_a_new_reward_model_has_the_policys_trunk_and_a_small_head_of_its_seed(policies, architecture):
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    model = new_reward(policies[architecture], seed=4)
    assert torch.equal(torch.rand(2), expected), "the global stream of random numbers was touched"
    trunk = policy(architecture).base_model.state_dict()
    assert all(torch.equal(value, trunk[name]) for name, value in model.base_model.state_dict().items())
    again, other = new_reward(policies[architecture], seed=4), new_reward(policies[architecture], seed=5)
    assert torch.equal(model.score.weight, again.score.weight)
    assert not torch.equal(model.score.weight, other.score.weight)
    assert (model.config.num_labels, model.config.pad_token_id, model.config.prefloop_reward_shift) == (
        1,
        tokenizer().pad_token_id,
        0.0,
    )


def test_the_new_head_is_normal_with_variance_one_over_width_plus_one(policies):
    heads = torch.cat([new_reward(policies["llama"], seed=seed).score.weight.detach() for seed in range(8)])
    assert abs(float(heads.std()) * (32 + 1) ** 0.5 - 1) < 0.2  # 256 numbers: four standard errors
    assert abs(float(heads.mean())) * (32 + 1) ** 0.5 < 0.25


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@torch.no_grad()
def test_a_saved_reward_model_is_read_by_plain_transformers_padded_or_not(policies, architecture, tmp_path):
    model = new_reward(policies[architecture], seed=1)
    model.config.prefloop_reward_shift = 0.25
    folder = save_model(model, tokenizer(), tmp_path / "reward", card={})
    verify_saved(model, folder, TOKENS)
    encode = encoder()
    rows = encode.conversations(prompts(4), ["a cat", "the dog sat", "", "so"])
    tokens, length = encode.text_batch(rows)
    expected = sequence_rewards(model, tokens, length)
    theirs = AutoModelForSequenceClassification.from_pretrained(str(folder))
    texts = [
        encode.render(prompt) + answer + "<|eos|>"
        for prompt, answer in zip(prompts(4), ["a cat", "the dog sat", "", "so"], strict=True)
    ]
    reader = PreTrainedTokenizerFast if architecture == "qwen2" else AutoTokenizer  # AutoTokenizer rebuilds Qwen2's tokenizers
    inputs = reader.from_pretrained(str(folder))(texts, padding=True, return_tensors="pt")
    assert_close(theirs(**inputs).logits[:, 0], expected)
    assert theirs.config.prefloop_reward_shift == 0.25
    assert load_reward(folder).config.prefloop_reward_shift == 0.25


def test_a_policy_is_no_reward_model_and_a_reward_model_no_policy(policies, tmp_path):
    with pytest.raises(DataError, match=r"lacks weights a reward model needs: score.weight") as refusal:
        load_reward(policies["llama"])
    assert "prefloop reward" in str(refusal.value)
    folder = save_model(new_reward(policies["llama"], seed=0), tokenizer(), tmp_path / "reward", card={})
    with pytest.raises(DataError, match=r"is a reward model \(LlamaForSequenceClassification\)"):
        load_policy(folder)


def test_a_classifier_of_several_labels_is_no_reward_model(policies, tmp_path):
    model = AutoModelForSequenceClassification.from_pretrained(str(policies["llama"]), num_labels=3)
    folder = save_model(model, tokenizer(), tmp_path / "three", card={})
    with pytest.raises(DataError, match="has 3 labels"):
        load_reward(folder)


def test_a_reward_model_whose_padding_would_be_its_end_is_refused(policies, tmp_path):
    folder = shutil.copytree(policies["llama"], tmp_path / "m")
    names = json.loads((folder / "tokenizer_config.json").read_text())
    names |= {"pad_token": "<|eos|>", "extra_special_tokens": []}
    (folder / "tokenizer_config.json").write_text(json.dumps(names))
    table = json.loads((folder / "tokenizer.json").read_text())
    for token in ("<|pad|>", "ÿ"):  # nothing left that could pad
        table["model"]["vocab"][f"taken {token}"] = table["model"]["vocab"].pop(token)
    table["added_tokens"] = [token for token in table["added_tokens"] if token["content"] != "<|pad|>"]
    (folder / "tokenizer.json").write_text(json.dumps(table))
    with pytest.raises(ConfigError, match="no token that could pad but EOS"):
        new_reward(folder, seed=0)


# ------------------------------------------------------------------------------------------------ broken folders


def without(*names: str):
    return lambda folder: [(folder / name).unlink() for name in names]


def torn(name: str):
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:200])


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def unknown_architecture(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "perpetuum"}))


def a_layer_short(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    save_file(
        {name: w for name, w in weights.items() if ".1.mlp" not in name}, folder / "model.safetensors", metadata={"format": "pt"}
    )


def another_size(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "intermediate_size": 64}))


def not_an_object(folder: Path) -> None:
    (folder / "config.json").write_text("[]")


BROKEN = {
    "no config": (without("config.json"), r"is not a model folder: it has no config.json\n  found: .*model.safetensors"),
    "no weights": (without("model.safetensors"), r"has no weights \(\*.safetensors\)"),
    "pickled weights": (pickled, r"pytorch_model.bin cannot be read safely; convert it"),
    "torn weights": (torn("model.safetensors"), "cannot be read"),
    "torn config": (torn("config.json"), "config.json cannot be read"),
    "config of another kind": (not_an_object, "must hold an object"),
    "unknown architecture": (unknown_architecture, "perpetuum"),
    "missing weights": (a_layer_short, r"lacks weights a language model needs: model.layers.1.mlp"),
    "sizes that do not fit": (another_size, "cannot be read"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_folder_is_explained(broken, fault):
    breaks, message = BROKEN[fault]
    breaks(broken)
    with pytest.raises(DataError, match=message) as refusal:
        load_policy(broken)
    assert str(broken) in str(refusal.value)
    assert len(str(refusal.value).splitlines()) >= 2, "what was found, and what to do next"


def test_a_missing_folder_is_told_with_the_nearest_name(policies):
    with pytest.raises(DataError, match=rf"there is no model folder .*\n  nearest: {policies['llama']}"):
        load_policy(policies["llama"].with_name("lama"))


def test_a_run_folder_is_told_where_its_model_is(broken):
    run = broken.parent / "run"
    run.mkdir()
    broken.rename(run / "model")
    with pytest.raises(DataError, match=f"did you mean {run / 'model'}"):
        load_policy(run)


def test_a_file_is_no_folder(policies):
    with pytest.raises(DataError, match="is a file; a model is a folder"):
        load_policy(policies["llama"] / "config.json")


def test_an_id_the_hub_cannot_give_is_told_apart_from_a_folder():
    for load_part in (load_policy, load_reward, load_tokenizer):
        with pytest.raises(
            DataError, match=r"there is no model nobody/nothing: [^\n]*\n  there is no folder of that name either"
        ):
            load_part("nobody/nothing")


# ------------------------------------------------------------------------------------------------ saving


def test_a_folder_is_replaced_whole_and_nothing_is_left_beside_it(tmp_path):
    folder = save_model(policy(seed=0), tokenizer(), tmp_path / "m", card={})
    (folder / "old.txt").write_text("gone")
    save_model(policy(seed=1), tokenizer(), folder, card={})
    assert not (folder / "old.txt").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["m"]
    verify_saved(policy(seed=1), folder, TOKENS)


def test_a_write_that_fails_leaves_the_last_good_folder(tmp_path, monkeypatch):
    folder = save_model(policy(seed=0), tokenizer(), tmp_path / "m", card={})

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(load, "flush", full)
    with pytest.raises(RunError, match="No space left on device"):
        save_model(policy(seed=1), tokenizer(), folder, card={})
    verify_saved(policy(seed=0), folder, TOKENS)
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_a_saved_model_with_one_other_bit_is_noticed(tmp_path):
    folder = save_model(policy(), tokenizer(), tmp_path / "m", card={})
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"][3] = torch.nextafter(weights["model.norm.weight"][3], torch.tensor(9.0))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(RunError, match=r"other weights than the one in memory: model\.norm\.weight"):
        verify_saved(policy(), folder, TOKENS)


def test_a_saved_model_whose_config_makes_it_answer_otherwise_is_noticed(tmp_path):
    folder = save_model(policy(), tokenizer(), tmp_path / "m", card={})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 0.5}))
    with pytest.raises(RunError, match="answers differently"):
        verify_saved(policy(), folder, TOKENS)


# ------------------------------------------------------------------------------------------------ adapters


def trained(adapted):
    """As if the adapter had learned: every trainable weight moved."""
    rng = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=rng))
    return adapted


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
@torch.no_grad()
def test_an_adapter_starts_as_nothing_is_read_back_on_its_base_and_merges_into_a_plain_folder(policies, architecture, tmp_path):
    bare = policy(architecture)(TOKENS).logits
    adapted = with_adapter(load_policy(policies[architecture]), rank=2, alpha=4, seed=0)
    assert_close(adapted(TOKENS).logits, bare)
    expected = trained(adapted)(TOKENS).logits
    assert float((expected - bare).abs().max()) > 0.1
    folder = save_model(adapted, tokenizer(), tmp_path / "adapter", card={}, encoder=encoder())
    assert not (folder / "model.safetensors").exists()
    verify_saved(adapted, folder, TOKENS)
    assert_close(load_policy(folder)(TOKENS).logits, expected)
    merged = merge(folder, tmp_path / "merged")
    assert_close(AutoModelForCausalLM.from_pretrained(str(merged))(TOKENS).logits, expected)
    assert load_tokenizer(merged).get_vocab() == tokenizer().get_vocab()


@torch.no_grad()
def test_the_head_of_a_reward_adapter_is_saved_and_survives_merging(policies, tmp_path):
    adapted = trained(with_adapter(new_reward(policies["llama"], seed=3), rank=2, alpha=4, seed=0))
    adapted.config.prefloop_reward_shift = 0.5
    length = torch.tensor([10, 7, 3])
    expected = sequence_rewards(adapted, TOKENS, length)
    folder = save_model(adapted, tokenizer(), tmp_path / "adapter", card={}, encoder=encoder(max_prompt=20))
    verify_saved(adapted, folder, TOKENS)
    again = load_reward(folder)
    assert_close(sequence_rewards(again, TOKENS, length), expected)
    assert again.config.prefloop_reward_shift == 0.5
    assert again.config.prefloop_encoding["max_prompt"] == 20
    merged = AutoModelForSequenceClassification.from_pretrained(str(merge(folder, tmp_path / "merged")))
    assert_close(merged(TOKENS[:1]).logits[0], expected[:1])
    assert merged.config.prefloop_reward_shift == 0.5


@torch.no_grad()
def test_an_adapter_on_an_adapter_keeps_both(policies, tmp_path):
    sft = trained(with_adapter(load_policy(policies["llama"]), rank=2, alpha=4, seed=0))
    first = save_model(sft, tokenizer(), tmp_path / "sft", card={})
    second = trained(with_adapter(load_policy(first), rank=1, alpha=1, seed=1))
    expected = second(TOKENS).logits
    folder = save_model(second, tokenizer(), tmp_path / "ppo", card={})
    assert json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"] == str(first)
    assert_close(load_policy(folder)(TOKENS).logits, expected)


def test_all_weights_of_a_model_read_from_an_adapter_folder_can_learn(policies, tmp_path):
    folder = save_model(
        with_adapter(load_policy(policies["llama"]), rank=2, alpha=4, seed=0), tokenizer(), tmp_path / "a", card={}
    )
    assert all(parameter.requires_grad for parameter in load_policy(folder).parameters())


def test_only_the_adapter_learns(policies):
    adapted = with_adapter(load_policy(policies["llama"]), rank=2, alpha=4, seed=0)
    wanted = torch.ones_like(TOKENS, dtype=torch.bool)
    policy_logprobs(adapted, TOKENS, wanted, temperature=1.0).sum().backward()
    learned = {name for name, parameter in adapted.named_parameters() if parameter.grad is not None}
    assert learned
    assert all("lora_" in name for name in learned)


def test_an_adapter_that_fits_no_layer_names_those_there_are(policies):
    with pytest.raises(ConfigError, match=r"linear layers of the model: .*q_proj"):
        with_adapter(load_policy(policies["llama"]), rank=2, alpha=4, targets=["nope"], seed=0)


def test_what_is_no_adapter_cannot_be_merged(policies, tmp_path):
    with pytest.raises(DataError, match="there is nothing to merge"):
        merge(policies["llama"], tmp_path / "out")


def test_an_adapter_without_its_weights_or_its_base_is_explained(policies, tmp_path):
    adapted = with_adapter(load_policy(policies["llama"]), rank=2, alpha=4, seed=0)
    folder = save_model(adapted, tokenizer(), tmp_path / "adapter", card={})
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": str(tmp_path / "moved")}))
    with pytest.raises(DataError, match=f"there is no model folder {tmp_path / 'moved'}"):
        load_policy(folder)
    (folder / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": None}))
    with pytest.raises(DataError, match="does not say which model the adapter belongs to"):
        load_policy(folder)
    (folder / "adapter_model.safetensors").unlink()
    with pytest.raises(DataError, match="has no weights"):
        load_policy(folder)
