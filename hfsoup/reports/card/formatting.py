"""What stands in the tables of a card: texts from outside made harmless, figures made readable."""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hfsoup.evaluation.scores import Score
from hfsoup.utils.text import format_probability, one_line

if TYPE_CHECKING:
    from hfsoup.evaluation.measurements import Shift
    from hfsoup.evaluation.scores import Comparison
    from hfsoup.provenance.result import BakeResult

ATTEMPTS = 12


def escape_markdown(text: object, longest: int = 200) -> str:
    """Text that a repository or a dataset chose, so written that it is only text in Markdown, HTML and tables."""
    safe = html.escape(one_line(text, longest), quote=False)
    safe = re.sub(r"([\\`*_{}\[\]()#+!|~$])", r"\\\1", safe)
    # Bare addresses would become links of their own.
    return re.sub(r"(?i)(?<=\bwww)\.", "&#46;", safe.replace("://", "&#58;//").replace("@", "&#64;"))


def format_percent(value: float | None) -> str:
    """A fraction in per cent, with two places."""
    return "–" if value is None else f"{100 * value:.2f} %"


def format_score(soup: BakeResult, score: Any) -> str:
    """A score: per cent for our own metrics, the metric's own number otherwise; an upper bound as such."""
    if score is None:
        return "–"
    from hfsoup.data.tasks import METRICS

    text = format_percent(score.value) if soup.metric in METRICS else f"{score.value:.4f}"
    return f"at most {text}" if score.at_most else text


def format_weight(mean: float, span: tuple[float, float] | None) -> str:
    """An ingredient's weight, with the least and the largest of its tensors where these have their own."""
    return f"{mean:.4g}" if span is None else f"{mean:.4g} ({span[0]:.4g} to {span[1]:.4g})"


def format_interval(bounds: tuple[float, float] | None, form: str = "{:.2f}") -> str:
    """Bounds in per cent, or that there are none."""
    return "not measured" if bounds is None else " to ".join(form.format(100 * b) for b in bounds)


def describe_comparison(soup: BakeResult, c: Comparison) -> dict[str, Any]:
    """Both models of a comparison and the difference, in figures."""
    bounds = c.intervals
    return {
        "soup_score": format_score(soup, c.soup),
        "best_score": format_score(soup, c.best),
        "soup_interval": format_interval(bounds.soup if bounds else None),
        "best_interval": format_interval(bounds.best if bounds else None),
        "difference": f"{100 * c.difference:+.2f} points",
        "difference_interval": format_interval(bounds.difference if bounds else None, "{:+.2f}"),
        "p_value": None if c.p_value is None else format_probability(c.p_value, c.alpha),
        "total": c.soup.total,
        "soup_ece": None if c.ece is None else f"{c.ece:.4f}",
        "best_ece": None if c.best_ece is None else f"{c.best_ece:.4f}",
        "verdict": c.verdict,
    }


def describe_shifts(soup: BakeResult) -> list[dict[str, Any]]:
    """Every shift, and the mean of them where there are several."""
    rows = [
        {"name": escape_markdown(s.name), "of": _origin(s), **describe_comparison(soup, s.comparison)}
        for s in soup.evaluation.shifts
    ]
    if len(rows) > 1:
        pairs = [(s.comparison.soup, s.comparison.best) for s in soup.evaluation.shifts]
        first, second = (Score(sum(s.value for s in side) / len(side)) for side in zip(*pairs, strict=True))
        difference = f"{100 * (first.value - second.value):+.2f} points"
        rows.append(
            {
                "name": "mean",
                "soup_score": format_score(soup, first),
                "best_score": format_score(soup, second),
                "difference": difference,
            }
        )
    return rows


def _origin(shift: Shift) -> str:
    """Where the images of a shift come from, nothing for the test split's."""
    if shift.dataset is None:
        return ""
    name = shift.dataset if shift.revision else Path(shift.dataset).name
    return f"{escape_markdown(name)}, *{escape_markdown(shift.split.name)}*"


def describe_attempts(soup: BakeResult) -> list[dict[str, Any]]:
    """What was measured as a whole, the best first; of many only those at the top."""
    found = sorted(soup.search.attempts, key=lambda attempt: (-attempt.score.key, attempt.mix != soup.mix))[:ATTEMPTS]
    return [
        {
            "name": escape_markdown(a.name),
            "used": len(a.mix.members),
            "score": format_score(soup, a.score),
            "kept": a.mix == soup.mix,
        }
        for a in found
    ]
