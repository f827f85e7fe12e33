"""state_dicts."""
