"""The progress of a search: images scored, the best score so far, candidates left."""

from __future__ import annotations

from collections.abc import Callable

from hfsoup.averaging.mix import Mix
from hfsoup.baking.workload import Modes, count_search_images
from hfsoup.evaluation.scores import Score
from hfsoup.utils.progress import Stage


class SearchProgress:
    """Scores mixes, and shows the progress on `stage`: the best score so far, and how many mixes are left at most.

    Args:
        stage: counts images.
        score: the score of a mix on the selection split, or an upper bound below its second argument.
        size: how many ingredients there are.
        most: the most mixes that the recipe scores; None if it does not say.
        images: images of the selection split.
        modes: how often a single ingredient and a mix are scored.
        form: formats a score.
        after: images that are evaluated besides, during or after the search.
    """

    def __init__(
        self, stage: Stage, score: Callable[[Mix, float | None], Score], *,
        size: int, most: int | None, images: int, modes: Modes, form: Callable[[Score], str], after: int = 0,
    ) -> None:  # fmt: skip
        self._format = form
        self._stage, self._score, self._size, self._most = stage, score, size, most
        self._images, self._modes = images, modes
        self.scored = self._other_images = 0
        self.best: Score | None = None
        if most is not None:
            stage.expect(self._count_images(most) + after)

    def __call__(self, mix: Mix, least: float | None = None) -> Score:
        """Score a mix."""
        found = self._score(mix, least)
        self.scored += 1
        if not found.at_most and (self.best is None or found.key > self.best.key):
            self.best = found
        left = "" if self._most is None else f", ≤ {max(self._most - self.scored, 0)} to go"
        self._stage.reach(self._count_images(self.scored), f"best {self._format(self.best)}{left}" if self.best else "")
        return found

    def add_other_images(self, images: int) -> None:
        """Count images that were evaluated for something other than a mix."""
        self._other_images += images
        self._stage(images)

    def show(self, text: str) -> None:
        """Show the state of something else that is done in between."""
        self._stage.reach(self._count_images(self.scored), text)

    def finish(self) -> None:
        """Show that the search is over."""
        if self._most is not None:
            self._stage.reach(self._count_images(self._most), "the test split")

    def _count_images(self, mixes: int) -> int:
        """Images evaluated once this many mixes are scored."""
        counted = count_search_images(mixes, ingredients=self._size, selection=self._images, modes=self._modes)
        return counted + self._other_images
