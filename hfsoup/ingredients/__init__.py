"""ingredients."""
