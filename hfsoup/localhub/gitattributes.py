"""Which files git stores as LFS (.gitattributes), and which it ignores (.gitignore)."""

from __future__ import annotations

import re
from functools import lru_cache

from pathspec import GitIgnoreSpec
from pathspec.patterns.gitignore import GitIgnorePatternError
from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern

from hfsoup.localhub.names import KINDS

_WEIGHTS = (
    "*.7z *.arrow *.bin *.bz2 *.ckpt *.ftz *.gz *.h5 *.joblib *.lfs.* *.mlmodel *.model *.msgpack *.npy *.npz *.onnx "
    "*.ot *.parquet *.pb *.pickle *.pkl *.pt *.pth *.rar *.safetensors *.tar *.tar.* *.tflite *.tgz *.wasm *.xz *.zip "
    "*.zst *tfevents* saved_model/**/*"
)
_MEDIA = (
    " *.aac *.avi *.bmp *.flac *.gif *.jpeg *.jpg *.mkv *.mov *.mp3 *.mp4 *.ogg *.pcm *.png *.raw *.sam *.tif *.tiff "
    "*.wav *.webm *.webp"
)
_LFS = "filter=lfs diff=lfs merge=lfs -text"
_FIELD = re.compile(r'"(?:[^"\\]|\\.)*"|\S+')


def default_attributes(kind: str) -> str:
    """The .gitattributes of a new repo: weights and archives are LFS, in datasets pictures and sound too."""
    patterns = _WEIGHTS + (_MEDIA if kind == KINDS[1] else "")
    return "".join(f"{pattern} {_LFS}\n" for pattern in patterns.split())


def is_lfs(attributes: str, path: str) -> bool:
    """Whether .gitattributes sends this path to LFS; the last line that matches and sets `filter` decides."""
    lfs = False
    for line in attributes.splitlines():
        fields = [_unquote(field) for field in _FIELD.findall(line)]
        if not fields or fields[0].startswith("#"):
            continue
        filters = [field for field in fields[1:] if field.lstrip("-!").partition("=")[0] == "filter"]
        if filters and _matches(fields[0], path):
            lfs = filters[-1] == "filter=lfs"
    return lfs


def add_lfs_lines(attributes: str, paths: list[str]) -> str:
    """The .gitattributes text with a line for every path that it does not yet send to LFS."""
    for path in paths:
        if not is_lfs(attributes, path):
            newline = "" if not attributes or attributes.endswith("\n") else "\n"
            attributes += f"{newline}{_quote(path)} {_LFS}\n"
    return attributes


def is_ignored(ignore: str, path: str) -> bool:
    """Whether .gitignore leaves out this path or a folder above it."""
    return GitIgnoreSpec.from_lines(line for line in ignore.splitlines() if _compile(line)).match_file(path)


def _matches(pattern: str, path: str) -> bool:
    """Unlike a pattern of .gitignore, one of .gitattributes does not match what is in a folder of that name."""
    compiled = _compile(pattern)
    return bool(compiled and (compiled.match(path) if pattern.endswith("/**") else compiled.fullmatch(path)))


@lru_cache(maxsize=1024)
def _compile(pattern: str) -> re.Pattern[str] | None:
    """A git pattern as a regular expression; None of a comment, an empty line or an invalid pattern."""
    try:
        return GitIgnoreSpecPattern(pattern).regex
    except GitIgnorePatternError:
        return None


def _quote(path: str) -> str:
    """A path as a pattern that matches it alone."""
    pattern = "/" + re.sub(r"([*?\[\\])", r"\\\1", path)
    if re.search(r'[\s"]', pattern):
        escaped = pattern.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"'
    return pattern


def _unquote(field: str) -> str:
    if len(field) >= 2 and field.startswith('"') and field.endswith('"'):
        return re.sub(r"\\(.)", r"\1", field[1:-1])
    return field
