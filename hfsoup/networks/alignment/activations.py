"""Correlations between the activations of two ingredients, at every axis that groups permute."""

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


@dataclass
class PairMoments:
    """Sums over images and positions of one site of two ingredients."""

    count: int = 0
    sums: list[NDArray[np.float64]] = field(default_factory=list)
    squares: list[NDArray[np.float64]] = field(default_factory=list)
    products: NDArray[np.float64] = field(default_factory=lambda: np.zeros(()))

    def add(self, a: torch.Tensor, b: torch.Tensor) -> None:
        """Take in rows × channels of both."""
        new = [to_float64(x).sum(0).cpu().numpy() for x in (a, b)]
        new += [to_float64(x.square()).sum(0).cpu().numpy() for x in (a, b)]
        product = (a.T @ b).cpu().double().numpy()
        held = [*self.sums, *self.squares] or [np.zeros(())] * 4
        new = [x + y for x, y in zip(held, new, strict=True)]
        self.sums, self.squares, self.products = new[:2], new[2:], self.products + product
        self.count += len(a)

    def correlations(self) -> NDArray[np.float64]:
        """Pearson's, channel by channel; 0 for a channel that never changes."""
        means = [s / self.count for s in self.sums]
        spreads = [np.sqrt(np.maximum(q / self.count - m**2, 0)) for q, m in zip(self.squares, means, strict=True)]
        covariance = self.products / self.count - np.outer(*means)
        floor = [1e-6 * max(float(s.max()), 1e-30) for s in spreads]
        inverse = [np.where(s > f, 1 / np.maximum(s, f), 0) for s, f in zip(spreads, floor, strict=True)]
        return covariance * np.outer(*inverse)


def find_sites(groups: Sequence[Group], network: Network) -> list[Site]:
    """Where a group's activations are seen: at the inputs of the layers that read them, else at the outputs."""
    found: dict[Site, None] = {}
    for group in groups:
        weights = [m for m in group.members if m.tensor.endswith(".weight")]
        read = [m for m in weights if m.axis == 1]
        for member in read or [m for m in weights if m.axis == 0]:
            found[member.tensor, member.axis] = None
    return [site for site in found if network.has_weight(site[0])]


def correlate_activations(
    network: Network, first: State, other: State, images: torch.Tensor, where: Iterable[Site]
) -> dict[Site, NDArray[np.float64]]:
    """How alike the channels of two ingredients are at each site, over images and positions.

    Args:
        network: takes the weights of both.
        first: the ingredient whose channels are rows.
        other: the one whose channels are columns.
        images: what both see, images × channels × height × width; no labels.
        where: the sites.
    """
    found = {site: PairMoments() for site in where}
    for begin in range(0, len(images), BATCH):
        seen: list[dict[Site, torch.Tensor]] = []
        for state in (first, other):
            network.load(state)
            rows: dict[Site, torch.Tensor] = {}
            watched = [
                (name.removesuffix(".weight"), axis == 0, _collect_rows(rows, (name, axis))) for name, axis in found
            ]
            network.run(images[begin : begin + BATCH], watched)
            seen.append(rows)
        for site, moments in found.items():
            moments.add(seen[0][site], seen[1][site])
    return {site: moments.correlations() for site, moments in found.items()}


def _collect_rows(rows: dict[Site, torch.Tensor], site: Site) -> Observe:
    def see(given: torch.Tensor) -> None:
        # Channels come second in images and last in tokens.
        channels = given.movedim(1, -1) if given.ndim == 4 else given
        rows[site] = channels.reshape(-1, channels.shape[-1]).float()

    return see
