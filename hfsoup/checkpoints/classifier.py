"""The image classifier that a checkpoint's config and tensors make, called with prepared images."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers.modeling_outputs import ImageClassifierOutput
from transformers.utils.logging import set_tqdm_hook

from hfsoup.checkpoints.architecture import find_model_class
from hfsoup.checkpoints.processor import unpack_inputs
from hfsoup.utils.errors import LOADING_ERRORS, OutOfMemoryError, SoupError
from hfsoup.utils.text import format_count, one_line

_bars = threading.Lock()


class Classifier:
    """A model of any architecture and type, called with float32 images.

    Args:
        model: what transformers built.
        processor: the image processor that prepares its images.
        dtype: the model's floating type.
        where: the checkpoint, for errors.
    """

    def __init__(self, model: Any, processor: Any, dtype: torch.dtype, where: str) -> None:
        self._model, self._processor, self._dtype, self._where = model, processor, dtype, where

    def __call__(self, pixel_values: torch.Tensor) -> Any:
        """An output with `logits`, images × classes.

        Raises:
            SoupError: the model refuses the images.
        """
        given = unpack_inputs(self._processor, pixel_values)
        cast = {name: t.to(self._dtype) if t.is_floating_point() else t for name, t in given.items()}
        try:
            found = self._model(**cast)
        except torch.OutOfMemoryError as error:
            batch = format_count(len(pixel_values), "image")
            what = f"out of memory on {pixel_values.device} with a batch of {batch}"
            raise OutOfMemoryError(what, where=self._where, hint="a smaller --batch-size") from error
        except LOADING_ERRORS as error:
            what = f"the model cannot take these images: {type(error).__name__}: {one_line(error)}"
            hint = "save the image processor of the model's start in the same folder"
            raise SoupError(what, where=self._where, hint=hint) from error
        # Some models give their logits as the last hidden state.
        logits = getattr(found, "logits", getattr(found, "last_hidden_state", None))
        if logits is None or logits.ndim != 2:
            raise SoupError("expected a row of logits for every image, found none", where=self._where)
        return ImageClassifierOutput(logits=logits)


@contextmanager
def hide_loading_bars() -> Iterator[None]:
    """Hide transformers' progress bar of a load; one load at a time, as the switch is of the whole process."""
    with _bars:
        before = set_tqdm_hook(lambda factory, given, named: factory(*given, **{**named, "disable": True}))
        try:
            yield
        finally:
            set_tqdm_hook(before)


def build_model(config: Any, tensors: dict[str, torch.Tensor], dtype: torch.dtype, where: str) -> Any:
    """The model of a config, with `tensors` by the names that a weight file gives them.

    Raises:
        SoupError: they are not the ones that it has; `where` is the checkpoint.
    """
    kind = find_model_class(config)
    with hide_loading_bars():
        model, info = kind.from_pretrained(
            None, config=config, state_dict=tensors, dtype=dtype, output_loading_info=True
        )
    # Counters and indices that a file lacks are built with the model, always the same.
    counters = {name for name, tensor in model.state_dict().items() if not tensor.is_floating_point()}
    for which in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if found := set(info.get(which) or ()) - (counters if which == "missing_keys" else set()):
            names = ", ".join(sorted(map(str, found))[:5])
            what = f"this checkpoint does not fill the model: {which.removesuffix('_keys')} {names}"
            raise SoupError(what, where=where)
    return model
