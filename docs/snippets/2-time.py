from pathlib import Path

import torch

import diffsteer
from diffsteer.data import pixels

denoiser = diffsteer.load("runs/first")
x0 = pixels.to_signed(diffsteer.load_pictures("digits").pixels[:200])
eps = torch.randn(x0.shape, generator=torch.Generator().manual_seed(0))
x_t = denoiser.spec.process.add_noise(x0, eps, torch.full((200,), 500.0))  # half picture, half noise

told = (100, 300, 500, 700, 900)
with torch.no_grad():
    guesses = [denoiser(x_t, t) for t in told]
for t, guess in zip(told, guesses, strict=True):
    print(f"told t = {t}   mean square error {(guess - x0).square().mean():.3f}")

sheet = pixels.grid(
    pixels.to_uint8(torch.cat([each[:8] for each in (x0, x_t, *guesses)])),
    columns=8,
    row_labels=["x0", "x_t, t = 500", *(f"told {t}" for t in told)],
)
pixels.write_png(sheet, Path("pictures/time.png"))
sheet
