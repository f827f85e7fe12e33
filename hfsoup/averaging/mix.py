"""How much of each ingredient a soup has."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import fsum


@dataclass(frozen=True)
class Mix:
    """One coefficient per ingredient of the family, in its order, 0 for what is left out; `base` is the base's share.

    The model is (1 − base) times the merge of the ingredients plus base times the base; a negative share extrapolates.
    `tensors` are those with coefficients of their own; `coefficients` are then the mean over these, and of everything
    else. `merged` is whether the merge also changes a single ingredient.
    """

    coefficients: tuple[float, ...]
    base: float = 0.0
    tensors: tuple[tuple[str, tuple[float, ...]], ...] = ()
    merged: bool = False

    @classmethod
    def of(cls, members: tuple[int, ...], size: int) -> Mix:
        """The plain mean of `members` among `size` ingredients."""
        share = 1.0 / len(members)
        return cls(tuple(share if i in members else 0.0 for i in range(size)))

    @classmethod
    def weighted(cls, weights: dict[int, float], size: int) -> Mix:
        """The mean weighted by `weights`, ingredient to weight, in any scale; equal ones give the plain mean."""
        taken = tuple(i for i, weight in weights.items() if weight)
        if len({weights[i] for i in taken}) == 1:
            return cls.of(taken, size)
        total = fsum(weights.values())
        if abs(total - 1) < 1e-12:
            # Coefficients of a mix stay as they are when they are given again.
            total = 1.0
        return cls(tuple(weights.get(i, 0.0) / total for i in range(size)))

    @cached_property
    def members(self) -> tuple[int, ...]:
        """Indices of the ingredients that take part."""
        return tuple(i for i, c in enumerate(self.coefficients) if c)

    @cached_property
    def _own(self) -> dict[str, Mix]:
        return {name: Mix(coefficients, self.base) for name, coefficients in self.tensors}

    def at(self, tensor: str) -> Mix:
        """The mix of one tensor."""
        return self._own.get(tensor, self)

    def span(self, ingredient: int) -> tuple[float, float] | None:
        """The least and the largest coefficient of an ingredient among `tensors`; None where there are none."""
        found = [coefficients[ingredient] for _, coefficients in self.tensors]
        return (min(found), max(found)) if found else None

    @property
    def alpha(self) -> float:
        """How far the model is on the line from the base (0) through the merge (1), without the noise of 1 − base."""
        return round(1 - self.base, 12)

    @property
    def alone(self) -> bool:
        """Whether this is one ingredient, as it is."""
        return len(self.members) == 1 and not self.base and not self.merged

    @property
    def merges(self) -> bool:
        """Whether the merge has anything to do."""
        return len(self.members) > 1 or self.merged
