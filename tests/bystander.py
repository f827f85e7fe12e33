"""A program that uses hfsoup as a library: prints, as JSON, what of its process is another after each bake.

python bystander.py FIRST SECOND DATASET KIND...
"""

from __future__ import annotations

import json
import locale
import logging
import os
import random
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import accelerate  # noqa: F401 - libraries change things of their own when they are imported, which is not hfsoup's
import datasets
import evaluate  # noqa: F401
import httpx2
import huggingface_hub
import numpy as np
import PIL.Image
import PIL.ImageFile
import rich.style  # noqa: F401 - draws a random number
import sklearn  # noqa: F401
import torch
import transformers
from huggingface_hub.utils import _http, are_progress_bars_disabled

import hfsoup

# What the user has set, each unlike its default.
os.environ["MINE"] = "1"
torch.manual_seed(7)
np.random.seed(7)
random.seed(7)
torch.set_num_threads(3)
logging.getLogger().setLevel(logging.INFO)
datasets.enable_progress_bars()
transformers.logging.set_verbosity_info()
datasets.logging.set_verbosity_info()
warnings.simplefilter("error", BytesWarning)
CLIENT = httpx2.Client()
huggingface_hub.set_client_factory(lambda: CLIENT)


def levels() -> dict[str, Any]:
    """Level, handlers and filters of every logger that there is."""
    loggers = {
        "": logging.getLogger(),
        **{n: x for n, x in logging.root.manager.loggerDict.items() if hasattr(x, "level")},
    }
    return {name: [log.level, len(log.handlers), len(log.filters), log.propagate] for name, log in loggers.items()}  # type: ignore[union-attr]


def snapshot() -> dict[str, Any]:
    """The state of this process that a library could disturb."""
    constants = {name: repr(value) for name, value in vars(huggingface_hub.constants).items() if name.isupper()}
    backends = [
        torch.backends.cudnn.deterministic,
        torch.backends.cudnn.benchmark,
        torch.backends.cuda.matmul.allow_tf32,
    ]
    return {
        "environment": dict(os.environ),
        "folder": os.getcwd(),  # noqa: PTH109
        "mask": (os.umask(0o22), os.umask(0o22))[1],
        "torch threads": torch.get_num_threads(),
        "torch random": torch.get_rng_state().tolist(),
        "torch type": str(torch.get_default_dtype()),
        "torch gradient": torch.is_grad_enabled(),
        "torch algorithms": [torch.are_deterministic_algorithms_enabled(), *backends],
        "numpy random": str(np.random.get_state()),
        "numpy errors": np.geterr(),
        "random": str(random.getstate()),
        "HTTP client": [id(_http.get_session()), _http.get_session() is CLIENT, str(CLIENT.timeout), CLIENT.is_closed],
        "Hub's constants": constants,
        "Hub's progress bars": are_progress_bars_disabled(),
        "progress bars of datasets": datasets.utils.are_progress_bars_disabled(),
        "caching of datasets": datasets.is_caching_enabled(),
        "verbosity": [transformers.logging.get_verbosity(), datasets.logging.get_verbosity()],
        "logging": levels(),
        "disabled logging": logging.root.manager.disable,
        "warnings": [str(entry) for entry in warnings.filters],
        "hooks": [str(sys.excepthook), str(threading.excepthook), str(sys.displayhook)],
        "streams": [id(sys.stdout), id(sys.stderr)],
        "signals": [str(signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM)],
        "images": [PIL.Image.MAX_IMAGE_PIXELS, PIL.ImageFile.LOAD_TRUNCATED_IMAGES],
        "locale": locale.setlocale(locale.LC_ALL),
        "paths": list(sys.path),
        "recursion": sys.getrecursionlimit(),
    }


def fail(a: str, b: str, data: str) -> None:
    """A bake that ends with an error in its middle."""
    try:
        hfsoup.bake(a, b, dataset=data, test_split="nothing")
    except hfsoup.SoupError:
        return
    raise AssertionError("expected an error")


def push(a: str, b: str, data: str) -> None:
    """A bake that pulls and pushes, and a pipeline."""
    soup = hfsoup.bake(a, b, dataset=data, output="pushed", push="kit/bystander")
    soup.pipeline()


KINDS: dict[str, Callable[[str, str, str], object]] = {
    "greedy": lambda a, b, data: hfsoup.bake(a, b, dataset=data, output="greedy"),
    "push": push,
    "fail": fail,
    "uniform": lambda a, b, _: hfsoup.bake(a, b, output="uniform"),
    "learned": lambda a, b, data: hfsoup.bake(a, b, dataset=data, recipe="learned", output="learned"),
    "search": lambda a, b, data: hfsoup.bake(a, b, dataset=data, recipe="search", budget=4, output="search"),
    "auto": lambda a, b, data: hfsoup.bake(a, b, dataset=data, recipe="auto", output="auto"),
    "fisher": lambda a, b, data: hfsoup.bake(a, b, dataset=data, merge="fisher", output="fisher"),
    "regmean": lambda a, b, data: hfsoup.bake(a, b, dataset=data, merge="regmean", output="regmean"),
    "align": lambda a, b, data: hfsoup.bake(a, b, dataset=data, align="activations", output="align"),
    "fit": lambda a, b, data: hfsoup.bake(a, b, dataset=data, align="activations", fit=True, output="fit"),
    "distill": lambda a, b, data: hfsoup.bake(a, b, dataset=data, distill=1, output="distill"),
    "report": lambda a, b, data: hfsoup.bake(
        a, b, dataset=data, figures=True, shifts=True, ensemble=True, output="all"
    ),
}


def list_differences(before: dict[str, Any], after: dict[str, Any]) -> Iterator[str]:
    """What differs, of a dictionary by its keys."""
    for name, old in before.items():
        new = after[name]
        if isinstance(old, dict):
            yield from (
                f"{name}, {key}: {old.get(key)} became {new.get(key)}"
                for key in sorted({*old, *new})
                if old.get(key) != new.get(key)
            )
        elif old != new:
            yield f"{name}: {old!s:.300} became {new!s:.300}"


def main() -> None:
    """Bake each kind, and print what it changed."""
    first, second, data, *kinds = sys.argv[1:]
    differing: dict[str, list[str]] = {}
    for kind in kinds:
        before = snapshot()
        KINDS[kind](first, second, data)
        after = snapshot()
        known = {name: before["logging"].get(name, level) for name, level in after["logging"].items()}
        before["logging"] = {name: level for name, level in known.items() if name in before["logging"]}
        after["logging"] = {name: after["logging"].get(name) for name in before["logging"]}
        differing[kind] = list(list_differences(before, after))
    sys.stdout.write("\n" + json.dumps(differing) + "\n")


if __name__ == "__main__":
    main()
