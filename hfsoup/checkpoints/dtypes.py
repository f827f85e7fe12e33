"""The types of tensors, as safetensors and torch call them."""

from __future__ import annotations

TORCH_NAMES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16",
    "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool",
}  # fmt: skip
"""The names of torch by those of safetensors."""
FLOAT_NAMES = {stored: name for stored, name in TORCH_NAMES.items() if "float" in name}
FLOAT_DTYPES = {name: stored for stored, name in FLOAT_NAMES.items()}
