"""The plan of a sweep, for --dry-run: what it would pull, train, write and push."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from math import ceil
from typing import Any

from rich.text import Text

from hfsoup.baking.disk import DiskNeed, Download, require_disk
from hfsoup.baking.sweep import Place, Sweep, find_places, pin_commits
from hfsoup.data.training import measure_training_split
from hfsoup.hub.notices import listening
from hfsoup.ingredients.find import find_base
from hfsoup.ingredients.headers import read_outline
from hfsoup.ingredients.pull import count_bytes
from hfsoup.networks.fine_tuning.grid import Run
from hfsoup.reports.summary import Row, replace_unprintable
from hfsoup.utils.progress import Watch
from hfsoup.utils.text import format_count, format_size

FLOAT32 = 4
"""Bytes of a weight as a run is written."""


@dataclass(frozen=True)
class SweepPlan:
    """What a sweep would do.

    `places` are all runs, with those that are there already. `images` are those of the split to train on, None where
    unknown; `dataset` is its files. `run_size` is the bytes of one run without what a new head adds, None if no header
    says.
    """

    base: Download
    dataset: Download | None
    images: int | None
    places: tuple[Place, ...]
    run_size: int | None
    disk: tuple[DiskNeed, ...]
    batch_size: int

    @property
    def missing(self) -> tuple[Place, ...]:
        """The runs that are not there yet."""
        return tuple(place for place in self.places if not place.record)

    @property
    def to_pull(self) -> int:
        """Bytes that are not cached; none are needed where nothing is to be trained."""
        return sum(h.size - h.cached for h in (self.base, self.dataset) if h) if self.missing else 0

    def count_steps(self, run: Run) -> int | None:
        """The steps of a run, None where the images are not known; a last batch that is not full is dropped."""
        if self.images is None:
            return None
        batches = max(1, max(1, round(run.samples * self.images)) // self.batch_size)
        return ceil(batches * run.num_train_epochs)

    def to_json(self) -> dict[str, Any]:
        """The object that `hfsoup sweep --dry-run --json` writes."""
        runs = [
            {
                "folder": place.folder and str(place.folder), "repo": place.repo, "there": place.record is not None,
                "steps": self.count_steps(place.run), **asdict(place.run),
            }
            for place in self.places
        ]  # fmt: skip
        return {
            "dry_run": True,
            "base": asdict(self.base),
            "dataset": self.dataset and asdict(self.dataset),
            "images": self.images,
            "runs": runs,
            "to_pull": self.to_pull,
            "run_bytes": self.run_size,
            "disk": [{"for": n.purpose, "folder": str(n.folder), "bytes": n.size, "free": n.free} for n in self.disk],
        }


def plan_sweep(sweep: Sweep, watch: Watch) -> SweepPlan:
    """Plan a sweep without running it: nothing is trained, written or pushed.

    Raises:
        SoupError: what a sweep would refuse before its first download, or a disk that is too small for the runs.
    """
    with listening(watch.note):
        sweep = pin_commits(sweep, watch)
        places = tuple(find_places(sweep))
        source = find_base(sweep.base, keep=False, notify=watch.note)
        size = measure_training_split(sweep.request, sweep.train_split)
        elements = read_outline(source).elements
    run_size = elements * FLOAT32 if elements else None
    missing = [place for place in places if not place.record and place.folder]
    # The runs stand beside each other.
    folder = missing[0].folder if missing else None
    disk = (DiskNeed("the runs", folder.parent, run_size * len(missing)),) if folder and run_size else ()
    require_disk(disk)
    request = sweep.request
    dataset = Download(request.dataset, request.revision, size.size, size.held) if size else None
    base = Download(source.id, source.revision, *count_bytes(source))
    return SweepPlan(base, dataset, size.images if size else None, places, run_size, disk, sweep.batch_size)


def describe_sweep(plan: SweepPlan) -> Iterator[Row]:
    """The plan as lines of text, each with its label."""
    unknown = "" if plan.dataset or not plan.missing else ", plus the dataset, whose size is not known yet"
    yield "base", replace_unprintable(plan.base.id)
    yield "pull", Text(f"{format_size(plan.to_pull)}{unknown}")
    if plan.images is not None:
        yield "images", Text(f"{plan.images:,} to train on, in steps of {plan.batch_size}")
    for place in plan.places:
        state = "there already" if place.record else _describe_run(plan, place.run)
        yield f"run {place.number}", Text.assemble(replace_unprintable(str(place)), f": {state}")
    for need in plan.disk:
        text = f"at least {format_size(need.size)} for {need.purpose}, {format_size(need.free)} free in "
        yield "disk", Text.assemble(text, replace_unprintable(need.folder))
    yield "train", Text(f"{format_count(len(plan.missing), 'run')}{_describe_total(plan)}; the time is not known")
    pushed = sum(place.repo is not None and not place.pushed for place in plan.places)
    yield "push", Text(format_count(pushed, "run") if pushed else "nowhere")
    yield "not checked", Text("the images and their labels, and that the base fits into memory")
    yield "done", Text("nothing was trained, written or pushed")


def _describe_run(plan: SweepPlan, run: Run) -> str:
    """The hyper-parameters of a run, without those that do nothing."""
    parts = [
        f"learning rate {run.learning_rate:g} ({run.lr_scheduler_type})",
        f"weight decay {run.weight_decay:g}",
        f"label smoothing {run.label_smoothing_factor:g}" if run.label_smoothing_factor else "",
        f"mixup {run.mixup:g}" if run.mixup else "",
        "augmented" if run.augment else "",
        f"{run.samples:.0%} of the images" if run.samples < 1 else "",
        f"{run.num_train_epochs:g} epoch{'' if run.num_train_epochs == 1 else 's'}",
        f"seed {run.seed}",
    ]
    steps = plan.count_steps(run)
    return ", ".join([*filter(None, parts), *([] if steps is None else [format_count(steps, "step")])])


def _describe_total(plan: SweepPlan) -> str:
    steps = [plan.count_steps(place.run) for place in plan.missing]
    return "" if None in steps else f", {format_count(sum(filter(None, steps)), 'step')}"
