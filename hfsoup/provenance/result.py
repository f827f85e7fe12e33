"""The result of a bake: what the soup is made of, and what was measured."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hfsoup.averaging.mix import Mix
from hfsoup.checkpoints.types import Ingredient, LowRankAdapter
from hfsoup.data.tasks import task_of
from hfsoup.evaluation.scores import Attempt, Comparison, Decision, Score
from hfsoup.ingredients.family import Family
from hfsoup.utils.version import __version__

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


@dataclass(frozen=True, repr=False)
class BakeResult:
    """The result of a bake.

    `scores` are the ingredients' own on the selection split, None where there was no data; `best` is the index of the
    best ingredient; `modes` are the soup's selection scores by batch-norm mode, and `statistics` the re-estimated ones
    if it is shipped with them; `images_spared` were not forwarded because the verdict was sure without them; `path` is
    set once the soup is written and `pushed` once it is on the Hub; `adapter` is what is written, and was scored, where
    the soup is one; `evidence` is what was seen on the test split, image by image; `attempts` are the mixes that the
    recipe measured as wholes; `ensemble` is the soup against the mean of its ingredients' logits on the test split, and
    `shifts` are its scores on other images. `distilled` is the network that was trained on what the mix's members say;
    then that is what is written and was scored, and `statistics` are those that its training began with.
    """

    family: Family
    mix: Mix
    options: Options
    patterns: tuple[str, ...]
    scores: tuple[Score | None, ...]
    trace: tuple[Decision, ...] = ()
    selection: Score | None = None
    comparison: Comparison | None = None
    best: int | None = None
    images: Images | None = None
    images_forwarded: int = 0
    images_spared: int = 0
    notes: tuple[str, ...] = ()
    modes: dict[str, Score] = field(default_factory=dict)
    statistics: Statistics = field(default_factory=dict, repr=False)
    seconds: dict[str, float] = field(default_factory=dict)
    path: Path | None = None
    hashes: dict[str, str] = field(default_factory=dict)
    pushed: Pushed | None = None
    adapter: LowRankAdapter | None = None
    evidence: Evidence | None = None
    attempts: tuple[Attempt, ...] = ()
    ensemble: Comparison | None = None
    shifts: tuple[Shift, ...] = ()
    distilled: Distillation | None = None

    @property
    def used(self) -> tuple[Ingredient, ...]:
        """The ingredients that the soup is made of, the reference where only its head is, and the base last."""
        members, base = self.mix.members, self.family.base
        places = (0, *members) if self.family.reference_only and 0 not in members else members
        if self.distilled:
            places = tuple(sorted({*places, *self.distilled.start.members}))
        rooted = (base.ingredient,) if base and not self.mix.alone else ()
        return (*(self.family.ingredients[i] for i in places), *rooted)

    @property
    def task(self) -> Task:
        """What the ingredients' outputs mean."""
        return task_of(self.family.config)

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

    @property
    def sha256(self) -> str | None:
        """The sha256 of the weight file, or of the lines `sha256  name` of several; None before it is written."""
        if len(self.hashes) < 2:
            return next(iter(self.hashes.values()), None)
        return hashlib.sha256("".join(f"{h}  {n}\n" for n, h in sorted(self.hashes.items())).encode()).hexdigest()

    def decisions(self) -> list[dict[str, Any]]:
        """The trace as plain values."""
        return [
            {
                "step": d.step,
                "action": d.action,
                "ingredient": self.family.ingredients[d.ingredient].id,
                "score": d.score.value,
                "at_most": d.score.at_most,
                "accepted": d.accepted,
                "images": d.images,
                **({"walk": d.walk} if d.walk else {}),
            }
            for d in self.trace
        ]

    def _base(self) -> dict[str, Any]:
        """The base, where one has a part in the soup."""
        if self.family.base is None:
            return {}
        base = self.family.base.ingredient
        return {"base": {"id": base.id, "revision": base.source.revision, "weight": self.mix.base}}

    def _further(self) -> dict[str, Any]:
        """Ensemble and shifts as plain values, where there are any."""
        from hfsoup.provenance.records import record_comparison, record_shift

        found: dict[str, Any] = {}
        if self.ensemble:
            found["ensemble"] = {"members": len(self.mix.members), **record_comparison(self.ensemble).model_dump()}
        if self.shifts:
            found["shifts"] = [record_shift(shift).model_dump() for shift in self.shifts]
        return found

    def _learned(self) -> dict[str, Any]:
        """What coefficients were learned from, where they were, and the passes over it."""
        from hfsoup.recipes import RECIPES

        learning = self.images.learning if self.images else None
        if learning is None:
            return {}
        epochs = RECIPES.get(self.options.chosen_recipe).epochs
        found = {"split": learning.name, "images": len(learning), "epochs": epochs}
        return {"learned": {**found, "tensors": len(self.mix.tensors)}}

    def _ingredients(self) -> list[dict[str, Any]]:
        """Every ingredient with its score and weight; its least and largest where tensors have their own."""
        weights = enumerate(zip(self.family.ingredients, self.mix.coefficients, self.scores, strict=True))
        return [
            {
                "id": i.id,
                "revision": i.source.revision,
                "score": s and s.value,
                "weight": w,
                **({"weights": list(span)} if (span := self.mix.span(n)) else {}),
                "used": w != 0,
            }
            for n, (i, w, s) in weights
        ]

    def tried(self) -> list[dict[str, Any]]:
        """The attempts as plain values."""
        return [
            {"name": a.name, "score": a.score.value, "weights": list(a.mix.coefficients), "kept": a.mix == self.mix}
            for a in self.attempts
        ]

    def to_json(self) -> dict[str, Any]:
        """The one object that `--json` writes."""
        from hfsoup.provenance.records import record_comparison

        c, best, a, d = self.comparison, self.best, self.adapter, self.distilled
        return {
            "hfsoup": __version__,
            "recipe": self.options.chosen_recipe,
            "merge": self.options.merge,
            "metric": self.metric,
            **({"task": self.task.name, "threshold": t} if (t := self.task.threshold) is not None else {}),
            "ingredients": self._ingredients(),
            **self._base(),
            **self._learned(),
            "trace": self.decisions(),
            **({"attempts": self.tried()} if self.attempts else {}),
            "soup": {
                "score": self.score,
                "test": self.test,
                "ci95": list(c.ci95.soup) if c and c.ci95 else None,
                **({"choices": c.choices} if c and c.choices > 1 else {}),
                **({"adjusted": {"level": c.level, "interval": list(c.adjusted.soup)}} if c and c.adjusted else {}),
                **({"ece": c.ece} if c else {}),
                "path": str(self.path) if self.path else None,
                "sha256": self.sha256,
            },
            "best_ingredient": None
            if best is None
            else {
                "id": self.family.ingredients[best].id,
                "score": (s := self.scores[best]) and s.value,
                "test": c.best.value if c else None,
                **({"ece": c.best_ece} if c else {}),
            },
            **({"comparison": record_comparison(c).model_dump()} if c else {}),
            **self._further(),
            "images_forwarded": self.images_forwarded,
            "images_spared": self.images_spared,
            "seconds": {name: round(value, 3) for name, value in self.seconds.items()},
            "pushed": vars(self.pushed) if self.pushed else None,
            **({"distilled": d.to_json()} if d else {}),
            **({"adapter": {"rank": a.rank, "error": a.error, "worst": a.worst, "layer": a.layer}} if a else {}),
        }
