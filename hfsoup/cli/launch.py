"""Start the processes that `accelerate launch --num_processes N` does not start on a machine without GPUs."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence

FLAGS = ("--num_processes", "--num-processes")


def relaunch() -> None:
    """Start the missing processes and exit with their code; do nothing if none are missing.

    On a CPU accelerate 1.15 runs one process whatever `--num_processes` says, so the number is read from its command
    line.
    """
    if "ACCELERATE_MIXED_PRECISION" not in os.environ or "WORLD_SIZE" in os.environ:
        return
    from psutil import Process

    parent = Process().parent()
    count = count_processes(parent.cmdline()) if parent else 1
    if count > 1:
        sys.exit(_launch_processes(count, sys.argv[1:]))


def count_processes(command: Sequence[str]) -> int:
    """The number of processes in an `accelerate launch` command line; 1 if it does not say."""
    own = list(command[: command.index("-m", 3)]) if "-m" in command[3:] else list(command)
    for word, following in zip(own, [*own[1:], ""], strict=True):
        name, _, value = word.partition("=")
        if name in FLAGS and (value or following).isdigit():
            return int(value or following)
    return 1


def _launch_processes(count: int, arguments: list[str]) -> int:
    """Run this program in `count` processes; one that fails ends the others. The first failure's exit code."""
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.getLogger("torch.distributed").setLevel(logging.CRITICAL)
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=count,
        run_id="hfsoup",
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        monitor_interval=0.1,
    )
    try:
        elastic_launch(config, sys.executable)("-m", "hfsoup", *arguments)
    except ChildFailedError as error:
        # A process that misses a killed one may be noticed first.
        killed = [(rank, -failure.exitcode) for rank, failure in error.failures.items() if failure.exitcode < 0]
        if not killed:
            return int(error.get_first_failure()[1].exitcode)
        rank, signal = killed[0]
        print(f"error: process {rank} of {count} was killed by signal {signal}", file=sys.stderr)
        print("  try: the same command again; cached scores are reused", file=sys.stderr)
        return signal
    return 0
