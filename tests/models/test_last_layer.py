"""The last layer on the places that are read, beside the whole of it."""

import pytest
import torch

from prefloop.models.adapters import with_adapter
from prefloop.models.heads import unwrapped
from prefloop.models.last_layer import behind_attention, reading_only
from tests.helpers import assert_close
from tests.models.tiny import ARCHITECTURES, policy

TOKENS = torch.randint(0, 40, (3, 12), generator=torch.Generator().manual_seed(0))
READ = torch.zeros(3, 12, dtype=torch.bool)
READ[0, 3:7] = READ[1, 11] = READ[2, 0] = True


def states_and_gradients(model, read):
    """The states that are read, and the gradient of their sum of squares for every trained parameter."""
    base = unwrapped(model).base_model
    with reading_only(base, read):
        states = base(input_ids=TOKENS, use_cache=False).last_hidden_state[READ]
    trained = [parameter for parameter in base.parameters() if parameter.requires_grad]
    return states, torch.autograd.grad(states.square().sum(), trained, allow_unused=True)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("kind", ["whole", "adapter"])
def test_what_is_read_and_every_gradient_are_those_of_the_whole_layer(architecture, kind):
    model = policy(architecture).double()
    if kind == "adapter":
        model = with_adapter(model, rank=2, alpha=4, seed=0)
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(1))
    (some, some_gradients), (every, every_gradients) = states_and_gradients(model, READ), states_and_gradients(model, None)
    assert_close(some, every)
    assert any(gradient is not None for gradient in every_gradients)
    for one, other in zip(some_gradients, every_gradients, strict=True):
        assert (one is None) == (other is None)
        if one is not None and other is not None:
            assert_close(one, other)


def rows_given_to(model, read) -> list[int]:
    """How many tokens each part of the last layer is given."""
    seen: list[int] = []
    base = model.base_model
    with reading_only(base, read):  # a hook that is added later sees what earlier ones made of it
        hooks = [
            m.register_forward_pre_hook(lambda m, given: seen.append(given[0][..., 0].numel())) for m in behind_attention(base)
        ]
        base(input_ids=TOKENS, use_cache=False)
    for hook in hooks:
        hook.remove()
    return seen


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_rest_is_not_computed_and_afterwards_everything_is_again(architecture):
    model = policy(architecture)
    assert rows_given_to(model, READ) == [6, 6]
    assert rows_given_to(model, None) == [36, 36]
    assert rows_given_to(model, torch.ones_like(READ)) == [36, 36]  # nothing to save


def test_layers_that_are_called_again_in_the_backward_pass_compute_everything():
    model = policy("llama").train()
    model.activation_checkpointing_enable()
    assert rows_given_to(model, READ) == [36, 36]
    states, gradients = states_and_gradients(model, READ)
    model.activation_checkpointing_disable()
    assert_close(states, states_and_gradients(model, None)[0])
    for one, other in zip(gradients, states_and_gradients(model, None)[1], strict=True):
        assert (one is None and other is None) or (assert_close(one, other) is None)
