"""Evaluate a soup again on the recorded splits and compare with the recorded scores."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from hfsoup.averaging.averager import Averager
from hfsoup.averaging.mix import Mix
from hfsoup.data.tasks import task_of
from hfsoup.evaluation.scores import Score
from hfsoup.ingredients.family import Family
from hfsoup.options.options import Options
from hfsoup.provenance.manifest import DatasetRecord, Manifest
from hfsoup.provenance.records import ScoreRecord
from hfsoup.utils.distributed import World
from hfsoup.utils.errors import MismatchError, SoupError
from hfsoup.utils.progress import Watch
from hfsoup.utils.text import one_line, quoted

if TYPE_CHECKING:
    from hfsoup.data.images import Images
    from hfsoup.data.tasks.task import Metric


MAX_DIFFERENCES = 12


def load_recorded_images(record: DatasetRecord, family: Family, options: Options, *, calibrate: bool) -> Images:
    """Load the recorded splits at the recorded commit."""
    from hfsoup.checkpoints.processor import load_image_processor
    from hfsoup.data.images import load_images
    from hfsoup.evaluation.batch_norm import IMAGES

    processor = load_image_processor(family.processor_ingredient.processor_folder)
    request = replace(options.make_request(task_of(family.config)), revision=record.revision, mapping=record.mapping)
    learn = record.learning is not None
    return load_images(request, processor, family.labels, calibrate=IMAGES if calibrate else 0, learn=learn)


def verify_scores(
    place: str, family: Family, mix: Mix, record: Manifest, options: Options, watch: Watch
) -> dict[str, float]:
    """Evaluate on the recorded splits and compare with the recorded scores."""
    if record.dataset is None or record.test is None:
        raise SoupError("this soup was baked without a dataset, so there are no scores to check", where=place)
    from hfsoup.evaluation.metrics import load_metric
    from hfsoup.evaluation.scorer import AVERAGE, RECALIBRATE, Scorer

    world, best = (
        World(options.device),
        max(range(len(record.ingredients)), key=lambda i: _score_value(record.ingredients[i].score)),
    )
    with watch.stage("Scoring again", unit="images") as advance:
        bn, task = record.batch_norm, task_of(family.config)
        images = load_recorded_images(record.dataset, family, options, calibrate=bn is not None)
        require_equal(place, _compare_splits(record.dataset, images))
        with Averager(family, record.merge, options.stored_dtype, options.merge_parameters()) as averager:
            chosen = load_metric(options.metric, task, trust_remote=options.trust_remote_metric)
            require_equal(place, _compare_metric(record.dataset, chosen))
            mode = RECALIBRATE if bn and bn.statistics and not record.distillation else AVERAGE
            scorer = Scorer(
                averager, chosen, world, None,
                batch_size=options.batch_size, bn=mode, calibration=images.calibration, advance=advance,
                precision=record.dataset.read_precision(), selection=images.selection,
            )  # fmt: skip
            selection = scorer.score(mix, images.selection)
            comparison = scorer.compare(mix, mode, Mix.of((best,), len(family)), record.test.best_bn, images.test)
    found = {"selection": selection, "test": comparison.soup, "best ingredient, test": comparison.best}
    recorded = {"selection": record.score, "test": record.test.soup, "best ingredient, test": record.test.best}
    differing = list(_compare_scores(recorded, found))
    if differing and record.dataset.backend not in (None, images.backend):
        differing.append(f"images: prepared with {images.backend} now, {one_line(record.dataset.backend)} recorded")
    require_equal(place, differing)
    return {name: score.value for name, score in found.items()}


def _score_value(score: ScoreRecord | None) -> float:
    return float("-inf") if score is None else score.value


def _compare_metric(record: DatasetRecord, metric: Metric) -> Iterator[str]:
    """How the recorded metric and task differ from those that the ingredients are scored by."""
    for name, old, new in (("metric", record.metric, metric.name), ("task", record.task, metric.task.name)):
        if old != new:
            yield f"the {name} is {quoted(old)}, and {quoted(new)} now"


def _compare_splits(record: DatasetRecord, images: Images) -> Iterator[str]:
    for name, old, new in (("selection", record.selection, images.selection), ("test", record.test, images.test)):
        if (old.fingerprint, old.images) != (new.fingerprint, len(new)):
            yield f"the {name} split differs from the one that was scored"


def _compare_scores(recorded: Mapping[str, ScoreRecord | None], found: Mapping[str, Score]) -> Iterator[str]:
    for name, old in recorded.items():
        new = found[name]
        if old is None or (old.value, old.correct, old.total) != (new.value, new.correct, new.total):
            yield f"{name}: {new.value} now, {old and old.value} recorded"


def require_equal(place: str, differences: Iterable[str]) -> None:
    """Raise an error that names all differences, if there are any.

    Raises:
        MismatchError: there are some.
    """
    found = list(differences)
    if found:
        what = "\n  ".join(["this is not what its record says:", *found[:MAX_DIFFERENCES]])
        more = f"\n  and {len(found) - MAX_DIFFERENCES} more" if len(found) > MAX_DIFFERENCES else ""
        raise MismatchError(what + more, where=place, hint="do not use this soup; bake it again")
