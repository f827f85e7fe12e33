"""Compare recipes and batch-norm modes on families of fine-tuned models; prints one Markdown table.

Each family is baked with every recipe. The recipes share the scores that hfsoup keeps, so all of them cost little more
than the dearest, and a comparison that was stopped goes on with the same command. Nothing is written but `--json`.

    python scripts/compare.py --dataset org/pets "ViT=org/vit-*" "ResNet=org/resnet-*" --json rows.json
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hfsoup
from hfsoup.ingredients.diagnose import diagnose
from hfsoup.reports.measurements import MAY_WIN, TOO_FAR_APART, judge_forecast
from hfsoup.utils.errors import SoupError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

RECIPES = ("uniform", "greedy", "greedy-random", "pruned")
SPLITS = ("split", "test_split", "calibration_split", "limit", "seed")


@dataclass(frozen=True)
class Row:
    """One model of a family, measured; accuracies and intervals are fractions.

    `check` is the verdict of `hfsoup check --weights`, `forecast` what the bake itself says before its search; `bn` is
    None where batch norms are left as they are; `verdict` and `p_value` compare with the best single model on the test
    split, None for that model itself.
    """

    family: str
    check: str
    recipe: str
    bn: str | None
    used: int
    ingredients: int
    selection: float
    test: float
    interval: tuple[float, float] | None
    verdict: str | None = None
    p_value: float | None = None
    forecast: str | None = None

    @property
    def cells(self) -> tuple[str, ...]:
        """The row as text, under the titles of TITLES."""
        test = f"{self.test:.2%}"
        if self.interval:
            test += f" ({self.interval[0]:.1%} to {self.interval[1]:.1%})"
        against = self.verdict or ""
        if self.p_value is not None:
            against += ", p < 0.001" if self.p_value < 0.001 else f", p = {self.p_value:.3f}"
        used = f"{self.used} of {self.ingredients}"
        return self.family, self.check, self.recipe, self.bn or "", used, f"{self.selection:.2%}", test, against


TITLES = ("family", "`check` says", "recipe", "`--bn`", "used", "selection", "test (95 % interval)", "vs best single")


def main(arguments: list[str] | None = None) -> int:
    """Compare; return the exit code."""
    from huggingface_hub.utils import logging as hub
    from transformers.utils import logging

    args = _parser().parse_args(arguments)
    hub.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    rows: list[Row] = []
    try:
        for family in args.families:
            for row in compare(*_named(family), dataset=args.dataset, **{n: getattr(args, n) for n in SPLITS}):
                rows.append(row)
                print(*row.cells, sep=" | ", file=sys.stderr, flush=True)
                if args.json:
                    args.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n", encoding="utf-8")
    except SoupError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted; the same command goes on from the scores it has.", file=sys.stderr)
        return 130
    print(table(rows))
    if args.forecast:
        print(f"\n{judge_forecasts(rows)}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("families", nargs="+", metavar="NAME=PATTERN", help='a name for the table and ingredients: "ViT=org/vit-*"')
    add("--dataset", required=True, help="the images, as for hfsoup bake")
    add("--split", help="the split that selects, as for hfsoup bake")
    add("--test-split", help="the split that reports, as for hfsoup bake")
    add("--calibration-split", help="the split to estimate batch norms on, as for hfsoup bake")
    add("--limit", type=int, help="at most this many images of each split")
    add("--seed", type=int, default=0, help="the order of greedy-random (default: %(default)s)")
    add("--forecast", action="store_true", help="also print how often the forecast of a bake was right")
    add("--json", type=Path, metavar="FILE", help="write the rows here too, as they are measured")
    return parser


def _named(family: str) -> tuple[str, str]:
    name, _, pattern = family.partition("=")
    if not (name and pattern):
        raise UsageError("expected a name and a pattern", where=family, hint='"ViT=org/vit-*"')
    return name, pattern


def compare(name: str, pattern: str, **options: Any) -> Iterator[Row]:
    """The best single model of a family, then every recipe with every batch-norm mode that makes a difference.

    Raises:
        SoupError: a family cannot be baked, or greedy ended below its best ingredient on the selection split.
    """
    check = diagnose((pattern,), weights=True).verdict
    for recipe in RECIPES:
        for bn in ("average", "auto"):
            soup = hfsoup.bake(pattern, recipe=recipe, bn=bn, **options)
            own, best, found = soup.selection, soup.scores[soup.best or 0], soup.comparison
            if own is None or best is None or found is None:
                raise SoupError("nothing was measured", where=pattern)
            if recipe.startswith("greedy") and own.key < best.key:
                raise SoupError(f"{recipe} with --bn {bn} ended below its best ingredient", where=pattern)
            size, forecast = len(soup.family), judge_forecast(soup.evaluation.numbers)
            if (recipe, bn) == (RECIPES[0], "average"):
                alone = found.ci95.best if found.ci95 else None
                yield Row(
                    name, check, "best single", None, 1, size, best.value, found.best.value, alone, forecast=forecast
                )
            mode, used = bn if soup.family.has_batch_norm else None, len(soup.mix.members)
            measured = (
                own.value,
                found.soup.value,
                found.ci95.soup if found.ci95 else None,
                found.verdict,
                found.p_value,
                forecast,
            )
            yield Row(name, check, recipe, mode, used, size, *measured)
            if mode is None:
                break


def table(rows: list[Row]) -> str:
    """The rows as Markdown; what a row shares with the one above stands there only once."""
    lines, above = ["| " + " | ".join(TITLES) + " |", "|---" * len(TITLES) + "|"], ""
    for row in rows:
        cells = [cell.replace("|", "\\|") for cell in row.cells]
        lines.append("| " + " | ".join(["", "", *cells[2:]] if row.family == above else cells) + " |")
        above = row.family
    return "\n".join(lines)


def judge_forecasts(rows: list[Row]) -> str:
    """The forecast of every family and whether it came true, as Markdown, and how often it did.

    That a soup may win comes true if the soup with the highest selection score is better than the best single model on
    the test split at p < 0.05, that there is little to win if it is not, and that the weights are too far apart if the
    mean of all is worse, whichever its batch norms.
    """
    lines, right = ["| family | forecast | soup | its gain | came true |", "|---|---|---|---|---|"], 0
    families = list(dict.fromkeys(row.family for row in rows if row.forecast))
    for name in families:
        alone, *soups = (row for row in rows if row.family == name)
        apart = alone.forecast == TOO_FAR_APART
        chosen = max([row for row in soups if row.recipe == "uniform" or not apart], key=lambda row: row.selection)
        true = (chosen.verdict == "worse") if apart else (chosen.verdict == "better") == (alone.forecast == MAY_WIN)
        right += true
        gain = f"{100 * (chosen.test - alone.test):+.2f}, {chosen.verdict}"
        cells = (name.replace("|", "\\|"), alone.forecast, chosen.recipe, gain, "yes" if true else "no")
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join([*lines, "", f"The forecast came true in {right} of {len(families)} families."])


if __name__ == "__main__":
    sys.exit(main())
