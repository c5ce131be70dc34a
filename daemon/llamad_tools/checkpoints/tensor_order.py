"""Rows, columns and elements of a checkpoint's tensor in another order, read as they are needed.

Owns nothing of what the order means: that is up to a family's own file.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from llamad_tools.checkpoints.source import Rows, SourceTensor

Order = NDArray[np.int64]
"""(n,): which of theirs is at each place of ours"""


def pick(tensor: SourceTensor, order: Order) -> SourceTensor:
    """Return the rows of a matrix, or the elements of a vector, that ``order`` names."""
    if len(tensor.shape) == 1:
        return replace(pick_columns(tensor, order), shape=(len(order),))

    def read_rows(start: int, stop: int) -> Rows:
        wanted = order[start:stop]
        runs = np.split(wanted, np.flatnonzero(np.diff(wanted) != 1) + 1)
        return np.concatenate([tensor.read_rows(int(r[0]), int(r[-1]) + 1) for r in runs])

    return replace(tensor, shape=(len(order), tensor.n_cols), read_rows=read_rows)


def pick_columns(tensor: SourceTensor, order: Order) -> SourceTensor:
    """Return the columns of a matrix of floats that ``order`` names."""

    def read_rows(start: int, stop: int) -> Rows:
        rows = tensor.read_rows(start, stop)
        values = rows.reshape(len(rows), tensor.n_cols, -1)
        return np.ascontiguousarray(values[:, order]).reshape(len(rows), -1)

    return replace(tensor, shape=(*tensor.shape[:-1], len(order)), read_rows=read_rows)


def without_middle(tensor: SourceTensor) -> SourceTensor:
    """Return a table of shape (channels, 1, width) as (channels, width); others as they are."""
    match tensor.shape:
        case (channels, 1, width):
            return replace(tensor, shape=(channels, width))
    return tensor


def as_rows(tensor: SourceTensor, n_rows: int) -> SourceTensor:
    """Return a vector as a table of so many rows; one that has no such length as it is."""
    if len(tensor.shape) != 1 or tensor.shape[0] % n_rows:
        return tensor

    def read_rows(start: int, stop: int) -> Rows:
        return tensor.read_rows(0, 1).reshape(n_rows, -1)[start:stop]

    return replace(tensor, shape=(n_rows, tensor.shape[0] // n_rows), read_rows=read_rows)


def heads_in_order(heads: Sequence[int] | Order, head_dim: int) -> Order:
    """Return the rows of these heads, in that order."""
    first = np.asarray(heads, np.int64)[:, None] * head_dim
    return (first + np.arange(head_dim)).reshape(-1)
