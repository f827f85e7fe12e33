"""Names, labels and notes from outside are only ever text: in the card, its metadata, the record and on the screen."""

from __future__ import annotations

import io
import json
import re
import shlex
import subprocess
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from family import NAMES, Family, copy_model
from huggingface_hub import HfApi
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from rich.console import Console
from shell import bake, refused, run

import hfsoup
from hfsoup.baking.soup import Soup
from hfsoup.cli.screen import Screen
from hfsoup.ingredients.cards import find_common_license, read_license
from hfsoup.localhub import LocalHub
from hfsoup.reports.card.formatting import quote_command
from hfsoup.reports.card.render import render_card

BAD = [
    "<script>alert(1)</script>",
    "a|b|c",
    "`` ` ``` ~~~",
    "x\n---\nlicense: mit\n---\ny",
    "x\r\n\r\n# head\r\n\r\n",
    "![i](http://evil.test/x.png) [l](javascript:alert(1)) <http://evil.test>",
    "http://evil.test www.evil.test a@evil.test",
    "!!python/object/apply:os.system [ls]",
    "{{ 7 * 7 }}{% raw %}",
    "\x1b[2J\x1b]8;;http://evil.test\x07\x9b31m",
    "abc\u202edcba\u2066\u200b",
    "nul\0byte",
    "[red]rich[/red] :boom: \\",
    "$$\\frac{1}{0}$$ &amp; &#60;b>",
    "- * + 1. > # = ---",
    "&a [*a, *a] <<: *a",
    "{{ ''.__class__.__mro__ }}{# #}${7*7}<%= 7*7 %>",
    "\u2067\u061c\u200f\ufeff\U000e0041",
    "'; rm -rf ~; echo $(id) `id`",
    "x" * 5000,
    "\ud800",
    "",
]
TEXT = st.one_of(st.sampled_from(BAD), st.text(max_size=80), st.text("|`*_[]()<>!#\n-~$&@:/\\ ", max_size=40))


@pytest.fixture(scope="module")
def measured(vit: Family, data: Path) -> Soup:
    """A soup with scores, from local folders, to be dressed up."""
    return hfsoup.bake(*vit.words[:3], recipe="greedy", dataset=str(data))


def dressed(soup: Soup, text: list[str]) -> Soup:
    """The same soup as if other people had chosen every name in it."""
    a, b, c, d, e = text
    ingredients = tuple(
        replace(i, source=replace(i.source, id=f"org/{name}", revision=f"{n}" * 40))
        for n, (i, name) in enumerate(zip(soup.family.ingredients, (a, b, c), strict=True))
    )
    family = replace(soup.family, ingredients=ingredients, labels=(d, *soup.family.labels[1:]))
    assert soup.images is not None
    splits = {part: replace(getattr(soup.images, part), name=e, rule=d) for part in ("selection", "test")}
    images = replace(soup.images, dataset=f"org/{c}", config=d, revision="f" * 40, **splits)
    options = replace(soup.options, dataset=c, dataset_config=d, split=e, image_column=a, label_column=b)
    composition, run = replace(soup.composition, family=family), replace(soup.run, notes=(a, b, c, d, e))
    return replace(soup, composition=composition, images=images, options=options, run=run, patterns=(a,))


def front_and_body(text: str) -> tuple[dict[str, Any], str]:
    first, front, body = text.split("---\n", 2)
    assert first == ""
    return yaml.safe_load(front), body


FIELDS = {
    *("library_name", "pipeline_tag", "tags", "base_model", "base_model_relation", "license", "datasets", "metrics"),
    "model-index",
}


@settings(max_examples=40, phases=[Phase.explicit, Phase.generate])
@given(st.lists(TEXT, min_size=5, max_size=5))
def test_a_card_holds_no_strangers_markup(measured: Soup, text: list[str]) -> None:
    """Whatever names say: metadata of exactly our fields, no HTML, links to the Hub alone, tables of our shape."""
    found = render_card(dressed(measured, text))
    front, body = front_and_body(found)
    assert front.keys() <= FIELDS
    assert front["license"] == "apache-2.0"
    assert front["tags"] == ["model-soup", "merge", "hfsoup"]
    (result,) = front["model-index"][0]["results"]
    assert result["metrics"] == [{"type": "accuracy", "value": measured.test, "name": "accuracy"}]
    tokens = MarkdownIt("commonmark", {"html": True}).enable("table").parse(body)
    inner = [child for token in tokens for child in token.children or ()]
    assert not {t.type for t in (*tokens, *inner)} & {"html_block", "html_inline", "image"}
    endpoint = HfApi().endpoint
    links = [str(t.attrs["href"]) for t in inner if t.type == "link_open"]
    assert links.pop() == f"{endpoint}/models?other=hfsoup"
    assert len(links) == 3
    assert all(link.startswith(f"{endpoint}/org/") for link in links)
    heads = [tokens[n + 1].content for n, t in enumerate(tokens) if t.type == "heading_open"]
    assert heads[1:] == [
        *("How to use it", "Ingredients", "What was measured", "The decisions", "Licence", "Bake it again", "Limits"),
        "Made with",
    ]
    assert shape(tokens) == [[4] * 4, [3] * 4, [4] * (1 + len(measured.trace))]
    assert len([t for t in tokens if t.type == "fence"]) == 3
    assert all(c.isprintable() or c == "\n" for c in found)
    assert not re.search(r"(?i)(?<![\w/.])(https?://(?!127\.0\.0\.1|arxiv\.org)|www\.\w)", body.split("## Bake it")[0])


class Structure(HTMLParser):
    """The tags of a page with the names of their attributes, and where its links lead."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, ...]] = []
        self.links: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, *(name for name, _ in attrs)))
        self.links += [value or "" for name, value in attrs if name == "href"]


@settings(max_examples=40, phases=[Phase.explicit, Phase.generate])
@given(st.lists(TEXT, min_size=5, max_size=5))
def test_notebook_and_page_hold_no_strangers_markup(measured: Soup, text: list[str]) -> None:
    """Their elements are those of a soup with plain names, links lead to the Hub, and all of it is printable."""
    pytest.importorskip("gradio")
    from hfsoup.ui.render import render_result

    hostile, plain = dressed(measured, text), dressed(measured, list("abcde"))
    shows: list[Callable[[Soup], str]] = [
        lambda soup: soup._repr_html_(),
        lambda soup: render_result(soup, public=False),
    ]
    for show in shows:
        page = show(hostile)
        found = Structure(page)
        assert found.tags == Structure(show(plain)).tags
        assert all(link.startswith(f"{HfApi().endpoint}/org/") for link in found.links)
        assert page.isprintable()
    assert all(line.isprintable() for line in repr(hostile).split("\n"))
    assert repr(hostile).count("\n") == repr(plain).count("\n")


def shape(tokens: Any) -> list[list[int]]:
    """Cells of every row of every table."""
    tables: list[list[int]] = []
    for token in tokens:
        if token.type == "table_open":
            tables.append([])
        elif token.type == "tr_open":
            tables[-1].append(0)
        elif token.type in ("td_open", "th_open"):
            tables[-1][-1] += 1
    return tables


@given(st.lists(TEXT.filter(lambda t: "\0" not in t and "\ud800" not in t), min_size=1, max_size=4))
def test_a_command_is_one_line_and_means_what_it_says(words: list[str]) -> None:
    """Any words are quoted so that a shell gives them back, on one line of a code block."""
    line = quote_command(shlex.join(["printf", "%s\\0", *words]))
    assert line.isprintable()
    done = subprocess.run(["bash", "-c", line], capture_output=True, env={"LC_ALL": "C.UTF-8"}, check=True)
    assert done.stdout.decode().split("\0")[:-1] == words


@given(TEXT, TEXT)
def test_the_screen_shows_text_as_text(name: str, note: str) -> None:
    """No control or direction character reaches the console, markup and emoji codes stay as they were typed."""
    from hfsoup.utils.progress import SearchStep

    screen, out = Screen(quiet=False), io.StringIO()
    screen.console = Console(file=out, force_terminal=True, color_system=None, width=10_000, highlight=False)
    screen.note(note)
    screen.decision(SearchStep(1, "add", name, 0.5, at_most=False, accepted=True, outcome="added"))
    assert all(c.isprintable() or c == "\n" for c in out.getvalue())
    assert out.getvalue().count("\n") == 2
    if note.isprintable() and len(note) < 200:
        assert out.getvalue().split("\n")[0].strip() == f"note {note}".strip()


def test_numbers_of_numpy_are_plain_in_the_card(measured: Soup) -> None:
    """A float64 of numpy's, which YAML would write as a Python object, is written as a number."""
    comparison = measured.comparison
    assert comparison is not None
    odd = replace(comparison, soup=replace(comparison.soup, value=np.float64(0.5)))
    evaluation = replace(measured.evaluation, comparison=odd)
    front, _ = front_and_body(render_card(replace(measured, evaluation=evaluation)))
    assert front["model-index"][0]["results"][0]["metrics"][0]["value"] == 0.5


def test_hostile_names_in_a_whole_bake(vit: Family, images: Any, alone: Path) -> None:
    """Folders, columns and splits with markup and escapes in their names bake, and the record is plain JSON."""
    from datasets import DatasetDict

    folder = copy_model(vit.folders[0], alone / "a|b <i>\x1b[2J\u202e")
    columns = {"image": "im|age\n#", "label": "<b>\x1b[1m"}
    parts = {n: images[n].rename_columns(columns) for n in ("validation", "test")}
    DatasetDict(parts).save_to_disk(alone / "data`|\x1b[3m")
    done = run("bake", f"./{folder.name}", vit.words[1], "--dataset", "./data`|\x1b[3m", "--output", "soup")
    assert done.code == 0, done.err
    assert all(c.isprintable() or c == "\n" for c in done.err)
    front, body = front_and_body(Path("soup/README.md").read_text())
    assert front.keys() <= FIELDS
    assert all(c.isprintable() or c == "\n" for c in body)
    text = Path("soup/soup.json").read_text()
    assert all(c.isprintable() or c == "\n" for c in text) or json.loads(text)


CARDS = {
    "a licence": ("license: mit\n", "mit"),
    "none": ("tags: [x]\n", None),
    "no YAML": ("license: [\n", None),
    "a date of another calendar": ("license: 2001-99-99\n", None),
    "a number": ("license: 7\n", None),
    "a mapping": ("license: {a: b}\n", None),
    "a tag": ("license: !!python/object/apply:os.system [touch marker]\n", None),
    "several": ("license: [mit, gpl-3.0]\n", "mit, gpl-3.0"),
    "other": ("license: other\nlicense_name: my-own\n", "other (my-own)"),
    "several lines": ('license: "mit\\n---\\nx: y"\n', "mit --- x: y"),
    "deep": (f"license: {'[' * 5000}\n", None),
}


@pytest.mark.parametrize(("front", "wanted"), CARDS.values(), ids=CARDS.keys())
def test_a_licence_is_read_as_text_or_not_at_all(
    front: str, wanted: str | None, measured: Soup, tmp_path: Path
) -> None:
    """A card that lies, is broken or is no card gives no licence, runs nothing, and stops nothing."""
    (tmp_path / "README.md").write_text(f"---\n{front}---\nwords\n")
    ingredient = replace(measured.family.reference, folder=tmp_path)
    assert read_license(ingredient) == wanted
    assert find_common_license([ingredient]) == (wanted if wanted == "mit" else None)
    assert not (tmp_path / "marker").exists()


def licensed(vit: Family, folder: Path, *licences: str | None) -> list[str]:
    """Copies of models whose cards name these licences."""
    words = []
    for n, licence in enumerate(licences):
        copy = copy_model(vit.folders[n], folder / f"m{n}")
        (copy / "README.md").write_text(f"---\nlicense: {licence}\n---\n" if licence else "words\n")
        words.append(str(copy))
    return words


def test_licences_that_differ_are_listed_and_none_is_claimed(vit: Family, alone: Path) -> None:
    """The card says which ingredient is under which licence, and its metadata names none."""
    bake(*licensed(vit, alone, "mit", "cc-by-nc-4.0", None), "--output", "soup")
    front, body = front_and_body(Path("soup/README.md").read_text())
    assert "license" not in front
    for line in ("- m0: mit", "- m1: cc-by-nc-4.0", "- m2: none named"):
        assert line in body


def test_a_push_under_several_licences_is_refused_before_the_search(
    signed_in: LocalHub, vit: Family, data: Path, alone: Path
) -> None:
    """The error names the licences and --license; with it the soup is pushed under that one."""
    words = [*licensed(vit, alone, "mit", "apache-2.0"), "--dataset", data, "--output", "soup", "--push", "kit/mixed"]
    block = refused("bake", *words, code=2)
    for text in ("under 2 licences", "mit:", "apache-2.0:", "--license"):
        assert text in block
    assert not Path("soup").exists()
    assert not HfApi(token=signed_in.token).repo_exists("kit/mixed")
    bake(*words, "--license", "apache-2.0")
    assert HfApi(token=signed_in.token).model_info("kit/mixed").card_data.license == "apache-2.0"
    assert "chosen by the author of this soup" in Path("soup/README.md").read_text()


def test_a_push_without_any_licence_claims_none(signed_in: LocalHub, vit: Family, alone: Path) -> None:
    """Ingredients that name none leave the soup without one; it is pushed all the same."""
    bake(*licensed(vit, alone, None, None), "--output", "soup", "--push", "kit/free")
    front, body = front_and_body(Path("soup/README.md").read_text())
    assert "license" not in front
    assert "No ingredient names a licence" in body


@pytest.mark.parametrize("licence", ["MIT License", "mit\nx: y", "", "<b>", "x" * 65])
def test_a_chosen_licence_is_an_identifier(licence: str, vit: Family, alone: Path) -> None:
    """--license takes what the Hub takes, and nothing that could be more."""
    assert "licence identifier of the Hub, found" in refused("bake", *vit.words[:2], "--license", licence, code=2)


@given(TEXT)
def test_errors_quote_names(name: str) -> None:
    """Class names in an error are escaped and shortened, so that they cannot pass for lines of ours."""
    from hfsoup.data.class_names import match_classes
    from hfsoup.utils.errors import MismatchError

    wanted = [name, *NAMES]
    with pytest.raises(MismatchError) as caught:
        match_classes(wanted, NAMES if name not in NAMES else NAMES[1:], where="one", against="the other")
    assert caught.value.what.count("\n") == 2
    assert all(c.isprintable() or c == "\n" for c in caught.value.what)
    assert len(caught.value.what) < 1500
