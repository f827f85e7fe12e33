"""What ingredients that differ settle on: the float type of each tensor, and whose image processor is the soup's."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from hfsoup.errors import SoupError, UsageError
from hfsoup.names import listed, shown
from hfsoup.refusals import FLOATS
from hfsoup.single import Checkpoint
from hfsoup.timm_config import image_settings
from hfsoup.types import TensorSpec

FLOAT_NAMES = {stored: name for name, stored in FLOATS.items()}


def named(found: Sequence[Checkpoint], given: str) -> int:
    """Which ingredient `given` names: as it is shown, by its whole commit, or by its folder."""
    name, _, revision = given.partition("@")
    for i, source in enumerate(one.ingredient.source for one in found):
        pinned = bool(revision and source.revision) and name == source.id and str(source.revision).startswith(revision)
        local = source.folder is not None and Path(given).expanduser().resolve() == source.folder.resolve()
        if pinned or local or given in (source.id, str(source)):
            if found[i].processor is None:
                raise SoupError("this ingredient has no image processor", where=str(source), hint="--processor-from")
            if bool(image_settings(found[i].config)) != bool(image_settings(found[0].config)):
                what = f"its image processor is not in the file that has that of {found[0].ingredient}"
                raise SoupError(what, where=str(source), hint="--processor-from an ingredient of the same layout")
            return i
    known = listed([str(one.ingredient) for one in found], 8)
    what = f"expected --processor-from to name one of the ingredients, {known}; found {shown(given)}"
    raise UsageError(what, hint=f"--processor-from {shlex.quote(found[0].ingredient.id)}")


def widest(dtypes: set[str]) -> str:
    """The smallest type that holds the values of all."""
    if len(dtypes) == 1:
        return next(iter(dtypes))
    return "F64" if "F64" in dtypes else "F32"


def widened(first: Checkpoint, found: Sequence[Checkpoint]) -> tuple[tuple[TensorSpec, ...], ...]:
    """The first one's shards with what all have, each tensor in the widest type of all."""
    shards = [
        tuple(
            replace(spec, dtype=widest({one.tensors[spec.name].dtype for one in found}))
            for spec in shard
            if all(spec.name in one.tensors for one in found)
        )
        for shard in first.shards
    ]
    return tuple(shard for shard in shards if shard)


def mixed(found: Sequence[Checkpoint]) -> tuple[str, ...]:
    """The types among which tensors of one name differ."""
    groups = [{one.tensors[name].dtype for one in found if name in one.tensors} for name in found[0].tensors]
    return tuple(sorted({dtype for group in groups if len(group) > 1 for dtype in group}))
