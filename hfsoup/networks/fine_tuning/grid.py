"""The hyper-parameters of a sweep's runs: drawn at random, or read from a JSON file."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from hfsoup.utils.errors import UsageError

RATES, EPOCHS = (1e-5, 1e-4), (4, 16)
"""What learning rates and epochs are drawn between, both included."""
DECAYS, MOST_SMOOTHING, MOST_MIXUP = (10**-4, 10**-0.2), 0.25, 0.9
"""What weight decays are drawn between; label smoothing and mixup are 0 for every second run, else up to these."""
DIGITS = 3
"""Significant digits of what is drawn."""
SCHEDULES = (
    *("linear", "cosine", "cosine_with_restarts", "polynomial", "constant", "constant_with_warmup", "inverse_sqrt"),
)
"""The schedules of transformers that need neither arguments of their own nor scores during the training."""
LAST_RATE = 1e-7
"""The rate at which the schedule `polynomial` ends, which the learning rate must be above."""


@dataclass(frozen=True)
class Run:
    """The hyper-parameters of one fine-tuning, under the names that `transformers.TrainingArguments` gives them.

    Its own are `augment`, `mixup` (the Beta distribution's parameter, 0 for none; arXiv 1710.09412) and `samples`, the
    share of the training images that this run sees, drawn with its seed.
    """

    learning_rate: float = 5e-5
    lr_scheduler_type: str = "linear"
    weight_decay: float = 0.01
    label_smoothing_factor: float = 0.0
    augment: bool = False
    mixup: float = 0.0
    samples: float = 1.0
    seed: int = 0
    num_train_epochs: float = 3.0


def draw_runs(
    count: int,
    *,
    seed: int = 0,
    rates: tuple[float, float] = RATES,
    epochs: tuple[int, int] = EPOCHS,
) -> tuple[Run, ...]:
    """Draw runs that differ in everything, as the random search of model soups does (arXiv 2203.05482).

    Learning rates and weight decays are drawn on a logarithmic scale. The first runs are the same for any count, so a
    sweep can be continued with more of them.

    Args:
        count: how many runs.
        seed: of the draw; run n trains with the seed `seed` + n.
        rates: the lowest and the highest learning rate.
        epochs: the fewest and the most epochs.

    Raises:
        UsageError: no run, or bounds that are not positive and in order.
    """
    if count < 1:
        raise UsageError(f"expected at least one run, found {count}", hint="--runs 8")
    for flag, (low, high) in (("--learning-rate", rates), ("--epochs", epochs)):
        if not 0 < low <= high < float("inf"):
            raise UsageError(f"{flag} takes a lowest and a highest value above 0, found {low:g} {high:g}")
    return tuple(_draw_run(n, seed, rates, epochs) for n in range(count))


def _draw_run(n: int, seed: int, rates: tuple[float, float], epochs: tuple[int, int]) -> Run:
    random = np.random.default_rng([abs(seed), int(seed < 0), n])
    rate, decay = (np.exp(random.uniform(*np.log(bounds))) for bounds in (rates, DECAYS))
    smoothing, mixup = random.uniform(0, MOST_SMOOTHING), random.uniform(0, MOST_MIXUP)
    smoothed, mixed, augmented = random.random(3) < 0.5
    return Run(
        learning_rate=_round(rate),
        weight_decay=_round(decay),
        label_smoothing_factor=_round(smoothing) if smoothed else 0.0,
        mixup=_round(mixup) if mixed else 0.0,
        augment=bool(augmented),
        num_train_epochs=float(random.integers(epochs[0], epochs[1], endpoint=True)),
        seed=seed + n,
    )


def _round(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")


LIMITS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "learning_rate": (lambda value: 0 <= value <= sys.float_info.max, "of at least 0"),
    "lr_scheduler_type": (lambda value: value in SCHEDULES, f"to be one of {', '.join(SCHEDULES)}"),
    "weight_decay": (lambda value: 0 <= value <= sys.float_info.max, "of at least 0"),
    "label_smoothing_factor": (lambda value: 0 <= value < 1, "from 0 to below 1"),
    "mixup": (lambda value: 0 <= value <= sys.float_info.max, "of at least 0"),
    "samples": (lambda value: 0 < value <= 1, "above 0 and up to 1, a share of the images"),
    "seed": (lambda value: 0 <= value < 1 << 32, "from 0 to 4294967295"),
    "num_train_epochs": (lambda value: 0 < value <= sys.float_info.max, "above 0"),
}
"""What values a field may have, and that in words; NaN is within no limits."""


def read_grid(path: Path) -> tuple[Run, ...]:
    """Read runs from a JSON list of objects of any of `Run`'s fields.

    Raises:
        UsageError: the file cannot be read, or an entry has an unknown field, a value of another type or out of range.
    """
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"the grid cannot be read as JSON: {error}", where=str(path)) from error
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, dict) for entry in entries):
        raise UsageError("expected a JSON list of objects, one for each run", where=str(path))
    return tuple(_read_run(entry, f"{path}, entry {number}") for number, entry in enumerate(entries))


def _read_run(entry: dict[str, Any], where: str) -> Run:
    known = {field.name: str(field.type) for field in fields(Run)}
    for name, value in entry.items():
        if name not in known:
            raise UsageError(f"unknown hyper-parameter {name!r}; known are {', '.join(known)}", where=where)
        if type(value).__name__ not in (known[name], "int" if known[name] == "float" else ""):
            raise UsageError(f"expected {name} of type {known[name]}, found {value!r}", where=where)
        fits, limit = LIMITS.get(name, (lambda _: True, ""))
        if not fits(value):
            raise UsageError(f"expected {name} {limit}, found {value!r}", where=where)
    # A whole number stands for the same float, in the record too.
    values: dict[str, Any] = {n: float(value) if known[n] == "float" else value for n, value in entry.items()}
    run = Run(**values)
    if run.lr_scheduler_type == "polynomial" and run.learning_rate <= LAST_RATE:
        what = f"expected learning_rate above {LAST_RATE:g}, where polynomial ends, found {run.learning_rate:g}"
        raise UsageError(what, where=where)
    return run
