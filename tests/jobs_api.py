"""The Jobs API as `huggingface_hub` 2.4 speaks it, on the Hub of the tests: jobs are processes of this machine.

A job has caches of its own, as another machine has. It is not a feature of the Hub in a folder: only tests can add it.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from starlette.responses import Response, StreamingResponse

from hfsoup.localhub import app
from hfsoup.localhub.errors import HttpError
from hfsoup.localhub.request import HubRequest, reply
from hfsoup.localhub.routing import Route, Routes, find_route

HARDWARE = {"cpu-basic": 0, "a10g-small": 1, "a10g-largex2": 2}


@dataclass
class RecordedJob:
    """A job: what it was asked for, and its process, once it runs."""

    id: str
    owner: str
    spec: dict[str, Any]
    home: Path
    process: subprocess.Popen[bytes] | None = None
    killed: bool = False

    @property
    def stage(self) -> str:
        code = self.process.poll() if self.process else 0
        return "RUNNING" if code is None else "COMPLETED" if code == 0 else "ERROR"

    @property
    def log(self) -> str:
        return (self.home / "log").read_text("utf-8") if self.process else ""

    def start(self) -> None:
        """Run the command, hfsoup in place of what uv would install, with the environment and secrets of the job."""
        command = list(self.spec["command"])
        while command[:2] == ["uv", "run"] or command[:1] == ["--with"]:
            del command[:2]
        program = {"hfsoup": "hfsoup", "torchrun": "torch.distributed.run"}[command[0]]
        own = {"HF_HOME": str(self.home / "hf"), "HFSOUP_CACHE": str(self.home / "cache")}
        inherited = {name: value for name, value in os.environ.items() if name != "HF_TOKEN"}
        self.home.mkdir(parents=True)
        self.process = subprocess.Popen(
            [sys.executable, "-m", program, *command[1:]],
            cwd=self.home,
            env={**inherited, **own, **self.spec["environment"], **self.spec["secrets"]},
            stdin=subprocess.DEVNULL,
            stdout=(self.home / "log").open("wb"),
            stderr=subprocess.STDOUT,
        )


@dataclass
class RecordedJobs:
    """The jobs that were asked for.

    Args:
        folder: where the jobs have their files.
        runs: whether they run; else they are done at once.
        kill_after: the first job is killed before the answer to this many commits of its scores.
    """

    folder: Path
    runs: bool = True
    kill_after: int | None = None
    jobs: list[RecordedJob] = field(default_factory=list)
    commits: int = 0

    def list_routes(self) -> list[Route]:
        """The routes of the API, and one that counts commits of scores, before those of the Hub."""
        routes = Routes()
        routes("GET", "/api/jobs/hardware")(self._list_hardware)
        routes("POST", "/api/jobs/{owner}")(self._start)
        routes("GET", "/api/jobs/{owner}/{id}")(self._inspect)
        routes("GET", "/api/jobs/{owner}/{id}/logs")(self._stream_logs)
        routes("POST", "/api/models/{repo}/commit/hfsoup-journal")(self._commit)
        return [*routes.rows, *app._ROUTES]

    def stop(self) -> None:
        """Leave no process behind."""
        for job in self.jobs:
            if job.process:
                job.process.kill()
                job.process.wait()

    def _list_hardware(self, request: HubRequest) -> Response:
        rows = []
        for name, gpus in HARDWARE.items():
            gpu = {"type": "gpu", "model": "A10G", "quantity": str(gpus), "vram": "24 GB", "manufacturer": "Nvidia"}
            cost = {"unitCostMicroUSD": 20000, "unitCostUSD": 0.02, "unitLabel": "minute"}
            size = {"prettyName": name, "cpu": "4 vCPU", "ram": "15 GB", "ephemeralStorage": "110 GB"}
            rows.append({"name": name, **size, "accelerator": gpu if gpus else None, **cost})
        return reply(rows)

    def _start(self, request: HubRequest) -> Response:
        if request.user is None:
            raise HttpError(401, "Invalid username or password.")
        number = len(self.jobs) + 1
        job = RecordedJob(f"job{number}", request.params["owner"], request.json(), self.folder / f"job{number}")
        self.jobs.append(job)
        if self.runs:
            job.start()
        return reply(self._describe(job))

    def _inspect(self, request: HubRequest) -> Response:
        return reply(self._describe(self._find(request)))

    def _stream_logs(self, request: HubRequest) -> Response:
        return StreamingResponse(self._events(self._find(request)), media_type="text/event-stream")

    def _events(self, job: RecordedJob) -> Iterator[str]:
        sent = 0
        for _ in itertools.count():
            ended = job.stage != "RUNNING"
            lines = job.log.split("\n")
            for line in lines[sent : len(lines) - 1]:
                stamp = datetime.now(UTC).isoformat()
                yield f"data: {json.dumps({'timestamp': stamp, 'data': line})}\n\n"
            sent = max(sent, len(lines) - 1)
            if ended:
                return
            time.sleep(0.1)

    def _commit(self, request: HubRequest) -> Response:
        """As the Hub does; the job that has sent enough is killed before it has an answer."""
        path = f"/api/models/{request.params['repo']}/commit/hfsoup-journal"
        found = find_route([r for r in app._ROUTES if r.handler != self._commit], "POST", path)
        assert found is not None
        route, request.params = found
        answer = route.handler(request)
        self.commits += 1
        if self.commits == self.kill_after:
            job = self.jobs[0]
            assert job.process is not None
            job.process.kill()
            job.process.wait()
        return answer  # type: ignore[return-value]

    def _find(self, request: HubRequest) -> RecordedJob:
        found = [job for job in self.jobs if job.id == request.params["id"]]
        if not found:
            raise HttpError(404, "Job not found")
        return found[0]

    def _describe(self, job: RecordedJob) -> dict[str, Any]:
        return {
            "id": job.id,
            "createdAt": "2026-11-30T12:00:00.000Z",
            "dockerImage": job.spec["dockerImage"],
            "command": job.spec["command"],
            "environment": job.spec["environment"],
            "flavor": job.spec["flavor"],
            "status": {"stage": job.stage, "message": None},
            "owner": {"id": "1", "name": job.owner, "type": "user"},
        }
