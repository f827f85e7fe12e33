"""Evaluation: images a second of hfsoup's pass against a bare loop over the model."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from checkpoints import CLASSES, checked, remove, small
from setting import Setting
from timing import Row, Way, here, medians

from hfsoup.averaging.averager import Averager
from hfsoup.averaging.mix import Mix
from hfsoup.data.pixels import PixelFile

SECTION = "evaluate"
BATCH, SIDE = 64, 64
CONFIGS: dict[str, dict[str, Any]] = {
    "vit": {
        "image_size": SIDE,
        "patch_size": 8,
        "hidden_size": 192,
        "num_hidden_layers": 6,
        "num_attention_heads": 3,
        "intermediate_size": 768,
    },
    "resnet": {"embedding_size": 32, "hidden_sizes": [32, 64, 128, 256], "depths": [2] * 4, "layer_type": "basic"},
    "efficientnet": {"image_size": SIDE, "width_coefficient": 0.5, "depth_coefficient": 0.5, "hidden_dim": 640},
}
NOTE = "Images a second, hfsoup's over the loop's: more is better. Both hold the images in memory or page cache."


def run(setting: Setting) -> Iterator[Row]:
    """The section's rows."""
    import torch

    images = 96 if setting.quick else 1024
    for kind, config in CONFIGS.items():
        home = setting.home / "evaluate"
        # A score is never paid for twice, so each round takes another ingredient.
        rounds = setting.repeats + 2
        folders = small(kind, home, rounds, config, SIDE)
        pixels = np.random.default_rng(0).integers(0, 256, (images, 3, SIDE, SIDE), np.uint8)
        with Averager(checked(folders)) as averager:
            prepared = store(home, pixels)
            ways = [scoring(averager, prepared), bare(folders[0], torch.from_numpy(prepared[:]))]
            ours, loop = medians(ways, rounds - 1)
        yield Row(
            SECTION, f"{kind}, {SIDE} px, batches of {BATCH}", "bare loop",
            loop.wall / ours.wall, cpu=loop.cpu / ours.cpu, target="0.95 or more", times=(ours, loop),
        )  # fmt: skip
        remove(home)


def store(home: Path, pixels: np.ndarray[Any, np.dtype[np.uint8]]) -> PixelFile:
    """Pixels as a bake keeps them, with a mean and a standard deviation of a half."""
    path, values = home / f"pixels-{len(pixels)}.npy", np.arange(256, dtype="<f4")[:, None].repeat(3, axis=1)
    np.save(path, pixels)
    return PixelFile(path, (values / np.float32(127.5) - 1).tobytes())


def scoring(averager: Averager, pixels: PixelFile) -> Way:
    """Each time the score of the next ingredient; the model is there from the second time on."""
    from hfsoup.data.dataset_split import Split
    from hfsoup.evaluation.metrics import load_metric
    from hfsoup.evaluation.scorer import Scorer
    from hfsoup.utils.distributed import World

    count = len(averager.family)
    labels = np.random.default_rng(0).integers(0, CLASSES, len(pixels))
    split = Split(
        "validation", "all", f"random-{len(pixels)}", pixels, labels, np.arange(len(pixels)), "validation", "image"
    )
    scorer = Scorer(averager, load_metric("accuracy"), World("cpu"), None, batch_size=BATCH)
    mixes = iter([Mix.of((i,), count) for i in range(count)])
    return here(lambda: scorer.score(next(mixes), split))


def bare(folder: Path, pixels: Any) -> Way:
    """`model(pixel_values)` over tensors that are in memory, in inference mode, and nothing else."""
    import torch
    from transformers import AutoModelForImageClassification

    model = AutoModelForImageClassification.from_pretrained(folder).eval()

    def loop() -> None:
        with torch.inference_mode():
            for batch in pixels.split(BATCH):
                model(pixel_values=batch)

    return here(partial(loop))
