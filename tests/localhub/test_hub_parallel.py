"""Many requests at once."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pygit2
from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import HfHubHTTPError

from hfsoup.localhub import LocalHub


def _statuses(work: Callable[[int], object], count: int) -> list[int]:
    def one(number: int) -> int:
        try:
            work(number)
        except HfHubHTTPError as error:
            return error.response.status_code
        return 200

    with ThreadPoolExecutor(count) as pool:
        return sorted(pool.map(one, range(count)))


def test_parallel_commits_make_one_line(api: HfApi, repo: str, site: LocalHub) -> None:
    """Sixteen commits at once all stay, one after the other."""

    def work(number: int) -> None:
        api.create_commit(repo, [CommitOperationAdd(f"{number}", b"%d" % number)], commit_message=f"{number}")

    assert _statuses(work, 16) == [200] * 16
    assert len(api.list_repo_files(repo)) == 17
    git = pygit2.Repository(str(site.folder / "repos" / "models" / f"{repo}.git"))
    commits = list(git.walk(git.references["refs/heads/main"].target))
    assert [len(commit.parents) for commit in commits] == [1] * 16 + [0]


def test_one_of_many_with_the_same_parent_wins(api: HfApi, repo: str) -> None:
    """Of eight commits that name one parent, one is made and seven are refused."""
    head = api.model_info(repo).sha

    def work(number: int) -> None:
        operation = CommitOperationAdd("x", b"%d" % number)
        api.create_commit(repo, [operation], commit_message="x", parent_commit=head)

    assert _statuses(work, 8) == [200] + [412] * 7


def test_one_of_many_creates(api: HfApi) -> None:
    """Of eight who create the same repo, one does."""
    assert _statuses(lambda _: api.create_repo("ann/raced"), 8) == [200] + [409] * 7


def test_the_same_large_file_from_many(api: HfApi, repo: str) -> None:
    """Uploads of one large file at once do not disturb each other."""
    content = os.urandom(2_500_000)

    def work(number: int) -> None:
        api.upload_file(path_or_fileobj=content, path_in_repo=f"{number}.bin", repo_id=repo)

    assert _statuses(work, 6) == [200] * 6
    with open(api.hf_hub_download(repo, "3.bin"), "rb") as file:
        assert file.read() == content


def test_pull_requests_are_numbered_once(api: HfApi, repo: str) -> None:
    """Pull requests opened at once get numbers of their own."""

    def work(number: int) -> None:
        api.upload_file(path_or_fileobj=b"x", path_in_repo=f"{number}", repo_id=repo, create_pr=True)

    assert _statuses(work, 8) == [200] * 8
    assert sorted(item.num for item in api.get_repo_discussions(repo)) == list(range(1, 9))
