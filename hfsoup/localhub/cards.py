"""The metadata at the top of a README: reading it, and what the Hub finds wrong with it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import yaml

_FRONT = re.compile(r"\A\ufeff?\s*---[ \t]*\r?\n(.*?)(?:\r?\n)?---[ \t]*(?:\r?\n|\Z)", re.DOTALL)
SDKS = ("gradio", "streamlit", "docker", "static")
# https://huggingface.co/docs/hub/repositories-licenses
_NAMES = (
    "apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m bigscience-bloom-rail-1.0 "
    "bigcode-openrail-m afl-3.0 artistic-2.0 bsl-1.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear c-uda cc "
    "cc0-1.0 cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0 "
    "cc-by-nc-4.0 cc-by-nd-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 "
    "cdla-sharing-1.0 cdla-permissive-1.0 cdla-permissive-2.0 wtfpl ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 "
    "eupl-1.2 agpl-3.0 gfdl gpl gpl-2.0 gpl-3.0 lgpl lgpl-2.1 lgpl-3.0 isc h-research intel-research lppl-1.3c "
    "ms-pl apple-ascl apple-amlr mpl-2.0 odc-by odbl openmdw-1.0 openrail++ osl-3.0 postgresql ofl-1.1 ncsa "
    "unlicense zlib pddl lgpl-lr deepfloyd-if-license fair-noncommercial-research-license llama2 llama3 llama3.1 "
    "llama3.2 llama3.3 llama4 grok2-community gemma unknown other"
)
LICENSES = tuple(_NAMES.split())


class CardError(ValueError):
    """The metadata cannot be read."""


def split_card(text: str) -> tuple[dict[str, Any], str]:
    """The YAML block a README starts with ({} if it has none) and what follows it; CardError if it cannot be read."""
    found = _FRONT.match(text)
    if found is None:
        return {}, text
    try:
        data = yaml.safe_load(found[1])
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise CardError(f"YAML Metadata Error: {error}") from error
    if data is not None and not isinstance(data, dict):
        raise CardError("YAML Metadata Error: expected keys and values")
    return {str(key): value for key, value in (data or {}).items()}, text[found.end() :]


def check_card(text: str, kind: str) -> tuple[list[str], list[str]]:
    """Errors for which the Hub refuses a README of a `model`, `dataset` or `space`, and warnings."""
    try:
        data, _ = split_card(text)
    except CardError as error:
        return [str(error)], []
    if not data:
        return [], ["empty or missing yaml metadata in repo card"]
    return [problem for key, check in _CHECKS.items() if key in data for problem in check(data[key], key)] + (
        list(_check_sdk(data.get("sdk"))) if kind == "space" else []
    ), []


def _check_licence(value: Any, key: str) -> Iterator[str]:
    if any(item not in LICENSES for item in (value if isinstance(value, list) else [value])):
        yield f'"{key}" must be one of [{", ".join(sorted(LICENSES))}]'


def _check_texts(value: Any, key: str) -> Iterator[str]:
    """A text or a list of texts; the Hub takes an empty value for none."""
    for item in value if isinstance(value, list) else [value]:
        if item is not None and not isinstance(item, str):
            yield f'"{key}" must be a string or an array of strings'


def _check_list(value: Any, key: str) -> Iterator[str]:
    if value is not None and not isinstance(value, list):
        yield f'"{key}" must be an array'
    else:
        yield from _check_texts(value, key)


def _check_language(value: Any, key: str) -> Iterator[str]:
    for item in value if isinstance(value, list) else [value]:
        # YAML reads the Norwegian `no` as a boolean.
        if item is not None and (not isinstance(item, str) or item != item.lower()):
            yield f'"{key}" must only contain lowercase characters, found {item!r}'


def _check_text(value: Any, key: str) -> Iterator[str]:
    if value is not None and not isinstance(value, str):
        yield f'"{key}" must be a string'


def _check_relation(value: Any, key: str) -> Iterator[str]:
    if value not in RELATIONS:
        yield f'"{key}" must be one of [{", ".join(RELATIONS)}]'


def _check_sdk(value: Any) -> Iterator[str]:
    if value not in SDKS:
        yield f'"sdk" must be one of [{", ".join(SDKS)}]'


def _check_index(value: Any, key: str) -> Iterator[str]:
    """Each model has a name and results; each result a task, a dataset and metrics."""
    if not isinstance(value, list):
        yield f'"{key}" must be an array'
        return
    for at, model in enumerate(value):
        where = f"{key}[{at}]"
        yield from _need(model, where, name=str, results=list)
        for number, result in enumerate(model["results"] if _holds(model, "results", list) else []):
            place = f"{where}.results[{number}]"
            yield from _need(result, place, task=dict, metrics=list)
            for part, fields in (("task", ("type",)), ("dataset", ("type", "name"))):
                if _holds(result, part, dict):
                    yield from _need(result[part], f"{place}.{part}", **dict.fromkeys(fields, str))
            for index, metric in enumerate(result["metrics"] if _holds(result, "metrics", list) else []):
                yield from _need(metric, f"{place}.metrics[{index}]", type=str, value=object)


def _need(found: Any, where: str, **fields: type) -> Iterator[str]:
    for field, kind in fields.items():
        if not _holds(found, field, kind):
            yield f'"{where}.{field}" is required'


def _holds(value: Any, field: str, kind: type) -> bool:
    return isinstance(value, dict) and value.get(field) is not None and isinstance(value[field], kind)


RELATIONS = ("finetune", "adapter", "merge", "quantized")
_CHECKS: dict[str, Callable[[Any, str], Iterator[str]]] = {
    "license": _check_licence,
    "license_name": _check_text,
    "language": _check_language,
    "tags": _check_list,
    "datasets": _check_texts,
    "metrics": _check_texts,
    "base_model": _check_texts,
    "base_model_relation": _check_relation,
    "pipeline_tag": _check_text,
    "library_name": _check_text,
    "model-index": _check_index,
}
