from itertools import count

import numpy as np
import pytest
import torch

from tests import ports
from tests.helpers import assert_close
from tests.ports import free_port


@pytest.mark.parametrize(
    ("actual", "expected"),
    [
        (999.0, -1.2),
        (1.0, 1.0 + 1e-8),  # Python numbers are float64
        (np.float32(1.0), 1.0001),
        (torch.tensor([1.0, 2.0]), [1.0, 2.1]),
        (torch.tensor([1.0, 2.0], dtype=torch.float64), [1.0, 2.0 + 1e-7]),
        (torch.tensor([1.0]), 1.0),  # another shape
        (float("nan"), 1.0),
        (float("inf"), 1.0),
    ],
)
def test_what_differs_is_refused(actual, expected):
    with pytest.raises(AssertionError):
        assert_close(actual, expected)


@pytest.mark.parametrize(
    ("actual", "expected"),
    [
        (torch.tensor([1.0, 2.0]), [1.0, 2.000001]),
        (torch.tensor(3, dtype=torch.int64), 3),
        (1e12, 1e12 + 1),  # relative to what is expected
        (float("inf"), float("inf")),
        ([float("nan"), 1.0], [float("nan"), 1.0]),
    ],
)
def test_what_is_equal_but_for_rounding_is_accepted(actual, expected):
    assert_close(actual, expected)


def test_a_free_port_is_given_to_one_process_only(monkeypatch):
    given = {free_port() for _ in range(3)}
    monkeypatch.setattr(ports, "numbers", count())  # as in a process whose id leads to the same numbers
    assert len(given | {free_port() for _ in range(3)}) == 6
