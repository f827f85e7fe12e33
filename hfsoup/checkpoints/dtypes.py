"""The float types of tensors, as safetensors and torch call them."""

from __future__ import annotations

FLOAT_DTYPES = {"float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16"}
"""The names of safetensors by those of torch."""
FLOAT_NAMES = {stored: name for name, stored in FLOAT_DTYPES.items()}
