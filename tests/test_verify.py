"""`hfsoup verify`: the same bytes again, or what differs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from family import Family
from shell import bake, refused, run

from hfsoup.localhub import LocalHub


@pytest.fixture
def baked(vit: Family, data: Path, alone: Path) -> Path:
    """A soup of the ViTs, greedy."""
    bake(*vit.words, "--dataset", data, "--output", "soup")
    return Path("soup")


def test_an_untouched_soup_is_baked_again_to_the_same_bytes_and_scores(baked: Path) -> None:
    """Weights, selection score and both test scores come out as recorded."""
    done = run("verify", baked, "--scores", "--json", "-")
    assert done.code == 0, done.err
    assert done.json["verified"]
    assert set(done.json["scores"]) == {"selection", "test", "best ingredient, test"}


def test_a_soup_on_the_hub_is_verified_from_its_pinned_ingredients(
    on_hub: LocalHub, signed_in: LocalHub, alone: Path
) -> None:
    """Everything is pulled afresh by commit, the dataset too."""
    bake("kit/vit-*", "--dataset", "kit/shapes", "--output", "soup", "--push", "kit/verified")
    done = run("verify", "kit/verified", "--scores")
    assert done.code == 0, done.err


def flip(folder: Path) -> None:
    path = folder / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)


def flip_and_record(folder: Path) -> None:
    from hfsoup.utils.hashing import hash_file

    flip(folder)
    record = json.loads((folder / "soup.json").read_text())
    record["files"]["model.safetensors"] = hash_file(folder / "model.safetensors")
    (folder / "soup.json").write_text(json.dumps(record))


def link(folder: Path) -> None:
    shutil.move(folder / "config.json", folder.parent / "elsewhere.json")
    (folder / "config.json").symlink_to(folder.parent.absolute() / "elsewhere.json")


@pytest.mark.parametrize(
    ("tamper", "named"),
    [
        pytest.param(flip, "model.safetensors: sha256", id="flipped byte"),
        pytest.param(flip_and_record, "tensors differ from those baked again, the first is", id="recorded flip"),
        pytest.param(lambda f: (f / "config.json").unlink(), "config.json: missing", id="missing"),
        pytest.param(lambda f: (f / "modeling.py").write_text("x"), "modeling.py: not part of the soup", id="extra"),
        pytest.param(lambda f: (f / "README.md").write_text("better!"), "README.md: sha256", id="card"),
        pytest.param(link, "config.json: a symbolic link", id="link"),
    ],
)  # fmt: skip
def test_what_was_tampered_with_is_named(baked: Path, tamper: Callable[[Path], object], named: str) -> None:
    """Any changed, missing, extra or linked file fails, down to the tensor where the record was changed with it."""
    tamper(baked)
    assert named in refused("verify", baked, code=1)


@pytest.mark.parametrize(
    ("name", "loadable"),
    [
        ("onnx/model.onnx", False),
        ("onnx/config.json", False),
        ("runs/events.out.tfevents", False),
        ("notes.txt", False),
        ("training_args.bin", True),
        ("pytorch_model.bin", True),
        ("model.safetensors.index.json", True),
        ("adapter_config.json", True),
        ("processor_config.json", True),
        ("tf_model.h5", True),
        ("modeling.py", True),
    ],
)
def test_files_beside_a_soup_matter_if_they_could_be_loaded(baked: Path, name: str, loadable: bool) -> None:
    """Others, as an export in a subfolder, are noted and not verified."""
    (baked / name).parent.mkdir(exist_ok=True)
    (baked / name).write_text("x")
    if loadable:
        assert f"{name}: not part of the soup" in refused("verify", baked, code=1)
    else:
        done = run("verify", baked)
        assert done.code == 0, done.err
        assert f"not part of the soup and not verified: '{name}'" in done.err


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"hfsoup": 1}', "\0", "[" * 100_000])
def test_a_damaged_record_is_one_clear_block(baked: Path, text: str) -> None:
    """soup.json comes from anyone."""
    (baked / "soup.json").write_text(text)
    assert "soup.json" in refused("verify", baked, code=1)


def test_an_ingredient_that_changed_since_is_named(vit: Family, alone: Path) -> None:
    """A local ingredient is known by its hashes."""
    shutil.copytree(vit.folders[0], "model")
    bake("./model", vit.words[1], "--output", "soup")
    shutil.copy(vit.folders[2] / "model.safetensors", "model/model.safetensors")
    assert "its weight files differ from those that were baked" in refused("verify", "soup", code=1)


@pytest.fixture
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A private key and its public one."""
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric import ec

    private, folder = ec.generate_private_key(ec.SECP256R1()), tmp_path_factory.mktemp("keys")
    pem = private.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())
    public = private.public_key().public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo)
    (folder / "private.pem").write_bytes(pem)
    (folder / "public.pem").write_bytes(public)
    return folder / "private.pem", folder / "public.pem"


def test_a_signed_soup_is_verified_with_the_public_key(
    baked: Path, keys: tuple[Path, Path], signed_in: LocalHub
) -> None:
    """The signature holds in the folder and after a push, and covers soup.json."""
    assert run("sign", baked, "--key", keys[0]).code == 0
    assert run("verify", baked, "--public-key", keys[1]).code == 0
    assert run("push", baked, "kit/signed").code == 0
    assert run("verify", "kit/signed", "--public-key", keys[1], "--allow-local-paths").code == 0
    record = json.loads((baked / "soup.json").read_text())
    record["score"]["value"] = 0.999
    (baked / "soup.json").write_text(json.dumps(record))
    assert "the signature does not hold" in refused("verify", baked, "--public-key", keys[1], code=1)


def test_somebody_elses_key_is_refused(baked: Path, keys: tuple[Path, Path]) -> None:
    """A signature of another key does not hold."""
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric import ec

    run("sign", baked, "--key", keys[0])
    public = ec.generate_private_key(ec.SECP256R1()).public_key()
    Path("other.pem").write_bytes(public.public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo))
    assert "the signature does not hold" in refused("verify", baked, "--public-key", "other.pem", code=1)
