"""What a bake emits, where codecarbon is installed and knows the country; nothing is looked up on the network."""

from __future__ import annotations

import os
from math import isfinite
from types import TracebackType
from typing import Any

from hfsoup.provenance.result import Emissions
from hfsoup.utils.errors import LOADING_ERRORS
from hfsoup.utils.progress import Watch
from hfsoup.utils.text import one_line

COUNTRY = "CODECARBON_COUNTRY_ISO_CODE"
"""The variable that tells codecarbon the country; without it, it would ask a server where this machine is."""


class EmissionsTracker:
    """Measures from its start to its `stop`; whatever codecarbon does, the bake goes on.

    Args:
        watch: notified where codecarbon fails.
        alone: whether this process does the whole bake; what others emit is not known here, and nothing is measured.
    """

    def __init__(self, watch: Watch, *, alone: bool) -> None:
        self._watch, self._tracker = watch, None if not alone else self._try_to(_start_tracker)

    def __enter__(self) -> EmissionsTracker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> Emissions | None:
        """What was emitted up to now; None where that was not measured, and from the second call on."""
        tracker, self._tracker = self._tracker, None
        found: Emissions | None = self._try_to(lambda: _read_tracker(tracker)) if tracker else None
        return found

    def _try_to(self, act: Any) -> Any:
        try:
            return act()
        except LOADING_ERRORS as error:
            self._watch.note(f"codecarbon could not measure the emissions of this bake: {one_line(error, 200)}")
            return None


def _start_tracker() -> Any:
    country = os.environ.get(COUNTRY)
    if not country:
        return None
    try:
        from codecarbon import OfflineEmissionsTracker
    except ModuleNotFoundError as error:
        if error.name == "codecarbon":
            return None
        raise
    tracker = OfflineEmissionsTracker(
        country_iso_code=country, save_to_file=False, save_to_api=False, log_level="critical"
    )
    tracker.start()
    return tracker


def _read_tracker(tracker: Any) -> Emissions | None:
    """Stop it. Another codecarbon on this machine keeps it from measuring, for which it has no number."""
    kilograms = tracker.stop()
    if kilograms is None:
        return None
    if not isinstance(kilograms, int | float) or not isfinite(kilograms) or kilograms < 0:
        raise ValueError(f"expected kilograms of CO2, found {kilograms!r}")
    data = tracker.final_emissions_data
    place = [text for text in (data.region, data.country_name) if text]
    hardware = [f"{int(data.gpu_count)} × {data.gpu_model}"] if data.gpu_count and data.gpu_model else []
    return Emissions(
        grams=float(f"{1000 * kilograms:.4g}"),
        tracker=one_line(f"codecarbon {data.codecarbon_version}", 60),
        location=one_line(", ".join(place), 100),
        hardware=one_line(", ".join([*hardware, *([data.cpu_model] if data.cpu_model else [])]), 200),
    )
