"""The last words of the demo."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hfsoup.cli import demo


@pytest.mark.parametrize(
    ("verdict", "used", "words"),
    [
        ("better", 3, "better than"),
        ("worse", 3, "worse than"),
        ("not distinguishable", 3, "not distinguishable from"),
        ("not distinguishable", 1, "the same model as"),
    ],
)
def test_the_demo_ends_with_what_was_measured(
    verdict: str, used: int, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its closing line is the verdict of the paired test, whichever of two numbers is larger."""
    found = {
        "metric": "accuracy",
        "soup": {"test": 0.91},
        "best_ingredient": {"test": 0.90},
        "comparison": {"verdict": verdict},
        "ingredients": [{"used": n < used} for n in range(4)],
    }
    (tmp_path / "soup.json").write_text(json.dumps(found))
    demo.print_verdict(tmp_path / "soup.json")
    told = " ".join("".join(capsys.readouterr()).split())
    assert f"On the test split the soup is {words} its best ingredient: 91.00 % against 90.00 %" in told
