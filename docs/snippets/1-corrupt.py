from pathlib import Path

import torch

import diffsteer
from diffsteer.data import pixels
from diffsteer.diffusion.process import Process

process = Process("flow")  # alpha_t = 1 - t / 1000, sigma_t = t / 1000
x0 = pixels.to_signed(diffsteer.load_pictures("digits").pixels[:8])  # [8, 1, 8, 8], from -1 (black) to 1 (white)
eps = torch.randn(x0.shape, generator=torch.Generator().manual_seed(0))
t = torch.linspace(0, 1000, 8)
x_t = process.add_noise(x0, eps, t)  # alpha_t * x0 + sigma_t * eps

sheet = pixels.grid(
    pixels.to_uint8(torch.cat([x0, x_t])),
    columns=8,
    row_labels=["x0", "x_t"],
    column_labels=[f"{time:.0f}" for time in t],
    title="t",
)
pixels.write_png(sheet, Path("pictures/corrupted.png"))
sheet
