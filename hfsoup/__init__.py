"""Model soups of image classifiers on the Hugging Face Hub."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hfsoup.alignment.states import align as align
    from hfsoup.alignment.states import fit as fit
    from hfsoup.baking import bake as bake
    from hfsoup.callback import SoupCallback as SoupCallback
    from hfsoup.distillation.states import distill as distill
    from hfsoup.errors import SoupError as SoupError
    from hfsoup.importance.states import estimate as estimate
    from hfsoup.soup import Soup as Soup
    from hfsoup.statedicts import Found as Found
    from hfsoup.statedicts import search as search

__version__ = "0.1.0"

_HOMES = {
    "align": "hfsoup.alignment.states",
    "bake": "hfsoup.baking",
    "distill": "hfsoup.distillation.states",
    "estimate": "hfsoup.importance.states",
    "fit": "hfsoup.alignment.states",
    "search": "hfsoup.statedicts",
    "Found": "hfsoup.statedicts",
    "Soup": "hfsoup.soup",
    "SoupCallback": "hfsoup.callback",
    "SoupError": "hfsoup.errors",
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
