"""`hfsoup report`: one page that needs nothing else, shows what was recorded, and takes no orders from a repository."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from browser import CHROMIUM, browser, needs_chromium, short_environment
from family import NAMES, Family, copy_model, edit_json
from shell import bake, refused, run

from hfsoup.localhub import LocalHub
from hfsoup.utils.hashing import hash_file

HOSTILE = "<script>document.title='owned'</script>\"><img src=x onerror=document.title='owned'>"


class Page(HTMLParser):
    """A page's elements with their attributes, and the cells of its tables by the table's id."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.tables: dict[str, list[list[str]]] = {}
        self._table, self._cell = "", False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.elements.append((tag, found))
        if tag == "table":
            self._table = found.get("id") or f"table {len(self.tables)}"
            self.tables[self._table] = []
        elif tag == "tr":
            self.tables[self._table].append([])
        elif tag in ("td", "th"):
            self.tables[self._table][-1].append("")
            self._cell = True

    def handle_endtag(self, tag: str) -> None:
        self._cell = self._cell and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self._cell:
            self.tables[self._table][-1][-1] += data


@pytest.fixture
def baked(vit: Family, data: Path, alone: Path) -> dict[str, Any]:
    """A soup of two disturbed ViTs with pictures, its report in report.html."""
    words = (*vit.words, "--dataset", data, "--accept", ">", "--figures", "--output", "soup")
    found = bake(*words)
    done = run("report", "soup")
    assert done.code == 0, done.err
    return found


def seen() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path("soup/evaluation.json").read_text())
    return found


def test_what_is_no_soup_is_said_before_a_page_in_the_way(alone: Path) -> None:
    """A wrong name is the error, not the page of another soup that stands where this one would go."""
    Path("report.html").write_text("the page of another soup")
    Path("nothing").mkdir()
    block = refused("report", "./nothing", code=1)
    assert "soup.json" in block
    assert "already there" not in block


def test_the_tables_are_what_was_measured(baked: dict[str, Any]) -> None:
    """Scores, weights, decisions and classes stand as recorded, and classes add up to the test score."""
    page = Page(Path("report.html").read_text())
    assert [row[-2] for row in page.tables["ingredients"][1:]] == [
        f"{100 * i['score']:.2f} %" for i in baked["ingredients"]
    ]
    assert len(page.tables["decisions"]) == 1 + len(baked["trace"])
    measured = page.tables["table 0"]
    assert measured[1][1] == f"{100 * baked['soup']['test']:.2f} %"
    assert measured[2][1] == f"{100 * baked['best_ingredient']['test']:.2f} %"
    classes = page.tables["classes"][1:]
    assert [row[0] for row in classes] == list(NAMES)
    right = sum(float(row[2].rstrip(" %")) * int(row[1]) for row in classes) / 72
    assert right == pytest.approx(100 * baked["soup"]["test"], abs=0.1)


def test_recalls_have_intervals_and_confusions_are_counted(baked: dict[str, Any]) -> None:
    """A class's share lies within its interval; a pair of classes stands with how often each model confuses it."""
    page, record = Page(Path("report.html").read_text()), seen()
    for row in page.tables["classes"][1:]:
        for share, interval in (row[2:4], row[4:6]):
            low, high = map(float, interval.split(" to "))
            assert low <= float(share.rstrip(" %")) <= high
            assert high - low > 1
    rows = page.tables["confusions"][1:]
    assert rows
    for label, named, *counts in rows:
        pair = NAMES.index(label), NAMES.index(named)
        found = [list(zip(record["labels"], record[side], strict=True)).count(pair) for side in ("soup", "best")]
        assert counts == [*map(str, found), f"{found[0] - found[1]:+d}"]
        assert found[0] != found[1]


def test_the_calibration_is_that_of_the_test_images(baked: dict[str, Any], images: Any) -> None:
    """Each bin counts the test images that the pipeline is so sure of, and its error is the one that is stated."""
    from transformers import pipeline

    classify = pipeline("image-classification", "soup")
    said = [classify(picture, top_k=1)[0] for picture in images["test"]["image"][:]]
    right = [one["label"] == NAMES[label] for one, label in zip(said, images["test"]["label"][:], strict=True)]
    page = Page(text := Path("report.html").read_text())
    rows = {row[0]: row[1:] for row in page.tables["calibration"][1:]}
    error = 0.0
    for n in range(15):
        held = [(one["score"], ok) for one, ok in zip(said, right, strict=True) if n < 15 * one["score"] <= n + 1]
        name = f"{100 * n / 15:.0f} to {100 * (n + 1) / 15:.0f} %"
        assert len(held) == int(rows.get(name, ["0"])[0])
        if held:
            sure, share = (sum(side) / len(held) for side in zip(*held, strict=True))
            assert rows[name][1:3] == [f"{100 * sure:.1f} %", f"{100 * share:.1f} %"]
            low, high = map(float, rows[name][3].split(" to "))
            assert low <= 100 * share <= high
            error += len(held) / 72 * abs(sure - share)
    assert baked["soup"]["ece"] == pytest.approx(error, abs=1e-6)
    assert f"this soup {error:.4f}, best ingredient {baked['best_ingredient']['ece']:.4f}" in text
    assert text.count("<circle") == sum(row[column] != "0" for row in rows.values() for column in (0, 4))


def test_the_page_says_how_to_use_the_soup(baked: dict[str, Any]) -> None:
    """One line of Python, of the folder that the report is of."""
    assert 'classify = pipeline("image-classification", "soup")' in unescape(Path("report.html").read_text())


@needs_chromium
def test_on_a_phone_the_page_is_as_wide_as_the_screen(baked: dict[str, Any], tmp_path: Path) -> None:
    """At 390 pixels nothing but a table scrolls sideways, and no name is broken into single letters."""
    with browser(tmp_path / "profile") as tab:
        tab.call("Emulation.setDeviceMetricsOverride", width=390, height=844, deviceScaleFactor=1, mobile=True)
        tab.open(Path("report.html").absolute().as_uri())
        tab.wait("document.readyState == 'complete' && document.querySelector('#classes')")
        assert tab.js("document.documentElement.scrollWidth") == 390
        narrowest = (
            "Math.min(...[...document.querySelectorAll('tbody td:first-child:not(.number)')].map(c => c.clientWidth))"
        )
        assert tab.js(narrowest) >= 85
        tab.js("document.querySelector('details').open = true")
        for name in ("classes", "confusions", "decisions", "ingredients", "calibration"):
            assert tab.js(f"document.querySelector('#{name}').parentNode.scrollWidth") <= 390, name
        assert tab.js("document.querySelector('pre').scrollWidth <= document.querySelector('pre').clientWidth")


def test_what_was_said_of_each_image_is_recorded(baked: dict[str, Any], images: Any) -> None:
    """Labels are the dataset's, and the counts of right answers are the scores of the comparison."""
    record = seen()
    assert record["labels"] == images["test"]["label"][:]
    for name, score in (("soup", baked["soup"]["test"]), ("best", baked["best_ingredient"]["test"])):
        right = sum(guess == label for guess, label in zip(record[name], record["labels"], strict=True))
        assert right / 72 == score
    assert json.loads(Path("soup/soup.json").read_text())["files"]["evaluation.json"] == hash_file(
        Path("soup/evaluation.json")
    )


def test_the_page_needs_nothing_else(baked: dict[str, Any]) -> None:
    """Every picture is in it, nothing is loaded from elsewhere, and its policy would forbid it."""
    page = Page(Path("report.html").read_text())
    for tag, attributes in page.elements:
        assert tag not in ("link", "iframe", "object", "embed", "base", "form")
        for name in ("src", "srcset"):
            assert (attributes.get(name) or "data:").startswith("data:image/") if name in attributes else True
    policy = next(a["content"] or "" for t, a in page.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert "script-src 'sha256-" in policy


def test_the_images_on_which_they_differ_are_shown(baked: dict[str, Any]) -> None:
    """One tile for each, with its row, and the page counts them."""
    record, text = seen(), Path("report.html").read_text()
    rows = [row for row, a, b in zip(record["rows"], record["soup"], record["best"], strict=True) if a != b]
    assert rows
    assert [int(n) for n in re.findall(r'alt="test image, row (\d+)"', text)] == rows
    assert f"name different classes for {len(rows)}." in " ".join(text.split())


def test_what_auto_tried_is_shown_with_its_walks(vit: Family, data: Path, alone: Path) -> None:
    """Every recipe that ran has its selection score, the kept one is marked, and each decision names its walk."""
    bake(*vit.words, "--dataset", data, "--recipe", "auto", "--output", "soup")
    assert run("report", "soup").code == 0
    page, record = Page(Path("report.html").read_text()), json.loads(Path("soup/soup.json").read_text())
    tried = {row[0]: row[2:] for row in page.tables["attempts"][1:]}
    assert tried == {a["name"]: [f"{100 * a['score']:.2f} %", "yes" if a["kept"] else "no"] for a in record["attempts"]}
    walks = [row[1].partition(": ")[0] for row in page.tables["decisions"][1:]]
    assert walks == [step["walk"] for step in record["trace"]]
    assert {"greedy", "pruned"} <= set(walks)


def test_without_the_dataset_the_page_says_so(vit: Family, data: Path, alone: Path) -> None:
    """Where it is gone or changed there are no images, and everything else is there."""
    shutil.copytree(data, "shapes")
    bake(*vit.words, "--dataset", "shapes", "--accept", ">", "--output", "soup")
    Path("shapes/test-00000-of-00001.parquet").write_bytes(
        Path("shapes/validation-00000-of-00001.parquet").read_bytes()
    )
    assert run("report", "soup", "-o", "changed.html").code == 0
    shutil.rmtree("shapes")
    assert run("report", "soup", "-o", "gone.html").code == 0
    for name, text in (("changed", "not the one that was scored"), ("gone", "could not be read again")):
        page = Path(f"{name}.html").read_text()
        assert text in page
        assert 'class="tile"' not in page
        assert 'id="classes"' in page


def test_without_data_there_are_only_ingredients(vit: Family, alone: Path) -> None:
    """A soup that was not measured has a page that says so."""
    bake(*vit.words, "--output", "soup")
    assert run("report", "soup").code == 0
    text = Path("report.html").read_text()
    assert "No test score was measured" in text
    assert 'id="classes"' not in text
    assert "--figures" in text


def test_a_soup_on_the_hub_is_reported_without_its_weights(on_hub: LocalHub, signed_in: LocalHub, alone: Path) -> None:
    """Record, evaluation, pictures and dataset are pulled; the weight file is not asked for."""
    bake("kit/vit-*", "--dataset", "kit/shapes", "--accept", ">", "--figures", "--output", "soup", "--push", "kit/told")
    on_hub.forget_requests()
    done = run("report", "kit/told")
    assert done.code == 0, done.err
    text = Path("report.html").read_text()
    assert "Soup report: kit/told" in text
    assert text.count('class="tile"') > 0
    assert text.count("<picture>") == 3
    asked = [seen.path for seen in on_hub.requests]
    assert asked
    assert not [path for path in asked if "kit/told" in path and path.endswith(".safetensors")]


def test_a_file_is_not_overwritten_unasked(baked: dict[str, Any]) -> None:
    """The second report to one name is refused, and --overwrite allows it."""
    assert "--overwrite" in refused("report", "soup", code=1)
    assert run("report", "soup", "--overwrite").code == 0


def longer(value: dict[str, Any]) -> None:
    value["soup"].append(0)


def unknown(value: dict[str, Any]) -> None:
    value["soup"][0] = 99


def fewer(value: dict[str, Any]) -> None:
    for name in ("rows", "labels", "soup", "best"):
        value[name].pop()


@pytest.mark.parametrize("change", [longer, unknown, fewer])
def test_a_damaged_evaluation_is_one_clear_block(
    baked: dict[str, Any], change: Callable[[dict[str, Any]], None]
) -> None:
    """Changed alone it is not the file that was recorded; recorded too it is still not whole."""
    value = seen()
    change(value)
    Path("soup/evaluation.json").write_text(json.dumps(value))
    assert "not the file that was recorded" in refused("report", "soup", "-o", "other.html", code=1)
    record = json.loads(Path("soup/soup.json").read_text())
    record["files"]["evaluation.json"] = hash_file(Path("soup/evaluation.json"))
    Path("soup/soup.json").write_text(json.dumps(record))
    assert "evaluation.json" in refused("report", "soup", "-o", "other.html", code=1)
    assert not Path("other.html").exists()


@pytest.fixture
def hostile(vit: Family, data: Path, images: Any, alone: Path) -> str:
    """The page of a soup every text of which holds markup."""
    from datasets import ClassLabel

    names = [HOSTILE, *NAMES[1:]]
    marked = images.__class__(
        {name: images[name].cast_column("label", ClassLabel(names=names)) for name in ("validation", "test")}
    )
    Path("marked").mkdir()
    for name in ("validation", "test"):
        marked[name].to_parquet(f"marked/{name}-00000-of-00001.parquet")
    for n, folder in enumerate(vit.folders[:3]):
        copy_model(folder, alone / f"m-{n}")
        labels = {"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}}
        edit_json(alone / f"m-{n}" / "config.json", **labels)
    bake("./m-0", "./m-1", "./m-2", "--dataset", "marked", "--accept", ">", "--output", "soup")
    path = Path("soup/soup.json")
    record = json.loads(path.read_text())
    record["recipe"] = record["merge"] = record["hfsoup"] = record["versions"]["torch"] = HOSTILE
    record["test"]["verdict"] = record["dataset"]["metric"] = record["dataset"]["id"] = HOSTILE
    for part in ("selection", "test"):
        record["dataset"][part]["name"] = record["dataset"][part]["rule"] = HOSTILE
    for ingredient in record["ingredients"]:
        ingredient["id"], ingredient["revision"] = HOSTILE, "0" * 40
    for decision in record["trace"]:
        decision["ingredient"] = decision["action"] = HOSTILE
    path.write_text(json.dumps(record))
    done = run("report", "soup")
    assert done.code == 0, done.err
    return Path("report.html").read_text()


def test_a_hostile_record_is_only_text(hostile: str) -> None:
    """No script but the page's own, no picture but data, no attribute that runs, no link but to the Hub."""
    page = Page(hostile)
    assert [tag for tag, _ in page.elements].count("script") == 1
    for tag, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on")], tag
        assert (attributes.get("src") or "data:").startswith("data:")
        assert (attributes.get("href") or "http://127.0.0.1").startswith("http://127.0.0.1")
    assert "&lt;script&gt;" in hostile
    shown = {cell for rows in page.tables.values() for row in rows for cell in row}
    assert any("<script>" in cell for cell in shown)


def dom(text: str, folder: Path, *, driver: str = "") -> tuple[str, str]:
    """The page after its script ran, and what the console said; a `driver` runs after it, and is allowed to."""
    if driver:
        text = re.sub(r"script-src 'sha256-[^']+'", "script-src 'unsafe-inline'", text)
        text = text.replace("</body>", f"<script>{driver}</script></body>")
    path = folder / "shown.html"
    path.write_text(text)
    flags = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync")
    flags += ("--disable-background-networking", "--disable-component-update", "--enable-logging=stderr")
    command = [str(CHROMIUM), *flags, f"--user-data-dir={folder / 'profile'}", "--dump-dom", path.as_uri()]
    env = short_environment()
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120, env=env)
    return done.stdout, "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)


SORT = """
const column = (id, n) => [...document.querySelectorAll(`#${id} tbody tr`)].map((row) => row.cells[n].textContent);
const press = (id, n) => document.querySelectorAll(`#${id} th button`)[n].click();
const found = {};
press("ingredients", 2); found.down = column("ingredients", 2);
press("ingredients", 2); found.up = column("ingredients", 2);
press("classes", 0); found.names = column("classes", 0);
document.querySelector("input[value=soup]").click();
found.tiles = [...document.querySelectorAll("figure.tile")].filter((t) => t.offsetParent).map((t) => t.dataset.who);
found.pictures = [...document.images].map((i) => i.complete && i.naturalWidth > 0);
document.body.dataset.found = JSON.stringify(found);
"""


@needs_chromium
def test_in_a_browser_it_sorts_filters_and_shows_its_pictures(baked: dict[str, Any], tmp_path: Path) -> None:
    """In headless Chromium: buttons sort both ways, the choice hides tiles, every picture has a size, no error."""
    from html import unescape

    text = Path("report.html").read_text()
    after, console = dom(text, tmp_path)
    assert console == ""
    assert after.count("<th") - after.count("<thead") == after.count("<button") + 3
    driver = f"addEventListener('load', () => {{ {SORT} }});"
    after, console = dom(text, tmp_path, driver=driver)
    assert console == ""
    found = json.loads(unescape(re.findall(r'data-found="([^"]*)"', after)[0]))
    scores = sorted((f"{100 * i['score']:.2f} %" for i in baked["ingredients"]), key=lambda s: -float(s[:-2]))
    assert found["down"] == scores
    assert found["up"] == scores[::-1]
    assert found["names"] == sorted(NAMES)
    assert found["tiles"] == ["soup"] * text.count('data-who="soup"')
    assert found["pictures"]
    assert all(found["pictures"])


@needs_chromium
def test_in_a_browser_a_hostile_record_runs_nothing(hostile: str, tmp_path: Path) -> None:
    """The title stays, and the console is silent: nothing was even blocked."""
    after, console = dom(hostile, tmp_path)
    assert console == ""
    assert "<title>Soup report: soup</title>" in after
