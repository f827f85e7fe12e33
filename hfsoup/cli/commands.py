"""The commands. Each imports what it needs when it runs, so that `hfsoup --help` is quick."""

from __future__ import annotations

import json
import os
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hfsoup.cli.app import app, exit_with_error
from hfsoup.cli.flags import PARAMETERS, OptionsCommand, ParameterCommand, add_option_flags
from hfsoup.options.options import GROUPS, Options, get_option_types, refuse_ineffective
from hfsoup.utils.errors import SoupError, UsageError

if TYPE_CHECKING:
    from hfsoup.cli.screen import Screen


def _check_json_file(file: str | None) -> str | None:
    """Refuse, before any work, a file that could not be written at its end."""
    if file not in (None, "-") and not (home := Path(str(file)).absolute().parent).is_dir():
        what = f"the JSON could not be written: there is no folder {home}"
        raise UsageError(what, where=str(file), hint=f"mkdir -p {shlex.quote(str(home))}")
    if file is not None and Path(file).is_dir():
        raise UsageError(
            "expected a file for the JSON, found a folder", where=file, hint=f"--json {file}/soup-result.json"
        )
    return file


Json = Annotated[
    str | None,
    typer.Option(
        "--json",
        metavar="FILE|-",
        help="write the result as one JSON object",
        rich_help_panel="Output",
        callback=_check_json_file,
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="print nothing but errors", rich_help_panel="Output")]
Ingredients = Annotated[
    list[str] | None,
    typer.Argument(
        help="ORG/NAME or ORG/GLOB-*, with or without @REVISION; a URL or collection of the Hub; local folders; or one "
        "YAML config file",
        show_default=False,
    ),
]
EPILOG = 'Example: hfsoup bake "org/model-*" --dataset org/pets --push org/pets-soup'


@app.command(epilog=EPILOG, cls=ParameterCommand)
@add_option_flags(*GROUPS)
def bake(
    ctx: typer.Context,
    ingredients: Ingredients = None,
    *,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="show the plan without running it", rich_help_panel="Output"),
    ] = False,
    save_config: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="also write this command as a YAML file", rich_help_panel="Output"),
    ] = None,
    jobs: Annotated[
        str | None,
        typer.Option(
            metavar="FLAVOR",
            help="bake on a machine of the Hub, such as a10g-small (`hf jobs hardware` lists them), and follow it",
            rich_help_panel="Compute",
        ),
    ] = None,
    json_file: Json = None,
    quiet: Quiet = False,
    **options: Any,
) -> None:
    """Average fine-tuned checkpoints into one model, test it, push it."""
    from hfsoup.baking.pipeline import run_bake
    from hfsoup.baking.requirements import find_free_folder
    from hfsoup.cli.screen import Screen
    from hfsoup.options.config_file import format_commented_config, write_config

    main = os.environ.get("RANK", "0") == "0"
    screen = Screen(quiet=quiet or not main)
    patterns, chosen = _read_request(ctx, ingredients or [], options)
    if save_config and main:
        write_config(save_config, format_commented_config(patterns, chosen, str(save_config)))
    if jobs is not None:
        _bake_elsewhere(patterns, chosen, jobs, screen, json_file, dry_run=dry_run)
        return
    chosen = replace(chosen, output=chosen.output or str(find_free_folder(Path("soup"))))
    if dry_run:
        if main:
            _show_plan(patterns, chosen, screen, json_file)
        return
    soup = run_bake(patterns, chosen, screen)
    if main:
        screen.show_result(soup)
        write_json(json_file, soup.to_json())


def _bake_elsewhere(
    patterns: tuple[str, ...], options: Options, flavor: str, screen: Screen, json_file: str | None, *, dry_run: bool
) -> None:
    """Plan the bake here, start it as a job of the Hub, and follow that."""
    from hfsoup.baking.jobs import describe_job, describe_request, follow_job, launch_job, request_job

    if options.output is not None:
        what = "a job pushes its soup and writes nothing here"
        raise UsageError(what, hint=f"hf download {options.push or 'ORG/NAME'} --local-dir …, afterwards, not --output")
    request = request_job(patterns, options, flavor, screen)
    screen.show_plan(request.plan)
    for name, text in describe_request(request):
        screen.show_log(f"{name}: {text}")
    if dry_run:
        write_json(json_file, describe_job(request))
        return
    job = launch_job(request, screen.note)
    screen.show_check(f"Started job {job.id}: {job.url}")
    follow_job(job, screen.show_log)
    screen.show_check(f"The job is done and pushed to {request.repo}")
    write_json(json_file, describe_job(request, job))


def _show_plan(patterns: tuple[str, ...], options: Options, screen: Screen, json_file: str | None) -> None:
    from hfsoup.baking.plan import plan_bake

    found = plan_bake(patterns, options, screen)
    screen.show_plan(found)
    write_json(json_file, found.to_json())


def _read_request(ctx: typer.Context, words: list[str], options: dict[str, Any]) -> tuple[tuple[str, ...], Options]:
    """Ingredients and options, from the command line or a config file; flags override the file."""
    from hfsoup.options.config_file import is_config, load_config

    given = ctx.meta.get(PARAMETERS, {})
    if not is_config(words):
        chosen = Options.of({**options, **given})
        return chosen.choose_patterns(words), chosen
    typed = {name: value for name, value in options.items() if _is_typed(ctx, name)}
    return load_config(Path(words[0]).expanduser(), {**typed, **given})


def _is_typed(ctx: typer.Context, name: str) -> bool:
    source = ctx.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


@app.command(epilog='Example: hfsoup init "org/model-*" --dataset org/pets -o soup.yaml', cls=ParameterCommand)
@add_option_flags(*GROUPS)
def init(
    ctx: typer.Context,
    ingredients: Annotated[list[str], typer.Argument(help="as for bake")],
    *,
    output: Annotated[Path, typer.Option("--output", "-o", help="the file to write")] = Path("soup.yaml"),
    **options: Any,
) -> None:
    """Write a config file with every option explained.

    It is for `hfsoup bake FILE`, and takes the other flags of bake.
    """
    from hfsoup.baking.requirements import check_request
    from hfsoup.options.config_file import format_commented_config, format_powers, write_config

    chosen = Options.of({**options, **ctx.meta.get(PARAMETERS, {})})
    check_request(tuple(ingredients), chosen)
    write_config(output, format_commented_config(ingredients, chosen, str(output)))
    typer.echo(f"wrote {output}; bake it with: hfsoup bake {output}{format_powers(chosen)}", err=True)


@app.command(epilog='Example: hfsoup check "org/model-*" --weights', cls=OptionsCommand)
@add_option_flags("Ingredients", "Data", "Weights", "Compute")
def check(
    ingredients: Annotated[
        list[str] | None,
        typer.Argument(help="as for bake; with --weights also bare weight files", show_default=False),
    ] = None,
    *,
    weights: Annotated[
        bool, typer.Option("--weights", help="also compare the weights, which are pulled for that")
    ] = False,
    json_file: Json = None,
    quiet: Quiet = False,
    **options: Any,
) -> None:
    """Predict whether averaging would help.

    From headers, weights, or, with a dataset, the ingredients' predictions.
    """
    from hfsoup.cli.screen import Screen
    from hfsoup.ingredients.diagnose import diagnose

    screen = Screen(quiet=quiet)
    chosen = Options.of(options)
    refuse_ineffective(chosen)
    patterns = chosen.choose_patterns(ingredients or ())
    if not patterns:
        raise UsageError("no ingredients", hint='hfsoup check "org/model-*"')
    found = diagnose(
        patterns,
        weights=weights or chosen.dataset is not None,
        exclude=chosen.exclude or (),
        fine_tunes_of=chosen.fine_tunes_of,
        weights_file=chosen.weights_file,
        state_dict_key=chosen.state_dict_key,
        watch=screen,
    )
    screen.show_diagnosis(found)
    write_json(json_file, {**found.to_json(), **_forecast(patterns, chosen, screen)})


def _forecast(patterns: tuple[str, ...], options: Options, screen: Screen) -> dict[str, Any]:
    """Say what the ingredients' predictions tell of a soup, if there is a dataset; that for `--json`."""
    if options.dataset is None:
        return {}
    from hfsoup.baking.forecast import forecast_bake

    forecast = forecast_bake(patterns, options, screen)
    return {"forecast": forecast.numbers} if forecast else {}


@app.command(name="eval", epilog="Example: hfsoup eval org/model-a --dataset org/pets", cls=OptionsCommand)
@add_option_flags("Data", "Weights", "Compute")
def evaluate(
    model: Annotated[str, typer.Argument(help="ORG/NAME, with @REVISION, or a local folder")],
    *,
    json_file: Json = None,
    quiet: Quiet = False,
    **options: Any,
) -> None:
    """Score one model on the splits that a bake would use."""
    from hfsoup.baking.pipeline import run_bake
    from hfsoup.cli.screen import Screen

    main = os.environ.get("RANK", "0") == "0"
    screen = Screen(quiet=quiet or not main)
    # The model is scored as it is, with the batch-norm statistics that it has.
    chosen = Options.of({**options, "recipe": "uniform", "bn": "average"})
    chosen.make_request()
    soup = run_bake((model,), chosen, screen, several=False)
    if main:
        screen.show_score(soup)
        found = soup.to_json()
        names = ("hfsoup", "metric", "task", "threshold", "images_forwarded", "seconds")
        kept = {key: found[key] for key in names if key in found}
        numbers = {key: found["soup"][key] for key in ("score", "test", "ci95")}
        write_json(json_file, {**kept, "model": found["ingredients"][0]["id"], **numbers})


@app.command(epilog="Example: hfsoup verify org/pets-soup --scores")
def verify(
    place: Annotated[str, typer.Argument(help="a baked folder, or ORG/NAME on the Hub, with @REVISION")],
    scores: Annotated[bool, typer.Option("--scores", help="also evaluate again, except shifts and ensemble")] = False,
    public_key: Annotated[Path | None, typer.Option(help="also verify the signature model.sig with this key")] = None,
    trust_remote_metric: Annotated[
        bool, typer.Option("--trust-remote-metric", help="run the script of a recorded metric that is not ours")
    ] = False,
    allow_local_paths: Annotated[
        bool, typer.Option("--allow-local-paths", help="let a repository's record name folders of this disk")
    ] = False,
    json_file: Json = None,
    quiet: Quiet = False,
) -> None:
    """Bake a soup again from its soup.json and compare the bytes."""
    from hfsoup.baking.verify import verify as verify_place
    from hfsoup.cli.screen import Screen
    from hfsoup.evaluation.scores import Score
    from hfsoup.reports.measurements import format_score

    screen = Screen(quiet=quiet)
    found = verify_place(
        place,
        scores=scores,
        public_key=public_key,
        trust_remote_metric=trust_remote_metric,
        allow_local_paths=allow_local_paths,
        watch=screen,
    )
    if public_key:
        screen.show_check(f"model.sig: signed by the owner of {public_key}")
    for name, sha in found.files.items():
        screen.show_check(f"{name}: baked again, the same bytes (sha256 {sha[:12]})")
    for name, value in found.scores.items():
        screen.show_check(f"{name}: {format_score(found.metric, Score(value))}, as recorded")
    write_json(json_file, {"place": place, "verified": True, "files": found.files, "scores": found.scores})


@app.command(epilog="Example: hfsoup report org/pets-soup -o pets.html")
def report(
    place: Annotated[str, typer.Argument(help="a baked folder, or ORG/NAME on the Hub, with @REVISION")],
    output: Annotated[Path, typer.Option("--output", "-o", help="the file to write")] = Path("report.html"),
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace the file if it exists")] = False,
    images: Annotated[bool, typer.Option("--images/--no-images", help="read test images from the dataset")] = True,
    quiet: Quiet = False,
) -> None:
    """Write an HTML report of a soup.

    Scores, plots, classes, and images where it differs from the best ingredient.
    """
    from hfsoup.cli.screen import Screen
    from hfsoup.reports.html import compose_report, read_soup, require_writable, write_report

    screen = Screen(quiet=quiet)
    found = read_soup(place, screen)
    require_writable(output, overwrite=overwrite)
    write_report(compose_report(found, images=images, watch=screen), output, overwrite=overwrite)
    screen.show_check(f"wrote {output}")


@app.command(epilog="Example: hfsoup recipes")
def recipes() -> None:
    """List recipes, merges and metrics, plug-ins too, with their papers."""
    from rich.console import Console
    from rich.table import Table

    from hfsoup.cli.screen import Screen
    from hfsoup.data.metrics import METRICS
    from hfsoup.merges import MERGES
    from hfsoup.recipes import RECIPES
    from hfsoup.reports.summary import replace_unprintable

    for registry in (RECIPES, MERGES, METRICS):
        table = Table(box=None, pad_edge=False)
        for title in (registry.kind, "what it does", "from", "paper"):
            table.add_column(title, no_wrap=title != "what it does", overflow="fold")
        for entry in registry:
            table.add_row(*map(replace_unprintable, (entry.name, entry.summary, entry.origin, entry.paper)))
            for p in (p for p in entry.parameters if p.name not in get_option_types()):
                flag = f"--{p.name.replace('_', '-')} {p.type.__name__.upper()}"
                table.add_row("", replace_unprintable(f"  {flag}: {p.help} [{p.default}]"))
        Console().print(table, "")
    for text in [text for registry in (RECIPES, MERGES, METRICS) for text in registry.broken]:
        Screen(quiet=False).note(text)


@app.command(epilog="Example: hfsoup push soup org/pets-soup --private")
def push(
    folder: Annotated[Path, typer.Argument(help="a baked folder")],
    repo: Annotated[str, typer.Argument(help="ORG/NAME")],
    private: Annotated[bool, typer.Option("--private", help="make the repository private")] = False,
    create_pr: Annotated[bool, typer.Option("--create-pr", help="push as a pull request")] = False,
    revision: Annotated[str | None, typer.Option("--revision", help="push to this branch")] = None,
    collection: Annotated[
        bool, typer.Option("--collection", help="make a Collection of the soup and its ingredients")
    ] = False,
    json_file: Json = None,
) -> None:
    """Push a baked folder to the Hub in one commit.

    Subfolders too; hidden files and private keys stay here.
    """
    from hfsoup.baking.push import push_folder
    from hfsoup.checkpoints.auto_class import IMAGE_CLASSIFICATION
    from hfsoup.cli.screen import Screen

    note = Screen(quiet=False).note
    pushed = push_folder(
        folder, repo, private=private, create_pr=create_pr, revision=revision, collection=collection, notify=note
    )
    typer.echo(f'pushed to {pushed.url}\npipeline("{IMAGE_CLASSIFICATION.pipeline_tag}", "{repo}")', err=True)
    if pushed.collection:
        typer.echo(f"collected in {pushed.collection}", err=True)
    write_json(json_file, pushed.to_json())


@app.command(epilog="Example: hfsoup demo --family resnet")
def demo(
    family: Annotated[str, typer.Option(help="vit, resnet or efficientnet")] = "vit",
    folder: Annotated[Path | None, typer.Option(help="the working folder \\[a temporary one]")] = None,
) -> None:
    """Run everything on this machine, without network or token.

    A local Hub, a sweep, a bake, a push, a pipeline.
    """
    from hfsoup.cli.demo import run_demo

    run_demo(family, folder)


@app.command(epilog="Example: hfsoup sign soup --key key.pem")
def sign(
    folder: Annotated[Path, typer.Argument(help="a baked folder")],
    key: Annotated[Path, typer.Option(help="an elliptic-curve private key, PEM")],
) -> None:
    """Sign a baked folder with OpenSSF model-signing.

    `hfsoup verify --public-key` checks it.
    """
    from hfsoup.provenance.signing import sign_folder as sign_folder

    typer.echo(f"signed: {sign_folder(folder, key)}", err=True)


def write_json(file: str | None, value: dict[str, Any]) -> None:
    """Write an object to FILE, or to standard output for `-`."""
    if file is None:
        return
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    if file == "-":
        sys.stdout.write(text)
        return
    try:
        Path(file).write_text(text, encoding="utf-8")
    except OSError as error:
        exit_with_error(SoupError(f"the JSON could not be written: {error.strerror}", where=file))
