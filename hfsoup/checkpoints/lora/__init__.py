"""LoRA adapters of PEFT: the config, and the merge of an adapter into its base."""

MAX_RANK = 1 << 14
"""The largest rank of an adapter."""
