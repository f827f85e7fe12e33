"""Rows of a split: two halves, or at most so many, every class in its share and always the same ones.

Labels are one class a row, or rows × classes of 0 and 1; then it is the set of classes of a row that is shared out.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray


def halves(labels: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Two halves with the same share of every class or set: one after the other, in a fixed shuffled order, in turn."""
    order = np.concatenate(_by_class(labels))
    return np.sort(order[0::2]), np.sort(order[1::2])


def limited(labels: NDArray[np.int64], limit: int) -> NDArray[np.int64]:
    """At most `limit` rows, every class or set in about its share, always the same ones."""
    if labels.ndim > 1:
        # Sets may be as many as rows: they are drawn evenly from their order.
        order, count = np.concatenate(_by_class(labels)), min(limit, len(labels))
        return np.sort(order[np.arange(count) * len(order) // count])
    seats = [((n + 0.5) / len(rows), row) for rows in _by_class(labels) for n, row in enumerate(rows.tolist())]
    return np.sort(np.array([row for _, row in sorted(seats)[:limit]], np.int64))


def _by_class(labels: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """The rows of each class, in an order that is shuffled by a hash of the row and so the same everywhere."""
    keys = np.array([int.from_bytes(hashlib.sha256(b"%d" % row).digest()[:8], "big") for row in range(len(labels))])
    values, places = np.unique(labels, axis=0, return_inverse=True)
    groups = [np.flatnonzero(places.ravel() == n) for n in range(len(values))]
    return [rows[np.argsort(keys[rows], kind="stable")] for rows in groups]
