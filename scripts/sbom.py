"""Write what is installed beside hfsoup as a CycloneDX 1.6 bill of materials (https://cyclonedx.org/docs/1.6/json/).

    .venv/bin/python scripts/sbom.py hfsoup.cdx.json

It belongs to a release: scanners compare it with lists of known weaknesses, such as https://osv.dev. The same set of
packages gives the same bytes.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def list_installed() -> dict[str, Distribution]:
    """The installed distributions by their normalized names."""
    return {normalize(found.metadata["Name"]): found for found in sorted(distributions(), key=lambda d: d.version)}


def normalize(name: str) -> str:
    """A name as PyPI's addresses have it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def list_needed(found: Distribution, installed: dict[str, Distribution]) -> Iterator[str]:
    """The installed distributions that one asks for, extras included."""
    for text in found.requires or ():
        match = NAME.match(text)
        if match and normalize(match[0]) in installed:
            yield format_purl(installed[normalize(match[0])])


def format_purl(found: Distribution) -> str:
    """The package URL of a distribution."""
    return f"pkg:pypi/{normalize(found.metadata['Name'])}@{found.version}"


def describe_component(found: Distribution) -> dict[str, Any]:
    """A distribution as a component."""
    component = {
        "type": "library",
        "bom-ref": format_purl(found),
        "name": found.metadata["Name"],
        "version": found.version,
        "purl": format_purl(found),
    }
    licence = "License-Expression" in found.metadata and found.metadata["License-Expression"]
    return {**component, "licenses": [{"expression": licence}]} if licence else component


def make_bill() -> dict[str, Any]:
    """The bill of materials: hfsoup, everything else that is installed, and what needs what."""
    installed = list_installed()
    own = installed.pop("hfsoup")
    everything = {"hfsoup": own, **installed}
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": {**describe_component(own), "type": "application"}},
        "components": [describe_component(installed[name]) for name in sorted(installed)],
        "dependencies": [
            {"ref": format_purl(found), "dependsOn": sorted(set(list_needed(found, everything)))}
            for _, found in sorted(everything.items())
        ],
    }


def main() -> None:
    """Write the bill to the file that is named."""
    if len(sys.argv) != 2:
        sys.exit("usage: python scripts/sbom.py FILE")
    Path(sys.argv[1]).write_text(json.dumps(make_bill(), indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
