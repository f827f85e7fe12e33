"""README and the pages of `.github/docs`: blocks run as a reader would, links lead somewhere, names are all there."""

from __future__ import annotations

import runpy
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
from pages import DOCS, PAGES, README, ROOT, all_text, anchors, blocks, links, text_of
from shell import run

import hfsoup
from hfsoup.merges import MERGES
from hfsoup.recipes import RECIPES

RUN = [page for page in PAGES if blocks(page.read_text(), "shell", "python")]
LINKED = [*PAGES, *sorted((ROOT / ".github").glob("*.md")), ROOT / "CHANGELOG.md", *ROOT.glob("hfsoup/*/README.md")]


@pytest.mark.parametrize("page", RUN, ids=lambda page: page.stem)
def test_every_block_runs(page: Path, reader: Path) -> None:
    """In the order of the page, in one folder, each command ends well and each snippet raises nothing."""
    names: dict[str, Any] = {}
    for kind, text in blocks(page.read_text(), "shell", "python"):
        if kind == "python":
            exec(compile(text, page.name, "exec"), names)
            continue
        for line in text.splitlines():
            words = shlex.split(line, comments=True)
            assert words[0] == "hfsoup", line
            done = run(*words[1:])
            assert done.code == 0, (line, done.err)


def test_readme_and_pages_have_blocks_that_run() -> None:
    """The pattern that finds them finds commands and snippets."""
    assert README in RUN
    assert {kind for page in RUN for kind, _ in blocks(page.read_text(), "shell", "python")} == {"shell", "python"}


@pytest.mark.parametrize("page", LINKED, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_no_link_is_dead(page: Path) -> None:
    """A relative link names a file of this checkout, and a heading of it after `#`."""
    for link in links(page.read_text()):
        if ":" in link.split("/")[0]:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.is_relative_to(ROOT), link
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target.read_text()), link


def test_every_page_is_in_the_index() -> None:
    """And README leads to the index."""
    assert set(links(text_of("README.md"))) >= {page.name for page in DOCS.glob("*.md") if page.name != "README.md"}
    assert ".github/docs/README.md" in links(README.read_text())


def test_the_api_reference_is_current() -> None:
    """It is what the script writes, and every public name has a heading."""
    script = runpy.run_path(str(ROOT / "scripts" / "api_reference.py"))
    assert script["TARGET"].read_text("utf-8") == script["make_page"](), "run: python scripts/api_reference.py"
    assert {name.lower() for name in hfsoup.__all__ if name != "__version__"} <= anchors(text_of("api.md"))


def test_every_field_of_a_record_is_in_the_reference() -> None:
    """In the table of `soup.json`."""
    from hfsoup.provenance.manifest import Manifest

    table = text_of("reference.md").split("## `soup.json`")[1]
    assert [name for name in Manifest.model_fields if f"`{name}`" not in table] == []


def test_readme_is_short() -> None:
    """At most 900 words, counted by white space, blocks and all."""
    assert len(README.read_text().split()) <= 900


def test_every_promise_and_its_tests_are_named_and_exist() -> None:
    """The promises name real tests, and their page names them."""
    from promises import PROMISES

    page = text_of("promises.md")
    for promise in PROMISES:
        assert promise.text in page
        for name in promise.tests:
            file, function = name.split("::")
            assert f"`{name}`" in page
            assert f"def {function}(" in (ROOT / "tests" / file).read_text()


def test_every_recipe_and_merge_has_a_row() -> None:
    """By its name, with the paper that its decorator names."""
    rows = {row.split("`")[1]: row for row in text_of("recipes.md").splitlines() if row.startswith("| `")}
    for entry in (*RECIPES, *MERGES):
        kind, _, number = entry.paper.partition(":")
        assert number in rows[entry.name] or kind == "doi", entry.name


def commands() -> dict[str, Any]:
    """Every command of the program by the words that call it."""
    from typer.main import get_command

    from hfsoup.cli import commands
    from hfsoup.cli.app import app

    assert commands.bake

    def below(words: str, command: Any) -> dict[str, Any]:
        inner = getattr(command, "commands", {})
        found = [below(f"{words} {name}".strip(), one) for name, one in inner.items()]
        return {name: one for part in found for name, one in part.items()} or {words: command}

    return below("", get_command(app))


def test_every_command_has_words_and_an_example_that_parses() -> None:
    """README or a page names each; its help ends with an example that its own parser takes."""
    documented = all_text()
    for words, command in commands().items():
        assert f"hfsoup {words}" in documented, words
        example = shlex.split(command.epilog.removeprefix("Example: "))
        assert example[: 1 + len(words.split())] == ["hfsoup", *words.split()], command.epilog
        command.make_context(words, example[1 + len(words.split()) :])
        assert command.help, words


def test_help_shows_every_option_with_its_words_and_default() -> None:
    """In the group that options.py names, with `--help-all`."""
    from hfsoup.options.options import option_fields

    text = " ".join(run("bake", "--help-all").out.replace("│", " ").split())
    for f in option_fields():
        assert f"--{f.name.replace('_', '-')} " in text, f.name
        assert f"─ {f.metadata['group']} ─" in text
        assert f.metadata["help"].rsplit(" [", 1)[-1].split()[0] in text, f.name
    assert ", ".join(entry.name for entry in RECIPES) in text
    for shown in ("[greedy with a dataset, else uniform]", "[default: mean]", "[default: 5]"):
        assert shown in text


@pytest.mark.parametrize("command", ["bake", "init", "check", "eval"])
def test_the_first_help_fits_a_terminal(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """At 80 columns it has at most 22 lines, and names the way to the rest, which has many more."""
    monkeypatch.setenv("COLUMNS", "80")
    lines = run(command, "--help").out.rstrip().splitlines()
    assert len(lines) <= 22
    assert max(map(len, lines)) <= 80
    assert "--help-all" in "\n".join(lines)
    assert len(run(command, "--help-all").out.splitlines()) > 60


def test_the_first_help_of_bake_names_what_matters(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ingredients, five flags, the names of all recipes and merges, and an example."""
    monkeypatch.setenv("COLUMNS", "80")
    words = run("bake", "-h").out.split()
    assert {"INGREDIENTS", "--dataset", "--recipe", "--merge", "-o,", "--output", "--push", "Example:"} <= set(words)
    assert {entry.name for entry in (*RECIPES, *MERGES)} <= {word.rstrip(",") for word in words}
    assert "--metric" not in words


@pytest.mark.parametrize(
    ("words", "proposed"),
    [
        ("hfsoup bake --recipe ", [entry.name for entry in RECIPES]),
        ("hfsoup bake --recipe pr", ["pruned"]),
        ("hfsoup bake --bn ", ["average", "recalibrate", "auto"]),
    ],
)
def test_completion_proposes_names_and_loads_nothing_heavy(words: str, proposed: list[str]) -> None:
    """As bash asks for it, in a process of its own that imports neither torch nor transformers."""
    import os
    import subprocess

    count = len(words.split()) - (not words.endswith(" "))
    asked = {"_HFSOUP_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(count)}
    code = "import sys; sys.argv = ['hfsoup']; from hfsoup.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", code],
        env={**os.environ, **asked, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == proposed, done.stderr[-2000:]
    loaded = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines()}
    assert not loaded & {"torch", "transformers", "numpy", "datasets"}
