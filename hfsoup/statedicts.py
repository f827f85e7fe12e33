"""The recipes for any torch model and any score: state dicts in, weights out, no Hub and no dataset."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hfsoup.combining import STATISTICS, Root, combine
from hfsoup.errors import MismatchError, UsageError
from hfsoup.merges import EMPTY, MERGES, Array, Context, Merge
from hfsoup.recipes import RECIPES
from hfsoup.registry import Entry
from hfsoup.scores import Decision, Score
from hfsoup.searching import Rules, Search
from hfsoup.settings import Settings
from hfsoup.tensorfile import TensorFile
from hfsoup.trimming import Cuts
from hfsoup.types import Mix

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
    _pot: _Pot = field(repr=False)

    def state_dict(self) -> dict[str, torch.Tensor]:
        """The average itself."""
        return self._pot.combined(self._mix)


def search(
    recipe: str,
    ingredients: Sequence[StateDict | str | Path],
    *,
    score: Callable[[dict[str, torch.Tensor]], float] | None = None,
    merge: str = "mean",
    base: StateDict | str | Path | None = None,
    importance: Sequence[StateDict] | None = None,
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
        base: what the ingredients started from, where recipe or merge need it; tensors that it lacks, or has in another
            shape, are averaged.
        importance: what `estimate` gave, where the merge needs it: a state dict for each ingredient; tensors that one
            of them lacks are averaged.
        unwrap: follow a lone `state_dict` key in a pickled file.
        rules: accept, passes, seed, min_score, max_ingredients, keep_best, last, decay, weights, temperature, budget,
            and for the merge scale, density, outliers.

    Raises:
        UsageError: an unknown recipe, merge or rule, or something that recipe or merge need is missing.
        MismatchError: the state dicts differ in names, shapes or dtypes.
    """
    found = RECIPES.get(recipe)
    found.require()
    if found.learns:
        raise UsageError(f"the recipe {recipe} learns from images", hint="hfsoup.bake(…, dataset=…)")
    if base is None and (needing := next((e for e in (found, MERGES.get(merge)) if e.needs_base), None)):
        raise UsageError(f"{needing.name} needs what the ingredients started from", hint="base=STATE_DICT")
    known = {*Rules.__dataclass_fields__, *Settings.__dataclass_fields__} - {"margin"}
    if unknown := sorted(set(rules) - known):
        raise UsageError(f"there is no rule {unknown[0]!r}; known: {', '.join(sorted(known))}")
    names, loaded = load(ingredients, unwrap=unwrap)
    given = _important(MERGES.get(merge), loaded, importance)
    start = _load(base, unwrap) if isinstance(base, (str, Path)) else base
    told = Settings(**{n: v for n, v in rules.items() if n in Settings.__dataclass_fields__})
    pot = _Pot(loaded, merge, start, told, given)

    def value(mix: Mix, _: float | None = None) -> Score:
        return Score(float(score(pot.combined(mix)))) if score else Score(0.0)

    obeyed = Rules(**{name: rule for name, rule in rules.items() if name in Rules.__dataclass_fields__})
    walk = Search(names, value if score else None, obeyed)
    mix = found.function(walk)
    value_found = walk.score(mix).value if score else None
    return Found(mix.coefficients, tuple(walk.trace), value_found, mix, pot)


def load(ingredients: Sequence[StateDict | str | Path], *, unwrap: bool) -> tuple[list[str], list[StateDict]]:
    """The names and the state dicts of ingredients, which have the same tensors.

    Raises:
        UsageError: there are none.
        MismatchError: they differ in names, shapes or dtypes.
    """
    if not ingredients:
        raise UsageError("no ingredients", hint="give a list of state dicts or of paths")
    loaded = [_load(i, unwrap) if isinstance(i, (str, Path)) else i for i in ingredients]
    names = [str(i) if isinstance(i, (str, Path)) else f"ingredient {n}" for n, i in enumerate(ingredients)]
    for name, other in zip(names[1:], loaded[1:], strict=True):
        _same(names[0], loaded[0], name, other)
    return names, loaded


def _important(
    merge: Entry[Merge], ingredients: Sequence[StateDict], given: Sequence[StateDict] | None
) -> Sequence[StateDict]:
    """What is known of every ingredient's weights, where the merge asks for it."""
    if not merge.importance:
        return [{} for _ in ingredients]
    if given is None or len(given) != len(ingredients):
        what = f"{merge.name} needs the {merge.importance} of each of the {len(ingredients)} ingredients"
        raise UsageError(what, hint=f'importance=hfsoup.estimate("{merge.importance}", …)')
    for n, (state, found) in enumerate(zip(ingredients, given, strict=True)):
        for key in state.keys() & found.keys() if merge.elementwise else ():
            if state[key].shape != found[key].shape:
                what = f"expected shape {list(state[key].shape)}, found {list(found[key].shape)}"
                raise MismatchError(what, where=f"importance {n}, tensor {key}")
    return given


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


class _Pot:
    """State dicts, and all that says how they become one."""

    def __init__(
        self,
        ingredients: Sequence[StateDict],
        merge: str,
        base: StateDict | None,
        settings: Settings,
        importance: Sequence[StateDict],
    ) -> None:
        self._ingredients, self._merge, self._base, self._settings = ingredients, merge, base, settings
        self._density = settings.density or MERGES.get(merge).density
        self._cuts, self._importance = Cuts(self._task, self._density), importance

    def combined(self, mix: Mix) -> dict[str, torch.Tensor]:
        """The merge of the members, tensor by tensor, each in its ingredients' dtype."""
        import torch

        weights, told = [mix.coefficients[i] for i in mix.members], self._settings
        context = Context("", mix.members, EMPTY, told.scale, self._density, told.outliers, told.seed, self._cuts)
        root = Root(self._start, mix.base)

        def read(name: str) -> list[Any]:
            return [_array(self._ingredients[i][name]) for i in mix.members]

        result = {}
        for name, like in self._ingredients[0].items():
            known = [self._importance[i].get(name) for i in mix.members]
            important = None if any(found is None for found in known) else [_array(found) for found in known]
            told_name = replace(context, name=name, importance=important)
            floats = like.is_floating_point()
            found = combine(name, read, weights, self._merge, floats=floats, root=root, context=told_name)
            result[name] = torch.from_numpy(found.copy()).to(like.dtype).reshape(like.shape)
        return result

    def _start(self, name: str) -> NDArray[Any] | None:
        """The base's tensor, if it has one of this name and shape, of floats."""
        found = self._base.get(name) if self._base else None
        fits = found is not None and found.is_floating_point() and found.shape == self._ingredients[0][name].shape
        return _array(found) if fits else None

    def _task(self, i: int) -> Iterator[Array]:
        """The task vector of one ingredient, tensor by tensor; statistics of activations left out."""
        for name, tensor in self._ingredients[i].items():
            start = None if name.endswith(STATISTICS) else self._start(name)
            if start is not None:
                yield np.subtract(_array(tensor), start, dtype=np.float64)


def _array(tensor: Any) -> NDArray[Any]:
    values = tensor.detach().cpu()
    found: NDArray[Any] = (values if str(values.dtype) != "torch.bfloat16" else values.float()).numpy()
    return found
