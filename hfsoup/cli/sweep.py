"""`hfsoup sweep`: fine-tune a family."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Annotated

import typer

from hfsoup.cli.app import app
from hfsoup.cli.commands import Json, Quiet, write_json
from hfsoup.utils.errors import UsageError

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
        str | None, typer.Option(help="the folder for the runs; {n} stands for a run's number \\[runs, unless --push]")
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
    seed: Annotated[int, typer.Option(help="of the draw and of a new head", rich_help_panel="Training")] = 0,
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
    json_file: Json = None,
    quiet: Quiet = False,
) -> None:
    """Fine-tune one model several times, which makes ingredients.

    The runs differ in many ways; finished ones are not repeated.
    """
    from hfsoup.baking.sweep import Sweep, run_sweep
    from hfsoup.cli.screen import Screen
    from hfsoup.data.request import Request, split_revision
    from hfsoup.networks.fine_tuning.grid import draw_runs, read_grid

    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UsageError(
            "a sweep runs in one process", hint=shlex.join(["hfsoup", "sweep", base, "--dataset", dataset])
        )
    screen = Screen(quiet=quiet)
    planned = (
        read_grid(grid)
        if grid
        else draw_runs(RUNS if runs is None else runs, seed=seed, rates=learning_rate, epochs=epochs)
    )
    if grid and runs is not None:
        if not 0 < runs <= len(planned):
            raise UsageError(
                f"expected --runs from 1 to {len(planned)}, the runs of the grid, found {runs}", where=str(grid)
            )
        planned = planned[:runs]
    name, revision = split_revision(dataset)
    request = Request(
        name, dataset_config, split, test_split, image_column, label_column,
        revision=revision, skip_bad_images=skip_bad_images,
    )  # fmt: skip
    asked = Sweep(
        base, request, planned,
        output=output or (None if push else "runs"), push=push, private=private, train_split=train_split,
        batch_size=batch_size, freeze=tuple(freeze or ()), flip=flip, channels_last=channels_last, seed=seed,
    )  # fmt: skip
    found = run_sweep(asked, screen)
    if len(found) > 1:
        words = ["hfsoup", "bake", *found, "--dataset", dataset, "--recipe", "auto"]
        screen.show_check(f"bake them: {shlex.join(words)}")
    write_json(json_file, {"runs": found})
