"""evaluation.json: what soup and best ingredient said of every test image, for a report; and the pictures beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from hfsoup.errors import SoupError

if TYPE_CHECKING:
    from hfsoup.soup import Soup

NAME = "evaluation.json"
LIMIT = 64 << 20
Index = Annotated[int, Field(ge=0)]
Text = Annotated[str, Field(max_length=4096)]


class Evaluated(BaseModel):
    """Test images and what was said of them.

    `rows` are the images' places in the dataset's split `part`, in its column `column`; `labels`, `soup` and
    `best` are their classes: the true one, and the likeliest for the soup and for the ingredient number
    `best_ingredient`, as indices into `classes`.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    part: Text
    column: Text
    classes: Annotated[list[Text], Field(min_length=1)]
    best_ingredient: Index
    rows: Annotated[list[Index], Field(min_length=1)]
    labels: list[Index]
    soup: list[Index]
    best: list[Index]

    @model_validator(mode="after")
    def _whole(self) -> Evaluated:
        for name in ("labels", "soup", "best"):
            found = getattr(self, name)
            if len(found) != len(self.rows):
                raise ValueError(f"expected {len(self.rows)} {name}, found {len(found)}")
            if max(found) >= len(self.classes):
                raise ValueError(f"expected {name} below {len(self.classes)}, found {max(found)}")
        return self

    def text(self) -> str:
        """The file's content, one key a line."""
        lines = [f"{json.dumps(k)}: {json.dumps(v, ensure_ascii=False)}" for k, v in self.model_dump().items()]
        return "{\n" + ",\n".join(lines) + "\n}\n"


def evaluated(soup: Soup) -> Evaluated | None:
    """The record of a soup; None of one that was not tested."""
    seen, images = soup.evidence, soup.images
    if seen is None or images is None or soup.best is None:
        return None
    return Evaluated(
        part=images.test.part,
        column=images.test.column,
        classes=list(soup.family.labels),
        best_ingredient=soup.best,
        rows=images.test.rows.tolist(),
        labels=images.test.labels.tolist(),
        soup=list(seen.soup),
        best=list(seen.best),
    )


def write_evidence(soup: Soup, folder: Path) -> None:
    """Write what was seen, and draw it where that was asked for."""
    from hfsoup.figures import draw

    if (found := evaluated(soup)) is not None:
        (folder / NAME).write_text(found.text(), encoding="utf-8")
    if soup.options.figures:
        draw(soup, folder)


def parse(data: bytes, *, where: str) -> Evaluated:
    """The record in a file, which may come from anyone.

    Raises:
        SoupError: it is not one that hfsoup wrote.
    """
    try:
        return Evaluated.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))[:200]
        raise SoupError(f"{NAME} is damaged: {place}: {first['msg']}", where=where) from error
