"""lora."""

MAX_RANK = 1 << 14
