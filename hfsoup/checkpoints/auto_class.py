"""The Auto class of transformers that loads the models, and what the Hub calls their task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class AutoClass:
    """An Auto class of transformers.

    Attributes:
        name: its name, `AutoModelFor…`.
        pipeline_tag: the task, as `pipeline()` and the metadata of a model card call it.
    """

    name: str
    pipeline_tag: str

    @property
    def title(self) -> str:
        """The task as the Hub writes it: Image Classification."""
        return self.pipeline_tag.replace("-", " ").title()

    def load(self) -> Any:
        """The class itself; imports transformers."""
        import transformers

        return getattr(transformers, self.name)

    def is_named_by(self, architecture: object) -> bool:
        """Whether a class of a config's `architectures`, as ViTForImageClassification, is one that this loads."""
        return isinstance(architecture, str) and self.name.removeprefix("AutoModel") in architecture


IMAGE_CLASSIFICATION = AutoClass("AutoModelForImageClassification", "image-classification")
