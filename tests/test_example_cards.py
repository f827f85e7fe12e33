"""The cards in model_cards/examples are what a bake of each tiny family writes today."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
from family import Family
from huggingface_hub import HfApi
from shell import bake

from hfsoup.localhub import LocalHub

EXAMPLES = Path(__file__).parents[1] / "model_cards/examples"
RECIPES = {"vit": "greedy", "resnet": "pruned", "efficientnet": "uniform"}


@pytest.fixture
def example(family: Family, hub: LocalHub, images: Any, alone: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The name of a family, the JSON of its bake from the Hub, and its card without what differs from run to run."""
    owner = f"example-{family.kind}"
    token = hub.add_user(owner)
    monkeypatch.setenv("HF_TOKEN", token)
    api = HfApi(token=token)
    for folder in family.folders:
        api.create_repo(f"{owner}/{folder.name}", exist_ok=True)
        api.upload_folder(repo_id=f"{owner}/{folder.name}", folder_path=folder)
    images.push_to_hub(f"{owner}/shapes", token=token)
    words = ("--recipe", RECIPES[family.kind], "--accept", ">", "--batch-size", 8, "--push", f"{owner}/soup")
    found = bake(f"{owner}/{family.kind}-*", "--dataset", f"{owner}/shapes", *words, "--output", "soup")
    return family.kind, found, pinned(Path("soup/README.md").read_text(), hub.url, owner)


def pinned(card: str, endpoint: str, owner: str) -> str:
    """A card with the Hub's own address, `org` as the owner, commits that stand for the real ones, and no versions."""
    text = card.replace(endpoint, "https://huggingface.co").replace(owner, "org")
    for n, commit in enumerate(dict.fromkeys(re.findall(r"\b[0-9a-f]{40}\b", text))):
        stand_in = hashlib.sha1(b"commit %d" % n, usedforsecurity=False).hexdigest()
        text = text.replace(commit, stand_in).replace(commit[:12], stand_in[:12])
    start, made, rest = text.partition("## Made with\n")
    return start + made + re.sub(r"(?<= )\d+(\.\d+)+(\+\w+)?", "VERSION", rest) if made else text


def test_the_example_is_what_is_written_today(example: Any, pytestconfig: pytest.Config) -> None:
    """Word for word and number for number; `pytest tests/test_example_cards.py --write-cards` writes them again."""
    kind, _, card = example
    path = EXAMPLES / f"{kind}.md"
    if pytestconfig.getoption("--write-cards"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(card, encoding="utf-8")
    assert card == path.read_text("utf-8")


def test_an_example_holds_no_number_that_was_not_measured(example: Any) -> None:
    """Every percentage, interval and p-value of the card is one of soup.json's."""
    _, _, card = example
    record = json.loads(Path("soup/soup.json").read_text())
    test = record["test"]
    shares = [i["score"]["value"] for i in record["ingredients"]] + [record["score"]["value"]]
    shares += [step["score"] for step in record["trace"]] + [test["soup"]["value"], test["best"]["value"]]
    shares += [score["value"] for score in (record["batch_norm"] or {"modes": {}})["modes"].values()]
    known = {f"{100 * share:.2f}" for share in (*shares, *test["ci95"], *test["best_ci95"])}
    gaps = (test["soup"]["value"] - test["best"]["value"], *test["difference_ci95"])
    known |= {f"{100 * gap:+.2f}" for gap in gaps} | {f"{test['mcnemar_p']:.2g}", "95"}
    known |= {f"{test[side]:.4f}" for side in ("ece", "best_ece")}
    # The forecast: agreement with one decimal, the ensemble's gain with its interval.
    known |= {f"{100 * number:{form}}" for number in record["numbers"].values() for form in (".1f", "+.2f")}
    body = card.split("---", 2)[2].split("## Licence")[0]
    found = {m[0] for m in re.finditer(r"(?<![\w.])[-+]?\d+\.\d+|\d+(?= %)|(?<=p = )[\d.e-]*\d", body)}
    weights = {f"{i['coefficient']:.4g}" for i in record["ingredients"]}
    assert found - known - weights == set()
    assert len(found & known) > 6
