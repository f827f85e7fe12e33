"""Signatures over a whole folder, made and verified by OpenSSF's model-signing (the extra `hfsoup[sign]`).

The signature is `model.sig` in the folder; it covers every other file, soup.json included
(https://github.com/sigstore/model-transparency).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hfsoup.hub.cards import SIGNATURE
from hfsoup.utils.errors import MismatchError, SoupError, UsageError

# Left out by both sides: the signature itself, and what a Hub adds to a repository.
IGNORED = (SIGNATURE, ".gitattributes")


def sign_folder(folder: Path, key: Path) -> Path:
    """Sign every file of `folder` with an elliptic-curve private key in PEM form; the signature's path.

    Raises:
        UsageError: the extra is not installed.
        SoupError: the key cannot be used, or the folder is no soup.
    """
    signing, hashing = _import_signing()
    if not (folder / "soup.json").is_file():
        raise SoupError("expected soup.json, found none", where=str(folder), hint="a folder that hfsoup baked")
    try:
        config = signing.Config().use_elliptic_key_signer(private_key=key)
        config.set_hashing_config(_configure_hashing(hashing)).sign(folder, folder / SIGNATURE)
    except (OSError, ValueError, TypeError) as error:
        what = f"this key cannot sign ({type(error).__name__})"
        hint = "openssl ecparam -name prime256v1 -genkey -noout -out key.pem"
        raise SoupError(what, where=str(key), hint=hint) from error
    return folder / SIGNATURE


def verify_signature(folder: Path, key: Path) -> None:
    """See that `folder` is what the owner of the public key signed.

    Raises:
        MismatchError: it is not, or there is no signature.
        UsageError: the extra is not installed.
    """
    _, hashing = _import_signing()
    from model_signing import verifying

    if not (folder / SIGNATURE).is_file():
        raise MismatchError(f"expected {SIGNATURE}, found none", where=str(folder), hint="hfsoup sign FOLDER --key KEY")
    try:
        config: Any = verifying.Config()  # type: ignore[no-untyped-call]
        config.use_elliptic_key_verifier(public_key=key)
        config.set_hashing_config(_configure_hashing(hashing)).verify(folder, folder / SIGNATURE)
    except (OSError, ValueError, TypeError) as error:
        what = f"the signature does not hold: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
        raise MismatchError(what, where=str(folder), hint="do not use it, or look at the key") from error


def _configure_hashing(hashing: Any) -> Any:
    # The Hub's cache consists of links; hfsoup has looked at links in a local folder itself.
    return hashing.Config().set_ignored_paths(paths=IGNORED, ignore_git_paths=True).set_allow_symlinks(True)


def _import_signing() -> tuple[Any, Any]:
    try:
        from model_signing import hashing, signing
    except ImportError as error:
        raise UsageError("signatures need an extra", hint="pip install 'hfsoup[sign]'") from error
    return signing, hashing
