"""A bake before it costs anything: what would be pulled, scored, written and pushed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from math import prod
from typing import Any

from rich.text import Text

from hfsoup.baking.distill import limit_training_images
from hfsoup.baking.evidence import LINE_STEPS
from hfsoup.baking.gather import inspect_dataset, resolve_ingredients
from hfsoup.baking.requirements import (
    CALIBRATION,
    check_output,
    check_request,
    count_members_in_memory,
    needs_base,
    needs_calibration,
    needs_images,
)
from hfsoup.baking.resources import DiskNeed, estimate_memory, list_disk_needs, require_disk
from hfsoup.baking.shifts import count_test_images
from hfsoup.checkpoints.inspection import read_class_names
from hfsoup.checkpoints.types import Source
from hfsoup.data.preview import DatasetPreview
from hfsoup.data.tasks import task_of
from hfsoup.evaluation.journal import read_pace
from hfsoup.hub.notices import listening
from hfsoup.ingredients.find import find_base, require_several
from hfsoup.ingredients.headers import Outline, peek_processor, read_outline
from hfsoup.ingredients.pull import count_bytes, include_bases
from hfsoup.networks.distillation.result import count_forwarded
from hfsoup.options.options import Options
from hfsoup.recipes import RECIPES, RecipeEntry
from hfsoup.reports.summary import Row, replace_unprintable
from hfsoup.utils.cache import cache_root
from hfsoup.utils.errors import SoupError
from hfsoup.utils.progress import Watch
from hfsoup.utils.text import format_count, format_duration, format_size


@dataclass(frozen=True)
class Download:
    """A thing to be pulled: all bytes that are needed of it, and those on this disk already.

    What was made into prepared images by an earlier bake is not pulled for them again, and counts as here.
    """

    id: str
    revision: str | None
    size: int
    cached: int


@dataclass(frozen=True)
class Workload:
    """What scoring takes at most. `images` are those to forward; `seconds` stands on an earlier bake's pace.

    Where a merge asks for it every ingredient is `shown` images before that, which are `estimated` all together.
    `learning` images are gone over `epochs` times, forward and back, which is in `images` and not in `seconds`.
    `unlabelled` are those that a network is trained on, and `training` how many its training forwards, by ingredients
    and network; None where nothing is distilled or that cannot be told.
    """

    selection: int | None
    test: int | None
    calibration: int | None
    evaluations: int | None
    images: int | None
    seconds: float | None
    unknown: str
    shown: int | None = None
    estimated: int | None = None
    learning: int | None = None
    epochs: int = 0
    unlabelled: int | None = None
    training: int | None = None


@dataclass(frozen=True)
class Plan:
    """What a bake would do.

    `bases` are those of adapters, and the one that is given; `memory` is the least that it takes, in bytes, None where
    no header tells.
    """

    recipe: str
    merge: str
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
        """Bytes that are not here yet."""
        pulled = (*self.ingredients, *self.bases, *([self.dataset] if self.dataset else []))
        return sum(h.size - h.cached for h in pulled)

    def to_json(self) -> dict[str, Any]:
        """The object that `hfsoup bake --dry-run --json` writes."""
        disk = [{"for": n.purpose, "folder": str(n.folder), "bytes": n.size, "free": n.free} for n in self.disk]
        return {
            "dry_run": True,
            "recipe": self.recipe,
            "merge": self.merge,
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
    """Look at everything a bake would use, and use none of it: nothing is kept, written or pushed.

    Args:
        patterns: as for `bake`.
        options: as for `bake`.
        watch: told of the stages.

    Raises:
        SoupError: what a bake would refuse before its first download, a disk that is too small included.
    """
    from psutil import virtual_memory

    watch = watch or Watch()
    recipe = check_request(patterns, options)
    check_output(patterns, options)
    with listening(watch.note):
        sources = resolve_ingredients(patterns, options, watch, keep=False)
        given = (find_base(options.base, keep=False),) if options.base else ()
        require_several(sources, recipe.needs_base)
        if needs_base(options) and not given:
            watch.note("the base is the one that the ingredients' cards name; it is not counted here")
        with watch.stage("Reading headers") as stage:
            first = read_outline(sources[0])
            stage.done(f"Read config and headers of {sources[0]}")
        found = inspect_dataset(options, sources[0], watch)
        work = (
            _add_distillation(_estimate_workload(recipe, sources, options, found, first), sources, options, found)
            if found
            else None
        )
        data = _plan_dataset(found, options, sources[0], first) if found else None
        bases = tuple(source for source in include_bases((*sources, *given)) if source not in sources)
        disk = tuple(_list_disk_needs((*sources, *given), options, first, data, work))
        require_disk(disk)
        memory = estimate_memory(first, options, count_members_in_memory(options, len(sources)))
        return Plan(
            recipe.name, options.merge, _list_downloads(sources), _list_downloads(bases), data, work,
            memory, virtual_memory().available, disk, options.output, _plan_push(options),
        )  # fmt: skip


def _list_downloads(sources: Sequence[Source]) -> tuple[Download, ...]:
    return tuple(Download(source.id, source.revision, *count_bytes(source)) for source in sources)


def _name_splits(found: DatasetPreview, *, calibrate: bool) -> dict[str, str | None]:
    """The splits that select, report and settle batch norms."""
    return {"selection": found.selection, "test": found.test, "calibration": found.calibration if calibrate else None}


def _plan_dataset(found: DatasetPreview, options: Options, source: Source, first: Outline) -> Download | None:
    """What of the dataset is pulled; None where that is not known beforehand."""
    if found.parts is None:
        return None
    looks = needs_calibration(options, first.has_batch_norm is not False) or options.distill is not None
    names = _name_splits(found, calibrate=looks)
    parts = {n: found.parts[n] for n in sorted({n for n in names.values() if n}) if n in found.parts}
    size, held = (sum(p.size for p in parts.values()), sum(p.held for p in parts.values()))
    if held < size:
        ready = _find_prepared_splits(options, source, first)
        held = sum(p.size if name in ready else p.held for name, p in parts.items())
    return Download(found.id, found.revision, size, held)


def _find_prepared_splits(options: Options, source: Source, first: Outline) -> frozenset[str]:
    """The splits whose images are prepared for these models already; none where that cannot be told beforehand.

    A distillation and corruptions read the files again, and only a check settles on the processor of another model.
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


def _estimate_workload(
    recipe: RecipeEntry, sources: Sequence[Source], options: Options, found: DatasetPreview, first: Outline
) -> Workload:
    """Evaluations and images at most: every mix that the recipe may ask for, then soup and best on the test split."""
    shown = _count_images(found, options, calibrate=True)[2] if needs_images(options) else None
    work = _estimate_scoring(recipe, len(sources), options, found, first)
    return work if shown is None else replace(work, shown=shown, estimated=len(sources) * shown)


def _estimate_scoring(recipe: RecipeEntry, k: int, options: Options, found: DatasetPreview, first: Outline) -> Workload:
    """The same without what a merge is told."""
    most = recipe.count_evaluations(k, options.recipe_parameters())
    norms = first.has_batch_norm is not False and options.bn != "average"
    selection, test, calibration = _count_images(found, options, calibrate=norms)
    taught: dict[str, Any] = {}
    if recipe.epochs and selection is not None:
        taught = {"learning": selection - selection // 2, "epochs": recipe.epochs}
        selection //= 2
    if selection is None or test is None or most is None:
        known_by = "how many images there are" if most is not None else f"how far {recipe.name} searches"
        return Workload(
            selection, test, calibration, most, None, None, f"{known_by} cannot be told beforehand", **taught
        )
    passes = 2 if norms and options.bn == "auto" else 1
    images = selection * (min(k, most) + passes * max(most - k, 0)) + count_test_images(options, test, k)
    if options.figures:
        # Every ingredient and candidate on the test split, and the plain mean of all on both.
        images += test * max(k, most) + passes * selection
    if options.figure_line:
        images += LINE_STEPS * (passes * selection + test)
    if options.eval:
        unknown = "the datasets of --eval are not looked at beforehand"
        return Workload(selection, test, calibration, most, None, None, unknown, **taught)
    pace = read_pace(first.config, options.pace_settings)
    seconds = None if pace is None else images / pace
    unknown = "this architecture was not scored here before" if pace is None else ""
    images += recipe.epochs * taught.get("learning", 0)
    return Workload(selection, test, calibration, most, images, seconds, unknown, **taught)


def _add_distillation(work: Workload, sources: Sequence[Source], options: Options, found: DatasetPreview) -> Workload:
    """The work, with what a distillation adds: images are shown to the ingredients and to the network."""
    if options.distill is None or found.parts is None:
        return work
    names = _name_splits(found, calibrate=True)
    count = (
        work.selection if names["calibration"] == names["selection"] else found.parts[str(names["calibration"])].images
    )
    if count is None:
        return work
    seen = min(count, limit_training_images(options))
    return replace(work, unlabelled=seen, training=count_forwarded(seen, options.distill, len(sources)))


def _count_images(
    found: DatasetPreview, options: Options, *, calibrate: bool
) -> tuple[int | None, int | None, int | None]:
    """Images that select, report and settle; None where they cannot be told."""
    if found.parts is None:
        return None, None, None
    names = _name_splits(found, calibrate=calibrate)
    counts = {n: found.parts[n].images for n in names.values() if n in found.parts}
    first = counts.get(str(names["selection"]))
    second = counts.get(str(names["test"])) if names["test"] else first
    if names["test"] is None and first is not None:
        first, second = first - first // 2, first // 2
    limits = [n if options.limit is None or n is None else min(n, options.limit) for n in (first, second)]
    third = counts.get(str(names["calibration"])) if calibrate else None
    return limits[0], limits[1], third if third is None else min(third, CALIBRATION)


def _list_disk_needs(
    sources: Sequence[Source], options: Options, first: Outline, data: Download | None, work: Workload | None
) -> list[DiskNeed]:
    """As a bake demands at least, with what is known of the dataset and of prepared images."""
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
    """Where the soup would go, and whether that is there already."""
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
    """What the bake would take, each with a word in front."""
    yield "recipe", replace_unprintable(f"{plan.recipe}, merge {plan.merge}")
    unknown = ", and the dataset, whose size is not known before" if plan.work and not plan.dataset else ""
    yield "pull", Text(f"{format_size(plan.to_pull)}{unknown}")
    for need in filter(lambda need: need.size, plan.disk):
        text = f"{format_size(need.size)} for {need.purpose}, {format_size(need.free)} free in "
        yield "disk", Text.assemble(text, replace_unprintable(need.folder))
    if plan.memory is None:
        yield "memory", Text("not known before the weights are here: pickles have no header")
    elif plan.memory:
        held = "all ingredients at once" if plan.work and plan.work.learning else "weights"
        activations = f"{held} and one batch; activations come on top; {format_size(plan.memory_free)} free"
        yield "memory", Text(f"at least {format_size(plan.memory)}: {activations}")
    else:
        yield "memory", Text(f"a few blocks of tensors at a time; {format_size(plan.memory_free)} free")
    yield from _describe_workload(plan.work) if plan.work else [("score", Text("nothing: there is no dataset"))]
    if plan.output:
        yield "write", replace_unprintable(plan.output)
    yield "push", _describe_push(plan)
    dataset = "; the dataset's images and labels" if plan.dataset else ""
    yield "not seen", Text(f"whether the ingredients fit together, for that: hfsoup check{dataset}")
    yield "done", Text("nothing was pulled, written or pushed")


def _describe_workload(work: Workload) -> Iterator[Row]:
    if work.estimated is not None:
        yield "estimate", Text(f"{format_count(work.estimated, 'image')} shown to ingredients for the merge, no labels")
    if work.evaluations is not None:
        passes = f", at most {format_count(work.images, 'image')} forwarded" if work.images is not None else ""
        yield "score", Text(f"at most {format_count(work.evaluations, 'candidate')}{passes}")
    if work.selection is not None and work.test is not None:
        settle = f", {format_count(work.calibration, 'image')} settle batch norms" if work.calibration else ""
        yield "images", Text(f"{work.selection:,} select, {work.test:,} report{settle}")
    if work.learning:
        yield "learn", Text(f"{work.epochs} times over {work.learning:,} more images, forward and back, on one thread")
    if work.training is not None and work.unlabelled is not None:
        shown = f"{format_count(work.training, 'image')} forwarded by ingredients and network"
        shown += "; its time is not in what follows"
        yield "train", Text(f"on {format_count(work.unlabelled, 'image')} without labels, at most {shown}")
    if work.seconds is not None:
        yield (
            "time",
            Text(f"at most about {format_duration(work.seconds)} to score, at the pace of an earlier bake here"),
        )
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
