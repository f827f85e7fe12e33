"""`hfsoup.SoupCallback` in a real Trainer."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from family import SIDE, Family
from huggingface_hub import HfApi
from shell import run
from transformers import (
    AutoModelForImageClassification,
    Trainer,
    TrainingArguments,
    ViTImageProcessorPil,
    pipeline,
    set_seed,
)

import hfsoup
from hfsoup.localhub import LocalHub

PROCESSOR = ViTImageProcessorPil(size={"height": SIDE, "width": SIDE})


def accuracy(found: Any) -> dict[str, float]:
    return {"accuracy": float(np.mean(found.predictions.argmax(1) == found.label_ids))}


def prepared(split: Any) -> list[dict[str, torch.Tensor]]:
    pixels = PROCESSOR(split["image"][:], return_tensors="pt")["pixel_values"]
    return [{"pixel_values": p, "labels": torch.tensor(n)} for p, n in zip(pixels, split["label"][:], strict=True)]


@pytest.fixture
def make_trainer(vit: Family, images: Any, alone: Path) -> Callable[..., Trainer]:
    """A Trainer of the first ViT that writes four checkpoints into run/."""
    model = AutoModelForImageClassification.from_pretrained(vit.folders[2])

    def make(**changed: Any) -> Trainer:
        set_seed(0)
        given = {
            "output_dir": "run",
            "max_steps": 12,
            "save_steps": 3,
            "per_device_train_batch_size": 16,
            "learning_rate": 1e-2,
            "metric_for_best_model": "accuracy",
            "report_to": "none",
            "disable_tqdm": True,
            "use_cpu": True,
        }
        return Trainer(
            model,
            TrainingArguments(**{**given, **changed}),
            train_dataset=prepared(images["train"]),
            eval_dataset=prepared(images["validation"]),
            compute_metrics=accuracy,
            processing_class=PROCESSOR,
        )

    return make


def same_as(trainer: Trainer, folder: str) -> bool:
    """Whether the Trainer's model has the weights of a saved one."""
    saved = AutoModelForImageClassification.from_pretrained(folder).state_dict()
    return all(tensor.equal(saved[name]) for name, tensor in trainer.model.state_dict().items())


def trained(trainer: Trainer, callback: hfsoup.SoupCallback) -> Any:
    """Train, and return the soup."""
    trainer.add_callback(callback)
    trainer.train()
    return callback.soup


def test_the_last_checkpoints_become_a_soup(make_trainer: Callable[..., Trainer]) -> None:
    """run/soup is a complete folder, the mean of the last two; the Trainer keeps the weights of its last step."""
    trainer = make_trainer()
    Path("run/checkpoint-1").mkdir(parents=True)
    soup = trained(trainer, hfsoup.SoupCallback(last=2))
    assert [Path(i.id).name for i in soup.family.ingredients] == [f"checkpoint-{n}" for n in (3, 6, 9, 12)]
    assert soup.mix.coefficients == (0, 0, 0.5, 0.5)
    assert run("verify", "run/soup").code == 0
    assert pipeline("image-classification", "run/soup") is not None
    assert same_as(trainer, "run/checkpoint-12")


def test_greedy_scores_as_the_trainer_does(make_trainer: Callable[..., Trainer]) -> None:
    """Every score is what Trainer.evaluate says of those weights, the soup is at least as good as the best checkpoint,
    and model, mode, log and files of the Trainer are as they were."""
    trainer = make_trainer()
    soup = trained(trainer, hfsoup.SoupCallback("greedy", trainer=trainer, output="made"))
    assert same_as(trainer, "run/checkpoint-12")
    assert trainer.model.training
    assert [key for entry in trainer.state.log_history for key in entry if "accuracy" in key] == []
    folders = [*(i.folder for i in soup.family.ingredients), soup.path]
    for folder, score in zip(folders, [*soup.scores, soup.selection], strict=True):
        trainer.model.load_state_dict(AutoModelForImageClassification.from_pretrained(folder).state_dict())
        assert trainer.evaluate()["eval_accuracy"] == score.value
    assert soup.score >= max(score.value for score in soup.scores)
    assert len({score.value for score in soup.scores}) > 1


def test_the_card_says_what_selected_and_reports_nothing(make_trainer: Callable[..., Trainer]) -> None:
    """No result for the Hub's tables, no test score, and the command that bakes these weights again does."""
    trainer = make_trainer()
    soup = trained(trainer, hfsoup.SoupCallback("greedy", trainer=trainer, max_ingredients=3))
    card, record = Path("run/soup/README.md").read_text(), json.loads(Path("run/soup/soup.json").read_text())
    assert "eval_accuracy on the evaluation set of the Trainer" in card.replace("\\", "")
    assert f"{soup.score:.4f}" in card
    assert "model-index" not in card
    assert "Nothing was measured" not in card
    assert (record["test"], record["dataset"], soup.test) == (None, None, None)
    assert record["score"]["value"] == soup.score
    (line,) = [line for line in card.splitlines() if line.startswith("hfsoup bake")]
    words = line.replace(" checkpoint-", " run/checkpoint-").split()[1:]
    assert run(*words, "--output", "again").code == 0
    assert Path("again/model.safetensors").read_bytes() == Path("run/soup/model.safetensors").read_bytes()


def test_less_loss_is_better(make_trainer: Callable[..., Trainer]) -> None:
    """Without a metric the loss counts, with a minus, and is called so."""
    trainer = make_trainer(metric_for_best_model=None, max_steps=6)
    soup = trained(trainer, hfsoup.SoupCallback("greedy", trainer=trainer))
    assert soup.options.metric == "negative eval_loss"
    assert max(score.value for score in soup.scores) <= soup.score < 0


def test_a_loss_is_shown_as_it_is(make_trainer: Callable[..., Trainer]) -> None:
    """Card and report show the loss and not its negative, and say which way is better."""
    trainer = make_trainer(metric_for_best_model=None, max_steps=6)
    soup = trained(trainer, hfsoup.SoupCallback("greedy", trainer=trainer))
    assert run("report", "run/soup").code == 0
    for text in (Path("run/soup/README.md").read_text(), Path("report.html").read_text()):
        assert "eval_loss (lower is better) on selection" in text.replace("\\", "")
        assert "negative" not in text
        assert all(f"{-score.value:.4f}" in text for score in soup.scores if score)


def test_a_run_that_goes_on_has_its_earlier_checkpoints(make_trainer: Callable[..., Trainer]) -> None:
    """After a resume those up to where it goes on count, and later ones of another run do not."""
    make_trainer(max_steps=9).train()
    trainer, callback = make_trainer(max_steps=9), hfsoup.SoupCallback()
    trainer.add_callback(callback)
    trainer.train(resume_from_checkpoint="run/checkpoint-3")
    assert callback.soup is not None
    soup = callback.soup
    assert [Path(i.id).name for i in soup.family.ingredients] == ["checkpoint-3", "checkpoint-6", "checkpoint-9"]
    Path("run/checkpoint-9").rename("run/checkpoint-12")
    again = trained(make_trainer(max_steps=6), hfsoup.SoupCallback(output="other"))
    assert [Path(i.id).name for i in again.family.ingredients] == ["checkpoint-3", "checkpoint-6"]


def test_it_pushes(make_trainer: Callable[..., Trainer], signed_in: LocalHub) -> None:
    """On request the soup is on the Hub when training ends."""
    soup = trained(make_trainer(max_steps=6), hfsoup.SoupCallback(push="kit/one-run", license="mit"))
    assert soup.pushed.repo == "kit/one-run"
    assert HfApi().model_info("kit/one-run").card_data.license == "mit"
    HfApi(token=signed_in.token).delete_repo("kit/one-run")


def test_what_cannot_work_is_said_before_training(make_trainer: Callable[..., Trainer]) -> None:
    """No checkpoints, a folder in the way, a recipe without scores, an unknown recipe: errors before the first step."""
    with pytest.raises(hfsoup.SoupError, match="needs data"):
        hfsoup.SoupCallback("greedy")
    with pytest.raises(hfsoup.SoupError, match="greedy-random"):
        hfsoup.SoupCallback("gredy")
    with pytest.raises(hfsoup.SoupError, match="no checkpoints"):
        trained(make_trainer(save_strategy="no"), hfsoup.SoupCallback())
    Path("run/soup").mkdir(parents=True)
    trainer = make_trainer()
    with pytest.raises(hfsoup.SoupError, match="exists already"):
        trained(trainer, hfsoup.SoupCallback())
    assert trainer.state.global_step == 0


def test_a_run_with_one_checkpoint_learns_how_to_save_more(make_trainer: Callable[..., Trainer]) -> None:
    """With Trainer's default saving the warning names the arguments that save and keep several."""
    with pytest.warns(UserWarning, match=r"(?s)found 1\n.*save_strategy='steps'.*try: .*save_strategy=.epoch."):
        trained(make_trainer(max_steps=2, save_steps=500), hfsoup.SoupCallback())
    with pytest.warns(UserWarning, match=r"try: .*save_strategy=.epoch., save_total_limit=None"):
        trained(make_trainer(max_steps=6, save_total_limit=1), hfsoup.SoupCallback(output="other"))


def test_the_soup_is_a_line_of_the_log(
    make_trainer: Callable[..., Trainer], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By default it is logged where the soup is and how it compares with the best checkpoint, unless logs are off."""
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    trainer = make_trainer(max_steps=6)
    soup = trained(trainer, hfsoup.SoupCallback("greedy", trainer=trainer))
    (line,) = {one.getMessage() for one in caplog.records if one.name == "transformers.hfsoup"}
    assert str(soup.path) in line
    assert f"better than the best checkpoint's {max(score.value for score in soup.scores):.4f}" in line
    caplog.clear()
    trained(make_trainer(max_steps=6, log_level="error"), hfsoup.SoupCallback(output="quiet"))
    assert not [one for one in caplog.records if one.name == "transformers.hfsoup"]


def test_a_failed_soup_does_not_lose_the_training(make_trainer: Callable[..., Trainer]) -> None:
    """What goes wrong after the last step is a warning, and the model is the trained one."""
    trainer = make_trainer(metric_for_best_model="precision")
    with pytest.warns(UserWarning, match=r"(?s)no soup.*eval_precision.*eval_accuracy"):
        assert trained(trainer, hfsoup.SoupCallback("greedy", trainer=trainer)) is None
    assert trainer.state.global_step == 12
    assert same_as(trainer, "run/checkpoint-12")
