"""Files to tensors: mixes, merges, running sums, the writer."""
