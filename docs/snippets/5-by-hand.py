from itertools import pairwise
from pathlib import Path

import torch

import diffsteer
from diffsteer.data import pixels

denoiser = diffsteer.load("runs/color")
process = denoiser.spec.process
target = torch.tensor([0.1, 0.9, 0.5]).view(1, 3, 1, 1)


def loss(x0):
    """One number per picture: how far its mean colour is from a dim green, in squared tolerances."""
    pictures = (x0 + 1) / 2
    away = pictures.mean(dim=(2, 3)) - 0.5 * target[:, :, 0, 0]
    return away.square().sum(dim=1) / (2 * 0.1**2)


def draw(strength, steps=40):
    times = torch.linspace(980, 0, steps + 1)
    x = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    for now, then in pairwise(times):
        (alpha, sigma), (alpha_next, sigma_next) = process.alpha_sigma(now), process.alpha_sigma(then)
        x = x.detach().requires_grad_()
        x0 = denoiser(x, now)
        (gradient,) = torch.autograd.grad(loss(x0).sum(), x)  # J^T d: through the network
        x0 = (x0 - strength * sigma**2 / alpha * gradient).clamp(-1, 1)  # moved first, clamped after
        eps = (x - alpha * x0) / sigma
        x = alpha_next * x0 + sigma_next * eps  # a DDIM step, taken once
    return x.detach()


drawn = [draw(strength) for strength in (0, 0.3, 1)]
print("loss", [round(float(loss(x).mean()), 2) for x in drawn])
sheet = pixels.grid(pixels.to_uint8(torch.cat(drawn)), columns=6, row_labels=["strength 0", "strength 0.3", "strength 1"])
pixels.write_png(sheet, Path("pictures/by-hand.png"))
sheet
