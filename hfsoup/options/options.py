"""Every option of a bake, declared once: command line, `hfsoup.bake` and `soup.json` are made from this."""

from __future__ import annotations

import os
import re
import reprlib
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import Field, dataclass, field, fields, replace
from difflib import get_close_matches
from functools import partial
from math import inf, isfinite
from numbers import Integral, Real
from os import PathLike, fspath
from types import NoneType
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

from hfsoup.checkpoints.dtypes import FLOAT_DTYPES
from hfsoup.checkpoints.lora import MAX_RANK
from hfsoup.data.label_mapping import BY_NUMBER
from hfsoup.data.request import Request, split_revision
from hfsoup.hub.cards import LICENSE
from hfsoup.recipes._search import Rules
from hfsoup.recipes.weighted import parse_weights
from hfsoup.utils.cache import parse_size
from hfsoup.utils.errors import UsageError
from hfsoup.utils.registry import Parameter, find_nearest
from hfsoup.utils.text import quoted

if TYPE_CHECKING:
    from hfsoup.data.tasks.task import Task
    from hfsoup.merges import MergeEntry
    from hfsoup.recipes import RecipeEntry

EVERYTHING = ("*/*",)
"""The glob of a search of the Hub if no ingredients are given."""
GROUPS = ("Ingredients", "Data", "Search", "Weights", "Compute", "Report", "Result")
"""The groups of options, in the order in which help and config files show them."""
FILE = r"[\w][\w.-]*\.(safetensors|bin|pt|pth|th|ckpt)"
SHIFT = r"[\w][\w .+-]{0,39}"
MAX_BATCH = 4096
"""The most images of a forward pass that a record gets."""
Allowed = tuple[Callable[[Any], Any], str]
"""Which values an option may have: a predicate, and the same in words."""


def _at_least(low: int, high: float = inf) -> Allowed:
    return lambda value: low <= value <= high, f"at least {low}" if high == inf else f"from {low} to {high}"


def _option(
    default: Any,
    group: str,
    text: str,
    *,
    recorded: bool | None = None,
    shapes_weights: bool = False,
    is_path: bool = False,
    needs: str = "",
    choices: Sequence[str] = (),
    allowed: Allowed | None = None,
    example: str = "",
) -> Any:
    """Declare an option.

    Args:
        default: its value unless given.
        group: its panel in the command line's help.
        text: its help, with the default in brackets where `default` does not say it.
        recorded: whether soup.json records it; by default all are recorded but those of the group Result.
        shapes_weights: whether it has a part in the soup's files once the coefficients are known.
        is_path: whether it may be a path, in which `~` is expanded.
        needs: an option without which it has no effect.
        choices: the values that it may have.
        allowed: which values it may have, where they are too many to list.
        example: one of these, for the error.
    """
    kept = group != "Result" if recorded is None else recorded
    metadata = {"group": group, "help": text, "recorded": kept, "shapes_weights": shapes_weights, "is_path": is_path}
    metadata |= {"needs": needs, "choices": choices, "allowed": allowed, "example": example}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Options:
    """The options of a bake; `hfsoup bake --help` lists them."""

    # fmt: off
    recipe: str | None = _option(None, "Search",
        "which ingredients to average: see `hfsoup recipes` [greedy with a dataset, else uniform]"
    )
    merge: str = _option("mean", "Search", "how to combine their weights: see `hfsoup recipes`", shapes_weights=True)
    base: str | None = _option(None, "Search",
        "the model that the ingredients were fine-tuned from, for recipes and merges that need it [as their cards "
        "say]", shapes_weights=True, is_path=True
    )
    extrapolate: bool | None = _option(None, "Search",
        "draw the soup on, past the mean of the ingredients and away from their base, as far as it scores best on the "
        "selection split, to α = 2 at most [auto does, where the base is known]"
    )
    scale: float | None = _option(None, "Search",
        "λ, the factor of the mean of the task vectors: 1 is their mean, more extrapolates [1]",
        shapes_weights=True, allowed=(isfinite, "a number")
    )
    density: float | None = _option(None, "Search",
        "the fraction of each task vector to keep [ties 0.2, dare 0.5, breadcrumbs 0.1]", shapes_weights=True,
        allowed=(lambda value: 0 < value <= 1, "over 0 and at most 1")
    )
    outliers: float = _option(0.01, "Search",
        "for breadcrumbs: the fraction of the largest changes to drop",
        allowed=(lambda value: 0 <= value < 1, "at least 0 and under 1"), shapes_weights=True
    )
    passes: int = _option(1, "Search",
        "for greedy and pruned: how many times to go over the ingredients", allowed=_at_least(1)
    )
    accept: str = _option(">=", "Search", "accept a change whose score is '>=' or '>' the current score")
    margin: float = _option(0.0, "Search", "accept a change only if its paired gain is this many standard errors")
    min_score: float | None = _option(None, "Search", "leave out ingredients that score less alone")
    max_ingredients: int | None = _option(None, "Search",
        "the largest number of ingredients in the soup", allowed=_at_least(1)
    )
    keep_best: bool = _option(False, "Search", "for pruned: never drop the best ingredient")
    last: int = _option(5, "Search",
        "for latest: how many checkpoints to average, the last ones in the order given", allowed=_at_least(1)
    )
    decay: float = _option(1.0, "Search",
        "for latest: the weight of each checkpoint relative to the next newer one",
        allowed=(lambda value: 0 < value <= 1, "over 0 and at most 1")
    )
    weights: str | None = _option(None, "Search", "for weighted: a weight for each ingredient, as in 0.5,0.3,0.2")
    temperature: float = _option(0.01, "Search",
        "for weighted without --weights: T of e^(score/T); a small T favours the best",
        allowed=(lambda value: 0 < value < inf, "over 0")
    )
    budget: int | None = _option(None, "Search",
        "for search and radin: how many mixes to score besides the single ingredients [50; radin 5]",
        allowed=_at_least(1)
    )
    per_tensor: bool = _option(False, "Search",
        "for learned: a weight for each tensor of each ingredient, not one per ingredient"
    )
    free: bool = _option(False, "Search",
        "for learned: weights that may be negative, so that the soup may lie past its ingredients; no base is needed"
    )
    include_soups: bool = _option(False, "Search", "let globs match models that are soups themselves")
    on_mismatch: str = _option("error", "Search",
        "what to do with ingredients that do not fit: error; skip-ingredient leaves out those that differ from the "
        "majority; backbone-only averages all but the heads and keeps the head of the first",
        choices=("error", "skip-ingredient", "backbone-only"), shapes_weights=True
    )
    processor_from: str | None = _option(None, "Search",
        "the ingredient whose image processor the soup takes, if they differ [all must agree]", shapes_weights=True,
        is_path=True
    )
    align: str = _option("none", "Search",
        "align ingredients trained from different initialisations to the first one: none, weights, or activations, "
        "which are compared on training images", choices=("none", "weights", "activations")
    )
    fit: bool = _option(False, "Search",
        "after --align: fit one network to all of them, layer by layer, on images without labels"
    )
    distill: int | None = _option(None, "Search",
        "train one network for this many epochs to match the ingredients' mean logits on images without labels, at "
        "most 10,000 or --limit of them; the recipe is then uniform unless given", allowed=_at_least(1)
    )
    weights_file: str | None = _option(None, "Weights",
        "the weight file to read from every ingredient, with its shards, such as model.fp16.safetensors or "
        "model_ema.bin [model.safetensors or pytorch_model.bin]",
        allowed=(partial(re.fullmatch, FILE), "the name of a .safetensors, .bin, .pt, .pth, .th or .ckpt file"),
        example="model_ema.bin", shapes_weights=True
    )
    state_dict_key: str | None = _option(None, "Weights",
        "read the tensors under this key of the weight file, such as state_dict_ema, or those with this prefix",
        allowed=(bool, "the name of a key"), example="state_dict_ema", shapes_weights=True
    )
    seed: int = _option(0, "Search",
        "the random seed: for the order of greedy-random, align and distill, and the draws of dare, fisher, search "
        "and distill", shapes_weights=True, allowed=_at_least(-(1 << 63), (1 << 63) - 1)
    )
    exclude: tuple[str, ...] | None = _option(None, "Ingredients",
        "leave out ingredients whose name, or its end, matches this glob; repeatable"
    )
    fine_tunes_of: str | None = _option(None, "Ingredients",
        "keep Hub models whose card says that they were fine-tuned from this one; without ingredients, all of them"
    )
    dataset: str | None = _option(None, "Data",
        "a dataset on the Hub, with @REVISION, or a local folder or file", is_path=True
    )
    dataset_config: str | None = _option(None, "Data", "the configuration (subset) of the dataset")
    split: str | None = _option(None, "Data", "the split to select on [validation]")
    test_split: str | None = _option(None, "Data",
        "the split to report on, or none to halve --split [test; without one, --split is halved]"
    )
    image_column: str | None = _option(None, "Data", "the column of images [the only one]")
    label_column: str | None = _option(None, "Data", "the column of labels [the only one]")
    labels: str | None = _option(None, "Data",
        "match the dataset's classes with the model's: by-name, by-number, or a mapping in a FILE (JSON, YAML, CSV) "
        "[by name; by number if one side has no names]", is_path=True
    )
    limit: int | None = _option(None, "Data",
        "use at most this many images of each split, stratified by class", allowed=_at_least(2)
    )
    skip_bad_images: bool = _option(False, "Data", "skip images that cannot be decoded, and report how many")
    allow_duplicates: bool = _option(False, "Data",
        "continue, with a note, if more than 1 % of the test images were used before, or are near copies"
    )
    metric: str | None = _option(None, "Data",
        "accuracy, top5_accuracy, f1_macro, balanced_accuracy, or a metric of the library evaluate [accuracy]; for "
        "multi-label models average_precision (mAP), f1_micro, f1_macro [average_precision]"
    )
    trust_remote_metric: bool = _option(False, "Data", "run the script of a metric from the Hub")
    batch_size: int | None = _option(None, "Compute",
        "images per forward pass [64; on CUDA the most that fit, up to 512]", allowed=_at_least(1)
    )
    dtype: str | None = _option(None, "Compute",
        "the dtype of the soup: float32, float16 or bfloat16 [the widest of the ingredients]",
        choices=tuple(FLOAT_DTYPES), shapes_weights=True
    )
    precision: str = _option("auto", "Compute",
        "what scoring computes in, whatever the soup's own --dtype: float32, tf32, bf16, fp16 (autocast), or auto: "
        "float32, and on CUDA bf16 for candidates and float32 for the test split",
        choices=("auto", "float32", "tf32", "bf16", "fp16"), needs="dataset"
    )
    device: str = _option("auto", "Compute", "where to evaluate: auto, cpu, cuda, mps", recorded=False)
    bn: str = _option("auto", "Compute",
        "batch-norm statistics: average, recalibrate, or auto, which keeps what scores better",
        choices=("average", "recalibrate", "auto")
    )
    calibration_split: str | None = _option(None, "Data",
        "the split for batch-norm statistics, --align and merges that look at images [train]"
    )
    race: bool = _option(True, "Compute", "stop evaluating a candidate that can no longer win; decisions stay the same")
    resume: bool = _option(True, "Compute", "reuse cached scores", recorded=False)
    cache_limit: str | None = _option(None, "Compute",
        "after the bake, remove what was used longest ago from hfsoup's cache down to this size, as in 20GB "
        "[$HFSOUP_CACHE_LIMIT, or 50GB]", recorded=False,
        allowed=(lambda value: parse_size(value) is not None, "a size as in 20GB"), example="20GB"
    )
    ensemble: bool = _option(False, "Report",
        "also score the ensemble of the soup's ingredients (mean of logits) on the test split"
    )
    shifts: bool = _option(False, "Report",
        "also score soup and best ingredient on the test split with noise, blur, low contrast and JPEG artefacts"
    )
    eval: tuple[str, ...] | None = _option(None, "Report",
        "also score both on another dataset of the same classes, as in sketch=ORG/NAME; repeatable"
    )
    as_adapter: int | None = _option(None, "Result",
        "write a PEFT (LoRA) adapter of this rank, not a model; the ingredients must be adapters of one base",
        recorded=True, allowed=_at_least(1, MAX_RANK)
    )
    figures: bool = _option(False, "Result",
        "draw figures into figures/ and the card; scores all ingredients and candidates on the test split too, once "
        "the selection is made (pip install 'hfsoup[plot]')", recorded=True
    )
    figure_line: bool = _option(False, "Result",
        "with --figures: also score nine averages of the two best ingredients on both splits", recorded=True
    )
    output: str | None = _option(None, "Result", "the folder to write [soup, soup-2, …]", is_path=True)
    overwrite: bool = _option(False, "Result", "replace the output folder if it exists")
    push: str | None = _option(None, "Result", "the repository to push the soup to")
    license: str | None = _option(None, "Result",
        "the soup's licence [the ingredients', if they agree]", recorded=True,
        allowed=(partial(re.fullmatch, LICENSE), "a licence identifier of the Hub"), example="apache-2.0",
        shapes_weights=True
    )
    private: bool = _option(False, "Result", "make the repository private", needs="push")
    create_pr: bool = _option(False, "Result", "push as a pull request", needs="push")
    revision: str | None = _option(None, "Result", "push to this branch", needs="push")
    collection: bool = _option(False, "Result", "make a Collection of the soup and its ingredients", needs="push")
    # fmt: on
    parameters: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """Arguments of the recipe and merge that are no options of their own, by their names."""

    def __post_init__(self) -> None:
        require_allowed(vars(self))
        _refuse_conflicts(self)
        self.other_datasets()
        self.rules()
        if self.weights is not None:
            parse_weights(self.weights)

    @classmethod
    def of(cls, given: dict[str, Any]) -> Options:
        """Make options from keywords.

        Raises:
            UsageError: there is no such option, or it has another type or a value that it may not have.
        """
        known = get_option_types()
        values = {name: _convert_value(name, value, known[name]) for name, value in given.items() if name in known}
        for name in (f.name for f in option_fields() if f.metadata["is_path"]):
            if isinstance(text := values.get(name), str):
                values[name] = os.path.expanduser(text)  # noqa: PTH111 - names on the Hub stay as they are
        options = cls(**values)
        others = {name: value for name, value in given.items() if name not in known}
        return replace(options, parameters=options._convert_parameters(others)) if others else options

    @classmethod
    def from_record(cls, given: Mapping[str, Any]) -> Options:
        """The options in the soup.json of somebody else, which grant nothing: `trust_remote_metric` is never set.

        Raises:
            UsageError: as `of` does, or soup.json does not record an option, such as one that pushes.
        """
        silent = {f.name for f in option_fields() if not f.metadata["recorded"]} & given.keys()
        if silent:
            raise UsageError(f"expected options that soup.json records, found {quoted(min(silent))}")
        found = cls.of({**given, "trust_remote_metric": False})
        return replace(found, batch_size=min(found.batch_size, MAX_BATCH)) if found.batch_size else found

    def _convert_parameters(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments of the chosen recipe and merge in their types."""
        known = {p.name: p for p in self._own_parameters()}
        for name in given:
            if name not in known:
                raise _unknown_option(name, self, known)
        return {name: known[name].convert(value) for name, value in given.items()}

    def _own_parameters(self) -> list[Parameter]:
        """The arguments of the chosen recipe and merge that are not declared here."""
        known = get_option_types()
        return [p for entry in self.find_methods() for p in entry.parameters if p.name not in known]

    def find_methods(self) -> tuple[RecipeEntry, MergeEntry]:
        """The chosen recipe and merge.

        Raises:
            UsageError: there is no such recipe or merge, or one is named as the other.
        """
        from hfsoup.merges import MERGES
        from hfsoup.recipes import RECIPES

        for name, kind, other in ((self.chosen_recipe, RECIPES, MERGES), (self.merge, MERGES, RECIPES)):
            if name not in kind and name in other:
                raise UsageError(f"{name} is a {other.kind}, not a {kind.kind}", hint=f"--{other.kind} {name}")
        return RECIPES.get(self.chosen_recipe), MERGES.get(self.merge)

    def recipe_parameters(self) -> dict[str, Any]:
        """The arguments of the recipe."""
        from hfsoup.recipes import RECIPES

        return RECIPES.get(self.chosen_recipe).fill_parameters({**vars(self), **self.parameters})

    def merge_parameters(self) -> dict[str, Any]:
        """The arguments of the merge."""
        from hfsoup.merges import MERGES

        return MERGES.get(self.merge).fill_parameters({**vars(self), **self.parameters})

    def choose_patterns(self, given: Sequence[str]) -> tuple[str, ...]:
        """The ingredients that are given, or a glob of all that a search of the Hub finds."""
        return tuple(given) or (EVERYTHING if self.fine_tunes_of else ())

    @property
    def pace_settings(self) -> tuple[Any, ...]:
        """The options that decide how fast images are scored."""
        return self.dtype, self.device, self.bn, self.batch_size, self.precision

    @property
    def chosen_recipe(self) -> str:
        """The recipe that is given; else uniform without a dataset or with --fit or --distill, else greedy."""
        return self.recipe or ("greedy" if self.dataset and not self.fit and not self.distill else "uniform")

    @property
    def stored_dtype(self) -> str | None:
        """The safetensors name of `dtype`."""
        return FLOAT_DTYPES[self.dtype] if self.dtype else None

    def rules(self) -> Rules:
        """What the search honours."""
        return Rules(self.accept, self.margin, self.seed, self.min_score, self.max_ingredients)

    @property
    def recalibrates(self) -> bool:
        """Whether batch norms, if there are any, may get new statistics; a fitted network has its own."""
        return self.bn != "average" and not self.fit

    def make_request(self, task: Task | None = None) -> Request:
        """The request for the dataset."""
        if self.dataset is None:
            raise UsageError("this needs a dataset", hint="--dataset ORG/NAME")
        dataset, revision = split_revision(self.dataset)
        return Request(
            dataset,
            self.dataset_config,
            self.split,
            self.test_split,
            self.image_column,
            self.label_column,
            self.limit,
            revision,
            skip_bad_images=self.skip_bad_images,
            calibration_split=self.calibration_split,
            labels=self.labels,
            allow_duplicates=self.allow_duplicates,
            task=task,
        )

    def make_other_requests(self, task: Task | None = None) -> dict[str, Request]:
        """The requests for further datasets, by name: as for the first dataset, with default splits."""
        places = {name: split_revision(dataset) for name, dataset in self.other_datasets().items()}
        return {
            name: replace(
                self.make_request(task), dataset=place, revision=revision, config=None, split=None, test_split=None
            )
            for name, (place, revision) in places.items()
        }

    def other_datasets(self) -> dict[str, str]:
        """The further datasets of --eval, by name.

        Raises:
            UsageError: one is not NAME=DATASET, or a name is given twice.
        """
        found: dict[str, str] = {}
        for text in self.eval or ():
            name, _, dataset = text.partition("=")
            if not re.fullmatch(SHIFT, name) or not dataset:
                raise UsageError(f"expected NAME=DATASET, found {text!r}", hint="--eval sketch=org/pets-sketch")
            if name in found:
                raise UsageError(f"two datasets are called {name!r}", hint="--eval OTHER-NAME=DATASET")
            found[name] = os.path.expanduser(dataset)  # noqa: PTH111 - names on the Hub stay as they are
        return found

    def to_record(self) -> dict[str, Any]:
        """The options as they stand in soup.json: those that say what a soup is, not where it goes."""
        values = {f.name: getattr(self, f.name) for f in option_fields() if f.metadata["recorded"]}
        values |= {p.name: self.parameters.get(p.name, p.default) for p in self._own_parameters()}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    def fix_coefficients(self, coefficients: Sequence[float]) -> Options:
        """The options that make this soup from its coefficients, one for each ingredient, without a search."""
        kept = {f.name: getattr(self, f.name) for f in option_fields() if f.metadata["shapes_weights"]}
        weights = ",".join(map(repr, coefficients))
        return Options(recipe="weighted", weights=weights, parameters=self.parameters, **kept)

    def list_changes(self) -> dict[str, Any]:
        """The recorded options that differ from their defaults."""
        # Accuracy scores what it may score without being asked for, and older records name it.
        defaults = {f.name: (f.default, *(("accuracy",) if f.name == "metric" else ())) for f in option_fields()}
        defaults |= {p.name: (p.default,) for p in self._own_parameters()}
        return {name: value for name, value in self.to_record().items() if value not in defaults[name]}

    def format_command(self, ingredients: list[str]) -> str:
        """The shell command that bakes the same soup of `ingredients`."""
        return shlex.join(["hfsoup", "bake", *ingredients, *format_words(self.list_changes())])


def format_words(values: Mapping[str, Any]) -> list[str]:
    """Options by their names as words of the command line."""
    words = []
    for name, value in values.items():
        for each in value if isinstance(value, (list, tuple)) else [value]:
            words.append(("--no-" if each is False else "--") + name.replace("_", "-"))
            if not isinstance(each, bool):
                words.append(str(each))
    return words


def _convert_value(name: str, value: Any, kind: Any) -> Any:
    """Convert a keyword's value to the option's type: a path to text, weights to the form of the command line."""
    kinds = get_args(kind) or (kind,)
    if name == "weights" and isinstance(value, Iterable) and not isinstance(value, str):
        value = ",".join(str(w.item() if hasattr(w, "item") else w) for w in value)
    if list[str] in kinds and isinstance(value, (list, tuple)) and all(isinstance(one, str) for one in value):
        return tuple(value) or None
    # A bool is a number to Python, and what NumPy has is not its own.
    made: Any = value
    if not isinstance(value, bool):
        if isinstance(value, (str, PathLike)):
            made = str(fspath(value))
        elif isinstance(value, Integral) and int in kinds:
            made = int(value)
        elif isinstance(value, Real) and float in kinds:
            with suppress(OverflowError):
                made = float(value)
    if type(made) not in kinds:
        expected = " or ".join({list[str]: "list", NoneType: "None"}.get(k, k.__name__) for k in kinds)
        raise UsageError(f"expected {name} to be {expected}, found {reprlib.repr(value)}")
    return made


def option_fields() -> list[Field[Any]]:
    """The fields of Options that are one option each."""
    return [f for f in fields(Options) if f.metadata]


def find_parameters(*given: Mapping[str, Any]) -> list[str]:
    """The names among some options that are not declared in Options, but arguments of a recipe or merge."""
    others = {name for options in given for name in options} - get_option_types().keys() - {"ingredients"}
    return [name for name in list_parameters() if name in others] if others else []


def list_parameters() -> list[str]:
    """The arguments of all recipes and merges that are not declared in Options."""
    from hfsoup.merges import MERGES
    from hfsoup.recipes import RECIPES

    known = get_option_types()
    return [p.name for entry in (*RECIPES, *MERGES) for p in entry.parameters if p.name not in known]


def require_allowed(values: Mapping[str, Any]) -> None:
    """Refuse values that the declarations of their options do not allow; None is a default.

    Raises:
        UsageError: a value is none of the option's choices, or out of its range.
    """
    for f in option_fields():
        value, flag, example = values.get(f.name), f.name.replace("_", "-"), f.metadata["example"]
        choices, (fits, expected) = f.metadata["choices"], f.metadata["allowed"] or (lambda _: True, "")
        if choices:
            fits, expected = choices.__contains__, f"one of {', '.join(choices)}"
            example = get_close_matches(str(value), choices, 1, 0.0)[0]
        if value is not None and not fits(value):
            hint = f"--{flag} {example}" if example else ""
            raise UsageError(f"{flag} must be {expected}, found {value!r}", hint=hint)


def _unknown_option(name: str, options: Options, parameters: Iterable[str]) -> UsageError:
    """What to say of an option that there is not, or that only another recipe or merge has."""
    from hfsoup.merges import MERGES
    from hfsoup.recipes import RECIPES

    for registry, chosen in ((RECIPES, options.chosen_recipe), (MERGES, options.merge)):
        for entry in registry:
            if name in [p.name for p in entry.parameters]:
                what = f"the {registry.kind} {chosen} does not use {format_flags([name])}"
                return UsageError(what, hint=f"--{registry.kind} {entry.name}")
    known = [*parameters, *get_option_types()]
    what, near = f"there is no option {quoted(name)}", find_nearest(name, known)
    return UsageError(what, hint=near) if near else UsageError(f"{what}; known: {', '.join(known)}")


def get_option_types() -> dict[str, Any]:
    """The type of every option as a command line or a file gives it: a list where several values may be given."""
    found = {name: hint for name, hint in get_type_hints(Options).items() if name != "parameters"}
    return {name: list[str] | None if hint == tuple[str, ...] | None else hint for name, hint in found.items()}


def refuse_ineffective(options: Options) -> None:
    """Refuse options without effect. A soup.json may hold such options, so this is checked for new bakes only.

    Raises:
        UsageError: an option has an effect with a dataset or a push only, and there is none.
    """
    if options.dataset == "":
        raise UsageError("the dataset has no name", hint="--dataset ORG/NAME")
    given = {f.name: f.metadata["group"] for f in option_fields() if getattr(options, f.name) != f.default}
    if options.labels == BY_NUMBER:
        # It is also about ingredients without class names.
        del given["labels"]
    needs = {f.name: f.metadata["needs"] for f in option_fields()}
    idle = [name for name, group in given.items() if group == "Data" or needs[name] == "dataset"]
    if options.dataset is None and idle:
        raise UsageError(f"expected a dataset with {format_flags(idle)}, found none", hint="--dataset ORG/NAME")
    idle = [name for name in given if needs[name] == "push"]
    if options.push is None and idle:
        raise UsageError(
            f"expected a repository to push to with {format_flags(idle)}, found none", hint="--push ORG/NAME"
        )


def format_flags(names: list[str]) -> str:
    """Format options as flags of the command line."""
    return ", ".join("--" + name.replace("_", "-") for name in names)


def _refuse_conflicts(options: Options) -> None:
    """Refuse options that do not go together.

    Raises:
        UsageError: two options exclude each other, or one lacks another that it needs.
    """
    for refused, what, hint in _list_conflicts(options):
        if refused:
            raise UsageError(what, hint=hint)


def _list_conflicts(o: Options) -> Iterator[tuple[bool, str, str]]:
    """Every rule about two options: whether it is broken, what to say then, and what to type instead."""
    data, no_data, aligned = "--dataset ORG/NAME", o.dataset is None, o.align != "none"
    distilled, adapter, heads_differ = o.distill is not None, o.as_adapter is not None, o.on_mismatch == "backbone-only"
    on_images = o.ensemble or o.shifts or o.eval is not None
    yield o.align == "activations" and no_data, "activations are compared on images", f"{data}, or --align weights"
    yield aligned and adapter, "--align changes the ingredients, which are then no adapters of one base", "--align none"
    yield aligned and o.base is not None, "--align does not align the base", "--align none"
    yield aligned and heads_differ, "ingredients with different heads cannot be aligned", "--align none"
    yield o.fit and (not aligned or no_data), "--fit needs --align and a dataset", f"--align activations {data}"
    chosen = f"--fit uses all ingredients, and {o.recipe} selects among them"
    yield o.fit and o.recipe not in (None, "uniform"), chosen, "--recipe uniform"
    yield distilled and no_data, "--distill trains on images", data
    yield distilled and adapter, "a distilled network is no adapter", "--distill or --as-adapter, not both"
    logits = "--distill needs ingredients of the same classes, to average their logits"
    yield distilled and heads_differ, logits, "--on-mismatch skip-ingredient"
    plain = "--as-adapter writes the mean of the ingredients in their own dtype"
    yield adapter and bool(o.dtype or o.merge != "mean"), plain, "no --dtype, no --merge"
    recalibrated = "--bn recalibrate estimates statistics on images"
    yield no_data and o.bn == "recalibrate", recalibrated, f"{data}, or --bn average"
    line = "--figure-line plots scores"
    yield o.figure_line and (no_data or not o.figures), line, f"--figures {data}"
    yield no_data and on_images, "--ensemble, --shifts and --eval score on images", data
    yield no_data and o.min_score is not None, "--min-score needs scores", data
    yield no_data and o.margin != 0, "--margin needs scores", data
    yield o.free and o.merge != "mean", "--free learns weights of any sign, for the mean alone", "--merge mean"
    yield no_data and bool(o.extrapolate), "--extrapolate chooses how far by scores", data
