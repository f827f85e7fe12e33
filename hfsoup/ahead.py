"""What is done while ingredients are still being pulled: images prepared, and those that are here scored."""

from __future__ import annotations

import threading
from contextlib import suppress
from queue import SimpleQueue
from types import TracebackType
from typing import TYPE_CHECKING

from hfsoup.average import Averager
from hfsoup.check import check
from hfsoup.errors import SoupError
from hfsoup.options import Options
from hfsoup.pull import fetch_configs, placed, pull
from hfsoup.single import class_names, processor_values
from hfsoup.types import Mix, Source
from hfsoup.watch import Stage
from hfsoup.world import World

if TYPE_CHECKING:
    from hfsoup.images import Images

WORTH = 32 << 20
"""From so many bytes on that are to be pulled, something is done meanwhile."""
POLL = 0.1


class Stopped(Exception):  # noqa: N818 - nothing went wrong
    """Nobody waits for what is being done any more."""


class Ahead:
    """Prepares the images of a bake, then scores ingredients as they arrive, in a thread.

    Images are found in the cache in their turn, scores in the journal. Whatever goes wrong here is not told: in its
    turn it is tried again, and told then.

    Args:
        world: the processes that score; where there are several, one does not score alone.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._stopped, self._pulled = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None
        self._here: SimpleQueue[Source | None] = SimpleQueue()
        self._ready, self._total = 0, 0
        self.images_forwarded = 0

    def __enter__(self) -> Ahead:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        self._here.put(None)
        if self._thread:
            self._thread.join(1)

    def begin(self, first: Source, options: Options, missing: int) -> None:
        """Start, if `missing` bytes are enough to wait for and the first ingredient can tell how images are processed.

        Args:
            first: the first ingredient.
            options: what is to be baked; without a dataset there is nothing to prepare.
            missing: bytes of all ingredients that have to be pulled.
        """
        if options.dataset is None or options.processor_from or missing < WORTH or first.folder or first.base:
            return
        self._thread = threading.Thread(target=self._work, args=(first, options), daemon=True)
        self._thread.start()

    def arrived(self, source: Source) -> None:
        """All files of an ingredient are here."""
        if not source.base:
            self._here.put(source)

    def follow(self, stage: Stage) -> None:
        """Wait until the images are ready, and what is being scored is; show how far they are."""
        self._pulled.set()
        self._here.put(None)
        while self._thread and self._thread.is_alive():
            stage.expect(self._total)
            stage.reach(self._ready, "")
            self._thread.join(POLL)
        stage.reach(0, "")

    def _work(self, first: Source, options: Options) -> None:
        with suppress(SoupError, Stopped):
            labels, images = self._prepared(first, options)
            if self._world.count > 1 or not options.resume or options.align != "none":
                return
            # Once nothing is pulled any more, the rest is scored in its turn.
            while (source := self._here.get()) is not None and not self._pulled.is_set():
                self._score(source, labels, options, images)

    def _prepared(self, first: Source, options: Options) -> tuple[tuple[str, ...], Images]:
        from hfsoup.measuring import loaded
        from hfsoup.models import image_processor
        from hfsoup.outline import outlined

        known = outlined(first)
        labels = class_names(known.config, where=str(first))
        described = placed(first, fetch_configs(first), ())
        processor_values(described)
        processor = image_processor(described.processor_folder)
        norms = bool(known.has_batch_norm)
        return labels, loaded(options, processor, labels, norms, self._advance, self._expect)

    def _score(self, source: Source, labels: tuple[str, ...], options: Options, images: Images) -> None:
        from hfsoup.journal import Journal
        from hfsoup.measuring import scorer_of
        from hfsoup.pace import journal_path

        family = check(pull([source]), exact=True)
        if family.labels != labels:
            return
        with Averager(family, options.merge, options.stored_dtype, options.settings()) as averager:
            alone = scorer_of(averager, options, self._world, Journal(journal_path()), images, self._seen)
            alone.score(Mix.of((0,), 1), images.selection)
            self.images_forwarded += alone.images_forwarded

    def _seen(self, _: int) -> None:
        if self._stopped.is_set():
            raise Stopped

    def _advance(self, count: int) -> None:
        self._ready += count
        self._seen(count)

    def _expect(self, total: int) -> None:
        self._total = total
