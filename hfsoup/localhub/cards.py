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
    errors = [error for key in _RULES if key in data for error in _check(data[key], key)]
    if "model-index" in data:
        errors += _check_index(data["model-index"], "model-index")
    if kind == "space" and data.get("sdk") not in SDKS:
        errors.append(f'"sdk" must be one of [{", ".join(SDKS)}]')
    return errors, []


def _check(value: Any, key: str) -> Iterator[str]:
    for split, is_valid, message in _RULES[key]:
        for item in split(value):
            if not is_valid(item):
                yield f'"{key}" {message.format(item)}'


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


def _whole(value: Any) -> list[Any]:
    return [value]


def _items(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _is_text(value: Any) -> bool:
    return value is None or isinstance(value, str)


RELATIONS = ("finetune", "adapter", "merge", "quantized")
# For each key: what is checked (the value or its items), how, and the error. The Hub takes an empty value for none, and
# YAML reads the language `no` as a boolean.
_Rule = tuple[Callable[[Any], list[Any]], Callable[[Any], bool], str]
_TEXT: _Rule = (_whole, _is_text, "must be a string")
_TEXTS: _Rule = (_items, _is_text, "must be a string or an array of strings")
_RULES: dict[str, list[_Rule]] = {
    "license": [
        (
            _whole,
            lambda value: all(item in LICENSES for item in _items(value)),
            f"must be one of [{', '.join(sorted(LICENSES))}]",
        )
    ],
    "license_name": [_TEXT],
    "language": [
        (
            _items,
            lambda item: _is_text(item) and item == (item and item.lower()),
            "must only contain lowercase characters, found {!r}",
        )
    ],
    "tags": [(_whole, lambda value: value is None or isinstance(value, list), "must be an array"), _TEXTS],
    "datasets": [_TEXTS],
    "metrics": [_TEXTS],
    "base_model": [_TEXTS],
    "base_model_relation": [(_whole, RELATIONS.__contains__, f"must be one of [{', '.join(RELATIONS)}]")],
    "pipeline_tag": [_TEXT],
    "library_name": [_TEXT],
}
