"""Recipes for any torch model and any score: state dicts in, weights out, no Hub and no dataset."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from types import NoneType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hfsoup.averaging.combine import STATISTICS, BaseTensor, ImportanceNorms, Thresholds, combine
from hfsoup.averaging.mix import Mix
from hfsoup.evaluation.scores import Decision, Score
from hfsoup.merges import EMPTY, MERGES, Array, Context, MergeEntry
from hfsoup.options.options import require_allowed
from hfsoup.recipes import RECIPES
from hfsoup.recipes._line import extrapolate as draw_on
from hfsoup.recipes._search import Rules, Search
from hfsoup.state_dicts.load import Ingredient, StateDict, load_ingredients, load_state_dict, name_ingredient
from hfsoup.utils.errors import MismatchError, UsageError


@dataclass(frozen=True)
class Found:
    """The result of a search.

    Attributes:
        weights: a coefficient for each ingredient in the order given, 0 for one that was left out.
        base: the share of the base beside them: 0.3 is 30 % of the base and 70 % of the ingredients, -0.4 is what was
            extrapolated to α = 1.4.
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
    base: float
    _mix: Mix = field(repr=False)
    _merger: _Merger = field(repr=False)

    def state_dict(self) -> dict[str, torch.Tensor]:
        """The average, in the dtypes of the first ingredient."""
        return self._merger.merge(self._mix)


def search(
    recipe: str,
    ingredients: Sequence[Ingredient],
    *,
    score: Callable[[dict[str, torch.Tensor]], float] | None = None,
    merge: str = "mean",
    base: Ingredient | None = None,
    importance: Sequence[StateDict] | None = None,
    extrapolate: bool | None = None,
    unwrap: bool = False,
    **rules: Any,
) -> Found:
    """Search for the best average of `ingredients`.

    Args:
        recipe: the name of a recipe, as `hfsoup recipes` lists them.
        ingredients: state dicts, modules, or paths of safetensors or of `.bin`, `.pt`, `.th` files, which are read with
            `weights_only`. Floats and complex numbers are averaged; of integers that count, the largest is taken; other
            integers must be equal in all ingredients.
        score: how good a state dict is, higher is better; called once for each distinct mix, with a new state dict.
        merge: the name of a merge.
        base: the model that the ingredients were fine-tuned from, where recipe or merge need it; tensors that it does
            not have in the same shape are averaged.
        extrapolate: draw the result on, past the mean and away from the base, as far as it scores best, to α = 2 at
            most; None for recipes that do so where they are given a base.
        importance: the result of `estimate`, where the merge needs it: a state dict for each ingredient; tensors that
            one of them lacks are averaged.
        unwrap: follow a lone `state_dict` key in a pickled file.
        rules: accept, passes, seed, min_score, max_ingredients, keep_best, last, decay, weights, temperature, budget,
            and for the merge scale, density, outliers.

    Raises:
        UsageError: an unknown recipe, merge or rule, or no score, base or importance where one is needed.
        MismatchError: the state dicts differ in names, shapes or dtypes, or in integers that are weights.
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
    chosen = MERGES.get(merge)
    if extrapolate and (base is None or score is None):
        lacking = "score=FUNCTION" if score is None else "base=STATE_DICT"
        raise UsageError("to extrapolate needs a base to go away from, and scores", hint=lacking)
    if base is None and (needing := next((e for e in (found, chosen) if e.needs_base), None)):
        raise UsageError(
            f"{needing.name} needs the model that the ingredients were fine-tuned from", hint="base=STATE_DICT"
        )
    every = [found, chosen, *RECIPES.list_built_in(), *MERGES.list_built_in()]
    known = {*Rules.__dataclass_fields__, *(p.name for entry in every for p in entry.parameters)} - {"margin"}
    if unknown := sorted(set(rules) - known):
        raise UsageError(f"there is no rule {unknown[0]!r}; known: {', '.join(sorted(known))}")
    if not isinstance(rules.get("weights"), (str, NoneType)):
        rules["weights"] = ",".join(str(float(weight)) for weight in rules["weights"])
    require_allowed(rules)
    names, loaded = load_ingredients(ingredients, unwrap=unwrap)
    given = _check_importance(chosen, loaded, importance)
    start = None if base is None else load_state_dict(base, unwrap, name_ingredient(base, "the base"))
    limits = Rules(**{name: rule for name, rule in rules.items() if name in Rules.__dataclass_fields__})
    merger = _Merger(loaded, merge, start, chosen.fill_parameters(rules), given)

    def evaluate(mix: Mix, _: float | None = None) -> Score:
        return Score(float(score(merger.merge(mix)))) if score else Score(0.0)

    steps = Search(names, evaluate if score else None, limits, merges_single=chosen.changes_single)
    recipe_function = partial(found.function, **found.fill_parameters(rules))

    def find(steps: Search) -> Mix:
        return steps.as_soup(recipe_function(steps))

    wanted = found.extrapolates and base is not None if extrapolate is None else extrapolate
    mix = draw_on(steps, found.name, find) if wanted else find(steps)
    value = steps.score(mix).value if score else None
    return Found(mix.coefficients, tuple(steps.trace), value, mix.base, mix, merger)


def _check_importance(
    merge: MergeEntry, ingredients: Sequence[StateDict], given: Sequence[StateDict] | None
) -> Sequence[StateDict]:
    """The importance of every ingredient's weights where the merge needs it, else none."""
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
    """State dicts with the settings of their merge."""

    def __init__(
        self,
        ingredients: Sequence[StateDict],
        merge: str,
        base: StateDict | None,
        parameters: Mapping[str, Any],
        importance: Sequence[StateDict],
    ) -> None:
        self._ingredients, self._merge, self._base = ingredients, merge, base
        self._parameters, self._importance = parameters, importance
        self._thresholds = Thresholds(self._iterate_task_vector)
        self._norms = ImportanceNorms(lambda i: map(_to_numpy, importance[i].values()))

    def merge(self, mix: Mix) -> dict[str, torch.Tensor]:
        """The merge of a mix's members, tensor by tensor, in the dtypes of the ingredients."""
        weights = [mix.coefficients[i] for i in mix.members]
        context = Context("", mix.members, EMPTY, self._thresholds, importance_norm=self._norms)
        root, merge = BaseTensor(self._read_base, mix.base), self._merge if mix.merges else "mean"

        def read(name: str) -> list[Any]:
            return [_to_numpy(self._ingredients[i][name]) for i in mix.members]

        result = {}
        for name, like in self._ingredients[0].items():
            known = [None if like.is_complex() else self._importance[i].get(name) for i in mix.members]
            important = None if any(found is None for found in known) else [_to_numpy(found) for found in known]
            described = replace(context, name=name, importance=important, shape=tuple(like.shape))
            floats = like.is_floating_point() or like.is_complex()
            merged = combine(
                name, read, weights, merge,
                floats=floats, root=root, context=described, parameters=self._parameters,
            )  # fmt: skip
            found = torch.from_numpy(merged.copy())
            if like.is_complex():
                found = torch.view_as_complex(found.reshape(*like.shape, 2))
            result[name] = found.to(like.dtype).reshape(like.shape)
        return result

    def _read_base(self, name: str) -> NDArray[Any] | None:
        """The base's tensor of this name, if it has the same shape and holds floats."""
        found = self._base.get(name) if self._base else None
        floats = found is not None and (found.is_floating_point() or found.is_complex())
        like = self._ingredients[0][name]
        fits = found is not None and floats and found.shape == like.shape and found.is_complex() == like.is_complex()
        return _to_numpy(found) if fits else None

    def _iterate_task_vector(self, i: int) -> Iterator[Array]:
        """The task vector of one ingredient, tensor by tensor, without batch-norm statistics."""
        for name, tensor in self._ingredients[i].items():
            start = None if name.endswith(STATISTICS) else self._read_base(name)
            if start is not None:
                yield np.subtract(_to_numpy(tensor), start, dtype=np.float64)


def _to_numpy(tensor: Any) -> NDArray[Any]:
    """A tensor as an array: complex numbers as pairs of floats in a last axis, floats that NumPy lacks as float32."""
    values = tensor.detach().cpu().resolve_conj().resolve_neg()
    if values.is_complex():
        values = torch.view_as_real(values)
    small = values.is_floating_point() and str(values.dtype) not in ("torch.float16", "torch.float32", "torch.float64")
    found: NDArray[Any] = (values.float() if small else values).numpy()
    return found
