"""A dataset becomes splits of pixels: files, rows, labels, images, splits."""
