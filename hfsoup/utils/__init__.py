"""What knows nothing of soups: errors, text, hashing, caches, progress, processes."""
