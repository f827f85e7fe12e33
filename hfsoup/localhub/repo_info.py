"""What a Hub reads from a repo's files: the card's metadata, tags, task, library, size of the weights."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any

import pygit2
import yaml

from hfsoup.localhub.cards import RELATIONS, CardError, split_card
from hfsoup.localhub.contents import Entry, find_entry, read_blob, read_text, walk
from hfsoup.localhub.lfs import LfsStore, read_range
from hfsoup.localhub.store import Repo, timestamp

_MAX_HEADER = 25 << 20
_TASKS = {
    "ForImageClassification": "image-classification",
    "ForSequenceClassification": "text-classification",
    "ForTokenClassification": "token-classification",
    "ForQuestionAnswering": "question-answering",
    "ForMaskedLM": "fill-mask",
    "ForCausalLM": "text-generation",
    "LMHeadModel": "text-generation",
    "ForConditionalGeneration": "text2text-generation",
    "ForObjectDetection": "object-detection",
    "ForSemanticSegmentation": "image-segmentation",
    "ForAudioClassification": "audio-classification",
    "ForCTC": "automatic-speech-recognition",
}
_PREFIXED = (
    *("license", "base_model", "language", "size_categories", "task_categories", "task_ids", "multilinguality"),
    *("annotations_creators", "language_creators", "source_datasets"),
)


def describe_repo(repo: Repo, commit: pygit2.Commit, lfs: LfsStore, *, blobs: bool = False) -> dict[str, Any]:
    """All fields of a repo's info, with its list of files."""
    return {**summarize_repo(repo, commit, lfs), "siblings": _siblings(repo, commit, blobs=blobs), "spaces": []}


def summarize_repo(repo: Repo, commit: pygit2.Commit, lfs: LfsStore) -> dict[str, Any]:
    """The fields of a repo's info, without the list of files."""
    meta, name = repo.meta, repo.name
    known: dict[str, Any] = {
        "_id": meta.identifier,
        "id": name.id,
        "author": name.namespace,
        "sha": str(commit.id),
        "private": meta.visibility == "private",
        "visibility": meta.visibility,
        "gated": meta.gated,
        "disabled": meta.disabled,
        "createdAt": meta.created,
        "lastModified": timestamp(commit.commit_time),
        "downloads": 0,
        "downloadsAllTime": 0,
        "likes": 0,
        "trendingScore": 0,
        "usedStorage": lfs.used(repo.path),
        **_read_files(repo.path, meta.identifier, name.kind, str(commit.id), lfs),
    }
    if name.kind == "models":
        known["modelId"] = name.id
    if name.kind == "spaces":
        known["sdk"] = known["cardData"].get("sdk") or meta.sdk
        known["subdomain"] = name.id.replace("/", "-").lower()
        known |= {key: _list(known["cardData"].get(key)) for key in ("models", "datasets")}
    return known


# Files of a commit never change.
@lru_cache(maxsize=1000)
def _read_files(place: Path, _identifier: str, kind: str, oid: str, lfs: LfsStore) -> dict[str, Any]:
    git = pygit2.Repository(str(place))
    commit = git[oid].peel(pygit2.Commit)
    try:
        card, _ = split_card(read_text(git, commit, "README.md"))
    except CardError:
        card = {}
    found: dict[str, Any] = {"cardData": json.loads(json.dumps(card, default=str))}
    task, library = card.get("pipeline_tag"), card.get("library_name")
    if kind == "models":
        config = _json(read_text(git, commit, "config.json"))
        architectures = config.get("architectures") or []
        if config:
            found["config"] = {key: config[key] for key in ("architectures", "model_type", "auto_map") if key in config}
            library = library or ("transformers" if "model_type" in config else None)
        task = task or next((tag for end, tag in _TASKS.items() if str(architectures[:1]).endswith(f"{end}']")), None)
        bases = _list(card.get("base_model"))
        if bases:
            relation = _find_relation(card, bases, library)
            found["baseModels"] = {"relation": relation, "models": [{"id": str(base)} for base in bases]}
        if card.get("model-index"):
            found["model-index"] = found["cardData"]["model-index"]
        found["evalResults"] = list(_read_results(git, commit))
        if weights := _count_parameters(git, commit, place, lfs):
            found["safetensors"] = weights
    found.update({key: value for key, value in (("pipeline_tag", task), ("library_name", library)) if value})
    found["tags"] = _list_tags(card, found, task, library)
    return found


def _read_results(git: pygit2.Repository, commit: pygit2.Commit) -> Iterator[dict[str, Any]]:
    """The results in `.eval_results/*.yaml`; of a file that the Hub would refuse, why."""
    folder = find_entry(git, commit, ".eval_results")
    if folder is None or folder.is_file:
        return
    for entry in walk(git, folder.oid, ".eval_results", recursive=False):
        if not entry.path.endswith(".yaml"):
            continue
        try:
            every = yaml.safe_load(read_text(git, commit, entry.path))
            for one in every:
                if not {"id", "task_id"} <= one["dataset"].keys() or "value" not in one:
                    raise ValueError("expected dataset.id, dataset.task_id and value")
                yield {"filename": entry.path, "verified": False, "data": json.loads(json.dumps(one, default=str))}
        except (yaml.YAMLError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            yield {"filename": entry.path, "error": str(error)}


def _list_tags(card: dict[str, Any], found: dict[str, Any], task: Any, library: Any) -> list[str]:
    extra = [library, "safetensors" if "safetensors" in found else None, found.get("config", {}).get("model_type")]
    tags = [*extra, *_list(card.get("tags")), task]
    tags += [f"dataset:{value}" for value in _list(card.get("datasets"))]
    tags += [f"{key}:{value}" for key in _PREFIXED for value in _list(card.get(key))]
    bases = found.get("baseModels", {"models": []})
    tags += [f"base_model:{bases['relation']}:{base['id']}" for base in bases["models"]]
    tags += [*_list(card.get("language")), "region:us"]
    return list(dict.fromkeys(str(tag) for tag in tags if tag))


def _find_relation(card: dict[str, Any], bases: list[Any], library: Any) -> str:
    """How a model comes from its base models: what the card says, else what the Hub would guess."""
    relation, tags = str(card.get("base_model_relation") or ""), {str(tag) for tag in _list(card.get("tags"))}
    if relation in RELATIONS:
        return relation
    if library == "peft" or "lora" in tags or "adapter" in tags:
        return "adapter"
    if len(bases) > 1 or "merge" in tags:
        return "merge"
    return "quantized" if {"gguf", "gptq", "awq", "quantized"} & tags else "finetune"


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _json(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text or "{}")
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _siblings(repo: Repo, commit: pygit2.Commit, *, blobs: bool) -> list[dict[str, Any]]:
    found = []
    for entry in walk(repo.git, str(commit.tree_id), "", recursive=True):
        if entry.is_file:
            item: dict[str, Any] = {"rfilename": entry.path}
            if blobs:
                item |= {"size": entry.size, "blobId": entry.oid}
                if entry.lfs:
                    pointer = entry.lfs
                    item["lfs"] = {"sha256": pointer.oid, "size": pointer.size, "pointerSize": pointer.pointer_size}
            found.append(item)
    return found


def _count_parameters(git: pygit2.Repository, commit: pygit2.Commit, place: Path, lfs: LfsStore) -> dict[str, Any]:
    """Count of parameters by dtype, from the headers of the weights."""
    index = _json(read_text(git, commit, "model.safetensors.index.json"))
    shards = index.get("weight_map")
    names = sorted(set(map(str, shards.values()))) if isinstance(shards, dict) else ["model.safetensors"]
    counts: Counter[str] = Counter()
    for name in names:
        entry = find_entry(git, commit, name)
        if entry and entry.is_file:
            counts.update(_read_dtypes(_read_header(git, entry, place, lfs)))
    return {"parameters": dict(counts), "total": sum(counts.values())} if counts else {}


def _read_header(git: pygit2.Repository, entry: Entry, place: Path, lfs: LfsStore) -> bytes:
    """The JSON at the start of a safetensors file; empty if it is absent or too large."""

    def read(start: int, stop: int) -> bytes:
        if entry.lfs is None:
            return read_blob(git, entry.oid)[start:stop]
        return b"".join(read_range(lfs.path(entry.lfs.oid), start, stop)) if lfs.has(place, entry.lfs.oid) else b""

    length = int.from_bytes(read(0, 8), "little")
    return read(8, 8 + length) if length <= _MAX_HEADER else b""


def _read_dtypes(header: bytes) -> Counter[str]:
    counts: Counter[str] = Counter()
    try:
        for name, tensor in json.loads(header).items():
            if name != "__metadata__":
                counts[tensor["dtype"]] += prod(tensor["shape"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return Counter()
    return counts
