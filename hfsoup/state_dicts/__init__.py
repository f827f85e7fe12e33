"""Search, align, fit, estimate and distill for any torch model."""
