"""Scale: how the cost grows with the number of ingredients and of images, and whether the line is straight."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial

import numpy as np
from bench_evaluate import scoring, store
from checkpoints import checked, family, remove, small
from setting import Setting, average_into, everyone
from timing import Row, Time, Way, here, medians, straightness

from hfsoup.averaging.averager import Averager

SECTION = "scale"
INGREDIENTS = (2, 4, 8, 16, 32, 64)
IMAGES = (1000, 2000, 4000, 7000, 10000)
SIDE = 32
CONFIG = {
    "image_size": SIDE,
    "patch_size": 8,
    "hidden_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "intermediate_size": 256,
}
NOTE = "R² of the least-squares line through the medians; 1 is a straight line."


def run(setting: Setting) -> Iterator[Row]:
    """The section's rows."""
    yield from _line("ingredients", INGREDIENTS, _averaging(setting))
    yield from _line("images", IMAGES, _evaluation(setting))


def _line(what: str, counts: tuple[int, ...], times: list[Time]) -> Iterator[Row]:
    first, last = times[0].wall / counts[0], times[-1].wall / counts[-1]
    straight = straightness(counts, [t.wall for t in times])
    title = f"cost of {counts[0]:,} to {counts[-1]:,} {what}, R²"
    yield Row(SECTION, title, "a straight line", straight, target="1", digits=4, times=tuple(times))
    yield Row(SECTION, f"cost of each of {counts[-1]:,} {what}", f"each of {counts[0]:,}", last / first)


def _averaging(setting: Setting) -> list[Time]:
    home = setting.home / "scale"
    folders = family(home, setting.middle_model, INGREDIENTS[-1])
    ways: list[Way] = []
    with ExitStack() as stack:
        for count in INGREDIENTS:
            averager = stack.enter_context(Averager(checked(folders[:count])))
            ways.append(here(partial(average_into, averager, everyone(count), setting.fast / "scaled")))
        times = medians(ways, setting.often)
    remove(home)
    return times


def _evaluation(setting: Setting) -> list[Time]:
    home = setting.home / "scale"
    counts = [count // 20 for count in IMAGES] if setting.quick else IMAGES
    folders = small("vit", home, setting.repeats + 1, CONFIG, SIDE)
    pixels = np.random.default_rng(0).integers(0, 256, (counts[-1], 3, SIDE, SIDE), np.uint8)
    with Averager(checked(folders)) as averager:
        times = medians([scoring(averager, store(home, pixels[:count])) for count in counts], setting.repeats)
    remove(home)
    return times
