"""What a run will need is reckoned from configs alone, told by part, and refused with the nearest settings that fit."""

from pathlib import Path

import pytest
import torch

from prefloop.config import Adapter
from prefloop.engine import needs
from prefloop.engine.needs import Work, admit, at_once, free_of_container, free_of_machine, needs_of
from prefloop.errors import ConfigError
from prefloop.methods.dpo import DPOConfig
from prefloop.methods.kto import KTOConfig
from prefloop.methods.ppo import PPOConfig
from prefloop.methods.pretrain import PretrainConfig
from prefloop.methods.reinforce import ReinforceConfig
from prefloop.methods.relearn import RelearnConfig
from prefloop.methods.reward import RewardConfig
from prefloop.methods.rrhf import RRHFConfig
from prefloop.methods.sft import SFTConfig
from prefloop.models.load import count_parameters, new_reward, rewards_to_train, save_model
from prefloop.models.shapes import shape_of
from tests.models.tiny import ARCHITECTURES, policy, tokenizer

CPU = torch.device("cpu")
WORK = Work(longest=40, rows=64, new_tokens=16, round_rows=128, prompt=24)


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, str]:
    made = tmp_path_factory.mktemp("needs")
    found = {name: str(save_model(policy(name), tokenizer(), made / name, card={})) for name in ARCHITECTURES}
    judge = rewards_to_train(found["llama"], Adapter(rank=2), seeds=[0])[0]
    found["reward"] = str(save_model(new_reward(found["llama"], seed=0), tokenizer(), made / "reward", card={}))
    found["judge"] = str(save_model(judge, tokenizer(), made / "judge", card={}))
    return found


def ppo(folders: dict[str, str], **settings) -> PPOConfig:
    own = {"model": folders["llama"], "reward": folders["reward"], "prompts": "p", "k": 4, **settings}
    return PPOConfig.of(**own)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_numbers_are_counted_without_reading_a_weight(folders, architecture, monkeypatch):
    monkeypatch.setattr("safetensors.torch.load_file", lambda *a, **k: pytest.fail("read"))
    for file in Path(folders[architecture]).glob("*.safetensors"):
        file.rename(file.with_suffix(".kept"))
        file.write_bytes(b"")
    shape = shape_of(folders[architecture])
    for file in Path(folders[architecture]).glob("*.kept"):
        file.replace(file.with_suffix(".safetensors"))
    model = policy(architecture)
    assert shape.parameters == count_parameters(model)
    adapted = rewards_to_train(folders[architecture], Adapter(rank=3), seeds=[0])[0]
    own = sum(p.numel() for name, p in adapted.named_parameters() if "lora_" in name)
    assert shape.adapter(3) == own


def test_what_lasts_is_weights_moments_and_every_other_network(folders):
    """4 bytes a number: policy, critic, reference and reward whole; two moments for each number that learns."""
    n = count_parameters(policy("llama"))
    found = needs_of(ppo(folders), WORK)
    of_networks = {name: found.lasting[name] for name in ("weights", "critic", "reference", "reward", "optimiser")}
    assert of_networks == {"weights": 4 * n, "critic": 4 * n, "reference": 4 * n, "reward": 4 * n, "optimiser": 8 * 2 * n}
    assert found.learning["gradients"] == 4 * 2 * n
    trunk = needs_of(ppo(folders, share="trunk", ema=0.9), WORK)
    assert (trunk.lasting["critic"], trunk.lasting["optimiser"], trunk.lasting["average"]) == (0, 8 * n, 4 * n)


def test_one_base_is_counted_once(folders):
    n, a = count_parameters(policy("llama")), shape_of(folders["llama"]).adapter(2)
    own = {"share": "adapters", "adapter": {"rank": 2}, "critic": "policy"}
    found = needs_of(ppo(folders, **own, reward=folders["judge"]), WORK).lasting
    assert (found["weights"], found["critic"], found["reference"], found["reward"]) == (4 * (n + a), 4 * a, 0, 4 * a)
    assert found["optimiser"] == 8 * 2 * a
    apart = needs_of(ppo(folders, **own, reference=folders["qwen2"]), WORK).lasting  # a whole reward, another reference
    assert (apart["reference"], apart["reward"]) == (4 * count_parameters(policy("qwen2")), 4 * n)
    no_model = needs_of(ppo(folders, reward="python:a:b", critic="policy"), WORK).lasting
    assert no_model["reward"] == 0


def test_members_references_and_samplers_are_counted_where_there_are_any(folders):
    n, model = count_parameters(policy("llama")), folders["llama"]
    ensemble = needs_of(RewardConfig.of(model=model, data="d", members=3), Work(40, 16))
    assert (ensemble.lasting["weights"], ensemble.learning["gradients"]) == (3 * 4 * n, 3 * 4 * n)
    dpo = needs_of(DPOConfig.of(model=model, data="d"), Work(40, 16))  # its reference is asked before the first step
    assert dpo.lasting["reference"] == 0 and dpo.drawing == {}
    sft = needs_of(SFTConfig.of(model=model, data="d"), Work(40, 16))
    assert sft.lasting["reference"] == sft.lasting["reward"] == sft.lasting["critic"] == 0
    group = {"model": model, "reward": {folders["reward"]: 1.0, "python:a:b": 0.5}, "prompts": "p"}
    assert needs_of(ReinforceConfig.of(**group), WORK).lasting["reward"] == 4 * n
    assert needs_of(ReinforceConfig.of(**group), WORK).lasting["reference"] == 4 * n
    assert needs_of(ReinforceConfig.of(**group, adapter={"rank": 2}), WORK).lasting["reference"] == 0
    drawing = needs_of(ppo(folders, sample_rows=32), WORK).drawing
    shape = shape_of(model)
    columns = 8 * 24 + 32 * 16  # 8 prompts of 24 tokens, 32 answers of 16
    assert drawing["keys and values"] == 4 * (2 * 2 * 16 * columns + 3 * 32 * shape.vocabulary)
    assert drawing["sampler's weights"] == 4 * (n + shape.vocabulary * 32)


def test_whoever_is_asked_once_before_the_first_step_is_not_there_when_the_model_learns(folders):
    """A reference of one's own of DPO and KTO, the first reward or the judge of relearn: beside the weights, not the gradients."""
    n, model, other = count_parameters(policy("llama")), folders["llama"], folders["qwen2"]
    for cls in (DPOConfig, KTOConfig):
        found = needs_of(cls.of(model=model, data="d", reference=other, adapter={"rank": 2}), Work(40, 16))
        assert found.drawing["reference"] == 4 * count_parameters(policy("qwen2")) and found.lasting["reference"] == 0
    again = {"model": model, "data": "d", "samples": "s", "reward": folders["reward"]}
    assert needs_of(RelearnConfig.of(**again), Work(40, 16)).drawing["reward"] == 4 * n
    judged = RelearnConfig.of(**again, pairs="rlaif", judge=f"policy:{other}")
    assert needs_of(judged, Work(40, 16)).drawing["reward"] == 4 * count_parameters(policy("qwen2"))
    assert needs_of(judged, Work(40, 16)).lasting["reward"] == 0


def test_beams_hold_whole_rows_and_a_model_that_is_made_is_reckoned_by_its_shape(folders):
    shape = shape_of(folders["llama"])
    made = {"policy": "D", "prompts": "p", "reward": folders["reward"], "k": 4}
    beams = needs_of(RRHFConfig.of(model=folders["llama"], candidates=made), WORK)
    drawn = needs_of(RRHFConfig.of(model=folders["llama"], candidates={**made, "decoding": "draw"}), WORK)
    per_token = 2 * 16 * 4  # keys and values of a layer
    assert beams.drawing == {"keys and values": 3 * per_token * 128 * 40 + 4 * 8 * 128 * shape.vocabulary}
    assert drawn.drawing["keys and values"] == 2 * per_token * (32 * 24 + 128 * 16) + 4 * 3 * 128 * shape.vocabulary
    new = needs_of(PretrainConfig.of(text="t"), Work(64, 12), shape)
    assert (new.lasting["weights"], new.learning["gradients"]) == (4 * shape.parameters, 4 * shape.parameters)


def test_learning_and_drawing_take_turns(folders):
    found = needs_of(ppo(folders), WORK)
    assert found.total == sum(found.lasting.values()) + max(sum(found.learning.values()), sum(found.drawing.values()))
    assert set(found.parts) >= {"weights", "optimiser", "activations", "keys and values"} and "average" not in found.parts


def test_only_what_is_computed_at_once_needs_activations(folders):
    def tokens(**optim) -> int:
        return at_once(ppo(folders, optim=optim).optim, WORK)

    assert (tokens(), tokens(micro_tokens=0), tokens(micro_batch=8)) == (2048, 2560, 320)
    assert (tokens(micro_tokens=100), tokens(micro_tokens=1), tokens(micro_batch=8, micro_tokens=100_000)) == (100, 40, 320)
    few, all_rows = (needs_of(ppo(folders, optim={"micro_tokens": m}), WORK).learning["activations"] for m in (256, 0))
    assert few < all_rows


def test_an_update_in_parts_needs_room_for_what_comes_and_goes_beside_what_is_kept(folders):
    """On a processor: 13 hidden sizes of each token and layer, with adapters 30 and 6 inner ones. The model has 2 layers of 32 and 48."""
    work, shape = Work(longest=40, rows=64), shape_of(folders["llama"])

    def activations(device: str = "cpu", **own) -> int:
        return needs_of(DPOConfig.of(model=folders["llama"], data="d", **own), work, device=device).learning["activations"]

    for tokens in (2048, 400):
        cut = {"optim": {"micro_tokens": tokens}}
        kept = shape.kept_of_a_token * tokens * 3 // 2
        assert (activations("cuda", **cut), activations(**cut)) == (kept, kept + 4 * 2 * 13 * 32 * tokens)
        assert activations(adapter={"rank": 2}, **cut) == kept + 4 * 2 * (30 * 32 + 6 * 48) * tokens
    whole = {"optim": {"micro_tokens": 0}}
    assert activations(**whole) == activations("cuda", **whole) == shape.kept_of_a_token * 40 * 64 * 3 // 2


def test_only_what_says_words_needs_distributions_over_them(folders):
    """A chunk of 2,048 tokens waits for the backward pass, and two more are being computed."""
    work, shape = Work(longest=64, rows=32), shape_of(folders["llama"])
    assert (
        needs_of(DPOConfig.of(model=folders["llama"], data="d"), work).learning["distributions"]
        == 4 * 3 * 2048 * shape.vocabulary
    )
    assert needs_of(RewardConfig.of(model=folders["llama"], data="d"), work).learning["distributions"] == 0


# ------------------------------------------------------------------------------------------------ the decision


def test_what_fits_is_told_by_part_and_let_in(folders, capsys):
    parts = admit(ppo(folders), WORK, CPU)
    said = " ".join(capsys.readouterr().err.split())
    assert said.startswith("memory: about ") and "that cpu has free; in MiB: weights 0." in said
    assert all(name in said for name in parts)


LEAST = {"optim": {"micro_tokens": 128}, "sample_rows": 8}
NEAREST = {  # the first of these that fits: tokens at once, rows side by side, then what is learned
    "optim.micro_tokens=1024": {"optim": {"micro_tokens": 1024}},
    "optim.micro_tokens=128 sample_rows=8 share=trunk critic=policy": {**LEAST, "share": "trunk"},
    "optim.micro_tokens=128 sample_rows=8 share=adapters critic=policy": {**LEAST, "share": "adapters", "critic": "policy"},
}


@pytest.mark.parametrize("told", NEAREST)
def test_what_does_not_fit_is_refused_with_the_nearest_setting_that_does(folders, monkeypatch, told):
    """On a machine with room for just that setting. Few rows where weights are to decide."""
    work = Work(longest=8, rows=2, new_tokens=4, round_rows=4, prompt=4) if "share" in told else WORK
    room = needs_of(ppo(folders, **NEAREST[told]), work).total
    monkeypatch.setattr(needs, "free_memory", lambda device: room / needs.SLACK + 1)
    with pytest.raises(ConfigError, match=r"more memory than 95% of what is free(.|\n)*weights 0\.") as refusal:
        admit(ppo(folders), work, CPU)
    assert refusal.value.exit_code == 2
    assert f"nearest settings that fit: {told}\n" in str(refusal.value)
    admit(ppo(folders, **NEAREST[told]), work, CPU)
    admit(ppo(folders, memory=1.0), work, CPU)  # a person may know better


def test_a_limit_of_ones_own_is_kept_to(folders):
    with pytest.raises(ConfigError, match=r"more memory than memory=1e-05 GiB(.|\n)*no setting fits"):
        admit(ppo(folders, memory=1e-5), WORK, CPU)


def test_a_folder_that_cannot_be_read_is_left_to_whoever_reads_it(folders, tmp_path):
    broken = tmp_path / "broken"
    broken.mkdir()
    for file in Path(folders["llama"]).iterdir():
        (broken / file.name).write_bytes(file.read_bytes())
    (broken / "config.json").write_text('{"model_type": "perpetuum"}')
    assert admit(SFTConfig.of(model=str(broken), data="d"), Work(40, 16), CPU) == {}


def test_what_is_free_is_read_from_the_system(tmp_path):
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:       900 kB\nMemAvailable:   700 kB\n")
    assert free_of_machine(meminfo) == 700 * 1024
    assert free_of_machine(tmp_path / "none") > 2**28  # all of it
    assert free_of_container(tmp_path) == 2**62
    (tmp_path / "memory.max").write_text("5000\n")
    (tmp_path / "memory.current").write_text("2000\n")
    assert free_of_container(tmp_path) == 3000
    (tmp_path / "memory.max").write_text("max\n")
    assert free_of_container(tmp_path) == 2**62
