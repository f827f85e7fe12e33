"""What hfsoup scores is what `transformers.pipeline` says of the same encoded images, one by one."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, Image
from family import NAMES, SIDE, Family, copy_model
from odd import encoded, noise, odd_images
from PIL import Image as Pictures
from shell import bake, refused, run
from transformers import ConvNextImageProcessorPil, EfficientNetImageProcessorPil, ViTImageProcessorPil, pipeline

from hfsoup.data.decoding import FORMATS
from hfsoup.evaluation.batches import Batches

ODD = odd_images()
PROCESSORS = {
    "vit": ViTImageProcessorPil(size={"height": SIDE, "width": SIDE}),
    "resnet": ConvNextImageProcessorPil(size={"shortest_edge": SIDE}, crop_pct=0.875),
    "efficientnet": EfficientNetImageProcessorPil(size={"height": SIDE, "width": SIDE}),
}
FEATURES = Features({"image": Image(), "label": ClassLabel(names=list(NAMES))})


@pytest.fixture(params=[*sorted(PROCESSORS), pytest.param("wrapped", marks=pytest.mark.timm)])
def model(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A model of each family in turn, with the image processor of its kind, and one of timm with timm's transforms."""
    family: Family = request.getfixturevalue(request.param)
    folder = copy_model(family.folders[0], tmp_path / "model")
    if request.param in PROCESSORS:
        PROCESSORS[request.param].save_pretrained(folder)
    return folder


@pytest.fixture
def seen() -> Iterator[list[dict[str, Any]]]:
    """What comes out of every forward pass over a batch."""
    batches: list[dict[str, Any]] = []
    forward = Batches.forward

    def watched(self: Batches, *given: Any, **named: Any) -> Any:
        batches.append(forward(self, *given, **named))
        return batches[-1]

    with mock.patch.object(Batches, "forward", watched):
        yield batches


def told(model: Path, data: list[bytes], folder: Path) -> list[list[dict[str, Any]] | None]:
    """What the pipeline says of each encoded image, given as a file; None of those that it cannot read."""
    classify = pipeline("image-classification", str(model))
    folder.mkdir()
    found: list[list[dict[str, Any]] | None] = []
    for n, each in enumerate(data):
        path = folder / str(n)
        path.write_bytes(each)
        try:
            found.append(classify(str(path), top_k=len(NAMES)))
        except (OSError, ValueError):
            found.append(None)
    return found


def write(images: Any, cells: list[bytes], labels: list[int], folder: Path, feature: Any = None) -> Path:
    """The usual images to select, and the given ones to report, as parquet files."""
    features = Features({**FEATURES, "image": feature or Image()})
    folder.mkdir()
    images["validation"].cast(features).to_parquet(folder / "validation-0.parquet")
    rows = [{"image": {"bytes": c, "path": None}, "label": n} for c, n in zip(cells, labels, strict=True)]
    Dataset.from_list(rows, features=features).to_parquet(folder / "test-0.parquet")
    return folder


@pytest.mark.filterwarnings("ignore")
def test_every_odd_image_is_scored_as_the_pipeline_sees_it(model: Path, images: Any, seen: Any, alone: Path) -> None:
    """The class, its score and which images cannot be read are the pipeline's, image by image; its answers score 1."""
    data = list(ODD.values())
    wanted = told(model, data, alone / "files")
    labels = [NAMES.index(one[0]["label"]) if one else 0 for one in wanted]
    write(images, data, labels, alone / "odd")
    done = run("eval", model, "--dataset", "./odd", "--skip-bad-images", "--json", "-")
    assert done.code == 0, done.err
    readable = [n for n, one in enumerate(wanted) if one]
    assert done.json["test"] == 1.0
    assert len(readable) > 240
    bad = len(data) - len(readable)
    assert not bad or f"{bad} of {len(data)} images cannot be decoded or used" in done.err
    tested = {
        name: np.concatenate([batch[name] for batch in seen])[-len(readable) :]
        for name in ("predictions", "confidence")
    }
    for n, first, sure in zip(readable, tested["predictions"][:, 0], tested["confidence"], strict=True):
        best = wanted[n][0]  # type: ignore[index]
        assert (NAMES[first], sure) == (best["label"], pytest.approx(best["score"], abs=2e-5)), list(ODD)[n]


@pytest.mark.filterwarnings("ignore")
def test_images_in_folders_are_scored_as_the_pipeline_sees_them(vit: Family, images: Any, alone: Path) -> None:
    """Files of class folders, each read from its path."""
    suffixes = {"PNG": "png", "JPEG": "jpg", "TIFF": "tif", "WEBP": "webp", "BMP": "bmp", "GIF": "gif", "PPM": "ppm"}
    some = [(kind, d) for name, d in ODD.items() if (kind := name.split()[0]) in suffixes and "bits" not in name][::2]
    said = told(vit.folders[0], [d for _, d in some], alone / "f")
    for n, (kind, data, one) in enumerate((kind, d, one) for (kind, d), one in zip(some, said, strict=True)):
        if one:
            path = alone / "d" / ("test" if n % 2 else "validation") / one[0]["label"] / f"{n}.{suffixes[kind]}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    done = run("eval", vit.words[0], "--dataset", "./d", "--json", "-")
    assert done.code == 0, done.err
    assert (done.json["score"], done.json["test"]) == (1.0, 1.0)


def test_a_declared_mode_is_honoured(vit: Family, images: Any, alone: Path) -> None:
    """Of a column of Image(mode="L"), what datasets hands out is scored: grey, not the colour in the files."""
    data = [encoded(Pictures.fromarray(noise(SIDE, SIDE, 3)), "PNG") for _ in range(40)]
    classify = pipeline("image-classification", vit.words[0])
    write(images, data, [0] * 40, alone / "unlabelled", Image(mode="L"))
    rows = Dataset.from_parquet("unlabelled/test-0.parquet")
    labels = [NAMES.index(classify(picture)[0]["label"]) for picture in rows["image"][:]]
    colours = [NAMES.index(classify(Pictures.open(io.BytesIO(each)))[0]["label"]) for each in data]
    assert labels != colours
    write(images, data, labels, alone / "grey", Image(mode="L"))
    assert run("eval", vit.words[0], "--dataset", "./grey", "--json", "-").json["test"] == 1.0
    Dataset.from_parquet("grey/test-0.parquet").cast_column("image", Image()).to_parquet("grey/test-1.parquet")
    block = refused("eval", vit.words[0], "--dataset", "./grey", code=2)
    assert "expected one mode of all images, found L in 'test-0.parquet' and none in 'test-1.parquet'" in block


def test_what_is_white_only_for_its_bits_is_no_double(vit: Family, images: Any, alone: Path) -> None:
    """Pictures of 16 bits that differ, though all of them become white, may lie in both splits."""
    wide = [Pictures.fromarray(noise(SIDE, SIDE, high=1000, dtype=np.uint16) + 9000) for _ in range(24)]
    write(images, [encoded(p, "PNG") for p in wide], [n % 6 for n in range(24)], alone / "d")
    done = run("eval", vit.words[0], "--dataset", "./d/test-0.parquet", "--json", "-")
    assert done.code == 0, done.err
    assert done.json["test"] == pytest.approx(1 / 6)


def test_what_eight_bits_cannot_hold_is_told(vit: Family, images: Any, alone: Path) -> None:
    """Screen and card say how many images pipeline() clips, how much of them, and that scores are of those."""
    wide = [Pictures.fromarray(noise(SIDE, SIDE, high=1 << 16, dtype=np.uint16)) for _ in range(4)]
    narrow = [Pictures.fromarray(noise(SIDE, SIDE, 3)) for _ in range(20)]
    write(images, [encoded(p, "PNG") for p in (*wide, *narrow)], [n % 6 for n in range(24)], alone / "d")
    words = ("bake", *vit.words[:2], "--dataset", "./d", "--output", "soup")
    said = "4 of 24 images of the split 'test' have more than 8 bits a channel, which are cut off here as in pipeline()"
    assert said in run(*words).err
    assert said in Path("soup/README.md").read_text().replace("\\", "")
    # What is taken from the cache is told as well.
    assert said in run(*words, "--overwrite").err


@pytest.mark.parametrize(
    "name", ["TGA", "old TGA", "ICO", "HEIC", "SVG", "PSD", "JPEG XL", "PDF", "MP4", "ZIP", "HTML"]
)
def test_an_image_of_a_format_that_is_not_read_is_named(name: str, vit: Family, images: Any, alone: Path) -> None:
    """The error names the format and the row, what is read, and what to do; no address in memory."""
    small = Pictures.fromarray(noise(SIDE, SIDE, 3))
    tga = encoded(small, "TGA")
    data = {
        "TGA": tga,
        "old TGA": tga[:-26],
        "ICO": encoded(small, "ICO"),
        "HEIC": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(40),
        "SVG": b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>',
        "PSD": b"8BPS\0\1" + bytes(40),
        "JPEG XL": b"\xff\x0a" + bytes(40),
        "PDF": encoded(small, "PDF"),
        "MP4": b"\0\0\0\x18ftypisom" + bytes(40),
        "ZIP": b"PK\x03\x04" + bytes(40),
        "HTML": b"\n<!DOCTYPE html><html><title>404</title></html>",
    }[name]
    write(images, [encoded(small, "PNG")] * 5 + [data], [0, 1, 2, 3, 4, 5], alone / "d")
    block = refused("bake", *vit.words[:2], "--dataset", "./d", "--output", "soup", code=1)
    assert f"row 5 of split test: cannot be decoded: a file of the format {name.removeprefix('old ')};" in block
    assert "convert it to PNG" in block
    assert "JPEG2000" in FORMATS
    assert "BytesIO" not in block


def test_a_processor_that_takes_no_image_is_to_blame(resnet: Family, data: Path, alone: Path) -> None:
    """Without a type, a processor is the one of the architecture; if that cannot use its values, no image is blamed."""
    folders = [copy_model(folder, alone / folder.name) for folder in resnet.folders[:2]]
    for folder in folders:
        size = {"height": SIDE, "width": SIDE}
        (folder / "preprocessor_config.json").write_text(json.dumps({"do_resize": True, "size": size}))
    block = refused("bake", *folders, "--dataset", data, "--output", "soup", code=1)
    assert "fails on an image" in block
    assert "split" not in block


def test_two_models_are_compared_on_what_the_pipeline_says(vit: Family, images: Any, alone: Path) -> None:
    """evaluation.json holds, image by image, the class that the pipeline gives on the written soup."""
    data = [d for name, d in ODD.items() if "16 bits" in name or "turned" in name or "palette" in name]
    write(images, data, [n % 6 for n in range(len(data))], alone / "d")
    bake(*vit.words[:3], "--recipe", "uniform", "--dataset", "./d", "--skip-bad-images", "--output", "soup")
    found = json.loads(Path("soup/evaluation.json").read_text())
    said = told(Path("soup"), [data[row] for row in found["rows"]], alone / "files")
    assert [NAMES[n] for n in found["soup"]] == [one[0]["label"] for one in said if one]
