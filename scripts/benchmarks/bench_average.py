"""Averaging: whole processes, the averaging alone, very many tensors, half precision, memory."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from checkpoints import LARGE, cast, checked, family, linked, remove
from peers import Command, bare_average, load_file_average, safe_open_average
from setting import Setting, average_into, everyone
from timing import Row, here, medians, missing, peak_anonymous, process, row

from hfsoup.average import Averager
from hfsoup.types import Family

SECTION = "average"
COUNT = 8
NOTE = (
    "hfsoup reads and hashes every input byte, hashes and syncs (fsync) the output; mergekit and the loops do neither. "
    "On /dev/shm a sync costs nothing."
)


def run(setting: Setting) -> Iterator[Row]:
    """The section's rows."""
    home = setting.home / "average"
    folders = family(home / "full", setting.large_model, COUNT)
    yield from _processes(setting, folders, "whole process, 8 x ViT-B", "0.15")
    yield from _alone(setting, folders)
    yield from _types(setting, folders, home)
    yield from _memory(setting, folders, home)
    remove(home)
    scattered = family(home, setting.scattered_model, COUNT)
    yield from _scattered(setting, scattered)
    remove(home)
    if setting.large:
        many = linked(family(home / "one", LARGE, 1, shards=4), home / "linked", COUNT)
        bake = setting.hfsoup("bake", *many, "--output", home / "soup", "--quiet")
        yield Row(SECTION, "private memory, 8 x 5 GB in 4 shards", "", peak_anonymous(bake), "MB", target="400")
        remove(home)


def _processes(setting: Setting, folders: list[Path], what: str, target: str) -> Iterator[Row]:
    """A bake against the tools that do the same, on a disk and in memory."""
    for place, name in ((setting.home, "disk"), (setting.fast, "/dev/shm")):  # noqa: S108
        if name != "disk" and setting.fast == setting.home:
            continue
        title = f"{what}, written to {'the disk' if name == 'disk' else name}"
        output = place / "soup"
        bake = setting.hfsoup("bake", *folders, "--output", output, "--quiet")
        merge = setting.peers.mergekit(folders, place / "merged", place / "merge.yml")
        timm = setting.peers.timm(folders[0].parent, place / "timm.pth")
        for against, command in (("mergekit-pytorch linear", merge), ("timm's avg_checkpoints", timm)):
            goal = target if command is merge else ""
            yield _process(setting, title, against, (bake, command), (output, place / "merged"), goal)
        remove(output, place / "merged")


def _process(
    setting: Setting,
    what: str,
    against: str,
    commands: tuple[Command, Command | None],
    outputs: tuple[Path, ...],
    target: str = "",
) -> Row:
    bake, other = commands
    if other is None:
        return missing(SECTION, what, against, target)
    clear = partial(_clear, outputs)
    ways = [process(bake, before=clear), process(other, before=clear)]
    return row(SECTION, what, against, medians(ways, setting.repeats), target)


def _clear(outputs: tuple[Path, ...]) -> None:
    for path in outputs:
        shutil.rmtree(path, ignore_errors=True)
        for single in path.parent.glob("timm*"):
            single.unlink()


def _alone(setting: Setting, folders: list[Path]) -> Iterator[Row]:
    """The averaging itself against the least that has to be done, and against the usual loop."""
    files = [folder / "model.safetensors" for folder in folders]
    ours, bare, usual = (setting.fast / name for name in ("ours", "bare", "usual"))
    with Averager(checked(folders)) as averager:
        ways = [
            here(partial(average_into, averager, everyone(COUNT), ours)),
            here(partial(bare_average, files, bare)),
            here(partial(load_file_average, files, usual)),
        ]
        mine, least, loop = medians(ways, setting.often)
    yield row(SECTION, "averaging itself, 8 x ViT-B", "bare blockwise loop", (mine, least), "1.5")
    yield row(SECTION, "averaging itself, 8 x ViT-B", "load_file, add, divide, save_file", (mine, loop))
    for path in (ours, bare, usual):
        path.unlink()


def _types(setting: Setting, folders: list[Path], home: Path) -> Iterator[Row]:
    """Half precision against full."""
    single = checked(folders)
    for dtype, name in (("F16", "float16"), ("BF16", "bfloat16")):
        half = checked(cast(folders, home / name, dtype, setting.large_model))
        with Averager(half) as narrow, Averager(single) as wide:
            ways = [here(partial(average_into, a, everyone(COUNT), setting.fast / "half")) for a in (narrow, wide)]
            yield row(SECTION, f"averaging itself, {name}", "float32", medians(ways, setting.often))
        (setting.fast / "half").unlink()
        remove(home / name)


def _memory(setting: Setting, folders: list[Path], home: Path) -> Iterator[Row]:
    """The most private memory of a whole bake, by the number of ingredients."""
    for count in (2, 8, 64):
        many = linked(folders, home / "linked", count)
        bake = setting.hfsoup("bake", *many, "--output", setting.fast / "soup", "--quiet")
        yield Row(SECTION, f"private memory, {count} x ViT-B", "", peak_anonymous(bake), "MB", target="400")
        remove(home / "linked", setting.fast / "soup")
    merge = setting.peers.mergekit(folders, setting.fast / "merged", home / "merge.yml")
    if merge:
        yield Row(SECTION, "private memory, 8 x ViT-B, of mergekit-pytorch", "", peak_anonymous(merge), "MB")
        remove(setting.fast / "merged")


def _scattered(setting: Setting, folders: list[Path]) -> Iterator[Row]:
    """Very many tiny tensors, where what is done for each one shows."""
    files, place = [folder / "model.safetensors" for folder in folders], setting.fast
    ways = [
        here(partial(_opened, checked(folders), place / "ours")),
        here(partial(safe_open_average, files, place / "loop")),
    ]
    what = f"8 x {len(setting.scattered_model.shapes):,} tiny tensors"
    yield row(SECTION, f"{what}, opening and averaging", "safe_open loop", medians(ways, setting.often), "2")
    bake = setting.hfsoup("bake", *folders, "--output", place / "soup", "--quiet")
    merge = setting.peers.mergekit(folders, place / "merged", place / "merge.yml")
    outputs = (place / "soup", place / "merged")
    yield _process(setting, f"{what}, whole process", "mergekit-pytorch linear", (bake, merge), outputs)
    _clear(outputs)


def _opened(family: Family, path: Path) -> None:
    with Averager(family) as averager:
        average_into(averager, everyone(len(family)), path)
