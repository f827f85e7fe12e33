"""A dry run on the screen."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from hfsoup.again import page
from hfsoup.cli.closing import Row, link, plain
from hfsoup.human import counted, duration, size
from hfsoup.types import Source

if TYPE_CHECKING:
    from hfsoup.plan import Plan, Work


def planned(plan: Plan) -> Table:
    """Everything that would be pulled, with what is here already."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("would use", no_wrap=True, overflow="ellipsis")
    for title in ("size", "here already"):
        table.add_column(title, justify="right", no_wrap=True)
    for holding in (*plan.ingredients, *plan.bases):
        source = Source(holding.id, holding.id, holding.revision)
        name = link(plain(source), page(source))
        table.add_row(name, size(holding.size), "all" if holding.cached == holding.size else size(holding.cached))
    if plan.dataset:
        data = plan.dataset
        table.add_row(plain(data.id), size(data.size), "all" if data.cached == data.size else size(data.cached))
    return table


def costs(plan: Plan) -> Iterator[Row]:
    """What the bake would take, each with a word in front."""
    yield "recipe", plain(f"{plan.recipe}, merge {plan.merge}")
    unknown = ", and the dataset, whose size is not known before" if plan.work and not plan.dataset else ""
    yield "pull", Text(f"{size(plan.to_pull)}{unknown}")
    for need in filter(lambda need: need.size, plan.disk):
        text = f"{size(need.size)} for {need.purpose}, {size(need.free)} free in "
        yield "disk", Text.assemble(text, plain(need.folder))
    if plan.memory is None:
        yield "memory", Text("not known before the weights are here: pickles have no header")
    elif plan.memory:
        held = "all ingredients at once" if plan.work and plan.work.learning else "weights"
        activations = f"{held} and one batch; activations come on top; {size(plan.memory_free)} free"
        yield "memory", Text(f"at least {size(plan.memory)}: {activations}")
    else:
        yield "memory", Text(f"a few blocks of tensors at a time; {size(plan.memory_free)} free")
    yield from _work(plan.work) if plan.work else [("score", Text("nothing: there is no dataset"))]
    if plan.output:
        yield "write", plain(plan.output)
    yield "push", _push(plan)
    dataset = "; the dataset's images and labels" if plan.dataset else ""
    yield "not seen", Text(f"whether the ingredients fit together, for that: hfsoup check{dataset}")
    yield "done", Text("nothing was pulled, written or pushed")


def _work(work: Work) -> Iterator[Row]:
    if work.estimated is not None:
        yield "estimate", Text(f"{counted(work.estimated, 'image')} shown to ingredients for the merge, no labels")
    if work.evaluations is not None:
        passes = f", at most {counted(work.images, 'image')} forwarded" if work.images is not None else ""
        yield "score", Text(f"at most {counted(work.evaluations, 'candidate')}{passes}")
    if work.selection is not None and work.test is not None:
        settle = f", {counted(work.calibration, 'image')} settle batch norms" if work.calibration else ""
        yield "images", Text(f"{work.selection:,} select, {work.test:,} report{settle}")
    if work.learning:
        yield "learn", Text(f"{work.epochs} times over {work.learning:,} more images, forward and back, on one thread")
    if work.training is not None and work.unlabelled is not None:
        shown = (
            f"{counted(work.training, 'image')} forwarded by ingredients and network; its time is not in what follows"
        )
        yield "train", Text(f"on {counted(work.unlabelled, 'image')} without labels, at most {shown}")
    if work.seconds is not None:
        yield "time", Text(f"at most about {duration(work.seconds)} to score, at the pace of an earlier bake here")
    else:
        yield "time", Text(f"not known: {work.unknown}")


def _push(plan: Plan) -> Text:
    push = plan.push
    if push is None:
        return Text("nowhere")
    how = "a pull request to " if push["create_pr"] else "" if push["exists"] else "a new repository, "
    branch = f", branch {push['revision']}" if push["revision"] else ""
    return Text.assemble(how, plain(push["repo"]), plain(branch), ", private" if push["private"] else "")
