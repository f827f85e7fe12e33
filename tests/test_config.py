"""A bake as a YAML file: the bytes of the command, errors with a line, flags that win, one text in card and record."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from family import Family
from shell import bake, refused, run

import hfsoup
from hfsoup.options.options import option_fields


def write(text: str) -> str:
    Path("soup.yaml").write_text(text)
    return "soup.yaml"


def test_a_file_bakes_what_the_command_bakes(vit: Family, data: Path, alone: Path) -> None:
    """The saved config gives the same weights and scores, from the shell and from Python, and flags win over it."""
    words = [*vit.words, "--dataset", data, "--recipe", "pruned"]
    told = bake(*words, "--output", "told", "--save-config", "soup.yaml")
    Path("soup.yaml").write_text(Path("soup.yaml").read_text().replace("output: told\n", ""))
    filed = bake("soup.yaml", "--output", "filed")
    assert filed["recipe"] == "pruned"
    assert {**filed["soup"], "path": "told"} == told["soup"]
    assert bake("soup.yaml", "--recipe", "uniform", "--output", "won")["recipe"] == "uniform"
    assert hfsoup.bake("soup.yaml").score == told["soup"]["score"]


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("ingredients: [a]\nrecipee: greedy\n", 2, "there is no option 'recipee'"),
        ("ingredients: [a]\n\nseed: many\n", 3, "seed: expected a valid integer, found 'many'"),
        ("ingredients:\n  - a\n  - 3\n", 3, "ingredients: expected a valid string, found '3'"),
        ("ingredients: [a]\nseed: 1\nbn: magic\n", 3, "bn must be one of average, recalibrate, auto, found 'magic'"),
        ("ingredients: [a]\nbatch-size: 0\n", 2, "batch-size must be at least 1"),
        ("ingredients: [a]\nseed: 1\nseed: 2\n", 3, "seed is given twice, first in line 2"),
        ("ingredients: [a]\nrecipe: [\n", 3, "this is not YAML"),
        ("ingredients: [a]\naccept: !!python/name:os.system x\n", 2, "this is not YAML"),
    ],
    ids=["unknown", "type", "item", "value", "dash", "double", "broken", "tag"],
)
def test_what_is_wrong_is_named_with_its_line(text: str, line: int, said: str, alone: Path) -> None:
    """File and line stand in the error, and nothing is written."""
    block = refused("bake", write(text), code=2)
    assert said in block
    assert f"soup.yaml, line {line}\n" in block
    assert [path.name for path in alone.iterdir()] == ["soup.yaml"]


@pytest.mark.parametrize("text", ["", "- a\n", "recipe: greedy\n", "ingredients: []\n"])
def test_a_file_without_ingredients_is_refused(text: str, alone: Path) -> None:
    """Whatever else it holds."""
    assert "ingredients" in refused("bake", write(text), code=2)


def test_a_flag_mends_what_the_file_says(vit: Family, alone: Path) -> None:
    """An option of the file that a flag replaces is not held against it."""
    write(f"ingredients: [{vit.words[0]}, {vit.words[1]}]\nrecipe: gredy\n")
    assert "gredy" in refused("bake", "soup.yaml", code=2)
    assert bake("soup.yaml", "--recipe", "uniform")["recipe"] == "uniform"


def test_init_explains_every_option(vit: Family, alone: Path) -> None:
    """Each stands there with its words and default, commented out, and the file bakes as it is."""
    assert run("init", *vit.words, "-o", "mine.yml").code == 0
    text = Path("mine.yml").read_text()
    assert yaml.safe_load(text) == {"ingredients": vit.words}
    assert yaml.safe_load(re.sub(r"(?m)^# (\w+: )", r"\1", text.split("\n\n", 1)[1])) == {
        f.name: f.default for f in option_fields()
    }
    assert all(f.metadata["help"].split()[0] in text for f in option_fields())
    assert bake("mine.yml")["recipe"] == "uniform"
    assert "exists already" in refused("init", "org/other", "-o", "mine.yml", code=1)


def test_init_takes_the_flags_of_a_bake(vit: Family, data: Path, alone: Path) -> None:
    """Those that are given are in the file, which bakes as the flags do; data stands before search, each group once."""
    flags = ["--dataset", data, "--recipe", "pruned", "--merge", "slerp", "--push", "kit/new"]
    done = run("init", *vit.words, *flags)
    assert done.err == "wrote soup.yaml; bake it with: hfsoup bake soup.yaml --push kit/new\n"
    text = Path("soup.yaml").read_text()
    chosen = {"dataset": str(data), "recipe": "pruned", "merge": "slerp", "push": "kit/new"}
    assert yaml.safe_load(text) == {"ingredients": vit.words, **chosen}
    groups = ["Ingredients", "Data", "Search", "Weights", "Compute", "Report", "Result"]
    assert re.findall(r"# (\w+) -{20}", text) == groups
    assert "try: --merge ties" in refused("init", *vit.words, "--recipe", "ties", "-o", "other.yaml", code=2)
    assert not Path("other.yaml").exists()


def test_card_and_record_hold_the_config_and_no_path(vit: Family, data: Path, alone: Path) -> None:
    """One text in both, of the options that were changed; one that was tampered with does not verify."""
    bake(*vit.words, "--dataset", data, "--passes", "2", "--output", "soup")
    record = json.loads(Path("soup/soup.json").read_text())
    assert f"```yaml\n{record['config']}```" in Path("soup/README.md").read_text()
    names = [folder.name for folder in vit.folders]
    assert yaml.safe_load(record["config"]) == {"ingredients": names, "passes": 2, "dataset": data.name}
    for config, code in ((None, 0), ("ingredients: [evil/model]\n", 1)):
        Path("soup/soup.json").write_text(json.dumps({**record, "config": config}))
        assert run("verify", "soup").code == code


def test_a_record_without_a_config_still_verifies(vit: Family, alone: Path) -> None:
    """As earlier versions wrote it."""
    bake(*vit.words, "--output", "soup")
    record = json.loads(Path("soup/soup.json").read_text())
    del record["config"]
    Path("soup/soup.json").write_text(json.dumps(record))
    done = run("verify", "soup")
    assert done.code == 0, done.err
