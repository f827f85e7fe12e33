"""The image processor of a checkpoint."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hfsoup.checkpoints.timm_config import build_timm_processor, read_image_settings, read_model_config
from hfsoup.utils.errors import LOADING_ERRORS, MISSING_LIBRARY, SoupError
from hfsoup.utils.text import one_line


def load_image_processor(folder: Path) -> Any:
    """The image processor of a model folder; what it gives is one array of floats per image.

    Raises:
        SoupError: transformers has none for its files, or it does not take an image.
    """
    from PIL import Image
    from transformers import AutoImageProcessor

    from hfsoup.checkpoints.model_inputs import SIDE, pack_inputs

    path = folder / "config.json"
    config = read_model_config(path, where=str(path)) if path.is_file() else {}
    what, found = "this model has no image processor that can be loaded", None
    hint = "save its processor beside it: AutoImageProcessor.from_pretrained(START).save_pretrained(FOLDER)"
    try:
        load: Any = AutoImageProcessor.from_pretrained
        found = (
            build_timm_processor(config)
            if read_image_settings(config)
            else load(str(folder), local_files_only=True, trust_remote_code=False)
        )
        prepared = pack_inputs(found)
        prepared(images=[Image.new("RGB", (SIDE, SIDE))], return_tensors="pt")
    except LOADING_ERRORS as error:
        if found is not None:
            what = f"{type(found).__name__} takes no image with the values of its files"
            hint = f"{hint}, with its image_processor_type"
        # The first sentence says why; what follows lists what there is.
        reason = re.split(r"\.\s", str(error).strip())[0].replace(str(folder), "its files")
        if lacking := MISSING_LIBRARY.search(str(error)):
            hint = f"pip install {lacking[1].lower()}"
        raise SoupError(f"{what}: {one_line(reason)}", where=str(folder), hint=hint) from error
    return prepared
