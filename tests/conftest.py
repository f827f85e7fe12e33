"""A Hub in a folder for the whole session, tiny models and images, and the command line run in this process.

The environment is set before huggingface_hub is imported, which reads it once; every xdist worker has its own.
"""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from pathlib import Path
from typing import Any

# Bound until the session ends, so that nothing else is given this port before the Hub listens on it.
RESERVED = socket.socket()
RESERVED.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
RESERVED.bind(("127.0.0.1", 0))
PORT = int(RESERVED.getsockname()[1])
HOME = Path(tempfile.mkdtemp(prefix="hfsoup-tests-"))
os.environ.update(
    HF_ENDPOINT=f"http://127.0.0.1:{PORT}",
    HF_HOME=str(HOME / "hf"),
    HFSOUP_CACHE=str(HOME / "cache"),
    HF_HUB_DISABLE_TELEMETRY="1",
    HF_HUB_DISABLE_PROGRESS_BARS="1",
    HF_UPDATE_DOWNLOAD_COUNTS="0",
    TRANSFORMERS_VERBOSITY="error",
    DISABLE_SAFETENSORS_CONVERSION="1",
    OMP_NUM_THREADS="1",
    COLUMNS="200",
)
for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_OFFLINE", "RANK", "WORLD_SIZE", "LOCAL_RANK"):
    os.environ.pop(name, None)

from collections.abc import Iterator  # noqa: E402
from importlib.util import find_spec  # noqa: E402

import pytest  # noqa: E402
from bakes import Kitchen  # noqa: E402
from family import Family, make_images, make_models, write_parquet  # noqa: E402
from hypothesis import HealthCheck, settings  # noqa: E402
from promises import table  # noqa: E402
from timm_models import make_timm  # noqa: E402

from hfsoup.localhub import LocalHub  # noqa: E402

settings.register_profile("hfsoup", deadline=None, max_examples=40, suppress_health_check=list(HealthCheck))
settings.load_profile("hfsoup")
USER = "kit"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Long proofs, other implementations, and the example cards, each only where asked for."""
    parser.addoption("--soak", action="store_true", help="run the long proofs too, and print promise and figure")
    parser.addoption("--oracles", action="store_true", help="compare with other implementations, which are installed")
    parser.addoption("--write-cards", action="store_true", help="write model_cards/examples again")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the long proofs and the other implementations unless they are asked for, and timm where it is not."""
    left_out = [mark for mark in ("soak", "oracles") if not config.getoption(f"--{mark}")]
    if find_spec("timm") is None:
        left_out.append("timm")
    unwanted = [item for item in items if any(item.get_closest_marker(mark) for mark in left_out)]
    if unwanted:
        config.hook.pytest_deselected(items=unwanted)
        items[:] = [item for item in items if item not in unwanted]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Promise and figure, after the long proofs."""
    if config.getoption("--soak"):
        stats = terminalreporter.stats
        reports = [(r, held) for kind, held in (("passed", True), ("failed", False)) for r in stats.get(kind, ())]
        terminalreporter.section("promises")
        for line in table((r.nodeid.split("tests/")[-1], held) for r, held in reports if r.when == "call"):
            terminalreporter.write_line(line)


def pytest_unconfigure() -> None:
    """Leave nothing behind."""
    shutil.rmtree(HOME, ignore_errors=True)


@pytest.fixture(autouse=True)
def _measured_anew() -> None:
    """Take away the scores that earlier tests paid for: each test measures its own."""
    for path in (HOME / "cache").glob("scores*"):
        path.unlink()


@pytest.fixture(scope="session")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalHub]:
    """The Hub that HF_ENDPOINT names."""
    with LocalHub(tmp_path_factory.mktemp("hub"), port=PORT, user=USER) as running:
        yield running


@pytest.fixture
def signed_in(hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> LocalHub:
    """The Hub, with its first user's token in the environment."""
    monkeypatch.setenv("HF_TOKEN", hub.token)
    hub.forget_requests()
    return hub


@pytest.fixture(scope="session")
def images() -> object:
    """The images as a DatasetDict of train, validation and test."""
    return make_images()


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory, images: object) -> Path:
    """The validation and test images as a folder of parquet files."""
    return write_parquet(images, tmp_path_factory.mktemp("data") / "shapes")


@pytest.fixture(scope="session")
def vit(tmp_path_factory: pytest.TempPathFactory) -> Family:
    """Four two-layer ViTs."""
    return make_models("vit", tmp_path_factory.mktemp("vit"))


@pytest.fixture(scope="session")
def resnet(tmp_path_factory: pytest.TempPathFactory) -> Family:
    """Four small ResNets."""
    return make_models("resnet", tmp_path_factory.mktemp("resnet"))


@pytest.fixture(scope="session")
def efficientnet(tmp_path_factory: pytest.TempPathFactory) -> Family:
    """Four small EfficientNets."""
    return make_models("efficientnet", tmp_path_factory.mktemp("efficientnet"))


@pytest.fixture(scope="session")
def native(tmp_path_factory: pytest.TempPathFactory) -> Family:
    """Three small ResNets as timm saves them."""
    return make_timm("resnet", "timm", tmp_path_factory.mktemp("native"))


@pytest.fixture(scope="session")
def wrapped(tmp_path_factory: pytest.TempPathFactory) -> Family:
    """The same ResNets as transformers saves them."""
    return make_timm("resnet", "wrapper", tmp_path_factory.mktemp("wrapped"))


@pytest.fixture(scope="session")
def efficient(tmp_path_factory: pytest.TempPathFactory) -> Family:
    """Three EfficientNets as timm saves them, built with no arguments of their own."""
    return make_timm("efficientnet", "timm", tmp_path_factory.mktemp("efficient"))


@pytest.fixture(scope="session")
def kitchen(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Kitchen:
    """The models and images of every kind of bake."""
    return Kitchen(request, tmp_path_factory.mktemp("kitchen"))


@pytest.fixture(params=sorted(("vit", "resnet", "efficientnet")))
def family(request: pytest.FixtureRequest) -> Family:
    """Each of the three families in turn."""
    found: Family = request.getfixturevalue(request.param)
    return found


@pytest.fixture(scope="session")
def with_train(images: object, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The images with their training split."""
    folder = tmp_path_factory.mktemp("with-train") / "shapes"
    folder.mkdir()
    for name in ("train", "validation", "test"):
        images[name].to_parquet(folder / f"{name}-00000-of-00001.parquet")  # type: ignore[index]
    return folder


@pytest.fixture(params=["resnet", "efficientnet"])
def normed(request: pytest.FixtureRequest) -> Family:
    """The families that have batch norms."""
    found: Family = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def plain_http(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client of this process without Xet, as where hf_xet is not installed."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def on_hub(hub: LocalHub, vit: Family, images: object) -> LocalHub:
    """The Hub with the ViTs as kit/vit-1, 2, 3 and 10, and the images as kit/shapes."""
    from huggingface_hub import HfApi

    api = HfApi(token=hub.token)
    for folder in vit.folders:
        api.create_repo(f"{USER}/{folder.name}")
        api.upload_folder(repo_id=f"{USER}/{folder.name}", folder_path=folder)
    without_train = images.__class__({name: images[name] for name in ("validation", "test")})  # type: ignore[index]
    without_train.push_to_hub(f"{USER}/shapes", token=hub.token)
    return hub


@pytest.fixture
def reader(hub: LocalHub, vit: Family, images: Any, alone: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Somebody who owns org/model-0 and so on, and org/pets."""
    token = hub.add_user("org")
    monkeypatch.setenv("HF_TOKEN", token)
    from huggingface_hub import HfApi

    api = HfApi(token=token)
    for n, folder in enumerate(vit.folders):
        api.create_repo(f"org/model-{n}")
        api.upload_folder(repo_id=f"org/model-{n}", folder_path=folder)
    images.push_to_hub("org/pets", token=token)
    yield alone
    for model in list(api.list_models(author="org")):
        api.delete_repo(model.id)
    api.delete_repo("org/pets", repo_type="dataset")
