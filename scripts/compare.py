"""Compare recipes on families of fine-tuned models; prints one Markdown table.

Each family is baked with every recipe, and where its base is known the mean of all also extrapolated. Where there are
batch norms, soups and single models are scored with their own statistics and with new ones, and the better ones count.
The recipes share the scores that hfsoup keeps, so all of them cost little more than the dearest, and a comparison that
was stopped goes on with the same command. Nothing is written but `--json`.

    python scripts/compare.py --dataset org/pets "ViT=org/vit-*" "ResNet=org/resnet-*=org/resnet" --json rows.json
    python scripts/compare.py families.yaml

A YAML file is a list of families; their other keys are options of hfsoup.bake and come before those given here:

    - {name: ViT, ingredients: org/vit-*, base: org/vit, dataset: org/pets}
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

import hfsoup
from hfsoup.ingredients.diagnose import diagnose
from hfsoup.reports.measurements import MAY_WIN, TOO_FAR_APART, judge_forecast
from hfsoup.utils.errors import SoupError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

SOUPS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("uniform", {"extrapolate": False}),
    ("uniform", {"bn": "average", "extrapolate": False}),
    ("uniform", {"extrapolate": True}),
    ("greedy", {"extrapolate": False}),
    ("greedy-random", {"extrapolate": False}),
    ("pruned", {"extrapolate": False}),
    ("auto", {}),
)
"""The soups of a family: recipe, and options. `auto` extrapolates where a base is known."""

OPTIONS = ("dataset", "split", "test_split", "calibration_split", "limit", "seed")


@dataclass(frozen=True)
class Row:
    """One model of a family, measured; accuracies and intervals are fractions.

    `check` is the verdict of `hfsoup check --weights`, `forecast` what the bake itself says before its search; `bn` is
    None where batch norms are left as they are; `alpha` is how far the soup was drawn from the base through the mean, 1
    for not at all. `gain`, its interval, `verdict` and `p_value` compare with the best single model on the test split;
    they are None for that model itself.
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
    alpha: float | None = None
    gain: float | None = None
    gain_interval: tuple[float, float] | None = None
    verdict: str | None = None
    p_value: float | None = None
    forecast: str | None = None

    @property
    def cells(self) -> tuple[str, ...]:
        """The row as text, under the titles of TITLES."""
        test = f"{self.test:.2%}{_format_interval(self.interval, '.1%')}"
        against = ""
        if self.gain is not None:
            points = self.gain_interval and (100 * self.gain_interval[0], 100 * self.gain_interval[1])
            against = f"{100 * self.gain:+.2f}{_format_interval(points, '+.2f')}, {self.verdict}"
        if self.p_value is not None:
            against += ", p < 0.001" if self.p_value < 0.001 else f", p = {self.p_value:.3f}"
        used, alpha = f"{self.used} of {self.ingredients}", "" if self.alpha is None else f"{self.alpha:g}"
        score = f"{self.selection:.2%}"
        return self.family, self.check, self.recipe, self.bn or "", alpha, used, score, test, against


TITLES = (
    "family", "`check` says", "recipe", "`--bn`", "α", "used", "selection", "test (95 % interval)",
    "points above best single (95 % interval)",
)  # fmt: skip


@dataclass(frozen=True)
class Family:
    """Ingredients, a name for the table, and options of hfsoup.bake that hold for them; `base` among them."""

    name: str
    pattern: str
    options: dict[str, Any]


def main(arguments: list[str] | None = None) -> int:
    """Compare; return the exit code."""
    from huggingface_hub.utils import logging as hub
    from transformers.utils import logging

    args = _parser().parse_args(arguments)
    hub.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    rows: list[Row] = []
    try:
        given = {name: getattr(args, name) for name in OPTIONS}
        for family in [family for text in args.families for family in _read_families(text, given)]:
            for row in compare(family):
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
    what = 'a name for the table, ingredients, and their base if known: "ViT=org/vit-*=org/vit"; or a YAML file'
    add("families", nargs="+", metavar="NAME=PATTERN[=BASE]", help=what)
    add("--dataset", help="the images, as for hfsoup bake")
    add("--split", help="the split that selects, as for hfsoup bake")
    add("--test-split", help="the split that reports, as for hfsoup bake")
    add("--calibration-split", help="the split to estimate batch norms on, as for hfsoup bake")
    add("--limit", type=int, help="at most this many images of each split")
    add("--seed", type=int, default=0, help="the order of greedy-random (default: %(default)s)")
    add("--forecast", action="store_true", help="also print how often the forecast of a bake was right")
    add("--json", type=Path, metavar="FILE", help="write the rows here too, as they are measured")
    return parser


def _read_families(text: str, given: dict[str, Any]) -> list[Family]:
    """Return the families that an argument names, with the options of the command line."""
    if text.endswith((".yaml", ".yml")):
        found = [_read_family(entry, given, text) for entry in _load_yaml(Path(text))]
    else:
        name, pattern, base = (*text.split("=", 2), "", "")[:3]
        found = [Family(name, pattern, {**given, "base": base or None})]
    for family in found:
        if not (family.name and family.pattern):
            raise UsageError("expected a name and a pattern", where=text, hint='"ViT=org/vit-*"')
        if not family.options["dataset"]:
            raise UsageError("expected a dataset", where=family.name, hint="--dataset ORG/NAME")
    return found


def _load_yaml(path: Path) -> list[Any]:
    """Return the list in a YAML file."""
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"expected a YAML file: {error}", where=str(path)) from error
    if not isinstance(found, list):
        raise UsageError("expected a list of families", where=str(path))
    return found


def _read_family(entry: Any, given: dict[str, Any], path: str) -> Family:
    """Return the family of one entry in a YAML file."""
    if not isinstance(entry, dict):
        raise UsageError("expected name: and ingredients: of a family", where=path)
    own = {"base": None, **given, **entry}
    return Family(str(own.pop("name", "")), str(own.pop("ingredients", "")), own)


def compare(family: Family) -> Iterator[Row]:
    """Yield the best single model of a family, then its soups.

    Raises:
        SoupError: the family cannot be baked, or greedy ended below its best ingredient on the selection split.
    """
    check, base = diagnose((family.pattern,), weights=True).verdict, family.options["base"]
    batch_norm: bool | None = None
    for recipe, chosen in SOUPS:
        extrapolated = chosen.get("extrapolate", base is not None)
        if (extrapolated and base is None) or ("bn" in chosen and not batch_norm):
            continue
        options = {**family.options, **chosen, "base": base if extrapolated else None}
        soup = hfsoup.bake(family.pattern, recipe=recipe, **options)
        title = f"{recipe}, extrapolated" if chosen.get("extrapolate") else recipe
        alone, row = _make_rows(family, check, title, soup)
        if batch_norm is None:
            yield alone
        yield row
        batch_norm = soup.family.has_batch_norm


def _make_rows(family: Family, check: str, title: str, soup: hfsoup.Soup) -> tuple[Row, Row]:
    """Return the rows of the best single model of a bake and of its soup."""
    own, best, found = soup.selection, soup.scores[soup.best or 0], soup.comparison
    if own is None or best is None or found is None:
        raise SoupError("nothing was measured", where=family.pattern)
    if title.startswith("greedy") and own.key < best.key:
        raise SoupError(f"{title} ended below its best ingredient", where=family.pattern)
    mode, interval = soup.options.bn if soup.family.has_batch_norm else None, found.ci95
    size, forecast = len(soup.family), judge_forecast(soup.evaluation.numbers)
    alone = Row(
        family.name, check, "best single", mode, 1, size, best.value, found.best.value,
        interval.best if interval else None, forecast=forecast,
    )  # fmt: skip
    row = replace(
        alone, recipe=title, used=len(soup.mix.members), selection=own.value, test=found.soup.value,
        interval=interval.soup if interval else None, alpha=soup.mix.alpha, gain=found.difference,
        gain_interval=interval.difference if interval else None, verdict=found.verdict, p_value=found.p_value,
    )  # fmt: skip
    return alone, row


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


def _format_interval(interval: tuple[float, float] | None, form: str) -> str:
    return f" ({interval[0]:{form}} to {interval[1]:{form}})" if interval else ""


if __name__ == "__main__":
    sys.exit(main())
