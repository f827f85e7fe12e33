"""How many images each order of them takes until a search is decided, and the least that any order could take.

Every mix of a search is evaluated on all images once (`--no-race`); what each order would have cost is counted from its
answers. A candidate that is accepted needs all images, for its exact score is what the next ones are compared with; one
that is turned down needs one error more than it may have, and no order finds these in fewer images than there are of
them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(1, str(Path(__file__).parents[2]))

from hfsoup.evaluation.racing import find_cut

SECTION = "orders"
BATCHES = (1, 32)
NOTE = (
    "The family of the section race. Shares are of the images that --no-race evaluates to search, ingredients included."
)
Members = frozenset[int]
Sureness = NDArray[np.float64]


@dataclass(frozen=True)
class Evaluated:
    """A mix's probability of each image's true class, and whether it is right, in the order of the split."""

    sureness: Sureness
    right: NDArray[np.bool_]


@dataclass(frozen=True)
class Step:
    """A candidate with the errors that it may have, whether it was accepted, and the mix that it differs from."""

    mix: Members
    allowed: int
    accepted: bool
    before: Members


@dataclass(frozen=True)
class Search:
    """All mixes of a search, how many ingredients there are, and the steps that evaluated something new."""

    known: Mapping[Members, Evaluated]
    count: int
    steps: tuple[Step, ...]


def run(setting: Any) -> Iterator[Any]:
    """The section's rows."""
    import bench_race
    from checkpoints import remove
    from timing import Row

    home = setting.home / "race"
    folders, data = bench_race.models(home), bench_race.dataset(home / "data")
    for recipe in ("greedy", "pruned"):
        search = record_search(folders, data, recipe)
        for batch in BATCHES:
            for name, share in count_shares(search, batch).items():
                yield Row(SECTION, f"{recipe}, batches of {batch}: {name}", "--no-race", share)
    remove(home)


def record_search(folders: Sequence[Path], data: Path, recipe: str, **options: Any) -> Search:
    """Search with every mix evaluated on all images."""
    import hfsoup
    from hfsoup.evaluation.scorer import Scorer

    known: dict[Members, Evaluated] = {}
    inner = Scorer._predictions

    def record(self: Scorer, mix: Any, split: Any, bn: str, least: float | None) -> Any:
        found = inner(self, mix, split, bn, least)
        order = self._order(mix, split)
        stored = self._found[self._predictions_key(mix, split, bn, order)]
        sureness = np.empty(len(split))
        sureness[order] = stored["true_class_probability"]
        if "validation" in split.name:
            known.setdefault(
                frozenset(mix.members), Evaluated(sureness, self._right(found.values, split, _plain(split)))
            )
        return found

    Scorer._predictions = record  # type: ignore[method-assign]
    try:
        soup = hfsoup.bake(*map(str, folders), recipe=recipe, dataset=str(data), race=False, bn="average", **options)
    finally:
        Scorer._predictions = inner  # type: ignore[method-assign]
    begin = frozenset({soup.best}) if recipe == "greedy" else frozenset(range(len(folders)))
    return Search(known, len(folders), tuple(_list_steps(soup.trace, begin, known)))


def _plain(split: Any) -> NDArray[np.int64]:
    return np.arange(len(split))


def _list_steps(trace: Sequence[Any], begin: Any, known: Mapping[Members, Evaluated]) -> Iterator[Step]:
    """The steps of greedy or pruned; of mixes that were evaluated before the first one alone."""
    current, seen = begin, {frozenset({i}) for mix in known for i in mix} | {begin}
    for taken in trace:
        mix = current | {taken.ingredient} if taken.action == "add" else current - {taken.ingredient}
        if mix not in seen:
            yield Step(mix, int((~known[current].right).sum()), taken.accepted, current)
            seen.add(mix)
        current = mix if taken.accepted else current


def count_shares(search: Search, batch: int) -> dict[str, float]:
    """The images that each order evaluates, as a share of all."""
    size = len(next(iter(search.known.values())).right)
    start = search.count * size + (size if frozenset(range(search.count)) in {s.before for s in search.steps} else 0)
    whole = start + size * len(search.steps)
    found = {
        name: start + sum(_count(search, step, order, batch) for step in search.steps) for name, order in ORDERS.items()
    }
    least = [size if step.accepted else min(size, -(-(step.allowed + 1) // batch) * batch) for step in search.steps]
    return {name: images / whole for name, images in found.items()} | {
        "the least of any order": (start + sum(least)) / whole
    }


def _count(search: Search, step: Step, order: Any, batch: int) -> int:
    right = search.known[step.mix].right[np.argsort(order(search, step), kind="stable")]
    return find_cut(right, len(right), batch, step.allowed).seen


def _mean_of_ingredients(search: Search, _: Step) -> Sureness:
    mean: Sureness = np.mean([search.known[frozenset({i})].sureness for i in range(search.count)], axis=0)
    return mean


def _errors_so_far(search: Search, step: Step) -> Sureness:
    """How many of the mixes that were evaluated on all images before are right, then the mean of the ingredients."""
    done = [frozenset({i}) for i in range(search.count)] + [s.mix for s in _before(search, step) if s.accepted]
    share: Sureness = np.mean([search.known[mix].right for mix in done], axis=0)
    return share + _mean_of_ingredients(search, step) / 1000


def _before(search: Search, step: Step) -> list[Step]:
    return list(search.steps[: search.steps.index(step)])


def _nearest(search: Search, step: Step) -> Sureness:
    """What the mix that the candidate differs from by one ingredient gives the true class."""
    return search.known[step.before].sureness


def _nearest_and_ingredient(search: Search, step: Step) -> Sureness:
    """The mean of that and of what the ingredient gives alone."""
    (other,) = step.mix ^ step.before
    sign = 1 if other in step.mix else -1
    share = sign / len(step.mix)
    return search.known[step.before].sureness + share * search.known[frozenset({other})].sureness


ORDERS = {
    "as they come": lambda search, step: np.zeros(len(search.known[step.mix].right)),
    "hardest for the ingredients first (in use)": _mean_of_ingredients,
    "wrong most often so far first": _errors_so_far,
    "hardest for the mix before first": _nearest,
    "hardest for that with the ingredient's share first": _nearest_and_ingredient,
}


def main() -> None:
    """Print the shares for other models: bench_orders.py DATASET LIMIT MODEL..."""
    data, limit, *folders = sys.argv[1:]
    for recipe in ("greedy", "pruned"):
        search = record_search(list(map(Path, folders)), Path(data), recipe, limit=int(limit))
        for batch in (1, 16, 64):
            for name, share in count_shares(search, batch).items():
                print(f"{recipe}, batches of {batch}, {len(search.steps)} steps: {name}: {share:.3f}", flush=True)


if __name__ == "__main__":
    main()
