"""The model card: its metadata read back, its claims against what was measured, and nothing of a stranger's markup."""

from __future__ import annotations

import json
import re
import shlex
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from family import NAMES, Family, copy_model, edit_json, put_weights, weights
from huggingface_hub import ModelCard
from huggingface_hub.repocard import metadata_load
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from shell import bake, run

import hfsoup
from hfsoup.localhub import LocalHub
from hfsoup.reports.card.formatting import escape_markdown
from hfsoup.reports.html import make_report


@pytest.fixture
def carded(on_hub: LocalHub, alone: Path) -> tuple[dict[str, Any], Any, str]:
    """A greedy bake from the Hub: its JSON, the card's metadata and its text."""
    found = bake("kit/vit-*", "--dataset", "kit/shapes", "--accept", ">", "--output", "soup")
    card = ModelCard.load("soup/README.md")
    return found, card.data, card.text


def test_metadata(carded: tuple[dict[str, Any], Any, str]) -> None:
    """Library, task, tags, base models and their relation, dataset and metric are what the Hub expects."""
    found, data, _ = carded
    used = [i["id"] for i in found["ingredients"] if i["used"]]
    assert (data.library_name, data.pipeline_tag) == ("transformers", "image-classification")
    assert {"model-soup", "merge"} <= set(data.tags)
    assert sorted(data.base_model) == sorted(used)
    assert data.get("base_model_relation") == "merge"
    assert (data.datasets, data.metrics) == (["kit/shapes"], ["accuracy"])
    assert data.license == "apache-2.0"


def test_the_model_index_is_the_test_score(carded: tuple[dict[str, Any], Any, str]) -> None:
    """The one result in the metadata is the JSON's test number on the test split, as a plain number."""
    found, data, _ = carded
    (result,) = data.eval_results
    assert result.metric_value == found["soup"]["test"]
    assert (result.dataset_type, result.dataset_split, result.metric_type) == ("kit/shapes", "test", "accuracy")
    assert "!!python" not in Path("soup/README.md").read_text()
    assert metadata_load(Path("soup/README.md"))


def test_local_images_are_no_dataset_of_the_hub(vit: Family, data: Path, alone: Path) -> None:
    """A folder is called local files, under no dataset's page, and the card says what to type for it."""
    bake(*vit.words, "--dataset", data, "--output", "soup")
    card = ModelCard.load("soup/README.md")
    (result,) = card.data.eval_results
    assert (result.dataset_type, result.dataset_name) == ("imagefolder", f"{data.name} (local files)")
    assert card.data.datasets is None
    assert "The dataset is local files too: write their path after `--dataset`." in card.text


def test_text_tells_ingredients_and_decisions(carded: tuple[dict[str, Any], Any, str]) -> None:
    """Every ingredient stands with its commit, every decision with its score; citations and versions follow."""
    found, _, text = carded
    for ingredient in found["ingredients"]:
        assert ingredient["revision"][:12] in text
        assert f"{100 * ingredient['score']:.2f} %" in text
    for decision in found["trace"]:
        became = "added" if decision["accepted"] else "not added"
        assert f"| {100 * decision['score']:.2f} % | {became} |" in text
    assert "arxiv.org/abs/2203.05482" in text
    assert f"hfsoup {hfsoup.__version__}" in text


def test_the_command_bakes_the_same_bytes(carded: tuple[dict[str, Any], Any, str]) -> None:
    """What the card says to type makes the soup again, pinned to the commits."""
    found, _, text = carded
    line = next(line for line in text.splitlines() if line.startswith("hfsoup bake"))
    done = run(*shlex.split(line)[1:], "--output", "again", "--json", "-")
    assert done.code == 0, done.err
    assert done.json["soup"]["sha256"] == found["soup"]["sha256"]
    assert done.json["soup"]["test"] == found["soup"]["test"]


class Elements(HTMLParser):
    """The elements of a page, each with its attributes; a tag that closes another than the last one opened fails."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note the element."""
        self.found.append((tag, dict(attrs)))
        if tag not in ("img", "source", "br", "hr"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        """Close the element."""
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        """Note the text outside code."""
        self.text += "" if {"code", "pre"} & set(self.open) else data


def test_the_card_as_the_hub_renders_it(on_hub: LocalHub, alone: Path) -> None:
    """CommonMark with tables and HTML: whole elements, two pictures for light and dark, all classes, no markup left."""
    bake("kit/vit-*", "--dataset", "kit/shapes", "--figures", "--output", "soup")
    card = ModelCard.load("soup/README.md").text
    page = Elements(MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).render(card))
    assert page.open == []
    assert [tag for tag, _ in page.found].count("picture") == 2
    places = [
        attributes.get("src") or attributes.get("srcset") for tag, attributes in page.found if tag in ("img", "source")
    ]
    assert places == [f"figures/{name}.png" for name in ("scores-dark", "scores", "search-dark", "search")]
    assert all(Path("soup", str(place)).is_file() for place in places)
    assert all(attributes["alt"] for tag, attributes in page.found if tag == "img")
    assert ", ".join(NAMES) in page.text
    assert not re.search(r"\*\*|^\||\]\(|^#|\{\{", page.text, re.MULTILINE)
    links = [attributes["href"] for tag, attributes in page.found if tag == "a"]
    assert f"{on_hub.url}/models?other=hfsoup" in links
    assert "figures/closeness.png" in links


def test_the_card_is_whole_markdown(carded: tuple[dict[str, Any], Any, str]) -> None:
    """Every table has a row for each entry and as many cells as its head."""
    found, _, text = carded
    tokens = MarkdownIt().enable("table").parse(text)
    tables, cells = [], []
    for token in tokens:
        if token.type == "table_open":
            tables.append([])
        elif token.type in ("td_open", "th_open"):
            cells.append(token)
        elif token.type == "tr_close":
            tables[-1].append(len(cells))
            cells = []
    assert [len(rows) - 1 for rows in tables] == [4, 3, len(found["trace"])]
    assert all(len(set(rows)) == 1 for rows in tables)


@pytest.mark.parametrize(
    ("verdict", "text"),
    [
        ("better", "the soup is better than its best ingredient"),
        ("worse", "the soup is worse than its best ingredient"),
        ("not distinguishable", "the soup is not distinguishable from its best ingredient"),
    ],
)
def test_the_verdict_is_said_plainly(verdict: str, text: str, vit: Family, data: Path, alone: Path) -> None:
    """The card's sentence follows the paired test, whichever way it goes."""
    from dataclasses import replace

    from hfsoup.evaluation.scores import Comparison, Intervals, Score
    from hfsoup.reports.card.render import render_card

    soup = hfsoup.bake(*vit.words, recipe="uniform", dataset=str(data))
    soup_right, best_right, p_value = {"better": (60, 40, 0.001), "worse": (40, 60, 0.001)}.get(verdict, (50, 49, 0.9))
    scores = [Score(n / 72, 72, n) for n in (soup_right, best_right)]
    comparison = Comparison(*scores, Intervals((0.1, 0.9), (0.1, 0.9), (-0.1, 0.1)), p_value)
    assert comparison.verdict == verdict
    found = render_card(replace(soup, evaluation=replace(soup.evaluation, comparison=comparison)))
    assert f"**On the test split {text}" in found
    assert found.count("**On the test split") == 1


def test_a_search_that_kept_one_ingredient_says_so(vit: Family, data: Path, alone: Path) -> None:
    """A soup of one is not sold as a soup, nor as a merge, and nothing is claimed of soups that were not scored."""
    done = run("bake", *vit.words, "--dataset", data, "--max-ingredients", 1, "--output", "soup")
    text = Path("soup/README.md").read_text()
    assert "The search kept one ingredient only" in text
    assert "# One vit image classifier out of 4\n" in text
    assert "Model soup of" not in text
    assert ModelCard.load("soup/README.md").data.tags == ["hfsoup"]
    assert "base_model_relation" not in text
    for told in (done.err, text, make_report("soup", images=False)):
        assert "was better on the selection split" not in told
    assert "the best ingredient alone: no soup of two or more was scored\n" in done.err
    assert "unchanged. No soup of two or more was scored.**" in text


@pytest.fixture
def codecarbon(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A stand-in for codecarbon on a machine in France; `kilograms` is its answer, or an error."""
    seen: dict[str, Any] = {"kilograms": 0.000123456, "given": []}

    class Tracker:
        def __init__(self, **given: Any) -> None:
            seen["given"].append(given)
            self.final_emissions_data = SimpleNamespace(
                region=None, country_name="France", gpu_count=2, gpu_model="H200", cpu_model="A *CPU*",
                codecarbon_version="3.3.2",
            )  # fmt: skip

        def start(self) -> None:
            seen["running"] = True

        def stop(self) -> Any:
            seen["running"] = False
            if isinstance(seen["kilograms"], Exception):
                raise seen["kilograms"]
            return seen["kilograms"]

    module = ModuleType("codecarbon")
    module.OfflineEmissionsTracker = Tracker  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "codecarbon", module)
    monkeypatch.setenv("CODECARBON_COUNTRY_ISO_CODE", "FRA")
    return seen


def test_emissions_are_those_that_codecarbon_measured(codecarbon: dict[str, Any], vit: Family, alone: Path) -> None:
    """In grams, as the Hub lists them; offline, without a file of its own; the soup's other files do not change."""
    bake(*vit.words, "--output", "soup")
    card = ModelCard.load("soup/README.md")
    assert card.data.to_dict()["co2_eq_emissions"] == {
        "emissions": 0.1235,
        "source": "codecarbon 3.3.2, of the bake alone: the training of its ingredients is not in it",
        "training_type": "merging",
        "geographical_location": "France",
        "hardware_used": "2 × H200, A *CPU*",
    }
    assert "emitted 0.123 g of CO₂ equivalent" in card.text
    (given,) = codecarbon["given"]
    assert (given["country_iso_code"], given["save_to_file"], given["save_to_api"]) == ("FRA", False, False)
    assert codecarbon["running"] is False
    record = json.loads(Path("soup/soup.json").read_text())
    assert "emissions" not in json.dumps({**record, "files": {}})


@pytest.mark.parametrize("answer", [None, float("nan"), -1.0, "much", RuntimeError("no power")], ids=str)
def test_where_codecarbon_fails_the_soup_is_baked_and_nothing_claimed(
    answer: Any, codecarbon: dict[str, Any], vit: Family, alone: Path
) -> None:
    """No answer is no number; what is none is noted."""
    codecarbon["kilograms"] = answer
    done = run("bake", *vit.words, "--output", "soup")
    assert done.code == 0, done.err
    assert "co2" not in Path("soup/README.md").read_text().lower()
    assert ("codecarbon could not measure" in done.err) is (answer is not None)


def test_without_a_country_codecarbon_is_not_asked(
    codecarbon: dict[str, Any], vit: Family, alone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would look this machine's place up on the network."""
    monkeypatch.delenv("CODECARBON_COUNTRY_ISO_CODE")
    bake(*vit.words, "--output", "soup")
    assert codecarbon["given"] == []
    assert "co2" not in Path("soup/README.md").read_text().lower()


def test_a_copy_is_said_to_be_one_before_it_is_pushed(
    vit: Family, on_hub: LocalHub, signed_in: LocalHub, alone: Path
) -> None:
    """On the screen and at the head of the card; a soup of two, one in another type or class order, is no copy."""
    words = ("bake", "kit/vit-*", "--recipe", "latest", "--last")
    done = run(*words, 1, "--output", "one", "--push", "kit/one")
    assert done.code == 0, done.err
    assert done.err.index("this is no soup but a copy of kit/vit-") < done.err.index("Pushed to kit/one")
    assert "**This is a copy of [kit/vit-" in Path("one/README.md").read_text()
    assert "a copy of" in run("push", "one", "kit/two").err
    for n, more in (("pair", (2,)), ("half", (1, "--dtype", "bfloat16"))):
        done = run(*words, *more, "--output", n, "--push", f"kit/{n}-soup")
        assert done.code == 0, done.err
        assert "a copy of" not in done.err + Path(n, "README.md").read_text()
    other = copy_model(vit.folders[0], alone / "other")
    classes = json.loads((other / "config.json").read_text())["id2label"].values()
    edit_json(other / "config.json", id2label=dict(enumerate([*classes][::-1])), label2id=None)
    done = run("bake", vit.words[1], other, *words[2:], 1, "--output", "turned", "--push", "kit/turned-soup")
    assert done.code == 0, done.err
    assert "a copy of" not in done.err + Path("turned/README.md").read_text()


def test_that_no_soup_was_better_is_said_where_one_was_scored(vit: Family, data: Path, alone: Path) -> None:
    """Three copies that are far off lower every average; with a --margin soups may score higher and be turned down."""
    worse = [copy_model(vit.folders[0], alone / f"m-{n}") for n in range(3)]
    for folder in worse:
        put_weights(folder, {n: -t if n == "classifier.weight" else t for n, t in weights(folder).items()})
    done = run("bake", vit.words[0], *worse, "--recipe", "greedy", "--dataset", data, "--output", "soup")
    assert "kept the best ingredient alone: no soup that was scored was better on the selection split\n" in done.err
    assert (
        "unchanged. No soup that was scored was better on the selection split.**" in Path("soup/README.md").read_text()
    )
    words = (*vit.words, "--recipe", "greedy", "--dataset", data, "--margin")
    assert max(d["score"] for d in bake(*words, 0)["trace"]) > max(i["score"] for i in bake(*words, 9)["ingredients"])
    done = run("bake", *words, 9, "--output", "third")
    assert "alone: soups that scored higher on the selection split were not accepted\n" in done.err
    assert "no soup" not in done.err


def test_one_ingredient_and_its_base_are_two_models(vit: Family, data: Path, alone: Path) -> None:
    """Where wise-ft goes towards the base, the card does not say that the ingredient is unchanged."""
    good, bad = vit.folders[0], copy_model(vit.folders[1], alone / "tuned")
    generator = torch.Generator().manual_seed(0)
    noise = {n: t + 1.5 * t.std() * torch.randn(t.shape, generator=generator) for n, t in weights(bad).items()}
    put_weights(bad, {n: noise[n] if t.ndim > 1 else t for n, t in weights(bad).items()})
    done = run("bake", bad, "--recipe", "wise-ft", "--base", good, "--dataset", data, "--output", "soup", "--json", "-")
    assert done.json["base"]["weight"] > 0
    card = ModelCard.load("soup/README.md")
    assert "unchanged" not in card.text
    assert "alone" not in done.err
    assert {"merge", "model-soup"} <= set(card.data.tags)


def test_without_data_nothing_is_claimed(vit: Family, alone: Path) -> None:
    """A bake without a dataset says that nothing was measured and carries no result."""
    bake(*vit.words, "--output", "soup")
    card = ModelCard.load("soup/README.md")
    assert "Nothing was measured" in card.text
    assert card.data.eval_results is None
    assert (card.data.datasets, card.data.metrics) == (None, None)


@pytest.mark.parametrize(
    ("licences", "wanted"),
    [(["mit", "mit"], "mit"), (["mit", "apache-2.0"], None), (["mit", None], None), ([None, None], None)],
    ids=["same", "different", "one without", "none"],
)
def test_a_licence_is_named_only_where_all_agree(
    licences: list[str | None], wanted: str | None, vit: Family, alone: Path
) -> None:
    """Ingredients under different licences, or one without, leave the field out."""
    for n, licence in enumerate(licences):
        folder = copy_model(vit.folders[n], alone / f"m-{n}")
        (folder / "README.md").write_text(f"---\nlicense: {licence}\n---\n" if licence else "no metadata\n")
    bake("./m-0", "./m-1", "--output", "soup")
    assert ModelCard.load("soup/README.md").data.license == wanted


def test_local_folders_keep_their_paths_to_themselves(vit: Family, alone: Path) -> None:
    """Only the last name of a local folder is in the card."""
    bake(*vit.words, "--output", "soup")
    text = Path("soup/README.md").read_text()
    assert "vit-10" in text.replace("\\", "")
    assert str(vit.folders[0].parent) not in text


HOSTILE = "<script>alert(1)</script>|[x](http://evil)\n# head `code` ![i](http://evil/x.png)"


def test_hostile_names_are_only_text(vit: Family, data: Path, alone: Path) -> None:
    """A folder, a label and a licence that hold markup give no tag, link, image or heading, and whole metadata."""
    folder = alone / "a<b>|[x](y)#`c`"
    copy_model(vit.folders[0], folder)
    second = copy_model(vit.folders[1], alone / "second")
    names = [HOSTILE, *NAMES[1:]]
    for model in (folder, second):
        edit_json(model / "config.json", id2label=dict(enumerate(names)), label2id={n: i for i, n in enumerate(names)})
        (model / "README.md").write_text('---\nlicense: "mit\\n---\\n<script>"\n---\n')
    bake(f"./{folder.name}", "./second", "--output", "soup")
    text = ModelCard.load("soup/README.md").text
    rendered = MarkdownIt("commonmark", {"html": True}).enable("table").render(text)
    assert "<script" not in rendered
    assert 'href="y"' not in rendered
    assert "a&lt;b&gt;|[x](y)#`c`" in rendered.replace("%7C", "|")
    assert metadata_load(Path("soup/README.md"))


@given(st.text(max_size=60))
def test_escaped_text_renders_as_itself(text: str) -> None:
    """Any text, once escaped, is one table cell without links, images, code or tags."""
    table = f"| a | b |\n|---|---|\n| {escape_markdown(text)} | end |\n"
    tokens = MarkdownIt("commonmark", {"html": True}).enable("table").parse(table)
    cells = [t for t in tokens if t.type == "inline"]
    assert len(cells) == 4
    assert cells[3].content == "end"
    kinds = {child.type for child in cells[2].children or ()}
    assert kinds <= {"text", "text_special"}, kinds


def test_control_characters_do_not_reach_the_terminal(vit: Family, alone: Path) -> None:
    """A name with escape codes cannot steer the screen."""
    evil = copy_model(vit.folders[0], alone / "evil\x1b[31m")
    done = run("bake", f"./{evil.name}", vit.words[1], "--output", "soup", "--json", "-")
    assert done.code == 0
    assert "\x1b" not in done.err
    assert re.search(r"evil.\[31m", done.err)
