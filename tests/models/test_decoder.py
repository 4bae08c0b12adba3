"""The decoder beside full forward passes of the models whose weights it copies."""

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, GPTNeoXConfig, MistralConfig

from prefloop.models import compiled, decoder, decoder_group
from prefloop.models.adapters import with_adapter
from prefloop.models.decoder import decoder_of
from prefloop.models.heads import all_logits, unwrapped
from prefloop.models.sampling import GroupReading, sample
from tests.helpers import assert_close
from tests.models.tiny import ARCHITECTURES, CONTEXT, brief, policy, prompts, tokenizer


def stirred(model, seed: int = 0):
    """Every parameter another number: fresh models have gains of 1 and biases of 0, which hide what is forgotten."""
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 1:
                parameter.normal_(std=0.3, generator=rng)
                parameter.add_(1.0 if "weight" in name else 0.0)
    return model


def mistral(**settings):
    sizes = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 1,
    }
    config = MistralConfig(**sizes, vocab_size=len(tokenizer()), initializer_range=0.3, **settings)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(config).eval()


@pytest.fixture(params=["torch", "compiled"])
def step(request, monkeypatch) -> None:
    """Both ways in which a step is computed."""
    if request.param == "torch":
        monkeypatch.setattr(compiled, "library", lambda: compiled.Library(None, "not now"))
    elif compiled.library().functions is None:
        pytest.skip(f"no compiled step: {compiled.library().found}")


def made(model):
    found = decoder_of(model, CONTEXT)
    assert found is not None
    return found


class Texts:
    """Rows that are begun, go on with random tokens and end, as a reading sees them and written out in full."""

    def __init__(self, model, reading, seed: int):
        self.model, self.reading = model, reading
        self.rng = np.random.default_rng(seed)
        self.rows: list[list[int]] = []

    def words(self, n: int) -> list[int]:
        return self.rng.integers(0, self.model.config.vocab_size, n).tolist()

    def begin(self, *asked: tuple[int, int]) -> None:
        """Prompts of (length, number of answers) each."""
        self.begin_with([prompt for length, n in asked for prompt in [self.words(length)] * n])

    def begin_with(self, new: list[list[int]]) -> None:
        self.compare(self.reading.begin(new), new)
        self.rows += [list(prompt) for prompt in new]

    def go_on(self) -> None:
        """One more token of every row."""
        said, position = torch.tensor(self.words(len(self.rows))), torch.tensor([len(row) for row in self.rows])
        self.rows = [[*row, token] for row, token in zip(self.rows, said.tolist(), strict=True)]
        self.compare(self.reading.read_tokens(said, position), self.rows)

    def keep(self, places: list[int]) -> None:
        self.rows = [self.rows[place] for place in places]
        self.reading.keep(places)

    def compare(self, logits: torch.Tensor, rows: list[list[int]]) -> None:
        """With full forward passes, relative to the largest logit: that is what roundings are relative to."""
        with torch.no_grad():
            expected = torch.stack([self.model(torch.tensor([row])).logits[0, -1] for row in rows])
        assert_close(logits / expected.abs().max(), expected / expected.abs().max())


MODELS = {
    **{name: lambda name=name: policy(name) for name in ARCHITECTURES},
    "mistral": lambda: mistral(sliding_window=None),
    "large heads": lambda: policy("llama", head_dim=40),  # attention is computed 32 and 8 features at a time
    "another gate": lambda: policy("llama", hidden_act="gelu"),
}


@pytest.mark.parametrize("model", MODELS)
@torch.no_grad()
def test_rows_of_any_age_get_the_logits_of_full_forward_passes(model, step):
    model = stirred(MODELS[model]())
    texts = Texts(model, GroupReading(made(model), 20), seed=1)
    texts.begin((4, 3), (2, 1), (7, 2))  # unlike lengths, unlike numbers of answers
    texts.go_on()
    texts.begin((3, 1), (5, 1))  # one answer each
    texts.go_on()
    texts.keep([0, 2, 4, 5, 6, 7])  # some cells are empty
    texts.go_on()
    texts.begin((4, 2), (4, 2))  # nothing is padded
    texts.keep([0, 4, 5, 6, 7, 8])
    texts.go_on()
    texts.keep([1, 2, 3, 5])  # groups become smaller, one is gone
    texts.go_on()
    texts.go_on()
    texts.keep([1])
    texts.go_on()


@pytest.mark.parametrize("smaller", [0.0, 1.0])
@torch.no_grad()
def test_grids_and_buffers_change_nothing_that_is_said(monkeypatch, smaller, step):
    monkeypatch.setattr(decoder_group, "ROOM", 1)  # doubled at the first tokens
    monkeypatch.setattr(decoder_group, "SMALLER", smaller)  # never in a smaller grid, and always
    monkeypatch.setattr(decoder, "TOKENS_AT_ONCE", 6)  # prompts are read in parts
    model = stirred(policy("llama"))
    reading = GroupReading(made(model), 20)
    texts = Texts(model, reading, seed=2)
    texts.begin((3, 4), (5, 2), (3, 3), (2, 1))
    group = reading.groups[0]
    for places in ([0, 1, 3, 4, 6, 8, 9], [1, 2, 4, 6], [0, 3], [1]):
        texts.go_on()
        texts.keep(places)
        texts.go_on()
    assert (group.n_prompts, group.n_answers) == ((4, 4) if smaller == 0.0 else (1, 1))
    assert group.own[0].shape[4] == 8  # room for 1, 2, 4, 8 tokens


@torch.no_grad()
def test_answers_to_a_prompt_need_not_stand_side_by_side(step):
    texts = Texts(model := stirred(policy("llama")), GroupReading(made(model), 20), seed=4)
    first, second = texts.words(4), texts.words(6)
    texts.begin_with([first, second, first, second, second])
    texts.go_on()
    texts.keep([0, 3, 4])
    texts.go_on()


@torch.no_grad()
def test_a_prompt_lies_in_memory_once_for_all_its_answers():
    model = policy("qwen2")
    reading = GroupReading(made(model), 20)
    Texts(model, reading, seed=0).begin((9, 16), (9, 16))
    config, group = model.config, reading.groups[0]
    per_token = 2 * config.num_key_value_heads * config.hidden_size // config.num_attention_heads  # keys and values
    assert [kept.numel() for kept in group.prefix] == [2 * 9 * per_token] * config.num_hidden_layers
    assert [kept.numel() for kept in group.own] == [2 * 16 * 20 * per_token] * config.num_hidden_layers


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
@torch.no_grad()
def test_what_an_adapter_adds_is_in_the_weights(architecture, step):
    adapted = with_adapter(stirred(policy(architecture)), rank=2, alpha=4, seed=0)
    bare = all_logits(adapted, torch.tensor([[5, 6, 7]]))  # an adapter begins with nothing to add
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            parameter.normal_(std=0.1, generator=torch.Generator().manual_seed(1))
    model = unwrapped(adapted)
    text = torch.tensor([[5, 6, 7]])
    assert float((all_logits(model, text) - bare).abs().max()) > 0.1
    texts = Texts(model, GroupReading(made(model), 20), seed=3)
    texts.begin((4, 2), (3, 1))
    texts.go_on()
    with adapted.disable_adapter():
        texts = Texts(model, GroupReading(made(model), 20), seed=3)
        texts.begin((4, 2), (3, 1))
        texts.go_on()


def doubled_head(model):
    model.lm_head.register_forward_hook(lambda module, given, said: 2 * said)
    return model


def neox():
    config = GPTNeoXConfig(
        vocab_size=len(tokenizer()), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=CONTEXT, initializer_range=0.3,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(config).eval()


WINDOW = {"layer_types": ["full_attention", "sliding_attention"], "use_sliding_window": True, "sliding_window": 4}
DYNAMIC = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}
OTHERS = {
    "a window": lambda: policy("qwen2", **WINDOW),
    "another kind of window": lambda: mistral(sliding_window=8),
    "angles that depend on the length": lambda: policy("llama", rope_parameters=DYNAMIC),
    "more after the head": lambda: doubled_head(policy("llama")),
    "an unknown architecture": neox,
}


@pytest.mark.parametrize("kind", OTHERS)
def test_what_is_not_written_down_is_read_by_the_model_itself(kind):
    model, encode = OTHERS[kind](), brief()
    assert decoder_of(model, CONTEXT) is None
    samples = sample(model, encode, prompts(3), k=2, max_new_tokens=10, seed=0, greedy=True)
    for tokens, start, end in zip(samples.tokens.tolist(), samples.prompt_length.tolist(), samples.length.tolist(), strict=True):
        with torch.no_grad():
            said = model(torch.tensor([tokens[: end - 1]])).logits[0, start - 1 :].argmax(-1)
        assert tokens[start:end] == said.tolist()


def test_half_precision_and_texts_beyond_the_context_are_left_to_the_model():
    assert decoder_of(policy("llama").bfloat16(), CONTEXT) is None
    assert decoder_of(policy("llama"), CONTEXT + 1) is None


def test_copied_weights_have_a_limit(monkeypatch):
    model = policy("llama")
    monkeypatch.setattr(decoder, "LARGEST", 4 * sum(parameter.numel() for parameter in model.parameters()))
    assert decoder_of(model, CONTEXT) is not None
    monkeypatch.setattr(decoder, "LARGEST", decoder.LARGEST - 1)
    assert decoder_of(model, CONTEXT) is None
