"""The demo: a local Hub, a sweep of fine-tuning runs, a bake, a push, a pipeline, all on one machine."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from hfsoup.checkpoints.auto_class import IMAGE_CLASSIFICATION
from hfsoup.utils.errors import SoupError, UsageError
from hfsoup.utils.extras import require_extra

ORG = "kitchen"
REPORT = "demo-report.html"
FAMILIES = ("vit", "resnet", "efficientnet")
console = Console(highlight=False, soft_wrap=True)


def run_demo(family: str, folder: Path | None) -> None:
    """Run the demo for one family, in `folder` or a temporary one.

    Raises:
        UsageError: no such family, or the extra `hfsoup[demo]` is not installed.
        SoupError: one of the commands failed.
    """
    if family not in FAMILIES:
        raise UsageError(
            f"expected a family of {', '.join(FAMILIES)}, found {family!r}", hint="hfsoup demo --family vit"
        )
    require_extra("demo", "sklearn", "the demo")
    with ExitStack() as stack:
        home = folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hfsoup-demo-")))
        from hfsoup.localhub import LocalHub

        hub = stack.enter_context(LocalHub(home / "hub", user=ORG))
        _print_heading("A local Hub in a folder: no network, no account")
        _print_command(f"hfsoup hub serve {home / 'hub'} --user {ORG}")
        # huggingface_hub reads these when it is first imported, which is below.
        settings = {
            "HF_ENDPOINT": hub.url,
            "HF_TOKEN": hub.token,
            "HF_HOME": str(home / "cache"),
        }
        os.environ.update(settings)
        # A temporary folder goes, and the report stays.
        _run_steps(family, home, (folder or Path.cwd()) / REPORT)


def _run_steps(family: str, home: Path, report: Path) -> None:
    from hfsoup.cli.demo.digits import BATCH, make_digits, make_grid, pretrain

    _print_heading("Real images: scikit-learn's handwritten digits, pushed as a dataset")
    _print_command(f'digits().push_to_hub("{ORG}/digits")', prompt=">>>")
    images = make_digits()
    images.push_to_hub(f"{ORG}/digits")

    _print_heading(f"A pre-trained model: a small {family}, trained on a related task with the training images only")
    _print_command(f'pretrain("{family}", "{home / "start"}")', prompt=">>>")
    pretrain(family, home / "start")

    _print_heading("A sweep: this model fine-tuned with different hyper-parameters; every run is pushed")
    runs = home / "grid.json"
    runs.write_text(json.dumps(make_grid(family), indent=1), encoding="utf-8")
    sweep = ["sweep", str(home / "start"), "--dataset", f"{ORG}/digits", "--push", f"{ORG}/{family}"]
    _run_command(*sweep, "--grid", str(runs), "--batch-size", str(BATCH[family]))

    _print_heading("The soup")
    soup = f"{ORG}/{family}-soup"
    bake = ["bake", f"{ORG}/{family}-*", "--recipe", "greedy", "--dataset", f"{ORG}/digits", "--push", soup]
    _run_command(*bake, "--output", str(home / "soup"), "--json", str(home / "soup.json"))

    _print_heading("Anyone can use it now")
    _print_command(f'pipeline("{IMAGE_CLASSIFICATION.pipeline_tag}", "{soup}")(image)', prompt=">>>")
    _classify(soup, images["test"])

    _print_heading("A report: tables, classes and the images on which soup and best ingredient differ")
    _run_command("report", soup, "--output", str(report), "--overwrite")
    print_verdict(home / "soup.json")


def _classify(repo: str, images: object) -> None:
    """Pull the soup and classify the first test image."""
    from transformers import pipeline

    row = images[0]  # type: ignore[index]
    task: Any = IMAGE_CLASSIFICATION.pipeline_tag
    found = pipeline(task, repo)(row["image"], top_k=3)
    for guess in found:
        console.print(f"    {guess['label']:<8} {guess['score']:.3f}")
    console.print(f"    (the label is {images.features['label'].int2str(row['label'])})")  # type: ignore[attr-defined]


def print_verdict(result: Path) -> None:
    """Print in one line what the test split showed."""
    from hfsoup.evaluation.scores import Score
    from hfsoup.reports.measurements import format_score

    found = json.loads(result.read_text(encoding="utf-8"))
    soup, best = found["soup"]["test"], found["best_ingredient"]["test"]
    verdict = found["comparison"]["verdict"]
    words = {"better": "better than", "worse": "worse than"}.get(verdict, "not distinguishable from")
    if sum(ingredient["used"] for ingredient in found["ingredients"]) == 1:
        words = "the same model as"
    shown = [format_score(found["metric"], Score(value)) for value in (soup, best)]
    _print_heading(f"On the test split the soup is {words} its best ingredient: {shown[0]} against {shown[1]}")


def _run_command(*words: str) -> None:
    """Show a command of hfsoup as a user would type it, and run it with this Python."""
    _print_command(shlex.join(["hfsoup", *words]))
    done = subprocess.run([sys.executable, "-m", "hfsoup", *words], check=False)
    if done.returncode:
        raise SoupError(f"this command ended with exit code {done.returncode}", where=shlex.join(["hfsoup", *words]))


def _print_heading(text: str) -> None:
    console.print(f"\n[bold]{escape(text)}[/]")


def _print_command(command: str, prompt: str = "$") -> None:
    console.print(f"[cyan]{prompt} {escape(command)}[/]")
