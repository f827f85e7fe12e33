"""Write the folder of a Space that runs the page, with hfsoup itself in it."""

from __future__ import annotations

import os
import re
import shutil
import sys
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

import hfsoup
from hfsoup.averaging.writer import stage_output
from hfsoup.utils.errors import SoupError
from hfsoup.utils.resources import find_resource

README = """\
---
title: Model soups
emoji: 🍲
colorFrom: yellow
colorTo: red
sdk: gradio
sdk_version: {gradio}
python_version: "{python}"
app_file: app.py
license: apache-2.0
short_description: Average fine-tuned image classifiers of the Hub
---

# Model soups

Average fine-tuned image classifiers of the Hub into one model, and measure whether it is better than the best of them.

This Space is hfsoup {hfsoup} and was written by `hfsoup ui --space`. It is public: it reads public repositories
only, uses no token even if it has one, keeps what it bakes in a temporary folder and does not push. The page shows the
command line that bakes the same soup elsewhere.
"""
APP = '''\
"""The page of hfsoup as a Space."""

import os
import sys

if os.environ.get("SPACES_ZERO_GPU", "").lower() in ("1", "t", "true"):
    # Of the Space's own environment; it has to come before torch.
    import spaces  # noqa: F401

from hfsoup.cli import main

if __name__ == "__main__":
    host, port = os.environ.get("GRADIO_SERVER_NAME", "0.0.0.0"), os.environ.get("GRADIO_SERVER_PORT", "7860")
    sys.argv[1:] = ["ui", "--host", host, "--port", port]
    main()
'''
TEMPLATES = ("soup.md", "report.html", "report.js")
LEFT_OUT = ("__pycache__", "model_cards", "localhub", "demo", "scripts")


def write_space(folder: Path) -> None:
    """Write the folder, whole or not at all.

    It holds hfsoup's own files, so that the Space runs the version that wrote it.

    Args:
        folder: where to; it must not exist yet.

    Raises:
        SoupError: the folder exists or cannot be written, or hfsoup is not installed as a package.
    """
    if os.path.lexists(folder):
        raise SoupError("the folder exists already", where=str(folder), hint="--space NEW-DIR")
    try:
        gradio, needed = version("gradio"), requires("hfsoup") or []
    except PackageNotFoundError as error:
        hint = "pip install 'hfsoup[ui]'"
        raise SoupError(f"the requirements of the Space cannot be read: {error} here", hint=hint) from error
    extras = [text for extra in ("align", "plot", "search") for text in _extra(needed, extra)]
    wanted = [*(text for text in needed if "extra ==" not in text), *extras]
    pinned = [line for text in wanted if (line := _pin(text))]
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    texts = {
        "README.md": README.format(gradio=gradio, python=python, hfsoup=hfsoup.__version__),
        "requirements.txt": "".join(f"{text}\n" for text in [*pinned, f"gradio=={gradio}"]),
        "app.py": APP,
    }
    with stage_output(folder) as stage:
        for name, text in texts.items():
            (stage / name).write_text(text, encoding="utf-8")
        shutil.copytree(Path(hfsoup.__file__).parent, stage / "hfsoup", ignore=shutil.ignore_patterns(*LEFT_OUT))
        (stage / "hfsoup/model_cards").mkdir()
        for name in TEMPLATES:
            shutil.copy(find_resource(f"model_cards/{name}"), stage / "hfsoup/model_cards" / name)


def _pin(requirement: str) -> str | None:
    """A requirement at the version that is installed here, so that a rebuild years later installs the same.

    One whose marker does not hold here is left out; a local version such as `+cpu` is in no index.
    """
    name, _, marker = requirement.partition(";")
    chosen = re.match(r"[\w.-]+(\[[\w,-]+\])?", name.strip())
    if chosen is None:
        return None
    try:
        return f"{chosen[0]}=={version(chosen[0].partition('[')[0]).partition('+')[0]}"
    except PackageNotFoundError:
        if marker:
            return None
        raise


def _extra(needed: list[str], name: str) -> list[str]:
    """The requirements of an extra."""
    mark = re.compile(rf"\s*;\s*extra == ['\"]{name}['\"]$")
    return [mark.sub("", text) for text in needed if mark.search(text)]
