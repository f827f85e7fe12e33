"""`hfsoup sweep`: one base fine-tuned in several ways, run as a user runs it."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from datasets import Dataset, DatasetDict
from family import weights
from safetensors.torch import load_file, save_file
from shell import Result, refused, run
from transformers import (
    AutoImageProcessor,
    AutoModelForImageClassification,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessorPil,
)

from hfsoup.averaging.writer import lock_output
from hfsoup.cli.demo.digits import NAMES, make_digits
from hfsoup.localhub import LocalHub
from hfsoup.networks.fine_tuning.grid import draw_runs

STILL = {"learning_rate": 0.0, "num_train_epochs": 1}
SHORT = ("--epochs", 1, 1, "--learning-rate", 1e-3, 1e-2)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A two-layer ViT without a head for digits, and digits: forty to train on, some to select and to test on."""
    where = tmp_path_factory.mktemp("sweep")
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    ViTForImageClassification(ViTConfig(image_size=8, patch_size=4, **sizes)).save_pretrained(where / "start")
    ViTImageProcessorPil(size={"height": 8, "width": 8}).save_pretrained(where / "start")
    (where / "start/README.md").write_text("---\nlicense: apache-2.0\n---\n")
    write_digits(where / "data")
    return where


def pick_digits() -> DatasetDict:
    """A few digits of each split."""
    every = make_digits()
    return DatasetDict({name: every[name].select(range(count)) for name, count in SIZES.items()})


SIZES = {"train": 40, "validation": 60, "test": 60}


def write_digits(folder: Path, train: Dataset | None = None) -> None:
    """Parquet files of the three splits."""
    folder.mkdir()
    for name, rows in pick_digits().items():
        (train if train and name == "train" else rows).to_parquet(folder / f"{name}-00000-of-00001.parquet")


@pytest.fixture
def sweep(bench: Path, alone: Path) -> Callable[..., Result]:
    """`hfsoup sweep start --dataset data …` in an empty folder with both."""
    shutil.copytree(bench, alone, dirs_exist_ok=True)
    return lambda *words: run("sweep", "start", "--dataset", "data", "--batch-size", 8, *words)


def put_grid(name: str, *runs: dict[str, object]) -> str:
    Path(name).write_text(json.dumps(runs))
    return name


def test_a_sweep_makes_a_family_that_bakes(sweep: Callable[..., Result]) -> None:
    """Each run is a complete checkpoint with the dataset's labels, a processor, a card and a record; bake takes all."""
    done = sweep("--runs", 2, *SHORT)
    assert done.code == 0, done.err
    for n in (0, 1):
        folder = Path(f"runs/run-{n}")
        model = AutoModelForImageClassification.from_pretrained(folder)
        assert model.config.id2label == dict(enumerate(NAMES))
        assert AutoImageProcessor.from_pretrained(folder).size["height"] == 8
        record = json.loads((folder / "sweep.json").read_text())
        assert record["hyperparameters"]["seed"] == n
        data = {"id": "data", "config": None, "revision": None, "split": "train", "skip_bad_images": False}
        data |= {"image_column": None, "label_column": None, "blake3": record["dataset"]["blake3"]}
        assert record["dataset"] == data
        assert record["classes"] == list(NAMES)
        card = (folder / "README.md").read_text()
        assert "license: apache-2.0" in card
        assert f"| learning_rate | {record['hyperparameters']['learning_rate']} |" in card
    assert "Trained run 2 of 2: runs/run-1" in done.err
    assert ", 1 epoch)" in done.err
    assert "hfsoup bake runs/run-0 runs/run-1 --dataset data" in done.err
    first, second = (load_file(f"runs/run-{n}/model.safetensors") for n in (0, 1))
    assert not torch.equal(first["classifier.weight"], second["classifier.weight"])
    baked = run("bake", "runs/run-0", "runs/run-1", "--dataset", "data", "--recipe", "uniform")
    assert baked.code == 0, baked.err


def test_runs_begin_with_the_same_head(sweep: Callable[..., Result]) -> None:
    """Runs that learn nothing end equal, whatever their seeds: they began with the same head."""
    other = {**STILL, "seed": 2, "augment": True, "lr_scheduler_type": "constant"}
    done = sweep("-o", "still/vit-{n}", "--grid", put_grid("still.json", {**STILL, "seed": 1}, other))
    assert done.code == 0, done.err
    first, second, start = (weights(Path(name)) for name in ("still/vit-0", "still/vit-1", "start"))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert all(torch.equal(first[name], start[name]) for name in first if "classifier" not in name)
    assert first["classifier.weight"].std() > 0


def test_a_second_call_trains_only_what_is_missing(sweep: Callable[..., Result]) -> None:
    """A finished run is left as it is, and the missing one is trained to the same bytes."""
    assert sweep("--runs", 2, *SHORT).code == 0
    paths = [Path(f"runs/run-{n}/model.safetensors") for n in (0, 1)]
    stamp, expected = paths[0].stat().st_mtime_ns, paths[1].read_bytes()
    shutil.rmtree("runs/run-1")
    done = sweep("--runs", 2, *SHORT)
    assert "runs/run-0 is there already; not trained again" in done.err
    assert paths[0].stat().st_mtime_ns == stamp
    assert paths[1].read_bytes() == expected


def test_a_run_of_other_settings_is_not_taken_for_this_one(sweep: Callable[..., Result]) -> None:
    """What differs is named, and nothing is trained or replaced."""
    assert sweep("--grid", put_grid("one.json", STILL)).code == 0
    words = ("sweep", "start", "--dataset", "data", "--batch-size", 8)
    text = refused(*words, "--grid", put_grid("other.json", {**STILL, "weight_decay": 0.5}), code=2)
    assert "weight_decay is 0.01, expected 0.5" in text
    assert "runs/run-0" in text
    shutil.copytree("start", "mine/run-0")
    assert "expected a finished run or nothing, found files but no sweep.json" in refused(
        *words, "--output", "mine", "--grid", "one.json", code=1
    )


@pytest.mark.parametrize("what", ["labels", "images", "base", "column", "format"])
def test_a_run_on_other_content_is_not_taken_for_this_one(sweep: Callable[..., Result], what: str) -> None:
    """Local labels, images and weights count by what is in the files, not by their names; so do columns and format."""
    path = next(Path("data").glob("train-*"))
    rows = Dataset.from_parquet(str(path))
    rows = rows.add_column("other", rows["label"][:][::-1], feature=rows.features["label"])
    rows.to_parquet(path)
    words = ["sweep", "start", "--dataset", "data", "--batch-size", 8, "--grid", put_grid("one.json", STILL)]
    assert run(*words, "--label-column", "label").code == 0
    assert "is there already" in run(*words, "--label-column", "label").err
    label, expected = "label", "blake3 is"
    if what == "labels":
        rows.remove_columns("label").rename_column("other", "label").to_parquet(path)
    elif what == "images":
        rows.map(lambda row: {"image": row["image"].rotate(90)}).to_parquet(path)
    elif what == "base":
        tensors = load_file("start/model.safetensors")
        save_file({name: tensor + 1 for name, tensor in tensors.items()}, "start/model.safetensors", {"format": "pt"})
    elif what == "column":
        label, expected = "other", "label_column is 'label', expected 'other'"
    else:
        words, expected = [*words, "--channels-last"], "channels_last is False, expected True"
    text = refused(*words, "--label-column", label, code=2)
    assert expected in text
    assert "runs/run-0" in text


def test_a_pushed_run_on_other_images_is_not_taken_for_the_one_here(
    sweep: Callable[..., Result], signed_in: LocalHub
) -> None:
    """The folder holds the run that is asked for, the repository one on other images of the same name: an error."""
    grid = put_grid("one.json", STILL)
    assert sweep("--grid", grid, "--push", "kit/elsewhere").code == 0
    path = next(Path("data").glob("train-*"))
    Dataset.from_parquet(str(path)).select(range(32)).to_parquet(path)
    assert sweep("--grid", grid).code == 0
    words = ("sweep", "start", "--dataset", "data", "--batch-size", 8, "--grid", grid)
    text = refused(*words, "--output", "runs", "--push", "kit/elsewhere", code=2)
    assert "blake3 is" in text
    assert "kit/elsewhere-0" in text


def test_a_sweep_at_a_branch_is_continued(bench: Path, signed_in: LocalHub, alone: Path) -> None:
    """A branch counts as the commit that it is now: the same is continued, another refused, for base and dataset."""
    from huggingface_hub import HfApi

    api = HfApi()
    api.create_repo("kit/branch-base", exist_ok=True)
    api.upload_folder(repo_id="kit/branch-base", folder_path=bench / "start")
    pick_digits().push_to_hub("kit/branch-digits")
    words = ("sweep", "kit/branch-base@main", "--dataset", "kit/branch-digits@main", *SHORT)
    assert run(*words, "--runs", 1).code == 0
    again = run(*words, "--runs", 2)
    assert again.code == 0, again.err
    assert "runs/run-0 is there already" in again.err
    api.upload_file(repo_id="kit/branch-base", path_or_fileobj=b"# Changed", path_in_repo="README.md")
    text = refused(*words, "--runs", 2, code=2)
    assert "revision is" in text


def test_what_a_bake_selects_or_tests_on_is_not_trained_on(sweep: Callable[..., Result]) -> None:
    """Neither by name nor by a bake's own choice."""
    words = ("sweep", "start", "--dataset", "data")
    for split in ("validation", "test"):
        text = refused(*words, "--train-split", split, code=2)
        assert f"a bake selects or tests on the split {split!r}" in text
    assert "a bake selects or tests on the split 'train'" in refused(*words, "--split", "train", code=2)
    for name in ("validation", "test"):
        next(Path("data").glob(f"{name}-*")).unlink()
    assert "there is no split 'validation'; this dataset has train" in refused(*words, code=2)
    assert not Path("runs").exists()


def test_a_wrong_column_is_one_clear_block(sweep: Callable[..., Result]) -> None:
    """The error names the columns there are and the option that helps; nothing is written."""
    text = refused("sweep", "start", "--dataset", "data", "--label-column", "breed", code=2)
    assert "there is no column 'breed'; found image (Image), label (ClassLabel)" in text
    assert "--label-column label" in text
    assert not Path("runs").exists()


def test_a_sweep_from_the_hub_is_pushed_with_the_commits_it_used(bench: Path, signed_in: LocalHub, alone: Path) -> None:
    """Cards name both; another call trains only further runs, from the same commits, and sees other settings."""
    from huggingface_hub import HfApi, ModelCard

    hub = HfApi()
    hub.create_repo("kit/sweep-base", exist_ok=True)
    base = hub.upload_folder(repo_id="kit/sweep-base", folder_path=bench / "start").oid
    dataset = pick_digits().push_to_hub("kit/sweep-digits").oid
    words = ("sweep", "kit/sweep-base", "--dataset", "kit/sweep-digits", "--push", "kit/swept", "--runs", 1, *SHORT)
    done = run(*words)
    assert done.code == 0, done.err
    data = ModelCard.load("kit/swept-0").data
    assert (data.base_model, data.datasets) == ("kit/sweep-base", ["kit/sweep-digits"])
    record = json.loads(Path(hub.hf_hub_download("kit/swept-0", "sweep.json")).read_text())
    assert (record["base"]["revision"], record["dataset"]["revision"]) == (base, dataset)
    assert hub.list_repo_commits("kit/swept-0")[0].title == "Add fine-tuned model"
    assert not Path("runs").exists()
    commits = len(hub.list_repo_commits("kit/swept-0"))
    hub.upload_file(repo_id="kit/sweep-base", path_or_fileobj=b"# Changed", path_in_repo="README.md")
    again = run(*words, "--runs", 2)
    assert "kit/swept-0 is there already; not trained again" in again.err
    assert len(hub.list_repo_commits("kit/swept-0")) == commits
    added = json.loads(Path(hub.hf_hub_download("kit/swept-1", "sweep.json")).read_text())
    assert added["base"]["revision"] == base
    assert "expected 1e-05" in refused(*words, "--seed", 1, "--learning-rate", 1e-5, 1e-5, code=2)


def test_a_repository_with_another_model_is_not_pushed_to(
    sweep: Callable[..., Result], bench: Path, signed_in: LocalHub
) -> None:
    """It is refused before any training and keeps its commits; one that holds a README alone is free."""
    from huggingface_hub import HfApi

    hub = HfApi()
    for name in ("kit/theirs-0", "kit/free-0"):
        hub.create_repo(name, exist_ok=True)
        hub.upload_file(repo_id=name, path_or_fileobj=b"# Mine", path_in_repo="README.md")
    hub.upload_folder(repo_id="kit/theirs-0", folder_path=bench / "start")
    commits = len(hub.list_repo_commits("kit/theirs-0"))
    words = ("sweep", "start", "--dataset", "data", "--batch-size", 8, "--runs", 1, *SHORT)
    text = refused(*words, "--push", "kit/theirs", "--output", "runs", code=1)
    assert "found files but no sweep.json" in text
    assert "kit/theirs-0" in text
    assert not Path("runs").exists()
    assert len(hub.list_repo_commits("kit/theirs-0")) == commits
    assert sweep("--push", "kit/free", "--runs", 1, *SHORT).code == 0
    assert hub.file_exists("kit/free-0", "sweep.json")


def test_a_run_that_diverges_is_an_error_and_not_written(sweep: Callable[..., Result]) -> None:
    """The run and a way out are named; the next call does not take it for finished."""
    grid = put_grid("wild.json", {"learning_rate": 1e38, "num_train_epochs": 2, "lr_scheduler_type": "constant"})
    text = refused("sweep", "start", "--dataset", "data", "--batch-size", 8, "--grid", grid, code=1)
    assert "holds NaN or infinity" in text
    assert "runs/run-0" in text
    assert "a learning rate below 1e+38" in text
    assert not Path("runs").exists()


def test_a_folder_that_appears_during_the_training_stays(
    sweep: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What somebody puts there while the run trains is not replaced; an empty folder is."""
    from transformers import Trainer

    Path("runs/run-0").mkdir(parents=True)
    assert sweep("--runs", 1, *SHORT).code == 0
    train = Trainer.train

    def train_slowly(trainer: Trainer) -> object:
        Path("late/run-0").mkdir(parents=True)
        Path("late/run-0/notes.txt").write_text("mine")
        return train(trainer)

    monkeypatch.setattr(Trainer, "train", train_slowly)
    words = ("sweep", "start", "--dataset", "data", "--batch-size", 8, "--runs", 1, *SHORT)
    assert "already there" in refused(*words, "--output", "late", code=1)
    assert [path.name for path in Path("late/run-0").iterdir()] == ["notes.txt"]


def test_a_folder_that_another_process_writes_is_left_to_it(sweep: Callable[..., Result]) -> None:
    """A run holds its folder as a bake does, from before the training."""
    with lock_output(Path("runs/run-0")):
        words = ("sweep", "start", "--dataset", "data", "--batch-size", 8, "--runs", 1, *SHORT)
        assert "is writing to this folder" in refused(*words, code=1)
    assert not Path("runs").exists()


def test_drawn_runs_differ_and_the_first_ones_stay(sweep: Callable[..., Result]) -> None:
    """Every hyper-parameter varies within its bounds; more runs or another call change none of those before."""
    runs = draw_runs(40, seed=3)
    assert runs[:8] == draw_runs(8, seed=3)
    assert all(1e-5 <= one.learning_rate <= 1e-4 and 4 <= one.num_train_epochs <= 16 for one in runs)
    assert all(0 <= one.label_smoothing_factor <= 0.25 and 0 <= one.mixup <= 0.9 for one in runs)
    for name in ("learning_rate", "weight_decay", "num_train_epochs", "label_smoothing_factor", "mixup", "seed"):
        assert len({getattr(one, name) for one in runs}) > 8, name
    assert {one.augment for one in runs} == {True, False}
    assert draw_runs(8, seed=4)[0].learning_rate != runs[0].learning_rate
    for flag, low, high in (("--learning-rate", 1e-3, 1e-5), ("--epochs", 0, 3)):
        assert f"{flag} takes a lowest and a highest value" in refused(
            "sweep", "start", "--dataset", "data", flag, low, high, code=2
        )


def test_frozen_parameters_and_mixed_images(sweep: Callable[..., Result]) -> None:
    """What --freeze names stays as the start has it, all else is trained; mixup trains to other weights."""
    trained = {"learning_rate": 1e-3, "num_train_epochs": 1}
    grid = put_grid("mixed.json", trained, {**trained, "mixup": 0.4})
    done = sweep("--grid", grid, "--output", "mixed/vit-{n}", "--freeze", "*.layers.0.*", "--freeze", "*embeddings*")
    assert done.code == 0, done.err
    plain, mixed, start = (weights(Path(name)) for name in ("mixed/vit-0", "mixed/vit-1", "start"))
    for name in start.keys() - {"classifier.weight", "classifier.bias"}:
        frozen = "layer.0." in name or "embeddings" in name
        assert torch.equal(plain[name], start[name]) == frozen, name
        assert torch.equal(mixed[name], plain[name]) == frozen, name
    assert "`*.layers.0.*`" in Path("mixed/vit-0/README.md").read_text()


def test_a_share_of_the_images_is_a_run_on_these_alone(sweep: Callable[..., Result]) -> None:
    """Half of the images, drawn by the seed, train to the same bytes as a dataset that holds just these."""
    half = {"learning_rate": 1e-3, "num_train_epochs": 1, "seed": 3, "augment": True}
    write_digits(Path("few"), make_digits()["train"].select(range(40)).shuffle(seed=3).select(range(20)))
    assert sweep("--grid", put_grid("half.json", {**half, "samples": 0.5}), "--output", "half").code == 0
    assert sweep("--dataset", "few", "--grid", put_grid("whole.json", half), "--output", "whole").code == 0
    found, expected = (weights(Path(name, "run-0")) for name in ("half", "whole"))
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_images_that_cannot_be_decoded_are_named_or_left_out(sweep: Callable[..., Result]) -> None:
    """Before the first step, with their rows; without them the run is that of the others."""
    rows, path = make_digits()["train"].select(range(40)), next(Path("data").glob("train-*"))
    cells = rows.with_format("arrow")[:]["image"].to_pylist()
    cells[3] = {"bytes": b"no image", "path": None}
    broken = Dataset.from_dict({"image": cells, "label": rows["label"][:]}, features=rows.features)
    broken.to_parquet(path)
    grid = put_grid("one.json", {"learning_rate": 1e-3, "num_train_epochs": 1})
    text = refused("sweep", "start", "--dataset", "data", "--batch-size", 8, "--grid", grid, code=1)
    assert "1 of 40 images cannot be decoded or used: row 3" in text
    assert "--skip-bad-images" in text
    assert sweep("--grid", grid, "--skip-bad-images").code == 0
    write_digits(Path("others"), rows.select([n for n in range(40) if n != 3]))
    assert sweep("--dataset", "others", "--grid", grid, "--output", "others-run").code == 0
    found, expected = (weights(Path(name, "run-0")) for name in ("runs", "others-run"))
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_base_for_several_labels_trains_on_one_an_image(sweep: Callable[..., Result]) -> None:
    """The kind of problem is that of the dataset, whatever the base was trained for."""
    config = json.loads(Path("start/config.json").read_text())
    Path("start/config.json").write_text(json.dumps({**config, "problem_type": "multi_label_classification"}))
    done = sweep("--runs", 1, *SHORT)
    assert done.code == 0, done.err
    assert json.loads(Path("runs/run-0/config.json").read_text())["problem_type"] == "single_label_classification"


def test_the_printed_bake_takes_the_data_and_the_base_of_the_sweep(sweep: Callable[..., Result]) -> None:
    """It bakes as printed, on the splits that no run saw and from the columns that were named, with the local base."""
    for path in Path("data").glob("*.parquet"):
        Dataset.from_parquet(str(path)).rename_columns({"image": "scan", "label": "digit"}).to_parquet(path)
    words = ("--split", "test", "--test-split", "validation", "--image-column", "scan", "--label-column", "digit")
    done = sweep("--runs", 2, *SHORT, *words, "--skip-bad-images")
    assert done.code == 0, done.err
    (line,) = [line for line in done.err.splitlines() if "bake them: " in line]
    typed = shlex.split(line.partition("bake them: hfsoup ")[2])
    assert typed[-1] == "--skip-bad-images"
    assert "--split test --test-split validation" in line
    baked = run(*typed, "--json", "-")
    assert baked.code == 0, baked.err
    assert baked.json["base"]["id"] == "start"


def test_a_run_of_one_step_learns(sweep: Callable[..., Result]) -> None:
    """Its only step has the learning rate that was asked for, however few images there are."""
    once = {"learning_rate": 1e-3, "num_train_epochs": 1}
    grid = put_grid("once.json", once, {**once, "learning_rate": 1e-2}, {**once, "samples": 0.1})
    assert sweep("--grid", grid, "--batch-size", 40).code == 0
    first, other, few, start = (weights(Path(name)) for name in ("runs/run-0", "runs/run-1", "runs/run-2", "start"))
    name = next(name for name in start if "intermediate" in name and name.endswith("weight"))
    assert not torch.equal(first[name], start[name])
    assert not torch.equal(first[name], other[name])
    assert not torch.equal(first[name], few[name])


@pytest.mark.parametrize(
    "wrong",
    [
        {"mixup": -1.0},
        {"samples": 0.0},
        {"samples": 1.5},
        {"lr_scheduler_type": "foo"},
        {"lr_scheduler_type": "cosine_with_min_lr"},
        {"lr_scheduler_type": "reduce_lr_on_plateau"},
        {"learning_rate": float("nan")},
        {"learning_rate": -1},
        {"learning_rate": 0.0, "lr_scheduler_type": "polynomial"},
        {"num_train_epochs": 0},
        {"label_smoothing_factor": 1.0},
        {"weight_decay": -0.1},
        {"weight_decay": 10**400},
        {"seed": -1},
    ],
    ids=lambda wrong: str(wrong)[:60],
)
def test_values_out_of_range_are_named(sweep: Callable[..., Result], wrong: dict[str, object]) -> None:
    """The entry of the grid and the value stand in the error; nothing is trained."""
    text = refused("sweep", "start", "--dataset", "data", "--grid", put_grid("wrong.json", STILL, wrong), code=2)
    assert "wrong.json, entry 1" in text
    name, value = next(iter(wrong.items()))
    assert f"expected {name} " in text
    assert str(value)[:20].removesuffix(".0") in text.partition(", found ")[2]
    assert not Path("runs").exists()


def test_a_dry_run_shows_what_the_sweep_then_trains(sweep: Callable[..., Result]) -> None:
    """Runs, settings, steps and bytes are those of the sweep itself; a run that is there is not counted."""
    grid = put_grid("grid.json", {"samples": 0.5, "num_train_epochs": 1.5}, {"learning_rate": 0.002, "mixup": 0.2})
    words = ("--grid", grid, "--json", "-")
    assert sweep("--grid", grid, "--runs", 1).code == 0
    done = sweep(*words, "--dry-run")
    assert done.code == 0, done.err
    assert not Path("runs/run-1").exists()
    assert [(run["there"], run["steps"]) for run in done.json["runs"]] == [(True, 3), (False, 15)]
    assert "run 1: runs/run-1: learning rate 0.002 (linear), weight decay 0.01, mixup 0.2, 3 epochs, seed 0" in done.err
    assert "train: 1 run, 15 steps" in done.err
    trained = sweep(*words)
    assert trained.json["runs"] == [run["folder"] for run in done.json["runs"]]
    record = json.loads(Path("runs/run-1/sweep.json").read_text())["hyperparameters"]
    assert {name: record[name] for name in ("learning_rate", "mixup", "seed")} == {
        name: done.json["runs"][1][name] for name in ("learning_rate", "mixup", "seed")
    }
    written = Path("runs/run-1/model.safetensors").stat().st_size
    assert 0.8 * written < done.json["disk"][0]["bytes"] <= written


def test_a_dry_run_refuses_what_a_sweep_refuses(sweep: Callable[..., Result]) -> None:
    """A split that a bake needs, and a folder that holds something else."""
    assert "no run may train on it" in sweep("--dry-run", "--train-split", "test").err
    Path("runs/run-0").mkdir(parents=True)
    Path("runs/run-0/notes.txt").write_text("mine")
    assert "expected a finished run or nothing" in sweep("--dry-run").err


def test_a_dry_run_knows_the_hub_without_pulling(bench: Path, signed_in: LocalHub, alone: Path) -> None:
    """Base and data of the Hub are counted and stay there; a repository is not made."""
    from huggingface_hub import HfApi

    hub = HfApi()
    hub.create_repo("kit/dry-base", exist_ok=True)
    hub.upload_folder(repo_id="kit/dry-base", folder_path=bench / "start")
    pick_digits().push_to_hub("kit/dry-digits")
    words = ("kit/dry-base", "--dataset", "kit/dry-digits", "--runs", 2, "--push", "kit/dry")
    for _ in range(2):
        done = run("sweep", *words, "--dry-run", "--json", "-")
        assert done.code == 0, done.err
        assert done.json["to_pull"] > (bench / "start/model.safetensors").stat().st_size
    assert "push: 2 runs" in done.err
    assert not hub.repo_exists("kit/dry-0")
