"""Subsets, ranked by how their ensembles score."""

from __future__ import annotations

from hfsoup.averaging.mix import Mix
from hfsoup.evaluation.scores import Score
from hfsoup.recipes import recipe
from hfsoup.recipes._search import Search

Members = tuple[int, ...]


def count_evaluations(k: int, *, budget: int) -> int:
    """Every ingredient alone, then the budget."""
    return k + budget


@recipe(
    "radin",
    paper="arXiv:2401.17790",
    citation="Menes and Risser-Maroix, RADIN: souping on a budget, 2024, https://arxiv.org/abs/2401.17790",
    summary="ranks subsets by the score of their ensemble, which costs nothing, and scores the best --budget averages",
    evaluations=count_evaluations,
    logits=True,
)
def radin(search: Search, *, budget: int = 5) -> Mix:
    """Rank the subsets that growing and pruning meet, score the most promising and keep the best of them.

    The best ingredient alone is kept where it scores higher.
    """
    guesses = [(m, s) for m, s in guess_subsets(search).items() if 1 < len(m) <= search.cap]
    guesses.sort(key=lambda guess: -guess[1].key)
    for members, score in guesses[:budget]:
        search.attempt(f"ensemble {score.value:.4f}", search.mix(members))
    search.attempt("best ingredient", search.mix(search.ranked[:1]))
    return max(search.attempts, key=lambda attempt: attempt.score.key).mix


def guess_subsets(search: Search) -> dict[Members, Score]:
    """Ensemble scores of all ingredients, and of every subset that growing and pruning by ensemble scores meet."""
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
