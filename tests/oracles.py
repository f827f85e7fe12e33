"""Other implementations of the merges, and the small input on which they were recorded in data/merges.json.

`scripts/test --oracles` installs them and compares again; run as a program it writes the record.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

DATA = Path(__file__).parent / "data" / "merges.json"
SHAPES = {"large": (4, 6), "small": (3, 5)}
SIZES = {"large": 0.3, "small": 0.01}
DENSITY, OUTLIERS, SCALE = 0.4, 0.1, 0.3
State = dict[str, torch.Tensor]


def given(count: int = 3) -> tuple[State, list[State]]:
    """A base and what was made of it: two tensors in float64, the second changed much less than the first."""
    base, members = {}, [{} for _ in range(count)]
    for name, shape in SHAPES.items():
        at = torch.arange(1, shape[0] * shape[1] + 1, dtype=torch.float64)
        base[name] = torch.cos(0.7 * at).reshape(shape)
        for n, member in enumerate(members):
            change = torch.sin(1.3 * at + 0.8 * n) + 0.5 * torch.sin((n + 2) * at)
            member[name] = base[name] + SIZES[name] * change.reshape(shape)
    return base, members


def told(kind: str, count: int = 3) -> list[State]:
    """What a merge might be told of each of them, in float64: Fisher diagonals, or Gram matrices of 40 rows."""
    found: list[State] = [{} for _ in range(count)]
    for name, shape in SHAPES.items():
        for n, member in enumerate(found):
            if kind == "fisher":
                at = torch.arange(1, shape[0] * shape[1] + 1, dtype=torch.float64)
                member[name] = (n + 1) * torch.sin((0.9 + 0.2 * n) * at).square().reshape(shape)
            else:
                at = torch.arange(1, 40 * shape[1] + 1, dtype=torch.float64)
                rows = torch.cos((1.7 + 0.3 * n) * at).reshape(40, shape[1])
                member[name] = rows.T @ rows / 40
    return found


def mergekit(method: str, base: bool, count: int, **parameters: Any) -> State:
    """mergekit's merge, tensor by tensor."""
    from mergekit.merge_methods.api import merge_tensors

    start, members = given(count)
    states = [start, *members] if base else members
    index = 0 if base or method == "slerp" else None
    return {
        name: merge_tensors([s[name] for s in states], method, parameters=parameters, base_index=index)
        for name in SHAPES
    }


def fusion_bench_ties() -> State:
    """fusion-bench's TIES, over all tensors at once."""
    base, members = given()
    first = torch.cat([base[name].ravel() for name in SHAPES])
    tasks = torch.stack([torch.cat([m[name].ravel() for name in SHAPES]) - first for m in members])
    found = first + _file("method/ties_merging/ties_merging_utils.py").ties_merging(
        tasks, reset_thresh=100 * DENSITY, merge_func="dis-mean"
    )
    sizes = [shape[0] * shape[1] for shape in SHAPES.values()]
    parts = zip(SHAPES.items(), found.split(sizes), strict=True)
    return {name: part.reshape(shape) for (name, shape), part in parts}


def fusion_bench_slerp() -> State:
    """fusion-bench's spherical interpolation of two, half way."""
    _, (a, b) = given(2)
    slerp = _file("method/slerp/slerp_utils.py").slerp
    return {name: torch.as_tensor(slerp(0.5, a[name], b[name])) for name in SHAPES}


def fusion_bench_fisher(*, as_it_is: bool) -> State:
    """fusion-bench's weighting by Fisher diagonals, as it is or without what it adds to and divides by their sizes."""
    _, members = given()
    more = {} if as_it_is else {"normalize_fisher_weight": False, "minimal_fisher_weight": 0.0}
    merged = _file("method/fisher_merging/fisher_merging.py").merging_with_fisher_weights
    params = {name: [m[name] for m in members] for name in SHAPES}
    return dict(merged(params, told("fisher"), torch.full((3,), 1 / 3, dtype=torch.float64), **more))


def fusion_bench_regmean() -> State:
    """fusion-bench's RegMean with the paper's 0.9 off the diagonal."""
    _, members = given()
    merged = _file("method/regmean/regmean.py").merging_with_regmean_weights
    params = {f"{name}.weight": [m[name] for m in members] for name in SHAPES}
    found = merged(params, told("gram"), reduce_non_diagonal_ratio=0.9)
    return {name.removesuffix(".weight"): tensor for name, tensor in found.items()}


class _Nothing:
    """What fusion-bench's classes are derived from, where only its functions are wanted."""


def _stubs() -> dict[str, ModuleType]:
    """What the files that are read ask of the rest of fusion-bench."""
    parts = {
        "fusion_bench.utils.type": {"StateDictType": dict},
        "fusion_bench.method": {"BaseAlgorithm": _Nothing},
        "fusion_bench.mixins": {"SimpleProfilerMixin": type("_Mixin", (), {}), "auto_register_config": lambda c: c},
        "fusion_bench.modelpool": {"BaseModelPool": _Nothing},
        "fusion_bench.method.utils": {"get_modules_to_merge": None, "get_param_names_to_merge": None},
    }
    found = {name: ModuleType(name) for name in ("fusion_bench", "fusion_bench.utils", *parts)}
    for name, values in parts.items():
        vars(found[name]).update(values)
    return found


def _file(path: str) -> ModuleType:
    """One file of fusion-bench: importing all of it would need what it does not install without dependencies."""
    found = importlib.util.find_spec("fusion_bench")
    if found is None or not found.submodule_search_locations:
        raise ImportError("fusion_bench")
    stubs = _stubs()
    before = {name: sys.modules.get(name) for name in stubs}
    sys.modules.update(stubs)
    # As if it lay beside the stub of its neighbour.
    file = Path(found.submodule_search_locations[0]) / path
    spec = importlib.util.spec_from_file_location("fusion_bench.method.foreign", file)
    if spec is None or spec.loader is None:
        raise ImportError(path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name, old in before.items():
        sys.modules.pop(name)
        if old is not None:
            sys.modules[name] = old
    return module


ORACLES: dict[str, Callable[[], State]] = {
    "mergekit linear": lambda: mergekit("linear", False, 3, weight=1.0),
    "mergekit slerp": lambda: mergekit("slerp", False, 2, t=0.5),
    "mergekit karcher": lambda: mergekit("karcher", False, 3, max_iter=100, tol=1e-9),
    "mergekit task_arithmetic": lambda: mergekit("task_arithmetic", True, 3, weight=1.0, **{"lambda": SCALE}),
    "mergekit ties": lambda: mergekit("ties", True, 3, weight=1.0, density=DENSITY),
    "mergekit breadcrumbs": lambda: mergekit(
        "breadcrumbs", True, 3, weight=1.0, density=DENSITY, gamma=OUTLIERS, **{"lambda": SCALE}
    ),
    "mergekit model_stock": lambda: mergekit("model_stock", True, 3),
    "fusion-bench ties": fusion_bench_ties,
    "fusion-bench slerp": fusion_bench_slerp,
    "fusion-bench fisher": lambda: fusion_bench_fisher(as_it_is=False),
    "fusion-bench fisher, as it is": lambda: fusion_bench_fisher(as_it_is=True),
    "fusion-bench regmean": fusion_bench_regmean,
}


if __name__ == "__main__":
    found = {name: {k: v.ravel().tolist() for k, v in run().items()} for name, run in ORACLES.items()}
    DATA.write_text(json.dumps(found, indent=1) + "\n")
