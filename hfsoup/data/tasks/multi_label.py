"""Several classes an image, or none: each is predicted where its own probability is at least one half."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hfsoup.data.class_names import ModelClasses
from hfsoup.data.label_mapping import BY_NAME
from hfsoup.data.labels import ELSEWHERE, UNLABELLED, FileLabels, MatchedLabels, format_rows, match_labels
from hfsoup.data.tasks.task import Labels, Predicted, Predictions, Task
from hfsoup.utils.errors import SoupError, UsageError
from hfsoup.utils.text import abbreviate_names, format_count, quoted

if TYPE_CHECKING:
    import torch

THRESHOLD = 0.5
LIST_TYPES = (
    "string",
    "large_string",
    "bool",
    *(f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)),
    "float16",
    "float32",
    "float64",
)
"""The types of datasets that lists of labels may have."""


class MultiLabel(Task):
    """Predictions are probabilities and labels 0 or 1, both images × classes."""

    name = "multi-label"
    problem_type = "multi_label_classification"
    metrics = ("average_precision", "f1_micro", "f1_macro")
    one_hot = True
    strata = "by the set of classes of an image"
    threshold = THRESHOLD
    rule = (
        "multi-label: a class is predicted where its sigmoid is at least 0.5, for f1_micro and f1_macro;"
        " average_precision (mAP) needs no threshold, and is the mean over the classes that some image has"
    )
    correct_text = "The set of classes that is predicted is exactly right"
    tags = ("multi-label",)

    def label_columns(self, features: Mapping[str, Any]) -> list[str]:
        """Lists of ClassLabel, else other lists of names or numbers, else one ClassLabel: each image has one class."""
        from datasets import ClassLabel

        lists = {name: feature.feature for name, feature in features.items() if hasattr(feature, "feature")}
        named = [name for name, inner in lists.items() if isinstance(inner, ClassLabel)]
        plain = [name for name, inner in lists.items() if getattr(inner, "dtype", None) in LIST_TYPES]
        return named or plain or [name for name, feature in features.items() if isinstance(feature, ClassLabel)]

    def class_names(self, feature: Any) -> Sequence[str] | None:
        """Those of a ClassLabel, or of one in a list."""
        return getattr(getattr(feature, "feature", feature), "names", None)

    def match_labels(self, labels: Sequence[FileLabels], model: ModelClasses, *, where: str) -> MatchedLabels:
        """0 or 1, rows × classes: of lists of names or numbers, of lists of a 0 or 1 for each class, or of one class.

        An empty list says that the image has none of the classes.
        """
        every, classes = [value for one in labels for value in one.values], model.names
        if missing := [n for n, value in enumerate(every) if value is None]:
            what = f"{len(missing)} rows without a label: {format_rows(missing)}; of no class is an empty list"
            raise SoupError(what, where=where, hint=ELSEWHERE)
        rows = [_parse_row(value, n, where) for n, value in enumerate(every)]
        if _is_vectors(rows, len(classes)) and all(one.names is None for one in labels):
            if model.asked == BY_NAME or model.mapping is not None:
                what = "the labels are a 0 or 1 for each class, in the order of the model's, and no names"
                raise UsageError(what, where=where, hint="--labels by-number")
            rule = "by place: each has a 0 or 1 for every class, in the model's order"
            return MatchedLabels(np.asarray(rows, np.int64).reshape(-1, len(classes)), rule, ())
        begin, flat = 0, []
        for one in labels:
            held = rows[begin : begin + len(one.values)]
            count = len(classes) if one.names is None else len(one.names)
            _require_numbers(held, count, begin, where)
            flat.append(FileLabels(one.file, [value for row in held for value in row], one.names))
            begin += len(one.values)
        found = np.zeros((len(rows), len(classes)), np.int64)
        if not any(each.values for each in flat):
            return MatchedLabels(found, "by name", ())
        matched = match_labels(flat, model, where=where)
        found[np.repeat(np.arange(len(rows)), [len(row) for row in rows]), matched.labels] = 1
        return MatchedLabels(found, matched.rule, matched.lists)

    def is_unlabelled(self, values: Sequence[Any]) -> bool:
        """Whether all are missing, -1 or empty."""
        return all(value is None or value in (UNLABELLED, []) or value == [UNLABELLED] for value in values)

    def take_predictions(self, predictions: Predictions, top: int) -> Predictions:  # noqa: ARG002
        """0 or 1 for every class."""
        return (predictions >= THRESHOLD).astype(np.int64)

    def probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        """A sigmoid for each class."""
        return logits.sigmoid()

    def outputs(self, logits: torch.Tensor, labels: Labels, top: int) -> Mapping[str, torch.Tensor]:  # noqa: ARG002
        """The sigmoids."""
        shares = logits.sigmoid()
        return {"predictions": shares, "confidence": shares.amax(1)}

    def mark_correct(self, predictions: Predictions, labels: Labels) -> NDArray[np.bool_]:
        """Whether exactly the true classes are predicted."""
        found: NDArray[np.bool_] = ((predictions >= THRESHOLD) == (labels == 1)).all(axis=1)
        return found

    def list_predicted(self, predictions: Predictions) -> tuple[Predicted, ...]:
        """The classes at the threshold or above."""
        return tuple(tuple(np.flatnonzero(row).tolist()) for row in predictions >= THRESHOLD)

    def list_true(self, labels: Labels) -> list[Any]:
        """The classes that an image has."""
        return [np.flatnonzero(row).tolist() for row in labels]

    def confidences(
        self,
        predictions: Predictions,
        confidence: NDArray[np.float32],  # noqa: ARG002
        labels: Labels,
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """The probability of every class of every image, and whether the image has it."""
        return predictions.ravel(), labels.ravel() == 1

    def loss(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Binary cross-entropy, the mean over images and classes."""
        from torch.nn.functional import binary_cross_entropy_with_logits

        return binary_cross_entropy_with_logits(logits, labels.to(logits.dtype))

    def divergence(self, logits: torch.Tensor, target: torch.Tensor, temperature: float) -> torch.Tensor:
        """The sum over classes of the divergence of each one's yes or no."""
        from torch.nn.functional import binary_cross_entropy_with_logits

        soft, wanted = (each.float() / temperature for each in (logits, target))
        shares = wanted.sigmoid()
        least = binary_cross_entropy_with_logits(wanted, shares, reduction="sum")
        return (binary_cross_entropy_with_logits(soft, shares, reduction="sum") - least) / len(soft)

    def rooted_fisher(self, logits: torch.Tensor, signs: torch.Tensor) -> torch.Tensor:
        """√(p(1 − p)) ⊙ r, whose covariance is diag(p(1 − p))."""
        shares = logits.sigmoid()
        return (shares * (1 - shares)).sqrt() * signs

    def describe_classes(self, names: Sequence[str]) -> str:
        """How many classes, the first of them, and that an image may have several."""
        classes = format_count(len(names), "class", "es")
        return f"{classes} ({abbreviate_names(names)}), of which an image may have several (multi-label, sigmoid)"


def _parse_row(value: Any, row: int, where: str) -> list[Any]:
    """The labels of one row: whole numbers or names; a 0 or 1 may be a float or a boolean in the dataset."""
    if value is None:
        raise SoupError(
            f"1 row without a label: {format_rows([row])}; an empty list is no class", where=where, hint=ELSEWHERE
        )
    held = value if isinstance(value, list) else [value]
    found = [int(one) if isinstance(one, (bool, float)) and one in (0, 1) else one for one in held]
    if odd := [one for one in found if type(one) not in (int, str)]:
        what = f"expected names, whole numbers or 0 and 1 as labels of an image, found {quoted(odd[0])} in row {row}"
        raise SoupError(what, where=where, hint="--label-column NAME")
    return found


def _is_vectors(rows: Sequence[Sequence[Any]], classes: int) -> bool:
    """Whether every row has a 0 or 1 for each class."""
    return bool(rows) and all(len(row) == classes and set(row) <= {0, 1} for row in rows)


def _require_numbers(rows: Sequence[Sequence[Any]], count: int, first: int, where: str) -> None:
    """Refuse numbers outside the classes, numbers mixed with names, and a class twice in a row."""
    outside = [n for n, row in enumerate(rows, first) if any(type(v) is int and not 0 <= v < count for v in row)]
    if outside:
        values = [v for v in rows[outside[0] - first] if type(v) is int and not 0 <= v < count]
        found = f"found {values[0]} in {len(outside)} of {len(rows)} rows ({format_rows(outside)})"
        raise SoupError(f"labels outside 0 to {count - 1}: {found}", where=where, hint=ELSEWHERE)
    if {int, str} <= {type(value) for row in rows for value in row}:
        raise SoupError("expected names or numbers as labels, found both", where=where, hint="--label-column NAME")
    if twice := [n for n, row in enumerate(rows, first) if len(set(row)) < len(row)]:
        what = f"the same class twice in {len(twice)} rows: {format_rows(twice)}"
        hint = f"each class once; a list of 0 and 1 has one for each of the model's {count} classes"
        raise SoupError(what, where=where, hint=hint)
