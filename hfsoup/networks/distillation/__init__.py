"""Trains one network to match the mean logits of several. Its weights are not an average of theirs."""
