"""Model soups of image classifiers on the Hugging Face Hub."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from hfsoup.utils.version import __version__ as __version__

if TYPE_CHECKING:
    from hfsoup.baking.pipeline import bake as bake
    from hfsoup.baking.soup import Soup as Soup
    from hfsoup.baking.trainer_callback import SoupCallback as SoupCallback
    from hfsoup.state_dicts.align import align as align
    from hfsoup.state_dicts.align import fit as fit
    from hfsoup.state_dicts.distill import distill as distill
    from hfsoup.state_dicts.estimate import estimate as estimate
    from hfsoup.state_dicts.search import Found as Found
    from hfsoup.state_dicts.search import search as search
    from hfsoup.utils.errors import SoupError as SoupError

_HOMES = {
    "align": "hfsoup.state_dicts.align",
    "bake": "hfsoup.baking.pipeline",
    "distill": "hfsoup.state_dicts.distill",
    "estimate": "hfsoup.state_dicts.estimate",
    "fit": "hfsoup.state_dicts.align",
    "search": "hfsoup.state_dicts.search",
    "Found": "hfsoup.state_dicts.search",
    "Soup": "hfsoup.baking.soup",
    "SoupCallback": "hfsoup.baking.trainer_callback",
    "SoupError": "hfsoup.utils.errors",
}
__all__ = [
    *("Found", "Soup", "SoupCallback", "SoupError", "__version__"),
    *("align", "bake", "distill", "estimate", "fit", "search"),
]


def __getattr__(name: str) -> object:
    """Import what is asked for on first use, so that `import hfsoup` costs nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module 'hfsoup' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """What a user is offered."""
    return sorted(__all__)
