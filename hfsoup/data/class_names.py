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
class ModelClasses:
    """The class names of a model in the order of its head, and how those of a dataset are matched with them.

    `asked` is `by-name` or `by-number`; None matches by name, and by number if one side has no names. `mapping` has the
    model's class, by name or number, for names or numbers of the dataset; it comes first.
    """

    names: Sequence[str]
    asked: str | None = None
    mapping: Mapping[str, str | int] | None = None


@dataclass(frozen=True)
class ClassMatch:
    """The model's class for numbers of a dataset, the rule, and whether it is by number without names."""

    places: dict[int, int]
    rule: str
    numbered: bool = False


def match_dataset_classes(
    names: Sequence[str] | None, model: ModelClasses, needed: Iterable[int], *, where: str
) -> ClassMatch:
    """The model's class for each number of a dataset that some image has.

    Args:
        names: the dataset's class names in the order of their numbers, None if it has none.
        model: the model's classes.
        needed: the numbers that images have.
        where: dataset, split and column, for errors.

    Raises:
        MismatchError: a needed name is no class of the model's, or may be several.
        UsageError: these lists cannot be matched as was asked.
    """
    needed, classes = list(needed), model.names
    if model.mapping is not None:
        return _match_by_mapping(names, classes, needed, model.mapping, where)
    if names is None:
        if model.asked == BY_NAME:
            what = "expected class names, found only numbers in this dataset"
            raise UsageError(what, where=where, hint="--labels by-number, or --labels FILE")
        rule = "the dataset's numbers are the model's: it names no classes"
        return ClassMatch({n: n for n in needed}, rule, numbered=True)
    if model.asked == BY_NUMBER:
        return _match_by_number(names, classes, needed, where)
    found, rule = _match_by_name(names, classes)
    if all(n in found for n in needed):
        return ClassMatch({n: found[n] for n in needed}, rule)
    if model.asked is None and has_placeholder_names(classes) and len(names) == len(classes):
        return _match_unnamed(names, needed, where)
    missing = [names[n] for n in needed if n not in found]
    plain = set(map(normalize_name, missing))
    doubles = [name for name in (*_find_doubles(names), *_find_doubles(classes)) if normalize_name(name) in plain]
    raise _make_mismatch(missing, doubles, {where: names, "the model": classes}, EITHER)


def match_classes(wanted: Sequence[str], given: Sequence[str], *, where: str, against: str) -> tuple[int, ...]:
    """For each name in `wanted`, its place in `given`.

    Args:
        wanted: the names to find, each once.
        given: the names to search.
        where: what `wanted` belongs to, for errors.
        against: what `given` belongs to.

    Raises:
        MismatchError: a name is missing, or two names differ only in case, spaces or underscores; both lists are shown.
    """
    places = {normalize_name(name): i for i, name in enumerate(given)}
    doubles = [*_find_doubles(wanted), *_find_doubles(given)]
    missing = [name for name in wanted if normalize_name(name) not in places]
    if doubles or missing:
        hint = "give the classes the same names in both"
        raise _make_mismatch(missing, doubles, {where: wanted, against: given}, hint)
    return tuple(places[normalize_name(name)] for name in wanted)


def _make_mismatch(
    missing: Sequence[str], doubles: Sequence[str], lists: Mapping[str, Sequence[str]], hint: str
) -> MismatchError:
    """The error of two lists of class names, by what each belongs to, that do not match."""
    if doubles:
        what = f"class names are ambiguous, for case, spaces and underscores do not count: {join_names(doubles)}"
    else:
        what = f"class names are missing: {join_names(missing)}"
    shown = [f"{title}: {join_names(names)}" for title, names in lists.items()]
    return MismatchError("\n  ".join([what, *shown]), where=next(iter(lists)), hint=hint)


def _find_doubles(names: Sequence[str]) -> list[str]:
    """The names that equal another one but for case, spaces and underscores."""
    plain = [normalize_name(name) for name in names]
    count = Counter(plain)
    return [name for name, key in zip(names, plain, strict=True) if count[key] > 1]


def normalize_name(name: str) -> str:
    """A name without case, underscores and doubled spaces, its accents in one form."""
    return " ".join(unicodedata.normalize("NFC", name).casefold().replace("_", " ").split())


def has_placeholder_names(labels: Sequence[str]) -> bool:
    """Whether names are only transformers' placeholders, LABEL_0 and so on, or the numbers themselves."""
    return any(list(labels) == [f"{word}{i}" for i in range(len(labels))] for word in ("LABEL_", ""))


def _match_by_mapping(
    names: Sequence[str] | None,
    classes: Sequence[str],
    needed: Sequence[int],
    mapping: Mapping[str, str | int],
    where: str,
) -> ClassMatch:
    """By the user's mapping; several names may be one class."""
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
    """The number of the class that a mapping has, by number or by name."""
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
    """By number as asked: the number in each name if all names are numbers, else its place in the dataset's list."""
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
    """By number for a model without names, unless the dataset's names are numbers in another order."""
    numbers = _parse_numbers(names)
    if numbers is not None and numbers != list(range(len(names))):
        what = f"the model names no classes, and the dataset's are numbers in another order: {join_names(names)}"
        hint = f"--labels by-number takes {quoted(names[needed[0]])} as class {numbers[needed[0]]}; or --labels FILE"
        raise MismatchError(what, where=where, hint=hint)
    return ClassMatch(
        {n: n for n in needed}, "the dataset's numbers are the model's, which names no classes", numbered=True
    )


def _parse_numbers(names: Sequence[str]) -> list[int] | None:
    """The numbers that all names are, or end in after the same word; else None."""
    parts = [re.fullmatch(r"(.*?)[ _-]?0*(\d{1,9})", name.strip()) for name in names]
    if not all(parts) or len({part.group(1) for part in parts if part}) > 1:
        return None
    found = [int(part.group(2)) for part in parts if part]
    bare = all(part and not part.group(1) for part in parts)
    return found if (bare and len(set(found)) == len(found)) or sorted(found) == list(range(len(found))) else None


def _match_by_name(names: Sequence[str], classes: Sequence[str]) -> tuple[dict[int, int], str]:
    """Classes by name, one to one, and the rule: exact names first, then without case, underscores and hyphens."""
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
    """Add the pairs of a name and a class that share a key with each other and with no other that is left."""
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
    """Numbers of names that are left because the model has theirs twice, if all others have the same place in both.

    The name must contain the model's, as `crane2` contains `crane`: the place alone is not enough.
    """
    left = [n for n in range(len(names)) if n not in found]
    if len(names) != len(classes) or len(left) >= len(found) or any(n != place for n, place in found.items()):
        return []
    doubled = set(map(normalize_name, _find_doubles(classes)))
    fits = all(
        normalize_name(classes[n]) in doubled and normalize_name(classes[n]) in normalize_name(names[n]) for n in left
    )
    return left if fits else []
