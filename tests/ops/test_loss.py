import torch

from prefloop.ops.loss import loss_of
from tests.helpers import assert_close


def test_a_loss_carries_its_own_value_and_the_given_metrics_detached_from_the_graph():
    x = torch.tensor(3.0, requires_grad=True)
    loss = loss_of(2 * x, value=x, squared=x**2)
    assert loss.value.requires_grad
    assert [name for name, metric in loss.metrics.items() if metric.requires_grad] == []
    for name, expected in {"loss": 6.0, "value": 3.0, "squared": 9.0}.items():
        assert_close(loss.metrics[name], expected)
