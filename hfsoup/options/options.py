"""Every option of a bake, declared once: the command line, `hfsoup.bake` and `soup.json` are made from this."""

from __future__ import annotations

import os
import re
import reprlib
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import Field, dataclass, field, fields, replace
from difflib import get_close_matches
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
from hfsoup.utils.errors import UsageError
from hfsoup.utils.registry import Parameter, find_nearest
from hfsoup.utils.text import quoted

if TYPE_CHECKING:
    from hfsoup.data.tasks.task import Task

PUSHED = ("private", "create_pr", "revision")
BN_MODES = ("average", "recalibrate", "auto")
FILE = r"[\w][\w.-]*\.(safetensors|bin|pt|pth|th|ckpt)"
ALIGNMENTS = ("none", "weights", "activations")
ON_MISMATCH = ("error", "skip-ingredient", "backbone-only")


EVERYTHING = ("*/*",)
"""What a search of the Hub is limited to where no ingredients are named."""
PATHS = ("output", "dataset", "base", "processor_from", "labels")
SILENT, RECORDED = ("resume", "device"), ("license", "as_adapter", "figures", "figure_line")
SHIFT = r"[\w][\w .+-]{0,39}"
RANGES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "scale": (isfinite, "a number"),
    "density": (lambda value: 0 < value <= 1, "over 0 and at most 1"),
    "outliers": (lambda value: 0 <= value < 1, "at least 0 and under 1"),
    "passes": (lambda value: value >= 1, "at least 1"),
    "budget": (lambda value: value >= 1, "at least 1"),
    "last": (lambda value: value >= 1, "at least 1"),
    "decay": (lambda value: 0 < value <= 1, "over 0 and at most 1"),
    "temperature": (lambda value: 0 < value < inf, "over 0"),
}
"""What arguments of recipes and merges may be."""


def _option(default: Any, group: str, text: str) -> Any:
    return field(default=default, metadata={"group": group, "help": text})


@dataclass(frozen=True)
class Options:
    """What a bake does beyond its ingredients. See `hfsoup bake --help` for the words."""

    recipe: str | None = _option(
        None, "Search", "which ingredients go in: see `hfsoup recipes` [greedy with data, else uniform]"
    )
    merge: str = _option("mean", "Search", "how their weights become one: see `hfsoup recipes`")
    base: str | None = _option(
        None,
        "Search",
        "the model that the ingredients started from, where recipe or merge need it [as their cards say]",
    )
    scale: float | None = _option(
        None, "Search", "λ of the task vectors: of their sum [1 / ingredients], for ties of their mean [1]"
    )
    density: float | None = _option(
        None, "Search", "the share of a task vector to keep [ties 0.2, dare 0.5, breadcrumbs 0.1]"
    )
    outliers: float = _option(0.01, "Search", "for breadcrumbs: the share of the largest changes to leave out")
    passes: int = _option(1, "Search", "how often greedy and pruned go over the ingredients")
    accept: str = _option(">=", "Search", "keep a change that scores '>=' or '>' what there was")
    margin: float = _option(0.0, "Search", "keep a change only if its paired gain is this many standard errors")
    min_score: float | None = _option(None, "Search", "leave out ingredients that score less alone")
    max_ingredients: int | None = _option(None, "Search", "the most ingredients in the soup")
    keep_best: bool = _option(False, "Search", "pruned never drops the best ingredient")
    last: int = _option(5, "Search", "for latest: how many checkpoints, the last ones in the order given")
    decay: float = _option(1.0, "Search", "for latest: each checkpoint weighs this much of the next newer one")
    weights: str | None = _option(None, "Search", "for weighted: a weight for each ingredient, as in 0.5,0.3,0.2")
    temperature: float = _option(0.01, "Search", "weighted, without weights: T of e^(score/T); small favours the best")
    budget: int | None = _option(
        None, "Search", "for search and radin: how many mixes to score beyond the ingredients alone [50; radin 5]"
    )
    per_tensor: bool = _option(
        False, "Search", "for learned: weights of its own for every tensor, not one for each ingredient"
    )
    include_soups: bool = _option(False, "Search", "a glob may pick up soups too")
    on_mismatch: str = _option(
        "error",
        "Search",
        "what to do about ingredients that do not fit: error, skip-ingredient leaves out those unlike the most, "
        "backbone-only averages all but the heads and keeps the first one's",
    )
    processor_from: str | None = _option(
        None, "Search", "the ingredient whose image processor is the soup's, where they differ [all must agree]"
    )
    align: str = _option(
        "none",
        "Search",
        "put ingredients that were trained from different starts into the first one's basis: none, weights, or "
        "activations, which compares them on training images",
    )
    fit: bool = _option(
        False, "Search", "then fit one network to all of them, layer by layer, on training images without labels"
    )
    distill: int | None = _option(
        None,
        "Search",
        "then train one network, so many epochs, to match the ingredients' mean logits on images without labels, "
        "10,000 at most or --limit of them; the recipe is uniform unless given",
    )
    weights_file: str | None = _option(
        None,
        "Weights",
        "read this weight file of every ingredient, such as model.fp16.safetensors or model_ema.bin, with its shards "
        "[model.safetensors or pytorch_model.bin]",
    )
    state_dict_key: str | None = _option(
        None,
        "Weights",
        "take the tensors that stand under this key, such as state_dict_ema, or whose names begin with it",
    )
    seed: int = _option(
        0,
        "Search",
        "the order of greedy-random, of align and of distill, and what dare, fisher, search and distill draw",
    )
    exclude: tuple[str, ...] | None = _option(
        None, "Ingredients", "leave out what matches this glob, by its name or the end of it; repeat"
    )
    fine_tunes_of: str | None = _option(
        None,
        "Ingredients",
        "of globs only models of the Hub whose cards say that they were fine-tuned from this one; without a glob all",
    )
    dataset: str | None = _option(None, "Data", "a dataset on the Hub, with @REVISION, or a local folder or file")
    dataset_config: str | None = _option(None, "Data", "which configuration of the dataset")
    split: str | None = _option(None, "Data", "the split that selects [validation]")
    test_split: str | None = _option(
        None, "Data", "the split that reports, or none to halve --split [test; without one, --split is halved]"
    )
    image_column: str | None = _option(None, "Data", "the column of images [the only one]")
    label_column: str | None = _option(None, "Data", "the column of classes [the only one]")
    labels: str | None = _option(
        None,
        "Data",
        "match the dataset's classes with the model's: by-name, by-number, or a FILE (JSON, YAML, CSV) that maps them "
        "[by name; by number where one side has no names]",
    )
    limit: int | None = _option(None, "Data", "at most this many images of each split, every class in its share")
    skip_bad_images: bool = _option(False, "Data", "leave out images that cannot be decoded, and say how many")
    allow_duplicates: bool = _option(
        False, "Data", "go on where more than 1 % of the test images are among those that select, and say so"
    )
    metric: str | None = _option(
        None,
        "Data",
        "accuracy, top5_accuracy, f1_macro, balanced_accuracy, or a name evaluate knows [accuracy]; of multi-label "
        "models average_precision (mAP), f1_micro, f1_macro [average_precision]",
    )
    trust_remote_metric: bool = _option(False, "Data", "run the script of a metric that is not ours")
    batch_size: int | None = _option(
        None, "Compute", "images per forward pass [64; on CUDA the most that fit, up to 512]"
    )
    dtype: str | None = _option(
        None, "Compute", "float32, float16 or bfloat16 for the soup [as the ingredients, the widest]"
    )
    device: str = _option("auto", "Compute", "where to score: auto, cpu, cuda, mps")
    bn: str = _option(
        "auto", "Compute", f"batch-norm statistics: {', '.join(BN_MODES)}, which keeps what scores better"
    )
    calibration_split: str | None = _option(
        None, "Data", "the split that batch norms, merges and --align look at [train]"
    )
    race: bool = _option(True, "Compute", "give a mix up once it is sure to be turned down; decisions stay the same")
    resume: bool = _option(True, "Compute", "take scores that an earlier bake of the same bytes paid for")
    ensemble: bool = _option(
        False, "Report", "also score the ensemble of the soup's ingredients on the test split: the mean of their logits"
    )
    shifts: bool = _option(
        False,
        "Report",
        "also score soup and best ingredient on the test split with noise, blur, less contrast and JPEG",
    )
    eval: tuple[str, ...] | None = _option(
        None, "Report", "also score both on another dataset of these classes and columns, as in sketch=ORG/NAME; repeat"
    )
    as_adapter: int | None = _option(
        None, "Result", "write a PEFT adapter of this rank instead of a model; ingredients: adapters on one base"
    )
    figures: bool = _option(
        False,
        "Result",
        "draw pictures into figures/ and the card; also scores every ingredient and candidate on the test split once "
        "the choice is made (pip install 'hfsoup[plot]')",
    )
    figure_line: bool = _option(
        False, "Result", "with --figures: also score nine averages between the two best ingredients, on both splits"
    )
    output: str | None = _option(None, "Result", "the folder to write [soup, soup-2, …]")
    overwrite: bool = _option(False, "Result", "replace the output folder if it is there")
    push: str | None = _option(None, "Result", "the repository to push the soup to")
    license: str | None = _option(None, "Result", "the soup's licence [the ingredients', if they agree]")
    private: bool = _option(False, "Result", "make that repository private")
    create_pr: bool = _option(False, "Result", "push as a pull request")
    revision: str | None = _option(None, "Result", "push to this branch")
    parameters: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """Arguments of a plug-in's recipe or merge, by their names: flags and keywords of their own."""

    def __post_init__(self) -> None:
        _refuse_unfit(self)
        self.other_datasets()
        self.rules()
        require_ranges({name: getattr(self, name) for name in RANGES})
        if self.weights is not None:
            parse_weights(self.weights)

    @classmethod
    def of(cls, given: dict[str, Any]) -> Options:
        """Options from keywords; an unknown one, or one of another type, is an error that says what is known."""
        known = get_option_types()
        values = {name: _convert_value(name, value, known[name]) for name, value in given.items() if name in known}
        for name in PATHS:
            if isinstance(text := values.get(name), str):
                values[name] = os.path.expanduser(text)  # noqa: PTH111 - names on the Hub stay as they are
        options = cls(**values)
        others = {name: value for name, value in given.items() if name not in known}
        return replace(options, parameters=options._convert_parameters(others)) if others else options

    def _convert_parameters(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments of the chosen recipe and merge of plug-ins in their types."""
        known = {p.name: p for p in self._plug_in_parameters()}
        for name in given:
            if name not in known:
                raise _unknown_option(name, self, known)
        return {name: known[name].convert(value) for name, value in given.items()}

    def _plug_in_parameters(self) -> list[Parameter]:
        """The arguments of the chosen recipe and merge that are no options of hfsoup."""
        from hfsoup.merges import MERGES
        from hfsoup.recipes import RECIPES

        chosen, known = (RECIPES.get(self.chosen_recipe), MERGES.get(self.merge)), get_option_types()
        return [p for entry in chosen for p in entry.parameters if p.name not in known]

    def recipe_parameters(self) -> dict[str, Any]:
        """The arguments of the recipe."""
        from hfsoup.recipes import RECIPES

        return RECIPES.get(self.chosen_recipe).fill_parameters({**vars(self), **self.parameters})

    def merge_parameters(self) -> dict[str, Any]:
        """The arguments of the merge."""
        from hfsoup.merges import MERGES

        return MERGES.get(self.merge).fill_parameters({**vars(self), **self.parameters})

    def choose_patterns(self, given: Sequence[str]) -> tuple[str, ...]:
        """The ingredients that are asked for: those given, or all that a search of the Hub finds."""
        return tuple(given) or (EVERYTHING if self.fine_tunes_of else ())

    @property
    def pace_settings(self) -> tuple[Any, ...]:
        """What is set here that decides how fast images are scored."""
        return self.dtype, self.device, self.bn, self.batch_size

    @property
    def chosen_recipe(self) -> str:
        """The recipe asked for, else uniform without data or where one network is made of all, else greedy."""
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
        """Whether batch norms get new statistics, where there are any; those of a fitted network fit already."""
        return self.bn != "average" and not self.fit

    def make_request(self, task: Task | None = None) -> Request:
        """What is asked of the dataset."""
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
        """What is asked of the further datasets, by their names: the same as of the first, but for its splits."""
        places = {name: split_revision(dataset) for name, dataset in self.other_datasets().items()}
        return {
            name: replace(
                self.make_request(task), dataset=place, revision=revision, config=None, split=None, test_split=None
            )
            for name, (place, revision) in places.items()
        }

    def other_datasets(self) -> dict[str, str]:
        """The further datasets to score on, by the names that the user gave them.

        Raises:
            UsageError: one is not NAME=DATASET, or a name stands twice.
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
        """The options that say what a soup is, not where it goes or how fast it gets there, with those of plug-ins."""
        kept = [f.name for f in option_fields() if f.name in RECORDED or f.metadata["group"] != "Result"]
        values = {name: getattr(self, name) for name in kept if name not in SILENT}
        values |= {p.name: self.parameters.get(p.name, p.default) for p in self._plug_in_parameters()}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    def list_changes(self) -> dict[str, Any]:
        """Those of them that differ from their defaults."""
        # Accuracy scores what it may score without being asked for, and older records name it.
        defaults = {f.name: (f.default, *(("accuracy",) if f.name == "metric" else ())) for f in option_fields()}
        defaults |= {p.name: (p.default,) for p in self._plug_in_parameters()}
        return {name: value for name, value in self.to_record().items() if value not in defaults[name]}

    def format_command(self, ingredients: list[str]) -> str:
        """The shell command that bakes the same soup of `ingredients`."""
        words = ["hfsoup", "bake", *ingredients]
        for name, value in self.list_changes().items():
            for each in value if isinstance(value, list) else [value]:
                words.append(("--no-" if each is False else "--") + name.replace("_", "-"))
                if not isinstance(each, bool):
                    words.append(str(each))
        return shlex.join(words)


def _convert_value(name: str, value: Any, kind: Any) -> Any:
    """A keyword's value as the option holds it: a path as text, weights as the command line has them."""
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
            made = float(value)
    if type(made) not in kinds:
        expected = " or ".join({list[str]: "list", NoneType: "None"}.get(k, k.__name__) for k in kinds)
        raise UsageError(f"expected {name} to be {expected}, found {reprlib.repr(value)}")
    return made


def option_fields() -> list[Field[Any]]:
    """The fields of Options that are one option each."""
    return [f for f in fields(Options) if f.metadata]


def find_parameters(*given: Mapping[str, Any]) -> list[str]:
    """The names among some options that are none of hfsoup's, but arguments of a plug-in's recipe or merge."""
    from hfsoup.merges import MERGES
    from hfsoup.recipes import RECIPES

    others = {name for options in given for name in options} - get_option_types().keys() - {"ingredients"}
    entries = [*RECIPES.list_plug_ins(), *MERGES.list_plug_ins()] if others else []
    return [p.name for entry in entries for p in entry.parameters if p.name in others]


def require_ranges(values: Mapping[str, Any]) -> None:
    """Fail if an argument of a recipe or merge is out of its range; None is the function's own default.

    Raises:
        UsageError: one is.
    """
    for name in RANGES.keys() & values.keys():
        fits, text = RANGES[name]
        if values[name] is not None and not fits(values[name]):
            raise UsageError(f"{name} must be {text}, found {values[name]}")


def _unknown_option(name: str, options: Options, parameters: Iterable[str]) -> UsageError:
    """What to say of an option that there is not, or that only another recipe or merge has."""
    from hfsoup.merges import MERGES
    from hfsoup.recipes import RECIPES

    for registry, chosen in ((RECIPES, options.chosen_recipe), (MERGES, options.merge)):
        for entry in registry.list_plug_ins():
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


def _refuse_unfit(options: Options) -> None:
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


def refuse_ineffective(options: Options) -> None:
    """Refuse what somebody asked for that would have no effect; a record may hold such options.

    Raises:
        UsageError: an option is of a dataset or a push that was not asked for.
    """
    if options.dataset == "":
        raise UsageError("the dataset has no name", hint="--dataset ORG/NAME")
    given = {f.name: f.metadata["group"] for f in option_fields() if getattr(options, f.name) != f.default}
    if options.labels == BY_NUMBER:
        # It is also about ingredients without class names.
        del given["labels"]
    if options.dataset is None and (idle := [name for name, group in given.items() if group == "Data"]):
        raise UsageError(f"expected a dataset with {format_flags(idle)}, found none", hint="--dataset ORG/NAME")
    if options.push is None and (idle := [name for name in PUSHED if name in given]):
        raise UsageError(
            f"expected a repository to push to with {format_flags(idle)}, found none", hint="--push ORG/NAME"
        )


def format_flags(names: list[str]) -> str:
    """Options as the command line writes them."""
    return ", ".join("--" + name.replace("_", "-") for name in names)


def _unknown(options: Options) -> None:
    if options.dtype is not None and options.dtype not in FLOAT_DTYPES:
        near = get_close_matches(options.dtype, FLOAT_DTYPES, 1, 0.0)[0]
        what = f"there is no dtype {options.dtype!r}; known: {', '.join(FLOAT_DTYPES)}"
        raise UsageError(what, hint=f"--dtype {near}")
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
