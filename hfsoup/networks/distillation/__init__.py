"""One network trained to say what several say on average. It is no average of their weights."""
