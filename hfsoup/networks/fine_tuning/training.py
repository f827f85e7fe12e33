"""Trains a classifier from a common start, by `transformers.Trainer`."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import (
    AutoImageProcessor,
    AutoModelForImageClassification,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    default_data_collator,
    set_seed,
)

from hfsoup.data.training import TrainingSplit
from hfsoup.networks.fine_tuning.grid import Run
from hfsoup.utils.errors import LOADING_ERRORS, SoupError, UsageError
from hfsoup.utils.progress import Advance, Notify
from hfsoup.utils.text import join_names, one_line

if TYPE_CHECKING:
    from PIL.Image import Image

    from hfsoup.checkpoints.types import Ingredient

OWN = ("augment", "mixup", "samples")
"""Fields of `Run` that `TrainingArguments` does not know."""
SHIFT = 8
"""Augmented images are shifted by up to 1 / SHIFT of their sides."""
WARMUP = 0.1
"""The share of the steps in which the learning rate grows, unless the schedule has no warm-up or there is one step."""


class Start:
    """The model that every run begins with, head included, and its image processor.

    Args:
        base: the checkpoint to start from, with a classifier's head or without.
        classes: the names of the classes. Unless the base has a head for as many, one is drawn.
        seed: of that head.
        freeze: globs of parameters that are not trained.
        channels_last: use the memory format in which convolutions are faster on CPUs.
        note: called with the tensors that were drawn.

    Raises:
        SoupError: transformers cannot load the base as an image classifier.
        UsageError: a glob of `freeze` matches no parameter.
    """

    def __init__(
        self,
        base: Ingredient,
        classes: Sequence[str],
        *,
        seed: int,
        freeze: Sequence[str] = (),
        channels_last: bool = False,
        note: Notify = lambda _: None,
    ) -> None:
        self.base, self.classes = base, tuple(classes)
        set_seed(seed)
        try:
            self.processor: Any = AutoImageProcessor.from_pretrained(  # type: ignore[no-untyped-call]
                base.processor_folder, local_files_only=True, trust_remote_code=False
            )
            model, report = AutoModelForImageClassification.from_pretrained(
                base.folder,
                id2label=dict(enumerate(classes)),
                label2id={name: number for number, name in enumerate(classes)},
                ignore_mismatched_sizes=True,
                output_loading_info=True,
                local_files_only=True,
                trust_remote_code=False,
                dtype=torch.float32,
            )
        except LOADING_ERRORS as error:
            what = f"transformers cannot load this as an image classifier: {one_line(error)}"
            raise SoupError(
                what, where=str(base), hint="a model with a config, weights and an image processor"
            ) from error
        if model.config.problem_type is not None:
            model.config.problem_type = "single_label_classification"
        for glob in freeze:
            frozen = [parameter for name, parameter in model.named_parameters() if fnmatchcase(name, glob)]
            if not frozen:
                raise UsageError(f"--freeze {glob}: no parameter has such a name", where=str(base))
            for parameter in frozen:
                parameter.requires_grad = False
        self.model: Any = model.to(memory_format=torch.channels_last) if channels_last else model
        self._weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        drawn = sorted({*report["missing_keys"], *(name for name, *_ in report["mismatched_keys"])})
        note(f"every run starts from {base} with {f'new {join_names(drawn, 4)}' if drawn else 'its own head'}")

    def restore(self) -> Any:
        """Return the model with its first weights."""
        self.model.load_state_dict(self._weights)
        return self.model

    def find_diverged(self) -> str | None:
        """The name of a tensor that has come to hold NaN or infinity since the start; None if there is none."""
        for name, tensor in self.model.state_dict().items():
            if not torch.isfinite(tensor).all() and torch.isfinite(self._weights[name]).all():
                return str(name)
        return None

    def save(self, folder: Path) -> None:
        """Write the model as it is now, its weights in one file, and the image processor."""
        self.model.save_pretrained(folder, max_shard_size="1000GB")
        self.processor.save_pretrained(folder)


def fine_tune(
    start: Start,
    split: TrainingSplit,
    run: Run,
    *,
    batch_size: int,
    flip: bool,
    expect: Advance = lambda _: None,
    advance: Advance = lambda _: None,
) -> None:
    """Train the model of `start` in place, from its first weights.

    Args:
        start: the model; `save` writes it.
        split: the training images, of which the run sees `run.samples`.
        run: the hyper-parameters.
        batch_size: images per step.
        flip: whether augmented runs mirror images too.
        expect: called once with the number of steps.
        advance: called with 1 after each step.
    """
    rows = np.arange(len(split))
    if run.samples < 1:
        # The order in which datasets.Dataset.shuffle would put them.
        rows = np.random.default_rng(run.seed).permutation(len(split))[: max(1, round(run.samples * len(split)))]
    images = TrainingImages(split, rows, start.processor, augment=run.augment, flip=flip)
    mixing: dict[str, Any] = {}
    if run.mixup:
        mixing = {"data_collator": _mix_with(run.mixup, len(start.classes)), "compute_loss_func": _soft_loss(run)}
    with tempfile.TemporaryDirectory() as scratch:
        settings = _make_settings(run, Path(scratch), len(rows), batch_size)
        trainer = Trainer(
            start.restore(), settings, train_dataset=images, callbacks=[_Steps(expect, advance)], **mixing
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()


def _make_settings(run: Run, scratch: Path, images: int, batch_size: int) -> TrainingArguments:
    """The arguments of `Trainer` for a run on a number of images."""
    settings = TrainingArguments(
        output_dir=str(scratch),
        **{name: value for name, value in asdict(run).items() if name not in OWN},
        warmup_steps=WARMUP,
        per_device_train_batch_size=batch_size,
        dataloader_pin_memory=torch.cuda.is_available(),
        remove_unused_columns=False,
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    # That of all GPUs together.
    batch = settings.train_batch_size
    # A last batch of one image would break batch normalisation.
    settings.dataloader_drop_last = images >= batch
    if math.ceil(run.num_train_epochs * max(1, images // batch)) == 1:
        # The rate of a warm-up's first step is 0, so a run of one step would learn nothing.
        settings.warmup_steps = 0
    return settings


class TrainingImages(torch.utils.data.Dataset[dict[str, Any]]):
    """Rows of a split as `pixel_values` (channels, height, width) and `labels`, made when a batch is asked for."""

    def __init__(
        self,
        split: TrainingSplit,
        rows: Sequence[int] | np.ndarray[Any, Any],
        processor: Any,
        *,
        augment: bool,
        flip: bool,
    ) -> None:
        self._split, self._rows, self._processor = split, rows, processor
        self._augment, self._flip = augment, flip

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, place: int) -> dict[str, Any]:
        return self.__getitems__([place])[0]

    def __getitems__(self, places: Sequence[int]) -> list[dict[str, Any]]:
        """Return one batch, which is faster than image by image."""
        rows = [int(self._rows[place]) for place in places]
        pictures = [self._split.read_picture(row) for row in rows]
        if self._augment:
            pictures = [_shift(picture, self._flip) for picture in pictures]
        made = self._processor(pictures, return_tensors="pt")
        labels = self._split.labels
        return [{**{name: made[name][n] for name in made}, "labels": int(labels[row])} for n, row in enumerate(rows)]


class _Steps(TrainerCallback):
    """Reports the steps of a training."""

    def __init__(self, expect: Advance, advance: Advance) -> None:
        self._expect, self._advance = expect, advance

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        """Report how many there will be."""
        self._expect(state.max_steps)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        """Report one more."""
        self._advance(1)


def _shift(picture: Image, flip: bool) -> Image:
    """Pad the picture with an eighth of black, crop it at random to its own size, mirror every other one if `flip`."""
    from PIL import ImageOps

    width, height = picture.size
    left = int(torch.randint(-(width // SHIFT), width // SHIFT + 1, ()))
    top = int(torch.randint(-(height // SHIFT), height // SHIFT + 1, ()))
    if flip and torch.rand(()) < 0.5:
        picture = ImageOps.mirror(picture)
    return picture.crop((left, top, left + width, top + height))


def _mix_with(alpha: float, classes: int) -> Callable[[list[dict[str, Any]]], dict[str, Any]]:
    """Return a collator that mixes each image of a batch, and its label, with another of the batch (mixup)."""
    portions = torch.distributions.Beta(alpha, alpha)

    def mix(rows: list[dict[str, Any]]) -> dict[str, Any]:
        batch: dict[str, Any] = default_data_collator(rows)
        batch["labels"] = torch.nn.functional.one_hot(batch["labels"], classes).float()
        first, other = portions.sample(), torch.randperm(len(rows))
        return {name: first * values + (1 - first) * values[other] for name, values in batch.items()}

    return mix


def _soft_loss(run: Run) -> Callable[..., Any]:
    """Return cross-entropy against labels that are shares of classes (batch, classes), smoothed as the run says."""

    def loss(outputs: Any, labels: torch.Tensor, **_: Any) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(outputs.logits, labels, label_smoothing=run.label_smoothing_factor)

    return loss
