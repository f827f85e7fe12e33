"""What a recipe may call, and the record of every decision that it takes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import sqrt
from typing import TYPE_CHECKING

from hfsoup.averaging.mix import Mix
from hfsoup.evaluation.scores import Attempt, Decision, Score, Start
from hfsoup.utils.errors import SoupError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence


@dataclass(frozen=True)
class Rules:
    """What every recipe honours, besides its own arguments.

    `max_ingredients` is a hard cap, `min_score` a floor for single ingredients, `seed` that of random draws; `accept`
    and `margin` are as for `is_accepted`.
    """

    accept: str = ">="
    margin: float = 0.0
    seed: int = 0
    min_score: float | None = None
    max_ingredients: int | None = None

    def __post_init__(self) -> None:
        if self.accept not in (">=", ">"):
            raise UsageError(f"accept must be '>=' or '>', found {self.accept!r}")
        if self.max_ingredients is not None and self.max_ingredients < 1:
            raise UsageError(f"max-ingredients must be at least 1, found {self.max_ingredients}")
        if self.margin < 0:
            raise UsageError(f"margin must not be negative, found {self.margin}")


class Search:
    """A walk from mix to mix. It never touches a tensor: `score` says how good a mix is, and is called once for each.

    Args:
        names: the ingredients, in the order given.
        score: the score of a mix on the selection split, whose evaluation may stop once it cannot reach the `key`
            that comes second, if one does; None where there is no data, then nothing can be ranked.
        observe: called with every decision as it is taken.
        observe_start: called with the start of every walk.
        ensemble: the selection score of the mean of some ingredients' logits, where those are known.
        learn: the mix of some ingredients that gradient descent finds, where there are images to learn from; the second
            value says whether each tensor has weights of its own, the third whether they may be negative.
        merges_single: whether the merge also changes an ingredient that was given alone.
    """

    def __init__(
        self,
        names: Sequence[str],
        score: Callable[[Mix, float | None], Score] | None,
        rules: Rules,
        observe: Callable[[Decision], None] = lambda _: None,
        ensemble: Callable[[tuple[int, ...]], Score] | None = None,
        learn: Callable[[tuple[int, ...], bool, bool], Mix] | None = None,
        observe_start: Callable[[Start], None] = lambda _: None,
        *,
        merges_single: bool = False,
    ) -> None:
        self.names, self.rules = tuple(names), rules
        self.trace: list[Decision] = []
        self.attempts: list[Attempt] = []
        self.scores: dict[Mix, Score] = {}
        self._score, self._observe, self._ensemble, self._learn = score, observe, ensemble, learn
        self._observe_start = observe_start
        self._merges_single = merges_single and len(names) == 1
        self._current: tuple[int, ...] = ()
        self._starts: list[Start] = []
        self._walk = ""
        self._ranked: tuple[int, ...] | None = None

    @property
    def ranked(self) -> tuple[int, ...]:
        """Ingredients at or above the floor, best first; ties, and all where there is no data, in the order given."""
        if self._ranked is None:
            order = range(len(self.names))
            if self._score is None:
                self._ranked = tuple(order)
            else:
                scores = [self.score(self.mix((i,))) for i in order]
                self._ranked = tuple(
                    sorted((i for i in order if self._above_floor(scores[i])), key=lambda i: -scores[i].key)
                )
            if not self._ranked:
                raise SoupError(
                    f"no ingredient reaches the floor of {self.rules.min_score}",
                    hint="a lower --min-score",
                )
        return self._ranked

    @property
    def cap(self) -> int:
        """The most ingredients that a mix may have."""
        return self.rules.max_ingredients or len(self.names)

    @property
    def current(self) -> tuple[int, ...]:
        """The ingredients of the best mix so far."""
        return self._current

    @property
    def starts(self) -> tuple[Start, ...]:
        """The start of every walk, in order; none of a recipe that does not walk."""
        return tuple(self._starts)

    @property
    def left_out(self) -> tuple[int, ...]:
        """Ingredients below the floor."""
        return tuple(i for i in range(len(self.names)) if i not in self.ranked)

    def mix(self, members: tuple[int, ...]) -> Mix:
        """The plain mean of `members`.

        Raises:
            SoupError: there are none.
        """
        _require_members(members)
        return Mix.of(members, len(self.names))

    def as_soup(self, mix: Mix) -> Mix:
        """A mix as the soup that it is: an ingredient that was given alone is changed by merges that do so."""
        return replace(mix, merged=True) if self._merges_single else mix

    def weighted(self, weights: dict[int, float]) -> Mix:
        """The mean weighted by `weights`, ingredient to weight, in any scale.

        Raises:
            SoupError: all of them are 0.
        """
        _require_members([i for i, weight in weights.items() if weight])
        return Mix.weighted(weights, len(self.names))

    def score(self, mix: Mix, least: float | None = None) -> Score:
        """The selection score of a mix, measured once.

        Args:
            mix: the coefficients.
            least: a `key`; a score that cannot reach it may be an upper bound.
        """
        known = self.scores.get(mix)
        if known is None or (known.at_most and (least is None or known.key >= least)):
            if self._score is None:
                raise UsageError("this recipe needs scores", hint="--dataset ORG/NAME, or --recipe uniform")
            self.scores[mix] = known = self._score(mix, least)
        return known

    def ensemble(self, members: tuple[int, ...]) -> Score:
        """The selection score of the mean of the members' logits, which takes no pass over the images."""
        if self._ensemble is None:
            raise UsageError("this recipe needs the ingredients' logits", hint="hfsoup bake --dataset ORG/NAME")
        return self._ensemble(members)

    def learn(self, members: tuple[int, ...], *, per_tensor: bool = False, free: bool = False) -> Mix:
        """The mix of the members that is learned from images, on which no score is measured."""
        if self._learn is None:
            raise UsageError("this recipe learns from images", hint="hfsoup bake --dataset ORG/NAME")
        return self._learn(members, per_tensor, free)

    def attempt(self, name: str, mix: Mix) -> Score:
        """The score of a whole mix, which is listed as an attempt."""
        score = self.score(mix)
        self.attempts.append(Attempt(name, mix, score))
        return score

    def run(self, name: str, recipe: Callable[[Search], Mix]) -> Mix:
        """The mix that another recipe finds, listed as an attempt; its decisions carry its name."""
        mix = self.walk(name, recipe)
        self.attempt(name, mix)
        return mix

    def walk(self, name: str, recipe: Callable[[Search], Mix]) -> Mix:
        """The mix that another recipe finds; its decisions carry `name`."""
        self._walk = name
        mix = recipe(self)
        self._walk = ""
        return mix

    def start(self, members: tuple[int, ...]) -> None:
        """Begin the walk at the mean of `members`."""
        self._current = members
        self._start(self.mix(members))

    def offer(self, action: str, ingredient: int) -> bool:
        """Score the current mix with `ingredient` added or dropped, record the decision, go there if accepted."""
        if action == "add":
            members = (*self._current, ingredient)
        else:
            members = tuple(i for i in self._current if i != ingredient)
        incumbent, mix, rules = self.score(self.mix(self._current)), self.mix(members), self.rules
        candidate, images = self._score_against(incumbent, mix, exceed=rules.accept == ">")
        accepted = is_accepted(candidate=candidate, incumbent=incumbent, rule=rules.accept, margin=rules.margin)
        self._record(Decision(len(self.trace) + 1, action, ingredient, candidate, accepted, images, self._walk))
        if accepted:
            self._current = members
        return accepted

    def follow_line(self, action: str, mix: Mix, shares: Iterable[float]) -> Mix:
        """The best of a mix and of the same with other shares of the base, each recorded as a decision.

        One is taken if it scores higher than the best before it, or equally at a lower cross-entropy.
        """
        self._start(mix)
        best = mix
        for share in shares:
            drawn, incumbent = replace(mix, base=share), self.score(best)
            candidate, images = self._score_against(incumbent, drawn, exceed=False)
            better = is_better(candidate=candidate, incumbent=incumbent, margin=self.rules.margin)
            step = len(self.trace) + 1
            self._record(Decision(step, action, None, candidate, better, images, self._walk, drawn.alpha))
            if better:
                best = drawn
        return best

    def _score_against(self, incumbent: Score, mix: Mix, *, exceed: bool) -> tuple[Score, int]:
        """The score of a candidate, and the images that were forwarded for it now.

        A count must reach the incumbent's, or exceed it; other numbers are always measured on all images.
        """
        known = self.scores.get(mix)
        found = self.score(mix, incumbent.key + exceed if incumbent.correct is not None else None)
        return found, 0 if found is known else found.images

    def _start(self, mix: Mix) -> None:
        self._starts.append(Start(self._walk, self.score(mix), mix))
        self._observe_start(self._starts[-1])

    def _record(self, decision: Decision) -> None:
        self.trace.append(decision)
        self._observe(decision)

    def _above_floor(self, score: Score) -> bool:
        return self.rules.min_score is None or score.value >= self.rules.min_score


def _require_members(members: Sequence[int]) -> None:
    if not members:
        raise SoupError("the recipe chose no ingredient", hint="other values of its options")


def is_accepted(*, candidate: Score, incumbent: Score, rule: str, margin: float) -> bool:
    """Whether `candidate` may replace `incumbent`.

    `rule` is `>=` (as in the papers) or `>`. With a margin z > 0 the paired gain must also reach z·√(n01 + n10), where
    n01 and n10 count the images on which exactly one of the two is right.
    """
    gain = candidate.key - incumbent.key
    if gain < 0 or (rule == ">" and gain == 0):
        return False
    if margin == 0:
        return True
    differing = int.from_bytes(candidate.hits, "big") ^ int.from_bytes(incumbent.hits, "big")
    return gain >= margin * sqrt(differing.bit_count())


def is_better(*, candidate: Score, incumbent: Score, margin: float) -> bool:
    """Whether `candidate` scores higher, by the margin of `is_accepted`, or equally at a lower cross-entropy."""
    losses = candidate.cross_entropy, incumbent.cross_entropy
    if candidate.key == incumbent.key and not candidate.at_most and losses[0] is not None and losses[1] is not None:
        return losses[0] < losses[1]
    return is_accepted(candidate=candidate, incumbent=incumbent, rule=">", margin=margin)
