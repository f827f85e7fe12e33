"""Records become words and pictures: card, figures, page, notebook, summary."""
