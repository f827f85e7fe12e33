"""The records of what was measured. Frozen, and free of torch."""

from __future__ import annotations

from dataclasses import dataclass, field

from hfsoup.averaging.mix import Mix

ALPHA = 0.05
NEGATED = "negative "
"""What the name of a metric begins with whose number was negated, so that the largest is the best."""
FLOAT32 = "float32"
STORED = "stored"
"""The precision of records without one: models computed in the type that their weights are stored in."""
Bounds = tuple[float, float]


@dataclass(frozen=True)
class Precision:
    """The arithmetic that candidates are scored in on the selection split, and that of all other scores.

    Each is `float32`, `tf32`, `bf16`, `fp16`, or `STORED`.
    """

    selection: str = FLOAT32
    test: str = FLOAT32

    @property
    def widens(self) -> bool:
        """Whether weights that are stored in fewer bits are computed with in float32."""
        return STORED not in (self.selection, self.test)


@dataclass(frozen=True)
class Score:
    """The metric of one mix on one split.

    `value` is the metric's own number (a fraction for accuracy); `correct` is the exact count of right answers where
    the metric counts them, and `hits` then holds one byte, 0 or 1, per image. `bn` is the mode of the batch-norm
    statistics that it was measured with, and `images` says how many were forwarded for it. Where evaluation stopped
    before all images, `value` and `correct` are the most that the mix could have reached, and `at_most` is set.
    `cross_entropy` is the mean negative log-probability of the true class, None where that was not measured.
    """

    value: float
    total: int = 0
    correct: int | None = None
    hits: bytes = field(default=b"", repr=False)
    bn: str = "average"
    images: int = 0
    at_most: bool = False
    cross_entropy: float | None = None

    @property
    def key(self) -> float:
        """What is compared: the exact count where there is one, never a rounded fraction."""
        return self.value if self.correct is None else self.correct


@dataclass(frozen=True)
class Decision:
    """One step of a search; `images` were forwarded to take it; `walk` is the recipe where several were run.

    `ingredient` is what was added or dropped; a step along the line from the base through a soup leads to `alpha`
    instead.
    """

    step: int
    action: str
    ingredient: int | None
    score: Score
    accepted: bool
    images: int
    walk: str = ""
    alpha: float | None = None

    @property
    def outcome(self) -> str:
        """What happened to the ingredient, in a word or two."""
        return describe_outcome(self.action, accepted=self.accepted)


def describe_outcome(action: str, *, accepted: bool) -> str:
    """What happened to an ingredient that a search tried to add or to drop, or to a step along a line."""
    if action == "drop":
        return "dropped" if accepted else "stays"
    if action == "add":
        return "added" if accepted else "not added"
    return "kept" if accepted else "not kept"


def describe_alpha(alpha: float) -> str:
    """How far a step along the line from the base through a soup leads."""
    return f"to α = {alpha:g}"


@dataclass(frozen=True)
class Start:
    """The mix that a walk began at, with its selection score; `walk` is the recipe where several were run."""

    walk: str
    score: Score
    mix: Mix


@dataclass(frozen=True)
class Attempt:
    """A mix that a recipe measured as a whole, under the name that it goes by, with its selection score."""

    name: str
    mix: Mix
    score: Score


@dataclass(frozen=True)
class Intervals:
    """Lower and upper bounds of the soup's score, of the best ingredient's, and of the difference."""

    soup: Bounds
    best: Bounds
    difference: Bounds


@dataclass(frozen=True)
class Comparison:
    """Soup against best ingredient on the test split, scored once each.

    `ci95` covers 95 %, however many mixes the soup was chosen among: the test split has no part in that choice. It is
    None where the metric's draws cannot be formed; `p_value` is McNemar's exact two-sided test where the metric counts
    right answers, else None; `ece` and `best_ece` are expected calibration errors.
    """

    soup: Score
    best: Score
    ci95: Intervals | None
    p_value: float | None
    ece: float | None = None
    best_ece: float | None = None

    @property
    def difference(self) -> float:
        """Soup less best ingredient, in the metric's own unit."""
        return self.soup.value - self.best.value

    @property
    def verdict(self) -> str:
        """`better`, `worse`, or `not distinguishable` at p < 0.05, or else by the interval."""
        if self.p_value is not None:
            sure = self.p_value < ALPHA
        else:
            low, high = self.ci95.difference if self.ci95 else (0.0, 0.0)
            sure = low > 0 or high < 0
        return ("better" if self.difference > 0 else "worse") if sure else "not distinguishable"
