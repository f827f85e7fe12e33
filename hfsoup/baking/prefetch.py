"""Work done while ingredients are being pulled: prepare images, score the ingredients that have arrived."""

from __future__ import annotations

import threading
from concurrent.futures import Future, wait
from functools import partial
from importlib import import_module
from queue import SimpleQueue
from types import TracebackType
from typing import TYPE_CHECKING, Any

from hfsoup.averaging.averager import Averager
from hfsoup.averaging.mix import Mix
from hfsoup.checkpoints.inspection import read_class_names, read_processor_config
from hfsoup.checkpoints.types import Ingredient, Source
from hfsoup.data.tasks import task_of
from hfsoup.ingredients.compatibility import check_compatibility
from hfsoup.ingredients.pull import fetch_configs, place_ingredient, pull_ingredients
from hfsoup.options.options import Options
from hfsoup.utils.distributed import World
from hfsoup.utils.progress import Stage
from hfsoup.utils.threads import start_thread

if TYPE_CHECKING:
    from hfsoup.data.images import Images

MIN_BYTES = 32 << 20
"""Prefetch if at least this many bytes have to be pulled."""
POLL = 0.1
LIBRARIES = (
    *("datasets", "transformers.conversion_mapping", "transformers.core_model_loading"),
    *(
        "hfsoup.evaluation.scorer",
        "hfsoup.data.images",
        "hfsoup.evaluation.journal",
        "hfsoup.baking.measure",
        "hfsoup.evaluation.journal",
    ),
)
"""Imported before the caller continues, with all that they import themselves."""


class Stopped(Exception):  # noqa: N818 - nothing went wrong
    """The bake has ended."""


class Prefetcher:
    """Prepares the images of a bake, then scores ingredients as they arrive, in a thread.

    The bake then finds the images in the cache and the scores in the journal. Errors are dropped here: the bake does
    the same work again in its turn, and raises them.

    Two threads that import the same library at once may each see half of it: transformers replaces its modules while
    they load. So this thread imports all libraries first, while the caller only waits for files, and `await_imports`
    blocks the caller until that is done.

    Args:
        world: the processes that score; where there are several, one does not score alone.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._stopped, self._pulled, self._imported = threading.Event(), threading.Event(), threading.Event()
        self._done: Future[None] | None = None
        self._here: SimpleQueue[Source | None] = SimpleQueue()
        self._ready, self._total = 0, 0
        self.images_forwarded = 0

    def __enter__(self) -> Prefetcher:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        self._here.put(None)
        if self._done:
            wait([self._done], timeout=1)

    def start(self, first: Source, options: Options, missing: int) -> None:
        """Start, if at least MIN_BYTES are `missing` and the first ingredient has an image processor of its own.

        Args:
            first: the first ingredient.
            options: as for `bake`; without a dataset there is nothing to prepare.
            missing: bytes of all ingredients that have to be pulled.
        """
        if options.dataset is None or options.processor_from or missing < MIN_BYTES or first.folder or first.base:
            return
        self._done = start_thread(partial(self._work, first, options))

    def receive(self, source: Source) -> None:
        """All files of an ingredient are here."""
        if not source.base:
            self._here.put(source)

    def await_imports(self) -> None:
        """Wait until this thread has imported all libraries that the caller might import too."""
        if self._done:
            self._imported.wait()

    def follow(self, stage: Stage) -> None:
        """Show the progress of the images, and wait until they are ready and the current score is done."""
        self._pulled.set()
        self._here.put(None)
        while self._done and not self._done.done():
            stage.expect(self._total)
            stage.reach(self._ready, "")
            wait([self._done], timeout=POLL)
        stage.reach(0, "")

    def _work(self, first: Source, options: Options) -> None:
        try:
            self._prepare_and_score(first, options)
        finally:
            self._imported.set()

    def _prepare_and_score(self, first: Source, options: Options) -> None:
        labels, images = self._prepare(first, options)
        if self._world.count > 1 or not options.resume or options.align != "none":
            return
        # Once everything is pulled, the bake itself scores the rest.
        while (source := self._here.get()) is not None and not self._pulled.is_set():
            self._score(source, labels, options, images)

    def _prepare(self, first: Source, options: Options) -> tuple[tuple[str, ...], Images]:
        from hfsoup.baking.scoring import load_bake_images
        from hfsoup.ingredients.headers import read_outline

        known = read_outline(first)
        described = place_ingredient(first, fetch_configs(first), ())
        processor = _import_libraries(known.config, described)
        self._imported.set()
        labels = read_class_names(known.config, where=str(first))
        norms = bool(known.has_batch_norm)
        return labels, load_bake_images(
            options, processor, labels, task_of(known.config), norms, self._advance, self._expect
        )

    def _score(self, source: Source, labels: tuple[str, ...], options: Options, images: Images) -> None:
        from hfsoup.baking.scoring import make_scorer
        from hfsoup.evaluation.journal import Journal, journal_path

        family = check_compatibility(pull_ingredients([source]))
        if family.labels != labels:
            return
        # What an ingredient scores alone is the same with every merge.
        with Averager(family, dtype=options.stored_dtype) as averager:
            alone = make_scorer(averager, options, self._world, Journal(journal_path()), images, self._check_stopped)
            alone.score(Mix.of((0,), 1), images.selection)
            self.images_forwarded += alone.images_forwarded

    def _check_stopped(self, _: int) -> None:
        if self._stopped.is_set():
            raise Stopped

    def _advance(self, count: int) -> None:
        self._ready += count
        self._check_stopped(count)

    def _expect(self, total: int) -> None:
        self._total = total


def _import_libraries(config: dict[str, Any], first: Ingredient) -> Any:
    """Import what both threads use from here on, the model's code too; the image processor of the first ingredient.

    Raises:
        SoupError: transformers does not take the ingredient.
    """
    for name in LIBRARIES:
        import_module(name)
    from hfsoup.checkpoints.architecture import build_config, find_model_class
    from hfsoup.checkpoints.processor import load_image_processor

    read_processor_config(first)
    find_model_class(build_config(config))
    return load_image_processor(first.processor_folder)
