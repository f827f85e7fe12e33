"""Check scoring on a GPU: throughput against a bare loop, decisions against the processor, and batches that do not fit.

Everything is made on the spot in a temporary folder; nothing is fetched. On a processor (`--device cpu`) sizes are tiny
and the figures mean nothing: it shows that the script runs.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from checkpoints import Vit

sys.path[:0] = [str(Path(__file__).parent / "benchmarks"), str(Path(__file__).parents[1])]

WIDTHS = (46, 40, 34, 20)
ROUNDS = 3
DECISIVE = ("action", "ingredient", "accepted")
Row = tuple[str, str, str, str]


def main() -> None:
    """Run all checks and print one table."""
    parser = argparse.ArgumentParser(prog="scripts/gpu_check", description=__doc__)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"), help="where to score [cuda]")
    device = parser.parse_args().device
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="hfsoup-gpu-check-") as home:
        # Read by the libraries when they are first imported, which is below.
        os.environ |= {"HFSOUP_CACHE": f"{home}/cache", "HF_HOME": f"{home}/hf", "HF_HUB_OFFLINE": "1"}
        os.environ |= {"HF_DATASETS_DISABLE_PROGRESS_BARS": "1", "TRANSFORMERS_VERBOSITY": "error"}
        print(_line(("what", "against", "found", "expected")))
        print(_line(tuple("-" * width for width in WIDTHS)))  # type: ignore[arg-type]
        for check in (describe, measure_throughput, compare_decisions, exhaust_memory):
            for row in check(Path(home), device):
                print(_line(row), flush=True)
    print(f"\ntook {time.perf_counter() - begun:.0f} s")


def _line(cells: Row) -> str:
    return f"| {' | '.join(cell.ljust(width) for cell, width in zip(cells, WIDTHS, strict=True))} |"


def describe(_: Path, device: str) -> Iterator[Row]:
    """What it runs on."""
    import torch

    from hfsoup.evaluation.precision import choose_precision, describe_device

    if device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("torch finds no CUDA device; scripts/gpu_check --device cpu shows that this script runs")
    precision = choose_precision("auto", torch.device(device))
    yield f"device: {describe_device(torch.device(device))}", f"torch {torch.__version__}", "", ""
    yield "--precision auto", "", f"candidates {precision.selection}, test {precision.test}", ""


def measure_throughput(home: Path, device: str) -> Iterator[Row]:
    """Images a second of hfsoup's passes, from the file of prepared images on, against a loop over images in place."""
    import numpy as np
    from bench_evaluate import store
    from checkpoints import VIT_B, Vit, checked, family

    size, sizes, images = (VIT_B, (64, 256), 4096) if device == "cuda" else (Vit(64, 2, 32), (8, 16), 128)
    pixels = store(home, np.random.default_rng(0).integers(0, 256, (images, 3, size.side, size.side), np.uint8))
    found = checked(family(home / "throughput", size, 2))
    for precision in ("float32", "bf16"):
        for batch in sizes:
            ours, bare = _measure_passes(found, pixels, device, precision, batch, size)
            what = f"{size.hidden} wide ViT, {size.side} px, {precision}, batches of {batch}"
            yield what, f"bare loop, {images / bare:,.0f} images/s", f"{bare / ours:.2f}", "0.95 or more"


def _measure_passes(
    family: Any, pixels: Any, device: str, precision: str, batch: int, size: Vit
) -> tuple[float, float]:
    """The least seconds of hfsoup's passes over all images, and of the bare loop, in turn."""
    import numpy as np
    import torch
    from checkpoints import CLASSES

    from hfsoup.averaging.averager import Averager
    from hfsoup.averaging.mix import Mix
    from hfsoup.data.dataset_split import Split
    from hfsoup.evaluation.batches import Batches, fetch
    from hfsoup.evaluation.candidate import Candidate
    from hfsoup.evaluation.metrics import load_metric
    from hfsoup.evaluation.precision import computing_in
    from hfsoup.evaluation.scores import Precision
    from hfsoup.utils.distributed import World

    world, count = World(device), len(pixels)
    rows, labels = np.arange(count), np.random.default_rng(0).integers(0, CLASSES, count)
    split = Split("validation", "all", "random", pixels, labels, rows, "validation", "image")
    resident = torch.randn(batch, 3, size.side, size.side, device=world.device)
    with Averager(family) as averager:
        candidate = Candidate(averager, world.device, widen=True)
        model = candidate.load(Mix.of((0, 1), 2))
        batches = Batches(candidate, world, batch, load_metric("accuracy"), Precision(precision, precision), None)
        parts = [rows[at : at + batch] for at in range(0, count, batch)]

        def ours() -> None:
            with closing(batches.run(model, split, parts, batch, logits=False)) as outputs:
                fetch(list(outputs))

        def bare() -> None:
            with torch.inference_mode(), computing_in(precision, world.device):
                found = [model(pixel_values=resident).logits.argmax(1) for _ in parts]
                torch.cat(found).cpu()

        times = [(_time(ours), _time(bare)) for _ in range(ROUNDS + 1)][1:]
    return min(own for own, _ in times), min(other for _, other in times)


def _time(act: Callable[[], object]) -> float:
    begin = time.perf_counter()
    act()
    return time.perf_counter() - begin


def compare_decisions(home: Path, device: str) -> Iterator[Row]:
    """Searches on the device against the same ones in float32 on a processor."""
    import bench_race

    folders, data = bench_race.models(home / "race"), bench_race.dataset(home / "race" / "data")
    for recipe in ("greedy", "pruned") if device == "cuda" else ("greedy",):
        wanted = _bake(folders, data, recipe=recipe, device="cpu", precision="float32", output=home / recipe)
        for precision in ("float32", "bf16", "auto"):
            place = home / f"{recipe}-{precision}"
            found = _bake(folders, data, recipe=recipe, device=device, precision=precision, output=place)
            yield f"{recipe}, {precision}", "the same in float32 on a processor", _differ(found, wanted), "same"


def _bake(folders: Sequence[Path], data: Path, **options: Any) -> dict[str, Any]:
    """What a bake says of itself; nothing that was scored before is reused."""
    import hfsoup

    return hfsoup.bake(*map(str, folders), dataset=str(data), resume=False, **options).to_json()


def _differ(found: dict[str, Any], wanted: dict[str, Any]) -> str:
    """Which of decisions, bytes and test score are not the same."""

    def decide(one: dict[str, Any]) -> list[tuple[Any, ...]]:
        return [tuple(step[name] for name in DECISIVE) for step in one["trace"]]

    differing = [] if decide(found) == decide(wanted) else ["decisions"]
    differing += [] if found["soup"]["sha256"] == wanted["soup"]["sha256"] else ["bytes"]
    moved = found["soup"]["test"] - wanted["soup"]["test"]
    return ", ".join([*differing, *([f"test {moved:+.4f}"] if moved else [])]) or "same"


def exhaust_memory(home: Path, device: str) -> Iterator[Row]:
    """A batch that does not fit is halved, what was found is kept, and the scores are those of other batches."""
    import torch

    from hfsoup.evaluation.batch_sizes import MOST

    if device == "cpu":
        yield "a batch that does not fit", "", "only on CUDA", ""
        return
    folders, data = sorted((home / "race").glob("vit-*"))[:3], home / "race" / "data"
    plain = _bake(folders, data, recipe="uniform", device=device, output=home / "plain")
    torch.cuda.empty_cache()
    kept = home / "cache" / "batches"
    for path in kept.glob("*.json"):
        path.unlink()
    MOST["cuda"] = 1 << 20
    tight = _bake(folders, data, recipe="uniform", device=device, output=home / "tight")
    sizes = ", ".join(path.read_text().splitlines()[-1] for path in kept.glob("*.json"))
    yield "a million images at once", "", f"{sizes} images fit", "fewer"
    yield "scores in such batches", "in batches of 512", _differ(tight, plain), "same"


if __name__ == "__main__":
    main()
