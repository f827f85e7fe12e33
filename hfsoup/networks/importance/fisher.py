"""The diagonal of the Fisher information: how much a model's predictions depend on each of its weights."""

from __future__ import annotations

import hashlib

import numpy as np
import torch

from hfsoup.averaging.accumulators import to_float64
from hfsoup.networks.importance import Estimates, Images, Subject, kind

PASSES = 512


@kind(
    "fisher",
    paper="arXiv:2111.09832",
    summary="the diagonal of the Fisher information over the classes that it predicts itself",
)
def fisher(subject: Subject, images: Images, seed: int) -> Estimates:
    """The mean over images x of E[(∂ log p(y|x) / ∂θ)²] for y ~ p(y|x): the true Fisher, which takes no labels.

    The gradient of log p(y|x) by the logits has mean 0 and covariance diag(p) − ppᵀ, and so has v = √p ⊙ r − (√p·r)p
    for random signs r; where classes are independent it is diag(p(1 − p)), and v = √(p(1 − p)) ⊙ r. With the Jacobian J
    of the logits, (Jᵀv)² is thus an unbiased estimate for one image or, as signs are independent, for the sum over
    several. Its variance is at most twice its square however confident the model is, while that of sampled classes has
    no bound. Up to 512 images have a backward pass each; more images share 512 passes. The seed draws the signs, the
    same for every ingredient.
    """
    parameters = {name: tensor for name, tensor in subject.parameters().items() if tensor.requires_grad}
    sums = {name: torch.zeros_like(tensor) for name, tensor in parameters.items()}
    digest = hashlib.sha256(str(seed).encode()).digest()
    generator, step = np.random.PCG64(int.from_bytes(digest, "big")), -(-len(images) // PASSES)
    for begin in range(0, len(images), step):
        logits = subject.forward(images[begin : begin + step])
        drawn = np.asarray(generator.random_raw(logits.numel())) & np.uint64(1)
        wide = to_float64(logits.detach())
        signs = torch.from_numpy(2.0 * drawn - 1).reshape(logits.shape).to(wide.device)
        vector = subject.task.rooted_fisher(wide, signs).to(logits)
        # Some models, such as levit, keep a piece of the graph for their next images.
        gradients = torch.autograd.grad(logits, list(parameters.values()), vector, retain_graph=True, allow_unused=True)
        for total, gradient in zip(sums.values(), gradients, strict=True):
            if gradient is not None:
                total.addcmul_(gradient, gradient)
        del logits
    return {name: (total / len(images)).detach().cpu().numpy() for name, total in sums.items()}
