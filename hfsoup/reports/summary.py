"""The end of a bake in words: verdict, intervals, ingredients, and what to type next."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.style import Style
from rich.text import Text

from hfsoup.data.splits import describe_training_split
from hfsoup.provenance.reproduce import hub_url
from hfsoup.utils.text import format_probability, format_size

if TYPE_CHECKING:
    from hfsoup.evaluation.scores import Comparison
    from hfsoup.provenance.result import BakeResult


Row = tuple[str, Text]


def replace_unprintable(text: object, longest: int = 200) -> Text:
    """Text from outside that can neither steer the terminal nor be taken for markup: every odd character replaced."""
    shortened = str(text) if len(str(text)) <= longest else f"{str(text)[: longest - 1]}…"
    return Text("".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in shortened))


def add_link(text: Text, url: str | None) -> Text:
    """Text that leads to a page, where the terminal knows links."""
    if url and url.isprintable():
        text.stylize(Style(link=url))
    return text


def summarize(soup: BakeResult) -> Iterator[Row]:
    """What came of the bake, each with a word in front."""
    c = soup.comparison
    if c is not None and soup.best is not None:
        metric = replace_unprintable(soup.metric, 40)
        kind = soup.composition.kind
        yield kind, Text.assemble("test ", metric, f" {c.soup.value:.4f}", _interval(c, "soup"))
        best = replace_unprintable(soup.family.ingredients[soup.best])
        name = add_link(best, hub_url(soup.family.ingredients[soup.best].source))
        yield (
            "best ingredient",
            Text.assemble(f"{c.best.value:.4f}", _interval(c, "best"), "  ", name),
        )
        if c.choices > 1:
            yield "chosen", _chosen(soup)
            level = f"{100 * c.level:.3g} % each"
            yield "intervals", Text(f"{level}, since the soup is the best of {c.choices} mixes")
        if soup.composition.distilled:
            yield "training", Text(soup.composition.distilled.description)
        learned = soup.images is not None and soup.images.learning is not None
        yield "verdict", format_verdict(c, kind, alone=soup.mix.members == (soup.best,) and not learned)
        if soup.images and soup.images.test.is_training:
            yield "but", Text(describe_training_split(soup.images.test.name), "yellow")
        yield from _further(soup)
        yield "forwarded", Text(f"{soup.run.images_forwarded:,} images")
    else:
        yield "verdict", Text("nothing was measured: without --dataset it is not known whether the soup is better")
    if soup.path:
        held = sum(path.stat().st_size for path in soup.path.rglob("*") if path.is_file())
        yield "saved to", Text.assemble(replace_unprintable(soup.path), f" ({format_size(held)})")
    if soup.pushed:
        yield "pushed to", add_link(replace_unprintable(soup.pushed.url), soup.pushed.url)


def _chosen(soup: BakeResult) -> Text:
    """Which of the finished soups this one is, and what the others scored."""
    kept = [attempt.name for attempt in soup.search.attempts if attempt.mix == soup.mix]
    told = ", ".join(f"{attempt.name} {attempt.score.value:.4f}" for attempt in soup.search.attempts)
    return replace_unprintable(f"{' and '.join(kept)}, of {told} on the selection split", 600)


def _further(soup: BakeResult) -> Iterator[Row]:
    """Calibration, the ensemble and other images."""
    c, e = soup.comparison, soup.evaluation.ensemble
    if c and c.ece is not None and c.best_ece is not None:
        yield "calibration error", Text(f"{c.ece:.4f}, best ingredient {c.best_ece:.4f}")
    if e:
        costs = f"  the soup {100 * e.difference:+.2f} points, {e.verdict}; {len(soup.mix.members)} times the cost"
        yield "ensemble", Text.assemble(f"{e.best.value:.4f}", _interval(e, "best"), costs)
    for shift in soup.evaluation.shifts:
        d = shift.comparison
        points = f" ({100 * d.difference:+.2f} points, {d.verdict})"
        yield (
            "shift",
            Text.assemble(replace_unprintable(shift.name, 40), f" {d.soup.value:.4f}, best {d.best.value:.4f}{points}"),
        )


def format_usage(soup: BakeResult) -> Text | None:
    """The Python line that uses the soup; None where it is nowhere yet."""
    home = soup.pushed.repo if soup.pushed else soup.path
    call = f'pipeline("{soup.task.auto_class.pipeline_tag}", "'
    return Text.assemble(call, replace_unprintable(home), '")') if home else None


def format_verdict(c: Comparison, kind: str, *, alone: bool) -> Text:
    """What was baked, by its kind, against the best ingredient in a sentence."""
    p = "" if c.p_value is None else f", p = {format_probability(c.p_value, c.alpha)}"
    if alone:
        return Text("the search kept the best ingredient alone: no soup was better on the selection split", "yellow")
    if c.verdict == "better":
        by = f" by {100 * c.difference:.2f} points{p}"
        return Text.assemble((f"the {kind} is better than its best ingredient", "green"), by)
    if c.verdict == "worse":
        by = f" by {-100 * c.difference:.2f} points{p}"
        return Text.assemble((f"the {kind} is worse than its best ingredient", "red"), by)
    difference = f" ({100 * c.difference:+.2f} points{p})"
    return Text.assemble((f"the {kind} is not distinguishable from its best ingredient", "yellow"), difference)


def _interval(c: Comparison, side: str) -> str:
    """The interval of one side of a comparison, at the level that its verdict stands on."""
    if c.intervals is None:
        return ""
    low, high = c.intervals.soup if side == "soup" else c.intervals.best
    return f" [{low:.4f}, {high:.4f}]"
