"""`hfsoup sweep`: fine-tune one base several times, each run a complete checkpoint with a card and a record."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hfsoup.averaging.writer import lock_output, stage_output
from hfsoup.checkpoints.types import PROCESSORS
from hfsoup.data.loading import open_dataset
from hfsoup.data.request import Request
from hfsoup.data.training import TrainingSplit, load_training_split
from hfsoup.hub.client import expect_answer, hub_api
from hfsoup.hub.push import push, require_push_access
from hfsoup.ingredients.find import find_base
from hfsoup.ingredients.pull import pull_ingredients
from hfsoup.networks.fine_tuning.grid import Run
from hfsoup.reports.run_card import render_run_card
from hfsoup.utils.errors import SoupError, UsageError
from hfsoup.utils.hashing import hash_blake3, hash_bytes
from hfsoup.utils.progress import Watch
from hfsoup.utils.safe_json import read_json
from hfsoup.utils.text import format_count, one_line
from hfsoup.utils.version import __version__

if TYPE_CHECKING:
    from hfsoup.networks.fine_tuning.training import Start

RECORD = "sweep.json"
FILES = ("config.json", "preprocessor_config.json", "model.safetensors", RECORD)
"""What a finished run holds; the weights are one file."""
UNUSED = {".gitattributes", "README.md"}
"""The files of a repository that holds nothing yet."""
COMMIT = re.compile("[0-9a-f]{40}")
MESSAGE = "Add fine-tuned model"
DESCRIPTION = "Fine-tuned by hfsoup sweep; sweep.json says how."


@dataclass(frozen=True)
class Sweep:
    """What is asked for.

    `base` is a repository, with `@REVISION` or without, or a folder; `request` is the dataset with the splits that a
    bake will be given. `output` and `push` are names of folders and repositories, `{n}` standing for a run's number.
    `seed` draws the head that all runs begin with. `base_blake3` and `dataset_blake3` are the hashes of what is on this
    disk and has no commit, None before it was read.
    """

    base: str
    request: Request
    runs: tuple[Run, ...]
    output: str | None = None
    push: str | None = None
    private: bool = False
    train_split: str = "train"
    batch_size: int = 32
    freeze: tuple[str, ...] = ()
    flip: bool = False
    channels_last: bool = False
    seed: int = 0
    base_blake3: str | None = None
    dataset_blake3: str | None = None

    def describe_run(self, run: Run) -> dict[str, Any]:
        """What the record of a run holds of this sweep; revisions and hashes are None until they are known."""
        base, revision = self.split_base()
        return {
            "base": {"id": _name(base), "revision": revision, "blake3": self.base_blake3},
            "dataset": {
                "id": _name(self.request.dataset),
                "config": self.request.config,
                "revision": self.request.revision,
                "split": self.train_split,
                "image_column": self.request.image_column,
                "label_column": self.request.label_column,
                "skip_bad_images": self.request.skip_bad_images,
                "blake3": self.dataset_blake3,
            },
            "hyperparameters": {
                **asdict(run),
                "batch_size": self.batch_size,
                "flip": self.flip,
                "channels_last": self.channels_last,
            },
            "frozen": list(self.freeze),
            "head_seed": self.seed,
        }

    def split_base(self) -> tuple[str, str | None]:
        """The base and the revision after its `@`."""
        name, at, revision = self.base.partition("@")
        local = os.path.lexists(self.base) or not at
        return (self.base, None) if local else (name, revision)


@dataclass(frozen=True)
class Place:
    """Where a run goes: a folder, a repository or both, and its record in each, None where it is not there yet."""

    number: int
    run: Run
    folder: Path | None
    repo: str | None
    here: dict[str, Any] | None
    pushed: dict[str, Any] | None

    @property
    def record(self) -> dict[str, Any] | None:
        """The record of the finished run."""
        return self.here or self.pushed

    def __str__(self) -> str:
        return str(self.folder or self.repo)


def run_sweep(sweep: Sweep, watch: Watch) -> list[str]:
    """Train the runs that are not there yet, and push those that the Hub does not have; where they all are.

    Raises:
        UsageError: nowhere to write to, a split that a bake needs, or other settings than those of a run that is there.
        SoupError: base or dataset cannot be read, or a run cannot be trained or written.
        HubError: the Hub refuses or cannot be reached.
    """
    sweep = _hash_base(pin_commits(sweep, watch), watch)
    places = find_places(sweep)
    for place in (place for place in places if place.repo and not place.pushed):
        require_push_access(str(place.repo))
    done, missing = [p for p in places if p.record], [p for p in places if not p.record]
    with tempfile.TemporaryFile() as file, tempfile.TemporaryDirectory() as scratch:
        if missing or _is_local(sweep.request.dataset):
            sweep, split = _read_images(sweep, done, file, watch)
        for place in done:
            watch.note(f"{place.folder if place.here else place.repo} is there already; not trained again")
        if missing:
            sweep, start = _load_base(sweep, split, watch)
        for place in missing:
            folder = place.folder or Path(scratch, f"run-{place.number}")
            with lock_output(folder) if place.folder else nullcontext():
                if _make_room(sweep, place, folder):
                    _train(sweep, start, split, place, folder, len(places), watch)
            if place.repo:
                _push(sweep, place, folder, watch)
    for place in places:
        if place.here and place.folder and place.repo and not place.pushed:
            _push(sweep, place, place.folder, watch)
    return [str(place.repo or place.folder) for place in places]


def pin_commits(sweep: Sweep, watch: Watch) -> Sweep:
    """The sweep with commits in place of the branches and tags that are asked for."""
    base, asked = sweep.split_base()
    commit = sweep.request.revision
    if commit and not COMMIT.fullmatch(commit):
        with open_dataset(sweep.request, to_cache=False) as source:
            commit = source.revision
    sweep = replace(sweep, request=replace(sweep.request, revision=commit))
    if asked and not COMMIT.fullmatch(asked):
        return replace(sweep, base=f"{base}@{find_base(sweep.base, notify=watch.note).revision}")
    return sweep


def _hash_base(sweep: Sweep, watch: Watch) -> Sweep:
    """The sweep with the hash of a base on this disk."""
    base, _ = sweep.split_base()
    if not _is_local(base):
        return sweep
    (found,) = pull_ingredients([find_base(base, notify=watch.note)], notify=watch.note)
    paths = [found.folder / "config.json", *(found.processor_folder / name for name in PROCESSORS)]
    files = [(path.name, hash_blake3(path)) for path in paths if path.is_file()]
    return replace(sweep, base_blake3=hash_bytes(json.dumps([found.content, files]).encode()))


def find_places(sweep: Sweep) -> list[Place]:
    """Where each run goes, and whether it is there, trained as this sweep would train it."""
    output, repos = _number(sweep.output, "/run-{n}"), _number(sweep.push, "-{n}")
    if not (output or repos):
        raise UsageError("there is nowhere to write the runs to", hint="--output runs, or --push ORG/NAME")
    found = []
    for n, run in enumerate(sweep.runs):
        folder = Path(output.replace("{n}", str(n))).expanduser() if output else None
        repo = repos.replace("{n}", str(n)) if repos else None
        expected = sweep.describe_run(run)
        here = _read_folder(folder, expected) if folder else None
        found.append(Place(n, run, folder, repo, here, _read_repo(repo, expected) if repo else None))
    return found


def _number(pattern: str | None, ending: str) -> str | None:
    """The pattern with a place for the run's number."""
    return pattern if pattern is None or "{n}" in pattern else f"{pattern.rstrip('/')}{ending}"


def _read_folder(folder: Path, expected: dict[str, Any]) -> dict[str, Any] | None:
    """The record of the finished run in a folder; one that holds something else is an error."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return None
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        raise _other_content_error(missing, str(folder), "another --output")
    return _require_same(read_json(folder / RECORD, where=f"{folder}, {RECORD}"), expected, str(folder))


def _read_repo(repo: str, expected: dict[str, Any]) -> dict[str, Any] | None:
    """The record of the finished run in a repository; one that holds another is an error."""
    from huggingface_hub.errors import RepositoryNotFoundError

    with expect_answer(repo), tempfile.TemporaryDirectory() as scratch:
        try:
            info = hub_api().model_info(repo)
        except RepositoryNotFoundError:
            return None
        names = {sibling.rfilename for sibling in info.siblings or ()}
        if names <= UNUSED:
            return None
        if missing := [name for name in FILES if name not in names]:
            raise _other_content_error(missing, repo, "another --push")
        path = Path(hub_api().hf_hub_download(repo, RECORD, revision=info.sha, local_dir=scratch))
        return _require_same(read_json(path, where=f"{repo}, {RECORD}"), expected, repo)


def _other_content_error(missing: list[str], where: str, hint: str) -> SoupError:
    """The error for a folder or a repository that holds something else than a run."""
    return SoupError(
        f"expected a finished run or nothing, found files but no {', '.join(missing)}", where=where, hint=hint
    )


def _require_same(record: dict[str, Any], expected: dict[str, Any], where: str) -> dict[str, Any]:
    """The record, unless the run was trained in another way; what is not known may be any: a revision, a hash."""
    for (part, name), value in _flatten(expected):
        held = record.get(part)
        found = held.get(name) if isinstance(held, dict) and name else held
        if found != value and (name not in ("revision", "blake3") or value is not None):
            what = f"a run with other settings is there: {name or part} is {found!r}, expected {value!r}"
            raise UsageError(one_line(what), where=where, hint="the same settings, or another --output or --push")
    return record


def _flatten(record: dict[str, Any]) -> Iterator[tuple[tuple[str, str], Any]]:
    for part, held in record.items():
        for name, value in held.items() if isinstance(held, dict) else [("", held)]:
            yield (part, name), value


def _read_images(sweep: Sweep, done: list[Place], file: Any, watch: Watch) -> tuple[Sweep, TrainingSplit]:
    """Read the training images at the commit of the runs that are there, else at the newest; the sweep with it.

    Raises:
        UsageError: runs that are there saw other images or labels.
    """
    if done:
        sweep = _pin(sweep, done[0].record or {})
    with watch.stage("Reading the training images", unit="images") as stage:
        split = load_training_split(sweep.request, sweep.train_split, file, note=watch.note, advance=stage)
        count = format_count(len(split), "image")
        stage.done(f"Read {count} of {len(split.classes)} classes from the split {split.name!r}")
    local = None if split.revision else split.hash_content()
    sweep = replace(sweep, request=replace(sweep.request, revision=split.revision), dataset_blake3=local)
    for place in done:
        for record, where in ((place.here, place.folder), (place.pushed, place.repo)):
            if record:
                _require_same(record, sweep.describe_run(place.run), str(where))
    return sweep, split


def _load_base(sweep: Sweep, split: TrainingSplit, watch: Watch) -> tuple[Sweep, Start]:
    """Pull and load the model that all runs begin with; the sweep with its commit."""
    with watch.stage("Pulling the base") as stage:
        source = find_base(sweep.base, notify=watch.note)
        (base,) = pull_ingredients([source], notify=watch.note)
        stage.done(f"Pulled the base {source}")
    with watch.stage("Loading the base"):
        from hfsoup.networks.fine_tuning.training import Start

        freeze, last = sweep.freeze, sweep.channels_last
        start = Start(base, split.classes, seed=sweep.seed, freeze=freeze, channels_last=last, note=watch.note)
    return replace(sweep, base=f"{source.id}@{source.revision}" if source.revision else sweep.base), start


def _pin(sweep: Sweep, record: dict[str, Any]) -> Sweep:
    """The sweep with the revisions of a run that is there, where none are asked for."""
    base, asked = sweep.split_base()
    revision = record["base"]["revision"] if asked is None else asked
    commit = sweep.request.revision or record["dataset"]["revision"]
    return replace(
        sweep, base=f"{base}@{revision}" if revision else base, request=replace(sweep.request, revision=commit)
    )


def _make_room(sweep: Sweep, place: Place, folder: Path) -> bool:
    """Remove an empty folder that a run will take the place of; False if another sweep has just written the run."""
    if _read_folder(folder, sweep.describe_run(place.run)):
        return False
    try:
        if os.path.lexists(folder):
            folder.rmdir()
    except OSError as error:
        raise SoupError(f"the empty folder cannot be replaced: {error.strerror}", where=str(folder)) from error
    return True


def _train(
    sweep: Sweep, start: Start, split: TrainingSplit, place: Place, folder: Path, count: int, watch: Watch
) -> None:
    """Train one run and write its folder, which is complete once it has its name."""
    from hfsoup.networks.fine_tuning.training import fine_tune

    record = {"hfsoup": __version__, **sweep.describe_run(place.run), "classes": list(split.classes)}
    with watch.stage(f"Run {place.number + 1} of {count}", unit="steps") as stage, _explained(place):
        fine_tune(
            start, split, place.run,
            batch_size=sweep.batch_size, flip=sweep.flip, expect=stage.expect, advance=stage,
        )  # fmt: skip
        if name := start.find_diverged():
            what = f"the training diverged: {one_line(name)} holds NaN or infinity"
            hint = f"a learning rate below {place.run.learning_rate:g}; nothing of this run is written"
            raise SoupError(what, where=str(place), hint=hint)
        with stage_output(folder) as stage_folder:
            start.save(stage_folder)
            text = json.dumps(record, indent=1, ensure_ascii=False)
            (stage_folder / RECORD).write_text(f"{text}\n", encoding="utf-8")
            card = render_run_card(record, base=sweep.split_base()[0], dataset=sweep.request.dataset, start=start.base)
            (stage_folder / "README.md").write_text(card, encoding="utf-8")
        epochs = place.run.num_train_epochs
        learned = f"learning rate {place.run.learning_rate:g}, {epochs:g} epoch{'' if epochs == 1 else 's'}"
        stage.done(f"Trained run {place.number + 1} of {count}: {folder if place.folder else place.repo} ({learned})")


@contextmanager
def _explained(place: Place) -> Iterator[None]:
    """Turn what torch raises where a run does not fit into memory into an error with a way out."""
    from torch import OutOfMemoryError

    try:
        yield
    except OutOfMemoryError as error:
        raise SoupError(f"out of memory: {one_line(error)}", where=str(place), hint="a smaller --batch-size") from error


def _push(sweep: Sweep, place: Place, folder: Path, watch: Watch) -> None:
    """Push a run, unless the repository has come to hold it; one that has come to hold something else is an error."""
    repo = str(place.repo)
    if _read_repo(repo, sweep.describe_run(place.run)):
        return
    with watch.stage(f"Pushing {repo}") as stage:
        pushed = push(folder, repo, private=sweep.private, notify=watch.note, message=MESSAGE, description=DESCRIPTION)
        stage.done(f"Pushed {pushed.url}")


def _is_local(place: str) -> bool:
    return os.path.lexists(os.path.expanduser(place))  # noqa: PTH111


def _name(place: str) -> str:
    """A repository's id, or the last part of a path: a record says nothing of this disk."""
    return Path(place).name if _is_local(place) else place
