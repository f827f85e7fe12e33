"""The form of the page as ingredients and options of a bake; a public page accepts only some of them."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, replace
from pathlib import Path

from hfsoup.baking.requirements import find_free_folder
from hfsoup.data.tasks import METRICS
from hfsoup.options.options import Options
from hfsoup.provenance.reproduce import REPO_ID
from hfsoup.utils.errors import UsageError
from hfsoup.utils.text import quoted

# A repository or a glob of them, a subfolder of it, a revision: nothing that could be a local path.
NAME = re.compile(r"[\w-][\w.-]*/[\w*?\[\]-][\w.*?\[\]!-]*(/[\w*?\[\]-][\w.*?\[\]!-]*)*(@[\w.*?\[\]/!-]+)?", re.ASCII)
LARGEST_SPLIT = 2000
"""The most images of a split on a public page."""
BakeRequest = tuple[tuple[str, ...], Options]


@dataclass(frozen=True)
class Form:
    """The fields of the page, in its order; empty text means the default."""

    ingredients: str
    recipe: str
    merge: str
    base: str
    dataset: str
    dataset_config: str
    split: str
    test_split: str
    metric: str
    limit: str
    figures: bool
    output: str
    push: str
    private: bool

    def read_options(self) -> BakeRequest:
        """Read ingredients and options.

        Raises:
            UsageError: quotes do not match, or an option is not as it should be.
        """
        try:
            patterns = tuple(shlex.split(self.ingredients))
        except ValueError as error:
            raise UsageError(f"the ingredients cannot be parsed: {error}", hint="one name or glob per line") from error
        names = ("recipe", "base", "dataset", "dataset_config", "split", "test_split", "metric", "output", "push")
        texts = {name: str(getattr(self, name) or "").strip() or None for name in names}
        limit = self.limit.strip().replace(",", "") or None
        if limit and not limit.isdecimal():
            raise UsageError(
                f"expected a number of images, found {quoted(limit)}", hint="500, or leave it empty for all"
            )
        options = Options(
            **texts,  # type: ignore[arg-type]
            merge=self.merge,
            # A public page has a limit from the start, which means nothing without a dataset.
            limit=int(limit) if limit and texts["dataset"] else None,
            figures=bool(self.figures),
            private=bool(self.private),
        )
        return patterns, options

    def to_request(self, *, scratch: Path | None) -> BakeRequest:
        """Read them, and choose the folder to write to.

        Args:
            scratch: the temporary folder of a public page.

        Raises:
            UsageError: a public page is given something else than names on the Hub.
        """
        patterns, options = self.read_options()
        if not patterns:
            raise UsageError("no ingredients", hint="org/model-*")
        if scratch is None:
            return patterns, replace(options, output=options.output or str(find_free_folder(Path("soup"))))
        for pattern in patterns:
            if not NAME.fullmatch(pattern) or ".." in pattern:
                what = f"expected the name of a repository on the Hub, or a glob of such, found {quoted(pattern)}"
                raise UsageError(what, hint="org/model-*")
        for name in filter(None, (options.dataset, options.base)):
            if not REPO_ID.fullmatch(name) or ".." in name:
                raise UsageError(f"expected the name of a repository on the Hub, found {quoted(name)}", hint="ORG/NAME")
        if options.push or options.metric not in (None, *METRICS):
            raise UsageError("this page does not push, and runs built-in metrics only")
        if options.dataset and not 1 < (options.limit or 0) <= LARGEST_SPLIT:
            what = f"this page takes 2 to {LARGEST_SPLIT:,} images of a split"
            raise UsageError(what, hint="the command line above, on a machine of yours")
        return patterns, replace(options, output=str(scratch / "soup"))

    def format_command(self) -> str:
        """The command line that does the same."""
        patterns, options = self.read_options()
        places = [(f"--{name}", getattr(options, name)) for name in ("output", "push") if getattr(options, name)]
        words = [options.format_command(list(patterns)), *map(shlex.join, places)]
        return " ".join([*words, *["--private"] * bool(options.push and options.private)])
