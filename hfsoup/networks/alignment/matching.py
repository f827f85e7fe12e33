"""Matches the units of two ingredients by linear assignment, group by group.

Source: Ainsworth et al., "Git Re-Basin", arXiv:2209.04836.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from hfsoup.networks.alignment.activations import correlate_activations, find_sites
from hfsoup.networks.alignment.groups import Group, Member, Order, permute_group
from hfsoup.networks.network import Network, State
from hfsoup.utils.errors import SoupError
from hfsoup.utils.extras import require_extra

Matrix = NDArray[np.float64]
STATISTICS = ("running_mean", "running_var")
PASSES = 100
GAIN = 1e-9


class Similarity(Protocol):
    """The similarity of the positions along an axis: rows of the first ingredient, columns of the other."""

    def __call__(self, member: Member) -> Matrix | None:
        """Positions × positions; None for an axis that is not compared."""


def assign_units(group: Group, similarity: Similarity) -> tuple[Order, float]:
    """The best order of the other's units, and the similarity that it gains over the present order."""
    total = np.zeros((group.size, group.size))
    parts: dict[tuple[str, int], Matrix] = {}
    for member in group.members:
        whole = similarity(member)
        if whole is None:
            continue
        positions = member.find_positions(group.size).ravel()
        found = whole[np.ix_(positions, positions)]
        parts[member.part, member.width] = parts.get((member.part, member.width), 0.0) + found
    for (_, width), matrix in parts.items():
        if not np.isfinite(matrix).all():
            raise SoupError("expected finite weights and activations, found NaN or infinity", where=group.name)
        total += matrix if width == 1 else _compare_blocks(matrix, width)
    rows, order = _assign(total)
    return order.astype(np.int64), float(total[rows, order].sum() - np.trace(total))


def _assign(similarity: Matrix) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The rows and columns of the assignment whose similarity is largest."""
    require_extra("align", "scipy", "alignment")
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(similarity, maximize=True)
    return rows, columns


def _compare_blocks(matrix: Matrix, width: int) -> Matrix:
    """The similarity of units of `width` positions that may be permuted inside."""
    units = len(matrix) // width
    blocks = matrix.reshape(units, width, units, width).swapaxes(1, 2)
    found = np.empty((units, units))
    for a, b in np.ndindex(units, units):
        rows, columns = _assign(blocks[a, b])
        found[a, b] = blocks[a, b][rows, columns].sum()
    return found


def match_by_weights(
    groups: Sequence[Group], first: Mapping[str, Matrix], other: dict[str, Matrix], seed: int
) -> list[tuple[Group, Order]]:
    """Match by inner products of weights: coordinate descent over the groups in random order until none gains.

    Args:
        groups: the axes that may be permuted.
        first: the tensors of the reference, as float64 arrays.
        other: those of the ingredient to permute; changed in place.
        seed: of the order of the groups.

    Returns:
        Groups with orders, to apply one after the other.
    """
    random, steps = np.random.default_rng(seed % (1 << 64)), []

    def compare(member: Member) -> Matrix | None:
        if member.tensor.endswith(STATISTICS) or member.tensor not in first:
            return None
        a, b = (np.moveaxis(tensors[member.tensor], member.axis, 0) for tensors in (first, other))
        found: Matrix = a.reshape(len(a), -1) @ b.reshape(len(b), -1).T
        return found

    for _ in range(PASSES):
        gained = False
        for n in random.permutation(len(groups)):
            order, gain = assign_units(groups[n], compare)
            if gain > GAIN:
                steps.append((groups[n], order))
                other.update(permute_group(other, groups[n], order))
                gained = True
        if not gained:
            break
    return steps


def match_by_similarity(groups: Sequence[Group], found: dict[tuple[str, int], Matrix]) -> list[tuple[Group, Order]]:
    """Match by given similarities, such as correlations of activations: one assignment for each group.

    Groups are matched in the order given: one whose units contain those of others comes before these.

    Args:
        groups: the axes that may be permuted.
        found: positions × positions by tensor and axis; changed in place.

    Returns:
        Groups with orders, to apply one after the other.
    """
    steps = []
    for group in groups:
        order, gain = assign_units(group, lambda member: found.get((member.tensor, member.axis)))
        if gain <= GAIN:
            continue
        steps.append((group, order))
        for member in group.members:
            key = member.tensor, member.axis
            if key in found:
                found[key] = found[key][:, member.expand_order(group.size, len(found[key]), order)]
    return steps


def match_units(
    first: State,
    other: State,
    groups: Sequence[Group],
    seed: int,
    network: Network | None = None,
    images: torch.Tensor | None = None,
) -> list[tuple[Group, Order]]:
    """The orders that align `other` with `first`: by activations if there is a network, else by weights."""
    if network is not None and images is not None:
        return match_by_similarity(
            groups, correlate_activations(network, first, other, images, find_sites(groups, network))
        )
    return match_by_weights(groups, _to_float64(first), _to_float64(other), seed)


def _to_float64(state: State) -> dict[str, np.ndarray[Any, np.dtype[np.float64]]]:
    return {name: t.detach().cpu().double().numpy() for name, t in state.items() if t.is_floating_point()}
