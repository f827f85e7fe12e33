"""Candidates: the next set's weights reach the model by one pass over the file of the ingredient that differs."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from checkpoints import checked, family, remove
from peers import bare_read, seed_step
from setting import Setting
from timing import Row, Time, Way, here, medians, row

from hfsoup.averaging.averager import Averager
from hfsoup.averaging.mix import Mix
from hfsoup.averaging.running_sum import RunningMean
from hfsoup.evaluation.candidate import Memory

SECTION = "candidates"
COUNT, HELD = 5, 3
NOTE = (
    "An update is one ingredient more in a set of three, its file seen for the first time. The plain loop: deep "
    "copy of the sum, add, divide, load_state_dict."
)


def run(setting: Setting) -> Iterator[Row]:
    """The section's rows."""
    from transformers import AutoModelForImageClassification

    home = setting.home / "candidates"
    folders = family(home, setting.large_model, COUNT)
    model = AutoModelForImageClassification.from_pretrained(folders[0])
    with Averager(checked(folders)) as averager:
        path = folders[HELD] / "model.safetensors"
        into = np.zeros(path.stat().st_size, np.uint8)
        ways: list[Way] = [
            _update(averager),
            here(partial(bare_read, path, into)),
            here(partial(_loaded, path)),
            _seed(model, folders, path),
        ]
        ours, bare, loaded, seed = medians(ways, setting.often)
    yield row(SECTION, "one update, ViT-B", "bare read of that file", (ours, bare), "1.3")
    yield row(SECTION, "one update, ViT-B", "load_file, every tensor touched", (ours, loaded), "1.3")
    yield row(SECTION, "one update, ViT-B", "a plain loop", (ours, seed))
    remove(home)


def _update(averager: Averager) -> Way:
    """One update, each time from a sum that was formed anew and is not timed."""
    specs = averager.family.tensors
    memory = Memory((s.name, averager.stored_as(s), s.shape) for s in specs)

    def run() -> Time:
        running = RunningMean(averager)
        running.average(Mix.of(tuple(range(HELD)), COUNT), memory.fill)
        return here(partial(running.average, Mix.of(tuple(range(HELD + 1)), COUNT), memory.fill))()

    return run


def _loaded(path: Path) -> float:
    from safetensors.torch import load_file

    return sum(float(tensor.sum()) for tensor in load_file(path).values())


def _seed(model: Any, folders: list[Path], path: Path) -> Way:
    from safetensors.torch import load_file

    total = {name: tensor.clone() for name, tensor in load_file(folders[0] / path.name).items()}
    for folder in folders[1:HELD]:
        for name, tensor in load_file(folder / path.name).items():
            total[name] += tensor
    return here(partial(seed_step, model, total, HELD, path))
