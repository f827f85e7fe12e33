"""Which tensor of a checkpoint fills which tensor of its model, under the names of any version of transformers."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from hfsoup.checkpoints.architecture import Architecture
from hfsoup.utils.errors import SoupError
from hfsoup.utils.text import join_names, one_line

# Parts of names that wrappers around a module add.
WRAPPERS = ("module", "_orig_mod", "_forward_module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
AVERAGED = re.compile(r"(^|[._])(ema|swa|averaged|teacher|shadow)[._]", re.IGNORECASE)
"""Parts of names under which training scripts keep averaged copies of the model."""
DEEPEST, LEAST = 4, 4
"""The most parts of a wrapper's prefix, which is in the names of at least 1/`LEAST` of the model's tensors."""
SAVE = "save the model alone: model.save_pretrained(FOLDER)"
# A file may hold copies and optimizer states too, but not many times the model.
MOST_COPIES, SPARE_TENSORS = 16, 256
DIGITS = re.compile(r"\d+")


@dataclass(frozen=True)
class TensorMatch:
    """Which tensor of a model each tensor of a checkpoint fills.

    Three names matter: the one in the file, the plain one without a wrapper's parts, and the model's own.

    Args:
        stored: the name in the file by the plain one.
        owns: the model's own name by the plain one.
        converted: plain names of tensors that loading joins or splits.
        missing: the model's own names of tensors that nothing fills.
        unused: names in the file of tensors that fill nothing.
        wrapper: what was removed from the names.
        duplicate: a tensor of the model that two tensors fill, by its own name, and their names in the file.
    """

    stored: Mapping[str, str]
    owns: Mapping[str, str]
    converted: frozenset[str]
    missing: tuple[str, ...]
    unused: tuple[str, ...]
    wrapper: str = ""
    duplicate: tuple[str, str, str] | None = None


def match_tensors(architecture: Architecture, names: Collection[str], *, where: str) -> TensorMatch:
    """Match the tensors of a checkpoint to those of its model, without the parts of names that a wrapper added.

    Names are taken as they are if they fill the model. Otherwise the parts that known wrappers add are removed, then
    any common prefix or part; the result that fills the model is taken, or else the one that fills most of it.

    Args:
        architecture: the model.
        names: the tensors' names in the files.
        where: the checkpoint, for errors.

    Raises:
        SoupError: two tensors fill one, or the files hold two models.
    """
    if len(names) > MOST_COPIES * len(architecture.shapes) + SPARE_TENSORS:
        what = f"the model of config.json has {len(architecture.shapes)} tensors, the files hold {len(names)}"
        raise SoupError(what, where=where, hint=SAVE)
    best = _match_names(architecture, {name: name for name in names}, names)
    whole: list[TensorMatch] = []
    for unwrapped in _unwrap_names(names, len(architecture.shapes) // LEAST) if best.missing else ():
        found = _match_names(architecture, unwrapped, names)
        if found.duplicate:
            continue
        if not found.missing and all(set(found.stored.values()) != set(one.stored.values()) for one in whole):
            whole.append(found)
        if len(found.missing) < len(best.missing):
            best = found
    if whole:
        return _choose_model(whole, where)
    if best.duplicate:
        own, first, second = map(one_line, best.duplicate)
        raise SoupError(f"two tensors of the files fill {own}: {first} and {second}", where=where, hint=SAVE)
    return best


def find_extra_layers(architecture: Architecture, names: Iterable[str]) -> list[str]:
    """The names among `names` that a model with more layers would have."""
    numberless = {DIGITS.sub("", own) for own in architecture.shapes}
    return [name for name in names if DIGITS.sub("", architecture.rename(name)[0][0]) in numberless]


def describe_gap(filling: TensorMatch, architecture: Architecture) -> str:
    """The sentence for a checkpoint that does not fill its model."""
    needed = len(architecture.shapes.keys() - architecture.optional)
    what = "this checkpoint does not fill the model that its config.json names"
    found = f"{what}: {len(filling.missing)} of {needed} tensors are missing, {join_names(filling.missing, 4)}"
    return found + (f"; the files have {join_names(filling.unused, 4)} instead" if filling.unused else "")


def _choose_model(whole: Sequence[TensorMatch], where: str) -> TensorMatch:
    """The one model in the files, which may also hold an averaged copy of it."""
    trained = [one for one in whole if not AVERAGED.search(one.wrapper)] or whole
    if len(trained) > 1:
        found = join_names([one.wrapper for one in trained], 4)
        hint = f"--state-dict-key {one_line(trained[0].wrapper.removesuffix('.'))} reads the first of them"
        raise SoupError(f"expected one model in this file, found several, under {found}", where=where, hint=hint)
    return trained[0]


def _match_names(architecture: Architecture, plain: Mapping[str, str], names: Collection[str]) -> TensorMatch:
    """The match by plain names; `plain` takes those to the names in the file."""
    stored, owns, given = dict[str, str](), dict[str, str](), dict[str, str]()
    converted, duplicate = set[str](), None
    for name, in_file in plain.items():
        (own, *others), converts = architecture.rename(name)
        if own not in architecture.shapes:
            continue
        if own in given:
            duplicate = duplicate or (own, given[own], in_file)
        stored[name], owns[name] = in_file, own
        given |= dict.fromkeys((own, *others), in_file)
        if converts:
            converted.add(name)
    missing = architecture.shapes.keys() - architecture.optional - given.keys()
    used = set(stored.values())
    lacking = tuple(own for own in architecture.shapes if own in missing)
    unused = tuple(name for name in names if name not in used)
    return TensorMatch(stored, owns, frozenset(converted), lacking, unused, _find_wrapper(stored), duplicate)


def _find_wrapper(stored: Mapping[str, str]) -> str:
    """What was removed from the names in a file: a prefix, or else parts within."""
    for name, in_file in stored.items():
        if name != in_file:
            left = name.split(".")
            inside = [part for part in in_file.split(".") if not (left and part == left[0] and left.pop(0))]
            return in_file.removesuffix(name) if in_file.endswith(name) else f"{'.'.join(inside)}."
    return ""


def _unwrap_names(names: Collection[str], least: int) -> Iterator[dict[str, str]]:
    """Plain names to try, each without one possible wrapper, most tensors first, of `least` tensors at least."""
    parts = {name: [part for part in name.split(".") if part not in WRAPPERS] for name in names}
    inner = {".".join(left): name for name, left in parts.items()}
    if len(inner) == len(parts) and inner.keys() != parts.keys():
        yield inner
    counts: Counter[tuple[int, tuple[str, ...]]] = Counter()
    for left in parts.values():
        counts.update((0, tuple(left[:end])) for end in range(1, min(DEEPEST, len(left) - 1) + 1))
        counts.update((at, (left[at],)) for at in range(1, min(DEEPEST, len(left) - 1)))
    for (at, taken), count in counts.most_common():
        if count < least:
            return
        # A number is a layer, or a place in a Sequential, not a wrapper.
        if not any(part.isdigit() for part in taken):
            end = at + len(taken)
            yield {
                ".".join((*left[:at], *left[end:])): name
                for name, left in parts.items()
                if tuple(left[at:end]) == taken and len(left) > end
            }
