"""Correlations between the activations of two ingredients, for every axis that a group permutes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from hfsoup.averaging.accumulators import to_float64
from hfsoup.networks.alignment.groups import Group
from hfsoup.networks.network import BATCH, Network, Observe, State

Site = tuple[str, int]
"""A weight and one of its axes: 1 for the inputs of its layer, 0 for the outputs."""


@dataclass
class PairMoments:
    """Sums over images and positions at one site of two ingredients, in float64."""

    count: int = 0
    sums: list[NDArray[np.float64]] = field(default_factory=list)
    squares: list[NDArray[np.float64]] = field(default_factory=list)
    products: NDArray[np.float64] = field(default_factory=lambda: np.zeros(()))

    def add(self, a: torch.Tensor, b: torch.Tensor) -> None:
        """Add a batch: rows × channels of both."""
        new = [to_float64(x).sum(0).cpu().numpy() for x in (a, b)]
        new += [to_float64(x.square()).sum(0).cpu().numpy() for x in (a, b)]
        product = (a.T @ b).cpu().double().numpy()
        before = [*self.sums, *self.squares] or [np.zeros(())] * 4
        new = [x + y for x, y in zip(before, new, strict=True)]
        self.sums, self.squares, self.products = new[:2], new[2:], self.products + product
        self.count += len(a)

    def correlate(self) -> NDArray[np.float64]:
        """Pearson correlations, channels × channels; 0 for a channel that is constant."""
        means = [s / self.count for s in self.sums]
        spreads = [np.sqrt(np.maximum(q / self.count - m**2, 0)) for q, m in zip(self.squares, means, strict=True)]
        covariance = self.products / self.count - np.outer(*means)
        floor = [1e-6 * max(float(s.max()), 1e-30) for s in spreads]
        inverse = [np.where(s > f, 1 / np.maximum(s, f), 0) for s, f in zip(spreads, floor, strict=True)]
        return covariance * np.outer(*inverse)


def find_sites(groups: Sequence[Group], network: Network) -> list[Site]:
    """Where the activations of groups are observed: at the inputs of the layers that take them, else at the outputs."""
    found: dict[Site, None] = {}
    for group in groups:
        weights = [m for m in group.members if m.tensor.endswith(".weight")]
        inputs = [m for m in weights if m.axis == 1]
        for member in inputs or [m for m in weights if m.axis == 0]:
            found[member.tensor, member.axis] = None
    return [site for site in found if network.has_weight(site[0])]


def correlate_activations(
    network: Network, first: State, other: State, images: torch.Tensor, where: Iterable[Site]
) -> dict[Site, NDArray[np.float64]]:
    """The correlations of the channels of two ingredients at each site, over images and positions.

    Args:
        network: the model, which loads the weights of both.
        first: the ingredient whose channels are rows.
        other: the one whose channels are columns.
        images: the inputs of both, images × channels × height × width.
        where: the sites.
    """
    found = {site: PairMoments() for site in where}
    for begin in range(0, len(images), BATCH):
        observed: list[dict[Site, torch.Tensor]] = []
        for state in (first, other):
            network.load(state)
            rows: dict[Site, torch.Tensor] = {}
            watched = [
                (name.removesuffix(".weight"), axis == 0, _collect_rows(rows, (name, axis))) for name, axis in found
            ]
            network.run(images[begin : begin + BATCH], watched)
            observed.append(rows)
        for site, moments in found.items():
            moments.add(observed[0][site], observed[1][site])
    return {site: moments.correlate() for site, moments in found.items()}


def _collect_rows(rows: dict[Site, torch.Tensor], site: Site) -> Observe:
    def observe(activations: torch.Tensor) -> None:
        # Channels are axis 1 of feature maps and the last axis of tokens.
        channels = activations.movedim(1, -1) if activations.ndim == 4 else activations
        rows[site] = channels.reshape(-1, channels.shape[-1]).float()

    return observe
