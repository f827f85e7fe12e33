"""The example in the docstring of every public name, run as a reader would."""

from __future__ import annotations

import doctest
from pathlib import Path
from typing import Any

import pytest
import torch
from family import Family

import hfsoup

FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@pytest.fixture
def trainer(vit: Family, alone: Path) -> Any:
    """A Trainer that goes over eight images three times, saves each time, and prints nothing."""
    from transformers import AutoImageProcessor, AutoModelForImageClassification, Trainer, TrainingArguments
    from transformers.trainer_callback import PrinterCallback

    generator = torch.Generator().manual_seed(0)
    images = [
        {"pixel_values": torch.randn(3, 16, 16, generator=generator), "labels": torch.tensor(n % 6)} for n in range(8)
    ]
    arguments = TrainingArguments(
        "run", num_train_epochs=3, save_strategy="epoch", report_to="none", disable_tqdm=True, use_cpu=True
    )
    trainer = Trainer(
        AutoModelForImageClassification.from_pretrained(vit.folders[0]),
        arguments,
        train_dataset=images,
        eval_dataset=images,
        processing_class=AutoImageProcessor.from_pretrained(vit.folders[0]),
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


@pytest.mark.parametrize("name", sorted(set(hfsoup.__all__) - {"__version__"}))
def test_the_example_runs(name: str, alone: Path, request: pytest.FixtureRequest) -> None:
    """A public name without an example fails, and so does one whose example prints something else."""
    names: dict[str, Any] = {}
    if name in ("bake", "Soup"):
        request.getfixturevalue("reader")
    if name == "SoupCallback":
        names["trainer"] = request.getfixturevalue("trainer")
    public = getattr(hfsoup, name)
    example = doctest.DocTestParser().get_doctest(public.__doc__, names, name, None, None)
    assert example.examples
    printed: list[str] = []
    doctest.DocTestRunner(optionflags=FLAGS).run(example, out=printed.append)
    assert not printed, "".join(printed)


def test_the_example_of_a_soup_shows_what_can_be_done_with_it() -> None:
    """Each of its verbs stands in the example."""
    for name in ("save", "push_to_hub", "pipeline"):
        assert callable(getattr(hfsoup.Soup, name))
        assert f".{name}(" in str(hfsoup.Soup.__doc__), name
