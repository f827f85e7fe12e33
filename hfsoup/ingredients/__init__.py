"""Which checkpoints go together: resolve, pull, headers, compatibility, base model."""
