"""Every file's own class names count, labels are matched by a stated rule, and training images are no test."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, Value
from family import NAMES, Family, accuracy, copy_model
from huggingface_hub import ModelCard
from shell import bake, refused, run

from hfsoup.data.class_names import ModelClasses, match_dataset_classes
from hfsoup.data.label_mapping import read_mapping
from hfsoup.data.labels import FileLabels, match_labels
from hfsoup.utils.errors import MismatchError, SoupError

CRANES = ("hen", "crane", "crowbar", "crane", "yurt")
UNNAMED = [f"LABEL_{n}" for n in range(6)]


def relabelled(rows: Any, names: list[str]) -> Any:
    """A split whose labels are numbers of another list of names; rows of other classes are left out."""
    texts = [NAMES[n] for n in rows["label"][:]]
    kept = [n for n, text in enumerate(texts) if text in names]
    columns = {"image": [rows[n]["image"] for n in kept], "label": [names.index(texts[n]) for n in kept]}
    return Dataset.from_dict(columns, features=Features({"image": Image(), "label": ClassLabel(names=names)}))


def parquet(parts: dict[str, Any], folder: Path) -> Path:
    folder.mkdir()
    for name, rows in parts.items():
        rows.to_parquet(folder / f"{name}.parquet")
    return folder


def saved(parts: dict[str, Any], folder: Path) -> Path:
    for name, rows in parts.items():
        rows.save_to_disk(folder / name)
    (folder / "dataset_dict.json").write_text(json.dumps({"splits": list(parts)}))
    return folder


def evaluate(model: Path, *words: object) -> dict[str, Any]:
    done = run("eval", model, *words, "--json", "-")
    assert done.code == 0, done.err
    return done.json


def unnamed(vit: Family, home: Path) -> Path:
    """A model that calls its classes LABEL_0 to LABEL_5."""
    return copy_model(vit.folders[0], home / "unnamed", id2label=dict(enumerate(UNNAMED)), label2id=None)


@pytest.mark.parametrize("write", [parquet, saved])
@pytest.mark.parametrize("names", [NAMES[::-1], (*NAMES[:1], *NAMES[2:])], ids=["another order", "one class less"])
def test_each_split_is_labelled_by_its_own_names(
    names: tuple[str, ...], write: Any, vit: Family, images: Any, tmp_path: Path
) -> None:
    """A test split that numbers its classes otherwise than the validation split scores as transformers says."""
    test = relabelled(images["test"], list(names))
    folder = write({"validation": images["validation"], "test": test}, tmp_path / "d")
    found = evaluate(vit.folders[0], "--dataset", folder)
    wanted = relabelled(images["test"], list(names)).cast_column("label", Value("int64"))
    labels = [NAMES.index(names[n]) for n in wanted["label"][:]]
    truth = wanted.remove_columns("label").add_column("label", labels)
    assert found["test"] == pytest.approx(accuracy(vit.folders[0], truth))
    assert found["score"] == pytest.approx(accuracy(vit.folders[0], images["validation"]))


def test_files_of_one_split_may_number_their_classes_differently(vit: Family, images: Any, tmp_path: Path) -> None:
    """Two files of a split, the second one's classes in another order, score as one file does."""
    first, second = images["test"].select(range(30)), images["test"].select(range(30, 72))
    parts = {"validation": images["validation"], "test-0": first, "test-1": relabelled(second, list(NAMES[::-1]))}
    found = evaluate(vit.folders[0], "--dataset", parquet(parts, tmp_path / "d"))
    assert found["test"] == pytest.approx(accuracy(vit.folders[0], images["test"]))


@pytest.mark.parametrize("write", [parquet, saved])
def test_where_numbers_decide_all_files_must_number_alike(write: Any, vit: Family, images: Any, alone: Path) -> None:
    """A model without class names cannot tell two orders apart, so both files are named and nothing is scored."""
    test = relabelled(images["test"], list(NAMES[::-1]))
    write({"validation": images["validation"], "test": test}, alone / "d")
    for words in ((unnamed(vit, alone),), (vit.folders[0], "--labels", "by-number")):
        block = refused("eval", *words, "--dataset", "./d", code=1)
        assert "number their classes differently" in block
        assert block.count("validation") >= 1
        assert block.count("test") >= 1


def test_numbers_beside_names_in_another_order_are_refused(vit: Family, images: Any, alone: Path) -> None:
    """Plain numbers in one split and names in another order in the other cannot both be right."""
    rows = relabelled(images["validation"], list(NAMES[::-1]))
    plain = images["test"].cast_column("label", Value("int64"))
    parquet({"validation": rows, "test": plain}, alone / "d")
    block = refused("eval", vit.folders[0], "--dataset", "./d", "--label-column", "label", code=1)
    assert "number their classes differently" in block


def test_a_card_that_names_classes_otherwise_than_a_file_is_refused(vit: Family, images: Any, alone: Path) -> None:
    """README.md and the file are both named."""
    parquet({"validation": images["validation"], "test": images["test"]}, alone / "d")
    names = "".join(f"          '{n}': {name}\n" for n, name in enumerate(NAMES[::-1]))
    label = f"  - name: label\n    dtype:\n      class_label:\n        names:\n{names}"
    card = f"dataset_info:\n  features:\n  - name: image\n    dtype: image\n{label}"
    Path("d/README.md").write_text(f"---\n{card}---\n")
    block = refused("eval", vit.folders[0], "--dataset", "./d", code=1)
    assert "README.md" in block
    assert "validation.parquet" in block


@pytest.mark.parametrize("split", ["train", "training", "train_small"])
def test_training_images_are_no_test(split: str, vit: Family, images: Any, alone: Path) -> None:
    """A training split is never proposed; where it is taken, screen, card and report say so and no result is listed."""
    Path("d").mkdir()
    images["train"].to_parquet("d/rows.parquet")
    path = f"configs:\n- config_name: x\n  data_files:\n  - split: {split}\n    path: rows.parquet\n"
    Path("d/README.md").write_text(f"---\n{path}---\n")
    block = refused("bake", *vit.words[:2], "--dataset", "./d", "--output", "soup", code=2)
    assert f"--split {split}" not in block
    assert "not trained on" in block
    done = run("bake", *vit.words[:2], "--dataset", "./d", "--split", split, "--output", "soup")
    assert done.code == 0, done.err
    assert done.err.count("may have been trained on the images") == 2
    card = ModelCard.load(Path("soup/README.md"))
    assert card.data.eval_results is None
    assert "model-index" not in card.data.to_dict()
    assert "may have been trained on the images" in card.text
    assert "selected nothing" not in card.text
    assert run("report", "soup", "-o", "soup.html").code == 0
    assert "may have been trained on the images" in Path("soup.html").read_text()


def test_a_file_of_training_images_is_a_training_split(vit: Family, images: Any, alone: Path) -> None:
    """One file that is called train has no split that selects until it is asked for."""
    images["train"].to_parquet("train-00000-of-00001.parquet")
    assert "not trained on" in refused("eval", vit.folders[0], "--dataset", "train-00000-of-00001.parquet", code=2)


@pytest.mark.parametrize("lacking", ["minus one", "null", "no column"])
def test_a_split_without_labels_does_not_report(lacking: str, vit: Family, images: Any, alone: Path) -> None:
    """Validation is halved with a note, asked for or not; --test-split none says so beforehand."""
    test = images["test"].remove_columns("label")
    if lacking != "no column":
        value = -1 if lacking == "minus one" else None
        test = test.add_column("label", [value] * 72).cast(images["test"].features)
    parquet({"validation": images["validation"], "test": test}, alone / "d")
    for words in ((), ("--test-split", "test"), ("--test-split", "none")):
        done = run("eval", vit.folders[0], "--dataset", "./d", *words, "--no-resume", "--json", "-")
        assert done.code == 0, done.err
        assert ("the split 'test' has no labels" in done.err) == (words[1:] != ("none",))
        assert "is for selection, the other for test" in done.err
        assert done.json["images_forwarded"] == 60
    assert run("bake", *vit.words[:2], "--dataset", "./d", "--dry-run").code == 0


@pytest.mark.parametrize("missing", ["", None], ids=["empty", "null"])
def test_a_split_whose_names_are_empty_does_not_report(
    missing: str | None, vit: Family, images: Any, alone: Path
) -> None:
    """Labels as names, of which a test split that is published without any has empty ones."""
    labels = {"validation": [NAMES[n] for n in images["validation"]["label"]], "test": [missing] * 72}
    splits = {
        name: images[name].remove_columns("label").add_column("label", found).cast_column("label", Value("string"))
        for name, found in labels.items()
    }
    parquet(splits, alone / "d")
    done = run("eval", vit.folders[0], "--dataset", "./d", "--label-column", "label", "--json", "-")
    assert done.code == 0, done.err
    assert "the split 'test' has no labels" in done.err


def test_a_split_that_is_labelled_in_part_is_refused(vit: Family, images: Any, alone: Path) -> None:
    """Labels of which some are missing are no test either, and no reason to leave it out."""
    test = images["test"].cast_column("label", Value("int64"))
    labels = [-1, *test["label"][1:]]
    test = test.remove_columns("label").add_column("label", labels).cast(images["test"].features)
    parquet({"validation": images["validation"], "test": test}, alone / "d")
    assert "-1 stands for no label" in refused("eval", vit.folders[0], "--dataset", "./d", code=1)


MATCHES = {
    "equal lists with a doubled name": (CRANES, CRANES, range(5), [0, 1, 2, 3, 4]),
    "a doubled name that no image needs": (("yurt", "hen"), CRANES, range(2), [4, 0]),
    "a doubled name by elimination": (("hen", "crane bird", "crowbar", "crane", "yurt"), CRANES, range(5), range(5)),
    "case, underscores, hyphens": (("SOUR-cherry", "Green_Pear"), NAMES, range(2), [4, 1]),
    "hyphens before synonyms": (("tabby-cat", "cat"), ("tabby cat", "cat, tabby cat"), range(2), [0, 1]),
    "letters before case": (("cardigan", "Cardigan"), ("Cardigan", "cardigan"), range(2), [1, 0]),
    "the first of several synonyms": (("tiger cat", "tabby"), ("tabby, tabby cat", "tiger cat"), range(2), [1, 0]),
    "another synonym": (("tabby cat", "x"), ("tabby, tabby cat", "y"), [0], [0]),
    "classes without images": (("kiwi", "fig"), NAMES, [1], [5]),
    "placeholders in text order": (
        sorted(f"LABEL_{n}" for n in range(12)),
        [f"LABEL_{n}" for n in range(12)],
        [2],
        [10],
    ),
    "folders that are numbers": (("0", "1", "2"), ("0", "1", "2"), range(3), range(3)),
}


@pytest.mark.parametrize(("names", "classes", "needed", "wanted"), MATCHES.values(), ids=MATCHES.keys())
def test_names_decide_one_to_one(names: Any, classes: Any, needed: Any, wanted: Any) -> None:
    """However people write them, and whatever the lists hold beside what images need."""
    found = match_dataset_classes(names, ModelClasses(classes), needed, where="d")
    assert [found.places[n] for n in needed] == list(wanted)


REFUSED = {
    "a doubled name that images need": (("crane", "hen"), CRANES, None, "ambiguous"),
    "ImageNet's ids": (("n02123045", "n02123159"), ("tabby", "tiger cat"), None, "missing: 'n02123045'"),
    "one synonym of two": (("cat", "x"), ("cat, tabby", "cat, tiger"), None, "missing: 'cat'"),
    "one class for two names": (("tabby", "tabby cat"), ("tabby, tabby cat", "y"), None, "missing: 'tabby', 'tabby c"),
    "other names in the same places": (("hen", "lorry"), ("hen", "truck"), None, "missing: 'lorry'"),
    "a name that holds the model's": (("hen", "big truck", "yurt"), ("hen", "truck", "yurt"), None, "missing: 'big"),
    "another name in a doubled one's place": (("hen", "stork", "crowbar", "crane", "yurt"), CRANES, None, "'stork'"),
    "a doubled name, others in other places": (
        ("yurt", "crane bird", "crowbar", "crane", "hen"), CRANES, None, "missing: 'crane bird'",
    ),
    "doubled names with one beside them": (
        ("crane a", "crane b", "hen"), ("crane", "crane", "hen"), None, "missing: 'crane a', 'crane b'",
    ),
    "as many classes, none of them named": (("a", "b"), UNNAMED[:2], "by-name", "missing: 'a', 'b'"),
    "fewer classes than those that are not named": (("a", "b"), UNNAMED, None, "missing: 'a', 'b'"),
    "numbers in text order": (("0", "1", "10", "2"), [f"LABEL_{n}" for n in range(4)], None, "another order"),
    "by number, of fewer classes": (("a", "b"), NAMES, "by-number", "names 2 classes and the model has 6"),
    "by number, from one on": (("1", "2"), ("a", "b"), "by-number", "the dataset has '2'"),
    "by name, without names": (None, NAMES, "by-name", "expected class names"),
}  # fmt: skip


@pytest.mark.parametrize(("names", "classes", "asked", "text"), REFUSED.values(), ids=REFUSED.keys())
def test_no_rule_is_a_guess(names: Any, classes: Any, asked: Any, text: str) -> None:
    """What names do not decide is an error that lists them and says what to type."""
    with pytest.raises(SoupError, match=text) as caught:
        match_dataset_classes(names, ModelClasses(classes, asked), range(2), where="d")
    assert "--labels" in caught.value.hint


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        (("class_1", "class_0"), [1, 0]),
        (("cat 1", "dog 0"), [0, 1]),
        (("class_1", "class_2"), [0, 1]),
        (("1", "01"), [0, 1]),
    ],
    ids=["numbers after one word", "after two words", "from one on", "one twice"],
)
def test_by_number_a_name_counts_where_all_together_are_numbers(names: Any, wanted: list[int]) -> None:
    """Otherwise the place in the dataset's list does."""
    found = match_dataset_classes(names, ModelClasses(("a", "b"), "by-number"), range(2), where="d")
    assert [found.places[n] for n in range(2)] == wanted


MAPPED: dict[str, tuple[Any, Any, dict[str, str | int], int, bool]] = {
    "a name in any case": (("x",), ("Tabby", "vest"), {"X": "tabby"}, 0, False),
    "letters before case": (("x",), ("Cardigan", "cardigan"), {"x": "cardigan"}, 1, False),
    "a number as text": (("x",), CRANES, {"x": "3"}, 3, False),
    "the dataset's number": (("x",), CRANES, {"0": "hen"}, 0, True),
    "its name before its number": (("x",), CRANES, {"0": "hen", "x": "yurt"}, 4, False),
    "a dataset without names": (None, CRANES, {"0": "yurt"}, 4, True),
}


@pytest.mark.parametrize(("names", "classes", "mapping", "place", "numbered"), MAPPED.values(), ids=MAPPED.keys())
def test_a_mapping_takes_names_before_numbers(
    names: Any, classes: Any, mapping: Any, place: int, numbered: bool
) -> None:
    """On both sides; where a number of the dataset decided, all files must number alike."""
    found = match_dataset_classes(names, ModelClasses(classes, mapping=mapping), [0], where="d")
    assert (found.places, found.numbered) == ({0: place}, numbered)


@pytest.mark.parametrize(
    ("value", "text", "hint"),
    [("crane", "2 classes 'crane'", "1 or 3"), (-1, "names '-1', which is no class", "below"), (5, "'5'", "below")],
)
def test_a_mapping_to_no_class_or_two_is_refused(value: str | int, text: str, hint: str) -> None:
    """What a doubled name means is told by its numbers."""
    with pytest.raises(SoupError, match=text) as caught:
        match_dataset_classes(("x",), ModelClasses(CRANES, mapping={"x": value}), [0], where="d")
    assert hint in caught.value.hint


def test_numbers_of_folders_are_taken_as_such_on_request() -> None:
    """Folders "0" to "11" are the classes 0 to 11 by number, not by their place in the alphabet."""
    names = sorted(map(str, range(12)))
    labels = [FileLabels("d", list(range(12)), tuple(names))]
    found = match_labels(labels, ModelClasses([f"c{n}" for n in range(12)], "by-number"), where="d")
    assert found.labels.tolist() == [int(name) for name in names]


def pictures(images: Any, folder: Path, call: Any) -> Path:
    for split in ("validation", "test"):
        for n, row in enumerate(images[split]):
            home = folder / split / call(row["label"])
            home.mkdir(parents=True, exist_ok=True)
            row["image"].save(home / f"{n:03}.png")
    return folder


def test_labels_by_number_bake_and_are_repeated(vit: Family, images: Any, alone: Path) -> None:
    """Folders "0" to "5" are refused by name, baked by number with a note, recorded, and verified with their scores."""
    pictures(images, alone / "d", str)
    block = refused("bake", *vit.words[:2], "--dataset", "./d", "--output", "soup", code=1)
    assert "class names are missing: '0'" in block
    assert "--labels by-number" in block
    done = run("bake", *vit.words[:2], "--dataset", "./d", "--labels", "by-number", "--output", "soup", "--json", "-")
    assert done.code == 0, done.err
    assert ": by number, as asked" in done.err
    assert done.json["soup"]["test"] == pytest.approx(accuracy(Path("soup"), images["test"]))
    record = json.loads(Path("soup/soup.json").read_text())
    assert record["options"]["labels"] == "by-number"
    assert record["dataset"]["labels"].startswith("by number, as asked")
    assert ": by number, as asked" in Path("soup/README.md").read_text()
    assert run("verify", "soup", "--scores").code == 0


def test_ingredients_without_class_names_join_by_number(vit: Family, images: Any, data: Path, alone: Path) -> None:
    """LABEL_0 beside named classes is refused with the flag to type; with it the soup is that of the named ones."""
    plain = copy_model(vit.folders[1], alone / "plain", id2label=dict(enumerate(UNNAMED)), label2id=None)
    assert "--labels by-number" in refused("bake", vit.folders[0], plain, "--output", "s", code=1)
    wanted = bake(*vit.words[:2], "--output", "named")["soup"]["sha256"]
    words = (vit.folders[0], plain, "--labels", "by-number")
    assert bake(*words, "--output", "soup")["soup"]["sha256"] == wanted
    bake(plain, vit.folders[0], *words[2:], "--output", "turned")
    names = json.loads(Path("turned/config.json").read_text())["id2label"]
    assert [names[str(n)] for n in range(6)] == list(NAMES)
    scored = bake(*words, "--dataset", data, "--recipe", "uniform", "--output", "scored")["soup"]
    assert scored["test"] == pytest.approx(accuracy(Path("named"), images["test"]))
    assert run("verify", "soup").code == 0


FILES = {
    "map.json": lambda pairs: json.dumps(dict(pairs)),
    "map.yaml": lambda pairs: "".join(f"{name}: {value}\n" for name, value in pairs),
    "map.csv": lambda pairs: "dataset,model\n" + "".join(f"{name},{value}\n" for name, value in pairs),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_maps_the_datasets_classes(name: str, vit: Family, images: Any, alone: Path) -> None:
    """Names of the dataset map to names and numbers of the model; the file may be gone when the soup is verified."""
    pictures(images, alone / "d", lambda n: f"no-{n}")
    pairs = [(f"no-{n}", NAMES[n] if n % 2 else n) for n in range(6)]
    Path(name).write_text(FILES[name](pairs))
    found = bake(*vit.words[:2], "--dataset", "./d", "--labels", name, "--output", "soup")
    assert found["soup"]["test"] == pytest.approx(accuracy(Path("soup"), images["test"]))
    Path(name).unlink()
    assert run("verify", "soup", "--scores").code == 0
    Path(name).write_text(FILES[name](pairs[1:]))
    assert "no class for 'no-0'" in refused("eval", vit.folders[0], "--dataset", "./d", "--labels", name, code=2)


def test_words_of_a_mapping_stay_words(alone: Path) -> None:
    """What YAML takes for truth values and numbers are classes like all others; a text of a spreadsheet is one too."""
    Path("map.yaml").write_text("no: yes\n1.0: 3\n")
    assert read_mapping("map.yaml") == {"no": "yes", "1.0": "3"}
    Path("map.csv").write_text("\ufeffno, yes\n")
    assert read_mapping("map.csv") == {"no": "yes"}


def test_a_file_that_is_no_mapping_is_wrong_usage(vit: Family, data: Path, alone: Path) -> None:
    """A word that is no rule, a missing file, a list, and a class that the model lacks."""
    Path("list.json").write_text("[1]")
    Path("wrong.json").write_text(json.dumps(dict.fromkeys(NAMES, "kiwi")))
    Path("true.json").write_text(json.dumps(dict.fromkeys(NAMES, True)))
    Path("three.csv").write_text("apple,0,1\n")
    with Path("large.yaml").open("wb") as file:
        file.truncate(9 << 20)
    for name, text in (
        ("true.json", f"a class name or number for each class, found something else for '{NAMES[0]}'"),
        ("three.csv", "cannot be parsed"),
        ("large.yaml", "expected at most 8,388,608 bytes"),
        ("by-nmae", "expected by-name, by-number or a file"),
        ("gone.yaml", "cannot be read"),
        ("list.json", "cannot be parsed"),
        ("wrong.json", "names 'kiwi', which is no class"),
    ):
        assert text in refused("eval", vit.folders[0], "--dataset", data, "--labels", name, code=2)


def test_doubles_between_splits_are_allowed_on_request(vit: Family, images: Any, alone: Path) -> None:
    """More than one in a hundred stops a bake, unless that is asked for: screen, card and record say so."""
    parquet({"validation": images["validation"], "test": images["validation"]}, alone / "d")
    words = (*vit.words[:2], "--dataset", "./d", "--output", "soup")
    assert "--allow-duplicates" in refused("bake", *words, code=1)
    done = run("bake", *words, "--allow-duplicates")
    assert done.code == 0, done.err
    assert "60 of 60 test images are also selection images" in done.err
    assert "60 of 60 test images are also selection images" in Path("soup/README.md").read_text()
    assert json.loads(Path("soup/soup.json").read_text())["options"]["allow_duplicates"] is True


def test_what_a_dataset_lacks_is_told_before_a_checkpoint_is_pulled(
    on_hub: Any, signed_in: Any, images: Any, alone: Path
) -> None:
    """Dataset, split, column, class list and metric: an error, and no weight file was requested."""
    import shutil

    from huggingface_hub import constants

    DatasetDict(
        {
            n: relabelled(images[n], list(NAMES)).cast_column("label", ClassLabel(names=list("abcdef")))
            for n in ("validation", "test")
        }
    ).push_to_hub("kit/others", token=signed_in.token)
    shutil.rmtree(constants.HF_HUB_CACHE, ignore_errors=True)
    tries = [
        (("--dataset", "kit/nothing"), "no such repository"),
        (("--dataset", "kit/others"), "class names are missing"),
        (("--dataset", "kit/shapes", "--split", "dev"), "there is no split 'dev'"),
        (("--dataset", "kit/shapes", "--image-column", "photo"), "there is no column 'photo'"),
        (("--dataset", "kit/shapes", "--label-column", "kind"), "there is no column 'kind'"),
        (("--dataset", "kit/shapes", "--metric", "acc"), "--metric accuracy"),
    ]
    for command in (
        ("bake", "kit/vit-1", "kit/vit-2"),
        ("bake", "kit/vit-1", "kit/vit-2", "--dry-run"),
        ("eval", "kit/vit-1"),
    ):
        for words, text in tries:
            on_hub.forget_requests()
            done = run(*command, *words)
            assert done.code in (1, 2)
            assert text in done.err, done.err
            whole = [r for r in on_hub.requests if "safetensors" in r.path and r.method == "GET" and r.status == 200]
            assert not whole


def test_a_matched_list_raises_for_what_rows_need() -> None:
    """The last word on a doubled name: both classes are named, and a mapping by number settles it."""
    with pytest.raises(MismatchError, match="ambiguous"):
        match_labels([FileLabels("d", [0], ("crane",))], ModelClasses(CRANES), where="d")
    found = match_labels([FileLabels("d", [0], ("crane",))], ModelClasses(CRANES, mapping={"crane": 3}), where="d")
    assert found.labels.tolist() == [3]
