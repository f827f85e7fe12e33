"""README's shell and Python blocks, run as a reader would."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from family import Family
from huggingface_hub import HfApi
from shell import run

from hfsoup.localhub import LocalHub

README = Path(__file__).parents[1] / "README.md"
BLOCKS = re.findall(r"^```(shell|python)\n(.*?)^```$", README.read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture
def reader(hub: LocalHub, vit: Family, images: Any, alone: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Somebody who owns org/model-0 and so on, and org/pets."""
    token = hub.add_user("org")
    monkeypatch.setenv("HF_TOKEN", token)
    api = HfApi(token=token)
    for n, folder in enumerate(vit.folders):
        api.create_repo(f"org/model-{n}")
        api.upload_folder(repo_id=f"org/model-{n}", folder_path=folder)
    images.push_to_hub("org/pets", token=token)
    yield alone
    for model in list(api.list_models(author="org")):
        api.delete_repo(model.id)
    api.delete_repo("org/pets", repo_type="dataset")


def test_every_block_runs(reader: Path) -> None:
    """In the order of the page, in one folder, each command ends well and each snippet raises nothing."""
    assert {kind for kind, _ in BLOCKS} == {"shell", "python"}
    names: dict[str, Any] = {}
    for kind, text in BLOCKS:
        if kind == "python":
            exec(compile(text, "README.md", "exec"), names)
            continue
        for line in text.splitlines():
            words = shlex.split(line, comments=True)
            assert words[0] == "hfsoup", line
            done = run(*words[1:])
            assert done.code == 0, (line, done.err)
    assert "soup" in names
    assert sys.modules["hfsoup"] is names["hfsoup"]


def test_every_promise_and_its_tests_stand_in_readme_and_exist() -> None:
    """The promises name real tests, and README names them."""
    from promises import PROMISES

    readme, tests = README.read_text(), README.parent / "tests"
    for promise in PROMISES:
        assert promise.text in readme
        for name in promise.tests:
            file, function = name.split("::")
            assert f"`{name}`" in readme
            assert f"def {function}(" in (tests / file).read_text()
