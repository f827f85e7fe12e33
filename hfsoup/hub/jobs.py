"""Jobs of the Hub: the machines that there are, and a command that is started on one and followed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hfsoup.hub.client import expect_answer, hub_api
from hfsoup.utils.errors import HubError, UsageError
from hfsoup.utils.registry import find_nearest
from hfsoup.utils.text import join_names, quoted

if TYPE_CHECKING:
    from huggingface_hub import JobInfo

WHERE = "Jobs"
"""What errors call the place of a request about jobs."""
ATTEMPTS = 2
"""How often the Hub starts a job: once, and once again where it dies."""
IMAGE = "ghcr.io/astral-sh/uv:python3.12-bookworm"
"""That of `run_uv_job`, which would send every file of this disk that is called as a word of the command is."""
COMPLETED = "COMPLETED"


@dataclass(frozen=True)
class Flavor:
    """A kind of machine: its name, its number of GPUs, and its price in dollars an hour, None if not by the minute."""

    name: str
    gpus: int
    hourly: float | None


@dataclass(frozen=True)
class Job:
    """A started job; `url` is its page."""

    id: str
    url: str
    owner: str

    @property
    def name(self) -> str:
        """How `hf jobs` names it."""
        return f"{self.owner}/{self.id}"


def find_flavor(name: str) -> Flavor:
    """The machines of that name.

    Raises:
        UsageError: there are none; the error names those that there are.
        HubError: the Hub has no list of machines.
    """
    with expect_answer(WHERE):
        known = {found.name: found for found in hub_api().list_jobs_hardware()}
    if name not in known:
        near = find_nearest(name, list(known))
        what = f"there are no machines called {quoted(name)}; known: {join_names(list(known), 40)}"
        raise UsageError(what, hint=f"--jobs {near or next(iter(known), 'cpu-basic')}")
    found = known[name]
    hourly = 60 * found.unit_cost_usd if found.unit_label == "minute" else None
    return Flavor(name, int(found.accelerator.quantity) if found.accelerator else 0, hourly)


def start_job(words: Sequence[str], *, packages: Sequence[str], flavor: str, seconds: int, env: dict[str, str]) -> Job:
    """Start a command on a machine of the Hub, which uv prepares; the user's token is a secret of the job.

    Args:
        words: the command, which is one of the packages'.
        packages: what to install, as pip names it.
        flavor: the name of the machines.
        seconds: the time-out.
        env: environment variables, which everybody who sees the job can read.

    Raises:
        HubError: no token, no permission, no credit, or no answer.
    """
    from huggingface_hub import get_token

    if (token := get_token()) is None:
        raise HubError("a job needs a token, found none", where=WHERE, hint="hf auth login, or HF_TOKEN=…")
    with expect_answer(WHERE, access="start jobs"):
        found = hub_api().run_job(
            image=IMAGE,
            command=["uv", "run", *(word for package in packages for word in ("--with", package)), *words],
            env=env,
            secrets={"HF_TOKEN": token},
            flavor=flavor,
            timeout=seconds,
            attempts=ATTEMPTS,
            name="hfsoup-bake",
        )
        return Job(found.id, found.url, found.owner.name)


def read_logs(job: Job) -> Iterator[str]:
    """The lines that a job prints, until it ends."""
    with expect_answer(job.url):
        yield from hub_api().fetch_job_logs(job_id=job.id, namespace=job.owner, follow=True)


def require_completed(job: Job) -> None:
    """Raise HubError unless the job has done what it was to do."""
    with expect_answer(job.url):
        status = _inspect(job).status
    if status.stage != COMPLETED:
        why = f": {quoted(status.message)}" if status.message else ""
        hint = f"hf jobs logs {job.name}; the same command goes on from the scores on the Hub"
        raise HubError(f"the job ended as {status.stage}{why}", where=job.url, hint=hint)


def _inspect(job: Job) -> JobInfo:
    return hub_api().inspect_job(job_id=job.id, namespace=job.owner)
