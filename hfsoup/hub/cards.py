"""The front matter of model and dataset cards, and the names of files beside the weights of a soup."""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import quote

import yaml

from hfsoup.hub.client import hub_address
from hfsoup.utils.safe_yaml import MAX_NODES, require_plain_yaml
from hfsoup.utils.text import one_line

LICENSE = r"[a-z0-9][a-z0-9.+-]{0,63}"
"""The form of a licence identifier."""
# https://huggingface.co/docs/hub/repositories-licenses
LICENSES = (
    "afl-3.0", "agpl-3.0", "apache-2.0", "apple-amlr", "apple-ascl", "artistic-2.0", "bigcode-openrail-m",
    "bigscience-bloom-rail-1.0", "bigscience-openrail-m", "bsd", "bsd-2-clause", "bsd-3-clause", "bsd-3-clause-clear",
    "bsl-1.0", "c-uda", "cc", "cc-by-2.0", "cc-by-2.5", "cc-by-3.0", "cc-by-4.0", "cc-by-nc-2.0", "cc-by-nc-3.0",
    "cc-by-nc-4.0", "cc-by-nc-nd-3.0", "cc-by-nc-nd-4.0", "cc-by-nc-sa-2.0", "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0",
    "cc-by-nd-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0", "cc0-1.0", "cdla-permissive-1.0", "cdla-permissive-2.0",
    "cdla-sharing-1.0", "creativeml-openrail-m", "deepfloyd-if-license", "ecl-2.0", "epl-1.0", "epl-2.0",
    "etalab-2.0", "eupl-1.1", "eupl-1.2", "fair-noncommercial-research-license", "gemma", "gfdl", "gpl", "gpl-2.0",
    "gpl-3.0", "grok2-community", "h-research", "intel-research", "isc", "lgpl", "lgpl-2.1", "lgpl-3.0", "lgpl-lr",
    "llama2", "llama3", "llama3.1", "llama3.2", "llama3.3", "llama4", "lppl-1.3c", "mit", "mpl-2.0", "ms-pl", "ncsa",
    "odbl", "odc-by", "ofl-1.1", "openmdw-1.0", "openrail", "openrail++", "osl-3.0", "other", "pddl", "postgresql",
    "unknown", "unlicense", "wtfpl", "zlib",
)  # fmt: skip
"""The identifiers that the Hub knows; others may have come since."""


CARD = "README.md"
MANIFEST = "soup.json"
SIGNATURE = "model.sig"
UNPUSHED = "PATH/TO/THIS/FOLDER"
"""The path in the card's example while the soup is not pushed."""
EVAL_RESULTS = ".eval_results/hfsoup-"
"""How the names of the Hub's own result files begin that hfsoup writes; they end with the dataset's name and .yaml."""

_EXAMPLE = re.compile(
    r'^(?:classify = pipeline\("[a-z-]+", |model = PeftModel\.from_pretrained\(start, )(".*")\)$', re.MULTILINE
)
_FRONT_MATTER = re.compile(r"\A\s*---(?:\r\n|\r|\n)(.*?)(?:\r\n|\r|\n)---[ \t]*(?:\r\n|\n|\Z)", re.DOTALL)
"""As the Hub finds it; huggingface_hub has it in a module that imports the whole client."""
_TITLE = re.compile(r"^# (.+)$", re.MULTILINE)
_DARK = re.compile(r'(?<=srcset=")[^"]*?(?=figures/[\w-]+\.png")')


def read_front_matter(text: str, most: int = MAX_NODES) -> dict[str, Any]:
    """The YAML front matter of a repository's card, of at most `most` values.

    Raises:
        ValueError: it is not YAML, or not plain.
    """
    block = _FRONT_MATTER.search(text)
    return parse_yaml_mapping(block[1], most) if block else {}


def parse_yaml_mapping(text: str, most: int = MAX_NODES) -> dict[str, Any]:
    """An untrusted YAML mapping of at most `most` values; {} for YAML of another type.

    Raises:
        ValueError: it is not YAML, or not plain.
    """
    found = _parse_yaml(text, most)
    return found if isinstance(found, dict) else {}


def parse_yaml_list(text: str, most: int = MAX_NODES) -> list[Any]:
    """The same of a list."""
    found = _parse_yaml(text, most)
    return found if isinstance(found, list) else []


def _parse_yaml(text: str, most: int) -> Any:
    try:
        require_plain_yaml(text, most)
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        problem = getattr(error, "problem", None) or "characters that YAML does not have"
        raise ValueError(f"expected YAML, found something else: {one_line(problem)}") from error


def read_card_name(card: str) -> str | None:
    """What the example of hfsoup's card loads: a repository, or `UNPUSHED`; None for a card of another kind."""
    found = _EXAMPLE.search(card)
    return json.loads(found[1]) if found else None


def name_card(card: str, repo: str, revision: str | None = None) -> str:
    """A card that names the repository that it is in: in its title, its examples, its model-index and its pictures.

    Pictures for dark pages get whole addresses, as browsers take those of a `srcset` from the page's own address.

    Args:
        card: a card that hfsoup wrote, of a folder or of another repository; others are returned unchanged.
        repo: `ORG/NAME`.
        revision: the branch, `main` by default.
    """
    before = read_card_name(card)
    if before is None:
        return card
    old, new = (name.rpartition("/")[2] for name in (before, repo))
    card = card.replace(json.dumps(before), json.dumps(repo))
    card = re.sub(r'(?<=timm\.create_model\()"(local-dir|hf-hub):[^"]*"', json.dumps(f"hf-hub:{repo}"), card)
    entry = yaml.safe_dump([{"name": new}]).strip()
    card = re.sub(r"(?<=^model-index:\n)- name: .*$", lambda _: entry, card, count=1, flags=re.MULTILINE)
    address = f"{hub_address()}/{repo}/resolve/{quote(revision or 'main', safe='')}/"
    card = _DARK.sub(lambda _: address, card)
    return _TITLE.sub(lambda found: f"# {_write_title(found[1], old, new)}", card, count=1)


def _write_title(title: str, old: str, new: str) -> str:
    """The title of a card behind the repository's name."""
    named = f"{_escape_name(old)}: "
    rest = title.removeprefix(named) if title.startswith(named) else title[0].lower() + title[1:]
    return f"{_escape_name(new)}: {rest}"


def _escape_name(name: str) -> str:
    return name.replace("_", "\\_")
