"""Which tensor of a checkpoint fills which tensor of its model, whatever names its files give them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from hfsoup.checkpoints.architecture import Architecture
from hfsoup.utils.errors import SoupError
from hfsoup.utils.text import join_names, one_line

# What frameworks put around a module, by the part of a tensor's name that comes of it.
WRAPPERS = ("module", "_orig_mod", "_forward_module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
AVERAGED = re.compile(r"(^|[._])(ema|swa|averaged|teacher|shadow)[._]", re.IGNORECASE)
"""Parts of names under which a training script holds a second copy of its model."""
DEEPEST, LEAST = 4, 4
SAVE = "save the model alone: model.save_pretrained(FOLDER)"
# A file may hold copies and states beside its model, but not many times the model.
MOST_COPIES, SPARE_TENSORS = 16, 256
DIGITS = re.compile(r"\d+")


@dataclass(frozen=True)
class TensorMatch:
    """The tensors of a checkpoint by what they fill.

    `stored` takes a name that transformers loads to the name in the file, which a wrapper may have made longer, and
    `owns` the same name to the model's own; `converted` are those that it joins or splits on the way. `missing` are the
    model's own names of what nothing fills, `unused` the names in the file of what fills nothing. `wrapper` is what was
    taken out of the names; `duplicate` is a tensor of the model that two fill, with their names in the file.
    """

    stored: Mapping[str, str]
    owns: Mapping[str, str]
    converted: frozenset[str]
    missing: tuple[str, ...]
    unused: tuple[str, ...]
    wrapper: str = ""
    duplicate: tuple[str, str, str] | None = None


def match_tensors(architecture: Architecture, names: Collection[str], *, where: str) -> TensorMatch:
    """See what the tensors of a checkpoint fill, without the names of a wrapper around the model.

    Names are taken as they are where they fill the model. Otherwise what wrappers are known to add is taken out, then
    one beginning or one part that tensors have in common; that which fills the model counts, or else fills most of it.

    Args:
        architecture: the model.
        names: the tensors' names in the files.
        where: the checkpoint, for errors.

    Raises:
        SoupError: two tensors fill one, or two models stand in the files.
    """
    if len(names) > MOST_COPIES * len(architecture.shapes) + SPARE_TENSORS:
        what = f"the files hold {len(names)} tensors, and the model of config.json has {len(architecture.shapes)}"
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
        raise SoupError(f"two tensors are the model's {own}: {first} and {second}", where=where, hint=SAVE)
    return best


def find_extra_layers(architecture: Architecture, names: Iterable[str]) -> list[str]:
    """Those of the tensors that fill nothing which would fill a model with more layers."""
    numberless = {DIGITS.sub("", own) for own in architecture.shapes}
    return [name for name in names if DIGITS.sub("", architecture.rename(name)[0][0]) in numberless]


def describe_gap(filling: TensorMatch, architecture: Architecture) -> str:
    """What a checkpoint lacks, in words."""
    needed = len(architecture.shapes.keys() - architecture.optional)
    what = "this checkpoint does not fill the model that its config.json names"
    found = f"{what}: {len(filling.missing)} of {needed} tensors are missing, {join_names(filling.missing, 4)}"
    return found + (f"; the files have {join_names(filling.unused, 4)} instead" if filling.unused else "")


def _choose_model(whole: Sequence[TensorMatch], where: str) -> TensorMatch:
    """The one model in a file, which may hold a copy of averaged weights beside it."""
    trained = [one for one in whole if not AVERAGED.search(one.wrapper)] or whole
    if len(trained) > 1:
        found = join_names([one.wrapper for one in trained], 4)
        hint = f"--state-dict-key {one_line(trained[0].wrapper.removesuffix('.'))} takes the first of them"
        raise SoupError(f"several models stand in this file, under {found}", where=where, hint=hint)
    return trained[0]


def _match_names(architecture: Architecture, plain: Mapping[str, str], names: Collection[str]) -> TensorMatch:
    """What tensors fill under other names; `plain` takes those to the names in the file."""
    stored, owns, given = dict[str, str](), dict[str, str](), dict[str, str]()
    converted, doubled = set[str](), None
    for name, in_file in plain.items():
        (own, *others), converts = architecture.rename(name)
        if own not in architecture.shapes:
            continue
        if own in given:
            doubled = doubled or (own, given[own], in_file)
        stored[name], owns[name] = in_file, own
        given |= dict.fromkeys((own, *others), in_file)
        if converts:
            converted.add(name)
    missing = architecture.shapes.keys() - architecture.optional - given.keys()
    used = set(stored.values())
    return TensorMatch(
        stored,
        owns,
        frozenset(converted),
        tuple(own for own in architecture.shapes if own in missing),
        tuple(name for name in names if name not in used),
        _find_wrapper(stored),
        doubled,
    )


def _find_wrapper(stored: Mapping[str, str]) -> str:
    """What the names in a file have and those that load have not: a beginning, or else the parts within."""
    for name, in_file in stored.items():
        if name != in_file:
            left = name.split(".")
            inside = [part for part in in_file.split(".") if not (left and part == left[0] and left.pop(0))]
            return in_file.removesuffix(name) if in_file.endswith(name) else f"{'.'.join(inside)}."
    return ""


def _unwrap_names(names: Collection[str], least: int) -> Iterator[dict[str, str]]:
    """Names without what may be a wrapper's part of them, those that leave most tensors first, and `least` of them."""
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
        # Numbers are layers, or places in a Sequential whose other members would be lost.
        if not any(part.isdigit() for part in taken):
            end = at + len(taken)
            yield {
                ".".join((*left[:at], *left[end:])): name
                for name, left in parts.items()
                if tuple(left[at:end]) == taken and len(left) > end
            }
