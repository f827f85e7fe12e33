"""The similarity of ingredients' weights, which predicts whether their average can work.

The cosine is over the matrices and convolutions of the body, without norms, biases and the head. It is above 0.9
between fine-tunings of one checkpoint that share a basin, and near 0 between networks from different starts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hfsoup.checkpoints.safetensors_io import FLOATS, TensorFile, is_finite, to_float
from hfsoup.checkpoints.types import TensorSpec

STEP = 1 << 20
BASIN, APART = 0.9, 0.1
"""Cosines above `BASIN` are those of fine-tunings in one basin, below `APART` of networks from different starts."""
Matrix = NDArray[np.float64]
Home = Mapping[str, tuple[TensorFile, TensorSpec]]
Read = Callable[[int, str, int, int], NDArray[np.floating]]


@dataclass(frozen=True)
class Similarity:
    """Cosines between ingredients, of bodies and of heads (None without a head), and the L2 norms of the bodies.

    `broken` are the indices of ingredients with NaN or infinity, each with the first such tensor.
    """

    body: Matrix
    head: Matrix | None
    lengths: NDArray[np.float64]
    broken: tuple[tuple[int, str], ...] = ()

    @property
    def distances(self) -> Matrix:
        """Euclidean distances between bodies, divided by their mean L2 norm."""
        squares = self.lengths**2
        between = squares[:, None] + squares[None] - 2 * self.body * self.lengths[:, None] * self.lengths[None]
        shares: Matrix = np.sqrt(np.maximum(between, 0)) / self.lengths.mean()
        return shares


def measure_similarity(homes: Sequence[Home], heads: frozenset[str]) -> Similarity:
    """Compare ingredients, in one pass over their files.

    Args:
        homes: for each ingredient its tensors, with the open file of each, by common names; those that an ingredient
            lacks are left out.
        heads: the names of the head's tensors.
    """
    names = [n for n in homes[0] if all(n in home and home[n][1].shape == homes[0][n][1].shape for home in homes)]

    def read(i: int, name: str, begin: int, count: int) -> NDArray[np.floating]:
        file, spec = homes[i][name]
        return to_float(file.read(spec, begin, count), spec.dtype)

    matrices = {n: homes[0][n][1].shape for n in names if _is_matrix(homes[0][n][1])}
    body = _sum_inner_products({n: shape for n, shape in matrices.items() if n not in heads}, len(homes), read)
    head = _sum_inner_products({n: shape for n, shape in matrices.items() if n in heads}, len(homes), read)
    # If the inner products are finite, so are the matrices, and only the other tensors are read.
    broken = [
        (i, _find_broken(homes[i], matrices.keys() if fine else set()))
        for i, fine in enumerate(np.isfinite(np.diag(body + head)))
    ]
    return Similarity(
        _normalize(body), _normalize(head) if head.any() else None, np.sqrt(np.diag(body)),
        tuple((i, name) for i, name in broken if name is not None),
    )  # fmt: skip


def _find_broken(home: Home, fine: Set[str]) -> str | None:
    """The first tensor with NaN or infinity, except those known to be `fine`."""
    for name, (file, spec) in home.items():
        if name in fine or spec.dtype not in FLOATS:
            continue
        count = int(np.prod(spec.shape))
        blocks = (file.read(spec, begin, min(STEP, count - begin)) for begin in range(0, count, STEP))
        if not all(is_finite(block, spec.dtype) for block in blocks):
            return name
    return None


def _is_matrix(spec: TensorSpec) -> bool:
    return spec.dtype in FLOATS and len(spec.shape) >= 2 and spec.shape[0] > 1


def _sum_inner_products(tensors: Mapping[str, tuple[int, ...]], size: int, read: Read) -> Matrix:
    """The inner products between all ingredients, over tensors of these shapes, block by block."""
    gram = np.zeros((size, size))
    for name, shape in tensors.items():
        count = int(np.prod(shape))
        for begin in range(0, count, STEP):
            rows = np.stack([read(i, name, begin, min(STEP, count - begin)) for i in range(size)])
            rows = rows.astype(np.float64)
            gram += rows @ rows.T
    return gram


def _normalize(gram: Matrix) -> Matrix:
    lengths = np.sqrt(np.diag(gram))
    cosines: Matrix = gram / np.maximum(lengths[:, None] * lengths[None], np.finfo(np.float64).tiny)
    return cosines
