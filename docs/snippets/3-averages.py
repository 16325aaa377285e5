from pathlib import Path

import torch

import diffsteer
from diffsteer.data import pixels

denoiser = diffsteer.load("runs/labels")
spec = denoiser.spec
cond = torch.arange(11)  # the ten digits, and 10: no label at all
assert spec.null_id == 10
noise = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(0)).expand(11, -1, -1, -1)
with torch.no_grad():
    guess = denoiser(noise, 1000, cond)

data = diffsteer.load_pictures("digits")
x0 = pixels.to_signed(data.pixels)
means = torch.stack([x0[data.labels == digit].mean(0) for digit in range(10)] + [x0.mean(0)])

sheet = pixels.grid(
    pixels.to_uint8(torch.cat([guess, means])),
    columns=11,
    row_labels=["guess at t = 1000", "mean of the data"],
    column_labels=[*spec.label_names, "none"],
)
pixels.write_png(sheet, Path("pictures/averages.png"))
sheet
