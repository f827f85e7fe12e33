"""Lets torchvision be imported beside a torch that its compiled operators were not built for.

PyPI's torchvision is built for a CUDA torch. timm uses only its transforms, which need no compiled operator; what fails
is the registration of shape functions for two operators that nothing has declared. They are declared here, when
torchvision is looked up for the first time. Python runs this module by itself where its folder is on PYTHONPATH.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType


class DeclareOperators(MetaPathFinder):
    """Finds nothing itself."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name == "torchvision":
            sys.meta_path.remove(self)
            import torch

            # A library takes its operators with it when it is collected.
            self.library = torch.library.Library("torchvision", "DEF")
            for operator in ("nms", "qnms"):
                self.library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
            OPERATORS.append(self)
        return None


OPERATORS: list[DeclareOperators] = []
sys.meta_path.insert(0, DeclareOperators())
