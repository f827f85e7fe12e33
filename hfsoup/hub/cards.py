"""The front matter of model and dataset cards, and the names of files beside the weights of a soup."""

from __future__ import annotations

from typing import Any

import yaml

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


def read_front_matter(text: str, most: int = MAX_NODES) -> dict[str, Any]:
    """The YAML front matter of a repository's card, of at most `most` values.

    Raises:
        ValueError: it is not YAML, or not plain.
    """
    from huggingface_hub.repocard import REGEX_YAML_BLOCK

    block = REGEX_YAML_BLOCK.search(text)
    return parse_yaml_mapping(block.group(2), most) if block else {}


def parse_yaml_mapping(text: str, most: int = MAX_NODES) -> dict[str, Any]:
    """An untrusted YAML mapping of at most `most` values; {} for YAML of another type.

    Raises:
        ValueError: it is not YAML, or not plain.
    """
    try:
        require_plain_yaml(text, most)
        found = yaml.safe_load(text)
    except yaml.YAMLError as error:
        problem = getattr(error, "problem", None) or "characters that YAML does not have"
        raise ValueError(f"expected YAML, found something else: {one_line(problem)}") from error
    return found if isinstance(found, dict) else {}
