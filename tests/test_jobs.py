"""`hfsoup bake --jobs`: a bake on a machine of the Hub, with the Jobs API recorded and jobs as processes."""

from __future__ import annotations

import io
import json
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from family import Family
from huggingface_hub import HfApi, hf_hub_download
from huggingface_hub.errors import RepositoryNotFoundError
from jobs_api import RecordedJobs
from shell import bake, refused, run

from hfsoup.evaluation.journal import Journal, journal_files, journal_path
from hfsoup.hub.branch_files import BranchFiles
from hfsoup.localhub import LocalHub, app
from hfsoup.utils.hashing import hash_file
from hfsoup.utils.version import __version__

REQUEST = ("kit/vit-*", "--dataset", "kit/shapes", "--recipe", "greedy")
WORDS = (*REQUEST, "--push", "kit/job-soup", "--jobs", "a10g-small")


def install_from(monkeypatch: pytest.MonkeyPatch, origin: dict[str, Any] | None) -> None:
    """Let this hfsoup be one that was installed from the index, or from somewhere else as direct_url.json says."""
    text = None if origin is None else json.dumps(origin)
    monkeypatch.setattr("hfsoup.baking.jobs.distribution", lambda _: mock.Mock(read_text=lambda _: text))


@pytest.fixture
def start_api(
    on_hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., RecordedJobs]]:
    """Adds the Jobs API to the Hub."""
    monkeypatch.setenv("HF_TOKEN", on_hub.token)
    install_from(monkeypatch, None)
    begun: list[RecordedJobs] = []

    def start(**how: object) -> RecordedJobs:
        begun.append(RecordedJobs(tmp_path / "jobs", **how))  # type: ignore[arg-type]
        monkeypatch.setattr(app, "_ROUTES", begun[-1].list_routes())
        return begun[-1]

    yield start
    for api in begun:
        api.stop()
    HfApi(token=on_hub.token).delete_repo("kit/job-soup", missing_ok=True)


def count_images(log: str) -> int:
    """Images that went through a network, as the log of a job says."""
    (found,) = re.findall(r"the test split: ([\d,]+) images evaluated", log)
    return int(found.replace(",", ""))


def count_kept_images(token: str) -> int:
    """Images whose predictions are on the branch of scores."""
    found = BranchFiles("kit/job-soup", "hfsoup-journal", "scores").fetch().values()
    kept = [np.load(io.BytesIO(data), allow_pickle=False) for data in found]
    return sum(len(one["predictions"]) for one in kept if "predictions" in one.files)


def test_a_job_killed_half_way_goes_on_and_makes_the_same_soup(
    start_api: Callable[..., RecordedJobs], on_hub: LocalHub, alone: Path
) -> None:
    """The second job scores what the first did not, no image twice; its weights have the bytes of a bake here."""
    api, here = start_api(kill_after=5), bake(*REQUEST, "--output", "here")
    block = refused("bake", *WORDS, code=1)
    assert "the job ended as ERROR" in block
    assert "hf jobs logs kit/job1; the same command goes on" in block
    kept = count_kept_images(on_hub.token)
    assert kept > 0
    done = run("bake", *WORDS, "--json", "-")
    assert done.code == 0, done.err
    assert done.json["job"]["id"] == "job2"
    assert done.json["pushed"] == {"repo": "kit/job-soup"}
    assert "Started job job2: http" in done.err
    assert kept + count_images(api.jobs[1].log) == here["images_forwarded"]
    assert api.jobs[1].log.strip() in done.err
    weights = hf_hub_download("kit/job-soup", "model.safetensors")
    assert hash_file(Path(weights)) == here["soup"]["sha256"]
    assert [branch.name for branch in HfApi().list_repo_refs("kit/job-soup").branches] == ["main"]
    assert not any(on_hub.token in job.log for job in api.jobs)
    assert on_hub.token not in done.err


def test_damaged_scores_on_the_branch_are_left_out(
    on_hub: LocalHub, signed_in: LocalHub, alone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job that finds bytes under the right names that are no scores bakes as if they were not there."""
    monkeypatch.setenv("HFSOUP_CACHE", str(alone / "first"))
    here = bake(*REQUEST, "--output", "here")
    keys = Journal(journal_path(), read=True, notify=print).list_keys()
    HfApi().create_repo("kit/job-soup")
    branch = journal_files("kit/job-soup")
    branch.create()
    branch.send(dict.fromkeys(keys, b"PK no archive"), "Damage")
    monkeypatch.setenv("HFSOUP_CACHE", str(alone / "second"))
    monkeypatch.setenv("HFSOUP_JOURNAL", "kit/job-soup")
    there = bake(*REQUEST, "--push", "kit/job-soup", "--output", "there")
    HfApi().delete_repo("kit/job-soup")
    assert here["images_forwarded"] == there["images_forwarded"] > 0
    assert here["soup"]["sha256"] == there["soup"]["sha256"]


def test_a_job_is_pinned_and_holds_the_token_as_a_secret(
    start_api: Callable[..., RecordedJobs], on_hub: LocalHub
) -> None:
    """This hfsoup, the commits seen here, a time-out, one more try; the token is in the secrets and nowhere else."""
    api = start_api(runs=False)
    done = run("bake", *WORDS, "--limit", 20, "--no-race", "--private", "--exclude", "vit-10")
    assert done.code == 0, done.err
    spec = api.jobs[0].spec
    secrets, shown = spec.pop("secrets"), json.dumps(spec)
    assert secrets == {"HF_TOKEN": on_hub.token}
    assert on_hub.token not in shown + done.err + done.out
    info = HfApi()
    pinned = [f"kit/vit-{n}@{info.model_info(f'kit/vit-{n}').sha}" for n in (1, 2, 3)]
    command = ["uv", "run", "--with", f"hfsoup[align,plot,search,timm]=={__version__}", "hfsoup", "bake", *pinned]
    assert spec["command"][: len(command)] == command
    options = shlex.join(spec["command"][len(command) :])
    dataset = f"kit/shapes@{info.dataset_info('kit/shapes').sha}"
    assert options == f"--recipe greedy --limit 20 --no-race --push kit/job-soup --private --dataset {dataset}"
    assert (spec["flavor"], spec["attempts"]) == ("a10g-small", 2)
    assert spec["timeoutSeconds"] == 16 * 60
    assert "time-out: 16 min: 15 min to start and pull" in done.err
    assert "at most $0.64" in done.err
    assert HfApi(token=on_hub.token).model_info("kit/job-soup", revision="hfsoup-journal").private


@pytest.mark.parametrize(
    ("origin", "found"),
    [
        ({"url": "file:///home/me/hfsoup", "dir_info": {"editable": True}}, ""),
        (
            {"url": "https://example.org/hfsoup", "vcs_info": {"vcs": "git", "commit_id": "c0ffee"}},
            "git+https://example.org/hfsoup@c0ffee",
        ),
        ({"url": "https://example.org/hfsoup.whl", "archive_info": {}}, "https://example.org/hfsoup.whl"),
    ],
    ids=["disk", "git", "wheel"],
)
def test_a_job_installs_what_is_installed_here(
    origin: dict[str, Any], found: str, start_api: Callable[..., RecordedJobs], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An hfsoup from this disk is refused, as the index may have something else under its version."""
    api = start_api(runs=False)
    install_from(monkeypatch, origin)
    if found:
        assert run("bake", *WORDS).code == 0
        assert api.jobs[0].spec["command"][3] == f"hfsoup[align,plot,search,timm] @ {found}"
    else:
        assert "in:  file:///home/me/hfsoup" in refused("bake", *WORDS, code=2)
        assert api.jobs == []


def test_no_file_of_this_disk_is_sent(start_api: Callable[..., RecordedJobs], alone: Path) -> None:
    """A file that is called as a word of the command stays here, and a repository may be called as a script is."""
    for name in ("bake", "greedy", "hfsoup"):
        (alone / name).write_text("mine")
    api = start_api(runs=False)
    assert run("bake", *REQUEST, "--push", "kit/job-soup.v1.py", "--jobs", "a10g-small").code == 0
    HfApi().delete_repo("kit/job-soup.v1.py")
    command = api.jobs[0].spec["command"]
    assert {"bake", "greedy", "hfsoup", "kit/job-soup.v1.py"} <= set(command)
    assert not any("/data" in word for word in command)


def test_several_gpus_have_a_process_each(start_api: Callable[..., RecordedJobs]) -> None:
    """torchrun starts hfsoup on every GPU of the machine; the dry run starts nothing and makes no repository."""
    api = start_api(runs=False)
    done = run("bake", *WORDS[:-1], "a10g-largex2", "--dry-run", "--json", "-")
    words = done.json["job"]["command"]
    assert words[:6] == ["torchrun", "--standalone", "--nproc-per-node=2", "-m", "hfsoup", "bake"]
    assert "nothing was pulled" not in done.err
    assert api.jobs == []
    with pytest.raises(RepositoryNotFoundError):
        HfApi().model_info("kit/job-soup")


def test_ctrl_c_leaves_the_job_running(start_api: Callable[..., RecordedJobs]) -> None:
    """It says how to watch and how to cancel the job, and ends with 130."""
    start_api(runs=False)
    with mock.patch("hfsoup.baking.jobs.read_logs", side_effect=KeyboardInterrupt):
        done = run("bake", *WORDS)
    assert done.code == 130
    assert "hf jobs logs --follow kit/job1" in done.err
    assert "hf jobs cancel kit/job1" in done.err
    assert "run the same command to resume" not in done.err


def test_what_a_job_cannot_do_is_refused(
    start_api: Callable[..., RecordedJobs], vit: Family, data: Path, alone: Path
) -> None:
    """Nowhere to push to, folders of this disk, an output, unknown machines: errors with what to do, before any job."""
    api = start_api(runs=False)
    cases = [
        ((*REQUEST, "--jobs", "a10g-small"), "--push ORG/NAME"),
        ((*vit.words, *WORDS[1:]), "hf upload kit/NAME"),
        (("kit/vit-*", "--dataset", data, "--push", "kit/job-soup", "--jobs", "cpu-basic"), "--repo-type dataset"),
        ((*WORDS, "--output", "soup"), "hf download kit/job-soup"),
        ((*WORDS[:-1], "a10g-smal"), "--jobs a10g-small"),
    ]
    for words, hint in cases:
        assert hint in refused("bake", *words, code=2), words
    assert api.jobs == []


def test_a_job_that_cannot_be_followed_goes_on(start_api: Callable[..., RecordedJobs], on_hub: LocalHub) -> None:
    """Where the Hub gives no log the error says so, and how to watch the job."""
    start_api(runs=False)
    fault = on_hub.fault("/api/jobs/kit/job1/logs", status=403)
    block = refused("bake", *WORDS, code=1)
    on_hub.clear_faults()
    assert fault.hits == 1
    assert "the job goes on; watch it: hf jobs logs --follow kit/job1" in block


def test_a_public_repository_is_not_made_private(start_api: Callable[..., RecordedJobs], on_hub: LocalHub) -> None:
    """What the push would refuse is refused before the job costs anything."""
    api = start_api(runs=False)
    HfApi(token=on_hub.token).create_repo("kit/job-soup")
    assert "already public" in refused("bake", *WORDS, "--private", code=1)
    assert api.jobs == []


def test_a_job_that_the_hub_refuses_is_an_error(start_api: Callable[..., RecordedJobs], on_hub: LocalHub) -> None:
    """Without credit: the Hub's words, and where to buy some; no traceback."""
    api = start_api(runs=False)
    fault = on_hub.fault("/api/jobs/kit", method="POST", status=402)
    block = refused("bake", *WORDS, code=1)
    on_hub.clear_faults()
    assert fault.hits == 1
    assert "the Hub asks for credit" in block
    assert "/settings/billing" in block
    assert api.jobs == []
