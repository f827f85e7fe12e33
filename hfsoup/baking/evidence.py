"""What the test split shows besides scores: predictions of soup and best ingredient, and points of plots."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from hfsoup.averaging.mix import Mix
from hfsoup.baking.workload import LINE_STEPS
from hfsoup.evaluation.measurements import CANDIDATE, INGREDIENT, UNIFORM, Evidence, Line, LinePoint, Point
from hfsoup.evaluation.scores import Decision, Score
from hfsoup.provenance.predictions import FILE_NAME, record_predictions

if TYPE_CHECKING:
    from hfsoup.data.images import Images
    from hfsoup.evaluation.scorer import Scorer
    from hfsoup.options.options import Options
    from hfsoup.provenance.result import BakeResult
    from hfsoup.recipes._search import Search


def with_plot_scores(
    seen: Evidence, scorer: Scorer, search: Search, soup: Mix, images: Images, options: Options
) -> Evidence:
    """Add the scores that the plots need, if plots are asked for."""
    if options.figures:
        seen = replace(seen, points=score_plot_points(scorer, search, soup, images))
    return replace(seen, line=score_line(scorer, search, images)) if options.figure_line else seen


def score_plot_points(scorer: Scorer, search: Search, soup: Mix, images: Images) -> tuple[Point, ...]:
    """Score ingredients, candidates and the mean of all ingredients on the test split, for plots.

    The selection is over by then. Candidates with a bound only and the soup itself, which is compared, are left out.
    """
    return tuple(_iterate_plot_points(scorer, search, soup, images))


def _iterate_plot_points(scorer: Scorer, search: Search, soup: Mix, images: Images) -> Iterator[Point]:
    size = len(search.names)
    uniform = search.mix(tuple(range(size)))
    for i in range(size):
        found = search.scores[search.mix((i,))]
        yield Point(INGREDIENT, i, found, scorer.score_whole(search.mix((i,)), found.bn, images.test))
    for mix, found in tuple(search.scores.items()):
        steps = [decision for decision in search.trace if decision.score is found]
        if steps and not found.at_most and mix not in (soup, uniform) and len(mix.members) > 1:
            yield _make_candidate_point(found, steps, scorer.score_whole(mix, found.bn, images.test))
    if size > 1 and uniform != soup:
        found = scorer.score(uniform, images.selection)
        yield Point(UNIFORM, 0, found, scorer.score_whole(uniform, found.bn, images.test))


def _make_candidate_point(found: Score, steps: list[Decision], test: Score) -> Point:
    return Point(CANDIDATE, steps[0].step, found, test, any(step.accepted for step in steps))


def score_line(scorer: Scorer, search: Search, images: Images) -> Line | None:
    """Score averages of the two best ingredients on both splits; None if there is only one ingredient."""
    if len(search.ranked) < 2:
        return None
    first, second = search.ranked[:2]
    knots = []
    for n in range(LINE_STEPS + 2):
        share = n / (LINE_STEPS + 1)
        mix = search.weighted({first: 1 - share, second: share})
        found = scorer.score(mix, images.selection)
        knots.append(LinePoint(share, found, scorer.score_whole(mix, found.bn, images.test)))
    return Line(first, second, tuple(knots))


def write_evidence(soup: BakeResult, folder: Path) -> None:
    """Write the predictions, and draw the plots if they are asked for."""
    from hfsoup.reports.figures import draw_pictures

    if (found := record_predictions(soup)) is not None:
        (folder / FILE_NAME).write_text(found.text(), encoding="utf-8")
    if soup.options.figures:
        draw_pictures(soup, folder)
