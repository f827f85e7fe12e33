"""The options of `hfsoup.bake` with their types, for editors and type checkers; written by scripts/option_types.py."""

from __future__ import annotations

from collections.abc import Iterable
from os import PathLike
from typing import Literal, TypedDict


class BakeOptions(TypedDict, total=False):
    """Every option of `hfsoup.bake`, with the arguments of hfsoup's own recipes and merges.

    To a type checker those of plug-ins are known in a dictionary only: `given: dict[str, Any] = {"trim": 0.1}`, and
    `hfsoup.bake("org/model-*", **given)`.
    """

    recipe: str | None
    """Which ingredients to average: see `hfsoup recipes` [greedy with a dataset, else uniform]."""

    merge: str
    """How to combine their weights: see `hfsoup recipes` [mean]."""

    base: str | PathLike[str] | None
    """The model that the ingredients were fine-tuned from, for recipes and merges that need it [as their cards say]."""

    extrapolate: bool | None
    """Draw the soup on, past the mean of the ingredients and away from their base, as far as it scores best on the
    selection split, to α = 2 at most [auto does, where the base is known]."""

    scale: float | None
    """λ, the factor of the mean of the task vectors: 1 is their mean, more extrapolates [1]."""

    density: float | None
    """The fraction of each task vector to keep [ties 0.2, dare 0.5, breadcrumbs 0.1]."""

    outliers: float
    """For breadcrumbs: the fraction of the largest changes to drop [0.01]."""

    passes: int
    """For greedy and pruned: how many times to go over the ingredients [1]."""

    accept: str
    """Accept a change whose score is '>=' or '>' the current score [>=]."""

    margin: float
    """Accept a change only if its paired gain is this many standard errors [0.0]."""

    min_score: float | None
    """Leave out ingredients that score less alone."""

    max_ingredients: int | None
    """The largest number of ingredients in the soup."""

    keep_best: bool
    """For pruned: never drop the best ingredient."""

    last: int
    """For latest: how many checkpoints to average, the last ones in the order given [5]."""

    decay: float
    """For latest: the weight of each checkpoint relative to the next newer one [1.0]."""

    weights: str | Iterable[float] | None
    """For weighted: a weight for each ingredient, as in 0.5,0.3,0.2."""

    temperature: float
    """For weighted without `weights`: T of e^(score/T); a small T favours the best [0.01]."""

    budget: int | None
    """For search and radin: how many mixes to score besides the single ingredients [50; radin 5]."""

    per_tensor: bool
    """For learned: a weight for each tensor of each ingredient, not one per ingredient."""

    free: bool
    """For learned: weights that may be negative, so that the soup may lie past its ingredients; no base is needed."""

    include_soups: bool
    """Let globs match models that are soups themselves."""

    on_mismatch: Literal["error", "skip-ingredient", "backbone-only"]
    """What to do with ingredients that do not fit: error; skip-ingredient leaves out those that differ from the
    majority; backbone-only averages all but the heads and keeps the head of the first [error]."""

    processor_from: str | PathLike[str] | None
    """The ingredient whose image processor the soup takes, if they differ [all must agree]."""

    align: Literal["none", "weights", "activations"]
    """Align ingredients trained from different initialisations to the first one: none, weights, or activations, which
    are compared on training images [none]."""

    fit: bool
    """After `align`: fit one network to all of them, layer by layer, on images without labels."""

    distill: int | None
    """Train one network for this many epochs to match the ingredients' mean logits on images without labels, at most
    10,000 or `limit` of them; the recipe is then uniform unless given."""

    weights_file: str | None
    """The weight file to read from every ingredient, with its shards, such as model.fp16.safetensors or model_ema.bin
    [model.safetensors or pytorch_model.bin]."""

    state_dict_key: str | None
    """Read the tensors under this key of the weight file, such as state_dict_ema, or those with this prefix."""

    seed: int
    """The random seed: for the order of greedy-random, align and distill, and the draws of dare, fisher, search and
    distill [0]."""

    exclude: list[str] | tuple[str, ...] | None
    """Leave out ingredients whose name, or its end, matches this glob; repeatable."""

    fine_tunes_of: str | None
    """Keep Hub models whose card says that they were fine-tuned from this one; without ingredients, all of them."""

    dataset: str | PathLike[str] | None
    """A dataset on the Hub, with @REVISION, or a local folder or file."""

    dataset_config: str | None
    """The configuration (subset) of the dataset."""

    split: str | None
    """The split to select on [validation]."""

    test_split: str | None
    """The split to report on, or none to halve `split` [test; without one, `split` is halved]."""

    image_column: str | None
    """The column of images [the only one]."""

    label_column: str | None
    """The column of labels [the only one]."""

    labels: str | PathLike[str] | None
    """Match the dataset's classes with the model's: by-name, by-number, or a mapping in a FILE (JSON, YAML, CSV) [by
    name; by number if one side has no names]."""

    limit: int | None
    """Use at most this many images of each split, stratified by class."""

    skip_bad_images: bool
    """Skip images that cannot be decoded, and report how many."""

    allow_duplicates: bool
    """Continue, with a note, if more than 1 % of the test images were used before, or are near copies."""

    metric: str | None
    """Accuracy, top5_accuracy, f1_macro, balanced_accuracy, or a metric of the library evaluate [accuracy]; for
    multi-label models average_precision (mAP), f1_micro, f1_macro [average_precision]."""

    trust_remote_metric: bool
    """Run the script of a metric from the Hub."""

    batch_size: int | None
    """Images per forward pass [64; on CUDA the most that fit, up to 512]."""

    dtype: Literal["float64", "float32", "float16", "bfloat16"] | None
    """The dtype of the soup: float32, float16 or bfloat16 [the widest of the ingredients]."""

    precision: Literal["auto", "float32", "tf32", "bf16", "fp16"]
    """What scoring computes in, whatever the soup's own `dtype`: float32, tf32, bf16, fp16 (autocast), or auto:
    float32, and on CUDA bf16 for candidates and float32 for the test split [auto]."""

    device: str
    """Where to evaluate: auto, cpu, cuda, mps [auto]."""

    bn: Literal["average", "recalibrate", "auto"]
    """Batch-norm statistics: average, recalibrate, or auto, which keeps what scores better [auto]."""

    calibration_split: str | None
    """The split for batch-norm statistics, `align` and merges that look at images [train]."""

    race: bool
    """Stop evaluating a candidate that can no longer win; decisions stay the same [True]."""

    resume: bool
    """Reuse cached scores [True]."""

    cache_limit: str | None
    """After the bake, remove what was used longest ago from hfsoup's cache down to this size, as in 20GB
    [$HFSOUP_CACHE_LIMIT, or 50GB]."""

    ensemble: bool
    """Also score the ensemble of the soup's ingredients (mean of logits) on the test split."""

    shifts: bool
    """Also score soup and best ingredient on the test split with noise, blur, low contrast and JPEG artefacts."""

    eval: list[str] | tuple[str, ...] | None
    """Also score both on another dataset of the same classes, as in sketch=ORG/NAME; repeatable."""

    as_adapter: int | None
    """Write a PEFT (LoRA) adapter of this rank, not a model; the ingredients must be adapters of one base."""

    figures: bool
    """Draw figures into figures/ and the card; scores all ingredients and candidates on the test split too, once the
    selection is made (pip install 'hfsoup[plot]')."""

    figure_line: bool
    """With `figures`: also score nine averages of the two best ingredients on both splits."""

    output: str | PathLike[str] | None
    """The folder to write [soup, soup-2, …]."""

    overwrite: bool
    """Replace the output folder if it exists."""

    push: str | None
    """The repository to push the soup to."""

    license: str | None
    """The soup's licence [the ingredients', if they agree]."""

    private: bool
    """Make the repository private."""

    create_pr: bool
    """Push as a pull request."""

    revision: str | None
    """Push to this branch."""

    collection: bool
    """Make a Collection of the soup and its ingredients."""

    normalise: bool | None
    """Divide each F by its L2 norm over all tensors, as fusion-bench does by default: an ingredient that is (merge
    fisher)."""
