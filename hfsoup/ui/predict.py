"""Classify one image with a soup and its best ingredient."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hfsoup.averaging.mix import Mix
from hfsoup.baking.soup import Soup
from hfsoup.data.decoding import BYTES, BadImageError, decode
from hfsoup.data.tasks import task_of
from hfsoup.utils.errors import SoupError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MOST = 5


@dataclass(frozen=True)
class Prediction:
    """The most likely classes of a model with their probabilities, best first."""

    who: str
    classes: tuple[tuple[str, float], ...]


def classify_picture(soup: Soup, picture: Path, device: str) -> tuple[Prediction, ...]:
    """Classify an image with the soup and its best ingredient, or with the soup alone if nothing was measured.

    Both are averaged from the ingredients' files, with the class names and the image processor of the soup, and run on
    `device`, as torch names it.

    Raises:
        SoupError: the file is not an image, or an ingredient is missing.
    """
    from hfsoup.checkpoints.processor import load_image_processor

    return tuple(
        _classify(
            soup, _read_pixels(picture, load_image_processor(soup.family.processor_ingredient.processor_folder)), device
        )
    )


def _classify(soup: Soup, pixels: NDArray[np.float32], device: str) -> Iterator[Prediction]:
    import torch

    from hfsoup.averaging.averager import Averager
    from hfsoup.evaluation.candidate import Candidate

    family = soup.family
    shown = [("the soup", soup.mix)]
    if soup.best is not None:
        shown.append((str(family.ingredients[soup.best]), Mix.of((soup.best,), len(family))))
    with Averager(family, soup.options.merge, soup.options.stored_dtype, soup.options.merge_parameters()) as averager:
        candidate = Candidate(averager, torch.device(device))
        for n, (who, mix) in enumerate(shown):
            model = candidate.load(mix)
            if n == 0 and soup.composition.statistics:
                candidate.set_statistics(soup.composition.statistics)
            with torch.no_grad():
                logits = model(torch.from_numpy(pixels).to(device)).logits.float()
            shares = task_of(family.config).probabilities(logits)[0]
            best = shares.topk(min(MOST, len(shares)))
            likeliest = zip(best.indices.tolist(), best.values.tolist(), strict=True)
            yield Prediction(who, tuple((family.labels[place], share) for place, share in likeliest))


def _read_pixels(picture: Path, processor: Any) -> NDArray[np.float32]:
    """Images × channels × height × width, of one image."""
    import numpy as np

    from hfsoup.utils.errors import LOADING_ERRORS
    from hfsoup.utils.text import one_line

    try:
        with picture.open("rb") as file:
            image = decode(file.read(BYTES + 1)).picture
        return np.asarray(processor(images=[image], return_tensors="pt")["pixel_values"], np.float32)
    except BadImageError as error:
        raise SoupError(f"this file cannot be used as an image: {error}") from error
    except LOADING_ERRORS as error:
        raise SoupError(f"the image processor refuses this image: {one_line(error, 100)}") from error
