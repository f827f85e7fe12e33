"""Fine-tunes one base several times with different hyper-parameters, which makes a family for a soup."""
