"""What the buttons of the page do."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from hfsoup.baking.pipeline import run_bake
from hfsoup.baking.plan import Plan, plan_bake
from hfsoup.baking.soup import Soup
from hfsoup.merges import MERGES
from hfsoup.recipes import RECIPES
from hfsoup.reports.html import make_report
from hfsoup.ui import render as show
from hfsoup.ui.form import BakeRequest, Form
from hfsoup.ui.job import Job
from hfsoup.ui.predict import classify_picture
from hfsoup.ui.zero_gpu import Borrow, Borrowed, decorate_bake, prepare_bake
from hfsoup.utils.cache import cache_root
from hfsoup.utils.distributed import World
from hfsoup.utils.errors import SoupError
from hfsoup.utils.progress import Watch
from hfsoup.utils.text import format_size

Act = Callable[[BakeRequest, Watch], Soup | Plan]
MOST_INGREDIENTS, LARGEST_PULL, LONGEST = 32, 8e9, 1200.0
"""Of a bake on a public page: ingredients, bytes of all that is pulled, seconds."""
LARGEST_CACHE = 20e9
"""The bytes that a public page's cache may hold when a bake begins; it is emptied beyond."""
Scratch = tempfile.TemporaryDirectory[str] | None


@dataclass(frozen=True)
class PageState:
    """What the page shows: HTML of the progress and of the result; `work` is the job that Stop ends."""

    live: str
    result: str = ""
    work: Job[Soup | Plan] | Job[Plan] | Borrowed | None = None
    scratch: Scratch = None

    @property
    def soup(self) -> Soup | None:
        """The soup, once it is baked."""
        found = self.work.result if self.work else None
        return found if isinstance(found, Soup) else None

    def forget(self) -> None:
        """Delete what a public page baked."""
        if self.scratch:
            self.scratch.cleanup()


class Actions:
    """The actions of the page.

    Args:
        public: whether the page is public.
    """

    def __init__(self, *, public: bool) -> None:
        self.public = public
        self._bake_with_gpu = decorate_bake() if public else None

    def dry_run(self, form: Form) -> Iterator[PageState]:
        """Plan a bake."""
        yield from self._run_job(form, lambda asked, watch: plan_bake(*asked, watch))

    def bake(self, form: Form) -> Iterator[PageState]:
        """Bake, and show the progress."""
        if self._bake_with_gpu:
            yield from self._borrow_gpu(form, self._bake_with_gpu)
            return
        yield from self._run_job(form, self._bake_within_limits if self.public else _bake)

    def _bake_within_limits(self, asked: BakeRequest, watch: Watch) -> Soup:
        trim_cache()
        require_small(plan_bake(*asked, watch))
        return _bake(asked, watch)

    def _borrow_gpu(self, form: Form, bake: Borrow) -> Iterator[PageState]:
        """Prepare on the processor, then bake with the GPU of a Space on ZeroGPU."""
        scratch = tempfile.TemporaryDirectory(prefix="hfsoup-page-")
        try:
            asked = form.to_request(scratch=Path(scratch.name))
        except SoupError as error:
            yield PageState(show.render_error(error))
            return
        ready: Job[Plan] = Job(lambda watch: _prepare_within_limits(asked, watch), LONGEST)
        began = time.monotonic()
        for _ in ready.updates():
            live, _ = show.render_job(ready, time.monotonic() - began, public=True)
            yield PageState(live, "", ready, scratch)
        if ready.result is None:
            return
        borrowed = Borrowed()
        with closing(bake(asked)) as states:
            for state in states:
                borrowed.result = state.soup
                yield PageState(state.live, state.result, borrowed, scratch)
                if borrowed.stopped.is_set() and not state.soup:
                    break
            else:
                return
        yield PageState(show.render_stopped(), "", borrowed, scratch)

    def _run_job(self, form: Form, act: Act) -> Iterator[PageState]:
        scratch = tempfile.TemporaryDirectory(prefix="hfsoup-page-") if self.public else None
        try:
            asked = form.to_request(scratch=Path(scratch.name) if scratch else None)
        except SoupError as error:
            yield PageState(show.render_error(error))
            return
        work: Job[Soup | Plan] = Job(lambda watch: act(asked, watch), LONGEST if self.public else None)
        began = time.monotonic()
        for _ in work.updates():
            yield self._make_state(work, scratch, time.monotonic() - began)

    def _make_state(self, work: Job[Soup | Plan], scratch: Scratch, seconds: float) -> PageState:
        return PageState(*show.render_job(work, seconds, public=self.public), work, scratch)

    def report(self, shown: PageState) -> str:
        """The report of the soup, in a frame."""
        soup = shown.soup
        return _or_error(lambda: show.render_report(make_report(str(soup.path)))) if soup else ""

    def guess(self, shown: PageState, picture: str | None) -> str:
        """Classify an image with the soup and its best ingredient."""
        soup = shown.soup
        return (
            _or_error(lambda: show.render_predictions(classify_picture(soup, Path(picture), self._find_device(soup))))
            if soup and picture
            else ""
        )

    def _find_device(self, soup: Soup) -> str:
        """What an image is classified on: the processor of a Space on ZeroGPU, whose GPU is only for bakes."""
        return "cpu" if self._bake_with_gpu else str(World(soup.options.device).device)

    def push(self, shown: PageState, repo: str, private: bool) -> str:
        """Push the soup that was baked last."""
        soup = shown.soup
        if self.public or not soup or not soup.path:
            return ""
        where = repo.strip()
        return _or_error(lambda: show.render_home(soup.push_to_hub(where, private=private)))


def _bake(asked: BakeRequest, watch: Watch) -> Soup:
    return run_bake(*asked, watch)


def _prepare_within_limits(asked: BakeRequest, watch: Watch) -> Plan:
    trim_cache()
    require_small(plan := plan_bake(*asked, watch))
    prepare_bake(asked, watch)
    return plan


def require_small(plan: Plan) -> None:
    """Refuse what would keep a public page from its other visitors.

    Raises:
        SoupError: there are too many ingredients, or they and the dataset are too large.
    """
    parts = (*plan.ingredients, *plan.bases, *([plan.dataset] if plan.dataset else []))
    size = sum(part.size for part in parts)
    if size > LARGEST_PULL or len(plan.ingredients) > MOST_INGREDIENTS:
        limits = f"at most {MOST_INGREDIENTS} ingredients and {format_size(LARGEST_PULL)}"
        what = f"this page bakes {limits}, found {len(plan.ingredients)} and {format_size(size)}"
        raise SoupError(what, hint="the command line above, on a machine of yours")


def trim_cache() -> None:
    """Empty the caches of a public page, which are its own, once they hold too much."""
    from huggingface_hub import constants

    for folder in (Path(constants.HF_HUB_CACHE), cache_root()):
        if sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_symlink()) > LARGEST_CACHE:
            shutil.rmtree(folder, ignore_errors=True)


def _or_error(act: Callable[[], str]) -> str:
    try:
        return act()
    except SoupError as error:
        return show.render_error(error)


def format_command(form: Form) -> str:
    """The command line that does what the form says, or why there is none."""
    try:
        return form.format_command() if form.ingredients.strip() else 'hfsoup bake "org/model-*"'
    except SoupError as error:
        return "".join(f"# {line}\n" for line in str(error).splitlines())


def describe_method(name: str) -> str:
    """The one-line summary of a recipe or merge."""
    entry = next((entry for registry in (RECIPES, MERGES) for entry in registry if entry.name == name), None)
    return entry.summary if entry else "greedy with a dataset, uniform without"
