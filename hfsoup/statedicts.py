"""The recipes for any torch model and any score: state dicts in, weights out, no Hub and no dataset."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hfsoup.average import combine
from hfsoup.errors import MismatchError, UsageError
from hfsoup.merges import MERGES
from hfsoup.recipes import RECIPES
from hfsoup.searching import Rules, Search
from hfsoup.tensorfile import TensorFile
from hfsoup.types import Decision, Mix, Score

if TYPE_CHECKING:
    import torch

    StateDict = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Found:
    """The result of a search; `weights` are in the order given, 0 for what is left out."""

    weights: tuple[float, ...]
    trace: tuple[Decision, ...]
    score: float | None
    _mix: Mix = field(repr=False)
    _ingredients: Sequence[StateDict] = field(repr=False)
    _merge: str = field(repr=False)

    def state_dict(self) -> dict[str, torch.Tensor]:
        """The average itself."""
        return _combined(self._ingredients, self._mix, self._merge)


def search(
    recipe: str,
    ingredients: Sequence[StateDict | str | Path],
    *,
    score: Callable[[dict[str, torch.Tensor]], float] | None = None,
    merge: str = "mean",
    unwrap: bool = False,
    **rules: Any,
) -> Found:
    """Search for the best average of `ingredients`.

    Args:
        recipe: the name of a recipe, as `hfsoup recipes` lists them.
        ingredients: state dicts, or paths of safetensors or of `.bin`, `.pt`, `.th` files, which are read with
            `weights_only`.
        score: how good a state dict is, higher is better; asked once per distinct mix of ingredients. It gets a state
            dict of its own.
        merge: the name of a merge.
        unwrap: follow a lone `state_dict` key in a pickled file.
        rules: accept, passes, seed, min_score, max_ingredients, keep_best, last, decay, weights, temperature,
            budget.

    Raises:
        UsageError: an unknown recipe, merge or rule.
        MismatchError: the state dicts differ in names, shapes or dtypes.
    """
    found = RECIPES.get(recipe)
    found.require()
    MERGES.get(merge)
    known = set(Rules.__dataclass_fields__) - {"margin"}
    if unknown := sorted(set(rules) - known):
        raise UsageError(f"there is no rule {unknown[0]!r}; known: {', '.join(sorted(known))}")
    if not ingredients:
        raise UsageError("no ingredients", hint="search(recipe, [state_dict, …])")
    loaded = [_load(i, unwrap) if isinstance(i, (str, Path)) else i for i in ingredients]
    names = [str(i) if isinstance(i, (str, Path)) else f"ingredient {n}" for n, i in enumerate(ingredients)]
    for name, other in zip(names[1:], loaded[1:], strict=True):
        _same(names[0], loaded[0], name, other)

    def value(mix: Mix, _: float | None = None) -> Score:
        return Score(float(score(_combined(loaded, mix, merge)))) if score else Score(0.0)

    walk = Search(names, value if score else None, Rules(**rules))
    mix = found.function(walk)
    value_found = walk.score(mix).value if score else None
    return Found(mix.coefficients, tuple(walk.trace), value_found, mix, loaded, merge)


def _load(path: str | Path, unwrap: bool) -> StateDict:
    if Path(path).suffix == ".safetensors":
        from safetensors.torch import load_file

        TensorFile(Path(path)).close()
        return load_file(path)
    from hfsoup.pickles import load_pickle

    return load_pickle(Path(path), where=str(path), unwrap=unwrap)


def _same(first_name: str, first: StateDict, name: str, other: StateDict) -> None:
    """Fail unless both state dicts have the same tensors."""
    for key in sorted(first.keys() | other.keys()):
        if key not in first or key not in other:
            lacking = name if key in first else first_name
            raise MismatchError("a tensor is missing", where=f"{lacking}, tensor {key}")
        a, b = first[key], other[key]
        if a.shape != b.shape or a.dtype != b.dtype:
            what = f"expected {a.dtype} of shape {list(a.shape)}, found {b.dtype} of shape {list(b.shape)}"
            raise MismatchError(what, where=f"{name}, tensor {key}")


def _combined(ingredients: Sequence[StateDict], mix: Mix, merge: str) -> dict[str, torch.Tensor]:
    """The merge of the members, tensor by tensor, each in its ingredients' dtype."""
    import torch

    weights = [mix.coefficients[i] for i in mix.members]

    def read(name: str) -> list[Any]:
        tensors = [ingredients[i][name].detach().cpu() for i in mix.members]
        return [(t.float() if t.dtype == torch.bfloat16 else t).numpy() for t in tensors]

    result = {}
    for name, like in ingredients[0].items():
        combined = combine(name, read, weights, merge, floats=like.is_floating_point())
        result[name] = torch.from_numpy(combined.copy()).to(like.dtype).reshape(like.shape)
    return result
