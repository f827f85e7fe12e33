"""Permutes the hidden units of ingredients with different initialisations, so that they can be averaged."""
