"""Discussions and pull requests through huggingface_hub's client."""

from __future__ import annotations

import pytest
from huggingface_hub import HfApi
from huggingface_hub.community import DiscussionComment
from huggingface_hub.errors import HfHubHTTPError, RevisionNotFoundError


def test_a_pull_request_by_commit(api: HfApi, bob: HfApi, repo: str) -> None:
    """Who may not write can still propose a commit, add to it, and its owner merges it."""
    made = bob.upload_file(path_or_fileobj=b"x", path_in_repo="x.bin", repo_id=repo, create_pr=True)
    assert (made.pr_num, made.pr_revision) == (1, "refs/pr/1")
    bob.upload_file(path_or_fileobj=b"y", path_in_repo="y", repo_id=repo, revision="refs/pr/1")
    assert not api.file_exists(repo, "x.bin")
    with pytest.raises(HfHubHTTPError, match="403"):
        bob.merge_pull_request(repo, 1)
    api.merge_pull_request(repo, 1, comment="thanks")
    assert api.file_exists(repo, "x.bin")
    assert api.file_exists(repo, "y")
    details = api.get_discussion_details(repo, 1)
    assert (details.status, details.author, details.target_branch) == ("merged", "bob", "refs/heads/main")
    assert details.merge_commit_oid == api.model_info(repo).sha
    assert "+++ b/y" in (details.diff or "")
    refs = api.list_repo_refs(repo, include_pull_requests=True)
    assert [ref.ref for ref in refs.pull_requests or ()] == ["refs/pr/1"]


def test_a_pull_request_that_conflicts(api: HfApi, repo: str) -> None:
    """Conflicting files are named, and the merge is refused."""
    api.upload_file(path_or_fileobj=b"a", path_in_repo="x", repo_id=repo, create_pr=True)
    api.upload_file(path_or_fileobj=b"b", path_in_repo="x", repo_id=repo)
    assert api.get_discussion_details(repo, 1).conflicting_files == ["x"]
    with pytest.raises(HfHubHTTPError, match="409"):
        api.merge_pull_request(repo, 1)


def test_a_pull_request_to_a_branch(api: HfApi, repo: str) -> None:
    """A pull request is made to a branch and merged into that one; a commit, a tag or nothing cannot be its target."""
    api.create_branch(repo, branch="dev")
    api.create_tag(repo, tag="v1")
    head = api.model_info(repo).sha
    for target in (head, "v1", "absent"):
        with pytest.raises(RevisionNotFoundError):
            api.upload_file(path_or_fileobj=b"x", path_in_repo="x", repo_id=repo, revision=target, create_pr=True)
    assert list(api.get_repo_discussions(repo)) == []
    api.upload_file(path_or_fileobj=b"x", path_in_repo="x", repo_id=repo, revision="dev", create_pr=True)
    assert api.get_discussion_details(repo, 1).target_branch == "refs/heads/dev"
    api.merge_pull_request(repo, 1)
    assert api.file_exists(repo, "x", revision="dev")
    assert not api.file_exists(repo, "x")


def test_comments_are_edited_and_hidden(api: HfApi, bob: HfApi, repo: str) -> None:
    """Who wrote a comment edits it; the repo's owner may hide it, and its text is gone."""
    number = bob.create_discussion(repo, "why", description="because").num
    first = api.get_discussion_details(repo, number).events[0]
    with pytest.raises(HfHubHTTPError, match="403"):
        api.edit_discussion_comment(repo, number, first.id, new_content="mine")
    edited = bob.edit_discussion_comment(repo, number, first.id, new_content="so")
    assert (edited.content, edited.edited, edited.author) == ("so", True, "bob")
    with pytest.raises(HfHubHTTPError, match="404"):
        bob.edit_discussion_comment(repo, number, "0" * 24, new_content="so")
    with pytest.warns(UserWarning, match="irreversible"):
        api.hide_discussion_comment(repo, number, first.id)
    shown = api.get_discussion_details(repo, number).events[0]
    assert isinstance(shown, DiscussionComment)
    assert (shown.hidden, "so" in shown.content) == (True, False)


def test_a_discussion(api: HfApi, bob: HfApi, repo: str) -> None:
    """Discussions are opened by anyone, commented, renamed, closed and listed by kind and status."""
    number = bob.create_discussion(repo, "why", description="because").num
    draft = api.create_pull_request(repo, "draft")
    assert draft.status == "draft"
    api.comment_discussion(repo, number, "so")
    api.rename_discussion(repo, number, "how")
    api.change_discussion_status(repo, number, "closed", comment="done")
    kinds = [event.type for event in api.get_discussion_details(repo, number).events]
    assert kinds == ["comment", "comment", "title-change", "comment", "status-change"]
    found = list(api.get_repo_discussions(repo, discussion_type="discussion", discussion_status="closed"))
    assert [(item.num, item.title) for item in found] == [(number, "how")]
    assert [item.num for item in api.get_repo_discussions(repo, discussion_type="pull_request")] == [draft.num]
