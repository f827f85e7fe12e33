"""A Space on ZeroGPU: there is a GPU only while a decorated function runs, in a process of its own.

What it is given and what it yields is pickled, and seconds with the GPU count against the visitor's quota. So the page
pulls and decodes on the processor first, and the process with the GPU finds all of it cached.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field, replace
from functools import partial
from importlib import import_module

from hfsoup.baking.gather import gather_family
from hfsoup.baking.measure import prepare_images
from hfsoup.baking.pipeline import run_bake
from hfsoup.baking.plan import Plan
from hfsoup.baking.prefetch import Prefetcher
from hfsoup.baking.soup import Soup
from hfsoup.ui import render as show
from hfsoup.ui.form import BakeRequest
from hfsoup.ui.job import Job
from hfsoup.utils.distributed import World
from hfsoup.utils.progress import Clock, Watch

VARIABLE = "SPACES_ZERO_GPU"
SECONDS, MARGIN = 120, 15
"""The seconds that a bake asks the GPU for, and how long before their end it stops by itself."""


@dataclass(frozen=True)
class BakeState:
    """A bake with the GPU as the page shows it; `soup` is there at its end, without its images."""

    live: str
    result: str
    soup: Soup | None


Borrow = Callable[[BakeRequest], Generator[BakeState, None, None]]


@dataclass
class Borrowed:
    """A bake in the process with the GPU, which Stop ends at its next state."""

    result: Soup | None = None
    stopped: threading.Event = field(default_factory=threading.Event, repr=False)

    def stop(self) -> None:
        """Stop; cached scores are kept."""
        self.stopped.set()


def has_zero_gpu() -> bool:
    """Whether this is a Space on ZeroGPU, by the variable that such a Space has."""
    return os.environ.get(VARIABLE, "").lower() in ("1", "t", "true")


def decorate_bake() -> Borrow | None:
    """The bake that runs with the GPU of a Space on ZeroGPU; None anywhere else."""
    if not has_zero_gpu():
        return None
    decorated: Borrow = import_module("spaces").GPU(duration=SECONDS)(bake_with_gpu)
    return decorated


def bake_with_gpu(asked: BakeRequest) -> Generator[BakeState, None, None]:
    """Bake where the GPU is; closing the generator stops it."""
    work: Job[Soup | Plan] = Job(partial(_bake, asked), SECONDS - MARGIN)
    began = time.monotonic()
    for _ in work.updates():
        live, result = show.render_job(work, time.monotonic() - began, public=True)
        soup = replace(work.result, images=None) if isinstance(work.result, Soup) else None
        yield BakeState(live, result, soup)


def _bake(asked: BakeRequest, watch: Watch) -> Soup:
    return run_bake(*asked, watch)


def prepare_bake(asked: BakeRequest, watch: Watch) -> None:
    """Pull, check and decode on the processor everything that a bake reads; no device is opened."""
    patterns, options = asked
    family = gather_family(patterns, options, watch, Clock())
    if options.dataset:
        prepare_images(family, options, watch, Prefetcher(World(alone=True)))
