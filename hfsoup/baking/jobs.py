"""`hfsoup bake --jobs FLAVOR`: the same bake on a machine of the Hub, planned and followed here, pushed from there."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, distribution
from math import ceil
from pathlib import Path
from typing import Any

from hfsoup.baking.plan import Plan, plan_bake
from hfsoup.data.label_mapping import BY_NAME, BY_NUMBER
from hfsoup.data.request import split_revision
from hfsoup.evaluation.journal import SHARED, journal_files
from hfsoup.hub.client import expect_answer, hub_api
from hfsoup.hub.jobs import ATTEMPTS, Flavor, Job, find_flavor, read_logs, require_completed, start_job
from hfsoup.hub.push import find_target
from hfsoup.merges import MERGES
from hfsoup.options.options import Options, format_words, option_fields
from hfsoup.recipes import RECIPES
from hfsoup.utils.errors import HubError, UsageError
from hfsoup.utils.progress import Notify, Watch
from hfsoup.utils.registry import OWN
from hfsoup.utils.text import format_count, format_duration
from hfsoup.utils.version import __version__

EXTRAS = "align,plot,search,timm"
"""What any bake may need."""
SETTLED = ("output", "overwrite", "cache_limit", "exclude", "fine_tunes_of", "include_soups", "base", "dataset", "eval")
"""Options that have no meaning on the other machine, or that are pinned here."""
START = 15 * 60
"""Seconds for the machine to be found and for hfsoup to be installed on it."""
PULL = 20e6
"""Bytes a second at which a job pulls at least."""
MARGIN = 3
"""How many times as long as estimated scoring may take: the pace is that of the machine here."""
SLOWEST = 20.0
"""Images a second where no pace is known: a large model on a small machine."""
UNKNOWN = 6 * 3600
"""Seconds for scoring where nothing is known."""


@dataclass(frozen=True)
class JobRequest:
    """What is asked of the Hub: the machines, the command, what to install, and the time-out with its reason."""

    plan: Plan
    flavor: Flavor
    words: tuple[str, ...]
    packages: tuple[str, ...]
    seconds: int
    reason: str
    repo: str
    keeps_scores: bool
    private: bool

    @property
    def price(self) -> str:
        """The most that it costs, where the Hub says."""
        hourly = self.flavor.hourly
        return "" if hourly is None else f", at most ${ATTEMPTS * hourly * self.seconds / 3600:.2f}"


def request_job(patterns: tuple[str, ...], options: Options, flavor: str, watch: Watch) -> JobRequest:
    """Plan the bake here and describe it as a job; nothing is started, written or paid for.

    Args:
        patterns: as for `bake`; each ingredient is pinned to the commit that it has now, the dataset and the base too.
        options: as for `bake`.
        flavor: the name of the machines, as `hf jobs hardware` lists them.
        watch: is shown the stages.

    Raises:
        UsageError: there is nowhere to push to, something is a folder of this disk, or there are no such machines.
        SoupError: what a bake would refuse before its first download.
    """
    if options.push is None:
        what = "a job keeps nothing but what it pushes: expected a repository with --jobs, found none"
        raise UsageError(what, hint="--push ORG/NAME")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UsageError("--jobs starts the processes of a job itself", hint="hfsoup bake … --jobs, without a launcher")
    _refuse_files(options)
    found = find_flavor(flavor)
    plan = plan_bake(patterns, replace(options, output=None), watch, elsewhere=True)
    for source in (*plan.ingredients, *plan.bases):
        if source.revision is None:
            _refuse_local(source.id, f"hf upload {options.push.partition('/')[0]}/NAME {source.id}")
    launcher = ["hfsoup"]
    if found.gpus > 1:
        launcher = ["torchrun", "--standalone", f"--nproc-per-node={found.gpus}", "-m", "hfsoup"]
    pinned = [f"{source.id}@{source.revision}" for source in plan.ingredients]
    words = (*launcher, "bake", *pinned, *format_words(_pin_options(options, plan)))
    seconds, reason = estimate_timeout(plan)
    packages = tuple(_list_packages(options))
    kept = not options.create_pr
    return JobRequest(plan, found, words, packages, seconds, reason, options.push, kept, options.private)


def estimate_timeout(plan: Plan) -> tuple[int, str]:
    """Seconds after which the job is stopped, in whole minutes, and what they are made of."""
    size = sum(each.size for each in (*plan.ingredients, *plan.bases, *([plan.dataset] if plan.dataset else [])))
    work = plan.work
    if work is None:
        scoring, why = 0.0, "nothing is scored"
    elif work.seconds is not None:
        scoring, why = MARGIN * work.seconds, f"{MARGIN} times as long as scoring takes here"
    elif work.images is not None:
        scoring, why = work.images / SLOWEST, f"{format_count(work.images, 'image')} at {SLOWEST:.0f} a second"
    else:
        scoring, why = UNKNOWN, f"{format_duration(UNKNOWN)} for scoring, as {work.unknown}"
    if work and work.training:
        scoring, why = scoring + work.training / SLOWEST, f"{why}, and distillation"
    seconds = 60 * ceil((START + size / PULL + scoring) / 60)
    return seconds, f"{format_duration(START + size / PULL)} to start and pull, {why}"


def launch_job(request: JobRequest, notify: Notify) -> Job:
    """Start the job, with a branch for its scores beside the soup to be.

    Raises:
        HubError: the repository may not be pushed to in this way, or the Hub starts no job.
    """
    env = {"HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    # What the job could not push would be lost.
    find_target(request.repo, request.private, not request.keeps_scores, notify)
    if request.keeps_scores:
        journal_files(request.repo).create()
        env[SHARED] = request.repo
    return start_job(
        request.words,
        packages=request.packages,
        flavor=request.flavor.name,
        seconds=request.seconds,
        env=env,
    )


def follow_job(job: Job, show: Callable[[str], None]) -> None:
    """Show what a job prints until it ends; Ctrl-C leaves it running.

    Raises:
        HubError: it did not do what it was to do, or cannot be followed any more.
    """
    try:
        for line in read_logs(job):
            show(line)
    except KeyboardInterrupt:
        show(f"the job goes on: {job.url}")
        show(f"  watch it:  hf jobs logs --follow {job.name}")
        show(f"  cancel it: hf jobs cancel {job.name}")
        raise
    except HubError as error:
        hint = f"the job goes on; watch it: hf jobs logs --follow {job.name}"
        raise HubError(error.what, where=job.url, hint=hint) from error
    require_completed(job)


def _refuse_files(options: Options) -> None:
    """Refuse files and folders of this disk, which the other machine does not have."""
    owner = str(options.push).partition("/")[0]
    for dataset in filter(None, (options.dataset, *options.other_datasets().values())):
        if Path(split_revision(dataset)[0]).exists():
            _refuse_local(dataset, f"hf upload {owner}/NAME {dataset} --repo-type dataset")
    if options.labels not in (None, BY_NAME, BY_NUMBER):
        _refuse_local(str(options.labels), "ingredients and dataset with class names, or a bake without --jobs")


def _refuse_local(place: str, hint: str) -> None:
    raise UsageError("a job cannot read the disk of this machine", where=place, hint=hint)


def _pin_options(options: Options, plan: Plan) -> dict[str, Any]:
    """The options that differ from their defaults, base and datasets at the commits that they have now."""
    changed = {f.name: value for f in option_fields() if (value := getattr(options, f.name)) != f.default}
    pinned = {name: value for name, value in changed.items() if name not in SETTLED}
    if options.base is not None:
        name = options.base.partition("@")[0]
        pinned["base"] = next((f"{b.id}@{b.revision}" for b in plan.bases if b.id == name), options.base)
    if options.dataset is not None:
        pinned["dataset"] = _pin_dataset(options.dataset)
    if options.eval:
        pinned["eval"] = [f"{name}={_pin_dataset(place)}" for name, place in options.other_datasets().items()]
    return {**pinned, **options.parameters}


def _pin_dataset(dataset: str) -> str:
    name, revision = split_revision(dataset)
    with expect_answer(dataset, kind="dataset"):
        return f"{name}@{hub_api().dataset_info(name, revision=revision).sha}"


def _list_packages(options: Options) -> Iterator[str]:
    """What the job installs: this hfsoup, and the packages of the plug-ins that the bake uses."""
    yield f"hfsoup[{EXTRAS}]{_pin_source()}"
    for entry in (RECIPES.get(options.chosen_recipe), MERGES.get(options.merge)):
        if entry.origin != OWN:
            yield "==".join(entry.origin.split(" ", 1))


def _pin_source() -> str:
    """Where this version of hfsoup is installed from: a commit of a git repository, an address, or the index.

    Raises:
        UsageError: from this disk, which no job has; whatever has its version on the index may be something else.
    """
    try:
        text = distribution("hfsoup").read_text("direct_url.json")
        origin = json.loads(text) if text else None
    except PackageNotFoundError:
        origin = {"url": str(Path(__file__).parents[2])}
    if origin is None:
        return f"=={__version__}"
    if commit := origin.get("vcs_info", {}).get("commit_id"):
        return f" @ git+{origin['url']}@{commit}"
    if origin["url"].startswith("https://"):
        return f" @ {origin['url']}"
    what = "expected an hfsoup that a job can install too, found one from this disk"
    raise UsageError(what, where=origin["url"], hint="pip install git+https://…/hfsoup@COMMIT, or a release")


def describe_request(request: JobRequest) -> Iterator[tuple[str, str]]:
    """The job as rows of a label and a text."""
    gpus = f", {format_count(request.flavor.gpus, 'GPU')}" if request.flavor.gpus else ""
    yield "job", f"on {request.flavor.name}{gpus}, with {', '.join(request.packages)}"
    yield "time-out", f"{format_duration(request.seconds)}: {request.reason}{request.price}"
    if request.keeps_scores:
        yield "scores", f"on a branch of {request.repo} until the soup is pushed, so that a job started again goes on"
    else:
        yield "scores", "in the job only: with --create-pr a job that is started again begins anew"


def describe_job(request: JobRequest, job: Job | None = None) -> dict[str, Any]:
    """The object that `--json` writes: the job and where it pushes to, or the plan where it was not started."""
    made = {"flavor": request.flavor.name, "timeout_seconds": request.seconds, "command": list(request.words)}
    if job is None:
        return {**request.plan.to_json(), "job": made}
    return {"hfsoup": __version__, "job": {"id": job.id, "url": job.url, **made}, "pushed": {"repo": request.repo}}
