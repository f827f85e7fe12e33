"""`hf soup …`: hfsoup as an extension of the command line `hf`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import yaml
from pages import SKILL

from hfsoup.utils.version import __version__

ROOT = Path(__file__).parents[1]
HF = Path(sys.executable).with_name("hf")


def test_hf_runs_the_extension(tmp_path: Path) -> None:
    """`hf` starts the program `hf-soup` that the package installs, as after `hf extensions install OWNER/hf-soup`."""
    home, _, name = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]["hf-soup"].partition(":")
    folder = tmp_path / ".local" / "share" / "hf" / "extensions" / "hf-soup"
    folder.mkdir(parents=True)
    program = folder / "hf-soup"
    program.write_text(f"#!{sys.executable}\nfrom {home} import {name}\n{name}()\n")
    program.chmod(0o755)
    manifest = {"owner": "owner", "repo": "hf-soup", "repo_id": "owner/hf-soup", "short_name": "soup", "type": "python"}
    manifest |= {"executable_path": str(program), "installed_at": "2026-11-30T12:00:00+00:00"}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    environment = {**os.environ, "HOME": str(tmp_path), "PYTHONPATH": str(ROOT), "HF_HUB_DISABLE_UPDATE_CHECK": "1"}
    done = subprocess.run([HF, "soup", "--version"], capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stdout) == (0, f"hfsoup {__version__}\n"), done.stderr


def test_the_skill_says_what_it_is_for() -> None:
    """Its front matter has the name and description by which agents find it; its commands run as those of the pages."""
    _, front, text = SKILL.read_text().split("---\n", 2)
    found = yaml.safe_load(front)
    assert found["name"] == "hfsoup"
    assert 100 < len(found["description"]) <= 1024
    assert "```shell\n" in text
