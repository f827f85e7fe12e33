"""The class names of a dataset or of another model, matched with those of a model."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from hfsoup.data.label_mapping import BY_NAME, BY_NUMBER
from hfsoup.utils.errors import MismatchError, UsageError
from hfsoup.utils.text import join_names, quoted

EITHER = "--labels by-number where the dataset's numbers are the model's, or --labels FILE, which maps one to the other"


@dataclass(frozen=True)
class ClassMatch:
    """For numbers of a dataset the model's class, the rule, and whether numbers alone decided."""

    places: dict[int, int]
    rule: str
    numbered: bool = False


def match_dataset_classes(
    names: Sequence[str] | None,
    classes: Sequence[str],
    needed: Iterable[int],
    *,
    where: str,
    asked: str | None = None,
    mapping: Mapping[str, str | int] | None = None,
) -> ClassMatch:
    """The model's class for each number of a dataset that some image needs.

    Args:
        names: what the dataset calls its numbers, None where it does not.
        classes: the model's class names.
        needed: the numbers that images have.
        where: dataset, split and column, for errors.
        asked: as for `class_numbers`.
        mapping: as for `class_numbers`.

    Raises:
        MismatchError: a needed name is no class of the model's, or may be several.
        UsageError: what was asked for cannot be done with these lists.
    """
    needed = list(needed)
    if mapping is not None:
        return _match_by_mapping(names, classes, needed, mapping, where)
    if names is None:
        if asked == BY_NAME:
            what = "this dataset has no class names, only numbers"
            raise UsageError(what, where=where, hint="--labels by-number, or --labels FILE")
        return ClassMatch(
            {n: n for n in needed}, "the dataset's numbers are the model's: it names no classes", numbered=True
        )
    if asked == BY_NUMBER:
        return _match_by_number(names, classes, needed, where)
    found, rule = _match_by_name(names, classes)
    if all(n in found for n in needed):
        return ClassMatch({n: found[n] for n in needed}, rule)
    if asked is None and has_placeholder_names(classes) and len(names) == len(classes):
        return _match_unnamed(names, needed, where)
    missing = [names[n] for n in needed if n not in found]
    written = set(map(normalize_name, missing))
    several = [n for side in (names, classes) for n in _list_doubled(side) if normalize_name(n) in written]
    raise _mismatch_error(several, missing, {where: names, "the model": classes}, where, EITHER)


def match_classes(wanted: Sequence[str], given: Sequence[str], *, where: str, against: str) -> tuple[int, ...]:
    """For each name in `wanted`, its place in `given`.

    Args:
        wanted: names to be found, each once.
        given: names to look among.
        where: what `wanted` belongs to, for errors.
        against: what `given` belongs to.

    Raises:
        MismatchError: a name is missing, or two names differ only in case, spaces or underscores; both lists are shown.
    """
    places = {normalize_name(name): i for i, name in enumerate(given)}
    doubled = [*_list_doubled(wanted), *_list_doubled(given)]
    missing = [name for name in wanted if normalize_name(name) not in places]
    if doubled or missing:
        hint = "give the classes the same names in both"
        raise _mismatch_error(doubled, missing, {where: wanted, against: given}, where, hint)
    return tuple(places[normalize_name(name)] for name in wanted)


def _mismatch_error(
    doubled: Sequence[str], missing: Sequence[str], lists: Mapping[str, Sequence[str]], where: str, hint: str
) -> MismatchError:
    """The error of class names that do not match, with both lists by what they belong to."""
    what = f"class names are missing: {join_names(missing)}"
    if doubled:
        what = f"class names are ambiguous, for case, spaces and underscores do not count: {join_names(doubled)}"
    rows = "".join(f"\n  {place}: {join_names(names)}" for place, names in lists.items())
    return MismatchError(f"{what}{rows}", where=where, hint=hint)


def normalize_name(name: str) -> str:
    """A name without case, underscores and doubled spaces, its accents in one form."""
    return " ".join(unicodedata.normalize("NFC", name).casefold().replace("_", " ").split())


def has_placeholder_names(labels: Sequence[str]) -> bool:
    """Whether labels are only transformers' placeholders, LABEL_0 and so on, or each one's own number."""
    return any(list(labels) == [f"{word}{i}" for i in range(len(labels))] for word in ("LABEL_", ""))


def _match_by_mapping(
    names: Sequence[str] | None,
    classes: Sequence[str],
    needed: Sequence[int],
    mapping: Mapping[str, str | int],
    where: str,
) -> ClassMatch:
    """By a mapping that the user wrote; several names may be one class."""
    known = {normalize_name(key): value for key, value in mapping.items()}
    missing, found, numbered = [], {}, False
    for n in needed:
        name = None if names is None else normalize_name(names[n])
        numbered = numbered or name not in known
        value = known.get(str(n) if name is None or name not in known else name)
        if value is None:
            missing.append(n if names is None else names[n])
        else:
            found[n] = _find_class(value, classes, where)
    if missing:
        what = f"the mapping of --labels has no class for {join_names(missing)}"
        raise UsageError(what, where=where, hint="add them to the file")
    return ClassMatch(found, "by the mapping of --labels", numbered)


def _find_class(value: str | int, classes: Sequence[str], where: str) -> int:
    """The class that a mapping names, by its number or by its name."""
    if isinstance(value, str):
        places = [n for n, name in enumerate(classes) if name == value]
        places = places or [n for n, name in enumerate(classes) if normalize_name(name) == normalize_name(value)]
        if len(places) > 1:
            what = f"the model has {len(places)} classes {quoted(value)}"
            raise UsageError(
                what, where=where, hint=f"its number in the file of --labels: {' or '.join(map(str, places))}"
            )
        if places:
            return places[0]
        value = int(value) if value.isascii() and value.isdigit() else value
    if not isinstance(value, int) or not 0 <= value < len(classes):
        what = f"the mapping of --labels names {quoted(value)}, which is no class of the model's: {join_names(classes)}"
        raise UsageError(what, where=where, hint="a class name, or a number below the count of classes")
    return value


def _match_by_number(names: Sequence[str], classes: Sequence[str], needed: Sequence[int], where: str) -> ClassMatch:
    """By number as asked: the number in a name where all names are numbers, else its place in the dataset's list."""
    numbers = _parse_numbers(names)
    if numbers is None and len(names) != len(classes):
        what = f"the dataset names {len(names)} classes and the model has {len(classes)}, so their numbers differ"
        raise MismatchError(what, where=where, hint="--labels FILE, which maps one to the other")
    found = {n: n if numbers is None else numbers[n] for n in needed}
    if outside := [names[n] for n, number in found.items() if number >= len(classes)]:
        what = f"the model's classes are 0 to {len(classes) - 1}, the dataset has {join_names(outside)}"
        raise MismatchError(what, where=where, hint="--labels FILE, which maps one to the other")
    if numbers is None:
        return ClassMatch(found, "by number, as asked: the dataset's numbers are the model's", numbered=True)
    return ClassMatch(found, "by number, as asked: the dataset's names are numbers, and those are the model's")


def _match_unnamed(names: Sequence[str], needed: Sequence[int], where: str) -> ClassMatch:
    """By number where the model has no names; not where the names are numbers in another order."""
    numbers = _parse_numbers(names)
    if numbers is not None and numbers != list(range(len(names))):
        what = f"the model names no classes, and the dataset's are numbers in another order: {join_names(names)}"
        hint = f"--labels by-number takes {quoted(names[needed[0]])} as class {numbers[needed[0]]}; or --labels FILE"
        raise MismatchError(what, where=where, hint=hint)
    return ClassMatch(
        {n: n for n in needed}, "the dataset's numbers are the model's, which names no classes", numbered=True
    )


def _parse_numbers(names: Sequence[str]) -> list[int] | None:
    """The numbers that all names are, or end in after the same word; None where they are not."""
    parts = [re.fullmatch(r"(.*?)[ _-]?0*(\d{1,9})", name.strip()) for name in names]
    if not all(parts) or len({part.group(1) for part in parts if part}) > 1:
        return None
    found = [int(part.group(2)) for part in parts if part]
    bare = all(part and not part.group(1) for part in parts)
    return found if (bare and len(set(found)) == len(found)) or sorted(found) == list(range(len(found))) else None


def _match_by_name(names: Sequence[str], classes: Sequence[str]) -> tuple[dict[int, int], str]:
    """The classes that names decide, one to one, and how: letter by letter first, then as people write them."""
    if list(names) == list(classes):
        return {n: n for n in range(len(names))}, "by name"
    found: dict[int, int] = {}
    for key in (str, normalize_name, _hyphens):
        _add_unique_pairs(names, classes, found, partial(_alone, key))
    rule, direct = "by name", len(found)
    _add_unique_pairs(names, classes, found, _synonyms)
    if len(found) > direct:
        rule += f", {len(found) - direct} of them by one of the synonyms between commas"
    doubled = _match_by_place(names, classes, found)
    if doubled:
        found.update({n: n for n in doubled})
        rule += f"; names that stand twice by their place, as all others: {join_names([names[n] for n in doubled], 6)}"
    return found, rule


def _add_unique_pairs(
    names: Sequence[str], classes: Sequence[str], found: dict[int, int], keys: Callable[[str], set[str]]
) -> None:
    """Add the pairs of a name and a class that share a key with each other and with nothing else that is left."""
    left = {place: keys(classes[place]) for place in set(range(len(classes))) - set(found.values())}
    by_key: dict[str, set[int]] = {}
    for place, own in left.items():
        for key in own:
            by_key.setdefault(key, set()).add(place)
    fits = {
        n: set().union(*(by_key.get(key, set()) for key in keys(names[n]))) for n in range(len(names)) if n not in found
    }
    wanted = Counter(place for places in fits.values() for place in places)
    found.update({n: next(iter(p)) for n, p in fits.items() if len(p) == 1 and wanted[next(iter(p))] == 1})


def _alone(key: Callable[[str], str], text: str) -> set[str]:
    return {key(text)}


def _hyphens(text: str) -> str:
    return re.sub(r"(?<=\w)-(?=\w)", " ", normalize_name(text))


def _synonyms(text: str) -> set[str]:
    return {_hyphens(part) for part in text.split(",") if part.strip()}


def _match_by_place(names: Sequence[str], classes: Sequence[str], found: Mapping[int, int]) -> list[int]:
    """Names that are left because the model's stands twice, in lists of one length where all others have one place.

    The name must hold the model's, as `crane2` holds `crane`: a place alone decides nothing.
    """
    left = [n for n in range(len(names)) if n not in found]
    if len(names) != len(classes) or len(left) >= len(found) or any(n != place for n, place in found.items()):
        return []
    doubled = _doubled(classes)
    fits = all(
        normalize_name(classes[n]) in doubled and normalize_name(classes[n]) in normalize_name(names[n]) for n in left
    )
    return left if fits else []


def _doubled(names: Iterable[str]) -> set[str]:
    """Names, as `normalize_name` writes them, that occur more than once."""
    return {name for name, count in Counter(map(normalize_name, names)).items() if count > 1}


def _list_doubled(names: Sequence[str]) -> list[str]:
    """Names that differ from another one at most in case, spaces or underscores."""
    doubled = _doubled(names)
    return [name for name in names if normalize_name(name) in doubled]
