"""Pickled checkpoints, read with `weights_only` and never otherwise, become safetensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hfsoup.errors import SoupError
from hfsoup.hub import cache


def convert(path: Path, sha: str, *, where: str) -> Path:
    """A pickled checkpoint as safetensors in hfsoup's cache, read with `weights_only` and never otherwise."""
    target = cache() / "converted" / f"{sha}.safetensors"
    if not target.exists():
        from safetensors.torch import save_file

        tensors = load_pickle(path, where=where)
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{sha}.partial")
        save_file({name: t.clone().contiguous() for name, t in tensors.items()}, partial, {"format": "pt"})
        partial.rename(target)
    return target


def load_pickle(path: Path, *, where: str, unwrap: bool = False) -> dict[str, Any]:
    """The tensors of a `.bin`, `.pt` or `.th` file by name; a lone `state_dict` key is followed only when asked."""
    from pickle import UnpicklingError

    import torch

    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise SoupError(
            "this pickle holds more than tensors, or is damaged; it was not run",
            where=where,
            hint="ask its author for safetensors",
        ) from error
    if unwrap and isinstance(found, dict) and isinstance(found.get("state_dict"), dict):
        found = found["state_dict"]
    if not isinstance(found, dict) or not found or not all(isinstance(t, torch.Tensor) for t in found.values()):
        raise SoupError("expected tensors by name, found something else", where=where)
    return dict(found)
