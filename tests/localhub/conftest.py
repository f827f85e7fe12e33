"""One Hub for all tests of the Hub in a folder, clients bound to it, and a fresh repo name for every test."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import httpx2
import pytest
from huggingface_hub import HfApi

from hfsoup.localhub import LocalHub

_COUNTER = itertools.count()


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalHub]:
    """A running Hub with the users ann (of the organisation lab) and bob; small parts, so that uploads are in parts."""
    with LocalHub(tmp_path_factory.mktemp("site"), user="ann", part_size=1 << 20) as running:
        running.add_user("ann", orgs=["lab"])
        yield running


@pytest.fixture(autouse=True)
def _calm(site: LocalHub) -> Iterator[None]:
    """No faults left over."""
    yield
    site.clear_faults()


@pytest.fixture
def api(site: LocalHub) -> HfApi:
    """A client with ann's token."""
    return HfApi(endpoint=site.url, token=site.token)


@pytest.fixture(scope="session")
def bob(site: LocalHub) -> HfApi:
    """A client with bob's token."""
    return HfApi(endpoint=site.url, token=site.add_user("bob"))


@pytest.fixture
def nobody(site: LocalHub) -> HfApi:
    """A client without a token."""
    return HfApi(endpoint=site.url, token=False)


@pytest.fixture
def repo(api: HfApi) -> str:
    """Id of a fresh model repo of ann's."""
    return api.create_repo(f"ann/repo-{next(_COUNTER)}").repo_id


@pytest.fixture
def web(site: LocalHub) -> Iterator[httpx2.Client]:
    """A plain HTTP client with ann's token."""
    with httpx2.Client(base_url=site.url, headers={"Authorization": f"Bearer {site.token}"}) as client:
        yield client
