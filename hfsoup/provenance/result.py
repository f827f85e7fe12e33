"""The result of a bake: what the soup is made of, and what was measured."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from hfsoup.averaging.mix import Mix
from hfsoup.checkpoints.types import Ingredient, LowRankAdapter
from hfsoup.data.metrics import METRICS
from hfsoup.data.tasks import task_of
from hfsoup.evaluation.scores import Attempt, Comparison, Decision, Precision, Score
from hfsoup.ingredients.family import Family
from hfsoup.merges import MERGES
from hfsoup.networks.alignment.tables import TABLES
from hfsoup.networks.importance import KINDS
from hfsoup.recipes import RECIPES
from hfsoup.utils.registry import Entry
from hfsoup.utils.text import shorten_names

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from hfsoup.data.images import Images
    from hfsoup.data.tasks.task import Task
    from hfsoup.evaluation.measurements import Evidence, Shift
    from hfsoup.hub.push import Pushed
    from hfsoup.networks.distillation.result import Distillation
    from hfsoup.options.options import Options


Statistics = dict[str, "NDArray[np.float32]"]


@dataclass(frozen=True)
class Composition:
    """What a soup is made of: a mix of a family.

    `statistics` are re-estimated batch-norm statistics by tensor, where the soup is shipped with them. Where there is
    an `adapter` or a `distilled` network, that is what was scored and is written, not the mix; the `statistics` are
    then those that the network's training began with.
    """

    family: Family
    mix: Mix
    statistics: Statistics = field(default_factory=dict, repr=False)
    adapter: LowRankAdapter | None = None
    distilled: Distillation | None = None
    merge: str = "mean"

    @property
    def used(self) -> tuple[Ingredient, ...]:
        """The ingredients with a part in the soup, the reference where only its head is used, and the base last."""
        members, base = self.mix.members, self.family.base
        places = (0, *members) if self.family.reference_only and 0 not in members else members
        if self.distilled:
            places = tuple(sorted({*places, *self.distilled.start.members}))
        needed = self.mix.base or (self.mix.merges and MERGES.get(self.merge).needs_base)
        rooted = (base.ingredient,) if base and needed else ()
        return (*(self.family.ingredients[i] for i in places), *rooted)

    @property
    def names(self) -> list[str]:
        """What texts call the ingredients: repositories by their id, folders of this disk by their last name."""
        return shorten_names([(i.id, i.source.revision) for i in self.family.ingredients])

    @property
    def kind(self) -> str:
        """What texts call the result."""
        return "distilled model" if self.distilled else "soup"


@dataclass(frozen=True)
class SearchResult:
    """What was measured on the selection split.

    `scores` are those of the ingredients alone, None without data, and `best` is the index of the best one; `attempts`
    are the mixes that the recipe measured as a whole; `selection` is the soup's score, and `modes` are its scores by
    batch-norm mode.
    """

    scores: tuple[Score | None, ...]
    best: int | None = None
    trace: tuple[Decision, ...] = ()
    attempts: tuple[Attempt, ...] = ()
    selection: Score | None = None
    modes: Mapping[str, Score] = field(default_factory=dict)


@dataclass(frozen=True)
class Evaluation:
    """What was measured after the choice.

    `comparison` is soup against best ingredient on the test split, `evidence` what both predict there, image by image,
    with the points of the plots; `ensemble` is the soup against the mean of its ingredients' logits, and `shifts` are
    comparisons on other images. `numbers` are all others by name, as `hfsoup.reports.measurements` declares them.
    `precision` is what all scores were computed in.
    """

    comparison: Comparison | None = None
    evidence: Evidence | None = None
    ensemble: Comparison | None = None
    shifts: tuple[Shift, ...] = ()
    numbers: Mapping[str, float] = field(default_factory=dict)
    precision: Precision | None = None


@dataclass(frozen=True)
class Emissions:
    """What a bake emitted, in grams of CO₂ equivalent; by what it was measured, where, and on what hardware."""

    grams: float
    tracker: str
    location: str
    hardware: str


@dataclass(frozen=True)
class Run:
    """What the bake took: images through a network, images that a decided comparison did not need, seconds by stage.

    `emissions` are those up to the writing, None where they were not measured.
    """

    images_forwarded: int = 0
    images_spared: int = 0
    seconds: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    emissions: Emissions | None = None


@dataclass(frozen=True)
class Location:
    """Where a soup is: its folder and the sha256 of its weight files once written, its repository once pushed."""

    path: Path | None = None
    hashes: Mapping[str, str] = field(default_factory=dict)
    pushed: Pushed | None = None

    @property
    def sha256(self) -> str | None:
        """The sha256 of the weight file, or of the lines `sha256  name` of several; None before it is written."""
        if len(self.hashes) < 2:
            return next(iter(self.hashes.values()), None)
        return hashlib.sha256("".join(f"{h}  {n}\n" for n, h in sorted(self.hashes.items())).encode()).hexdigest()


@dataclass(frozen=True, repr=False)
class BakeResult:
    """The result of a bake of `patterns` with `options`; `images` are the splits of its dataset, None without one."""

    patterns: tuple[str, ...]
    options: Options
    composition: Composition
    search: SearchResult
    images: Images | None = None
    evaluation: Evaluation = Evaluation()
    run: Run = Run()
    location: Location = Location()

    @property
    def family(self) -> Family:
        """The ingredients, and how their files fit together."""
        return self.composition.family

    @property
    def mix(self) -> Mix:
        """The coefficients of the ingredients."""
        return self.composition.mix

    @property
    def scores(self) -> tuple[Score | None, ...]:
        """The ingredients' own scores on the selection split, None without data."""
        return self.search.scores

    @property
    def best(self) -> int | None:
        """The index of the best ingredient; None without data."""
        return self.search.best

    @property
    def trace(self) -> tuple[Decision, ...]:
        """The steps of the search."""
        return self.search.trace

    @property
    def selection(self) -> Score | None:
        """The score on the selection split; None without data."""
        return self.search.selection

    @property
    def comparison(self) -> Comparison | None:
        """Soup against best ingredient on the test split; None without data."""
        return self.evaluation.comparison

    @property
    def path(self) -> Path | None:
        """The folder that it was written to."""
        return self.location.path

    @property
    def sha256(self) -> str | None:
        """The sha256 of its weights, as `Location.sha256`; None before it is written."""
        return self.location.sha256

    @property
    def pushed(self) -> Pushed | None:
        """Where it is on the Hub."""
        return self.location.pushed

    @property
    def task(self) -> Task:
        """What the ingredients' outputs mean."""
        return task_of(self.family.config)

    @property
    def entries(self) -> list[Entry]:
        """The registered functions that made and scored it: recipe, merge, metric, importance, permutation table."""
        family = self.family
        found: list[Entry | None] = [RECIPES.get(self.options.chosen_recipe), MERGES.get(self.options.merge)]
        found += [METRICS.find(self.metric) if self.selection else None]
        found += [KINDS.find(family.importance.kind) if family.importance else None]
        found += [TABLES.find(str(family.config["model_type"])) if family.alignment else None]
        return [entry for entry in found if entry]

    @property
    def metric(self) -> str:
        """The name of the metric: the one asked for, else the task's first."""
        return self.options.metric or self.task.metrics[0]

    @property
    def score(self) -> float | None:
        """The metric on the selection split; None without data."""
        return self.selection.value if self.selection else None

    @property
    def test(self) -> float | None:
        """The metric on the test split; None without data."""
        return self.comparison.soup.value if self.comparison else None
