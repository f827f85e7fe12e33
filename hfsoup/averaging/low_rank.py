"""The average of adapters as one adapter: ΔW of every layer by its largest singular values."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from hfsoup.averaging.averager import Averager
from hfsoup.averaging.mix import Mix
from hfsoup.averaging.writer import write_configs
from hfsoup.checkpoints.lora.config import CONFIG, PREFIX, WEIGHTS
from hfsoup.checkpoints.lora.merge import Array, compute_delta, merge_adapter, open_plan
from hfsoup.checkpoints.lora.plan import MergePlan
from hfsoup.checkpoints.safetensors_io import TensorFile, write_header
from hfsoup.checkpoints.types import AdapterParts, Ingredient, LowRankAdapter, Source, TensorSpec, describe_file
from hfsoup.ingredients.compatibility import check_compatibility
from hfsoup.ingredients.family import Family
from hfsoup.utils.cache import cached_folder
from hfsoup.utils.errors import MismatchError, SoupError, UsageError
from hfsoup.utils.hashing import hash_json
from hfsoup.utils.text import one_line
from hfsoup.utils.version import __version__

NAME = "the soup as an adapter"
ERRORS = "truncation.json"
Tensors = dict[str, tuple[str, tuple[int, ...], NDArray[Any]]]


@dataclass(frozen=True)
class Factors:
    """B·A in place of a layer's ΔW, as float32, with the squared norms of ΔW and of what is lost."""

    a: NDArray[np.float32]
    b: NDArray[np.float32]
    norm: float
    lost: float

    @property
    def error(self) -> float:
        """What is lost, relative to ΔW."""
        return _round_digits(sqrt(self.lost / self.norm)) if self.norm else 0.0


def require_adapters(family: Family, bn: str) -> None:
    """Check that a soup of these can be an adapter.

    Raises:
        MismatchError: an ingredient is no adapter, or two have different bases.
        UsageError: batch-norm statistics may be re-estimated, which an adapter cannot hold.
    """
    first = _require_adapter(family.reference)
    for ingredient in family.ingredients[1:]:
        if _list_base_hashes(_require_adapter(ingredient)) != _list_base_hashes(first):
            what = f"expected adapters on one base, {first.base}, found one on {_require_adapter(ingredient).base}"
            raise MismatchError(what, where=str(ingredient), hint="without --as-adapter the soup is a whole model")
    if family.has_batch_norm and bn != "average":
        raise UsageError("an adapter cannot contain batch-norm statistics", hint="--bn average")


def require_own_base(family: Family) -> None:
    """Check that the base that a soup may have a share of, if there is one, is the one that its adapters are on.

    Raises:
        MismatchError: it is another model.
    """
    own = _require_adapter(family.reference).base
    if family.base and sorted(w.blake3 for w in family.base.ingredient.weights) != sorted(
        w.blake3 for w in own.weights
    ):
        what = f"expected the base that the adapters are on, {own}, found {family.base.ingredient}"
        raise MismatchError(what, where="--base", hint="without --as-adapter the soup is a whole model")


def truncate(averager: Averager, mix: Mix, rank: int) -> LowRankAdapter:
    """The mix as an adapter of that rank on the ingredients' base, and the model that it gives.

    Singular values of the average ΔW = α Σ wᵢ·scalingᵢ·BᵢAᵢ in float64, with α = 1 − the base's share, computed by one
    thread so that the bytes do not depend on their number (Eckart and Young 1936, https://doi.org/10.1007/BF02288367).

    Args:
        averager: the ingredients, all of which pass `require_adapters`.
        mix: their coefficients.
        rank: the most singular values that a layer keeps.

    Raises:
        SoupError: a layer was trained whole in one ingredient and not in another, or biases were trained.
    """
    family, base = averager.family, _require_adapter(averager.family.reference).base
    members = [family.ingredients[i] for i in mix.members]
    sums = [i.content + [f.blake3 for f in i.files] for i in family.ingredients]
    shares = [mix.coefficients, mix.tensors, mix.base]
    key = hash_json(__version__, rank, shares, sums, family.orders, family.config, base.id)

    def build(folder: Path) -> None:
        with ExitStack() as stack, threadpool_limits(1):
            found = [
                stack.enter_context(open_plan(i.source, _require_adapter(i), _require_adapter(i).config.path.parent))
                for i in members
            ]
            _write_adapter(averager, mix, rank, [(plan, file) for plan, file, _ in found], folder)

    home = cached_folder("truncated", key, build)
    errors = json.loads((home / ERRORS).read_text(encoding="utf-8"))
    source = Source(NAME, None, home, base=base.source)
    ingredient = merge_adapter(source, home, describe_file(home / WEIGHTS[0]), base)
    return LowRankAdapter(home, ingredient, rank, **errors)


def append_member(family: Family, adapter: LowRankAdapter) -> tuple[Family, Mix]:
    """The family with the truncated soup as one more ingredient, and the mix of that alone."""
    whole = check_compatibility((*family.ingredients, adapter.ingredient))
    return whole, Mix.of((len(family),), len(whole))


def _write_adapter(
    averager: Averager, mix: Mix, rank: int, found: list[tuple[MergePlan, TensorFile]], folder: Path
) -> None:
    """Fill a folder with the adapter, its config, labels and image processor, and the errors."""
    family, plan, owns = averager.family, found[0][0], {k: v for p, _ in found for k, v in p.owns.items()}
    changed = sorted({name for p, _ in found for name in p.deltas})
    trained = sorted({name for p, _ in found for name in p.whole})
    modules = sorted({module for p, _ in found for module in p.adapter.modules_to_save})
    _require_separable(family, changed, trained, [owns[name] for name in trained], modules)
    tensors: Tensors = {}
    ranks, norms, worst, lost = {}, 0.0, (-1.0, ""), 0.0
    for name in changed:
        layer = owns[name].removesuffix(".weight")
        kind, shape = next((p.deltas[name].kind, p.deltas[name].shape) for p, _ in found if name in p.deltas)
        coefficients = [(1 - mix.base) * mix.at(name).coefficients[i] for i in mix.members]
        pairs = [
            (c, file, p.deltas[name]) for c, (p, file) in zip(coefficients, found, strict=True) if name in p.deltas
        ]
        total = np.zeros(shape)
        for coefficient, file, change in pairs:
            total += coefficient * compute_delta(file, change)
        factors = _factor_matrix(total.T if kind == "transposed" else total.reshape(shape[0], -1), rank, layer)
        ranks[layer] = len(factors.a)
        for half, matrix in zip("AB", _shape_factors(factors, kind, shape), strict=True):
            tensors[f"{PREFIX}{layer}.lora_{half}.weight"] = "F32", matrix.shape, matrix
        norms, lost = norms + factors.norm, lost + factors.lost
        worst = max(worst, (factors.error, layer), key=lambda pair: pair[0])
    for spec, block in _average_whole(averager, mix, trained):
        tensors[PREFIX + owns[spec.name]] = averager.stored_as(spec), spec.shape, block
    _write_tensors(tensors, folder / WEIGHTS[0])
    config = _make_config(_require_adapter(family.reference).base, rank, ranks, modules if trained else [])
    config["fan_in_fan_out"] = any(d.kind == "transposed" for d in plan.deltas.values())
    write_configs(family, folder, None)
    _write_json(folder / CONFIG, config)
    error = _round_digits(sqrt(lost / norms)) if norms else 0.0
    _write_json(folder / ERRORS, {"error": error, "worst": max(worst[0], 0.0), "layer": worst[1]})


def _require_separable(
    family: Family, changed: list[str], trained: list[str], owned: list[str], modules: list[str]
) -> None:
    """Refuse what an adapter of peft cannot represent."""
    if both := sorted(set(changed) & set(trained)):
        what = "not supported with --as-adapter: a layer that one ingredient trained whole and another by LoRA"
        raise MismatchError(what, where=f"tensor {one_line(both[0])}", hint="without it the soup is a whole model")
    for name in owned:
        if not any(name.rpartition(".")[0].endswith(m) or f"{m}." in name for m in modules):
            what = "not supported with --as-adapter: biases that were trained"
            raise SoupError(what, where=f"tensor {one_line(name)}", hint="without it the soup is a whole model")
    if any(name in family.class_axes for name in changed):
        what = "not supported with --as-adapter: LoRA on a head whose classes stand in different orders"
        raise MismatchError(what, hint="without it the soup is a whole model")


def _factor_matrix(matrix: Array, rank: int, layer: str) -> Factors:
    """The best approximation of `matrix` (rows × columns) of that rank, its two factors equally large."""
    if not np.isfinite(matrix).all():
        raise SoupError("expected finite weights, found NaN or infinity", where=f"layer {one_line(layer)}")
    left, values, right = np.linalg.svd(matrix, full_matrices=False)
    size = min(rank, len(values))
    left, right, roots = left[:, :size], right[:size], np.sqrt(values[:size])
    signs = np.where(left[np.abs(left).argmax(axis=0), np.arange(size)] < 0, -1.0, 1.0)
    b, a = (left * (signs * roots)).astype(np.float32), (right * (signs * roots)[:, None]).astype(np.float32)
    gap = matrix - b.astype(np.float64) @ a.astype(np.float64)
    return Factors(a, b, float(np.square(matrix).sum()), float(np.square(gap).sum()))


def _shape_factors(factors: Factors, kind: str, shape: tuple[int, ...]) -> tuple[NDArray[Any], NDArray[Any]]:
    """A and B in the shapes that peft gives them."""
    if kind != "convolution":
        return factors.a, factors.b
    return factors.a.reshape(-1, *shape[1:]), factors.b[:, :, None, None]


def _average_whole(averager: Averager, mix: Mix, names: list[str]) -> Iterator[tuple[TensorSpec, NDArray[Any]]]:
    """Tensors that were trained whole, averaged as in any soup, flat as stored."""
    for spec in (spec for spec in averager.family.tensors if spec.name in names):
        blocks: list[tuple[int, NDArray[Any]]] = []
        averager.average(mix, partial(_collect, blocks), [spec])
        yield spec, np.concatenate([block for _, block in sorted(blocks, key=lambda part: part[0])])


def _collect(blocks: list[tuple[int, NDArray[Any]]], _: TensorSpec, begin: int, block: NDArray[Any]) -> None:
    blocks.append((begin, block.copy()))


def _make_config(base: Ingredient, rank: int, ranks: Mapping[str, int], modules: list[str]) -> dict[str, Any]:
    """An adapter_config.json under which every layer's scaling is 1."""
    lower = {layer: size for layer, size in ranks.items() if size < rank}
    return {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": base.id,
        "revision": base.source.revision,
        "inference_mode": True,
        "r": rank,
        "lora_alpha": rank,
        "lora_dropout": 0.0,
        "use_rslora": False,
        "bias": "none",
        "rank_pattern": lower,
        "alpha_pattern": lower,
        "target_modules": sorted(ranks),
        "modules_to_save": modules or None,
    }


def _write_tensors(tensors: Tensors, path: Path) -> None:
    starts = write_header(path, [(name, dtype, shape) for name, (dtype, shape, _) in sorted(tensors.items())])
    with path.open("r+b") as file:
        for name, start in starts.items():
            file.seek(start)
            file.write(tensors[name][2].tobytes())


def _write_json(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _require_adapter(ingredient: Ingredient) -> AdapterParts:
    if ingredient.adapter is None:
        what = "expected an adapter, found a whole model"
        raise MismatchError(what, where=str(ingredient), hint="without --as-adapter they may be mixed")
    return ingredient.adapter


def _list_base_hashes(adapter: AdapterParts) -> list[str]:
    return sorted(w.blake3 for w in adapter.base.weights)


def _round_digits(value: float) -> float:
    """Six digits: what comes after them depends on the machine."""
    return float(f"{value:.6g}")
