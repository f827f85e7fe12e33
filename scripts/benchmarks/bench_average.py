"""Averaging: whole processes, the averaging alone, very many tensors, half precision, memory."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from checkpoints import LARGE, cast, checked, family, linked, remove
from peers import Command, bare_average, load_file_average, safe_open_average
from setting import Setting, average_into, everyone
from timing import Row, here, medians, missing, peak_anonymous, process, row

from hfsoup.averaging.averager import Averager
from hfsoup.ingredients.family import Family
from hfsoup.utils.hashing import hash_blake3, hash_file
from hfsoup.utils.threads import count_processors

SECTION = "average"
COUNT = 8
NOTE = (
    "hfsoup hashes every byte that it reads and writes, and syncs (fsync) its output; mergekit and the loops do "
    "neither. On /dev/shm a sync costs nothing."
)


def run(setting: Setting) -> Iterator[Row]:
    """The section's rows."""
    home = setting.home / "average"
    folders = family(home / "full", setting.large_model, COUNT)
    yield from _processes(setting, folders)
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


def _processes(setting: Setting, folders: list[Path]) -> Iterator[Row]:
    """A bake against the tools that do the same, on a disk and in memory."""
    for place in dict.fromkeys((setting.home, setting.fast)):
        title = f"whole process, 8 x ViT-B, written to {'the disk' if place == setting.home else '/dev/shm'}"  # noqa: S108
        # What the first round read is still in the page cache in the second.
        yield from _beside(setting, title, folders, place, setting.repeats, warm=place == setting.home)
    yield from _hashing(setting, folders)


def _hashing(setting: Setting, folders: list[Path]) -> Iterator[Row]:
    """What no bake can do without: BLAKE3 of what is read and sha256 of as much as is written, on all processors."""
    files = [folder / "model.safetensors" for folder in folders]
    output = setting.fast / "merged"
    what, against = "hashing alone of what is read and written", "mergekit-pytorch linear"
    merge = setting.peers.mergekit(folders, output, setting.fast / "merge.yml")
    if merge is None:
        yield missing(SECTION, what, against)
        return

    def hashed() -> None:
        with ThreadPoolExecutor(count_processors()) as pool:
            written = pool.submit(hash_file, files[0])
            list(pool.map(hash_blake3, files))
            written.result()

    ways = [here(hashed), process(merge, before=partial(_clear, [output]))]
    yield row(SECTION, what, against, medians(ways, setting.repeats, warm=False))
    _clear([output])


def _beside(
    setting: Setting, what: str, folders: list[Path], place: Path, repeats: int, *, warm: bool, target: str = "0.15"
) -> Iterator[Row]:
    """Whole processes, in turn."""
    outputs = [place / name for name in ("soup", "merged", "timm.pth")]
    bake: Command = setting.hfsoup("bake", *folders, "--output", outputs[0], "--quiet")
    others = {
        "mergekit-pytorch linear": setting.peers.mergekit(folders, outputs[1], place / "merge.yml"),
        "timm's avg_checkpoints": setting.peers.timm(folders[0].parent, outputs[2]),
    }
    there = {name: command for name, command in others.items() if command}
    ways = [process(command, before=partial(_clear, outputs)) for command in (bake, *there.values())]
    times = medians(ways, repeats, warm=warm) if there else []
    for name in others:
        goal = target if name.startswith("mergekit") else ""
        if name in there:
            other = times[1 + list(there).index(name)]
            yield row(SECTION, what, name, (times[0], other), goal)
        else:
            yield missing(SECTION, what, name, goal)
    _clear(outputs)


def _clear(outputs: list[Path]) -> None:
    for path in outputs:
        if path.is_dir():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)


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
    yield from _beside(setting, f"{what}, whole process", folders, place, 1, warm=False, target="")


def _opened(family: Family, path: Path) -> None:
    with Averager(family) as averager:
        average_into(averager, everyone(len(family)), path)
