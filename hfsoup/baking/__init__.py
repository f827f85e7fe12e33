"""baking."""
