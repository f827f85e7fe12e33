"""Options that mean nothing, alone or together, are refused before anything is read."""

from __future__ import annotations

import re
from dataclasses import fields
from difflib import get_close_matches
from typing import TYPE_CHECKING

from hfsoup.errors import UsageError
from hfsoup.request import BY_NUMBER

if TYPE_CHECKING:
    from hfsoup.options import Options

MAX_RANK = 1 << 14
PUSHED = ("private", "create_pr", "revision")
BN_MODES = ("average", "recalibrate", "auto")
FILE = r"[\w][\w.-]*\.(safetensors|bin|pt|pth|th|ckpt)"
LICENSE = r"[a-z0-9][a-z0-9.+-]{0,63}"
ALIGNMENTS = ("none", "weights", "activations")
ON_MISMATCH = ("error", "skip-ingredient", "backbone-only")
FLOATS = {"float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16"}
"""The names of safetensors by those of torch."""


def refuse(options: Options) -> None:
    """Refuse what cannot be meant.

    Raises:
        UsageError: a value is none of those known, or two options do not go together.
    """
    _unknown(options)
    _aligned(options)
    _distilled(options)
    _adapter(options)
    _without_dataset(options)
    if options.figure_line and not options.figures:
        what = "the line between two ingredients is drawn from scores"
        raise UsageError(what, hint="--figures --dataset ORG/NAME")


def refuse_idle(options: Options) -> None:
    """Refuse what somebody asked for that would have no effect; a record may hold such options.

    Raises:
        UsageError: an option is of a dataset or a push that was not asked for.
    """
    if options.dataset == "":
        raise UsageError("the dataset has no name", hint="--dataset ORG/NAME")
    given = {f.name: f.metadata["group"] for f in fields(options) if getattr(options, f.name) != f.default}
    if options.labels == BY_NUMBER:
        # It is also about ingredients without class names.
        del given["labels"]
    if options.dataset is None and (idle := [name for name, group in given.items() if group == "Data"]):
        raise UsageError(f"expected a dataset with {flags(idle)}, found none", hint="--dataset ORG/NAME")
    if options.push is None and (idle := [name for name in PUSHED if name in given]):
        raise UsageError(f"expected a repository to push to with {flags(idle)}, found none", hint="--push ORG/NAME")


def flags(names: list[str]) -> str:
    """Options as the command line writes them."""
    return ", ".join("--" + name.replace("_", "-") for name in names)


def _unknown(options: Options) -> None:
    if options.dtype is not None and options.dtype not in FLOATS:
        near = get_close_matches(options.dtype, FLOATS, 1, 0.0)[0]
        raise UsageError(f"there is no dtype {options.dtype!r}; known: {', '.join(FLOATS)}", hint=f"--dtype {near}")
    if options.on_mismatch not in ON_MISMATCH:
        raise UsageError(f"expected on-mismatch to be one of {', '.join(ON_MISMATCH)}, found {options.on_mismatch!r}")
    if options.bn not in BN_MODES:
        raise UsageError(f"there is no batch-norm mode {options.bn!r}; known: {', '.join(BN_MODES)}")
    if options.align not in ALIGNMENTS:
        raise UsageError(f"there is no alignment {options.align!r}; known: {', '.join(ALIGNMENTS)}")
    if options.batch_size is not None and options.batch_size < 1:
        raise UsageError(f"batch-size must be at least 1, found {options.batch_size}")
    if options.limit is not None and options.limit < 2:
        raise UsageError(f"limit must be at least 2, found {options.limit}")
    if options.weights_file is not None and not re.fullmatch(FILE, options.weights_file):
        expected = "expected weights-file to be the name of a .safetensors, .bin, .pt, .pth, .th or .ckpt file"
        raise UsageError(f"{expected}, found {options.weights_file!r}", hint="--weights-file model_ema.bin")
    if options.state_dict_key == "":
        raise UsageError("the key of a state dict has no name", hint="--state-dict-key state_dict_ema")
    if options.license is not None and not re.fullmatch(LICENSE, options.license):
        raise UsageError(f"expected a licence as the Hub writes them, found {options.license!r}", hint="apache-2.0")


def _without_dataset(options: Options) -> None:
    if options.dataset is not None:
        return
    hint = "--dataset ORG/NAME"
    if options.bn == "recalibrate":
        raise UsageError("batch norms are estimated on images", hint=f"{hint}, or --bn average")
    if options.figure_line:
        raise UsageError("the line between two ingredients is drawn from scores", hint=f"--figures {hint}")
    if options.ensemble or options.shifts or options.eval:
        raise UsageError("nothing can be scored without a dataset", hint=hint)
    if options.min_score is not None or options.margin:
        raise UsageError("a floor or a margin needs scores", hint=hint)


def _aligned(options: Options) -> None:
    if options.align == "activations" and options.dataset is None:
        raise UsageError("activations are compared on images", hint="--dataset ORG/NAME, or --align weights")
    if options.align != "none" and options.as_adapter is not None:
        raise UsageError("aligned ingredients are no adapters on one base any more", hint="--align none")
    if options.align != "none" and options.base is not None:
        raise UsageError("a base is not in the basis that ingredients are aligned to", hint="--align none")
    if options.align != "none" and options.on_mismatch == "backbone-only":
        raise UsageError("ingredients with different heads cannot be aligned", hint="--align none")
    if options.fit and (options.align == "none" or options.dataset is None):
        hint = "--align activations --dataset ORG/NAME"
        raise UsageError("a fit needs aligned ingredients and images", hint=hint)
    if options.fit and options.recipe not in (None, "uniform"):
        raise UsageError(f"a fit takes all ingredients, {options.recipe} chooses among them", hint="--recipe uniform")


def _distilled(options: Options) -> None:
    if options.distill is None:
        return
    if options.distill < 1:
        raise UsageError(f"distill is a number of epochs, at least 1, found {options.distill}")
    if options.dataset is None:
        raise UsageError("a network is trained on images, and scored", hint="--dataset ORG/NAME")
    if options.as_adapter is not None:
        raise UsageError("a network that was trained whole is no adapter", hint="--distill or --as-adapter, not both")
    if options.on_mismatch == "backbone-only":
        raise UsageError("ingredients of other classes have no logits in common", hint="--on-mismatch skip-ingredient")


def _adapter(options: Options) -> None:
    if options.as_adapter is None:
        return
    if not 1 <= options.as_adapter <= MAX_RANK:
        raise UsageError(f"an adapter's rank is 1 to {MAX_RANK}, found {options.as_adapter}")
    if options.dtype or options.merge != "mean":
        what = "an adapter is the mean of its ingredients in their own type"
        raise UsageError(what, hint="no --dtype, no --merge")
