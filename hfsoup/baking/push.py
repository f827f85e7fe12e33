"""Push a baked folder to the Hub, with a note about local paths that its soup.json would publish."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hfsoup.hub.notices import listening

if TYPE_CHECKING:
    from hfsoup.hub.push import Pushed


def push_folder(folder: Path, repo: str, *, notify: Callable[[str], None] | None = None, **options: Any) -> Pushed:
    """Push every file of a model folder in one commit; arguments and errors are those of `hfsoup.hub.push.push`."""
    from hfsoup.hub.push import push
    from hfsoup.provenance.manifest import warn_of_local_paths

    with listening(notify):
        warn_of_local_paths(folder)
        return push(folder, repo, notify=notify, **options)
