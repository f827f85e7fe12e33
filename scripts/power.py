"""How often each recipe claims that its soup is better, and how often falsely, on simulated families.

Every recipe of hfsoup runs unchanged; only the scores are simulated. The ingredients of a family are equally accurate
in truth, and a soup of all is so many points more accurate than they are; a soup of fewer has its part of that. Two
mixes are right on the same images the more they have in common. The recipe chooses on selection images, and its soup is
compared with the best single ingredient on test images, by hfsoup's own test. Prints a Markdown table.

    python scripts/power.py --families 300 --points 0 1
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hfsoup.averaging.mix import Mix
from hfsoup.evaluation.intervals import mcnemar_test
from hfsoup.evaluation.scores import Comparison, Score
from hfsoup.recipes import RECIPES
from hfsoup.recipes._line import extrapolate
from hfsoup.recipes._search import Rules, Search

ACCURACY = 0.7
"""Of a single ingredient."""
ALIKE = 0.7
"""The correlation of two ingredients' errors; both are right or both wrong on 78 % of the images."""
FALL = 0.02
"""What a soup loses on the line from the base at α = 0 and at α = 2, growing with the square of the distance to 1."""
TEMPERATURE = 0.02
"""Of the weights that stand for learned ones."""
EXTRAPOLATED = ("uniform", "greedy")
"""Recipes that are simulated with --extrapolate too, apart from those that extrapolate by themselves."""


@dataclass
class Family:
    """Ingredients whose accuracies are known, with the images that every mix of them has right.

    `shared` is how hard each image is, `own` what each ingredient, and in the last row the base, has for itself:
    (ingredients + 1) × images. The first half of the images selects.
    """

    gain: float
    shared: NDArray[np.float64]
    own: NDArray[np.float64]
    found: dict[Mix, NDArray[np.bool_]] = field(default_factory=dict)

    @classmethod
    def draw(cls, ingredients: int, images: int, gain: float, seed: Sequence[int]) -> Family:
        """A family with `images` to select on and as many to test on."""
        random = np.random.default_rng(seed)
        return cls(gain, random.standard_normal(2 * images), random.standard_normal((ingredients + 1, 2 * images)))

    def measure(self, mix: Mix) -> NDArray[np.bool_]:
        """Which images a mix has right."""
        if mix not in self.found:
            weights = np.array(mix.coefficients)
            parts = np.append((1 - mix.base) * weights, mix.base)
            own = parts @ self.own / np.linalg.norm(parts)
            latent = np.sqrt(ALIKE) * self.shared + np.sqrt(1 - ALIKE) * own
            share = (1 - float(weights @ weights)) / (1 - 1 / len(weights))
            accuracy = ACCURACY + self.gain * max(share, 0.0) - FALL * mix.base**2
            self.found[mix] = latent < NormalDist().inv_cdf(accuracy)
        return self.found[mix]

    def score(self, mix: Mix, part: slice) -> Score:
        """The score of a mix on some of the images."""
        hits = self.measure(mix)[part]
        right = int(hits.sum())
        return Score(right / len(hits), len(hits), right, hits.tobytes())

    def learn(self, members: tuple[int, ...], part: slice) -> Mix:
        """Weights that grow with the accuracy on some images, which stand for those that gradients find."""
        size = len(self.own) - 1
        right = [self.measure(Mix.of((i,), size))[part].mean() for i in members]
        weights = np.exp((np.array(right) - max(right)) / TEMPERATURE)
        return Mix.weighted(dict(zip(members, weights.tolist(), strict=True)), size)


def simulate(name: str, family: Family, seed: int, *, drawn: bool) -> str:
    """Run a recipe on a family; its verdict on the test images, or `no soup`."""
    recipe, size, half = RECIPES.get(name), len(family.own) - 1, family.shared.size // 2
    learning = half // 2 if recipe.epochs else 0
    selection, test = slice(learning, half), slice(half, None)
    search = Search(
        [str(i) for i in range(size)],
        lambda mix, _: family.score(mix, selection),
        Rules(seed=seed),
        ensemble=lambda members: family.score(Mix.of(members, size), selection),
        learn=lambda members, *_: family.learn(members, slice(0, learning)),
    )
    parameters: dict[str, Any] = {parameter.name: parameter.default for parameter in recipe.parameters}
    find = partial(recipe.function, **parameters)
    mix = extrapolate(search, name, find) if drawn else find(search)
    best = Mix.of(search.ranked[:1], size)
    if mix == best:
        return "no soup"
    soup, single = family.score(mix, test), family.score(best, test)
    first, second = family.measure(mix)[test], family.measure(best)[test]
    p_value = mcnemar_test(only_first=int((first & ~second).sum()), only_second=int((second & ~first).sum()))
    return Comparison(soup, single, None, p_value).verdict


def list_cases() -> Iterator[tuple[str, bool]]:
    """Every recipe that is installed, and whether its soup is drawn past the mean."""
    for entry in RECIPES:
        if entry.package and find_spec(entry.package) is None:
            continue
        yield entry.name, entry.extrapolates
        if entry.extrapolates or entry.name in EXTRAPOLATED:
            yield entry.name, not entry.extrapolates


def count_verdicts(args: argparse.Namespace, points: float) -> dict[tuple[str, bool], Counter[str]]:
    """The verdicts of every case over all families with a gain of so many points."""
    cases = sorted(list_cases())
    counts = {case: Counter[str]() for case in cases}
    for n in range(args.families):
        family = Family.draw(args.ingredients, args.images, points / 100, (args.seed, n))
        for name, drawn in cases:
            counts[name, drawn][simulate(name, family, n, drawn=drawn)] += 1
    return counts


def format_table(args: argparse.Namespace) -> str:
    """The shares of families for which a recipe claimed a soup better or worse, for each gain."""
    found = [count_verdicts(args, points) for points in args.points]
    titles = ["recipe", *(f"{verdict} at {points:+g}" for points in args.points for verdict in ("better", "worse"))]
    lines = [titles, ["---"] * len(titles)]
    for name, drawn in found[0]:
        label = f"{name}, extrapolated" if drawn else name
        shares = [counts[name, drawn][verdict] / args.families for counts in found for verdict in ("better", "worse")]
        lines.append([label, *(f"{100 * share:.1f} %" for share in shares)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main(arguments: list[str] | None = None) -> None:
    """Simulate and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--families", type=int, default=300, help="how many of each gain (default: %(default)s)")
    add("--ingredients", type=int, default=8, help="of each family (default: %(default)s)")
    add("--images", type=int, default=5000, help="to select on, and as many to test on (default: %(default)s)")
    add("--points", type=float, nargs="+", default=[0, 1], help="true gains of a soup of all (default: 0 1)")
    add("--seed", type=int, default=0, help="of the families (default: %(default)s)")
    print(format_table(parser.parse_args(arguments)))


if __name__ == "__main__":
    main()
