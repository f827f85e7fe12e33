"""`hfsoup check`: whether a soup of these can help, by configs, headers and on request the weights; no evaluation."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from hfsoup.checkpoints.inspection import inspect_checkpoint
from hfsoup.checkpoints.pickles import convert_pickle
from hfsoup.checkpoints.reader import Weights
from hfsoup.checkpoints.safetensors_io import TensorFile
from hfsoup.checkpoints.types import Ingredient, Source
from hfsoup.ingredients.cards import read_card, read_license
from hfsoup.ingredients.compatibility import check_compatibility, find_class_axes, list_remarks
from hfsoup.ingredients.family import Family
from hfsoup.ingredients.find import find_ingredients, too_few_error
from hfsoup.ingredients.headers import outline_ingredients
from hfsoup.ingredients.local_folders import WILD
from hfsoup.ingredients.pull import pull_ingredients
from hfsoup.ingredients.resolve import SOUP_TAGS
from hfsoup.ingredients.similarity import APART, BASIN, Matrix, Similarity, measure_similarity
from hfsoup.utils.errors import MismatchError, UsageError
from hfsoup.utils.known_hashes import find_hashes
from hfsoup.utils.progress import Notify, Watch
from hfsoup.utils.text import one_line

OUTLIER = 2.5
NEAR_HEADS = 0.5
"""Heads that were drawn apart have cosines below this."""
WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".th")
ALONE = "this is one ingredient, with no other to compare it with"
FEW = "no soup: expected two ingredients or more, found one"
VERDICTS = {
    "soup": "soup: these fit together; hfsoup check --dataset says whether a soup may win",
    "recalibrate": "soup with --dataset: a bake scores averaged and re-estimated batch-norm statistics (--bn auto)",
    "align": "align first (--align): these were trained from different starts; a plain average would score at chance",
    "no": "do not average all of these",
}


@dataclass(frozen=True)
class Diagnosis:
    """The verdict, the reasons, the cosines between the weights if they were read, and facts about each ingredient."""

    verdict: str
    reasons: tuple[str, ...]
    ingredients: tuple[dict[str, Any], ...]
    cosine: list[list[float]] | None

    @property
    def summary(self) -> str:
        """The verdict in one line."""
        if len(self.ingredients) == 1:
            return FEW
        headers_only = self.cosine is None and self.verdict != "no"
        return f"{'by configs and headers alone, ' if headers_only else ''}{VERDICTS[self.verdict]}"

    def to_json(self) -> dict[str, Any]:
        """The object that `hfsoup check --json` writes."""
        return {
            "verdict": self.verdict,
            "reasons": list(self.reasons),
            "cosine": self.cosine,
            "ingredients": list(self.ingredients),
        }


def diagnose(
    patterns: tuple[str, ...],
    *,
    weights: bool = False,
    exclude: Sequence[str] = (),
    fine_tunes_of: str | None = None,
    weights_file: str | None = None,
    state_dict_key: str | None = None,
    watch: Watch | None = None,
) -> Diagnosis:
    """Check ingredients before they are baked.

    Args:
        patterns: as for `bake`, soups included; with `weights`, plain weight files too.
        weights: download the weights and compare them.
        exclude: as for `bake`.
        fine_tunes_of: as for `bake`.
        weights_file: the weight file to read of every ingredient, in place of the usual one.
        state_dict_key: the key of the tensors in it, as for `bake`.
        watch: shows the stages.

    Raises:
        UsageError: a pattern matches nothing.
        SoupError: an ingredient cannot be read at all.
    """
    watch = watch or Watch()
    files = [Path(p) for p in patterns if p.endswith(WEIGHTS) and Path(p).is_file()]
    if files:
        if len(files) < 2 or len(files) < len(patterns) or not weights:
            what = "expected two weight files or more, and --weights"
            raise UsageError(what, hint="hfsoup check --weights FILE FILE")
        return _diagnose_files(files, watch)
    if absent := [p for p in patterns if p.endswith(WEIGHTS) and "/" not in p and not WILD.search(p)]:
        raise UsageError("there is no such file", where=absent[0], hint="ls, or ORG/NAME on the Hub")
    with watch.stage("Resolving"):
        sources = find_ingredients(
            patterns,
            exclude=exclude,
            fine_tunes_of=fine_tunes_of,
            include_soups=True,
            weights_file=weights_file,
            state_dict_key=state_dict_key,
            notify=watch.note,
        )
    with tempfile.TemporaryDirectory() as scratch:
        with watch.stage("Pulling" if weights else "Reading headers"):
            ingredients = (
                pull_ingredients(sources, notify=watch.note) if weights else _pull_headers(sources, Path(scratch))
            )
        return _diagnose_ingredients(ingredients, weights, watch)


def examine_weights(family: Family, notify: Notify) -> Family:
    """Add what the weights say of an average: whether they are too far apart, and the cosine of the task vectors."""
    names = [str(i) for i in family.ingredients]
    if len(names) < 2:
        return family
    close = compare_weights(family)
    concerns = [*_explain_distance(names, close), *_find_outliers(names, close)]
    for text in (*concerns, *(() if _has_one_head(family) else _compare_heads(names, close))):
        notify(text)
    cosine = None
    if family.base:
        cosines = compare_task_vectors(family)
        cosine = float(cosines[np.triu_indices(len(cosines), 1)].mean())
    return replace(family, weights_apart=bool(concerns), task_cosine=cosine)


def _has_one_head(family: Family) -> bool:
    """Whether the ingredients are known to have begun with one head: that of their base."""
    heads = _find_head_names(family)
    return bool(heads) and family.base is not None and heads <= family.base.names.keys()


def compare_task_vectors(family: Family) -> Matrix:
    """The cosines between what fine-tuning changed in the base, pair by pair, over the matrices of the body."""
    base = family.base
    if base is None:
        raise ValueError("there is no base")
    with ExitStack() as stack:
        every = [stack.enter_context(closing(Weights(i))).homes for i in (*family.ingredients, base.ingredient)]
        homes = [{name: home[name] for name in base.names} for home in every[:-1]]
        own = {name: every[-1][there] for name, there in base.names.items()}
        apart = measure_similarity([*homes, own], _find_head_names(family)).distances ** 2
    away = apart[-1, :-1]
    inner = (away[:, None] + away[None] - apart[:-1, :-1]) / 2
    lengths = np.maximum(np.sqrt(away[:, None] * away[None]), np.finfo(np.float64).tiny)
    cosines: Matrix = inner / lengths
    return cosines


def compare_weights(family: Family) -> Similarity:
    """The similarity of the weights of a family, in one pass over its files."""
    names = [spec.name for spec in family.tensors]
    with ExitStack() as stack:
        every = [stack.enter_context(closing(Weights(ingredient))).homes for ingredient in family.ingredients]
        return measure_similarity([{name: home[name] for name in names} for home in every], _find_head_names(family))


def _find_head_names(family: Family) -> frozenset[str]:
    """The names of the head's tensors; none if the head was not found, and it is then compared as part of the body."""
    try:
        return frozenset(family.class_axes or find_class_axes(family))
    except MismatchError:
        return frozenset()


def _pull_headers(sources: Sequence[Source], scratch: Path) -> tuple[Ingredient, ...]:
    """Local ingredients with their weights, those on the Hub with headers alone."""
    local, remote = [s for s in sources if s.folder], [s for s in sources if not s.folder]
    found = dict(zip([*local, *remote], [*pull_ingredients(local), *outline_ingredients(remote, scratch)], strict=True))
    return tuple(found[s] for s in sources)


def _diagnose_ingredients(ingredients: tuple[Ingredient, ...], weights: bool, watch: Watch) -> Diagnosis:
    facts = tuple(_collect_facts(i) for i in ingredients)
    reasons = [*_find_duplicates(ingredients), *_compare_cards(facts)]
    try:
        family = check_compatibility(ingredients)
    except MismatchError as error:
        return Diagnosis("no", (error.what, *reasons), facts, None)
    reasons += [*list_remarks(family), *_explain_batch_norm(family)]
    verdict = "recalibrate" if family.has_batch_norm else "soup"
    if len(ingredients) < 2:
        return Diagnosis("no", (*reasons, _describe_single(ingredients[0].source)), facts, None)
    if not weights:
        reasons.append("the weights were not compared; --weights compares them")
        return Diagnosis(verdict, tuple(reasons), facts, None)
    with watch.stage("Comparing weights"):
        close = compare_weights(family)
    return _judge(verdict, [str(i) for i in ingredients], close, reasons, facts)


def _describe_single(one: Source) -> str:
    """The reason for a single ingredient, with the next command."""
    error = too_few_error(one, "check")
    below = f"{error.where}; " if error.where != str(one) else ""
    return f"{ALONE}: {below}{error.hint}"


def _diagnose_files(files: Sequence[Path], watch: Watch) -> Diagnosis:
    """The diagnosis of plain weight files: only their weights are compared."""
    with watch.stage("Comparing weights"):
        hashes = [find_hashes(path) for path in files]
        safe = [
            path if path.suffix == ".safetensors" else convert_pickle(path, blake3, where=str(path), unwrap=True)
            for path, (blake3, _) in zip(files, hashes, strict=True)
        ]
        with ExitStack() as stack:
            opened = [stack.enter_context(closing(TensorFile(path))) for path in safe]
            homes = [{name: (file, spec) for name, spec in file.tensors.items()} for file in opened]
            close, names = measure_similarity(homes, frozenset()), opened[0].tensors
    verdict = "recalibrate" if any(name.endswith("running_var") for name in names) else "soup"
    facts = tuple({"id": str(path), "sha256": sha256} for path, (_, sha256) in zip(files, hashes, strict=True))
    return _judge(verdict, [str(p) for p in files], close, [], facts)


def _judge(
    verdict: str, names: Sequence[str], close: Similarity, reasons: Iterable[str], facts: tuple[dict[str, Any], ...]
) -> Diagnosis:
    """The diagnosis by the cosines between the weights; `verdict` is the one without them."""
    if close.broken:
        bad = [f"{names[i]} holds NaN or infinity in tensor {one_line(name)}: leave it out" for i, name in close.broken]
        return Diagnosis("no", (*bad, *reasons), facts, None)
    cosine = close.body
    pairs = cosine[np.triu_indices(len(names), 1)]
    outliers = list(_find_outliers(names, close))
    reasons = [*reasons, *_explain_distance(names, close), *outliers, *_compare_heads(names, close)]
    reasons.append(f"cosine between ingredients {pairs.min():.2f} to {pairs.max():.2f}")
    if pairs.min() < APART:
        verdict = "align"
    elif pairs.min() < BASIN or outliers:
        verdict = "no"
    return Diagnosis(verdict, tuple(reasons), facts, [[round(float(c), 4) for c in row] for row in cosine])


def _explain_distance(names: Sequence[str], close: Similarity) -> Iterator[str]:
    """Why ingredients cannot be averaged: other starts, or weights too far apart."""
    pairs, nearest = close.body[np.triu_indices(len(names), 1)], _fill_diagonal(close.body, -np.inf).max(axis=1)
    far = [name for name, cosine in zip(names, nearest, strict=True) if cosine < BASIN]
    if pairs.min() < APART:
        yield "trained from different starts: their units must be aligned (--align) before they are averaged"
    elif far and len(far) < len(names) - 1:
        yield f"the weights of {', '.join(far)} are too far from the others; a soup of the others may work"
    elif pairs.min() < BASIN:
        yield "the weights are too far apart: their average would most likely score far below each of them"


def _find_outliers(names: Sequence[str], close: Similarity) -> Iterator[str]:
    """Ingredients much farther from the others than those are from each other."""
    if len(names) < 3:
        return
    away = _fill_diagonal(close.distances, np.inf).min(axis=1)
    for name, distance in zip(names, away, strict=True):
        times = distance / max(np.median(away), 1e-9)
        if times > OUTLIER and distance > 0.05:
            yield f"{name}: its weights are {times:.1f}× farther from the rest than usual; leave it out"


def _fill_diagonal(matrix: Matrix, own: float) -> Matrix:
    """A copy of a square matrix with `own` on the diagonal."""
    return np.where(np.eye(len(matrix)), own, matrix)


def _compare_heads(names: Sequence[str], close: Similarity) -> Iterator[str]:
    """What to do where heads point elsewhere, as those of runs with a small first head may after training, too."""
    pairs = np.triu_indices(len(names), 1)
    if close.head is None or close.body[pairs].min() <= BASIN or close.head[pairs].min() >= NEAR_HEADS:
        return
    yield (
        f"the heads differ (cosine {close.head[pairs].min():.2f} at the lowest) more than the bodies"
        f" ({close.body[pairs].min():.2f}): if each run began with a head of its own, start all from one checkpoint"
        " with a head"
    )


def _find_duplicates(ingredients: Sequence[Ingredient]) -> Iterator[str]:
    seen: dict[tuple[str, ...], Ingredient] = {}
    for ingredient in ingredients:
        key = tuple(w.blake3 for w in ingredient.weights)
        if key in seen:
            yield f"{ingredient} has the same weights as {seen[key]}, byte for byte"
        seen.setdefault(key, ingredient)


def _compare_cards(facts: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Differences in base model and licence between the cards, and ingredients that are soups."""
    for fact in facts:
        if fact["soup"]:
            yield f"{fact['id']} is a soup itself"
    for key, text in (("base_model", "base models"), ("license", "licences")):
        values = {str(fact[key]) for fact in facts}
        if len(values) > 1:
            yield f"the cards name different {text}: {', '.join(sorted(values))}"


def _explain_batch_norm(family: Family) -> Iterator[str]:
    if not family.has_batch_norm:
        return
    yield (
        "the model has batch norms, and averaged statistics may not fit averaged weights; whether new ones score higher"
        " was not measured"
    )
    momentum = family.config.get("batch_norm_momentum")
    if isinstance(momentum, (int, float)) and momentum > 0.5:
        yield f"batch_norm_momentum {momentum}: running statistics are almost those of the last training batch alone"


def _collect_facts(ingredient: Ingredient) -> dict[str, Any]:
    """The facts about one ingredient in `hfsoup check --json`, without its weights."""
    checkpoint = inspect_checkpoint(ingredient)
    card = read_card(ingredient)
    tags = card.get("tags")
    return {
        "id": ingredient.id,
        "revision": ingredient.source.revision,
        "model_type": checkpoint.config.get("model_type"),
        "classes": len(checkpoint.labels),
        "parameters": sum(int(np.prod(s.shape)) for s in checkpoint.tensors.values()),
        "dtype": sorted({s.dtype for s in checkpoint.tensors.values()}),
        "license": read_license(ingredient),
        "base_model": ingredient.adapter.base.id if ingredient.adapter else card.get("base_model"),
        "soup": isinstance(tags, list) and any(tag in tags for tag in SOUP_TAGS),
        "sha256": [w.sha256 for w in ingredient.weights],
    }
