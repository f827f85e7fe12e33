"""The front matter of model and dataset cards, and the names of files beside the weights of a soup."""

from __future__ import annotations

from typing import Any

import yaml

# The time to parse nested brackets grows with the square of their depth.
BRACKETS = 500


LICENSE = r"[a-z0-9][a-z0-9.+-]{0,63}"


CARD = "README.md"
MANIFEST = "soup.json"
SIGNATURE = "model.sig"
UNPUSHED = "PATH/TO/THIS/FOLDER"
"""The path in the card's example while the soup is not pushed."""


def read_front_matter(text: str) -> dict[str, Any]:
    """The YAML front matter of a repository's card.

    Raises:
        ValueError: it is not YAML.
    """
    from huggingface_hub.repocard import REGEX_YAML_BLOCK

    block = REGEX_YAML_BLOCK.search(text)
    return parse_yaml_mapping(block.group(2)) if block else {}


def parse_yaml_mapping(text: str) -> dict[str, Any]:
    """A YAML mapping that somebody else wrote; {} for YAML of another type.

    Raises:
        ValueError: it is not YAML, or has more than `BRACKETS` brackets.
    """
    if text.count("[") + text.count("{") > BRACKETS:
        raise ValueError(f"expected at most {BRACKETS} brackets in YAML, found more")
    try:
        found = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError("expected YAML, found something else") from error
    return found if isinstance(found, dict) else {}
