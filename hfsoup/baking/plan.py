"""The plan of a bake, for --dry-run: what it would pull, evaluate, write and push."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from math import prod
from typing import Any

from rich.text import Text

from hfsoup.baking.gather import inspect_dataset, resolve_ingredients
from hfsoup.baking.requirements import (
    CALIBRATION,
    check_output,
    check_request,
    count_members_in_memory,
    may_extrapolate,
    mixes_base,
    needs_base,
    needs_calibration,
)
from hfsoup.baking.resources import DiskNeed, estimate_memory, list_disk_needs, require_disk
from hfsoup.baking.workload import Workload, estimate_workload
from hfsoup.checkpoints.inspection import read_class_names
from hfsoup.checkpoints.types import Source
from hfsoup.data.preview import DatasetPreview
from hfsoup.data.tasks import task_of
from hfsoup.hub.notices import listening
from hfsoup.ingredients.find import find_base, require_several
from hfsoup.ingredients.headers import Outline, peek_processor, read_outline
from hfsoup.ingredients.pull import count_bytes, include_bases
from hfsoup.options.options import Options
from hfsoup.recipes import RECIPES
from hfsoup.reports.summary import Row, replace_unprintable
from hfsoup.utils.cache import cache_root
from hfsoup.utils.errors import SoupError
from hfsoup.utils.progress import Watch
from hfsoup.utils.text import format_count, format_duration, format_size


@dataclass(frozen=True)
class Download:
    """A repository to pull: `size` bytes are needed of it, of which `cached` are on this disk.

    Images that an earlier bake prepared count as cached.
    """

    id: str
    revision: str | None
    size: int
    cached: int


@dataclass(frozen=True)
class Plan:
    """What a bake would do.

    `extrapolate` says that the soup is drawn past the mean if a base is found. `bases` are those of adapters and of
    --base; `memory` is what it takes at least, in bytes, None if no header says.
    """

    recipe: str
    merge: str
    extrapolate: bool
    ingredients: tuple[Download, ...]
    bases: tuple[Download, ...]
    dataset: Download | None
    work: Workload | None
    memory: int | None
    memory_free: int
    disk: tuple[DiskNeed, ...]
    output: str | None
    push: dict[str, Any] | None

    @property
    def to_pull(self) -> int:
        """Bytes that are not cached."""
        pulled = (*self.ingredients, *self.bases, *([self.dataset] if self.dataset else []))
        return sum(h.size - h.cached for h in pulled)

    def to_json(self) -> dict[str, Any]:
        """The object that `hfsoup bake --dry-run --json` writes."""
        disk = [{"for": n.purpose, "folder": str(n.folder), "bytes": n.size, "free": n.free} for n in self.disk]
        return {
            "dry_run": True,
            "recipe": self.recipe,
            "merge": self.merge,
            "extrapolate": self.extrapolate,
            "ingredients": [asdict(h) for h in self.ingredients],
            "bases": [asdict(h) for h in self.bases],
            "dataset": self.dataset and asdict(self.dataset),
            "to_pull": self.to_pull,
            "work": self.work and asdict(self.work),
            "memory": {"bytes": self.memory, "free": self.memory_free},
            "disk": disk,
            "output": self.output,
            "push": self.push,
        }


def plan_bake(patterns: tuple[str, ...], options: Options, watch: Watch | None = None) -> Plan:
    """Plan a bake without running it: nothing is cached, written or pushed.

    Args:
        patterns: as for `bake`.
        options: as for `bake`.
        watch: is shown the stages.

    Raises:
        SoupError: what a bake would refuse before its first download, such as a disk that is too small.
    """
    from psutil import virtual_memory

    watch = watch or Watch()
    recipe = check_request(patterns, options)
    check_output(patterns, options)
    with listening(watch.note):
        sources = resolve_ingredients(patterns, options, watch, keep=False)
        given = (find_base(options.base, keep=False),) if options.base else ()
        require_several(sources, mixes_base(options))
        if needs_base(options) and not given:
            watch.note("the base is the one that the ingredients' cards name; its size is not counted here")
        elif may_extrapolate(options) and not given:
            watch.note("if the ingredients' cards name a base, it is pulled too; its size is not counted here")
        with watch.stage("Reading headers") as stage:
            first = read_outline(sources[0])
            stage.done(f"Read config and headers of {sources[0]}")
        found = inspect_dataset(options, sources[0], watch)
        work = estimate_workload(found, options, len(sources), first) if found else None
        data = _plan_dataset(found, options, sources[0], first) if found else None
        bases = tuple(source for source in include_bases((*sources, *given)) if source not in sources)
        disk = tuple(_list_disk_needs((*sources, *given), options, first, data, work))
        require_disk(disk)
        memory = estimate_memory(first, options, count_members_in_memory(options, len(sources)))
        return Plan(
            recipe.name, options.merge, may_extrapolate(options), _list_downloads(sources), _list_downloads(bases),
            data, work, memory, virtual_memory().available, disk, options.output, _plan_push(options),
        )  # fmt: skip


def _list_downloads(sources: Sequence[Source]) -> tuple[Download, ...]:
    return tuple(Download(source.id, source.revision, *count_bytes(source)) for source in sources)


def _plan_dataset(found: DatasetPreview, options: Options, source: Source, first: Outline) -> Download | None:
    """What would be pulled of the dataset; None if that is not known before."""
    if found.parts is None:
        return None
    looks = needs_calibration(options, first.has_batch_norm is not False) or options.distill is not None
    names = {found.selection, found.test, found.calibration if looks else None}
    parts = {name: part for name, part in found.parts.items() if name in names}
    size, held = (sum(p.size for p in parts.values()), sum(p.held for p in parts.values()))
    if held < size:
        ready = _find_prepared_splits(options, source, first)
        held = sum(p.size if name in ready else p.held for name, p in parts.items())
    return Download(found.id, found.revision, size, held)


def _find_prepared_splits(options: Options, source: Source, first: Outline) -> frozenset[str]:
    """The splits whose images an earlier bake prepared for these models; none if that is not known before.

    Distillation and corruptions read the files again, and --processor-from is resolved only once models are checked.
    """
    from hfsoup.data.images import find_prepared_splits

    if (
        source.base
        or options.processor_from
        or options.distill
        or options.shifts
        or not any(cache_root().glob("images/*"))
    ):
        return frozenset()
    try:
        processor = peek_processor(source)
        classes = read_class_names(first.config, where=str(source))
    except SoupError:
        return frozenset()
    calibrate = CALIBRATION if needs_calibration(options, first.has_batch_norm is not False) else 0
    learn = RECIPES.get(options.chosen_recipe).epochs > 0
    return find_prepared_splits(
        options.make_request(task_of(first.config)), processor, classes, calibrate=calibrate, learn=learn
    )


def _list_disk_needs(
    sources: Sequence[Source], options: Options, first: Outline, data: Download | None, work: Workload | None
) -> list[DiskNeed]:
    """The disk that a bake needs at least, with what is known of the dataset and of prepared images."""
    found = list_disk_needs(sources, options)
    if data:
        found.append(DiskNeed("the dataset", found[0].folder, data.size - data.cached))
    if work and first.shape:
        kinds = (work.selection, work.test, work.calibration or work.shown, work.learning, work.unlabelled)
        images = sum(n or 0 for n in kinds)
        images += (work.test or 0) if options.shifts else 0
        found.append(DiskNeed("prepared images", cache_root() / "images", images * 4 * prod(first.shape)))
    return found


def _plan_push(options: Options) -> dict[str, Any] | None:
    """The repository to push to, and whether it exists."""
    from huggingface_hub.errors import RepositoryNotFoundError

    from hfsoup.hub.client import expect_answer, hub_api

    if options.push is None:
        return None
    with expect_answer(options.push):
        try:
            exists = bool(hub_api().model_info(options.push).id)
        except RepositoryNotFoundError:
            exists = False
    how = {"private": options.private, "create_pr": options.create_pr, "revision": options.revision}
    return {"repo": options.push, "exists": exists, **how}


def describe_plan(plan: Plan) -> Iterator[Row]:
    """The plan as lines of text, each with its label."""
    further = ", extrapolated if a base is found" if plan.extrapolate else ""
    yield "recipe", replace_unprintable(f"{plan.recipe}, merge {plan.merge}{further}")
    unknown = ", plus the dataset, whose size is not known yet" if plan.work and not plan.dataset else ""
    yield "pull", Text(f"{format_size(plan.to_pull)}{unknown}")
    for need in filter(lambda need: need.size, plan.disk):
        text = f"{format_size(need.size)} for {need.purpose}, {format_size(need.free)} free in "
        yield "disk", Text.assemble(text, replace_unprintable(need.folder))
    if plan.memory is None:
        yield "memory", Text("not known before the weights are pulled: pickles have no header")
    elif plan.memory:
        held = "all ingredients at once" if plan.work and plan.work.learning else "weights"
        activations = f"{held} and one batch, plus activations; {format_size(plan.memory_free)} free"
        yield "memory", Text(f"at least {format_size(plan.memory)}: {activations}")
    else:
        yield "memory", Text(f"a few blocks of tensors at a time; {format_size(plan.memory_free)} free")
    yield from _describe_workload(plan.work) if plan.work else [("evaluate", Text("nothing: there is no dataset"))]
    if plan.output:
        yield "write", replace_unprintable(plan.output)
    yield "push", _describe_push(plan)
    dataset = "; the dataset's images and labels" if plan.dataset else ""
    yield "not checked", Text(f"whether the ingredients fit together, see hfsoup check{dataset}")
    yield "done", Text("nothing was pulled, written or pushed")


def _describe_workload(work: Workload) -> Iterator[Row]:
    if work.estimated is not None:
        yield "estimate", Text(f"importance of weights, on {format_count(work.estimated, 'image')} without labels")
    if work.evaluations is not None:
        passes = f", {format_count(work.images, 'image')} evaluated" if work.images is not None else ""
        yield "evaluate", Text(f"at most {format_count(work.evaluations, 'candidate')}{passes}")
    if work.selection is not None and work.test is not None:
        norms = f", {format_count(work.calibration, 'image')} for batch norms" if work.calibration else ""
        yield "images", Text(f"{work.selection:,} for selection, {work.test:,} for test{norms}")
    if work.learning:
        yield "learn", Text(f"{work.epochs} epochs over {work.learning:,} more images, on one thread")
    if work.training is not None and work.unlabelled is not None:
        passes = f"at most {format_count(work.training, 'image')} through ingredients and network"
        yield (
            "distill",
            Text(f"on {format_count(work.unlabelled, 'image')} without labels, {passes}; not in the time below"),
        )
    if work.seconds is not None:
        yield "time", Text(f"at most about {format_duration(work.seconds)} to evaluate, at the pace of an earlier bake")
    else:
        yield "time", Text(f"not known: {work.unknown}")


def _describe_push(plan: Plan) -> Text:
    push = plan.push
    if push is None:
        return Text("nowhere")
    how = "a pull request to " if push["create_pr"] else "" if push["exists"] else "a new repository, "
    branch = f", branch {push['revision']}" if push["revision"] else ""
    return Text.assemble(
        how, replace_unprintable(push["repo"]), replace_unprintable(branch), ", private" if push["private"] else ""
    )
