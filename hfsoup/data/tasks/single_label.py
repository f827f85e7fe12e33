"""One class an image: the likeliest one is predicted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hfsoup.data.class_names import ModelClasses
from hfsoup.data.labels import UNLABELLED, FileLabels, MatchedLabels, match_labels
from hfsoup.data.metrics import check_predictions
from hfsoup.data.tasks.task import Labels, Predicted, Predictions, Task
from hfsoup.utils.text import abbreviate_names, format_count

if TYPE_CHECKING:
    import torch


class SingleLabel(Task):
    """Predictions are class indices, images × `top`, the likeliest first, or probabilities, images × classes.

    Labels are one class index an image.
    """

    name = "single-label"
    problem_type = "single_label_classification"
    metrics = ("accuracy", "top5_accuracy", "f1_macro", "balanced_accuracy")
    scripts = True
    strata = "by class"
    correct_text = "The class that is named first is right"

    def label_columns(self, features: Mapping[str, Any]) -> list[str]:
        """Those of ClassLabel."""
        from datasets import ClassLabel

        return [name for name, feature in features.items() if isinstance(feature, ClassLabel)]

    def class_names(self, feature: Any) -> Sequence[str] | None:
        """Those of a ClassLabel."""
        return getattr(feature, "names", None)

    def match_labels(self, labels: Sequence[FileLabels], model: ModelClasses, *, where: str) -> MatchedLabels:
        """One class number a row."""
        return match_labels(labels, model, where=where)

    def is_unlabelled(self, values: Sequence[Any]) -> bool:
        """Whether all are missing, empty or -1, as in the test split of ImageNet."""
        return all(value in (None, "") or (type(value) is int and value == UNLABELLED) for value in values)

    def take_predictions(self, predictions: Predictions, top: int) -> Predictions:
        """The likeliest class of every image; images × classes where several are named."""
        return predictions[:, 0] if top == 1 else predictions

    def check_predictions(self, predictions: Any, labels: Any) -> tuple[Predictions, Labels]:
        """Both are class indices."""
        return check_predictions(predictions, labels)

    def probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        """The softmax over classes."""
        return logits.softmax(1)

    def outputs(self, logits: torch.Tensor, labels: Labels, top: int) -> Mapping[str, torch.Tensor]:
        """The likeliest classes, or for a `top` of 0 the softmax, and what the softmax gives them.

        Of classes with equal logits the first comes first, as with argmax; `topk` takes any of them.
        """
        import torch

        shares = logits.softmax(1)
        # Without waiting for the device.
        truth = torch.from_numpy(labels).to(logits.device, non_blocking=True)
        return {
            "predictions": logits.sort(dim=1, descending=True, stable=True).indices[:, :top].int() if top else shares,
            "true_class_probability": shares.gather(1, truth[:, None])[:, 0],
            "confidence": shares.amax(1),
        }

    def mark_correct(self, predictions: Predictions, labels: Labels) -> NDArray[np.bool_]:
        """Whether the true class is among those that are predicted."""
        found: NDArray[np.bool_] = (_rank_classes(predictions) == labels[:, None]).any(axis=1)
        return found

    def list_predicted(self, predictions: Predictions) -> tuple[Predicted, ...]:
        """The likeliest class."""
        return tuple(_rank_classes(predictions)[:, 0].tolist())

    def list_true(self, labels: Labels) -> list[Any]:
        """The true class."""
        return list(labels.tolist())

    def confidences(
        self, predictions: Predictions, confidence: NDArray[np.float32], labels: Labels
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """The probability of the likeliest class of every image, and whether it is true."""
        return confidence, _rank_classes(predictions)[:, 0] == labels

    def loss(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Cross-entropy."""
        from torch.nn.functional import cross_entropy

        return cross_entropy(logits, labels)

    def divergence(self, logits: torch.Tensor, target: torch.Tensor, temperature: float) -> torch.Tensor:
        """KL(target ‖ logits) of the softened softmax."""
        from torch.nn.functional import kl_div

        soft, wanted = ((each.float() / temperature).log_softmax(1) for each in (logits, target))
        return kl_div(soft, wanted, reduction="batchmean", log_target=True)

    def rooted_fisher(self, logits: torch.Tensor, signs: torch.Tensor) -> torch.Tensor:
        """√p ⊙ r − (√p·r)p, whose covariance is diag(p) − ppᵀ."""
        shares = logits.softmax(1)
        rooted = shares.sqrt() * signs
        return rooted - rooted.sum(1, keepdim=True) * shares

    def describe_classes(self, names: Sequence[str]) -> str:
        """How many classes, and the first of them."""
        return f"{format_count(len(names), 'class', 'es')} ({abbreviate_names(names)})"


def _rank_classes(predictions: Predictions) -> Predictions:
    """Class indices, images × classes named, also of probabilities."""
    return predictions.argmax(axis=1)[:, None] if predictions.dtype.kind == "f" else predictions
