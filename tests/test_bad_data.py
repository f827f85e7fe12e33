"""Bad images and labels are counted and named, and never become a quietly wrong score."""

from __future__ import annotations

import io
import struct
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, List, Value
from family import NAMES, SIDE, Family
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Pictures
from PIL import ImageEnhance, ImageFile
from shell import bake, refused, run
from sklearn.datasets import load_sample_images
from transformers import ViTImageProcessorPil

from hfsoup.data import leakage
from hfsoup.data.decoding import BadImageError, decode
from hfsoup.data.images import Images, load_images
from hfsoup.data.leakage import find_near_copies
from hfsoup.data.metrics import check_predictions
from hfsoup.data.pixels import PixelFile
from hfsoup.data.request import Request
from hfsoup.data.tasks import SINGLE_LABEL
from hfsoup.evaluation.metrics import load_metric
from hfsoup.utils.cache import cache_root
from hfsoup.utils.errors import MismatchError, SoupError

PROCESSOR = ViTImageProcessorPil(size={"height": SIDE, "width": SIDE})
RAW = Features({"image": Image(), "label": ClassLabel(names=list(NAMES))})


def load(where: object, classes: Any = NAMES, **asked: Any) -> Images:
    return load_images(Request(str(where), **asked), PROCESSOR, classes)


def encoded(picture: Any, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def png(width: int, height: int) -> bytes:
    """A PNG of any size in a few kilobytes: one grey bit a pixel, all zero."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    squeeze = zlib.compressobj(9)
    row = bytes(1 + (width + 7) // 8)
    data = b"".join(squeeze.compress(row) for _ in range(height)) + squeeze.flush()
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def write(parts: dict[str, Any], folder: Path) -> Path:
    """Splits of cells and labels as parquet files."""
    folder.mkdir()
    for name, rows in parts.items():
        rows.to_parquet(folder / f"{name}-0.parquet")
    return folder


def with_cells(rows: Any, cells: dict[int, bytes | None]) -> Any:
    """A split with the encoded bytes of some images replaced."""
    raw = rows.cast_column("image", Image(decode=False))
    changed = [
        {**row, "image": {"bytes": cells[n], "path": None} if cells[n] is not None else None} if n in cells else row
        for n, row in enumerate(raw)
    ]
    return Dataset.from_list(changed, features=RAW)


def with_labels(images: Any, labels: Any, feature: Any, folder: Path) -> Path:
    """Both splits with another label column."""
    parts = {}
    for name in ("validation", "test"):
        rows = images[name]
        columns = {"image": rows["image"][:], "label": labels(rows["label"][:])}
        parts[name] = Dataset.from_dict(columns, features=Features({"image": Image(), "label": feature}))
    return write(parts, folder)


RED = Pictures.new("RGB", (8, 6), (200, 40, 90))
GREY = Pictures.new("L", (8, 6), 120)
TURNED = Pictures.Exif()
TURNED[0x0112] = 6


@pytest.mark.parametrize(
    ("data", "size", "colour"),
    [
        (encoded(RED), (8, 6), (200, 40, 90)),
        (encoded(Pictures.new("RGBA", (8, 6), (200, 40, 90, 7))), (8, 6), (200, 40, 90)),
        (encoded(RED.quantize(4)), (8, 6), (200, 40, 90)),
        (encoded(RED.quantize(4), transparency=b"\x00\x80"), (8, 6), (200, 40, 90)),
        (encoded(GREY), (8, 6), (120, 120, 120)),
        (encoded(GREY.convert("LA")), (8, 6), (120, 120, 120)),
        (encoded(Pictures.new("1", (8, 6), 1)), (8, 6), (255, 255, 255)),
        (encoded(Pictures.fromarray(np.full((6, 8), 120, np.uint16))), (8, 6), (120, 120, 120)),
        (encoded(Pictures.fromarray(np.full((6, 8), 120 * 256 + 9, np.uint16)), "TIFF"), (8, 6), (255, 255, 255)),
        (encoded(RED.convert("CMYK"), "TIFF"), (8, 6), (200, 40, 90)),
        (encoded(RED, "GIF", save_all=True, append_images=[GREY]), (8, 6), (200, 40, 90)),
        (encoded(RED, "PNG", save_all=True, append_images=[RED.rotate(180)]), (8, 6), (200, 40, 90)),
        (encoded(RED, "JPEG", exif=TURNED), (6, 8), (200, 40, 90)),
        (encoded(RED, "TIFF", exif=TURNED), (6, 8), (200, 40, 90)),
        (encoded(Pictures.new("RGB", (1, 1), (200, 40, 90))), (1, 1), (200, 40, 90)),
        (encoded(Pictures.new("RGB", (100, 1), (200, 40, 90))), (100, 1), (200, 40, 90)),
    ],
    ids=[
        *("RGB", "RGBA", "P", "P with alpha", "L", "LA", "1", "16 bits", "16-bit TIFF", "CMYK", "animated GIF", "APNG"),
        *("EXIF", "EXIF of TIFF", "one pixel", "long"),
    ],
)
def test_every_mode_becomes_rgb(data: bytes, size: tuple[int, int], colour: tuple[int, int, int]) -> None:
    """The first frame, upright, transparency dropped, 16 bits cut off as Pillow does it."""
    found = decode(data).picture
    assert (found.mode, found.size) == ("RGB", size)
    assert np.abs(np.asarray(found).astype(int) - colour).max() <= 2


@pytest.mark.parametrize(
    ("values", "lost"), [(0, 0), (0.5, 1), (1, 0), (255, 0), (300, 1)], ids=["black", "half", "one", "white", "above"]
)
def test_what_eight_bits_do_not_hold_is_lost(values: float, lost: float) -> None:
    """Of floats, a fraction of 1 becomes black and what is above 255 white."""
    cells = np.full((6, 8), values, np.float32)
    cells[0] = 0
    assert decode(encoded(Pictures.fromarray(cells), "TIFF")).lost == lost * 5 / 6


HOLLOW = encoded(RED)[:45]
PHOTO = encoded(Pictures.effect_noise((64, 64), 90).convert("RGB"), "JPEG")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "no bytes"),
        (b"\x89PNG\r\n\x1a\n nothing", "cannot be decoded"),
        (HOLLOW, "cannot be decoded"),
        (PHOTO[: len(PHOTO) // 2], "cannot be decoded"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n", "cannot be decoded"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n", "cannot be decoded"),
        (png(30_000, 30_000), "more than 90 megapixels"),
        (png(13_000, 13_000), "169 megapixels, at most 90"),
    ],
    ids=[
        *("empty", "header only", "cut off", "half a JPEG", "EPS", "LFS pointer", "900 MP", "169 MP"),
    ],
)
def test_what_cannot_be_shown_to_a_model_has_a_reason(data: bytes, reason: str) -> None:
    """Damaged, huge, extreme and unreadable pictures are told apart."""
    with pytest.raises(BadImageError, match=reason):
        decode(data)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("side", [13_000, 30_000])
def test_a_huge_picture_is_never_decoded(side: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its size is read in the header; no pixel is."""
    monkeypatch.setattr(ImageFile.ImageFile, "load", None)
    with pytest.raises(BadImageError, match="megapixels"):
        decode(png(side, side))


KINDS = ("PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP", "PPM", "JPEG2000")
SOUND = {kind: encoded(Pictures.effect_noise((24, 20), 90).convert("RGB"), kind) for kind in KINDS}


@given(st.sampled_from(KINDS), st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=6), st.floats(0, 1))
def test_no_damage_escapes(kind: str, edits: list[tuple[float, int]], kept: float) -> None:
    """Whatever bytes are changed or missing, a picture comes out or BadImageError does."""
    data = bytearray(SOUND[kind])
    for at, value in edits:
        data[int(at * (len(data) - 1))] = value
    with suppress(BadImageError):
        assert decode(bytes(data[: int(kept * len(data)) + 1])).picture.mode == "RGB"


def test_bad_images_are_named_and_left_out_on_request(vit: Family, images: Any, alone: Path) -> None:
    """By default an error names rows and reasons; with --skip-bad-images they are not counted, and the card says so."""
    cells = {17: b"\x89PNG\r\n\x1a\n nothing", 40: None, 41: png(13_000, 13_000)}
    write({"validation": with_cells(images["validation"], cells), "test": images["test"]}, alone / "d")
    words = (*vit.words[:2], "--recipe", "uniform", "--dataset", "./d", "--output", "soup")
    block = refused("bake", *words, code=1)
    assert "3 of 60 images cannot be decoded or used" in block
    for text in ("row 17 of split validation: cannot be decoded", "row 40 of split validation: there is no image"):
        assert text in block
    assert "169 megapixels" in block
    assert "--skip-bad-images" in block
    found = bake(*words, "--skip-bad-images")
    assert found["images_forwarded"] == 57 * 3 + 72 * 2
    text = Path("soup/README.md").read_text().replace("\\", "")
    assert (
        "3 of 60 images cannot be decoded or used and are left out of the split 'validation': rows 17, 40, 41" in text
    )
    assert "57 of 60 rows of the split 'validation'" in text


def test_what_is_left_out_changes_the_fingerprint(images: Any, tmp_path: Path) -> None:
    """Scores on fewer images are never taken for those on all of them."""
    whole = load(write({"validation": images["validation"], "test": images["test"]}, tmp_path / "a"))
    bad = with_cells(images["validation"], {3: b"?"})
    less = load(write({"validation": bad, "test": images["test"]}, tmp_path / "b"), skip_bad_images=True)
    assert len(less.selection) == len(whole.selection) - 1
    assert less.selection.fingerprint != whole.selection.fingerprint
    assert np.array_equal(less.selection.pixels[:], np.delete(whole.selection.pixels[:], 3, axis=0))


def test_a_split_without_one_good_image_is_an_error(images: Any, tmp_path: Path) -> None:
    """Leaving out every image leaves nothing to score."""
    bad = with_cells(images["test"], dict.fromkeys(range(72), b"?"))
    with pytest.raises(SoupError, match="72 of 72 images"):
        load(write({"validation": images["validation"], "test": bad}, tmp_path / "d"), skip_bad_images=True)


BAD_LABELS = {
    "missing": (lambda n: [None, *n[1:]], Value("int64"), "1 rows without a label: row 0"),
    "minus one": (lambda n: [*n[:-1], -1], Value("int64"), r"found -1 in 1 of .*-1 stands for no label"),
    "unlabelled split": (lambda n: [-1] * len(n), ClassLabel(names=list(NAMES)), "-1 stands for no label"),
    "too large": (lambda n: [6, *n[1:]], Value("int64"), r"labels outside 0 to 5: found 6 in 1 of 60 rows \(row 0\)"),
    "floats": (lambda n: [float(x) + 0.5 for x in n], Value("float32"), "expected whole numbers .* found float"),
    "whole floats": (lambda n: [float(x) for x in n], Value("float32"), "expected whole numbers .* found float"),
    "truth values": (lambda n: [bool(x) for x in n], Value("bool"), "expected whole numbers .* found bool"),
    "several": (lambda n: [[x, 1] for x in n], List(Value("int64")), "one class an image, found list"),
    "one class": (lambda n: [2] * len(n), ClassLabel(names=list(NAMES)), "every image is of one class, 'quince'"),
    "foreign names": (lambda n: [f"dog {x}" for x in n], Value("string"), "class names are missing: 'dog 0'"),
    "doubled names": (lambda n: [("Fig", " fig")[x % 2] for x in n], Value("string"), "ambiguous.*' fig', 'Fig'"),
    "a name too many": (lambda n: [6, *n[1:]], ClassLabel(names=[*NAMES, "kiwi"]), "class names are missing: 'kiwi'"),
}


@pytest.mark.parametrize(("labels", "feature", "text"), BAD_LABELS.values(), ids=BAD_LABELS.keys())
def test_bad_labels_are_refused(labels: Any, feature: Any, text: str, images: Any, tmp_path: Path) -> None:
    """Each ends in an error that counts and names the rows or classes; none is scored."""
    with pytest.raises(SoupError, match=text):
        load(with_labels(images, labels, feature, tmp_path / "d"), label_column="label")


GOOD_LABELS = {
    "numbers": (lambda n: n, Value("int32")),
    "names": (lambda n: [NAMES[x] for x in n], Value("string")),
    "other case": (lambda n: [f" {NAMES[x].upper().replace('_', ' ')}" for x in n], Value("string")),
    "a class without images": (lambda n: n, ClassLabel(names=[*NAMES, "kiwi"])),
    "other order": (lambda n: [5 - x for x in n], ClassLabel(names=list(NAMES[::-1]))),
}


@pytest.mark.parametrize(("labels", "feature"), GOOD_LABELS.values(), ids=GOOD_LABELS.keys())
def test_labels_mean_the_same_class_however_they_are_written(
    labels: Any, feature: Any, images: Any, tmp_path: Path
) -> None:
    """Numbers, names in any case, and names in another order come out in the model's order."""
    found = load(with_labels(images, labels, feature, tmp_path / "d"), label_column="label")
    assert found.selection.labels.tolist() == images["validation"]["label"][:]
    assert found.test.labels.tolist() == images["test"]["label"][:]


def pictures(images: Any, folder: Path, *, without: str = "") -> Path:
    for split in ("validation", "test"):
        for n, row in enumerate(images[split]):
            home = folder / split / NAMES[row["label"]]
            home.mkdir(parents=True, exist_ok=True)
            if home.name != without:
                row["image"].save(home / f"{n:03}.png")
    return folder


def test_an_empty_class_folder_shifts_nothing(images: Any, tmp_path: Path) -> None:
    """Classes of folders are matched by name: without the second class the others keep theirs, and a note says so."""
    found = load(pictures(images, tmp_path / "d", without=NAMES[1]))
    assert set(found.selection.labels.tolist()) == {0, 2, 3, 4, 5}
    first = found.selection.pixels[:][found.selection.labels == 5][0]
    figs = [n for n, label in enumerate(images["validation"]["label"][:]) if label == 5]
    wanted = PROCESSOR(images=images["validation"]["image"][figs[0]], return_tensors="np")["pixel_values"][0]
    assert np.array_equal(first, wanted)
    assert any("no images of 1 of the model's 6 classes: 'green pear'" in note for note in found.notes)


def test_an_empty_class_folder_is_refused_where_classes_have_no_names(images: Any, tmp_path: Path) -> None:
    """Five folders are not the six classes of a model that calls them LABEL_0 to LABEL_5."""
    with pytest.raises(MismatchError, match="class names are missing"):
        load(pictures(images, tmp_path / "d", without=NAMES[1]), [f"LABEL_{n}" for n in range(6)])


def test_metadata_that_contradicts_the_folders_is_refused(images: Any, tmp_path: Path) -> None:
    """A metadata file that calls an image of one class folder another class is counted and named."""
    where = pictures(images, tmp_path / "d")
    for split in ("validation", "test"):
        lines = ["file_name,kind"]
        for path in sorted((where / split).rglob("*.png")):
            kind = "fig" if path.name == "000.png" else path.parent.name
            lines.append(f"{path.relative_to(where / split)},{kind}")
        (where / split / "metadata.csv").write_text("\n".join(lines))
    with pytest.raises(SoupError, match="1 labels are not the folder's: row 0 lies in the folder 'apple'"):
        load(where, label_column="kind")


def test_a_limit_may_leave_one_class(images: Any, tmp_path: Path) -> None:
    """What --limit cut is the user's wish: two images of a split are scored, whatever their classes."""
    found = load(write({"validation": images["validation"], "test": images["test"]}, tmp_path / "d"), limit=2)
    assert (len(found.selection), len(found.test)) == (2, 2)


def test_a_split_that_selects_cannot_report_under_another_name(vit: Family, images: Any, alone: Path) -> None:
    """The same rows as validation and test are refused before anything is scored."""
    write({"validation": images["validation"], "test": images["validation"]}, alone / "d")
    block = refused("bake", *vit.words[:2], "--dataset", "./d", "--output", "soup", code=1)
    assert "60 of 60 test images are also selection images" in block


@pytest.mark.parametrize("copies", [1, 2])
def test_images_in_both_splits_are_counted(copies: int, images: Any, tmp_path: Path) -> None:
    """Up to one in a hundred test images may be among those that select, and is noted; more are an error.

    A double is one pixel for pixel, however it is encoded.
    """
    cells = {70 - n: encoded(images["validation"][n]["image"], "TIFF") for n in range(copies)}
    test = with_cells(images["test"], cells)
    many = Dataset.from_list([*test.cast_column("image", Image(decode=False)), *noise(40)], features=RAW)
    where = write({"validation": images["validation"], "test": many}, tmp_path / "d")
    if copies == 2:
        with pytest.raises(SoupError, match=r"2 of 112 test images are also selection images \(rows 69, 70\)"):
            load(where)
    else:
        notes = load(where).notes
        assert any("1 of 112 test images are also selection images (row 70)" in note for note in notes)


def noise(count: int) -> list[dict[str, Any]]:
    random = np.random.default_rng(7)
    cells = [encoded(Pictures.fromarray(random.integers(0, 255, (4, 4, 3), np.uint8))) for _ in range(count)]
    return [{"image": {"bytes": cell, "path": None}, "label": n % 6} for n, cell in enumerate(cells)]


@pytest.mark.parametrize(
    ("predictions", "references", "text"),
    [
        ([], [], "found the shape"),
        (np.empty((0, 1), int), np.empty(0, int), "found the shape"),
        ([[0.9], [1.2]], [0, 1], "whole numbers as predictions, found float64"),
        ([[0], [1]], [0.0, 1.0], "whole numbers as references, found float64"),
        ([[0], [-1]], [0, 1], "from 0 on as predictions, found -1"),
        ([[0], [1]], [0, -1], "from 0 on as references, found -1"),
        ([[0], [None]], [0, 1], "found object"),
        ([[0], [1]], [None, 1], "found object"),
        ([[True], [False]], [0, 1], "found bool"),
        ([["0"], ["1"]], [0, 1], "found <U1"),
        ([[0], [1], [2]], [0, 1], "found 3 for 2"),
        ([0, 1], [0, 1], "found the shape"),
    ],
)
@pytest.mark.parametrize("name", SINGLE_LABEL.metrics)
def test_metrics_take_classes_and_nothing_else(name: str, predictions: Any, references: Any, text: str) -> None:
    """Floats, missing and negative classes, empty and uneven lists are errors, where evaluate gives a number."""
    with pytest.raises(SoupError, match=text):
        load_metric(name).value(predictions, references)


def test_metrics_take_any_whole_numbers() -> None:
    """Narrow and unsigned integers are classes too."""
    guesses, truth = check_predictions(np.array([[0], [3]], np.uint8), [0, 3])
    assert guesses.dtype == truth.dtype == np.int64
    assert load_metric("accuracy").value(guesses, truth) == 1.0


def test_saved_datasets_meet_the_same_checks(images: Any, tmp_path: Path) -> None:
    """What save_to_disk wrote is not trusted more: a damaged image in it is named by its row."""
    parts = {"validation": with_cells(images["validation"], {5: b"?"}), "test": images["test"]}
    DatasetDict(parts).save_to_disk(tmp_path / "d")
    with pytest.raises(SoupError, match="row 5 of split validation"):
        load(tmp_path / "d")


def resized(picture: Any) -> Any:
    """A picture of 32 pixels enlarged to 40, and saved as a JPEG of quality 92."""
    return Pictures.open(io.BytesIO(encoded(picture.resize((40, 40)), "JPEG", quality=92)))


def recoloured(picture: Any) -> Any:
    """A picture a little brighter and paler."""
    return ImageEnhance.Color(ImageEnhance.Brightness(picture).enhance(0.97)).enhance(0.8)


def crop_photographs() -> list[Any]:
    """Different parts of two photographs, of 32 pixels."""
    photographs = [Pictures.fromarray(pixels) for pixels in load_sample_images().images]
    corners = [(x, y) for y in range(0, 384, 32) for x in range(0, 640, 32)]
    return [photo.crop((x, y, x + 32, y + 32)) for photo in photographs for x, y in corners]


@pytest.mark.parametrize("change", [resized, recoloured])
def test_near_copies_of_selection_images_are_named(change: Any, vit: Family, alone: Path) -> None:
    """One in a hundred test images may look like a selection image, and is noted; more are an error like doubles."""
    crops = crop_photographs()[::2]
    for copies in (1, 2):
        splits = {"validation": crops[:100], "test": [*map(change, crops[50 : 50 + copies]), *crops[100 + copies :]]}
        write(
            {
                name: Dataset.from_list(
                    [{"image": {"bytes": encoded(p), "path": None}, "label": n % 6} for n, p in enumerate(pictures)],
                    features=RAW,
                )
                for name, pictures in splits.items()
            },
            alone / f"d{copies}",
        )
    words = ("bake", *vit.words[:2], "--output", "soup", "--overwrite", "--dataset")
    done = run(*words, "d1")
    assert done.code == 0, done.err
    assert "1 of 140 test images look like a selection image (row 0)" in done.err
    assert "2 of 140 test images look like a selection image (rows 0, 1), at most 1%" in refused(*words, "d2", code=1)
    assert run(*words, "d2", "--allow-duplicates").code == 0
    assert "2 of 140 test images look like a selection image" in Path("soup/README.md").read_text()


def test_the_same_images_are_compared_for_near_copies_once(
    vit: Family, data: Path, alone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second bake reads no picture for that, unless the record is damaged."""
    words, compared = (*vit.words[:2], "--dataset", data, "--overwrite", "--output", "soup"), list[int]()

    def find_counted(first: PixelFile, second: PixelFile) -> list[tuple[int, int]]:
        compared.append(len(first))
        return find_near_copies(first, second)

    bake(*words)
    monkeypatch.setattr(leakage, "find_near_copies", find_counted)
    bake(*words)
    assert compared == []
    for record in (cache_root() / "copies").iterdir():
        record.write_bytes(record.read_bytes() + b" ")
    bake(*words)
    assert compared == [60]


def test_plain_and_smooth_pictures_are_no_copies(tmp_path: Path) -> None:
    """White ones with one line, and those that only grow brighter to one side, are not alike."""
    random = np.random.default_rng(0)
    ramp = np.linspace(0, 1, 32)[None, :] * random.uniform(0.5, 1, (8, 1, 1)) + random.normal(0, 1e-3, (8, 32, 32))
    line = np.ones((8, 32, 32))
    line[:, :, 15] = random.uniform(0, 1, (8, 1))
    for name, pictures in (("ramp", ramp), ("line", line)):
        pixels = pictures[:, None].repeat(3, axis=1).astype(np.float32)
        np.save(tmp_path / "a.npy", pixels[:4])
        np.save(tmp_path / "b.npy", pixels[4:])
        assert find_near_copies(PixelFile(tmp_path / "a.npy"), PixelFile(tmp_path / "b.npy")) == [], name
