from pathlib import Path

import torch

import diffsteer
from diffsteer.data import pixels

denoiser = diffsteer.load("runs/first")
x0 = pixels.to_signed(diffsteer.load_pictures("digits").pixels[:8])
eps = torch.randn(x0.shape, generator=torch.Generator().manual_seed(0))
t = torch.linspace(0, 1000, 8)
x_t = denoiser.spec.process.add_noise(x0, eps, t)
with torch.no_grad():
    guess = denoiser(x_t, t)  # the network's guess at x0, all eight at once

sheet = pixels.grid(
    pixels.to_uint8(torch.cat([x0, x_t, guess])),
    columns=8,
    row_labels=["x0", "x_t", "guess"],
    column_labels=[f"{time:.0f}" for time in t],
    title="t",
)
pixels.write_png(sheet, Path("pictures/guesses.png"))
for time, error in zip(t, (guess - x0).square().mean(dim=(1, 2, 3)), strict=True):
    print(f"t = {time:4.0f}   mean square error {error:.3f}")
sheet
