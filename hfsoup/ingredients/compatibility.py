"""Whether checkpoints can be averaged, by their configs and headers, before any weight is read."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hfsoup.checkpoints.architecture import Architecture, Shapes, compute_class_axes, describe_architecture
from hfsoup.checkpoints.auto_class import IMAGE_CLASSIFICATION
from hfsoup.checkpoints.dtypes import FLOAT_NAMES
from hfsoup.checkpoints.inspection import Checkpoint, inspect_checkpoint, rename_tensors, require_floats
from hfsoup.checkpoints.safetensors_io import FLOATS
from hfsoup.checkpoints.tensor_matching import describe_gap, find_extra_layers, match_tensors
from hfsoup.checkpoints.timm_config import is_timm, read_image_settings, repeats_classes, strip_timm_prefix
from hfsoup.checkpoints.types import Ingredient, TensorSpec
from hfsoup.data.class_names import has_placeholder_names, match_classes
from hfsoup.data.label_mapping import BY_NUMBER
from hfsoup.ingredients.differences import compare_configs, compare_processors, same_model_type
from hfsoup.ingredients.family import Family
from hfsoup.utils.errors import MismatchError, SoupError, UsageError
from hfsoup.utils.text import join_names, one_line, quoted

SHOWN = 6
CONFIG_HINT = "a config.json and weights that were saved together"
GAP_HINT = "load the weights into the model that was trained, and save it with model.save_pretrained(FOLDER)"


@dataclass(frozen=True)
class Reference:
    """The checkpoint that others are compared with, and its architecture.

    `names` are the names of tensors in the family and the soup, those of this checkpoint, by the model's own.
    """

    checkpoint: Checkpoint
    architecture: Architecture
    names: Mapping[str, str]

    def rename_tensors(self, other: Checkpoint) -> Checkpoint:
        """Another checkpoint by the names of the family; one of another model type as it is."""
        if not same_model_type(self.checkpoint, other):
            return other
        where = str(other.ingredient)
        return rename_tensors(other, match_tensors(self.architecture, other.tensors, where=where), self.names)

    def find_class_axes(self) -> dict[str, int]:
        """The axis that runs over the classes, for every tensor that has one."""
        one, owns = self.checkpoint, {name: own for own, name in self.names.items()}
        return _name_class_axes(owns, one.config, len(one.labels), one.shapes, str(one.ingredient))

    def is_optional(self, name: str) -> bool:
        """Whether loading creates this tensor if a file lacks it."""
        return self.architecture.rename(name)[0][0] in self.architecture.optional


def check_compatibility(
    ingredients: Sequence[Ingredient],
    *,
    on_mismatch: str = "error",
    processor_from: str | None = None,
    labels: str | None = None,
) -> Family:
    """Check every ingredient by itself, and compare it with the first one.

    Tensors are matched to those of the first one's model, so their names may differ; the soup has the names of its
    files. Tensors that fill nothing are left out. Float dtypes may differ: each tensor gets the widest dtype among the
    ingredients, and float32 for float16 with bfloat16.

    Args:
        ingredients: the checkpoints.
        on_mismatch: `error`; `skip-ingredient` keeps the largest group that fits together (the first of several) and
            leaves out the rest; `backbone-only` accepts other classes, and every mix has the first one's head.
        processor_from: the ingredient whose image processor the soup gets; None requires that all agree.
        labels: `by-number` gives unnamed classes (LABEL_0 and so on) the names of the others with the same number.

    Raises:
        MismatchError: they differ in architecture, tensors, classes or image processing; every difference is listed.
        SoupError: one of them cannot be used at all.
    """
    found = [inspect_checkpoint(ingredient) for ingredient in ingredients]
    if labels == BY_NUMBER:
        found = _name_classes_by_number(found)
    skipped: list[tuple[Ingredient, str]] = []
    by_processor = processor_from is None
    if on_mismatch == "skip-ingredient":
        found, skipped = _select_largest_group(found, by_processor)
    reference = _require_reference(found)
    first = reference.checkpoint
    found = [first, *map(reference.rename_tensors, found[1:])]
    orders = [_match_class_order(first, other) for other in found]
    apart = any(isinstance(order, str) for order in orders)
    own = frozenset(reference.find_class_axes()) if apart and on_mismatch == "backbone-only" else frozenset()
    compared = [(other, _list_differences(reference, other, by_processor, own)) for other in found[1:]]
    _refuse_differences(first, compared, by_processor)
    placed = tuple(None if isinstance(order, str) or own else order for order in orders)
    return Family(
        ingredients=tuple(one.ingredient for one in found),
        config=first.config,
        labels=first.labels,
        shards=widen_shards(first, found),
        orders=placed,
        class_axes=reference.find_class_axes() if any(placed) else {},
        reference_only=own,
        processor_index=find_processor_index(found, processor_from) if processor_from else 0,
        dropped=tuple(sorted({name for one in found for name in one.unused})),
        dtypes=list_mixed_dtypes(found),
        skipped=tuple(skipped),
        custom=tuple(one.ingredient for one in found if one.custom),
        wrappers=tuple((one.ingredient, one.wrapper) for one in found if one.wrapper),
    )


def list_remarks(family: Family) -> Iterator[str]:
    """Sentences about what was renamed, left out or converted to make a family."""
    for ingredient, why in family.skipped:
        yield f"{ingredient} does not fit and is left out: {why}"
    if family.custom:
        own = ", ".join(map(str, family.custom))
        yield f"{own}: custom code (auto_map) is never run; the classes of transformers are used instead"
    if family.reference_only:
        yield f"the classes differ: every mix has the head of {family.reference}, only the other tensors are averaged"
    if family.dropped:
        yield f"the classifier does not have {join_names(family.dropped, 6)}; left out of the soup"
    for wrapper in dict.fromkeys(wrapper for _, wrapper in family.wrappers):
        whose = [str(ingredient) for ingredient, found in family.wrappers if found == wrapper]
        yield f"{quoted(wrapper)}, added by a wrapper, is removed from the tensor names of {join_names(whose, 6)}"
    if named_twice := [str(i) for i in family.ingredients if is_timm(family.config) and repeats_classes(i.folder)]:
        what = f"{join_names(named_twice, 6)}: num_classes in model_args, which only timm can load"
        yield f"{what}; the soup loads in transformers too"
    if family.dtypes:
        names = [FLOAT_NAMES[dtype] for dtype in family.dtypes]
        soup = FLOAT_NAMES[find_widest(set(family.dtypes))]
        yield f"the ingredients are {' and '.join(names)}; the soup is {soup} unless --dtype is given"


def find_class_axes(family: Family) -> dict[str, int]:
    """The axis that runs over the classes, for every tensor of a family that has one.

    Raises:
        MismatchError: the head was not found.
    """
    shapes, count = {spec.name: spec.shape for spec in family.tensors}, len(family.labels)
    owns = describe_architecture(family.config, count, shapes).map_names(shapes)
    return _name_class_axes(owns, family.config, count, shapes, str(family.reference))


def _name_class_axes(
    owns: Mapping[str, str], config: dict[str, Any], classes: int, shapes: Shapes, where: str
) -> dict[str, int]:
    """The class axes by the names of a family; `owns` takes those to the model's own."""
    axes = compute_class_axes(config, classes, shapes)
    if not axes or not set(axes) <= set(owns.values()):
        what = "the classes are in another order, and the head to reorder was not found"
        raise MismatchError(what, where=where, hint="fine-tune all with the classes in one order")
    return {name: axes[own] for name, own in owns.items() if own in axes}


def _require_reference(found: Sequence[Checkpoint]) -> Reference:
    """The first checkpoint as the reference; if it fails and configs differ, the differences are the error."""
    try:
        return make_reference(found[0])
    except SoupError:
        _refuse_differences(found[0], [(one, [*compare_configs(found[0], one)]) for one in found[1:]], False)
        raise


def make_reference(checkpoint: Checkpoint) -> Reference:
    """A checkpoint as the one that others are compared with.

    Raises:
        SoupError: its files do not fill the model of its config, with its number of classes.
    """
    where = str(checkpoint.ingredient)
    try:
        architecture = describe_architecture(checkpoint.config, len(checkpoint.labels), checkpoint.shapes)
    except SoupError as error:
        raise SoupError(error.what, where=f"{where}, config.json", hint=error.hint) from error
    filling = match_tensors(architecture, checkpoint.tensors, where=where)
    for name, own in filling.owns.items():
        shape, stored = architecture.shapes[own], checkpoint.shapes[filling.stored[name]]
        if shape != stored and name not in filling.converted:
            axis = compute_class_axes(checkpoint.config, len(checkpoint.labels), checkpoint.shapes).get(own)
            what = f"config.json describes shape {list(shape)}, the file holds {list(stored)}"
            if axis is not None and len(stored) == len(shape) and stored[axis] != shape[axis]:
                what = f"config.json names {shape[axis]} classes, the head in the file has {stored[axis]} rows"
            # DeepSpeed ZeRO-3 saves empty tensors.
            hint = CONFIG_HINT if 0 not in stored else "python zero_to_fp32.py . MODEL, in that folder, if by DeepSpeed"
            raise SoupError(what, where=f"{where}, tensor {one_line(filling.stored[name])}", hint=hint)
    if filling.missing:
        raise SoupError(describe_gap(filling, architecture), where=where, hint=GAP_HINT)
    if deeper := find_extra_layers(architecture, filling.unused):
        what = f"config.json describes a smaller model, without {join_names(deeper, 4)} of the file"
        raise SoupError(what, where=where, hint=CONFIG_HINT)
    names = {
        own: strip_timm_prefix(checkpoint.config, name)
        for name, own in filling.owns.items()
        if name not in filling.converted
    }
    found = rename_tensors(checkpoint, filling, names)
    require_floats(found)
    return Reference(found, architecture, names)


def _select_largest_group(
    found: Sequence[Checkpoint], by_processor: bool
) -> tuple[list[Checkpoint], list[tuple[Ingredient, str]]]:
    """The largest group of checkpoints that fit together, and the others, each with the reason."""

    def differences(reference: Reference, one: Checkpoint) -> list[str]:
        return _list_differences(reference, reference.rename_tensors(one), by_processor)

    groups: list[tuple[Reference, list[Checkpoint]]] = []
    unfit: dict[int, SoupError] = {}
    for n, one in enumerate(found):
        try:
            fits = (group for reference, group in groups if not differences(reference, one))
            home = next(fits, None)
            if home is None:
                groups.append((make_reference(one), [one]))
            else:
                home.append(one)
        except SoupError as error:
            unfit[n] = error
    if not groups:
        raise next(iter(unfit.values()))
    reference, chosen = max(groups, key=lambda group: len(group[1]))
    skipped = []
    for n, other in enumerate(found):
        if n in unfit:
            skipped.append((other.ingredient, unfit[n].what.splitlines()[0]))
        elif other not in chosen:
            texts = [text.splitlines()[0] for text in differences(reference, other)]
            more = f" (and {len(texts) - 1} more differences)" if len(texts) > 1 else ""
            skipped.append((other.ingredient, f"compared with {chosen[0].ingredient}: {texts[0]}{more}"))
    return chosen, skipped


def _list_differences(
    reference: Reference, other: Checkpoint, by_processor: bool, reference_only: frozenset[str] = frozenset()
) -> list[str]:
    """The differences that rule out averaging; those of `reference_only`, the head, do not count if it is given."""
    first = reference.checkpoint
    if not same_model_type(first, other):
        return list(compare_configs(first, other))
    order = _match_class_order(first, other)
    return [
        *compare_configs(first, other, reference.architecture.code),
        *_compare_tensors(reference, other, reference_only),
        *(compare_processors(first, other) if by_processor else ()),
        *([order] if isinstance(order, str) and not reference_only else ()),
    ]


def _refuse_differences(
    first: Checkpoint, compared: Sequence[tuple[Checkpoint, list[str]]], by_processor: bool
) -> None:
    """Fail if there is any difference; the error lists them and the options that would accept them."""
    texts: list[str] = []
    for other, differences in compared:
        texts += [f"{other.ingredient}: {text}" for text in differences[:SHOWN]]
        if len(differences) > SHOWN:
            texts.append(f"{other.ingredient}: and {len(differences) - SHOWN} more differences")
    if not texts:
        return
    # Of two that differ one would be left, and one is no soup.
    several = len(compared) > 1
    hints = ["--on-mismatch skip-ingredient leaves out ingredients that do not fit"] if several else []
    alike = [other for other, _ in compared if same_model_type(first, other)]
    if any(other.converted != first.converted for other in alike):
        hints.append(f"{IMAGE_CLASSIFICATION.name}.from_pretrained(X).save_pretrained(X) gives X the current names")
    if any(has_placeholder_names(first.labels) != has_placeholder_names(other.labels) for other in alike):
        hints.append(f"--labels {BY_NUMBER} matches LABEL_0 to the first named class, and so on")
    if any(isinstance(_match_class_order(first, other), str) for other in alike):
        hints.append("--on-mismatch backbone-only averages everything except the heads")
    if by_processor and any(any(compare_processors(first, other)) for other in alike):
        hints.append("--processor-from ORG/NAME|FOLDER uses the image processor of that ingredient")
    what = "\n  ".join([f"these cannot be averaged; compared with {first.ingredient}:", *texts])
    raise MismatchError(what, hint="; ".join(hints))


def _name_classes_by_number(found: Sequence[Checkpoint]) -> list[Checkpoint]:
    """The checkpoints, where those without class names get the names of the others, if the others agree."""
    named_ones = [one for one in found if not has_placeholder_names(one.labels)]
    if len({one.labels for one in named_ones}) != 1:
        return list(found)
    labels, config = named_ones[0].labels, named_ones[0].config
    words: dict[str, Any] = {key: config[key] for key in ("id2label", "label2id", "label_names") if key in config}
    return [
        replace(one, labels=labels, config={**one.config, **words})
        if has_placeholder_names(one.labels) and len(one.labels) == len(labels)
        else one
        for one in found
    ]


def _match_class_order(first: Checkpoint, other: Checkpoint) -> tuple[int, ...] | str | None:
    """The other's row for each class of the first one; None if the order is the same, the difference if they differ.

    Equal lists are not matched, so they may hold a name twice, as those of well-known ImageNet models do.
    """
    if other.labels == first.labels:
        return None
    try:
        order = match_classes(first.labels, other.labels, where=str(first.ingredient), against=str(other.ingredient))
    except MismatchError as error:
        return error.what
    if len(other.labels) != len(first.labels):
        return f"{len(other.labels)} classes, expected {len(first.labels)}"
    return None if order == tuple(range(len(order))) else order


def _compare_tensors(reference: Reference, other: Checkpoint, reference_only: frozenset[str]) -> Iterator[str]:
    expected, found = reference.checkpoint.tensors, other.tensors
    lacking = [name for name in sorted(expected.keys() - found.keys()) if not reference.is_optional(name)]
    for name in lacking:
        yield f"tensor {one_line(name)} is missing"
    more = {name for name in found.keys() - expected.keys() if not reference.is_optional(name)}
    # An unused tensor may be a missing one under an unknown name, or one of another layer.
    more |= set(other.unused if lacking else find_extra_layers(reference.architecture, other.unused))
    for name in sorted(more):
        yield f"tensor {one_line(name)} is not expected"
    for name in sorted(expected.keys() & found.keys()):
        a, b = expected[name], found[name]
        if a.shape != b.shape and name not in reference_only:
            yield f"tensor {one_line(name)} has shape {list(b.shape)}, expected {list(a.shape)}"
        elif a.dtype != b.dtype and not {a.dtype, b.dtype} <= FLOATS.keys():
            yield f"tensor {one_line(name)} is {b.dtype}, expected {a.dtype}"


def find_processor_index(found: Sequence[Checkpoint], given: str) -> int:
    """The index of the ingredient that --processor-from names: as it is printed, by commit or by folder.

    Raises:
        UsageError: it is not one of the ingredients.
        SoupError: it has no image processor, or one in another file than the first one.
    """
    name, _, revision = given.partition("@")
    for i, source in enumerate(one.ingredient.source for one in found):
        pinned = bool(revision and source.revision) and name == source.id and str(source.revision).startswith(revision)
        local = source.folder is not None and Path(given).expanduser().resolve() == source.folder.resolve()
        if pinned or local or given in (source.id, str(source)):
            if found[i].processor is None:
                raise SoupError("this ingredient has no image processor", where=str(source), hint="--processor-from")
            if bool(read_image_settings(found[i].config)) != bool(read_image_settings(found[0].config)):
                what = f"its image processor is in another file than that of {found[0].ingredient}"
                raise SoupError(what, where=str(source), hint="--processor-from an ingredient of the same layout")
            return i
    known = join_names([str(one.ingredient) for one in found], 8)
    what = f"expected --processor-from to name one of the ingredients, {known}; found {quoted(given)}"
    raise UsageError(what, hint=f"--processor-from {shlex.quote(found[0].ingredient.id)}")


def find_widest(dtypes: set[str]) -> str:
    """The smallest dtype that holds the values of all."""
    if len(dtypes) == 1:
        return next(iter(dtypes))
    return "F64" if "F64" in dtypes else "F32"


def widen_shards(first: Checkpoint, found: Sequence[Checkpoint]) -> tuple[tuple[TensorSpec, ...], ...]:
    """The first one's shards without tensors that another lacks, each tensor with the widest dtype."""
    shards = [
        tuple(
            replace(spec, dtype=find_widest({one.tensors[spec.name].dtype for one in found}))
            for spec in shard
            if all(spec.name in one.tensors for one in found)
        )
        for shard in first.shards
    ]
    return tuple(shard for shard in shards if shard)


def list_mixed_dtypes(found: Sequence[Checkpoint]) -> tuple[str, ...]:
    """The dtypes of tensors whose dtype differs between checkpoints."""
    groups = [{one.tensors[name].dtype for one in found if name in one.tensors} for name in found[0].tensors]
    return tuple(sorted({dtype for group in groups if len(group) > 1 for dtype in group}))
