"""States of training, sharded by the library that wrote them: where they lie, and the command that makes a model."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from hfsoup.checkpoints.types import Source
from hfsoup.utils.text import one_line

# The folder from which zero_to_fp32.py is run: those of global_step or of shards by accelerate lie in it.
DEEPSPEED = re.compile(
    r"((?:.*/)?)(?:zero_to_fp32\.py|global_step\d+(?:/.*)?|(?:[^/]+/)?(?:zero_pp_rank_.*|mp_rank_\d+_model_states\.pt))"
)
# The folder of a state of torch.distributed.checkpoint, as FSDP writes it; optimizers lie beside models.
FSDP = re.compile(r"((?:.*/)?pytorch_model_fsdp_\d+)(?:/.*)?|((?:.*/)?)__\d+_\d+\.distcp")
DEPTH = 3
"""How deep below a folder states are looked for: `checkpoint-500/pytorch_model_fsdp_0/__0_0.distcp`."""


@dataclass(frozen=True)
class TrainingState:
    """A state of training: what it is, for the end of `expected …, found …`, and a hint."""

    text: str
    hint: str


def find_training_state(names: Iterable[str]) -> TrainingState | None:
    """The state of training among files, the one that lies the least deep; None without one.

    Args:
        names: paths from the folder that hints call FOLDER.
    """
    known = sorted(names, key=lambda name: (name.count("/"), name))
    configured = {posixpath.dirname(name) for name in known if posixpath.basename(name) == "config.json"}
    for name in known:
        if found := DEEPSPEED.fullmatch(name):
            home = found[1].rstrip("/")
            place = f"FOLDER/{home}" if home else "that folder"
            hint = f"python zero_to_fp32.py . MODEL, in {place}; copy config.json and the processor into MODEL"
            return TrainingState(f"the training state of DeepSpeed: {one_line(name)}", one_line(hint))
        if (found := FSDP.fullmatch(name)) and not posixpath.basename(place := _find_place(found)).startswith("optim"):
            home = place if place in configured else posixpath.dirname(place)
            target = posixpath.join("FOLDER", home).rstrip("/")
            hint = f"accelerate merge-weights {posixpath.join('FOLDER', place).rstrip('/')} {target}"
            if home not in configured:
                hint += f"; copy config.json and the processor into {target}"
            return TrainingState(f"the training state of FSDP: {one_line(place or name)}", one_line(hint))
    return None


def _find_place(found: re.Match[str]) -> str:
    return (found[1] or found[2]).rstrip("/")


def list_nested_names(source: Source) -> list[str]:
    """The paths of a source's files from its folder; of a local one to the depth in which states lie."""
    if source.folder:
        return list_nested_paths(source.folder)
    prefix = f"{source.subfolder}/" if source.subfolder else ""
    return [file.name.removeprefix(prefix) for file in source.files if file.name.startswith(prefix)]


def list_nested_paths(folder: Path) -> list[str]:
    """The paths of files and folders below a local folder, from there, to the depth in which states lie."""
    levels = ("/".join(["*"] * depth) for depth in range(1, DEPTH + 1))
    return [path.relative_to(folder).as_posix() for level in levels for path in folder.glob(level)]
