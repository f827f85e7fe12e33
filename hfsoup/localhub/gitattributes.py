"""Which files git keeps as LFS, and which it ignores: the pattern language of .gitattributes and .gitignore."""

from __future__ import annotations

import re
from functools import lru_cache

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
    """The .gitattributes a new repo starts with: weights and archives, and pictures and sound for datasets."""
    patterns = _WEIGHTS + (_MEDIA if kind == KINDS[1] else "")
    return "".join(f"{pattern} {_LFS}\n" for pattern in patterns.split())


def is_lfs(attributes: str, path: str) -> bool:
    """Whether .gitattributes sends this path to LFS; the last line that matches and speaks of `filter` decides."""
    lfs = False
    for line in attributes.splitlines():
        fields = [_unquote(field) for field in _FIELD.findall(line)]
        if not fields or fields[0].startswith("#"):
            continue
        filters = [field for field in fields[1:] if field.lstrip("-!").partition("=")[0] == "filter"]
        if filters and _matches(fields[0], path):
            lfs = filters[-1] == "filter=lfs"
    return lfs


def with_lfs(attributes: str, paths: list[str]) -> str:
    """The .gitattributes text with a line for every path that it does not yet send to LFS."""
    for path in paths:
        if not is_lfs(attributes, path):
            newline = "" if not attributes or attributes.endswith("\n") else "\n"
            attributes += f"{newline}{_quote(path)} {_LFS}\n"
    return attributes


def is_ignored(ignore: str, path: str) -> bool:
    """Whether .gitignore leaves out this path or a folder above it."""
    parts = path.split("/")
    return any(_ignores(ignore, "/".join(parts[:depth]), depth < len(parts)) for depth in range(1, len(parts) + 1))


def _ignores(ignore: str, path: str, is_folder: bool) -> bool:
    ignored = False
    for line in ignore.splitlines():
        pattern = line.rstrip()
        if not pattern or pattern.startswith("#"):
            continue
        negated = pattern.startswith("!")
        pattern = pattern[1:] if negated else pattern
        if (is_folder or not pattern.endswith("/")) and _matches(pattern.rstrip("/"), path):
            ignored = not negated
    return ignored


def _matches(pattern: str, path: str) -> bool:
    if "/" not in pattern:
        path = path.rpartition("/")[2]
    return bool(_compiled(pattern.lstrip("/")).fullmatch(path))


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> re.Pattern[str]:
    """A git wildcard pattern as a regular expression."""
    translated, at = "", 0
    while at < len(pattern):
        token = _TOKEN.match(pattern, at)
        text = token.group() if token else pattern[at]
        translated += _translate(text)
        at += len(text)
    try:
        return re.compile(translated, re.DOTALL)
    except re.error:
        return re.compile(re.escape(pattern))


_TOKEN = re.compile(r"/\*\*/|\*\*/|/\*\*$|\*+|\?|\[[!^]?\]?[^\]]*\]|\\.")


def _translate(token: str) -> str:
    known = {"/**/": "/(?:.*/)?", "**/": "(?:.*/)?", "/**": "/.*", "?": "[^/]"}
    if token in known:
        return known[token]
    if token.startswith("*"):
        return "[^/]*"
    if token.startswith("[") and len(token) > 1:
        inside = token[1:-1]
        return f"[^{inside[1:]}]" if inside[0] in "!^" else f"[{inside}]"
    return re.escape(token[1:] if token.startswith("\\") and len(token) > 1 else token)


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
