"""The recipes for any torch model and any score: state dicts in, weights out, no Hub and no dataset."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import NoneType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hfsoup.averaging.combine import STATISTICS, BaseTensor, combine
from hfsoup.averaging.mix import Mix
from hfsoup.averaging.trimming import Thresholds
from hfsoup.evaluation.scores import Decision, Score
from hfsoup.merges import EMPTY, MERGES, Array, Context, MergeEntry
from hfsoup.options.options import require_ranges
from hfsoup.recipes import RECIPES
from hfsoup.recipes._search import Rules, Search
from hfsoup.state_dicts.load import Ingredient, StateDict, load_ingredients, load_state_dict, name_ingredient
from hfsoup.utils.errors import MismatchError, UsageError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Found:
    """The result of a search.

    Attributes:
        weights: a coefficient for each ingredient in the order given, 0 for one that was left out.
        trace: every candidate that the recipe tried, with its score.
        score: of the average; None where no score was given.

    Example:
        >>> import hfsoup, torch
        >>> found = hfsoup.search("uniform", [{"w": torch.zeros(2)}, {"w": torch.ones(2)}])
        >>> found.weights
        (0.5, 0.5)
        >>> found.state_dict()
        {'w': tensor([0.5000, 0.5000])}
    """

    weights: tuple[float, ...]
    trace: tuple[Decision, ...]
    score: float | None
    _mix: Mix = field(repr=False)
    _pot: _Merger = field(repr=False)

    def state_dict(self) -> dict[str, torch.Tensor]:
        """The average, in the dtypes of the first ingredient."""
        return self._pot.combined(self._mix)


def search(
    recipe: str,
    ingredients: Sequence[Ingredient],
    *,
    score: Callable[[dict[str, torch.Tensor]], float] | None = None,
    merge: str = "mean",
    base: Ingredient | None = None,
    importance: Sequence[StateDict] | None = None,
    unwrap: bool = False,
    **rules: Any,
) -> Found:
    """Search for the best average of `ingredients`.

    Args:
        recipe: the name of a recipe, as `hfsoup recipes` lists them.
        ingredients: state dicts, modules, or paths of safetensors or of `.bin`, `.pt`, `.th` files, which are read with
            `weights_only`. Floats and complex numbers are averaged, of whole numbers that count the largest stays, and
            others must be alike in all.
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
        MismatchError: the state dicts differ in names, shapes or dtypes, or in whole numbers that are weights.
        SoupError: a tensor holds NaN or infinity, or is quantised, sparse or without values.

    Example:
        >>> import hfsoup, torch
        >>> ingredients = [{"w": torch.tensor([value])} for value in (1.0, 2.0, 6.0)]
        >>> found = hfsoup.search("greedy", ingredients, score=lambda state: 1 - abs(state["w"].item() - 1.5))
        >>> found.weights, found.score
        ((0.5, 0.5, 0.0), 1.0)
    """
    found = RECIPES.get(recipe)
    found.require_package()
    if found.epochs:
        raise UsageError(f"the recipe {recipe} learns from images", hint="hfsoup.bake(…, dataset=…)")
    if base is None and (needing := next((e for e in (found, MERGES.get(merge)) if e.needs_base), None)):
        raise UsageError(f"{needing.name} needs what the ingredients started from", hint="base=STATE_DICT")
    chosen = MERGES.get(merge)
    every = [found, chosen, *RECIPES.list_built_in(), *MERGES.list_built_in()]
    known = {*Rules.__dataclass_fields__, *(p.name for entry in every for p in entry.parameters)} - {"margin"}
    if unknown := sorted(set(rules) - known):
        raise UsageError(f"there is no rule {unknown[0]!r}; known: {', '.join(sorted(known))}")
    if not isinstance(rules.get("weights"), (str, NoneType)):
        rules["weights"] = ",".join(str(float(weight)) for weight in rules["weights"])
    require_ranges(rules)
    names, loaded = load_ingredients(ingredients, unwrap=unwrap)
    given = _check_importance(chosen, loaded, importance)
    start = None if base is None else load_state_dict(base, unwrap, name_ingredient(base, "the base"))
    obeyed = Rules(**{name: rule for name, rule in rules.items() if name in Rules.__dataclass_fields__})
    pot = _Merger(loaded, merge, start, chosen.fill_parameters(rules), given)

    def value(mix: Mix, _: float | None = None) -> Score:
        return Score(float(score(pot.combined(mix)))) if score else Score(0.0)

    walk = Search(names, value if score else None, obeyed)
    mix = found.function(walk, **found.fill_parameters(rules))
    value_found = walk.score(mix).value if score else None
    return Found(mix.coefficients, tuple(walk.trace), value_found, mix, pot)


def _check_importance(
    merge: MergeEntry, ingredients: Sequence[StateDict], given: Sequence[StateDict] | None
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


class _Merger:
    """State dicts, and all that says how they become one."""

    def __init__(
        self,
        ingredients: Sequence[StateDict],
        merge: str,
        base: StateDict | None,
        parameters: Mapping[str, Any],
        importance: Sequence[StateDict],
    ) -> None:
        self._ingredients, self._merge, self._base = ingredients, merge, base
        self._parameters, self._importance, self._thresholds = parameters, importance, Thresholds(self._task)

    def combined(self, mix: Mix) -> dict[str, torch.Tensor]:
        """The merge of the members, tensor by tensor, each in its ingredients' dtype."""
        import torch

        weights = [mix.coefficients[i] for i in mix.members]
        context = Context("", mix.members, EMPTY, self._thresholds)
        root = BaseTensor(self._start, mix.base)

        def read(name: str) -> list[Any]:
            return [_to_numpy(self._ingredients[i][name]) for i in mix.members]

        result = {}
        for name, like in self._ingredients[0].items():
            known = [None if like.is_complex() else self._importance[i].get(name) for i in mix.members]
            important = None if any(found is None for found in known) else [_to_numpy(found) for found in known]
            described = replace(context, name=name, importance=important)
            floats = like.is_floating_point() or like.is_complex()
            merged = combine(
                name, read, weights, self._merge,
                floats=floats, root=root, context=described, parameters=self._parameters,
            )  # fmt: skip
            found = torch.from_numpy(merged.copy())
            if like.is_complex():
                found = torch.view_as_complex(found.reshape(*like.shape, 2))
            result[name] = found.to(like.dtype).reshape(like.shape)
        return result

    def _start(self, name: str) -> NDArray[Any] | None:
        """The base's tensor, if it has one of this name and shape, of floats."""
        found = self._base.get(name) if self._base else None
        floats = found is not None and (found.is_floating_point() or found.is_complex())
        like = self._ingredients[0][name]
        fits = found is not None and floats and found.shape == like.shape and found.is_complex() == like.is_complex()
        return _to_numpy(found) if fits else None

    def _task(self, i: int) -> Iterator[Array]:
        """The task vector of one ingredient, tensor by tensor; statistics of activations left out."""
        for name, tensor in self._ingredients[i].items():
            start = None if name.endswith(STATISTICS) else self._start(name)
            if start is not None:
                yield np.subtract(_to_numpy(tensor), start, dtype=np.float64)


def _to_numpy(tensor: Any) -> NDArray[Any]:
    """A tensor's numbers; complex ones as pairs of floats in a last axis, and small floats in a type that numpy has."""
    values = tensor.detach().cpu().resolve_conj().resolve_neg()
    if values.is_complex():
        import torch

        values = torch.view_as_real(values)
    small = values.is_floating_point() and str(values.dtype) not in ("torch.float16", "torch.float32", "torch.float64")
    found: NDArray[Any] = (values.float() if small else values).numpy()
    return found
