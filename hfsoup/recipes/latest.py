"""The last checkpoints of one run."""

from __future__ import annotations

from hfsoup.averaging.mix import Mix
from hfsoup.recipes import recipe
from hfsoup.recipes._search import Search


@recipe(
    "latest",
    paper="arXiv:2209.14981",
    citation=(
        "Kaddour, Stop wasting my time! Saving days of ImageNet and BERT training with latest weight "
        "averaging, 2022, https://arxiv.org/abs/2209.14981"
    ),
    summary="the last checkpoints of one run, --last of them in the order given; needs no data",
    needs_data=False,
    evaluations=lambda k, /, **_: k + 1,
)
def latest(search: Search, *, last: int = 5, decay: float = 1.0) -> Mix:
    """Take the mean of the last; with a decay D the weight of the one that is n steps older than the newest is Dⁿ."""
    newest_first = sorted(search.ranked, reverse=True)[: min(last, search.cap)]
    return search.weighted({i: decay**age for age, i in enumerate(newest_first)})
