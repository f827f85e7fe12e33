"""Every kind of bake, once: the list that tests of kills, full disks, threads, processes and `verify` walk.

A new recipe or merge is in it by itself.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from family import Family, write_parquet
from peft import LoraConfig, get_peft_model
from several import make_multi, make_several
from timm_models import make_timm
from transformers import AutoModelForImageClassification

from hfsoup.merges import MERGES
from hfsoup.recipes import RECIPES

LORA = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"], "modules_to_save": ["classifier"]}


@dataclass(frozen=True)
class Kind:
    """A kind of bake: of which models, and the words after them; `BASE` and `DATA` stand for a folder of theirs."""

    name: str
    models: str
    words: tuple[str, ...]


DATA, BASE = "DATA", "BASE"
SCORED = ("--dataset", DATA)
UNIFORM = ("--recipe", "uniform", *SCORED)
MODES = (
    Kind("align", "resnet", ("--align", "weights")),
    Kind("align and fit", "resnet", ("--align", "activations", "--fit", *UNIFORM)),
    Kind("distill", "vit", ("--distill", "1", *SCORED)),
    Kind("distill with batch norms", "resnet", ("--distill", "1", *SCORED)),
    Kind("as an adapter", "lora", ("--as-adapter", "4", *UNIFORM)),
    Kind("adapters", "lora", SCORED),
    Kind("shifts", "vit", ("--shifts", *UNIFORM)),
    Kind("another dataset", "vit", ("--eval", f"other={DATA}", "--allow-duplicates", *UNIFORM)),
    Kind("ensemble", "resnet", ("--ensemble", *UNIFORM)),
    Kind("figures", "vit", ("--figures", "--figure-line", *SCORED)),
    Kind("learned, per tensor", "resnet", ("--recipe", "learned", "--per-tensor", *SCORED)),
    Kind("greedy, batch norms", "resnet", ("--recipe", "greedy", "--bn", "recalibrate", *SCORED)),
    Kind("bfloat16", "vit", ("--dtype", "bfloat16", *UNIFORM)),
    Kind("multi-label", "multi", SCORED),
    Kind("multi-label, distill", "multi", ("--distill", "1", *SCORED)),
    Kind("pickles", "pickles", SCORED),
    Kind("timm", "timm", SCORED),
)


def _list_kinds() -> Iterator[Kind]:
    for recipe in RECIPES:
        budget = ("--budget", "3") if any(p.name == "budget" for p in recipe.parameters) else ()
        yield Kind(f"recipe {recipe.name}", "vit", ("--recipe", recipe.name, *_base(recipe), *budget, *SCORED))
    for merge in MERGES:
        data = UNIFORM if merge.importance else ()
        yield Kind(f"merge {merge.name}", "resnet", ("--merge", merge.name, *_base(merge), *data))
    yield from MODES


def _base(entry: Any) -> tuple[str, ...]:
    return ("--base", BASE) if entry.needs_base else ()


KINDS = tuple(_list_kinds())


def each_kind(few: int, *, in_suite: int = 1, in_soak: int = 1) -> Any:
    """Parametrize a test by `kind` and `times`: `few` of all kinds in the ordinary suite, all of them in --soak."""
    chosen = random.Random(few).sample(KINDS, few)
    cases = [(kind, in_suite, []) for kind in chosen] + [(kind, in_soak, [pytest.mark.soak]) for kind in KINDS]
    found = []
    for kind, times, marks in cases:
        own = [pytest.mark.timm] if kind.models == "timm" else []
        name = f"{kind.name}, all" if marks else kind.name
        found.append(pytest.param(kind, times, marks=[*marks, *own], id=name))
    return pytest.mark.parametrize(("kind", "times"), found)


class Kitchen:
    """The models and images of every kind, made when the first bake needs them.

    Args:
        request: gives the families that other tests have too.
        folder: where further models go.
    """

    def __init__(self, request: pytest.FixtureRequest, folder: Path) -> None:
        self._request, self._folder = request, folder

    def words(self, kind: Kind) -> list[str]:
        """What follows `hfsoup bake` for a kind."""
        family = self._models(kind.models)
        data = self._multi_data() if kind.models == "multi" else self._request.getfixturevalue("data")
        places = {DATA: str(data), BASE: family.words[0], f"other={DATA}": f"other={data}"}
        members = family.words[1:] if BASE in kind.words else family.words
        return [*members, *(places.get(word, word) for word in kind.words)]

    def _models(self, name: str) -> Family:
        folder = self._folder / name
        if name in ("vit", "resnet"):
            found: Family = self._request.getfixturevalue(name)
            return found
        if name == "timm":
            return self._made(folder, lambda: make_timm("resnet", "timm", folder))
        start: Family = self._request.getfixturevalue("vit")
        if name == "multi":
            return self._made(folder, lambda: make_multi(start, make_several(), folder))
        make = {"lora": _make_adapter, "pickles": _make_pickle}[name]
        return self._made(folder, lambda: [make(start, n, folder / f"{name}-{n}") for n in range(3)])

    def _made(self, folder: Path, make: Any) -> Family:
        if not folder.exists():
            make()
        return Family(folder.name, tuple(sorted(folder.iterdir())))

    def _multi_data(self) -> Path:
        folder = self._folder / "multi-data"
        return folder if folder.exists() else write_parquet(make_several(), folder)


def _make_adapter(start: Family, n: int, target: Path) -> None:
    """An adapter on the first model, whose trained tensors are disturbed."""
    import torch

    model = get_peft_model(AutoModelForImageClassification.from_pretrained(start.folders[0]), LoraConfig(**LORA))
    torch.manual_seed(n)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.04 * torch.randn_like(parameter)
    model.save_pretrained(target)


def _make_pickle(start: Family, n: int, target: Path) -> None:
    """A model whose weights are a pickle."""
    import shutil

    import torch
    from safetensors.torch import load_file

    shutil.copytree(start.folders[n], target)
    torch.save(load_file(target / "model.safetensors"), target / "pytorch_model.bin")
    (target / "model.safetensors").unlink()
