"""Scores under distribution shift: corrupted test images and further datasets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from hfsoup.data.corruptions import CORRUPTIONS
from hfsoup.data.tasks import task_of
from hfsoup.evaluation.measurements import Shift
from hfsoup.evaluation.scores import Comparison

if TYPE_CHECKING:
    from hfsoup.data.dataset_split import Split
    from hfsoup.data.images import Images
    from hfsoup.ingredients.family import Family
    from hfsoup.options.options import Options
    from hfsoup.utils.distributed import World

T = TypeVar("T")


def score_shifts(
    options: Options, family: Family, images: Images, world: World, judge: Callable[[Split], Comparison]
) -> tuple[Shift, ...]:
    """Compare soup and best ingredient with `judge` on further datasets and corrupted test images."""
    found = []
    for name, other in _broadcast(world, _load_others(options, family, images), lambda other: other.content):
        found.append(Shift(name, other.dataset, other.revision, other.test, judge(other.test), other.notes))
    for name, split in _broadcast(world, _load_corrupted(options, family, images), lambda split: split.fingerprint):
        found.append(Shift(name, None, None, split, judge(split)))
    return tuple(found)


def _broadcast(world: World, stream: Iterator[tuple[str, T]], identify: Callable[[T], Any]) -> Iterator[tuple[str, T]]:
    """Yield in every process what `stream` yields, with files that its host sees."""

    def identify_next(found: tuple[str, T] | None) -> Any:
        return found and (found[0], identify(found[1]))

    while (found := world.on_each_host(lambda: next(stream, None), identify_next)) is not None:
        yield found


def _load_others(options: Options, family: Family, images: Images) -> Iterator[tuple[str, Images]]:
    from hfsoup.checkpoints.processor import load_image_processor
    from hfsoup.data.shifts import load_other_dataset
    from hfsoup.utils.errors import SoupError

    if not images.seen:
        raise SoupError("the images of the selection split are not known")
    for name, request in options.make_other_requests(task_of(family.config)).items():
        processor = load_image_processor(family.processor_ingredient.processor_folder)
        yield name, load_other_dataset(request, processor, family.labels, images.seen)


def _load_corrupted(options: Options, family: Family, images: Images) -> Iterator[tuple[str, Split]]:
    from hfsoup.checkpoints.processor import load_image_processor
    from hfsoup.data.shifts import corrupt_test_split

    if not options.shifts:
        return
    request = replace(options.make_request(task_of(family.config)), revision=images.revision)
    processor = load_image_processor(family.processor_ingredient.processor_folder)
    splits = corrupt_test_split(request, processor, family.labels, CORRUPTIONS)
    yield from ((corruption.name, split) for corruption, split in zip(CORRUPTIONS, splits, strict=True))
