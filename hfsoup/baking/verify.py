"""Bake again from soup.json and compare: the folder byte for byte and, if asked for, the scores."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hfsoup.averaging.averager import Averager
from hfsoup.averaging.low_rank import append_member, require_adapters, truncate
from hfsoup.averaging.writer import write_adapter, write_weights
from hfsoup.baking.rescore import load_recorded_images, require_equal, verify_scores
from hfsoup.baking.retrain import retrain_network
from hfsoup.checkpoints.lora.config import CONFIG
from hfsoup.checkpoints.safetensors_io import TensorFile
from hfsoup.checkpoints.types import Ingredient, LowRankAdapter, Source, WeightFile
from hfsoup.data.metrics import METRICS
from hfsoup.hub.notices import listening
from hfsoup.ingredients.base_model import attach_base
from hfsoup.ingredients.compatibility import check_compatibility
from hfsoup.ingredients.family import Family
from hfsoup.ingredients.pull import pull_ingredients, pull_repository
from hfsoup.ingredients.resolve import pin_source, resolve_patterns
from hfsoup.options.options import Options
from hfsoup.provenance.manifest import FILE_NAME, Manifest, read_manifest
from hfsoup.provenance.records import (
    AlignmentRecord,
    FileRecord,
    ImportanceRecord,
    IngredientRecord,
    PinnedRecord,
    PlaceRecord,
    record_adapter,
)
from hfsoup.provenance.reproduce import reproduce_config_of, reproducible_options
from hfsoup.provenance.signing import verify_signature
from hfsoup.utils.distributed import World
from hfsoup.utils.errors import MismatchError, SoupError, UsageError
from hfsoup.utils.hashing import hash_file
from hfsoup.utils.progress import Advance, Watch
from hfsoup.utils.text import join_names, quoted

# Files that soup.json does not list: what the Hub adds, soup.json itself, and the signature over the rest.
UNRECORDED = {".gitattributes", FILE_NAME, "model.sig"}
# Files that transformers, PEFT or timm may load instead of those in the record, or besides them.
LOADABLE = re.compile(
    r"[^/]+\.(safetensors|bin|pt|pth|th|ckpt|h5|msgpack|gguf|py)|[^/]*config\.json|[^/]+\.index\.json"
)


@dataclass(frozen=True)
class Verification:
    """A verified folder: its weight files with their sha256, and the scores if they were measured again."""

    folder: Path
    files: dict[str, str]
    scores: dict[str, float]


def verify(
    place: str,
    *,
    scores: bool = False,
    public_key: Path | None = None,
    trust_remote_metric: bool = False,
    watch: Watch | None = None,
) -> Verification:
    """Bake the soup in `place` again and compare.

    Args:
        place: a baked folder, or `ORG/NAME` on the Hub, with `@REVISION`.
        scores: evaluate again too, on the same splits.
        public_key: also verify the signature over the folder with this key.
        trust_remote_metric: run the script of a recorded metric that is not hfsoup's own; the record cannot ask for it.
        watch: is shown the stages.

    Raises:
        MismatchError: a file was changed or is missing, an unknown one could be loaded with the soup, or rebuilt
            weights or scores differ; the message names every difference, down to the tensor.
        SoupError: there is no soup.json, or an ingredient cannot be found any more.
        UsageError: the scores need a script that is not trusted.
    """
    watch = watch or Watch()
    with listening(watch.note):
        return _verify(place, scores, public_key, trust_remote_metric, watch)


def _verify(place: str, scores: bool, public_key: Path | None, trusted: bool, watch: Watch) -> Verification:
    with watch.stage("Reading the record"):
        local = Path(place).is_dir()
        folder = Path(place) if local else pull_repository(resolve_patterns((place,))[0])
        record = read_manifest(folder, where=place)
        options = replace(record.merge_options(), trust_remote_metric=trusted)
        if scores and not trusted and options.metric is not None and options.metric not in METRICS:
            what = f"this soup was scored by {quoted(options.metric)}, a script that is fetched from the Hub and run"
            what += ", or a metric of a package that is not installed"
            hint = "--trust-remote-metric, if you trust it, or leave out --scores"
            raise UsageError("\n  ".join([what, *METRICS.broken]), where=place, hint=hint)
        require_equal(place, _compare_folder(folder, record, links=not local))
        if others := [name for name in _list_others(folder, record) if not LOADABLE.fullmatch(name)]:
            what = f"not part of the soup and not verified: {join_names(others, 6)}"
            watch.note(f"{what}; soup.json does not list {'it' if len(others) == 1 else 'them'}")
        require_equal(place, _compare_config(record))
        if public_key:
            verify_signature(folder, public_key)
    with watch.stage("Pulling the ingredients"):
        family = _pull_family(place, record, options)
    if record.alignment:
        with watch.stage("Aligning again") as advance:
            family = _realign(place, family, record, record.alignment, options, advance)
    if record.importance:
        with watch.stage("Estimating again", unit="images") as advance:
            family = _reestimate_importance(place, family, record, record.importance, options, advance)
    mix = record.mix()
    with watch.stage("Baking again"), tempfile.TemporaryDirectory() as scratch:
        with Averager(family, record.merge, options.stored_dtype, options.merge_parameters()) as averager:
            statistics = record.batch_norm.arrays() if record.batch_norm else {}
            if options.as_adapter:
                require_adapters(family, "average")
                adapter = truncate(averager, mix, options.as_adapter)
                hashes = write_adapter(adapter, Path(scratch))
                require_equal(place, _compare_adapter(Path(scratch), adapter, record))
                family, mix = append_member(family, adapter)
            elif record.distillation or (options.distill and len(mix.members) > 1):
                family, mix = retrain_network(averager, record, options, World(options.device), place)
                with Averager(family, record.merge, options.stored_dtype, options.merge_parameters()) as whole:
                    hashes = write_weights(whole, mix, Path(scratch), {})
            else:
                hashes = write_weights(averager, mix, Path(scratch), statistics)
        require_equal(place, _compare_weights(folder, Path(scratch), hashes, record))
    return Verification(folder, hashes, verify_scores(place, family, mix, record, options, watch) if scores else {})


def _pull_family(place: str, record: Manifest, options: Options) -> Family:
    """Pull the recorded ingredients and their base, whose weight files must be those that were baked."""
    pinned = [*record.ingredients, *([record.base] if record.base else [])]
    file, key = options.weights_file, options.state_dict_key
    sources = [replace(_find_source(i), weights_file=file, state_dict_key=key) for i in record.ingredients]
    found = pull_ingredients([*sources, *([_find_source(record.base)] if record.base else [])])
    require_equal(place, _compare_ingredients(pinned, found))
    ingredients, base = found[: len(record.ingredients)], found[len(record.ingredients) :]
    # Ingredients that did not fit are not in the record, so all that are must fit.
    on_mismatch = "backbone-only" if options.on_mismatch == "backbone-only" else "error"
    family = check_compatibility(
        ingredients, on_mismatch=on_mismatch, processor_from=options.processor_from, labels=options.labels
    )
    return attach_base(family, base[0]) if base else family


def _realign(
    place: str,
    family: Family,
    record: Manifest,
    alignment: AlignmentRecord,
    options: Options,
    advance: Advance,
) -> Family:
    """Align the ingredients again; the same copies and the same fitted network must come out."""
    from hfsoup.networks.alignment.family import align_family

    images = None
    if alignment.images and record.dataset:
        images = load_recorded_images(record.dataset, family, options, calibrate=True).calibration
        found = images and images.fingerprint
        require_equal(
            place, ["the images of the alignment have changed"] if found != alignment.images.fingerprint else []
        )
    family = align_family(
        family, method=alignment.method, seed=alignment.seed, images=images, fitted=alignment.fitted is not None,
        device=World(options.device).device if images else None, fresh=True, advance=advance,
    )  # fmt: skip
    require_equal(place, _compare_alignment(alignment, family))
    return family


def _compare_alignment(record: AlignmentRecord, family: Family) -> Iterator[str]:
    for ingredient, expected in zip(family.ingredients[1:], record.copies, strict=True):
        if ingredient.weights[0].sha256 != expected:
            yield f"ingredient {ingredient.id}: aligned again, it differs from what was baked"
    if family.fitted and family.fitted.weights[0].sha256 != record.fitted:
        yield "the network, fitted again, differs from the one that was baked"


def _reestimate_importance(
    place: str, family: Family, record: Manifest, importance: ImportanceRecord, options: Options, advance: Advance
) -> Family:
    """Estimate the importance of weights again; the same numbers must come out."""
    from hfsoup.networks.importance.family import estimate_family, find_differences

    images = (
        load_recorded_images(record.dataset, family, options, calibrate=True).calibration if record.dataset else None
    )
    if images is None or images.fingerprint != importance.images.fingerprint:
        what = "the images that the merge used have changed"
        raise MismatchError(what, where=place, hint="do not use this soup; bake it again")
    device = World(options.device).device
    family = estimate_family(
        family, importance.kind, seed=importance.seed, images=images, device=device, fresh=True, advance=advance
    )
    require_equal(place, find_differences(family, importance.files))
    return family


def _find_source(record: PinnedRecord) -> Source:
    """The recorded place of an ingredient, and of an adapter's base."""
    under = record.base if isinstance(record, IngredientRecord) else None
    if under is None:
        return _pin_place(record)
    if record.revision and not under.revision:
        raise SoupError("an adapter on the Hub has no base in a local folder", where=record.id)
    return replace(_pin_place(record), base=_pin_place(under))


def _pin_place(record: PlaceRecord) -> Source:
    """Pin a repository to its recorded commit, or find a local folder."""
    if record.revision:
        return pin_source(record.id, record.revision)
    folder = Path(record.id).expanduser()
    if not folder.is_dir():
        raise SoupError("this ingredient was a local folder, which does not exist here", where=record.id)
    return pin_source(record.id, folder=folder)


def _compare_folder(folder: Path, record: Manifest, *, links: bool) -> Iterator[str]:
    """Files that are missing, linked or changed, or unknown and loadable; in the Hub's cache all files are `links`."""
    present = _find_files(folder)
    for name in _list_others(folder, record):
        if LOADABLE.fullmatch(name):
            yield f"{name}: not part of the soup"
    for name, expected in record.files.items():
        path = present.get(name)
        if path is None:
            yield f"{name}: missing"
        elif path.is_symlink() and not links:
            yield f"{name}: a symbolic link"
        elif (found := hash_file(path)) != expected:
            yield f"{name}: sha256 {found[:12]}, expected {expected[:12]}"


def _find_files(folder: Path) -> dict[str, Path]:
    """All files below a folder by name, links too."""
    found = (path for path in folder.rglob("*") if path.is_symlink() or path.is_file())
    return {path.relative_to(folder).as_posix(): path for path in found}


def _list_others(folder: Path, record: Manifest) -> list[str]:
    """The files that the record does not list."""
    return sorted(_find_files(folder).keys() - record.files.keys() - UNRECORDED)


def _compare_config(record: Manifest) -> Iterator[str]:
    """Check that the recorded config bakes what the record says."""
    local = record.dataset is not None and record.dataset.revision is None
    names = [(ingredient.id, ingredient.revision) for ingredient in record.ingredients]
    base = (record.base.id, record.base.revision) if record.base else None
    elsewhere = record.dataset is None and record.score is not None
    coefficients = [ingredient.coefficient for ingredient in record.ingredients]
    options = reproducible_options(Options.of(dict(record.options)), coefficients, elsewhere=elsewhere)
    if record.config not in (None, reproduce_config_of(names, options, local=local, base=base)):
        yield f"{FILE_NAME}: its config does not match its ingredients and options"


def _compare_ingredients(pinned: Sequence[PinnedRecord], ingredients: tuple[Ingredient, ...]) -> Iterator[str]:
    for expected, found in zip(pinned, ingredients, strict=True):
        if _map_hashes(expected.files) != _map_hashes(found.files):
            yield f"ingredient {expected.id}: its weight files differ from those that were baked"
        under = expected.base if isinstance(expected, IngredientRecord) else None
        if under and found.adapter and _map_hashes(under.files) != _map_hashes(found.adapter.base.weights):
            yield f"base {under.id} of {expected.id}: its weight files differ from those that were baked"


def _map_hashes(files: Iterable[FileRecord | WeightFile]) -> dict[str, str]:
    return {file.name: file.sha256 for file in files}


def _compare_adapter(again: Path, adapter: LowRankAdapter, record: Manifest) -> Iterator[str]:
    if record.files.get(CONFIG) != hash_file(again / CONFIG):
        yield f"{CONFIG}: differs from the one baked again"
    if record_adapter(adapter) != record.adapter:
        yield "the truncation errors differ from the recorded ones"


def _compare_weights(folder: Path, again: Path, hashes: dict[str, str], record: Manifest) -> Iterator[str]:
    rounded = any(ingredient.base and ingredient.merged is None for ingredient in record.ingredients)
    if rounded and any(record.files.get(name) != found for name, found in hashes.items()):
        yield "its adapters were rounded to the base's dtype before averaging, which this version does not do"
    for name, found in hashes.items():
        if record.files.get(name) == found:
            continue
        if name not in record.files:
            yield f"{name}: not in the record"
            continue
        old, new = TensorFile(folder / name, name), TensorFile(again / name, name)
        differing = [n for n, spec in new.tensors.items() if not _is_same_tensor(old, new, n)] or ["the header"]
        old.close()
        new.close()
        yield f"{name}: {len(differing)} tensors differ from those baked again, the first is {differing[0]}"


def _is_same_tensor(old: TensorFile, new: TensorFile, name: str) -> bool:
    a, b = old.tensors.get(name), new.tensors[name]
    if a is None or (a.dtype, a.shape) != (b.dtype, b.shape):
        return False
    count = 1
    for side in b.shape:
        count *= side
    return old.read(a, 0, count).tobytes() == new.read(b, 0, count).tobytes()
