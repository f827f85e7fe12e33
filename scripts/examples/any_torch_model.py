"""Average any torch models by any score, without the Hub or a dataset.

Five copies of one model are fine-tuned on noisy data with different learning rates. The greedy recipe then searches for
the average with the lowest loss on validation data.
"""

from __future__ import annotations

import torch

import hfsoup

torch.manual_seed(0)
inputs, truth = torch.randn(400, 8), torch.randn(8)
targets = inputs @ truth + torch.randn(400)
train, validation, test = slice(0, 60), slice(60, 200), slice(200, 400)


def loss(weights: dict[str, torch.Tensor], part: slice) -> float:
    """The mean squared error of a state dict."""
    model = torch.nn.Linear(8, 1)
    model.load_state_dict(weights)
    with torch.no_grad():
        return torch.nn.functional.mse_loss(model(inputs[part]).squeeze(1), targets[part]).item()


start = torch.nn.Linear(8, 1).state_dict()
ingredients = []
for rate in (0.003, 0.01, 0.03, 0.1, 0.2):
    model = torch.nn.Linear(8, 1)
    model.load_state_dict(start)
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    for batch in torch.randint(0, 60, (100, 8)):
        optimizer.zero_grad()
        torch.autograd.backward(torch.nn.functional.mse_loss(model(inputs[batch]).squeeze(1), targets[batch]))
        optimizer.step()
    ingredients.append(model.state_dict())

# A higher score is better, so the loss is negated.
found = hfsoup.search("greedy", ingredients, score=lambda weights: -loss(weights, validation))
best = min(ingredients, key=lambda weights: loss(weights, validation))

print("weights:", [round(weight, 2) for weight in found.weights])
print(f"test loss of the best ingredient: {loss(best, test):.3f}")
print(f"test loss of the soup: {loss(found.state_dict(), test):.3f}")
