"""Pictures of a soup: which there are, what they show in words, and where they go. Drawn with matplotlib."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hfsoup.evaluation.measurements import CANDIDATE, UNIFORM
from hfsoup.utils.extras import require_extra

if TYPE_CHECKING:
    from hfsoup.evaluation.measurements import Point
    from hfsoup.provenance.result import BakeResult, SearchResult

FOLDER = "figures"
TITLES = {
    "scores": "Selection score against test score",
    "search": "The search step by step",
    "closeness": "How close the ingredients are",
    "line": "From the best ingredient to the second best",
}


@dataclass(frozen=True)
class Picture:
    """A picture by its name; it lies in `light` and, on a dark ground, in `dark`, below the soup's folder."""

    name: str
    title: str
    caption: str

    @property
    def light(self) -> str:
        """Its file."""
        return f"{FOLDER}/{self.name}.png"

    @property
    def dark(self) -> str:
        """Its file for dark pages."""
        return f"{FOLDER}/{self.name}-dark.png"


def require_matplotlib() -> None:
    """Fail where matplotlib is missing.

    Raises:
        UsageError: it is, with the command that installs it.
    """
    require_extra("plot", "matplotlib", "--figures")


def list_pictures(soup: BakeResult) -> tuple[Picture, ...]:
    """The pictures of a soup: those that were asked for and that there are numbers for."""
    return tuple(_pictures(soup)) if soup.options.figures else ()


def _pictures(soup: BakeResult) -> Iterator[Picture]:
    evidence = soup.evaluation.evidence
    if evidence and evidence.points:
        yield Picture("scores", TITLES["scores"], _caption_scores(evidence.points, len(soup.family)))
    if soup.trace:
        yield Picture("search", TITLES["search"], _caption_search(soup.search))
    if len(soup.family) > 1:
        yield Picture("closeness", TITLES["closeness"], caption_closeness(based=soup.family.base is not None))
    if evidence and evidence.line:
        words = "Averages of the two best ingredients, on both splits. All were measured after the selection."
        yield Picture("line", TITLES["line"], words)


def caption_closeness(*, based: bool) -> str:
    """What is compared: with a base what fine-tuning changed in it, else the weights."""
    what = "what fine-tuning changed in the base" if based else "the ingredients' weights"
    return f"Cosines between {what}: matrices and convolutions, without the head."


def _caption_search(search: SearchResult) -> str:
    stopped = sum(decision.score.at_most for decision in search.trace)
    words = "Every candidate's score on the selection split, from the start down; the line is where the search stood."
    words += " The star is this soup, and the band what other images of that number could have given it."
    if stopped:
        words += f" {stopped} candidates were stopped once they could no longer win: a triangle is an upper bound."
    return words


def _caption_scores(points: Sequence[Point], ingredients: int) -> str:
    candidates = sum(point.kind == CANDIDATE for point in points)
    parts = [f"{ingredients} ingredients" if ingredients > 1 else "The ingredient"]
    if candidates:
        parts.append(f"the {candidates} other candidate{'s' * (candidates > 1)} that the search scored on all images")
    if any(point.kind == UNIFORM for point in points):
        parts.append("the mean of all ingredients")
    return f"{', '.join(parts)} and this soup on both splits. Test scores were measured after the selection."


def draw_picture(soup: BakeResult, name: str, *, dark: bool = False) -> bytes:
    """One picture of a soup as PNG, the same bytes for the same soup and matplotlib."""
    from hfsoup.reports.figures import closeness, line, scores, search
    from hfsoup.reports.figures.style import DARK, LIGHT, render_png

    painters = {"scores": scores.paint, "search": search.paint, "closeness": closeness.paint, "line": line.paint}
    return render_png(painters[name](soup), DARK if dark else LIGHT, TITLES[name])


def draw_pictures(soup: BakeResult, folder: Path) -> None:
    """Draw the pictures of a soup below `folder`."""
    found = list_pictures(soup)
    if found:
        (folder / FOLDER).mkdir()
    for picture in found:
        (folder / picture.light).write_bytes(draw_picture(soup, picture.name))
        (folder / picture.dark).write_bytes(draw_picture(soup, picture.name, dark=True))
