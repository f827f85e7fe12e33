"""The record of a bake: result, manifest, predictions, signatures."""
