"""Files beside the package in a checkout and inside it once installed: card templates."""

from __future__ import annotations

from pathlib import Path

from hfsoup.utils.errors import SoupError


def find_resource(name: str) -> Path:
    """The path of a file such as `model_cards/soup.md`."""
    package = Path(__file__).parents[1]
    for home in (package, package.parent):
        if (home / name).is_file():
            return home / name
    raise SoupError(f"this installation lacks {name}", hint="pip install --force-reinstall hfsoup")
