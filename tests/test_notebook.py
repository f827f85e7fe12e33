"""What a soup looks like at a prompt and in a notebook."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

from family import Family

import hfsoup


def test_a_soup_says_what_it_is(vit: Family, data: Path, alone: Path) -> None:
    """At a prompt and in a notebook: what was measured, and nothing that was not."""
    plain = hfsoup.bake(*vit.words)
    assert repr(plain) == "<Soup: uniform, 4 of 4 ingredients; nothing measured>"
    assert "<svg" not in plain._repr_html_()
    soup = hfsoup.bake(*vit.words, dataset=str(data), output="soup")
    first, *scores = repr(soup).splitlines()
    assert f"test accuracy {100 * soup.test:.2f} %" in first
    assert soup.comparison.verdict in first
    assert first.endswith("in soup>")
    assert [line.split()[:2] for line in scores if line.startswith("    ")] == [
        *([folder.name, f"{100 * score.value:.2f}"] for folder, score in zip(vit.folders, soup.scores, strict=True)),
        ["soup", f"{100 * soup.score:.2f}"],
        [vit.folders[soup.best].name, f"{100 * soup.comparison.best.value:.2f}"],
        ["soup", f"{100 * soup.test:.2f}"],
    ]
    assert soup._repr_html_().count("<tr>") == 5
    assert f"<td>{100 * soup.scores[0].value:.2f} %</td>" in soup._repr_html_()


def test_a_notebook_shows_the_scores(vit: Family, data: Path) -> None:
    """The verdict comes first; a picture has a mark for every score in its place, and an interval on the test split."""
    soup = hfsoup.bake(*vit.words, dataset=str(data))
    html = soup._repr_html_()
    assert html.startswith('<p><b style="color: #')
    assert soup.comparison.verdict in html.partition("</b>")[0]
    picture = html[html.index("<svg") : html.index("</svg>")]
    assert len(re.findall(r'<circle|<rect|<path d="M[\d.]+ \d+l6', picture)) == 7
    assert picture.count("m0 -4H") == 2
    texts = [element.text for element in ElementTree.fromstring(picture + "</svg>").iter()]
    assert texts.count("soup") == 2


def test_pictures_of_the_card_are_shown_where_there_are_any(vit: Family, data: Path) -> None:
    """With `figures` the notebook has the card's picture of the scores, as PNG."""
    soup = hfsoup.bake(*vit.words[:2], dataset=str(data), figures=True)
    (png,) = re.findall(r'src="data:image/png;base64,([^"]+)"', soup._repr_html_())
    assert base64.b64decode(png).startswith(b"\x89PNG")
    assert "<svg" not in soup._repr_html_()


def test_a_hostile_name_is_only_text_in_a_notebook(vit: Family, alone: Path) -> None:
    """A folder's name cannot bring markup into the page."""
    folder = alone / "<img src=x onerror=alert(1)>"
    folder.symlink_to(vit.folders[0], target_is_directory=True)
    seen: list[str] = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attrs: seen.append(tag)  # type: ignore[method-assign]
    parser.feed(hfsoup.bake(str(folder), vit.words[1])._repr_html_())
    assert "img" not in seen
    assert "table" in seen
