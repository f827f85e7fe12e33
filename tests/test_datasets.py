"""A dataset is one commit or one set of files, every byte hashed; nothing stale, damaged or foreign is ever scored."""

from __future__ import annotations

import json
import os
import shutil
import threading
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image
from family import NAMES, SIDE, Family
from huggingface_hub import HfApi, constants
from shell import bake, run
from transformers import ViTImageProcessorPil

from hfsoup.data import source as datasource
from hfsoup.data.images import Images, load_images
from hfsoup.data.request import Request
from hfsoup.evaluation.metrics import load_metric
from hfsoup.localhub import LocalHub
from hfsoup.utils.errors import HubError, SoupError, UsageError

PROCESSOR = ViTImageProcessorPil(size={"height": SIDE, "width": SIDE})


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache for this test alone."""
    monkeypatch.setenv("HFSOUP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def load(where: object, **asked: Any) -> Images:
    return load_images(Request(str(where), **asked), PROCESSOR, NAMES)


def pixels(found: Images) -> Any:
    return found.selection.pixels[:]


def prints(found: Images) -> tuple[str, str]:
    return found.selection.fingerprint, found.test.fingerprint


def parquet(images: Any, folder: Path) -> Path:
    folder.mkdir(parents=True)
    for name in ("validation", "test"):
        images[name].to_parquet(folder / f"{name}-0.parquet")
    return folder


def pictures(images: Any, folder: Path) -> Path:
    for split in ("validation", "test"):
        for n, row in enumerate(images[split]):
            home = folder / split / NAMES[row["label"]]
            home.mkdir(parents=True, exist_ok=True)
            row["image"].save(home / f"{n:03}.png")
    return folder


def saved(images: Any, folder: Path) -> Path:
    DatasetDict({name: images[name] for name in ("validation", "test")}).save_to_disk(folder)
    return folder


def one_file(images: Any, folder: Path) -> Path:
    folder.mkdir(parents=True)
    images["test"].to_parquet(folder / "all.parquet")
    return folder / "all.parquet"


MAKERS = {"parquet": parquet, "imagefolder": pictures, "saved": saved, "file": one_file}


def publish(hub: LocalHub, name: str, folder: Path) -> HfApi:
    api = HfApi(token=hub.token)
    api.create_repo(f"kit/{name}", repo_type="dataset")
    api.upload_folder(repo_id=f"kit/{name}", folder_path=folder, repo_type="dataset")
    return api


@pytest.mark.parametrize("kind", MAKERS)
def test_a_fingerprint_is_of_the_content(kind: str, images: Any, tmp_path: Path) -> None:
    """A copy elsewhere with other times has the same fingerprint; one changed byte has another."""
    where = MAKERS[kind](images, tmp_path / "one")
    first = load(where)
    target = tmp_path / "else" / "where" / where.name
    if where.is_dir():
        shutil.copytree(where, target)
    else:
        target.parent.mkdir(parents=True)
        shutil.copyfile(where, target)
    for path in target.rglob("*"):
        os.utime(path, (1, 1))
    assert prints(load(target)) == prints(first)
    change_a_picture(target)
    assert prints(load(target)) != prints(first)


def change_a_picture(where: Path) -> None:
    """Turn one bit of a PNG that is not looked at when it is decoded: the checksum of its end."""
    files = [where] if where.is_file() else sorted(p for p in where.rglob("*") if p.is_file())
    path = next(p for p in files if b"IEND" in p.read_bytes())
    data = path.read_bytes()
    at = data.index(b"IEND") + 5
    path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])


def test_rows_are_never_stale(images: Any, tmp_path: Path) -> None:
    """A file replaced by one of the same name and times gives its own pixels, not those of the cache."""
    where = parquet(images, tmp_path / "d")
    file = where / "validation-0.parquet"
    before, times = pixels(load(where)), file.stat()
    turned = images["validation"].map(lambda row: {"image": row["image"].transpose(0)})
    turned.to_parquet(file)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert np.allclose(pixels(load(where)), before[..., ::-1])
    assert not np.array_equal(pixels(load(where)), before)


def test_only_the_splits_that_are_needed_are_fetched(signed_in: LocalHub, images: Any, tmp_path: Path) -> None:
    """Of a dataset's three splits the train file stays on the Hub."""
    folder = parquet(images, tmp_path / "d")
    images["train"].to_parquet(folder / "train-0.parquet")
    publish(signed_in, "three", folder)
    signed_in.forget_requests()
    load("kit/three")
    asked = " ".join(seen.path for seen in signed_in.requests)
    assert "validation-0.parquet" in asked
    assert "train-0.parquet" not in asked


def test_configurations_and_class_names_of_a_card_hold(signed_in: LocalHub, images: Any, tmp_path: Path) -> None:
    """The card's configs choose the files and its features name the classes, from the Hub and from a folder alike."""
    folder = tmp_path / "d"
    for config, order in (("plain", list(range(6))), ("turned", [5, 4, 3, 2, 1, 0])):
        names = [NAMES[n] for n in order]
        for split in ("validation", "test"):
            (folder / config).mkdir(parents=True, exist_ok=True)
            labels = [order.index(n) for n in images[split]["label"][:]]
            rows = {"image": images[split]["image"][:], "label": labels}
            features = Features({"image": Image(), "label": ClassLabel(names=names)})
            Dataset.from_dict(rows, features=features).to_parquet(folder / config / f"{split}.parquet")
    configs = "".join(
        f"- config_name: {c}\n  data_files:\n"
        + "".join(f"  - split: {s}\n    path: {c}/{s}.parquet\n" for s in ("validation", "test"))
        for c in ("plain", "turned")
    )
    (folder / "README.md").write_text(f"---\nconfigs:\n{configs}---\nwords\n")
    publish(signed_in, "configured", folder)
    found = [load(where, config=c) for where in ("kit/configured", folder) for c in ("plain", "turned")]
    wanted = images["validation"]["label"][:]
    assert [f.selection.labels.tolist() for f in found] == [wanted] * 4
    assert prints(found[0]) == prints(found[2]) != prints(found[1]) == prints(found[3])
    with pytest.raises(UsageError, match="config"):
        load("kit/configured")


def test_a_branch_that_moves_changes_nothing(
    signed_in: LocalHub, images: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A push between the listing and the first download is not seen: one commit throughout."""
    api = publish(signed_in, "moving", parquet(images, tmp_path / "d"))
    commit = api.dataset_info("kit/moving").sha
    first = load("kit/moving")
    original, pushed = datasource.Files.fetch, []

    def take(files: Any, names: Any) -> None:
        if not pushed:
            pushed.append(api.delete_file("test-0.parquet", "kit/moving", repo_type="dataset"))
        original(files, names)

    shutil.rmtree(constants.HF_HUB_CACHE, ignore_errors=True)
    monkeypatch.setattr(datasource.Files, "fetch", take)
    found = load("kit/moving")
    assert pushed
    assert found.revision == commit
    assert prints(found) == prints(first)


def flip(path: Path, at: float = 0.5) -> None:
    data = bytearray(path.read_bytes())
    data[int(at * (len(data) - 1))] ^= 1
    path.write_bytes(data)


def test_a_damaged_file_in_the_hubs_cache_is_fetched_again(signed_in: LocalHub, images: Any, tmp_path: Path) -> None:
    """One flipped bit in any cached file of the dataset is noticed, and the rows are those of the Hub."""
    publish(signed_in, "cached", parquet(images, tmp_path / "d"))
    first = load("kit/cached")
    blobs = [p for p in Path(constants.HF_HUB_CACHE, "datasets--kit--cached", "blobs").iterdir() if p.is_file()]
    for blob in blobs:
        flip(blob)
        assert prints(load("kit/cached")) == prints(first)
    assert len(blobs) >= 2


def test_other_bytes_than_the_listing_promises_are_refused(signed_in: LocalHub, images: Any, tmp_path: Path) -> None:
    """A Hub that sends a file of the right length and the wrong content is an error that names repository and file."""
    folder = tmp_path / "d"
    publish(signed_in, "lying", parquet(images, folder))
    data = bytearray((folder / "test-0.parquet").read_bytes())
    data[len(data) // 2] ^= 1
    # Without a token for Xet's store the file comes by HTTP, where bytes can be exchanged.
    signed_in.fault("/xet-read-token/", status=404)
    signed_in.fault(r"lying.*test-0\.parquet|/lfs/|objects", method="GET", body=bytes(data))
    try:
        with pytest.raises(HubError, match="not the one the Hub lists") as caught:
            load("kit/lying")
    finally:
        signed_in.clear_faults()
    assert "kit/lying" in caught.value.where


CARDS = {
    "a file elsewhere": "configs:\n- config_name: x\n  data_files: ../outside.parquet\n",
    "an absolute path": "configs:\n- config_name: x\n  data_files: /etc/passwd\n",
    "an address": "configs:\n- config_name: x\n  data_files:\n  - split: test\n    path: https://evil.test/x.parquet\n",
    "a folder elsewhere": "configs:\n- config_name: x\n  data_dir: a/../../b\n",
    "broken YAML": "configs: [\n",
}


@pytest.mark.parametrize("card", CARDS.values(), ids=CARDS.keys())
def test_a_card_cannot_point_elsewhere(card: str, images: Any, tmp_path: Path) -> None:
    """A dataset's card that names files outside it is refused before anything is opened."""
    shutil.copytree(parquet(images, tmp_path / "d"), tmp_path / "outer" / "d")
    shutil.copyfile(tmp_path / "d" / "test-0.parquet", tmp_path / "outer" / "outside.parquet")
    (tmp_path / "outer" / "d" / "README.md").write_text(f"---\n{card}---\n")
    with pytest.raises(SoupError, match=r"expected (data files within the dataset|YAML)"):
        load(tmp_path / "outer" / "d")


def test_a_row_cannot_read_a_file_elsewhere(images: Any, tmp_path: Path) -> None:
    """A row that holds a path instead of a picture gives an error, not the picture at that path."""
    canary = tmp_path / "canary.png"
    images["test"][0]["image"].save(canary)
    folder = parquet(images, tmp_path / "d")
    raw = images["test"].cast_column("image", Image(decode=False))
    rows = [{**row, "image": {"bytes": None, "path": str(canary)}} if n == 3 else row for n, row in enumerate(raw)]
    Dataset.from_list(rows, features=images["test"].features).to_parquet(folder / "test-0.parquet")
    with pytest.raises(SoupError, match=r"row 3 of split test: expected an image, found only the path of a file"):
        load(folder)


def zipped(images: Any, folder: Path) -> Path:
    folder.mkdir()
    for split in ("validation", "test"):
        with zipfile.ZipFile(folder / f"{split}.zip", "w") as archive:
            lines = []
            for n, row in enumerate(images[split]):
                row["image"].save(folder / "one.png")
                archive.write(folder / "one.png", f"{n}.png")
                lines.append(json.dumps({"file_name": f"{n}.png", "kind": NAMES[row["label"]]}))
            archive.writestr("metadata.jsonl", "\n".join(lines))
    (folder / "one.png").unlink()
    return folder


def test_archives_of_images_are_read_and_bombs_are_not(signed_in: LocalHub, images: Any, tmp_path: Path) -> None:
    """A zip a split works from a folder and from the Hub; one that would grow a thousandfold is refused unopened."""
    where = zipped(images, tmp_path / "d")
    plain = load(parquet(images, tmp_path / "plain"))
    publish(signed_in, "zipped", where)
    for found in (load(where, label_column="kind"), load("kit/zipped", label_column="kind")):
        assert found.selection.labels.tolist() == plain.selection.labels.tolist()
        assert np.array_equal(pixels(found), pixels(plain))
    with zipfile.ZipFile(where / "test.zip", "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb.png", bytes(100 << 20))
    with pytest.raises(SoupError, match="found one that unpacks to"):
        load(where, label_column="kind")


@pytest.mark.parametrize("suffix", [".pkl", ".txt", ".h5", ".tar"])
def test_readers_that_do_more_than_read_are_refused(suffix: str, tmp_path: Path) -> None:
    """Pickles, tars and the like are no image datasets, as a folder or as one file."""
    (tmp_path / "d").mkdir()
    file = tmp_path / "d" / f"test{suffix}"
    file.write_bytes(b"cos\nsystem\n(S'touch marker'\ntR.")
    for where in (tmp_path / "d", file):
        with pytest.raises(UsageError):
            load(where)


def test_a_card_that_promises_other_rows_is_refused(images: Any, tmp_path: Path) -> None:
    """A split shorter than its card says is a torn copy, not a smaller test."""
    where = parquet(images, tmp_path / "d")
    info = (
        "dataset_info:\n  splits:\n  - name: test\n    num_examples: 80\n  - name: validation\n    num_examples: 60\n"
    )
    (where / "README.md").write_text(f"---\n{info}---\n")
    with pytest.raises(SoupError, match="expected 80 rows in the split 'test' as its card says, found 72"):
        load(where)


def test_nothing_is_left_in_the_cache_but_pixels(images: Any, own_cache: Path, tmp_path: Path) -> None:
    """Rows that datasets writes go when they are read, those of a killed bake at the next one; a live one's stay."""
    left, alive = own_cache / "rows" / "left", own_cache / "rows" / "alive"
    left.mkdir(parents=True)
    alive.mkdir()
    from filelock import FileLock

    with FileLock(alive.with_suffix(".lock")):
        load(parquet(images, tmp_path / "d"))
    assert [path.name for path in (own_cache / "rows").iterdir() if path.is_dir()] == ["alive"]
    assert {path.suffix for path in (own_cache / "images").iterdir()} == {".npy", ".json", ".lock"}


@pytest.mark.parametrize("at", [0.0, 0.001, 0.5, 1.0])
@pytest.mark.parametrize("suffix", [".npy", ".json"])
def test_a_damaged_cache_of_pixels_is_made_again(
    suffix: str, at: float, images: Any, own_cache: Path, tmp_path: Path
) -> None:
    """A flipped bit anywhere in prepared pixels or their seal costs a note and a second preparation, never a score."""
    where = parquet(images, tmp_path / "d")
    first = pixels(load(where))
    for path in (own_cache / "images").glob(f"*{suffix}"):
        flip(path, at)
    found = load(where)
    assert [note for note in found.notes if "damaged" in note]
    assert np.array_equal(pixels(found), first)
    assert not [note for note in load(where).notes if "damaged" in note]


def test_an_interrupted_preparation_leaves_nothing_behind(
    images: Any, own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pixels without a seal, as a kill between the two renames leaves them, and partial files count for nothing."""
    from hfsoup.data import preprocessing as module

    where = parquet(images, tmp_path / "d")
    first = pixels(load(where))
    for seal in (own_cache / "images").glob("*.json"):
        seal.unlink()
        npy = seal.with_suffix(".npy")
        npy.write_bytes(npy.read_bytes()[:-1000])
        npy.with_name(f"{npy.stem}.abc.partial").write_bytes(b"torn")
    assert np.array_equal(pixels(load(where)), first)
    assert not list((own_cache / "images").glob("*.partial"))

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    shutil.rmtree(own_cache)
    with monkeypatch.context() as patch:
        patch.setattr(module, "decode", stop)
        with pytest.raises(KeyboardInterrupt):
            load(where)
    assert [p for p in (own_cache / "images").iterdir() if p.suffix != ".lock"] == []


def test_two_bakes_that_prepare_at_once_agree(images: Any, tmp_path: Path) -> None:
    """Four loads at the same moment end with the same pixels and one file a split."""
    where = parquet(images, tmp_path / "d")
    found: list[Images] = []
    threads = [threading.Thread(target=lambda: found.append(load(where))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert len({prints(one) for one in found}) == len({one.selection.pixels for one in found}) == 1
    assert not [note for one in found for note in one.notes]


def test_the_second_bake_decodes_nothing(images: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prepared pixels are used as long as data, rows and processor are the same, and only then."""
    from hfsoup.data import preprocessing as module

    where = parquet(images, tmp_path / "d")
    first = load(where)
    monkeypatch.setattr(module, "decode", None)
    assert prints(load(where)) == prints(first)
    other = ViTImageProcessorPil(size={"height": SIDE, "width": SIDE}, image_mean=[0.4, 0.5, 0.5])
    with pytest.raises(TypeError, match="not callable"):
        load_images(Request(str(where)), other, NAMES)
    with pytest.raises(TypeError, match="not callable"):
        load(where, limit=20)


SCRIPT = '''
import datasets
import evaluate


class Half(evaluate.Metric):
    """Half the accuracy."""

    def _info(self):
        features = datasets.Features({"predictions": datasets.Value("int64"), "references": datasets.Value("int64")})
        return evaluate.MetricInfo(description="", citation="", features=features)

    def _compute(self, predictions, references):
        return {"half": sum(int(p == r) for p, r in zip(predictions, references)) / len(references) / 2}
'''


def test_a_trusted_metric_comes_from_one_commit(signed_in: LocalHub, vit: Family, data: Path, alone: Path) -> None:
    """A Space's script scores the mixes from the commit that was listed; one of that name here is not run."""
    api = HfApi(token=signed_in.token)
    api.create_repo("kit/half", repo_type="space", space_sdk="gradio")
    api.upload_file(path_or_fileobj=SCRIPT.encode(), path_in_repo="half.py", repo_id="kit/half", repo_type="space")
    for name in ("half", "kit/half"):
        (alone / name).mkdir(parents=True)
        (alone / name / "half.py").write_text("import pathlib\npathlib.Path('marker').touch()\nraise SystemExit\n")
    found = load_metric("kit/half", trust_remote=True)
    assert found.source == f"kit/half@{api.space_info('kit/half').sha}"
    words = (*vit.words[:2], "--dataset", data)
    half = bake(*words, "--metric", "kit/half", "--trust-remote-metric", "--output", "half-soup")
    whole = bake(*words, "--output", "soup")
    assert [2 * i["score"] for i in half["ingredients"]] == pytest.approx([i["score"] for i in whole["ingredients"]])
    assert not Path("marker").exists()


@pytest.mark.parametrize("name", ["./accuracy", "accuracy/accuracy.py", "/tmp/x", "..", "a/b/c", "x\x1b[2J"])
def test_a_metric_is_a_name_never_a_path(name: str, vit: Family, data: Path, alone: Path) -> None:
    """What could be a file on this disk is wrong usage, trusted or not."""
    words = (*vit.words[:2], "--dataset", data, "--metric", name, "--trust-remote-metric", "--output", "soup")
    done = run("bake", *words)
    assert done.code == 2, done.err
    assert "expected the name of a metric" in done.err
    assert "\x1b" not in done.err
