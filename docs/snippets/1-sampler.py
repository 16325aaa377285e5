from pathlib import Path

import torch

import diffsteer
from diffsteer.data import pixels

denoiser = diffsteer.load("runs/first")
steps = 5
x = torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))  # t = 1000: nothing but noise
before, guesses = [], []
for i in range(steps):
    with torch.no_grad():
        guess = denoiser(x, 1000 * (1 - i / steps)).clamp(-1, 1)
    before.append(x)
    guesses.append(guess)
    x = x + (guess - x) / (steps - i)  # part of the way to the guess, in the last step all of it

rows = [f"step {i}" for i in range(steps)]
left, right = (pixels.grid(pixels.to_uint8(torch.cat(each)), columns=6, row_labels=rows) for each in (before, guesses))
sheet = pixels.side_by_side([left, right], ["x", "guess"])
pixels.write_png(sheet, Path("pictures/five-steps.png"))
sheet
