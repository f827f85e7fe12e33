"""Between the base and the fine-tuned model, where the selection score is best."""

from __future__ import annotations

from hfsoup.averaging.mix import Mix
from hfsoup.recipes import recipe
from hfsoup.recipes._search import Search

TENTHS = 10


@recipe(
    "wise-ft",
    paper="arXiv:2109.01903",
    citation=("Wortsman et al., Robust fine-tuning of zero-shot models, CVPR 2022, https://arxiv.org/abs/2109.01903"),
    summary="all, interpolated towards the base where that scores best, in steps of a tenth",
    needs_base=True,
    evaluations=lambda k: k + TENTHS,
)
def wise_ft(search: Search) -> Mix:
    """(1 − α)θ0 + αθ with θ the mix of all and α in 1.0, 0.9 … 0.1; of equal scores the lowest cross-entropy counts."""
    tuned = search.as_soup(search.mix(search.ranked[: search.cap]))
    return search.follow_line("interpolate", tuned, [n / TENTHS for n in range(1, TENTHS)])
