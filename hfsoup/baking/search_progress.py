"""How far a search has come, told to whoever watches."""

from __future__ import annotations

from collections.abc import Callable

from hfsoup.averaging.mix import Mix
from hfsoup.baking.workload import count_search_images
from hfsoup.evaluation.scores import Score
from hfsoup.utils.progress import Stage


class SearchProgress:
    """The score of a mix, with every one told to `stage`: the best so far, and how many there can still be.

    Args:
        stage: counts images.
        score: the score of a mix on the selection split, or a bound where it is sure not to reach what comes second.
        size: how many ingredients there are.
        most: the most mixes that the recipe asks for; None where it does not tell.
        images: how many images one pass over the selection split forwards.
        modes: how many passes a mix of several ingredients takes.
        after: images that follow the search, or that are looked at between mixes.
    """

    def __init__(
        self, stage: Stage, score: Callable[[Mix, float | None], Score], *,
        size: int, most: int | None, images: int, modes: int = 1, after: int = 0,
    ) -> None:  # fmt: skip
        self._stage, self._score, self._size, self._most = stage, score, size, most
        self._images, self._modes = images, modes
        self.scored = self._other_images = 0
        self.best: Score | None = None
        if most is not None:
            stage.expect(self._count_images(most) + after)

    def __call__(self, mix: Mix, least: float | None = None) -> Score:
        """The score, once told."""
        found = self._score(mix, least)
        self.scored += 1
        if not found.at_most and (self.best is None or found.key > self.best.key):
            self.best = found
        left = "" if self._most is None else f", ≤ {max(self._most - self.scored, 0)} to go"
        self._stage.reach(self._count_images(self.scored), f"best {self.best.value:.4f}{left}" if self.best else "")
        return found

    def add_other_images(self, images: int) -> None:
        """So many images were looked at that are of no mix."""
        self._other_images += images
        self._stage(images)

    def show(self, text: str) -> None:
        """How something else stands that is done in between."""
        self._stage.reach(self._count_images(self.scored), text)

    def finish(self) -> None:
        """The search is over; what follows is scored on other images."""
        if self._most is not None:
            self._stage.reach(self._count_images(self._most), "the test split")

    def _count_images(self, mixes: int) -> int:
        """Images of so many mixes: single ingredients come first and take one pass each."""
        counted = count_search_images(mixes, ingredients=self._size, selection=self._images, modes=self._modes)
        return counted + self._other_images
