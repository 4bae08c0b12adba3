"""What is true of every loss. Each law takes one small example of a loss and fails with an AssertionError where it does not hold.

    @pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
    def test_the_law_holds(law): law(Example(nll, arguments, differentiable=("logprobs",)))

An example must be worth testing: several rows, sizes that differ from axis to axis, no number at a kink of the loss. In every
argument the first axis is the row and the second, if any, may be padded.
"""

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import product

import torch
from torch import Tensor

from prefloop.ops.loss import Loss
from tests.helpers import assert_close

STEP = 1e-4  # of a nudge; central differences are then exact to about its square


@dataclass(frozen=True)
class Example:
    """A loss with arguments in float64 to try it on."""

    loss: Callable[..., Loss]
    arguments: dict[str, Tensor]  # in the order of the signature
    differentiable: tuple[str, ...]  # the arguments that carry a gradient
    settings: dict[str, float] = field(default_factory=dict)

    def __call__(self) -> Loss:
        return self.loss(*self.arguments.values(), **self.settings)

    @property
    def n_rows(self) -> int:
        return len(next(iter(self.arguments.values())))

    def with_(self, **arguments: Tensor) -> "Example":
        return replace(self, arguments={**self.arguments, **arguments})

    def rows(self, chosen: Tensor) -> "Example":
        return replace(self, arguments={name: argument[chosen] for name, argument in self.arguments.items()})


def gradients(example: Example) -> dict[str, Tensor]:
    leaves = {name: example.arguments[name].clone().requires_grad_() for name in example.differentiable}
    found = torch.autograd.grad(example.with_(**leaves)().value, list(leaves.values()))
    return dict(zip(leaves, found, strict=True))


def assert_same(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert actual.keys() == expected.keys()
    for name in expected:
        assert_close(actual[name], expected[name])


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(20)


# ------------------------------------------------------------------------------------------------------ the laws


def parts_add_up_to_the_whole_however_the_rows_are_split(example: Example) -> None:
    whole, slope = example(), gradients(example)
    for membership in product((True, False), repeat=example.n_rows - 1):
        is_first = torch.tensor([True, *membership])
        if is_first.all():
            continue
        parts = [(example.rows(members), members) for members in (is_first, ~is_first)]
        first, rest = (part() for part, _ in parts)
        assert_close(first.value + rest.value, whole.value)
        assert_same({name: first.metrics[name] + rest.metrics[name] for name in first.metrics}, whole.metrics)
        for part, members in parts:
            assert_same(gradients(part), {name: expected[members] for name, expected in slope.items()})


def padding_columns_are_not_read(example: Example) -> None:
    """Columns without weight or candidates change nothing, not even when they hold numbers that are none."""
    padded = example.with_(**{name: with_padding(name, argument) for name, argument in example.arguments.items()})
    assert_close(padded().value, example().value)
    assert_same(padded().metrics, example().metrics)
    before, after = gradients(example), gradients(padded)
    for name, expected in before.items():
        if expected.dim() < 2:
            assert_close(after[name], expected)
            continue
        width = expected.shape[1]
        assert_close(after[name][:, :width], expected)
        assert_close(after[name][:, width:], torch.zeros_like(after[name][:, width:]))


def with_padding(name: str, argument: Tensor) -> Tensor:
    if argument.dim() < 2:
        return argument
    filler = 0.0 if name == "weight" or argument.dtype == torch.bool else torch.nan if argument.is_floating_point() else -1
    return torch.cat([argument, torch.full_like(argument[:, :1], filler), torch.full_like(argument[:, :1], filler)], 1)


def the_order_of_rows_does_not_matter(example: Example) -> None:
    order = torch.randperm(example.n_rows, generator=generator())
    shuffled = example.rows(order)
    assert_close(shuffled().value, example().value)
    assert_same(shuffled().metrics, example().metrics)
    assert_same(gradients(shuffled), {name: slope[order] for name, slope in gradients(example).items()})


def the_value_scales_with_the_weight(example: Example) -> None:
    doubled = example.with_(weight=2 * example.arguments["weight"])
    assert_close(doubled().value, 2 * example().value)
    assert_same(doubled().metrics, {name: 2 * metric for name, metric in example().metrics.items()})


def arguments_are_left_as_they_were(example: Example) -> None:
    """Neither written to, not even with the same numbers, nor asked for a gradient."""
    kept = {name: argument.clone() for name, argument in example.arguments.items()}
    versions = {name: argument._version for name, argument in example.arguments.items()}
    example()
    for name, argument in example.arguments.items():
        assert argument._version == versions[name], f"{name} was written to"
        assert not argument.requires_grad, f"{name} was made to require a gradient"
        assert_close(argument, kept[name])


def the_docstring_gives_the_shape_of_every_argument(example: Example) -> None:
    """A line per tensor, ``name  A B  what it is``, in the order of the signature; one size per letter."""
    documented = dict(re.findall(r"^(\w+) +([A-Z](?: [A-Z])*)(?:  .*)?$", inspect.getdoc(example.loss) or "", re.MULTILINE))
    parameters = inspect.signature(example.loss).parameters.values()
    tensors = [parameter.name for parameter in parameters if parameter.kind is not parameter.KEYWORD_ONLY]
    assert list(example.arguments) == tensors
    assert list(documented) == tensors, f"documented {list(documented)}, taken {tensors}"
    sizes: dict[str, int] = {}
    for name, axes in documented.items():
        shape = example.arguments[name].shape
        assert len(axes.split()) == len(shape), f"{name} is documented as {axes}, the example has {tuple(shape)}"
        for axis, size in zip(axes.split(), shape, strict=True):
            assert sizes.setdefault(axis, size) == size, f"axis {axis} is {sizes[axis]} and, in {name}, {size}"
    assert len(set(sizes.values())) == len(sizes), f"the example cannot tell the axes apart: {sizes}"


def a_nudge_moves_the_value_by_the_gradient(example: Example) -> None:
    for name, slope in gradients(example).items():
        argument = example.arguments[name]
        direction = torch.randn(argument.shape, generator=generator(), dtype=argument.dtype)
        ahead, behind = (example.with_(**{name: argument + sign * STEP * direction})().value for sign in (1, -1))
        measured = (ahead - behind) / (2 * STEP)
        assert abs(measured) > 1e-3, f"{name} has no effect"
        assert_close((slope * direction).sum().float(), measured.float())


def no_argument_is_dead(example: Example) -> None:
    """A value that ignores an argument or a setting was forgotten, or need not be passed."""
    value = example().value
    for name, argument in example.arguments.items():
        assert abs(example.with_(**{name: changed(argument)})().value - value) > 1e-6, f"{name} has no effect"
    for name, setting in example.settings.items():
        other = replace(example, settings={**example.settings, name: 0.5 * setting})
        assert abs(other().value - value) > 1e-6, f"{name} has no effect"


def changed(argument: Tensor) -> Tensor:
    if argument.dtype == torch.bool:
        only_first = torch.zeros_like(argument)
        only_first.view(-1)[0] = True
        return argument ^ only_first
    if argument.is_floating_point():
        return argument * (1 + 0.5 * torch.rand(argument.shape, generator=generator(), dtype=argument.dtype))
    return argument.flip(1)


def metrics_are_detached_scalars_and_hold_the_loss(example: Example) -> None:
    leaves = {name: example.arguments[name].clone().requires_grad_() for name in example.differentiable}
    loss = example.with_(**leaves)()
    assert loss.value.shape == ()
    assert loss.value.requires_grad
    for name, metric in loss.metrics.items():
        assert metric.shape == (), f"{name} has shape {tuple(metric.shape)}"
        assert not metric.requires_grad, f"{name} holds on to the graph"
    assert_close(loss.metrics["loss"], loss.value.detach())


def the_precision_is_that_of_the_arguments(example: Example) -> None:
    single = {name: argument.float() for name, argument in example.arguments.items() if argument.is_floating_point()}
    assert example().value.dtype == torch.float64
    assert example.with_(**single)().value.dtype == torch.float32
    assert_close(example.with_(**single)().value, example().value.float())


LAWS = (
    parts_add_up_to_the_whole_however_the_rows_are_split,
    padding_columns_are_not_read,
    the_order_of_rows_does_not_matter,
    the_value_scales_with_the_weight,
    arguments_are_left_as_they_were,
    the_docstring_gives_the_shape_of_every_argument,
    a_nudge_moves_the_value_by_the_gradient,
    no_argument_is_dead,
    metrics_are_detached_scalars_and_hold_the_loss,
    the_precision_is_that_of_the_arguments,
)
