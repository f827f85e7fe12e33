"""The sha256 of large files by their BLAKE3: computed once, recorded in hfsoup's cache.

The Hub and records of soups have sha256. That the bytes of a file are those of a sha256 is seen by their BLAKE3, which
is computed every time: a record is named after the BLAKE3 of the bytes that the sha256 was computed of, so that a file
that has changed has none. A record that was changed itself is computed again.
"""

from __future__ import annotations

from pathlib import Path

from hfsoup.utils.cache import cache_root, make_write_error, mark_used, register_user
from hfsoup.utils.hashing import hash_blake3, hash_both, hash_file, read_sealed, write_sealed

SMALL = 1 << 20
"""Bytes below which sha256 costs no more than a look at a record."""


def find_hashes(path: Path) -> tuple[str, str]:
    """The hexadecimal BLAKE3 and sha256 of a file, every byte of which is read.

    Raises:
        SoupError: the cache cannot be written.
    """
    if path.stat().st_size < SMALL:
        return hash_both(path)
    blake3 = hash_blake3(path)
    home = cache_root() / "hashes"
    if sha256 := read_sealed(home / blake3):
        mark_used(home / blake3)
        return blake3, sha256
    # Both of the same bytes: of a file that changes in between, the two would not belong together.
    blake3, sha256 = hash_both(path)
    try:
        register_user()
        write_sealed(home / blake3, sha256)
    except OSError as error:
        raise make_write_error(home, error) from error
    return blake3, sha256


def find_sha256(path: Path) -> str:
    """The hexadecimal sha256 of a file, by `find_hashes`; of a small one directly."""
    return hash_file(path) if path.stat().st_size < SMALL else find_hashes(path)[1]
