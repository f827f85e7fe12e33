"""A baked soup: what it is made of, what was measured, and what can be done with it."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hfsoup import __version__
from hfsoup.errors import SoupError
from hfsoup.scores import Attempt, Comparison, Decision, Score
from hfsoup.tasks import task_of
from hfsoup.types import Family, Ingredient, Mix, Truncated

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from hfsoup.distillation.made import Distilled
    from hfsoup.evidence import Evidence
    from hfsoup.further import Shift
    from hfsoup.images import Images
    from hfsoup.options import Options
    from hfsoup.push import Pushed
    from hfsoup.tasks.task import Task


Statistics = dict[str, "NDArray[np.float32]"]


@dataclass(frozen=True)
class Soup:
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
    adapter: Truncated | None = None
    evidence: Evidence | None = None
    attempts: tuple[Attempt, ...] = ()
    ensemble: Comparison | None = None
    shifts: tuple[Shift, ...] = ()
    distilled: Distilled | None = None

    def __repr__(self) -> str:
        from hfsoup.notebook import line

        return line(self)

    def _repr_html_(self) -> str:
        from hfsoup.notebook import table

        return table(self)

    @property
    def used(self) -> tuple[Ingredient, ...]:
        """The ingredients that the soup is made of, the reference where only its head is, and the base last."""
        members, base = self.mix.members, self.family.base
        places = (0, *members) if self.family.kept and 0 not in members else members
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

    def save(self, folder: str | Path, *, overwrite: bool = False) -> Soup:
        """Write the complete model folder; the soup with its path and hashes.

        A folder that holds this very soup, byte for byte, is taken as it is.

        Args:
            folder: where to; it must not exist yet, unless `overwrite`.
            overwrite: replace what is there, by a rename.
        """
        from hfsoup.average import Averager
        from hfsoup.card import card
        from hfsoup.distillation.made import beside
        from hfsoup.evaluated import write_evidence
        from hfsoup.hashing import file_hash
        from hfsoup.lock import NAME, lock
        from hfsoup.write import staged, write_adapter, write_configs, write_weights

        target, dtype = Path(folder).expanduser(), self.options.stored_dtype
        if (hashes := self._there(target)) is not None:
            return replace(self, path=target, hashes=hashes)
        family, mix, statistics = self.family, self.mix, self.statistics
        if self.distilled:
            family, mix, statistics = *beside(family, self.distilled.ingredient), {}
        averaged = Averager(family, self.options.merge, dtype, self.options.settings())
        with staged(target, overwrite=overwrite) as stage, averaged as averager:
            if self.adapter:
                hashes = write_adapter(self.adapter, stage)
            else:
                hashes = write_weights(averager, mix, stage, statistics)
            write_configs(self.family, stage, dtype)
            write_evidence(self, stage)
            (stage / "README.md").write_text(card(self), encoding="utf-8")
            paths = {path.relative_to(stage).as_posix(): path for path in sorted(stage.rglob("*")) if path.is_file()}
            files = {name: hashes.get(name) or file_hash(path) for name, path in paths.items()}
            (stage / NAME).write_text(lock(self, files).text(), encoding="utf-8")
        return replace(self, path=target, hashes=hashes)

    def _there(self, folder: Path) -> dict[str, str] | None:
        """The hashes of the weight files in `folder` if it holds this very soup already."""
        from hfsoup.hashing import file_hash
        from hfsoup.lock import NAME, lock, read

        if not (folder / NAME).is_file():
            return None
        try:
            files = read(folder, where=str(folder)).files
        except SoupError:
            return None
        same = (folder / NAME).read_text(encoding="utf-8") == lock(self, files).text()
        if not same or any(not (folder / n).is_file() or file_hash(folder / n) != h for n, h in files.items()):
            return None
        return {name: sha for name, sha in files.items() if name.endswith(".safetensors")}

    def push_to_hub(
        self, repo: str, *, private: bool = False, create_pr: bool = False, revision: str | None = None
    ) -> Soup:
        """Push to the Hub in one commit; the soup with where it went."""
        from hfsoup.push import push

        if self.path is None:
            # Kept where the push fails: the error names the command that continues from it.
            folder = Path(tempfile.mkdtemp(prefix="hfsoup-"))
            saved = self.save(folder / "soup")
            pushed = saved.push_to_hub(repo, private=private, create_pr=create_pr, revision=revision)
            shutil.rmtree(folder)
            return replace(pushed, path=None)
        return replace(self, pushed=push(self.path, repo, private=private, create_pr=create_pr, revision=revision))

    def pipeline(self, **options: Any) -> Any:
        """A transformers image-classification pipeline on this soup; `options` go to `transformers.pipeline`."""
        from transformers import pipeline

        if self.adapter is not None:
            return pipeline("image-classification", model=str(self.adapter.ingredient.folder), **options)
        if self.path is not None:
            return pipeline("image-classification", model=str(self.path), **options)
        with tempfile.TemporaryDirectory() as folder:
            self.save(Path(folder) / "soup")
            return pipeline("image-classification", model=str(Path(folder) / "soup"), **options)

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
        from hfsoup.records import shift_record, test_record

        found: dict[str, Any] = {}
        if self.ensemble:
            found["ensemble"] = {"members": len(self.mix.members), **test_record(self.ensemble).model_dump()}
        if self.shifts:
            found["shifts"] = [shift_record(shift).model_dump() for shift in self.shifts]
        return found

    def _learned(self) -> dict[str, Any]:
        """What coefficients were learned from, where they were, and the passes over it."""
        from hfsoup.recipes import RECIPES

        learning = self.images.learning if self.images else None
        if learning is None:
            return {}
        epochs = RECIPES.get(self.options.chosen_recipe).learns
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
        from hfsoup.records import test_record

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
            **({"comparison": test_record(c).model_dump()} if c else {}),
            **self._further(),
            "images_forwarded": self.images_forwarded,
            "images_spared": self.images_spared,
            "seconds": {name: round(value, 3) for name, value in self.seconds.items()},
            "pushed": vars(self.pushed) if self.pushed else None,
            **({"distilled": d.to_json()} if d else {}),
            **({"adapter": {"rank": a.rank, "error": a.error, "worst": a.worst, "layer": a.layer}} if a else {}),
        }
