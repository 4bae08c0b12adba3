import numpy as np
import pytest
import torch

from tests.helpers import assert_close


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
