"""What the page shows of a bake, as HTML; every text is escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from hfsoup.baking.plan import Plan, describe_plan
from hfsoup.baking.soup import Soup
from hfsoup.checkpoints.types import Source
from hfsoup.provenance.reproduce import hub_url
from hfsoup.reports.measurements import format_score
from hfsoup.reports.summary import format_usage, summarize
from hfsoup.utils.errors import SoupError
from hfsoup.utils.progress import SearchStep
from hfsoup.utils.redact import redact
from hfsoup.utils.text import format_duration, format_size, one_line

if TYPE_CHECKING:
    from hfsoup.ui.job import Job, StageLine
    from hfsoup.ui.predict import Prediction

MARKS = {"running": "…", "done": "✓", "note": "!", "broken": "✗"}
STOPPED = "stopped; scores are kept, and the same bake resumes"
# The report's own scripts run in the frame, isolated from the page, and its links open in a new tab.
FRAME = "allow-scripts allow-popups allow-popups-to-escape-sandbox"


def escape_text(value: object, longest: int = 600) -> str:
    """Escape any text for HTML."""
    return escape(one_line(redact(str(value)), longest))


def render_link(value: object, url: str | None) -> str:
    """A text with a link to the Hub, if there is a URL."""
    if not url or not url.startswith(("http://", "https://")):
        return escape_text(value)
    return f'<a href="{escape(url)}" target="_blank" rel="noopener noreferrer">{escape_text(value)}</a>'


def render_error(found: SoupError) -> str:
    """An error as the command line prints it."""
    rows = [("in", found.where), ("try", found.hint)]
    below = "".join(f"<dt>{name}</dt><dd>{_render_lines(value)}</dd>" for name, value in rows if value)
    return f'<div class="soup-error" role="alert"><b>{_render_lines(found.what)}</b><dl>{below}</dl></div>'


def _render_lines(value: str) -> str:
    return "<br>".join(escape_text(line, 1000) for line in value.splitlines())


def render_job(work: Job[Any], seconds: float, *, public: bool) -> tuple[str, str]:
    """The progress of a job with its error, and its result once there is one."""
    live, found, result = render_progress(work, seconds), work.result, ""
    if work.error:
        live = render_error(work.error) + live
    elif isinstance(found, Plan):
        result = render_plan(found, public=public)
    elif isinstance(found, Soup):
        result = render_result(found, public=public)
    return live, result


def render_progress(work: Job[Any], seconds: float) -> str:
    """Stages and notes, the decisions so far, and the best score."""
    going = work.result is None and work.error is None and not work.stopped
    best = max((step for step in work.steps if step.accepted), key=lambda step: step.score, default=None)
    stand = ""
    if going and best is not None:
        stand = f'<p class="soup-stand"><b>{best.shown}</b> best so far on the selection split</p>'
    lines = "".join(map(_render_line, list(work.lines)))
    foot = format_duration(seconds) if going else f"in {format_duration(seconds)}"
    if work.stopped:
        foot = STOPPED
    below = f'{render_steps(list(work.steps))}<p class="soup-faint">{foot}</p>'
    return f'<div class="soup-live">{stand}<ul>{lines}</ul>{below}</div>'


def render_stopped() -> str:
    """That a bake was stopped."""
    return f'<p class="soup-faint">{STOPPED}</p>'


def _render_line(line: StageLine) -> str:
    if line.state != "running":
        done = escape_text(line.text or line.title)
        return f'<li class="{line.state}"><i>{MARKS[line.state]}</i><span>{done}</span></li>'
    parts = [escape_text(line.title)]
    if line.unit:
        done = format_size(line.count) if line.unit == "B" else f"{line.count:,}"
        total = format_size(line.total) if line.unit == "B" else f"{line.total:,}"
        of = f" of {total}" if line.count <= line.total else f" {escape_text(line.unit)}"
        parts.append(f'<span class="soup-faint">{done}{of}</span>')
    if line.standing:
        parts.append(escape_text(line.standing))
    share = min(100.0, 100 * line.count / line.total) if line.total else None
    bar = f'<div class="soup-bar"><div style="width:{share:.1f}%"></div></div>' if share is not None else ""
    return f'<li class="running"><i>{MARKS["running"]}</i><span>{" ".join(parts)}{bar}</span></li>'


def render_steps(found: Sequence[SearchStep]) -> str:
    """The decisions, the latest first."""
    if not found:
        return ""
    rows = []
    for step in reversed(found):
        tag, look = ("b", "soup-good") if step.accepted else ("span", "soup-faint")
        became = f'<{tag} class="{look}">{step.outcome}</{tag}>'
        rows.append((str(step.number or ""), became, escape_text(step.describe(step.ingredient), 400)))
    return _render_table("soup-steps", ("step", "", ""), rows, (0,), scroll=True)


def render_plan(found: Plan, *, public: bool) -> str:
    """The plan of a dry run."""
    rows = []
    for holding in (*found.ingredients, *found.bases, *([found.dataset] if found.dataset else [])):
        source = Source(holding.id, holding.revision)
        name = escape_text(holding.id) if holding is found.dataset else render_link(source, hub_url(source))
        here = "all" if holding.cached == holding.size else format_size(holding.cached)
        rows.append((name, format_size(holding.size), here))
    hidden = ("write", "push", "disk") if public else ()
    facts = [(name, escape_text(value.plain)) for name, value in describe_plan(found) if name not in hidden]
    table = _render_table("soup-plan", ("source", "size", "cached"), rows, (1, 2))
    return f"<h3>Dry run</h3>{_render_facts(facts)}{table}"


def render_result(soup: Soup, *, public: bool) -> str:
    """The verdict, the numbers, and every ingredient with its score and weight."""
    rows, c = list(summarize(soup)), soup.comparison
    verdict = next(value for name, value in rows if name == "verdict")
    kind = "" if c is None else {"better": "better", "worse": "worse"}.get(c.verdict, "even")
    hidden = ("verdict", "pushed to", *(("saved to",) if public else ()))
    facts = [(name, escape_text(value.plain)) for name, value in rows if name not in hidden]
    where = "" if public else render_home(soup)
    first = f'<p class="soup-verdict {kind}">{escape_text(verdict.plain)}</p>'
    return f"{first}{_render_facts(facts)}{where}{render_ingredients(soup)}"


def render_home(soup: Soup) -> str:
    """The link to the Hub, if it was pushed, and the Python line that uses it."""
    facts = [("pushed to", render_link(soup.pushed.url, soup.pushed.url))] if soup.pushed else []
    line = format_usage(soup)
    return _render_facts([*facts, ("use it", f"<code>{escape_text(line.plain)}</code>")]) if line else ""


def render_ingredients(soup: Soup) -> str:
    """Every ingredient with its own score and its weight in the soup."""
    rows = []
    for n, ingredient in enumerate(soup.family.ingredients):
        weight = soup.mix.coefficients[n]
        best = ' <span class="soup-tag">best</span>' if n == soup.best else ""
        share = f'<div class="soup-bar"><div style="width:{min(100.0, max(0.0, 100 * weight)):.1f}%"></div></div>'
        shown = f"{weight:.3f}{share}" if weight else '<span class="soup-faint">left out</span>'
        name = render_link(ingredient, hub_url(ingredient.source)) + best
        rows.append((name, *([format_score(soup.metric, soup.scores[n])] if soup.selection else []), shown))
    heads = ("ingredient", *([f"{escape_text(soup.metric, 40)} on selection"] if soup.selection else []), "weight")
    return _render_table("soup-ingredients", heads, rows, range(1, len(heads)))


def render_predictions(found: Iterable[Prediction]) -> str:
    """The predictions of models for an image, side by side."""
    columns = []
    for guess in found:
        rows = "".join(
            f'<li><span>{escape_text(name, 60)}</span><b>{100 * share:.1f} %</b>'
            f'<div class="soup-bar"><div style="width:{100 * share:.1f}%"></div></div></li>'
            for name, share in guess.classes
        )  # fmt: skip
        columns.append(f'<div class="soup-guess"><h4>{escape_text(guess.who)}</h4><ol>{rows}</ol></div>')
    alone = '<p class="soup-faint">Without a dataset, which ingredient is best is not known.</p>'
    return f'<div class="soup-guesses">{"".join(columns)}</div>{alone if len(columns) == 1 else ""}'


def render_report(report: str) -> str:
    """A report in a frame that is isolated from the page."""
    opened = report.replace("<head>", '<head><base target="_blank">', 1)
    return f'<iframe class="soup-report" title="Report" sandbox="{FRAME}" srcdoc="{escape(opened)}"></iframe>'


def _render_facts(rows: Iterable[tuple[str, str]]) -> str:
    return f"<dl>{''.join(f'<dt>{escape_text(name)}</dt><dd>{value}</dd>' for name, value in rows)}</dl>"


def _render_table(
    name: str, heads: Sequence[str], rows: Iterable[Sequence[str]], numbers: Iterable[int] = (), *, scroll: bool = False
) -> str:
    """A table of cells that are HTML already."""
    right = set(numbers)

    def row(tag: str, cells: Sequence[str]) -> str:
        marks = ['class="n"' if n in right else "" for n in range(len(cells))]
        return f"<tr>{''.join(f'<{tag} {mark}>{cell}</{tag}>' for mark, cell in zip(marks, cells, strict=True))}</tr>"

    body = "".join(row("td", cells) for cells in rows)
    kind = "soup-wide soup-scroll" if scroll else "soup-wide"
    return (
        f'<div class="{kind}"><table id="{name}"><thead>{row("th", heads)}</thead><tbody>{body}</tbody></table></div>'
    )
