"""The version of hfsoup, so that nobody imports the package for it."""

__version__ = "0.2.0"
