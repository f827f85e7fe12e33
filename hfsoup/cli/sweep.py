"""`hfsoup sweep`: fine-tune a family."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hfsoup.cli.app import app
from hfsoup.cli.commands import Json, Quiet, write_json
from hfsoup.utils.errors import UsageError

if TYPE_CHECKING:
    from hfsoup.data.request import Request
    from hfsoup.networks.fine_tuning.grid import Run

RUNS = 8


@app.command(epilog="Example: hfsoup sweep google/vit-base-patch16-224-in21k --dataset org/pets --push org/vit")
def sweep(
    base: Annotated[str, typer.Argument(help="the model to fine-tune: ORG/NAME, with @REVISION, or a local folder")],
    *,
    dataset: Annotated[str, typer.Option(help="as for bake: ORG/NAME, with @REVISION, or local files")],
    runs: Annotated[
        int | None, typer.Option(help=f"how many \\[{RUNS}, or all of the grid]", show_default=False)
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            "--output", "-o", help="the folder for the runs; {n} stands for a run's number \\[runs, unless --push]"
        ),
    ] = None,
    push: Annotated[str | None, typer.Option(help="push each run: org/vit makes org/vit-0, org/vit-1 …")] = None,
    private: Annotated[bool, typer.Option("--private", help="make the repositories private")] = False,
    learning_rate: Annotated[
        tuple[float, float], typer.Option(help="draw learning rates between these", rich_help_panel="Training")
    ] = (1e-5, 1e-4),
    epochs: Annotated[
        tuple[int, int], typer.Option(help="draw numbers of epochs between these", rich_help_panel="Training")
    ] = (4, 16),
    flip: Annotated[
        bool,
        typer.Option("--flip", help="augmented runs mirror images too (wrong for letters)", rich_help_panel="Training"),
    ] = False,
    grid: Annotated[
        Path | None,
        typer.Option(help="a JSON list of runs instead of drawn ones", metavar="FILE", rich_help_panel="Training"),
    ] = None,
    batch_size: Annotated[int, typer.Option(help="images per step", min=1, rich_help_panel="Training")] = 32,
    freeze: Annotated[
        list[str] | None,
        typer.Option(help="do not train parameters of this name; a glob, repeatable", rich_help_panel="Training"),
    ] = None,
    channels_last: Annotated[
        bool,
        typer.Option("--channels-last", help="a memory format for convolutions on CPUs", rich_help_panel="Training"),
    ] = False,
    seed: Annotated[
        int, typer.Option(help="of the draw and of a new head", min=0, max=1 << 31, rich_help_panel="Training")
    ] = 0,
    train_split: Annotated[str, typer.Option(help="the split to train on", rich_help_panel="Data")] = "train",
    split: Annotated[
        str | None,
        typer.Option(help="as for bake: never trained on \\[validation]", rich_help_panel="Data", show_default=False),
    ] = None,
    test_split: Annotated[
        str | None,
        typer.Option(help="as for bake: never trained on \\[test]", rich_help_panel="Data", show_default=False),
    ] = None,
    dataset_config: Annotated[str | None, typer.Option(help="as for bake", rich_help_panel="Data")] = None,
    image_column: Annotated[str | None, typer.Option(help="as for bake", rich_help_panel="Data")] = None,
    label_column: Annotated[str | None, typer.Option(help="as for bake", rich_help_panel="Data")] = None,
    skip_bad_images: Annotated[
        bool, typer.Option("--skip-bad-images", help="as for bake", rich_help_panel="Data")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="show the plan without running it")] = False,
    json_file: Json = None,
    quiet: Quiet = False,
) -> None:
    """Fine-tune one model several times, which makes ingredients.

    The runs differ in many ways; finished ones are not repeated.
    """
    from hfsoup.baking.sweep import Sweep, run_sweep
    from hfsoup.cli.screen import Screen
    from hfsoup.data.request import Request, split_revision

    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        hint = shlex.join(["hfsoup", "sweep", base, "--dataset", dataset])
        raise UsageError("a sweep runs in one process", hint=hint)
    screen, (name, revision) = Screen(quiet=quiet), split_revision(dataset)
    request = Request(
        name, dataset_config, split, test_split, image_column, label_column,
        revision=revision, skip_bad_images=skip_bad_images,
    )  # fmt: skip
    asked = Sweep(
        base, request, _plan_runs(grid, runs, seed, learning_rate, epochs),
        output=output or (None if push else "runs"), push=push, private=private, train_split=train_split,
        batch_size=batch_size, freeze=tuple(freeze or ()), flip=flip, channels_last=channels_last, seed=seed,
    )  # fmt: skip
    if dry_run:
        from hfsoup.baking.sweep_plan import plan_sweep

        plan = plan_sweep(asked, screen)
        screen.show_sweep_plan(plan)
        write_json(json_file, plan.to_json())
        return
    found = run_sweep(asked, screen)
    if len(found) > 1:
        screen.show_check(f"bake them: {_format_bake(found, base, dataset, request)}")
    write_json(json_file, {"runs": found})


def _plan_runs(
    grid: Path | None, count: int | None, seed: int, rates: tuple[float, float], epochs: tuple[int, int]
) -> tuple[Run, ...]:
    """The first `count` runs of the grid, all where it is None; else drawn ones."""
    from hfsoup.networks.fine_tuning.grid import draw_runs, read_grid

    if not grid:
        return draw_runs(RUNS if count is None else count, seed=seed, rates=rates, epochs=epochs)
    planned = read_grid(grid)
    if count is not None and not 0 < count <= len(planned):
        what = f"expected --runs from 1 to {len(planned)}, the runs of the grid, found {count}"
        raise UsageError(what, where=str(grid))
    return planned[:count]


def _format_bake(runs: list[str], base: str, dataset: str, request: Request) -> str:
    """The command that bakes the runs with the base and the data that the sweep was given."""
    options = {
        "--dataset": dataset,
        "--dataset-config": request.config,
        "--split": request.split,
        "--test-split": request.test_split,
        "--image-column": request.image_column,
        "--label-column": request.label_column,
        "--base": base,
        "--recipe": "auto",
    }
    given = [word for flag, value in options.items() if value is not None for word in (flag, value)]
    return shlex.join(["hfsoup", "bake", *runs, *given, *(["--skip-bad-images"] if request.skip_bad_images else [])])
