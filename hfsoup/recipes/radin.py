"""Subsets guessed from the ensembles that they are the averages of."""

from __future__ import annotations

from hfsoup.averaging.mix import Mix
from hfsoup.evaluation.scores import Score
from hfsoup.recipes import recipe
from hfsoup.recipes._search import Rules, Search

BUDGET = 5
Members = tuple[int, ...]


def count_evaluations(k: int, rules: Rules) -> int:
    """Every ingredient alone, then the budget."""
    return k + (rules.budget or BUDGET)


@recipe(
    "radin",
    paper="arXiv:2401.17790",
    summary="scores subsets by the mean of their logits, which is free, and really only the best --budget of them",
    evaluations=count_evaluations,
    logits=True,
    reads=("budget",),
)
def radin(search: Search) -> Mix:
    """Guess at the subsets that growing and pruning meet, score the most promising and keep the best of them.

    The best ingredient alone stays where it scores higher.
    """
    guesses = [(m, s) for m, s in guess_subsets(search).items() if 1 < len(m) <= search.cap]
    guesses.sort(key=lambda guess: -guess[1].key)
    for members, score in guesses[: search.rules.budget or BUDGET]:
        search.attempt(f"ensemble {score.value:.4f}", search.mix(members))
    search.attempt("best ingredient", search.mix(search.ranked[:1]))
    return max(search.attempts, key=lambda attempt: attempt.score.key).mix


def guess_subsets(search: Search) -> dict[Members, Score]:
    """Ensemble scores of all ingredients, and of what adding or dropping the one that serves best meets on its way."""
    every, found = search.ranked, {}

    def guess(members: Members) -> float:
        ordered = tuple(sorted(members))
        if ordered not in found:
            found[ordered] = search.ensemble(ordered)
        return found[ordered].key

    guess(every)
    grown, left = every[:1], every
    while len(grown) < len(every):
        grown = max(((*grown, i) for i in every if i not in grown), key=guess)
    while len(left) > 1:
        left = max((tuple(j for j in left if j != i) for i in reversed(left)), key=guess)
    return found
