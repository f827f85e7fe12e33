"""The model card of a soup."""
