"""Images prepared while the ingredients are still being pulled."""

from __future__ import annotations

import threading
from contextlib import suppress
from types import TracebackType

from hfsoup.errors import SoupError
from hfsoup.options import Options
from hfsoup.pull import fetch_configs, placed
from hfsoup.single import class_names, processor_values
from hfsoup.types import Source
from hfsoup.watch import Stage

WORTH = 32 << 20
"""From so many bytes on that are to be pulled, images are prepared meanwhile."""
POLL = 0.1


class _Stopped(Exception):  # noqa: N818 - nothing went wrong
    pass


class Ahead:
    """Prepares the images of a bake in a thread, from what the first ingredient says of itself.

    They are found in the cache in their turn. Whatever goes wrong here is not told: in its turn it is tried again, and
    told then.
    """

    def __init__(self) -> None:
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self._ready, self._total = 0, 0

    def __enter__(self) -> Ahead:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
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
        self._thread = threading.Thread(target=self._prepare, args=(first, options), daemon=True)
        self._thread.start()

    def follow(self, stage: Stage) -> None:
        """Wait until the images are ready, and show how far they are."""
        while self._thread and self._thread.is_alive():
            stage.expect(self._total)
            stage.reach(self._ready, "")
            self._thread.join(POLL)
        stage.reach(0, "")

    def _prepare(self, first: Source, options: Options) -> None:
        from hfsoup.calibrate import looked_at
        from hfsoup.images import load_images
        from hfsoup.models import image_processor
        from hfsoup.outline import outlined

        with suppress(SoupError, _Stopped):
            known = outlined(first)
            labels = class_names(known.config, where=str(first))
            described = placed(first, fetch_configs(first), ())
            processor_values(described)
            load_images(
                options.request(),
                image_processor(described.processor_folder),
                labels,
                calibrate=looked_at(options, batch_norm=bool(known.has_batch_norm)),
                advance=self._advance,
                expect=self._expect,
            )

    def _advance(self, count: int) -> None:
        self._ready += count
        if self._stopped.is_set():
            raise _Stopped

    def _expect(self, total: int) -> None:
        self._total = total
