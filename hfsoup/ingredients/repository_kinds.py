"""What a folder or repository holds instead of a checkpoint of transformers, by the names of its files."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable

from hfsoup.utils.text import join_names

NAMELESS = "weights without a config.json"
SAVE = "model.save_pretrained(FOLDER) writes a checkpoint"
# Patterns of names, what they are, and a hint; the first row that matches counts.
KINDS = (
    (r"model_index\.json", "a diffusers pipeline", "hfsoup is for image classifiers"),
    (r"saved_model\.pb|.*\.keras|keras_metadata\.pb|tf_model\.h5|.*\.h5", "a Keras or TensorFlow model", SAVE),
    (r"flax_model\.msgpack", "a Flax model", "AutoModel….from_pretrained(NAME, from_flax=True), saved again"),
    (r"model\.pkl|.*learner.*\.pkl|export\.pkl", "a fastai learner", SAVE),
    (r".*\.onnx", "an ONNX model", "the PyTorch checkpoint that it was exported from"),
    (r".*\.gguf", "a GGUF model", "hfsoup is for image classifiers"),
    (r".*\.mlmodel|.*\.mlpackage|.*\.tflite", "a model for another runtime", SAVE),
    (r"optimizer\.(pt|bin)|scheduler\.pt|rng_state.*\.pth|trainer_state\.json", "a Trainer's state", SAVE),
    (r".*\.(parquet|arrow|csv|jsonl|tar)", "a dataset", "--dataset"),
    (r".*\.(png|jpe?g|webp|tiff?|bmp)", "images", "--dataset"),
    (r".*\.(pt|pth|ckpt|th)", NAMELESS, SAVE),
)  # fmt: skip
TRAINING = re.compile(r"trainer_state\.json|optimizer\.(pt|bin)")
SILENT = (".gitattributes", ".gitignore")


def identify_kind(names: Iterable[str]) -> tuple[str, str] | None:
    """What files are, and a hint; None if no row of `KINDS` matches."""
    known = [posixpath.basename(name) for name in names]
    rows = ((text, hint) for pattern, text, hint in KINDS if any(re.fullmatch(pattern, name) for name in known))
    return next(rows, None)


def describe_files(names: Iterable[str]) -> str:
    """A few of the names and what they are, for the end of `expected …, found …`."""
    known = sorted(name for name in names if name not in SILENT)
    if not known:
        return "nothing"
    found = identify_kind(known)
    if found and found[0] == NAMELESS and "config.json" in known:
        found = None
    return join_names(known, 8) + (f" ({found[0]})" if found else " (a card alone)" if known == ["README.md"] else "")
