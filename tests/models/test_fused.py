"""The step of sampling by torch.compile: the same answers, or a message."""

from functools import partial

import pytest
import torch

from prefloop.errors import ConfigError
from prefloop.models.decoder import Decoder, fused, fused_decoder_of
from prefloop.models.sampling import sample
from tests.helpers import assert_close
from tests.models.tiny import brief, policy, prompts


@pytest.fixture(params=["eager", pytest.param("inductor", marks=pytest.mark.long)])
def backend(request, monkeypatch):
    """``eager`` takes the functions apart and compiles nothing; what compiles takes 20 seconds."""
    torch.compiler.reset()
    fused.cache_clear()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=request.param))
    yield request.param
    fused.cache_clear()
    torch.compiler.reset()


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")  # of torch's own compiler
@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_answers_are_token_for_token_those_of_the_plain_step(architecture, backend, monkeypatch):
    """Answers of many lengths, so that rows leave while others go on."""
    draw = partial(sample, policy(architecture), brief(), prompts(3), k=3, max_new_tokens=12, seed=1)
    plain = draw()
    monkeypatch.setattr("prefloop.models.compiled.compiled_for", lambda *given: pytest.fail("the step in C"))
    made = draw(compile=True)
    assert torch.equal(made.tokens, plain.tokens)
    assert_close(made.logprobs, plain.logprobs)
    assert len(set((plain.length - plain.prompt_length).tolist())) > 2


def test_a_model_whose_step_is_not_written_down_is_refused():
    with pytest.raises(ConfigError, match=r"compile=true compiles the step .* \(llama, bfloat16\) is read by itself"):
        fused_decoder_of(policy().bfloat16(), 20)


def test_without_a_compiler_it_says_so(monkeypatch):
    def broken(*given):
        raise RuntimeError("no C++ compiler\nand more")

    monkeypatch.setattr("prefloop.models.decoder.fused", lambda kind: (broken, broken))
    with pytest.raises(
        ConfigError, match=r"torch.compile does not work here\n  RuntimeError: no C\+\+ compiler\n  leave compile out"
    ):
        fused_decoder_of(policy(), 20)


def test_a_step_that_says_something_else_is_refused(monkeypatch):
    monkeypatch.setattr("prefloop.models.decoder.fused", lambda kind: (lambda decoder, layer, x, seen: x, Decoder.logits))
    with pytest.raises(ConfigError, match="the compiled step says something else than the model"):
        fused_decoder_of(policy(), 20)
