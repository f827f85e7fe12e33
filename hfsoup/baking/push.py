"""Push a baked folder to the Hub with its test result as the Hub lists it, and collect it with its ingredients."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from hfsoup.data.evaluation_tasks import find_task
from hfsoup.hub.notices import listening
from hfsoup.utils.errors import HubError

if TYPE_CHECKING:
    from hfsoup.hub.push import Pushed
    from hfsoup.provenance.manifest import Manifest


def push_folder(
    folder: Path,
    repo: str,
    *,
    private: bool = False,
    create_pr: bool = False,
    revision: str | None = None,
    collection: bool = False,
    notify: Callable[[str], None] | None = None,
) -> Pushed:
    """Push every file of a model folder in one commit, with notes about local paths that its soup.json would publish,
    and where it is a copy of one ingredient.

    Args:
        folder: a model folder; what hfsoup did not bake is pushed as it is.
        repo: the repository.
        private: as for `hfsoup.hub.push.push`, as all but `collection`.
        create_pr: as a pull request.
        revision: the branch.
        collection: make a Collection of the soup and its ingredients, too.
        notify: called with notices.

    Raises:
        HubError: as `hfsoup.hub.push.push` does, or the Collection cannot be made.
    """
    from hfsoup.hub.push import push
    from hfsoup.provenance.eval_results import make_eval_results
    from hfsoup.provenance.manifest import find_manifest, warn_of_copy, warn_of_local_paths

    record = find_manifest(folder)

    def write_results(target: str) -> dict[str, bytes]:
        if record is None or record.dataset is None:
            return {}
        data = record.dataset
        task = find_task(data.id, data.config, data.revision, data.test.name) if data.revision else None
        return make_eval_results(folder, record, target, revision=revision, task=task)

    with listening(notify):
        if record:
            warn_of_local_paths(record)
            warn_of_copy(record)
        pushed = push(
            folder, repo, private=private, create_pr=create_pr, revision=revision, more=write_results, notify=notify
        )
        if not collection:
            return pushed
        try:
            return replace(pushed, collection=_collect(pushed.repo, record))
        except HubError as error:
            same = [*(["--create-pr"] if create_pr else []), *(["--revision", revision] if revision else [])]
            again = shlex.join(["hfsoup", "push", str(folder), pushed.repo, *same, "--collection"])
            what = f"the soup is pushed, and its Collection could not be made: {error.what}"
            raise HubError(what, where=error.where, hint=f"{error.hint}, then: {again}") from error


def _collect(repo: str, record: Manifest | None) -> str:
    """Make the Collection of a soup; ingredients in folders of a disk are not in it, nor those that were left out."""
    from hfsoup.hub.collections import make_collection

    weights: dict[str, float] = {}
    for one in record.ingredients if record else ():
        if one.revision and one.coefficient:
            # Several may be branches or folders of one repository.
            weights[_repo(one.id)] = weights.get(_repo(one.id), 0.0) + one.coefficient
    notes = {name: f"weight {weight:.4g}" for name, weight in weights.items()}
    if record and record.base and record.base.revision:
        notes.setdefault(_repo(record.base.id), "the base")
    return make_collection(repo, notes)


def _repo(place: str) -> str:
    """The repository of a checkpoint, which may lie in a folder of it."""
    return "/".join(place.split("/")[:2])
