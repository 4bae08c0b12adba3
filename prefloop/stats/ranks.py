"""Ties, settled the same way everywhere: equal values share what their places would have got. Rows are independent."""

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]


def shared_over_ties(key: Values, value: Values) -> Values:
    """``value`` in ascending order of ``key``, where equal keys of a row each get the mean of their values.  ... N"""
    order = np.argsort(key, axis=-1, kind="stable")
    return mean_over_runs(np.take_along_axis(key, order, -1), np.take_along_axis(value, order, -1))


def mean_over_runs(ordered: Values, value: Values) -> Values:
    """``value`` averaged over each run of equal neighbours in ``ordered``.  ... N"""
    is_new = np.ones(ordered.shape, dtype=bool)
    is_new[..., 1:] = ordered[..., 1:] != ordered[..., :-1]  # a row's first place is always new, so runs end with rows
    run = np.cumsum(is_new.ravel()) - 1
    return (np.bincount(run, weights=value.ravel()) / np.bincount(run))[run].reshape(ordered.shape)


def average_ranks(values: Values) -> Values:
    """1 for the lowest of a row up to N for the highest; equal values share the mean of their ranks.  ... N"""
    order = np.argsort(values, axis=-1, kind="stable")
    rank = np.broadcast_to(np.arange(1.0, values.shape[-1] + 1), values.shape)
    shared = mean_over_runs(np.take_along_axis(values, order, -1), rank)
    ranks = np.empty(values.shape)
    np.put_along_axis(ranks, order, shared, -1)
    return ranks
