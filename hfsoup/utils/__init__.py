"""Helpers without knowledge of soups: errors, text, hashing, caches, progress, processes, registries."""
