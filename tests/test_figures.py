"""Pictures of a bake: drawn from what was measured, recorded like every file, the same bytes every time."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from family import Family
from huggingface_hub import HfApi
from markdown_it import MarkdownIt
from matplotlib.figure import Figure
from PIL import Image
from safetensors.numpy import load_file
from shell import bake, refused, run

import hfsoup
from hfsoup.localhub import LocalHub
from hfsoup.reports.figures import closeness, scores, search
from hfsoup.reports.figures.style import LIGHT

ALL = {f"figures/{name}{end}.png" for name in ("scores", "search", "closeness", "line") for end in ("", "-dark")}


@pytest.fixture
def drawn(vit: Family, data: Path, alone: Path) -> dict[str, Any]:
    """A greedy bake in `soup`, with every picture."""
    words = (*vit.words, "--dataset", data, "--accept", ">", "--figures", "--figure-line", "--output", "soup")
    return bake(*words)


def test_every_picture_is_a_picture_recorded_and_in_the_card(drawn: dict[str, Any]) -> None:
    """soup.json has each with its hash; the card shows two by relative paths, light and dark, and links the others."""
    files = json.loads(Path("soup/soup.json").read_text())["files"]
    assert set(files) >= ALL
    for name in ALL:
        data = Path("soup", name).read_bytes()
        assert hashlib.sha256(data).hexdigest() == files[name]
        image = Image.open(io.BytesIO(data)).convert("RGB")
        assert image.size == (1080, 690)
        # Light pictures are mostly light and dark ones dark, and neither is empty.
        assert (image.getpixel((2, 300))[0] < 40) == ("-dark" in name)  # type: ignore[index]
        assert len(set(image.resize((108, 69)).tobytes())) > 40
    text = Path("soup/README.md").read_text()
    html = MarkdownIt("commonmark", {"html": True}).render(text)
    in_card = {name for name in ALL if "dark" not in name or ("closeness" not in name and "line" not in name)}
    assert {name for name in ALL if f'"{name}"' in html} == in_card


def test_pictures_do_not_depend_on_the_run(drawn: dict[str, Any], vit: Family, data: Path) -> None:
    """Drawn again elsewhere, after a bake that took its scores from the journal, every byte is the same."""
    words = (*vit.words, "--dataset", data, "--accept", ">", "--figures", "--figure-line", "--output", "again")
    bake(*words)
    for name in (*ALL, "evaluation.json", "soup.json"):
        assert Path("soup", name).read_bytes() == Path("again", name).read_bytes(), name


def test_pictures_choose_nothing_and_are_counted(drawn: dict[str, Any], vit: Family, data: Path, alone: Path) -> None:
    """The same soup, trace and scores as without; the images they cost are in images_forwarded."""
    plain = bake(*vit.words, "--dataset", data, "--accept", ">", "--no-resume", "--output", "plain")
    assert {k: drawn["soup"][k] for k in ("score", "test", "sha256")} == {
        k: plain["soup"][k] for k in ("score", "test", "sha256")
    }
    assert drawn["trace"] == plain["trace"]
    # At least the three ingredients that the comparison had not tested, and nine mixes on both splits.
    assert drawn["images_forwarded"] >= plain["images_forwarded"] + 3 * 72 + 9 * (60 + 72)
    assert not Path("plain/figures").exists()


def test_points_are_what_was_measured(vit: Family, data: Path, alone: Path) -> None:
    """Every ingredient stands with the scores that it has alone; a candidate that was stopped early has no point."""
    soup = hfsoup.bake(*vit.words, dataset=str(data), figures=True, accept=">", batch_size=8)
    assert soup.evaluation.evidence is not None
    points = {(p.kind, p.number): p for p in soup.evaluation.evidence.points}
    for n, word in enumerate(vit.words):
        alone_ = hfsoup.bake(vit.words[n - 1], word, dataset=str(data), recipe="latest", last=1, batch_size=8)
        assert (points["ingredient", n].selection.value, points["ingredient", n].test.value) == (
            alone_.score,
            alone_.test,
        )
    everything = hfsoup.bake(*vit.words, dataset=str(data), recipe="uniform")
    mean = points.get(("uniform", 0))
    if mean is not None:
        assert (mean.selection.value, mean.test.value) == (everything.score, everything.test)
    given_up = {d.step for d in soup.trace if d.score.at_most}
    assert given_up
    assert not given_up & {number for kind, number in points if kind == "candidate"}


def test_without_data_only_the_weights_are_drawn(vit: Family, alone: Path) -> None:
    """The heat map needs no scores, and there are no others to show."""
    bake(*vit.words, "--figures", "--output", "soup")
    assert {p.name for p in Path("soup/figures").iterdir()} == {"closeness.png", "closeness-dark.png"}
    assert not Path("soup/evaluation.json").exists()
    assert Path("soup/README.md").read_text().count("<picture>") == 1


def test_batch_norms_and_a_name_full_of_signs(resnet: Family, data: Path, alone: Path) -> None:
    """A family that is scored in two modes is drawn, and a folder called $x^$ <b> is drawn as it is called."""
    odd = alone / "$x^$ <b> 图"
    shutil.copytree(resnet.folders[0], odd)
    done = run("bake", f"./{odd.name}", *resnet.words[1:], "--dataset", data, "--figures", "--output", "soup")
    assert done.code == 0, done.err
    assert {p.name for p in Path("soup/figures").iterdir()} >= {"scores.png", "search.png", "closeness.png"}
    assert "Glyph" not in done.err


def test_without_matplotlib_nothing_is_pulled(on_hub: LocalHub, alone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the command that installs it, before the first request."""
    spec = importlib.util.find_spec
    monkeypatch.setattr(
        "hfsoup.utils.extras.find_spec",
        lambda name: None if name.startswith("matplotlib") else spec(name),
        raising=True,
    )
    on_hub.forget_requests()
    block = refused("bake", "kit/vit-*", "--figures", "--output", "soup", code=2)
    assert "pip install 'hfsoup[plot]'" in block
    assert not on_hub.requests
    assert list(alone.iterdir()) == []


def test_a_line_without_scores_is_refused(vit: Family, alone: Path) -> None:
    """--figure-line alone says what it needs."""
    assert "--figures" in refused("bake", *vit.words, "--figure-line", code=2)


def test_verify_holds_pictures_as_files_without_matplotlib(
    drawn: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An untouched soup holds where matplotlib is missing; one changed byte of a picture is named."""
    monkeypatch.setattr("hfsoup.utils.extras.find_spec", lambda _: None)
    assert run("verify", "soup").code == 0
    path = Path("soup/figures/search.png")
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    assert "figures/search.png: sha256" in refused("verify", "soup", code=1)


def test_pictures_are_pushed_and_stale_ones_go(drawn: dict[str, Any], vit: Family, signed_in: LocalHub) -> None:
    """The repository holds the folder's files; a later soup without pictures takes them away, and verifies."""
    api = HfApi(token=signed_in.token)
    assert run("push", "soup", "kit/drawn").code == 0
    assert set(api.list_repo_files("kit/drawn")) >= ALL | {"evaluation.json"}
    assert run("verify", "kit/drawn", "--allow-local-paths").code == 0
    bake(*vit.words, "--output", "plain", "--push", "kit/drawn")
    assert not (set(api.list_repo_files("kit/drawn")) & (ALL | {"evaluation.json"}))
    assert run("verify", "kit/drawn", "--allow-local-paths").code == 0


def test_every_walk_of_auto_has_its_own_line_and_the_soup_its_score(vit: Family, data: Path, alone: Path) -> None:
    """Greedy begins at the best ingredient and pruned at the mean of all; the star is at the shipped score."""
    soup = hfsoup.bake(*vit.words, recipe="auto", dataset=str(data))
    assert soup.evaluation.evidence is not None
    assert soup.selection is not None
    assert [start.walk for start in soup.evaluation.evidence.starts] == ["greedy", "pruned"]
    figure = Figure()
    search.paint(soup)(figure, LIGHT)
    lines = [line for axes in figure.axes for line in axes.lines if line.get_drawstyle() == "steps-post"]
    uniform = next(a.score.value for a in soup.search.attempts if a.name == "uniform")
    assert [line.get_xdata()[0] for line in lines] == [max(s.value for s in soup.scores if s), uniform]
    assert [line.get_xdata()[-1] for line in lines] == [
        a.score.value for a in soup.search.attempts if a.name != "uniform"
    ]
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["tried as a whole", "greedy", "pruned"]
    starts = [axes.get_yticklabels()[0].get_text() for axes in figure.axes]
    assert starts == ["uniform", f"start: {vit.folders[soup.best or 0].name}", "start: all 4"]
    shown = [
        (group.get_label(), x) for axes in figure.axes for group in axes.collections for x, _ in group.get_offsets()
    ]
    assert [x for label, x in shown if label == "this soup"] == [soup.selection.value]
    assert [x for label, x in shown if label == "tried as a whole"] == [uniform]


def test_pictures_show_intervals_and_crop_nothing(vit: Family, data: Path) -> None:
    """Soup and best ingredient have theirs within each panel of scores, where every point is; the search has a band."""
    soup = hfsoup.bake(*vit.words, dataset=str(data), figures=True)
    assert soup.comparison is not None
    assert soup.comparison.ci95 is not None
    figure = Figure()
    scores.paint(soup)(figure, LIGHT)
    bounds = {*soup.comparison.ci95.soup, *soup.comparison.ci95.best}
    for axes in figure.axes:
        bars = [group for group in axes.collections if hasattr(group, "get_segments")]
        ends = {float(y) for bar in bars for segment in bar.get_segments() for _, y in segment}
        assert bounds == {min(bounds, key=lambda b, e=end: abs(b - e)) for end in ends}
        (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
        places = [place for group in axes.collections if group not in bars for place in group.get_offsets()]
        assert all(left < x < right and bottom < y < top for x, y in places)
        assert all(bottom < bound < top for bound in bounds)
        assert "same on both" in [text.get_text() for text in axes.texts]
    figure = Figure()
    search.paint(soup)(figure, LIGHT)
    assert "95 % interval of this soup" in figure.axes[0].get_legend_handles_labels()[1]


def test_closeness_is_that_of_the_changes_where_the_base_is_known(vit: Family, alone: Path) -> None:
    """The colours fit the cosines of two ingredients; with a base they are those of the task vectors."""
    plain = hfsoup.bake(*vit.words[:3])
    based = hfsoup.bake(*vit.words[:3], merge="task-arithmetic", base=vit.words[3])
    shown = []
    for soup in (plain, based):
        figure = Figure()
        closeness.paint(soup)(figure, LIGHT)
        (image,) = figure.axes[0].images
        cosines = image.get_array()
        low, high = image.get_clim()
        assert low <= cosines.min() <= cosines.max() <= high <= 1
        assert high - low < 0.1 + cosines.max() - cosines.min()
        shown.append(cosines)
    start, *runs = [body(folder) for folder in (vit.folders[3], *vit.folders[:3])]
    first, second = runs[0] - start, runs[1] - start
    assert shown[1][0, 1] == pytest.approx(first @ second / np.linalg.norm(first) / np.linalg.norm(second), abs=1e-6)
    assert shown[0][0, 1] > shown[1][0, 1]


def body(folder: Path) -> Any:
    """The matrices of a model without its head, in one row."""
    tensors = load_file(folder / "model.safetensors")
    chosen = [
        t.ravel() for name, t in sorted(tensors.items()) if t.ndim > 1 and t.shape[0] > 1 and "classifier" not in name
    ]
    return np.concatenate(chosen).astype(np.float64)
