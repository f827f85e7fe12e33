"""Fine-tune a family of image classifiers from one pre-trained start, so that the results can be souped.

Every run begins with the same weights, the newly drawn head included, and differs in its hyper-parameters alone; that
is what keeps the runs close enough for their average to work (arXiv 2203.05482). A run that is already there is
skipped, so a stopped sweep goes on where it was.

    python scripts/sweep.py --start google/vit-base-patch16-224-in21k --dataset org/pets \\
        --validation-split validation --push "org/vit-{n}" --runs 6
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hfsoup.utils.errors import HubError, SoupError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from datasets import Dataset
    from PIL.Image import Image as Picture

OWN = ("augment", "mixup", "samples")
"""Hyper-parameters that `TrainingArguments` does not know."""

FILES = ("config.json", "preprocessor_config.json", "model.safetensors")
"""What a finished run holds; the weights are one file."""


@dataclass(frozen=True)
class Run:
    """The hyper-parameters of one fine-tuning, under the names `transformers.TrainingArguments` gives them.

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


def main(arguments: list[str] | None = None) -> int:
    """Run the sweep; return the exit code."""
    args = _parser().parse_args(arguments)
    try:
        _sweep(args)
    except SoupError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted; the same command goes on with the runs that are missing.", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add, keys = parser.add_argument, ", ".join(field.name for field in fields(Run))
    add("--start", required=True, help="the pre-trained checkpoint: a Hub id or a local folder")
    add("--dataset", required=True, help="the images: a Hub id or a local folder that load_dataset reads")
    add("--dataset-config", help="the dataset's configuration, if it has several")
    add("--train-split", default="train", help="default: %(default)s")
    add("--validation-split", help="a split to print accuracies on; never trained on")
    add("--image-column", help="default: the column of type Image")
    add("--label-column", help="default: the column of type ClassLabel")
    add("--output", help='local folders to write, {n} standing for the run\'s number: "runs/vit-{n}"')
    add("--push", help='Hub repos to push to: "org/vit-{n}"')
    add("--private", action="store_true", help="make the pushed repos private")
    add("--runs", type=int, help="how many runs (default: all of the grid, or 6)")
    add("--grid", type=Path, help=f"JSON list of runs, objects of any of {keys} (default: a mild built-in list)")
    add("--epochs", type=float, default=3.0, help="for runs without num_train_epochs (default: %(default)s)")
    add("--batch-size", type=int, default=32, help="default: %(default)s")
    add("--channels-last", action="store_true", help="another layout of memory: faster convolutions on a CPU")
    add("--freeze", nargs="+", default=[], metavar="GLOB", help="do not train parameters with these names")
    add("--flip", action="store_true", help="let augmented runs mirror images too (wrong for digits and letters)")
    add("--seed", type=int, default=0, help="draws the new head and the built-in seeds (default: %(default)s)")
    return parser


def _sweep(args: argparse.Namespace) -> None:
    runs, common = plan(args.grid, args.runs, args.epochs, args.seed), Common(args)
    if not (args.output or args.push):
        raise UsageError("Nowhere to keep the runs.", hint='--output "runs/vit-{n}", or --push "org/vit-{n}"')
    for pattern in (args.output, args.push):
        if pattern and len(runs) > 1 and "{n}" not in pattern:
            raise UsageError(f"{len(runs)} runs need {{n}} in the name they are kept under.", where=pattern)
    for number, run in enumerate(runs):
        folder = Path(args.output.replace("{n}", str(number))) if args.output else None
        repo = args.push.replace("{n}", str(number)) if args.push else ""
        to_push = bool(repo) and not _in_repo(repo, args.private)
        if not to_push and (folder is None or _in_folder(folder)):
            print(f"{folder or repo}: already there, skipped", flush=True)
            continue
        with tempfile.TemporaryDirectory() as scratch:
            source = folder or Path(scratch, "model")
            if not _in_folder(source):
                print(f"{folder or repo}: {_fine_tune(common, run, source)}", flush=True)
            if to_push:
                print(f"{repo}: pushed, {_push(source, repo)}", flush=True)


def plan(grid: Path | None, count: int | None, epochs: float, seed: int) -> list[Run]:
    """Return the runs: those of the JSON file `grid`, or a built-in list; `count` of them if given."""
    if grid is None:
        return _built_in(6 if count is None else count, epochs, seed)
    with _told("The grid cannot be read as JSON", str(grid)):
        entries = json.loads(grid.read_text(encoding="utf-8"))
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, dict) for entry in entries):
        raise UsageError("A grid is a JSON list of objects, one a run.", where=str(grid))
    runs = [_run(entry, epochs, f"{grid}, entry {number}") for number, entry in enumerate(entries)]
    if count is not None and count > len(runs):
        raise UsageError(f"--runs {count}, but the grid lists {len(runs)}.", where=str(grid))
    return runs[:count]


def _run(entry: dict[str, Any], epochs: float, where: str) -> Run:
    known = {field.name: field.type for field in fields(Run)}
    for name, value in entry.items():
        if name not in known:
            raise UsageError(f"Unknown hyper-parameter {name!r}; known are {', '.join(known)}.", where=where)
        if type(value).__name__ not in (known[name], "int" if known[name] == "float" else ""):
            raise UsageError(f"{name} must be of type {known[name]}, found {value!r}.", where=where)
    run = Run(**{"num_train_epochs": epochs, **entry})
    if run.mixup < 0:
        raise UsageError(f"mixup must not be negative, found {run.mixup}.", where=where)
    if not 0 < run.samples <= 1:
        raise UsageError(
            f"samples is a share of the training images above 0 and up to 1, found {run.samples}.", where=where
        )
    return run


def _built_in(count: int, epochs: float, seed: int) -> list[Run]:
    """Return `count` mild runs; the cycles differ in length, so that settings come in ever new company."""
    rates, decays, smoothings = (5e-5, 3e-5, 8e-5, 2e-5, 6e-5), (0.01, 0.1, 0.001), (0.0, 0.1, 0.05, 0.0)
    return [
        Run(
            learning_rate=rates[n % 5],
            weight_decay=decays[n % 3],
            label_smoothing_factor=smoothings[n % 4],
            augment=n % 2 == 1,
            seed=seed + n,
            num_train_epochs=epochs,
        )
        for n in range(count)
    ]


@contextmanager
def _told(what: str, where: str, hint: str = "", kind: type[SoupError] = SoupError) -> Iterator[None]:
    """Turn what the libraries raise on bad input, a full disk or a lost connection into one clear error."""
    from datasets.exceptions import DatasetsError
    from httpx2 import HTTPError

    try:
        yield
    except (DatasetsError, HTTPError, OSError, ValueError) as error:
        raise kind(f"{what}: {error}", where=where, hint=hint) from error


class Common:
    """What all runs share, read when the first of them needs it: a sweep that is done reads nothing."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args

    @cached_property
    def splits(self) -> list[Dataset]:
        """The rows to train on, then those to measure on if a validation split was named."""
        from datasets import load_dataset

        args = self.args
        names = [split for split in (args.train_split, args.validation_split) if split]
        with _told("The dataset cannot be read", f"{args.dataset}, {', '.join(names)}"):
            splits: list[Dataset] = load_dataset(args.dataset, args.dataset_config, split=names)
        return splits

    @cached_property
    def image(self) -> str:
        return self._column("Image", self.args.image_column, "--image-column")

    @cached_property
    def label(self) -> str:
        return self._column("ClassLabel", self.args.label_column, "--label-column")

    @cached_property
    def classes(self) -> list[str]:
        """The labels' names, after a look at every label of every split."""
        classes: list[str] = self.splits[0].features[self.label].names
        for rows in self.splits:
            where = f"{self.args.dataset}, split {rows.split}"
            if rows.features[self.label].names != classes:
                raise SoupError("Its labels differ from those of the train split.", where=where)
            bare = sum(value is None or value < 0 for value in rows[self.label])
            if bare or not len(rows):
                raise SoupError(f"Expected images with labels; {bare} of {len(rows)} have none.", where=where)
        return classes

    def _column(self, kind: str, asked: str | None, option: str) -> str:
        """Return the column asked for, or the only one of its kind."""
        found = {name: type(feature).__name__ for name, feature in self.splits[0].features.items()}
        fitting = [name for name in found if found[name] == kind]
        if asked in fitting or (asked is None and len(fitting) == 1):
            return asked or fitting[0]
        raise SoupError(
            f"Expected {f'a column {asked!r}' if asked else 'one column'} of type {kind}; "
            f"found {', '.join(f'{name} ({its})' for name, its in found.items())}.",
            where=self.args.dataset,
            hint=f"{option} {fitting[0]}" if fitting else f"a dataset that has a column of type {kind}",
        )

    @cached_property
    def model(self) -> Any:
        """The start, with a head for the classes drawn from the seed unless its own head has that size."""
        import torch
        from transformers import AutoModelForImageClassification, set_seed
        from transformers.utils import logging

        logging.set_verbosity_error()  # type: ignore[no-untyped-call]
        if not sys.stderr.isatty():
            logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        classes, start = self.classes, self.args.start
        set_seed(self.args.seed)
        with _told("The start cannot be loaded", start, "--start ORG/NAME, or a folder"):
            model, report = AutoModelForImageClassification.from_pretrained(
                start,
                id2label=dict(enumerate(classes)),
                label2id={name: number for number, name in enumerate(classes)},
                ignore_mismatched_sizes=True,
                output_loading_info=True,
                dtype=torch.float32,
            )
        for glob in self.args.freeze:
            frozen = [parameter for name, parameter in model.named_parameters() if fnmatchcase(name, glob)]
            if not frozen:
                raise UsageError(f"--freeze {glob}: no parameter has such a name.", where=start)
            for parameter in frozen:
                parameter.requires_grad = False
        if self.args.channels_last:
            model = model.to(memory_format=torch.channels_last)
        drawn = sorted({*report["missing_keys"], *(name for name, *_ in report["mismatched_keys"])})
        print(f"start {start}; newly drawn: {', '.join(drawn) or 'nothing'}", flush=True)
        return model

    @cached_property
    def weights(self) -> dict[str, Any]:
        """The start's tensors, to which the model goes back before each run."""
        return {name: tensor.clone() for name, tensor in self.model.state_dict().items()}

    @cached_property
    def commit(self) -> str | None:
        return getattr(self.model.config, "_commit_hash", None)

    @cached_property
    def processor(self) -> Any:
        from transformers import AutoImageProcessor

        with _told("The start's image processor cannot be loaded", self.args.start):
            return AutoImageProcessor.from_pretrained(self.args.start, revision=self.commit)  # type: ignore[no-untyped-call]


def _fine_tune(common: Common, run: Run, folder: Path) -> str:
    """Train from the start, write a finished model folder, return the run in one line."""
    began, args = time.monotonic(), common.args
    common.model.load_state_dict(common.weights)
    with _told("The run stopped", args.dataset):
        accuracy = _train(common, run)
    measured = ""
    if accuracy is not None:
        measured = f"accuracy {accuracy:.4f} on {len(common.splits[1])} images of {args.validation_split}"
    with _told("The model cannot be written", str(folder)):
        _save(common, _card(common, run, measured), folder)
    settings = " ".join(f"{name}={value}" for name, value in asdict(run).items())
    return " | ".join(filter(None, (settings, measured, f"{time.monotonic() - began:.1f} s")))


def _train(common: Common, run: Run) -> float | None:
    """Train the model in place; return its accuracy on the validation split, if there is one."""
    import torch
    from transformers import PrinterCallback, Trainer, TrainingArguments, default_data_collator

    args, (rows, *held_out) = common.args, common.splits
    if run.samples < 1:
        rows = rows.shuffle(seed=run.seed).select(range(max(1, round(run.samples * len(rows)))))
    with tempfile.TemporaryDirectory() as scratch:
        settings = TrainingArguments(
            output_dir=scratch,
            **{name: value for name, value in asdict(run).items() if name not in OWN},
            warmup_steps=0.1,
            per_device_train_batch_size=args.batch_size,
            per_device_eval_batch_size=args.batch_size,
            # A last batch of one image would break batch normalisation.
            dataloader_drop_last=len(rows) >= args.batch_size,
            dataloader_pin_memory=torch.cuda.is_available(),
            remove_unused_columns=False,
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=not sys.stderr.isatty(),
        )
        mixing: dict[str, Any] = {}
        if run.mixup:
            mixing = {"data_collator": _mixer(run.mixup, len(common.classes)), "compute_loss_func": _soft_loss(run)}
        trainer = Trainer(common.model, settings, train_dataset=_tensors(common, rows, run.augment), **mixing)
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        if not held_out:
            return None
        trainer.data_collator, trainer.compute_loss_func = default_data_collator, None
        settings.dataloader_drop_last = False
        found: Any = trainer.predict(_tensors(common, held_out[0], augment=False))
    return float((found.predictions.argmax(-1) == found.label_ids).mean())


def _tensors(common: Common, rows: Dataset, augment: bool) -> Dataset:
    """Return the rows as `pixel_values` (3, height, width) and `labels`, made when a batch is asked for."""

    def prepare(batch: dict[str, list[Any]]) -> dict[str, Any]:
        pictures = [image.convert("RGB") for image in batch[common.image]]
        if augment:
            pictures = [_moved(picture, common.args.flip) for picture in pictures]
        return {**common.processor(pictures, return_tensors="pt"), "labels": batch[common.label]}

    return rows.with_transform(prepare)


def _mixer(alpha: float, classes: int) -> Callable[[list[dict[str, Any]]], dict[str, Any]]:
    """Return a collator that mixes each image of a batch, and its label, with another of the batch (mixup)."""
    import torch
    from transformers import default_data_collator

    portions = torch.distributions.Beta(alpha, alpha)

    def mix(rows: list[dict[str, Any]]) -> dict[str, Any]:
        batch: dict[str, Any] = default_data_collator(rows)
        batch["labels"] = torch.nn.functional.one_hot(batch["labels"], classes).float()
        first, other = portions.sample(), torch.randperm(len(rows))
        return {name: first * values + (1 - first) * values[other] for name, values in batch.items()}

    return mix


def _soft_loss(run: Run) -> Callable[..., Any]:
    """Return cross-entropy against labels that are shares of classes (batch, classes), smoothed as the run says."""
    import torch

    def loss(outputs: Any, labels: torch.Tensor, **_: Any) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(outputs.logits, labels, label_smoothing=run.label_smoothing_factor)

    return loss


def _moved(picture: Picture, flip: bool) -> Picture:
    """Pad the picture with an eighth of black, crop it at random to its own size, mirror every other one if `flip`."""
    import torch
    from PIL import ImageOps

    width, height = picture.size
    left = int(torch.randint(-(width // 8), width // 8 + 1, ()))
    top = int(torch.randint(-(height // 8), height // 8 + 1, ()))
    if flip and torch.rand(()) < 0.5:
        picture = ImageOps.mirror(picture)
    return picture.crop((left, top, left + width, top + height))


def _card(common: Common, run: Run, measured: str) -> str:
    """Return the README; a local start or dataset is named in words only, as the Hub knows no such id."""
    from huggingface_hub import ModelCardData

    args = common.args
    data = ModelCardData(
        library_name="transformers",
        pipeline_tag="image-classification",
        license=_licence(args.start),
        base_model=None if Path(args.start).exists() else args.start,
        datasets=None if Path(args.dataset).exists() else [args.dataset],
    )
    settings = {
        **asdict(run),
        "batch size": args.batch_size,
        "mirrored": args.flip and run.augment,
        "frozen": ", ".join(f"`{glob}`" for glob in args.freeze) or "nothing",
    }
    at = f", commit `{common.commit}`" if common.commit else ""
    return f"""---
{data.to_yaml()}
---

# Fine-tuned image classifier

`{args.start}`{at}, fine-tuned on the split `{args.train_split}` of `{args.dataset}`. One run of a family that shares
its start, head included (seed {args.seed}), and differs in the hyper-parameters.
{measured.capitalize() or "Not measured"}.

| hyper-parameter | value |
|---|---|
{chr(10).join(f"| {name} | {value} |" for name, value in settings.items())}

AdamW; a tenth of the steps is warm-up, unless the schedule has none.
"""


def _licence(start: str) -> str | None:
    """Return the licence that the start's card names, if it has a card that does."""
    from huggingface_hub import ModelCard

    try:
        with _told("No card", start):
            return getattr(
                ModelCard.load(Path(start, "README.md") if Path(start).is_dir() else start).data, "license", None
            )
    except SoupError:
        return None


def _save(common: Common, card: str, folder: Path) -> None:
    """Write beside `folder` and rename last, so that a folder that exists is whole."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".sweep-") as scratch:
        staged = Path(scratch, "model")
        common.model.save_pretrained(staged, max_shard_size="1000GB")
        common.processor.save_pretrained(staged)
        (staged / "README.md").write_text(card, encoding="utf-8")
        for path in staged.iterdir():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        staged.rename(folder)


def _in_folder(folder: Path) -> bool:
    """Say whether the run in `folder` is finished; a folder that holds something else is an error."""
    from safetensors import SafetensorError, safe_open

    if not folder.exists() or not any(folder.iterdir()):
        return False
    try:
        missing = [name for name in FILES if not (folder / name).is_file()]
        problem = f"{', '.join(missing)} missing" if missing else ""
        with safe_open(folder / FILES[-1], "numpy"):
            pass
    except (OSError, SafetensorError) as error:
        problem = problem or str(error)
    if problem:
        raise SoupError(f"Expected a finished run; {problem}.", where=str(folder), hint=f"rm -r {folder}")
    return True


def _in_repo(repo: str, private: bool) -> bool:
    """Say whether the Hub holds the finished run; make the repo if it is missing, so that a refusal comes early."""
    from huggingface_hub import HfApi

    with _told("The repo cannot be made or read", repo, "hf auth login", HubError):
        HfApi().create_repo(repo, private=private or None, exist_ok=True)
        info = HfApi().model_info(repo)
    if private and not info.private:
        raise HubError("--private, but the repo is there already and public.", where=repo, hint="another --push name")
    return {*FILES} <= {sibling.rfilename for sibling in info.siblings or ()}


def _push(folder: Path, repo: str) -> str:
    """Upload the folder in one commit; return its address."""
    from huggingface_hub import HfApi

    with _told("The push failed", repo, "the same command again", HubError):
        done = HfApi().upload_folder(repo_id=repo, folder_path=folder, commit_message="Fine-tuned model")
    return str(done.commit_url)


if __name__ == "__main__":
    sys.exit(main())
