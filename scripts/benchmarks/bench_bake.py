"""A whole bake as a user meets it: a greedy soup from files to files, against the loops that people write."""

from __future__ import annotations

import io
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import numpy as np
from bench_race import COUNT, models
from checkpoints import remove
from peers import Command
from setting import Setting
from timing import Row, Time, process, row

SECTION = "bake"
IMAGES, TESTS, SIDE = 2000, 200, 224
NOTE = (
    f"Whole processes: a greedy soup of {COUNT} small ViTs over {IMAGES:,} JPEGs of {SIDE} pixels, the best model and "
    f"the soup tested on {TESTS}, the soup written. Cold: hfsoup's cache is empty; warm: the same command again. The "
    "evaluator saw every tenth image; its time is that of starting and ten times that of scoring."
)


def run(setting: Setting) -> Iterator[Row]:
    """The section's rows."""
    home = setting.home / "bake"
    folders, data = models(home), jpegs(home / "data", setting)
    cache, soup, plain = setting.home / "cache", home / "soup", home / "plain"
    words: Command = ["bake", *folders, "--recipe", "greedy", "--dataset", data, "--allow-duplicates"]
    words += ["--device", "cpu", "--quiet", "--output", soup, "--json", home / "soup.json"]
    bake = setting.hfsoup(*words)
    script = Path(__file__).with_name("greedy_loop.py")
    found: dict[str, list[Time]] = {"cold": [], "warm": [], "loader": [], "evaluator": []}
    for _ in range(1 if setting.quick else 2):
        shutil.rmtree(cache, ignore_errors=True)
        for name in ("cold", "warm"):
            found[name].append(process(bake, before=lambda: remove(soup))())
        for name in ("loader", "evaluator"):
            found[name].append(process([sys.executable, script, name, data, plain / name, *folders])())
    cold, warm, loader, tenth = (Time(median(t.wall for t in v), median(t.cpu for t in v)) for v in found.values())
    searched = json.loads((plain / "evaluator" / "decisions.json").read_text())["seconds"]
    evaluator = Time(tenth.wall + 9 * searched, tenth.cpu * (tenth.wall + 9 * searched) / tenth.wall)
    for name, ours, goal in (("cold", cold, "0.35"), ("warm", warm, "0.1")):
        yield row(SECTION, f"greedy soup, {name}", "DataLoader and load_state_dict", (ours, loader), goal)
        yield row(SECTION, f"greedy soup, {name}", "evaluate.evaluator", (ours, evaluator))
    what, against = "ingredients that differ", "DataLoader and load_state_dict"
    yield Row(SECTION, what, against, differing(home, plain), target="none")
    remove(home)


def differing(home: Path, plain: Path) -> str:
    """The ingredients that only one of hfsoup and the loader took into the soup."""
    ours = {Path(i["id"]).name for i in json.loads((home / "soup.json").read_text())["ingredients"] if i["weight"]}
    theirs = set(json.loads((plain / "loader" / "decisions.json").read_text())["members"])
    return ", ".join(sorted(ours ^ theirs)) or "none"


def jpegs(folder: Path, setting: Setting) -> Path:
    """Digits and their negatives as noisy JPEGs, each with noise of its own, in parquet files of two splits."""
    from datasets import ClassLabel, Dataset, Features, Image
    from PIL import Image as Pictures
    from PIL import ImageOps

    from hfsoup.cli.demo.digits import NAMES, make_digits

    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    features = Features({"image": Image(), "label": ClassLabel(names=[*NAMES, *(f"{n}-swapped" for n in NAMES)])})
    for name, count in (("validation", IMAGES), ("test", TESTS)):
        digits = make_digits()[name]
        rows: dict[str, list[object]] = {"image": [], "label": []}
        for n in range(count // 20 if setting.quick else count):
            digit, swap = digits[n % len(digits)], int(generator.integers(2))
            small = ImageOps.invert(digit["image"]) if swap else digit["image"]
            values = np.asarray(small.resize((SIDE, SIDE), Pictures.Resampling.NEAREST), np.int16)
            values = (values + generator.normal(0, 40, values.shape)).clip(0, 255).astype(np.uint8)
            held = io.BytesIO()
            Pictures.fromarray(values).save(held, "JPEG", quality=90)
            rows["image"].append({"bytes": held.getvalue(), "path": None})
            rows["label"].append(digit["label"] + 10 * swap)
        Dataset.from_dict(rows, features=features).to_parquet(folder / f"{name}-00000-of-00001.parquet")
    return folder
