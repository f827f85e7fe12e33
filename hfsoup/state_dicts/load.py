"""Loads the state dicts of ingredients and checks that they hold the same tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from hfsoup.checkpoints.inspection import COUNTERS
from hfsoup.checkpoints.safetensors_io import TensorFile
from hfsoup.utils.errors import MismatchError, SoupError, UsageError
from hfsoup.utils.text import quoted

StateDict = Mapping[str, torch.Tensor]
Ingredient = StateDict | torch.nn.Module | str | Path


def load_ingredients(ingredients: Sequence[Ingredient], *, unwrap: bool) -> tuple[list[str], list[StateDict]]:
    """The names of ingredients, for errors, and their state dicts.

    Raises:
        UsageError: there are none, or one is neither a state dict nor a module nor a path.
        MismatchError: they differ in names, shapes or dtypes, or in integers that are weights.
        SoupError: a tensor is not finite, or is quantised, sparse or on the meta device.
    """
    if not ingredients:
        raise UsageError("no ingredients", hint="give a list of state dicts or of paths")
    names = [name_ingredient(given, f"ingredient {n}") for n, given in enumerate(ingredients)]
    loaded = [load_state_dict(given, unwrap, name) for given, name in zip(ingredients, names, strict=True)]
    for name, other in zip(names[1:], loaded[1:], strict=True):
        _require_same_tensors(names[0], loaded[0], name, other)
    return names, loaded


def name_ingredient(given: Ingredient, otherwise: str) -> str:
    """The path of an ingredient that is one, else `otherwise`; for errors and traces."""
    return str(given) if isinstance(given, (str, Path)) else otherwise


def load_state_dict(given: Ingredient, unwrap: bool, name: str) -> StateDict:
    """The state dict of an ingredient, which may be a module or a path; `unwrap` follows a lone `state_dict` key."""
    if isinstance(given, torch.nn.Module):
        found: StateDict = given.state_dict()
    elif not isinstance(given, (str, Path)):
        found = given
    elif Path(given).suffix == ".safetensors":
        from safetensors.torch import load_file

        TensorFile(Path(given)).close()
        found = load_file(given)
    else:
        from hfsoup.checkpoints.pickles import load_pickle

        found = load_pickle(Path(given), where=str(given), unwrap=unwrap)
    if not isinstance(found, Mapping):
        what = f"expected a state dict, a module or a path, found {type(found).__name__}"
        raise UsageError(what, where=name, hint="model.state_dict()")
    for key, value in found.items():
        if not isinstance(key, str):
            what = f"expected the names of tensors as keys, found {type(key).__name__}"
            raise UsageError(what, where=f"{name}, {quoted(key)}", hint="model.state_dict()")
        if not isinstance(value, torch.Tensor):
            what = f"expected a tensor, found {type(value).__name__}"
            raise UsageError(
                what, where=f"{name}, {quoted(key)}", hint="the state dict inside, as in saved['state_dict']"
            )
        _require_numbers(value, f"{name}, tensor {key}")
    return found


def _require_numbers(tensor: torch.Tensor, where: str) -> None:
    """Raise SoupError for a tensor that is not dense and finite."""
    if tensor.is_quantized or tensor.is_meta or tensor.layout != torch.strided:
        kind = "quantised" if tensor.is_quantized else "without values" if tensor.is_meta else "sparse"
        raise SoupError(f"expected a dense tensor, found one that is {kind}", where=where, hint="its floats")
    if tensor.is_floating_point() or tensor.is_complex():
        values = tensor.float() if tensor.itemsize == 1 else tensor
        if not bool(torch.isfinite(values).all()):
            raise SoupError("expected finite numbers, found NaN or infinity", where=where, hint="leave it out")


def _require_same_tensors(first_name: str, first: StateDict, name: str, other: StateDict) -> None:
    """Raise MismatchError unless both state dicts have the same tensors."""
    for key in sorted(first.keys() | other.keys()):
        if key not in first or key not in other:
            lacking = name if key in first else first_name
            raise MismatchError("a tensor is missing", where=f"{lacking}, tensor {key}")
        a, b = first[key], other[key]
        if a.shape != b.shape or a.dtype != b.dtype:
            what = f"expected {a.dtype} of shape {list(a.shape)}, found {b.dtype} of shape {list(b.shape)}"
            raise MismatchError(what, where=f"{name}, tensor {key}")
        counts = a.numel() == 1 or COUNTERS.search(key)
        if not (a.is_floating_point() or a.is_complex() or counts or a.equal(b)):
            what = f"expected floats, found {a.dtype} that differs; integers that are weights cannot be averaged"
            hint = "dequantise the model first"
            raise MismatchError(what, where=f"{name}, tensor {key}", hint=hint)
