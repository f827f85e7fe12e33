"""The model that the ingredients were fine-tuned from: find it, and match its tensors to theirs."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from math import prod

import numpy as np
from numpy.typing import NDArray

from hfsoup.checkpoints.architecture import describe_architecture
from hfsoup.checkpoints.inspection import read_class_names
from hfsoup.checkpoints.reader import Weights
from hfsoup.checkpoints.safetensors_io import FLOATS, read_tensor_specs
from hfsoup.checkpoints.tensor_matching import match_tensors
from hfsoup.checkpoints.timm_config import read_model_config
from hfsoup.checkpoints.types import Ingredient, Source, TensorSpec
from hfsoup.data.class_names import match_classes
from hfsoup.hub.client import is_offline
from hfsoup.ingredients.cards import BASE_HINT, read_common_base
from hfsoup.ingredients.compatibility import find_class_axes
from hfsoup.ingredients.family import Base, Family
from hfsoup.ingredients.find import find_base, require_base_of_owner
from hfsoup.ingredients.pull import pull_ingredients
from hfsoup.ingredients.similarity import APART, BASIN
from hfsoup.utils.errors import AccessError, HubError, MismatchError, SoupError
from hfsoup.utils.progress import Notify
from hfsoup.utils.text import join_names, one_line

SAMPLE = 1 << 16
"""Elements of each tensor that are compared with the base."""


def resolve_base(family: Family, given: Source | None, *, why: str, notify: Notify) -> Family:
    """The family with its base, which is downloaded.

    Args:
        family: the ingredients.
        given: the base; None takes the one that adapters are on, or else the base model in the ingredients' cards or
            configs, which is pinned here.
        why: what needs a base, for errors.
        notify: receives notes about the base.

    Raises:
        UsageError: no base is given and the cards do not agree on one.
        MismatchError: it is of another model type, or not what they started from.
    """
    found = None if given else _find_adapters_base(family)
    if found is None:
        source = given
        if source is None:
            source = find_base(read_common_base(family.ingredients, why), notify=notify)
            named_by = [ingredient.source for ingredient in family.ingredients]
            require_base_of_owner(source, named_by, f"--base {source.repo}, if you mean it")
            notify(f"the base is {one_line(source)}, from the ingredients' cards or configs")
        (found,) = pull_ingredients([source], notify=notify)
    based = attach_base(family, found)
    if based.base and based.base.lacking:
        text = f"the base {one_line(found)} has no {join_names(based.base.lacking, 6)} of the same shape and classes"
        notify(f"{text}: these are averaged without a base")
    if based.base:
        _require_start(based, based.base, notify)
    return based


def find_known_base(family: Family, *, notify: Notify) -> Family:
    """The family with the base that adapters, cards or configs name; without one where none is known or none fits.

    Args:
        family: the ingredients.
        notify: receives notes about the base, or why there is none.

    Raises:
        HubError: the Hub cannot be reached.
    """
    try:
        return resolve_base(family, None, why="extrapolation", notify=notify)
    except SoupError as error:
        if isinstance(error, HubError) and not isinstance(error, AccessError) and not is_offline():
            raise
        place = f" ({one_line(error.where)})" if error.where else ""
        notify(f"nothing is extrapolated: {one_line(error.what)}{place}; {BASE_HINT} names the base")
        return family


def _find_adapters_base(family: Family) -> Ingredient | None:
    """The model that all ingredients are adapters on, known by its files; None if one is no adapter, or they differ."""
    bases = [ingredient.adapter.base if ingredient.adapter else None for ingredient in family.ingredients]
    first = bases[0]
    hashes = {tuple(sorted(file.blake3 for file in base.weights)) if base else () for base in bases}
    return first if first and len(hashes) == 1 else None


def _require_start(family: Family, base: Base, notify: Notify) -> None:
    """Require that the ingredients are fine-tuned from their base.

    Compares the first elements of every matrix: the cosine is near 1 after fine-tuning, and near 0 between networks
    from different starts.

    Raises:
        MismatchError: most of them are not.
    """
    specs = [s for s in _list_mergeable(family) if s.name in base.names and len(s.shape) > 1]
    with closing(Weights(base.ingredient)) as root:
        start = np.concatenate([_read_sample(root, base.names[s.name], s) for s in specs] or [np.zeros(0)])
        cosines = []
        for ingredient in family.ingredients:
            with closing(Weights(ingredient)) as weights:
                found = np.concatenate([_read_sample(weights, s.name, s) for s in specs] or [np.zeros(0)])
            length = np.sqrt((start @ start) * (found @ found))
            cosines.append(float(start @ found / length) if length > 0 else 1.0)
    usual = float(np.median(cosines))
    if usual < BASIN:
        cosine = f"the cosine between its weights and those of the ingredients is {usual:.2f}"
        if usual < APART:
            what = f"the ingredients were not fine-tuned from this base: {cosine}, expected one near 1"
            raise MismatchError(what, where=str(base.ingredient), hint=BASE_HINT)
        notify(f"the base {one_line(base.ingredient)} is far from the ingredients: {cosine}; is it the right one?")


def _read_sample(weights: Weights, name: str, spec: TensorSpec) -> NDArray[np.float64]:
    """The first elements of a tensor, NaN and infinity as 0: those are reported elsewhere."""
    return np.nan_to_num(weights.read(name, 0, min(prod(spec.shape), SAMPLE)).astype(np.float64), posinf=0, neginf=0)


def attach_base(family: Family, ingredient: Ingredient) -> Family:
    """The family with a base; the base's head is used only if it has the same classes.

    Raises:
        MismatchError: the base is of another model type, or has none of the ingredients' tensors.
    """
    where = f"{ingredient}, config.json"
    config = read_model_config(ingredient.folder / "config.json", where=where)
    expected, found = family.config.get("model_type"), config.get("model_type")
    if found != expected:
        raise MismatchError(f"expected a base of model type {one_line(expected)}, found {one_line(found)}", where=where)
    names = _match_names(family, ingredient)
    if not names:
        raise MismatchError("the base has none of the ingredients' tensors", where=str(ingredient), hint=BASE_HINT)
    order, axes = None, family.class_axes
    try:
        labels = read_class_names(config, where=where)
        if labels != family.labels:
            order = match_classes(family.labels, labels, where="the ingredients", against=where)
    except SoupError:
        heads = find_class_axes(family)
        names = {name: own for name, own in names.items() if name not in heads}
    if order == tuple(range(len(family.labels))):
        order = None
    if order:
        axes = axes or find_class_axes(family)
    lacking = tuple(s.name for s in _list_mergeable(family) if s.name not in names)
    return replace(family, base=Base(ingredient, names, lacking, order), class_axes=axes)


def _list_mergeable(family: Family) -> list[TensorSpec]:
    """The tensors of a family that a base can be merged with."""
    return [s for s in family.tensors if s.dtype in FLOATS and s.name not in family.reference_only]


def _match_names(family: Family, ingredient: Ingredient) -> dict[str, str]:
    """The base's names of the family's tensors, of those that it has in the same shape."""
    stored: dict[str, TensorSpec] = {}
    for file in ingredient.weights:
        stored |= read_tensor_specs(file.path, where=f"{ingredient}, {file.name}")
    shapes = {spec.name: spec.shape for spec in family.tensors}
    model = describe_architecture(family.config, len(family.labels), shapes)
    filling = match_tensors(model, stored, where=str(ingredient))
    theirs = {own: filling.stored[name] for name, own in filling.owns.items()}
    pairs = {spec: theirs.get(model.rename(spec.name)[0][0]) for spec in _list_mergeable(family)}
    found = {
        spec.name: name
        for spec, name in pairs.items()
        if name is not None and stored[name].dtype in FLOATS and stored[name].shape == spec.shape
    }
    return {name: own for name, own in found.items() if _find_partner(name) in found}


def _find_partner(name: str) -> str:
    """The tensor that one is used with: a running mean with its running variance; else the tensor itself."""
    swapped = {"running_mean": "running_var", "running_var": "running_mean"}
    last = next((end for end in swapped if name.endswith(end)), "")
    return name.removesuffix(last) + swapped[last] if last else name
