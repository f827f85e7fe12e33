"""A LoRA adapter and its base: what PEFT's config says, and the checkpoint that both make."""

MAX_RANK = 1 << 14
"""The largest rank of an adapter."""
