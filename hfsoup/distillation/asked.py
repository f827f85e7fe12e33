"""What cannot be meant together with a distillation, told before anything is read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hfsoup.errors import UsageError

if TYPE_CHECKING:
    from hfsoup.options import Options


def refuse(options: Options) -> None:
    """Refuse options under which no network can be trained.

    Raises:
        UsageError: they do not go together.
    """
    if options.distill is None:
        return
    if options.distill < 1:
        raise UsageError(f"distill is a number of epochs, at least 1, found {options.distill}")
    if options.dataset is None:
        raise UsageError("a network is trained on images, and scored", hint="--dataset ORG/NAME")
    if options.as_adapter is not None:
        raise UsageError("a network that was trained whole is no adapter", hint="--distill or --as-adapter, not both")
    if options.on_mismatch == "backbone-only":
        raise UsageError("ingredients of other classes have no logits in common", hint="--on-mismatch skip-ingredient")
