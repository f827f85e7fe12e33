"""What merges may be told."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite

from hfsoup.utils.errors import UsageError


@dataclass(frozen=True)
class Settings:
    """The numbers of `hfsoup.merges.Context` that a user may choose; a density of None is the merge's own."""

    scale: float | None = None
    density: float | None = None
    outliers: float = 0.01
    seed: int = 0

    def __post_init__(self) -> None:
        if self.scale is not None and not isfinite(self.scale):
            raise UsageError(f"scale must be a number, found {self.scale}")
        if self.density is not None and not 0 < self.density <= 1:
            raise UsageError(f"density must be over 0 and at most 1, found {self.density}")
        if not 0 <= self.outliers < 1:
            raise UsageError(f"outliers must be at least 0 and under 1, found {self.outliers}")
