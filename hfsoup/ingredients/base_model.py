"""The model that the ingredients were fine-tuned from: which one it is, and which of its tensors are theirs."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hfsoup.checkpoints.architecture import describe_architecture
from hfsoup.checkpoints.inspection import read_class_names, read_tensor_specs
from hfsoup.checkpoints.reader import Weights
from hfsoup.checkpoints.safetensors_io import FLOATS
from hfsoup.checkpoints.tensor_matching import match_tensors
from hfsoup.checkpoints.timm_config import read_model_config
from hfsoup.checkpoints.types import Ingredient, TensorSpec
from hfsoup.data.class_names import match_classes
from hfsoup.hub.cards import read_front_matter
from hfsoup.ingredients.compatibility import find_class_axes
from hfsoup.ingredients.family import Base, Family
from hfsoup.ingredients.find import find_base
from hfsoup.ingredients.pull import pull_ingredients
from hfsoup.ingredients.similarity import APART, BASIN
from hfsoup.utils.errors import MismatchError, SoupError, UsageError
from hfsoup.utils.text import join_names, one_line, quoted

HINT = "--base ORG/NAME|FOLDER"
REPO = re.compile(r"[A-Za-z0-9][\w.\-]*/[\w.\-]+")
CARD_LIMIT, SAMPLE = 1 << 20, 1 << 16
Notify = Callable[[str], None]


def resolve_base(family: Family, given: str | None, *, why: str, notify: Notify) -> Family:
    """The family with its base, pinned and on this disk.

    Args:
        family: the ingredients.
        given: the base, a name on the Hub or a folder; None takes the one that the ingredients' cards agree on.
        why: what needs a base, for errors.
        notify: told of a base that the cards named, and of the tensors that it does not have.

    Raises:
        UsageError: no base is given and the cards do not agree on one, or several are given.
        MismatchError: it is no model of the same kind, or not the one that they started from.
    """
    name = given or _read_common_base(family.ingredients, why)
    source = find_base(name, notify=notify)
    if given is None:
        notify(f"the base is {one_line(source)}, as the ingredients' cards say")
    rooted = attach_base(family, pull_ingredients([source], notify=notify)[0])
    if rooted.base and rooted.base.lacking:
        text = f"the base {one_line(source)} has no {join_names(rooted.base.lacking, 6)} of the same shape and classes"
        notify(f"{text}: averaged over the ingredients alone")
    if rooted.base:
        _require_start(rooted, rooted.base, notify)
    return rooted


def _require_start(family: Family, base: Base, notify: Notify) -> None:
    """See that the ingredients are fine-tunings of their base.

    Judged by the cosines between their matrices, over the first elements of each: networks from different starts are
    near 0, where fine-tunings are near 1.

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
            what = f"the ingredients did not start from this base: {cosine}, and of fine-tunings it is near 1"
            raise MismatchError(what, where=str(base.ingredient), hint=HINT)
        notify(
            f"the base {one_line(base.ingredient)} is far from the ingredients: {cosine}; is it what they started from?"
        )


def _read_sample(weights: Weights, name: str, spec: TensorSpec) -> NDArray[np.float64]:
    """The first elements of a tensor, its finite ones; all others as 0, for what is broken is found elsewhere."""
    return np.nan_to_num(weights.read(name, 0, min(prod(spec.shape), SAMPLE)).astype(np.float64), posinf=0, neginf=0)


def attach_base(family: Family, ingredient: Ingredient) -> Family:
    """The family with a base whose tensors were found by name: its head counts where it has the same classes.

    Raises:
        MismatchError: it is of another model type, or has none of the ingredients' tensors.
    """
    where = f"{ingredient}, config.json"
    config = read_model_config(ingredient.folder / "config.json", where=where)
    expected, found = family.config.get("model_type"), config.get("model_type")
    if found != expected:
        raise MismatchError(f"expected a base of model type {one_line(expected)}, found {one_line(found)}", where=where)
    names = _match_names(family, ingredient)
    if not names:
        raise MismatchError("the base has none of the ingredients' tensors", where=str(ingredient), hint=HINT)
    try:
        labels = read_class_names(config, where=where)
        same = labels == family.labels
        order = None if same else match_classes(family.labels, labels, where="the ingredients", against=where)
    except SoupError:
        heads = find_class_axes(family)
        kept = {name: own for name, own in names.items() if name not in heads}
        return replace(family, base=_make_base(family, ingredient, kept, None))
    if order is None or order == tuple(range(len(order))):
        return replace(family, base=_make_base(family, ingredient, names, None))
    axes = family.class_axes or find_class_axes(family)
    return replace(family, base=_make_base(family, ingredient, names, order), class_axes=axes)


def _make_base(family: Family, ingredient: Ingredient, names: dict[str, str], order: tuple[int, ...] | None) -> Base:
    lacking = tuple(s.name for s in _list_mergeable(family) if s.name not in names)
    return Base(ingredient, names, lacking, order)


def _list_mergeable(family: Family) -> list[TensorSpec]:
    """The tensors that a base could have a part in."""
    return [s for s in family.tensors if s.dtype in FLOATS and s.name not in family.reference_only]


def _match_names(family: Family, ingredient: Ingredient) -> dict[str, str]:
    """Tensors of the family and the base's names of them, each brought to the model's own; it need not have all."""
    stored: dict[str, TensorSpec] = {}
    for file in ingredient.weights:
        stored.update({spec.name: spec for spec in read_tensor_specs(file.path, f"{ingredient}, {file.name}")})
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
    """The tensor that one is of no use without: the other statistic of a batch norm; any other itself."""
    swapped = {"running_mean": "running_var", "running_var": "running_mean"}
    last = next((end for end in swapped if name.endswith(end)), "")
    return name.removesuffix(last) + swapped[last] if last else name


def _read_common_base(ingredients: Sequence[Ingredient], why: str) -> str:
    """The repository that every ingredient's card names as its base."""
    found = {_read_base_name(ingredient) for ingredient in ingredients}
    if len(found) > 1 or None in found:
        named = sorted(name for name in found if name)
        said = f"their cards name {join_names(named, 4)}" if named else "their cards name none"
        said = f"{said}, and some none" if named and None in found else said
        raise UsageError(f"{why} needs the model that the ingredients started from; {said}", hint=HINT)
    name = str(found.pop())
    if not REPO.fullmatch(name) or Path(name).exists():
        raise UsageError(f"the ingredients' cards name {quoted(name)} as their base, which may be a folder", hint=HINT)
    return name


def _read_base_name(ingredient: Ingredient) -> str | None:
    """The one base model in an ingredient's card."""
    if not ingredient.card.is_file():
        return None
    with ingredient.card.open("rb") as file:
        text = file.read(CARD_LIMIT).decode("utf-8", "replace")
    try:
        found = read_front_matter(text).get("base_model")
    except ValueError:
        return None
    if isinstance(found, list) and len(found) == 1:
        found = found[0]
    return found if isinstance(found, str) else None
