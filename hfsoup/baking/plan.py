"""The plan of a bake, for --dry-run: what it would pull, evaluate, write and push."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.text import Text

from hfsoup.baking.disk import DiskNeed, Download
from hfsoup.baking.gather import assess_needs, resolve_ingredients
from hfsoup.baking.memory import MemoryNeed
from hfsoup.baking.requirements import check_output, check_request, may_extrapolate, needs_base, one_is_enough
from hfsoup.baking.workload import Workload
from hfsoup.checkpoints.types import Source
from hfsoup.hub.notices import listening
from hfsoup.ingredients.find import find_base, require_several
from hfsoup.ingredients.headers import read_outline
from hfsoup.ingredients.pull import count_bytes, include_bases
from hfsoup.options.options import Options
from hfsoup.reports.summary import Row, replace_unprintable
from hfsoup.utils.memory import read_free_memory
from hfsoup.utils.progress import Watch
from hfsoup.utils.text import format_count, format_duration, format_size


@dataclass(frozen=True)
class Plan:
    """What a bake would do, here or `elsewhere`.

    `extrapolate` says that the soup is drawn past the mean if a base is found. `bases` are those of adapters and of
    --base; `memory` is what it takes at least, None if no header says.
    """

    recipe: str
    merge: str
    extrapolate: bool
    ingredients: tuple[Download, ...]
    bases: tuple[Download, ...]
    dataset: Download | None
    work: Workload | None
    memory: MemoryNeed | None
    memory_free: int
    disk: tuple[DiskNeed, ...]
    output: str | None
    push: dict[str, Any] | None
    elsewhere: bool = False

    @property
    def to_pull(self) -> int:
        """Bytes that are not cached; elsewhere none are."""
        pulled = (*self.ingredients, *self.bases, *([self.dataset] if self.dataset else []))
        return sum(h.size - (0 if self.elsewhere else h.cached) for h in pulled)

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
            "memory": {
                "for": self.memory and self.memory.purpose,
                "bytes": self.memory and self.memory.size,
                "free": self.memory_free,
            },
            "disk": disk,
            "output": self.output,
            "push": self.push,
        }


def plan_bake(
    patterns: tuple[str, ...], options: Options, watch: Watch | None = None, *, elsewhere: bool = False
) -> Plan:
    """Plan a bake without running it: nothing is cached, written or pushed.

    Args:
        patterns: as for `bake`.
        options: as for `bake`.
        watch: is shown the stages.
        elsewhere: it is for another machine, so that disk and memory of this one need not be large enough.

    Raises:
        SoupError: what a bake would refuse before its first download, such as a disk that is too small.
    """
    watch = watch or Watch()
    recipe = check_request(patterns, options)
    check_output(patterns, options)
    with listening(watch.note):
        sources = resolve_ingredients(patterns, options, watch, keep=False)
        base = find_base(options.base, keep=False) if options.base else None
        require_several(sources, one_is_enough(options))
        if needs_base(options) and not base:
            watch.note("the base is the one that the ingredients' cards name; it counts as large as an ingredient")
        elif may_extrapolate(options) and not base:
            watch.note("if the ingredients' cards name a base, it is pulled too; its size is not counted here")
        with watch.stage("Reading headers") as stage:
            first = read_outline(sources[0])
            stage.done(f"Read config and headers of {sources[0]}")
        needs = assess_needs(sources, base, options, first, watch, elsewhere=elsewhere)
        given = (base,) if base else ()
        bases = tuple(source for source in include_bases((*sources, *given)) if source not in sources)
        return Plan(
            recipe.name, options.merge, may_extrapolate(options), _list_downloads(sources), _list_downloads(bases),
            needs.data.files if needs.data else None, needs.work, needs.memory, read_free_memory(), needs.disk,
            options.output, _plan_push(options), elsewhere,
        )  # fmt: skip


def _list_downloads(sources: Sequence[Source]) -> tuple[Download, ...]:
    return tuple(Download(source.id, source.revision, *count_bytes(source)) for source in sources)


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
    for need in () if plan.elsewhere else filter(lambda need: need.size, plan.disk):
        text = f"{format_size(need.size)} for {need.purpose}, {format_size(need.free)} free in "
        yield "disk", Text.assemble(text, replace_unprintable(need.folder))
    if plan.memory is None:
        yield "memory", Text("not known before the weights are pulled: pickles have no header")
    else:
        text = f"at least {format_size(plan.memory.size)} for {plan.memory.purpose}, plus activations"
        yield "memory", Text(text if plan.elsewhere else f"{text}; {format_size(plan.memory_free)} free")
    yield from _describe_workload(plan.work) if plan.work else [("evaluate", Text("nothing: there is no dataset"))]
    if plan.output:
        yield "write", replace_unprintable(plan.output)
    yield "push", _describe_push(plan)
    dataset = "; the dataset's images and labels" if plan.dataset else ""
    yield "not checked", Text(f"whether the ingredients fit together, see hfsoup check{dataset}")
    if not plan.elsewhere:
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
        most = format_duration(work.seconds)
        yield "time", Text(f"at most about {most} to evaluate, at the pace that was measured here before")
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
