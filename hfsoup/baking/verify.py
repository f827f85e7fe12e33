"""Bake again from soup.json and compare: the folder byte for byte and, if asked for, the scores."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path

from hfsoup.averaging.averager import Averager
from hfsoup.averaging.low_rank import append_member, require_adapters, truncate
from hfsoup.averaging.writer import write_adapter, write_weights
from hfsoup.baking.disk import DiskNeed, require_disk
from hfsoup.baking.open_record import Allowed, open_record
from hfsoup.baking.rescore import load_recorded_images, require_equal, verify_scores
from hfsoup.baking.retrain import retrain_network
from hfsoup.checkpoints.lora.config import CONFIG
from hfsoup.checkpoints.safetensors_io import FLOATS, TensorFile
from hfsoup.checkpoints.types import Ingredient, LowRankAdapter, Source, WeightFile
from hfsoup.hub.notices import listening
from hfsoup.ingredients.base_model import attach_base
from hfsoup.ingredients.compatibility import check_compatibility
from hfsoup.ingredients.family import Family
from hfsoup.ingredients.pull import count_missing_bytes, pull_ingredients
from hfsoup.ingredients.resolve import pin_source
from hfsoup.options.options import Options
from hfsoup.provenance.manifest import FILE_NAME, BatchNormRecord, Manifest
from hfsoup.provenance.records import (
    AlignmentRecord,
    FileRecord,
    ImportanceRecord,
    IngredientRecord,
    PinnedRecord,
    PlaceRecord,
    record_adapter,
)
from hfsoup.provenance.signing import verify_signature
from hfsoup.utils.distributed import World
from hfsoup.utils.errors import MismatchError, SoupError
from hfsoup.utils.hashing import hash_file
from hfsoup.utils.progress import Advance, Watch
from hfsoup.utils.text import one_line, quoted


@dataclass(frozen=True)
class Verification:
    """A verified folder: its weight files with their sha256, and the scores of `metric` if they were measured again."""

    folder: Path
    files: dict[str, str]
    scores: dict[str, float]
    metric: str = ""


def verify(
    place: str,
    *,
    scores: bool = False,
    public_key: Path | None = None,
    trust_remote_metric: bool = False,
    allow_local_paths: bool = False,
    watch: Watch | None = None,
) -> Verification:
    """Bake the soup in `place` again and compare.

    Args:
        place: a baked folder, or `ORG/NAME` on the Hub, with `@REVISION`.
        scores: evaluate again too, on the same splits.
        public_key: also verify the signature over the folder with this key.
        trust_remote_metric: run the script of a recorded metric that is not hfsoup's own; the record cannot ask for it.
        allow_local_paths: let the record of a repository name folders of this disk; the record of a folder may.
        watch: is shown the stages.

    Raises:
        MismatchError: a file was changed or is missing, an unknown one could be loaded with the soup, or rebuilt
            weights or scores differ; the message names every difference, down to the tensor.
        SoupError: there is no soup.json, or an ingredient cannot be found any more.
        UsageError: the record asks for a script that is not trusted, or for folders of this disk.
    """
    watch = watch or Watch()
    with listening(watch.note):
        return _verify(place, Allowed(scores, trust_remote_metric, allow_local_paths), public_key, watch)


def _verify(place: str, allowed: Allowed, public_key: Path | None, watch: Watch) -> Verification:
    with watch.stage("Reading the record"):
        folder, record, options = open_record(place, allowed, signed=public_key is not None, notify=watch.note)
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
    scores = verify_scores(place, family, mix, record, options, watch) if allowed.scores else {}
    return Verification(folder, hashes, scores, record.metric)


def _pull_family(place: str, record: Manifest, options: Options) -> Family:
    """Pull the recorded ingredients and their base, whose weight files must be those that were baked."""
    from huggingface_hub import constants

    pinned = [*record.ingredients, *([record.base] if record.base else [])]
    file, key = options.weights_file, options.state_dict_key
    sources = [replace(_find_source(i), weights_file=file, state_dict_key=key) for i in record.ingredients]
    sources += [_find_source(record.base)] if record.base else []
    require_disk([DiskNeed("ingredients", Path(constants.HF_HUB_CACHE), count_missing_bytes(sources))])
    found = pull_ingredients(sources)
    require_equal(place, _compare_ingredients(pinned, found))
    ingredients, base = found[: len(record.ingredients)], found[len(record.ingredients) :]
    # Ingredients that did not fit are not in the record, so all that are must fit.
    on_mismatch = "backbone-only" if options.on_mismatch == "backbone-only" else "error"
    family = check_compatibility(
        ingredients, on_mismatch=on_mismatch, processor_from=options.processor_from, labels=options.labels
    )
    require_equal(place, _compare_statistics(family, record.batch_norm))
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
    folder = os.path.expanduser(record.id)  # noqa: PTH111 - pathlib raises errors for what is no path at all
    if not os.path.isdir(folder):  # noqa: PTH112
        raise SoupError("this ingredient was a local folder, which does not exist here", where=one_line(record.id))
    return pin_source(record.id, folder=Path(folder))


def _compare_statistics(family: Family, record: BatchNormRecord | None) -> Iterator[str]:
    """Recorded statistics that no tensor of the family can hold."""
    sizes = {spec.name: prod(spec.shape) for spec in family.tensors if spec.dtype in FLOATS}
    for name, values in (record.arrays() if record else {}).items():
        if sizes.get(name) != len(values):
            yield f"{FILE_NAME}: {len(values)} statistics of {quoted(name)}, which has {sizes.get(name, 'no')} channels"


def _compare_ingredients(pinned: Sequence[PinnedRecord], ingredients: tuple[Ingredient, ...]) -> Iterator[str]:
    for expected, found in zip(pinned, ingredients, strict=True):
        if not _are_recorded(expected.files, found.files):
            yield f"ingredient {expected.id}: its weight files differ from those that were baked"
        under = expected.base if isinstance(expected, IngredientRecord) else None
        if under and found.adapter and not _are_recorded(under.files, found.adapter.base.weights):
            yield f"base {under.id} of {expected.id}: its weight files differ from those that were baked"


def _are_recorded(records: Iterable[FileRecord], files: Iterable[WeightFile]) -> bool:
    """Whether files are those of a record, by every hash that it has; sha256 is computed only where it has no other."""
    expected, found = {r.name: r for r in records}, {f.name: f for f in files}
    return expected.keys() == found.keys() and all(_is_recorded(expected[name], found[name]) for name in expected)


def _is_recorded(expected: FileRecord, file: WeightFile) -> bool:
    if expected.blake3 is None:
        return file.sha256 == expected.sha256
    sha256 = file.known_sha256 if expected.sha256 else None
    return file.blake3 == expected.blake3 and sha256 in (None, expected.sha256)


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
