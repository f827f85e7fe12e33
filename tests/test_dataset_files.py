"""Datasets as people have them: many files, tars, converted branches, undeclared columns, ImageNet's layout."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Image
from family import CONFIGS, NAMES, SIDE, Family, accuracy, copy_model, edit_json
from huggingface_hub import HfApi, constants
from PIL import Image as Pictures
from shell import bake, refused, run
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessorPil

from hfsoup.data import files as datafiles
from hfsoup.data import heads, loading
from hfsoup.data import rows as datarows
from hfsoup.data.images import Images, load_images
from hfsoup.data.request import Request
from hfsoup.localhub import LocalHub
from hfsoup.utils.errors import SoupError

PROCESSOR = ViTImageProcessorPil(size={"height": SIDE, "width": SIDE})


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache for this test alone."""
    monkeypatch.setenv("HFSOUP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def load(where: object, calibrate: int = 0, **asked: Any) -> Images:
    return load_images(Request(str(where), **asked), PROCESSOR, NAMES, calibrate=calibrate)


def png(picture: Any) -> bytes:
    held = io.BytesIO()
    picture.save(held, "PNG")
    return held.getvalue()


def publish(hub: LocalHub, name: str, folder: Path, branch: str | None = None) -> None:
    api = HfApi(token=hub.token)
    api.create_repo(f"kit/{name}", repo_type="dataset", exist_ok=True)
    if branch:
        api.create_branch(f"kit/{name}", branch=branch, repo_type="dataset")
    api.upload_folder(repo_id=f"kit/{name}", folder_path=folder, repo_type="dataset", revision=branch)


def pulled(hub: LocalHub) -> set[str]:
    """The data files that were asked for as a whole since requests were forgotten."""
    return {seen.path.rsplit("/", 1)[-1] for seen in hub.requests if seen.method == "HEAD" and "resolve" in seen.path}


def sharded(images: Any, folder: Path, shards: int = 12) -> Path:
    folder.mkdir()
    for n in range(shards):
        images["train"].shard(shards, n, contiguous=True).to_parquet(folder / f"train-{n:05}.parquet", batch_size=7)
    for name in ("validation", "test"):
        images[name].to_parquet(folder / f"{name}-0.parquet")
    return folder


def test_few_files_of_a_large_split_are_pulled_and_none_the_second_time(
    signed_in: LocalHub, images: Any, tmp_path: Path
) -> None:
    """Fifty of 240 training images come from three of twelve files; once prepared, no file of the dataset is needed."""
    folder = sharded(images, tmp_path / "d")
    publish(signed_in, "sharded", folder)
    signed_in.forget_requests()
    first = load("kit/sharded", calibrate=50)
    assert first.calibration is not None
    assert len(first.calibration) == 50
    assert "60 rows of 3 of the 12 files of the split 'train'" in first.calibration.rule
    assert len({name for name in pulled(signed_in) if name.startswith("train-")}) == 3
    shutil.rmtree(Path(constants.HF_HUB_CACHE, "datasets--kit--sharded"))
    signed_in.forget_requests()
    again = load("kit/sharded", calibrate=50)
    assert not [seen for seen in signed_in.requests if "parquet" in seen.path]
    here = load(folder, calibrate=50)
    for one, other in ((first, again), (first, here)):
        for split in ("selection", "test", "calibration"):
            a, b = getattr(one, split), getattr(other, split)
            assert a.fingerprint == b.fingerprint
            assert np.array_equal(a.pixels[:], b.pixels[:])


def test_one_file_draws_as_before_whatever_its_row_groups(images: Any, tmp_path: Path) -> None:
    """The rows of a split that is one file do not depend on how it is cut into row groups, nor do pixels."""
    found = []
    for name, size in (("a", 7), ("b", 1000)):
        (tmp_path / name).mkdir()
        for split, rows in images.items():
            rows.to_parquet(tmp_path / name / f"{split}.parquet", batch_size=size)
        found.append(load(tmp_path / name, calibrate=50, limit=20))
    for split in ("selection", "test", "calibration"):
        a, b = getattr(found[0], split), getattr(found[1], split)
        assert a.rows.tolist() == b.rows.tolist()
        assert np.array_equal(a.pixels[:], b.pixels[:])


def test_a_limit_pulls_only_the_files_that_hold_its_rows(signed_in: LocalHub, images: Any, tmp_path: Path) -> None:
    """Six rows of a split of twelve files are in six files at most; their labels are those of the hashed files."""
    folder = tmp_path / "d"
    folder.mkdir()
    for n in range(12):
        images["validation"].shard(12, n, contiguous=True).to_parquet(folder / f"validation-{n:05}.parquet")
    images["test"].to_parquet(folder / "test-0.parquet")
    publish(signed_in, "limited", folder)
    signed_in.forget_requests()
    found = load("kit/limited", limit=6)
    assert len({name for name in pulled(signed_in) if name.startswith("validation-")}) <= 6
    assert found.selection.labels.tolist() == [images["validation"]["label"][n] for n in found.selection.rows]
    assert found.selection.fingerprint == load(folder, limit=6).selection.fingerprint


def test_what_a_file_says_in_ranges_is_compared_with_the_whole(
    signed_in: LocalHub, images: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other labels than those of the hashed file choose no rows."""
    publish(signed_in, "two-faced", sharded(images, tmp_path / "d", 1))
    labels = images["validation"]["label"][::-1]
    rows = images["validation"].remove_columns("label").add_column("label", labels)
    rows.cast(images["validation"].features).to_parquet(tmp_path / "other.parquet")
    ranges, other = datafiles.Ranges, (tmp_path / "other.parquet").read_bytes()
    monkeypatch.setattr(
        datafiles, "Ranges", lambda where, *more: io.BytesIO(other) if "validation" in where else ranges(where, *more)
    )
    with pytest.raises(SoupError, match="is not the file that was read before"):
        load("kit/two-faced", limit=6)


def test_a_split_without_labels_is_not_pulled(signed_in: LocalHub, images: Any, tmp_path: Path) -> None:
    """Its footer says so, which is all that is read of it."""
    folder = sharded(images, tmp_path / "d", 1)
    test = images["test"].remove_columns("label").add_column("label", [-1] * 72)
    test.cast(images["test"].features).to_parquet(folder / "test-0.parquet")
    publish(signed_in, "footers", folder)
    signed_in.forget_requests()
    assert load("kit/footers").halved
    assert pulled(signed_in) & {"validation-0.parquet", "test-0.parquet"} == {"validation-0.parquet"}


def tars(images: Any, folder: Path, label: Any) -> Path:
    """Both splits as tars: an image and a text a row."""
    folder.mkdir()
    for split in ("validation", "test"):
        with tarfile.open(folder / f"{split}-0000.tar", "w") as archive:
            for n, row in enumerate(images[split]):
                end, text = label(row["label"])
                for name, data in ((f"a.b/{n:04}.png", png(row["image"])), (f"a.b/{n:04}.{end}", text.encode())):
                    member = tarfile.TarInfo(name)
                    member.size = len(data)
                    archive.addfile(member, io.BytesIO(data))
    return folder


@pytest.mark.parametrize(
    ("label", "words"),
    [
        (lambda n: ("cls", f"{n}\n"), {}),
        (lambda n: ("cls", NAMES[n]), {}),
        (lambda n: ("json", json.dumps({"label": n, "width": 16})), {"label_column": "json.label"}),
    ],
    ids=["numbers", "names", "JSON"],
)
def test_tars_of_webdataset_are_read(
    label: Any, words: dict[str, Any], signed_in: LocalHub, images: Any, tmp_path: Path
) -> None:
    """From a folder and from the Hub they give the pixels and labels of the same rows in parquet."""
    folder = tars(images, tmp_path / "d", label)
    publish(signed_in, f"tars-{len(list(Path(constants.HF_HUB_CACHE).glob('*')))}", folder)
    wanted = load(sharded(images, tmp_path / "parquet", 1))
    found = load(folder, **words)
    assert found.selection.labels.tolist() == wanted.selection.labels.tolist()
    assert np.array_equal(found.test.pixels[:], wanted.test.pixels[:])


def test_a_revision_of_a_dataset(signed_in: LocalHub, vit: Family, images: Any, alone: Path) -> None:
    """`@BRANCH` is pinned to its commit and recorded; of a converted branch --dataset-config chooses the folder."""
    for config, order in (("plain", NAMES), ("turned", NAMES[::-1])):
        for split in ("validation", "test"):
            home = alone / "d" / config / split
            home.mkdir(parents=True)
            labels = [order.index(NAMES[n]) for n in images[split]["label"][:]]
            features = Features({"image": Image(), "label": ClassLabel(names=list(order))})
            rows = Dataset.from_dict({"image": images[split]["image"][:], "label": labels}, features=features)
            rows.to_parquet(home / "0000.parquet")
    publish(signed_in, "converted", alone / "d", branch="convert")
    words = (*vit.words[:2], "--dataset", "kit/converted@convert", "--output", "soup")
    block = refused("bake", *words, code=2)
    assert "several configurations: 'plain', 'turned'" in block
    assert "--dataset-config plain" in block
    assert "'plain', 'turned'" in refused("bake", *words, "--dataset-config", "other", code=2)
    found = bake(*words, "--dataset-config", "turned")
    assert found["soup"]["test"] == pytest.approx(accuracy(Path("soup"), images["test"]))
    record = json.loads(Path("soup/soup.json").read_text())
    head = HfApi(token=signed_in.token).dataset_info("kit/converted", revision="convert").sha
    assert (record["dataset"]["id"], record["dataset"]["revision"]) == ("kit/converted", head)
    assert record["options"]["dataset"] == "kit/converted@convert"
    assert run("verify", "soup", "--scores").code == 0
    assert "no such revision" in refused("bake", *words[:2], "--dataset", "kit/converted@gone", code=1)


@pytest.mark.parametrize("kind", ["struct", "binary"])
def test_undeclared_columns_hold_images(kind: str, vit: Family, images: Any, alone: Path) -> None:
    """A struct of bytes and path, or plain bytes, as other tools write them, is the column of images."""
    Path("d").mkdir()
    for split in ("validation", "test"):
        data = [png(row) for row in images[split]["image"][:]]
        cells = [{"bytes": each, "path": None} for each in data] if kind == "struct" else data
        table = pa.table({"img": cells, "label": images[split]["label"][:]})
        pq.write_table(table, f"d/{split}.parquet")
    block = refused("eval", vit.folders[0], "--dataset", "./d", code=2)
    assert "--label-column label" in block
    done = run("eval", vit.folders[0], "--dataset", "./d", "--label-column", "label", "--json", "-")
    assert done.json["test"] == pytest.approx(accuracy(vit.folders[0], images["test"]))
    assert "--image-column img" in refused("eval", vit.folders[0], "--dataset", "./d", "--image-column", "x", code=2)


def test_class_folders_keep_their_labels_beside_metadata(vit: Family, images: Any, alone: Path) -> None:
    """A metadata.csv of other facts leaves the folders' labels as they are."""
    for split in ("validation", "test"):
        lines = ["file_name,width"]
        for n, row in enumerate(images[split]):
            home = alone / "d" / split / NAMES[row["label"]]
            home.mkdir(parents=True, exist_ok=True)
            row["image"].save(home / f"{n:03}.png")
            lines.append(f"{home.name}/{n:03}.png,16")
        (alone / "d" / split / "metadata.csv").write_text("\n".join(lines))
    done = run("eval", vit.folders[0], "--dataset", "./d", "--json", "-")
    assert done.code == 0, done.err
    assert done.json["test"] == pytest.approx(accuracy(vit.folders[0], images["test"]))


def imagenet_names(crane: str) -> list[str]:
    names = [f"thing {n}, object {n}" for n in range(1000)]
    names[134], names[517] = crane, "crane"
    return names


def test_imagenet_as_it_lies_on_the_hub_bakes_with_one_command(signed_in: LocalHub, alone: Path) -> None:
    """A thousand classes with both cranes, several files a split, and a test split of -1: no flag but the dataset."""
    config = ViTConfig(**CONFIGS["vit"], id2label=dict(enumerate(imagenet_names("crane"))))
    for n in range(2):
        torch.manual_seed(n)
        ViTForImageClassification(config).save_pretrained(alone / f"model-{n}")
        PROCESSOR.save_pretrained(alone / f"model-{n}")
    random = np.random.default_rng(3)
    features = Features({"image": Image(), "label": ClassLabel(names=imagenet_names("crane bird"))})
    (alone / "d" / "data").mkdir(parents=True)
    for split, files, count in (("train", 4, 30), ("validation", 3, 50), ("test", 2, 20)):
        for file in range(files):
            cells = [Pictures.fromarray(random.integers(0, 255, (8, 8, 3), np.uint8)) for _ in range(count)]
            labels = [134, 517, *random.integers(0, 1000, count - 2).tolist()] if split != "test" else [-1] * count
            rows = Dataset.from_dict({"image": cells, "label": labels}, features=features)
            rows.to_parquet(alone / "d" / "data" / f"{split}-{file:05}-of-{files:05}.parquet")
    publish(signed_in, "imagenet", alone / "d")
    signed_in.forget_requests()
    done = run("bake", "model-0", "model-1", "--dataset", "kit/imagenet", "--output", "soup", "--json", "-")
    assert done.code == 0, done.err
    assert "the split 'test' has no labels" in done.err
    assert "names that stand twice by their place, as all others: 'crane bird', 'crane'" in done.err
    assert not [name for name in pulled(signed_in) if name.startswith(("train", "test"))]
    assert json.loads(Path("soup/soup.json").read_text())["dataset"]["test"]["name"] == "validation[second half]"


def as_tar(images: Any, folder: Path) -> None:
    """Names beside the images."""
    tars(images, folder, lambda n: ("cls", images["test"].features["label"].names[n]))


def as_zip(images: Any, folder: Path) -> None:
    """An archive for each split, with a table of names."""
    folder.mkdir()
    for split in ("validation", "test"):
        names = images[split].features["label"].names
        lines = [f"{n}.png,{names[label]}" for n, label in enumerate(images[split]["label"])]
        with zipfile.ZipFile(folder / f"{split}.zip", "w") as archive:
            archive.writestr("metadata.csv", "\n".join(["file_name,label", *lines]) + "\n")
            for n, picture in enumerate(images[split]["image"]):
                archive.writestr(f"{n}.png", png(picture))


def as_arrow(images: Any, folder: Path) -> None:
    """What datasets writes as its own files."""
    folder.mkdir()
    for split in ("validation", "test"):
        images[split].save_to_disk(folder / "saved")
        (next((folder / "saved").glob("*.arrow"))).rename(folder / f"{split}-0.arrow")
        shutil.rmtree(folder / "saved")


def as_metadata(images: Any, folder: Path) -> None:
    """Images with a table of their names."""
    for split, few in ((name, images[name].select(range(12))) for name in ("validation", "test")):
        (folder / split).mkdir(parents=True)
        names = few.features["label"].names
        lines = [f"{n}.png,{names[label]}" for n, label in enumerate(few["label"])]
        (folder / split / "metadata.csv").write_text("\n".join(["file_name,label", *lines]) + "\n")
        for n, picture in enumerate(few["image"]):
            picture.save(folder / split / f"{n}.png")


def as_lines(images: Any, folder: Path) -> None:
    """JSON, a line a row, that has no images."""
    folder.mkdir()
    for split in ("validation", "test"):
        rows = [{"photo": f"{n}.png", "label": n % 6} for n in range(60)]
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")


def as_array(images: Any, folder: Path) -> None:
    """JSON, one array over several lines, that has no images."""
    folder.mkdir()
    for split in ("validation", "test"):
        rows = [{"photo": f"{n}.png", "tags": ["{", "]"], "label": n % 6} for n in range(600)]
        (folder / f"{split}.json").write_text(json.dumps(rows, indent=2))


def as_table(images: Any, folder: Path) -> None:
    """Images with a parquet table of their names, of which those beyond the first twelve are lacking."""
    as_metadata(images, folder)
    for split in ("validation", "test"):
        names = images[split].features["label"].names
        (folder / split / "metadata.csv").unlink()
        rows = {"file_name": [f"{n % 12}.png" for n in range(3000)], "label": [names[n % 6] for n in range(3000)]}
        rows["words"] = [hashlib.sha256(b"%d" % n).hexdigest() for n in range(3000)]
        Dataset.from_dict(rows).to_parquet(folder / split / "metadata.parquet")


def renamed(images: Any) -> Any:
    """The same images under names that no model knows."""
    features = Features({"image": Image(), "label": ClassLabel(names=[f"kind {n}" for n in range(len(NAMES))])})
    return images.cast(features)


EARLY = {
    "tar": (as_tar, "class names are missing"),
    "zip": (as_zip, "class names are missing"),
    "arrow": (as_arrow, "class names are missing"),
    "metadata": (as_metadata, "class names are missing"),
    "table": (as_table, "class names are missing"),
    "array": (as_array, "expected one column of Image, found 0 in photo"),
    "lines": (as_lines, "expected one column of Image, found 0 in photo"),
}


@pytest.mark.parametrize("large", [False, True], ids=["small", "large"])
@pytest.mark.parametrize("kind", EARLY)
def test_what_a_dataset_holds_is_compared_before_any_checkpoint_is_pulled(
    kind: str, large: bool, on_hub: LocalHub, signed_in: LocalHub, images: Any, alone: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Of files of every kind, from their heads where they are large; with the right classes such a dataset bakes."""
    if large:
        for module in (datafiles, datarows):
            monkeypatch.setattr(module, "SMALL", 4 << 10)
        monkeypatch.setattr(datafiles, "HEAD", 24 << 10)
    write, text = EARLY[kind]
    label = ("--label-column", "label") if kind in ("metadata", "zip", "table") else ()
    write(renamed(images), alone / "wrong")
    publish(signed_in, f"wrong-{kind}", alone / "wrong")
    shutil.rmtree(constants.HF_HUB_CACHE, ignore_errors=True)
    for command in (("bake", "kit/vit-1", "kit/vit-2"), ("bake", "kit/vit-1", "kit/vit-2", "--dry-run")):
        signed_in.forget_requests()
        done = run(*command, "--dataset", f"kit/wrong-{kind}", *label, "--output", "soup")
        assert done.code in (1, 2)
        if not (large and kind == "arrow"):
            assert text in done.err, done.err
            asked = [f"{seen.method} {seen.path}" for seen in signed_in.requests if seen.status == 200]
            assert not [line for line in asked if line.startswith("GET") and "vit-1" in line and "safetensors" in line]
            assert not [line for line in asked if "xet-read-token" in line and "vit-1" in line]
    if kind in ("tar", "zip", "arrow") and not large:
        write(images, alone / "right")
        publish(signed_in, f"right-{kind}", alone / "right")
        words = ("--dataset", f"kit/right-{kind}", *label, "--recipe", "uniform", "--output", "soup")
        found = bake("kit/vit-1", "kit/vit-2", *words)
        assert found["soup"]["test"] == accuracy(Path("soup"), images["test"])


@pytest.mark.parametrize("kind", ["zip", "metadata"])
def test_a_large_local_dataset_is_compared_by_its_heads(
    kind: str, on_hub: LocalHub, images: Any, alone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An archive and a long table on this disk; nothing of them is unpacked before a wrong class list is said."""
    monkeypatch.setattr(loading, "SMALL", 100)
    monkeypatch.setattr(heads, "HEAD", 400)
    monkeypatch.setattr(datafiles, "HEAD", 400)
    EARLY[kind][0](renamed(images), alone / "wrong")
    shutil.rmtree(constants.HF_HUB_CACHE, ignore_errors=True)
    on_hub.forget_requests()
    words = ("--dataset", "wrong", "--label-column", "label", "--output", "soup")
    assert "class names are missing" in refused("bake", "kit/vit-1", "kit/vit-2", *words, code=1)
    assert not [seen for seen in on_hub.requests if "xet-read-token" in seen.path]


def test_archives_of_class_folders_are_to_be_unpacked(vit: Family, images: Any, alone: Path) -> None:
    """datasets cannot read their classes; what to do instead is said."""
    Path("d").mkdir()
    for split in ("validation", "test"):
        with zipfile.ZipFile(f"d/{split}.zip", "w") as archive:
            for n, row in enumerate(images[split].select(range(12))):
                archive.writestr(f"{NAMES[row['label']]}/{n}.png", png(row["image"]))
    assert "try: unpack archives of class folders" in refused("bake", *vit.words[:2], "--dataset", "d", code=2)


HEADS = {
    "quoted": ("a.csv", b'file_name,words\na.png,"x\ny"\nb.png,"x\ny', b'file_name,words\na.png,"x\ny"\n'),
    "inches": ("a.csv", b'file_name,words\na.png,5" x\nb.png,x\nc', b'file_name,words\na.png,5" x\nb.png,x\n'),
    "array": ("a.json", b' [ {"a": "}]"},\n {"a": [{}]}, {"a', b'[ {"a": "}]"},\n {"a": [{}]}]'),
    "cut within a letter": ("a.json", '[{"a": "ä"}, {"a": "ä'.encode()[:-1], '[{"a": "ä"}]'.encode()),
    "one object": ("a.json", b'{\n "a": {"0": 1,\n "1": 2', None),
    "array of texts": ("a.json", b'["a", "b", "c', None),
    "deep": ("a.json", b'[{"a": ' + b"[" * 100_000, None),
}


@pytest.mark.parametrize("case", HEADS)
def test_the_head_of_a_text_file_ends_with_a_whole_row(case: str) -> None:
    """Whatever quotation marks, brackets and letters stand where the first bytes end; others have no head."""
    name, data, head = HEADS[case]
    assert heads.cut_head(name, data) == head


def test_splits_that_are_numbered_differently_are_told_before_any_checkpoint_is_pulled(
    vit: Family, signed_in: LocalHub, images: Any, alone: Path
) -> None:
    """Where numbers decide, the lists of both splits must be the same, which their footers tell."""
    (alone / "d").mkdir()
    for split, names in (("validation", NAMES), ("test", NAMES[::-1])):
        features = Features({"image": Image(), "label": ClassLabel(names=list(names))})
        images[split].cast(features).to_parquet(alone / "d" / f"{split}-0.parquet")
    publish(signed_in, "turned", alone / "d")
    api = HfApi(token=signed_in.token)
    for n in (1, 2):
        folder = copy_model(vit.folders[n], alone / f"plain-{n}", id2label=None, label2id=None)
        edit_json(folder / "config.json", num_labels=len(NAMES))
        api.create_repo(f"kit/plain-{n}", exist_ok=True)
        api.upload_folder(repo_id=f"kit/plain-{n}", folder_path=folder)
    signed_in.forget_requests()
    block = refused("bake", "kit/plain-*", "--dataset", "kit/turned", code=1)
    assert "number their classes differently" in block
    assert not [seen for seen in signed_in.requests if "xet-read-token" in seen.path and "plain" in seen.path]
    for n in (1, 2):
        api.delete_repo(f"kit/plain-{n}")


@pytest.mark.parametrize("order", ["sorted", "shuffled"])
def test_calibration_images_are_of_many_classes(order: str, signed_in: LocalHub, images: Any, tmp_path: Path) -> None:
    """Files sorted by class are drawn until every class is there; of shuffled ones no more than hold the images."""
    train = images["train"].sort("label") if order == "sorted" else images["train"]
    sharded({**images, "train": train}, tmp_path / "d")
    publish(signed_in, f"order-{order}", tmp_path / "d")
    signed_in.forget_requests()
    found = load(f"kit/order-{order}", calibrate=20).calibration
    assert found is not None
    files = sorted(name for name in pulled(signed_in) if name.startswith("train"))
    labels = [n for name in files for n in train.shard(12, int(name[6:11]), contiguous=True)["label"]]
    classes = {labels[row] for row in found.rows.tolist()}
    assert len(found) == 20
    if order == "sorted":
        assert classes == set(range(6))
        assert len(files) == 6
    else:
        assert len(files) == 1
