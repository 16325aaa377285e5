import torch

import diffsteer

denoiser = diffsteer.load("runs/labels")
spec = denoiser.spec


def guided(x_t, t, label, scale):
    """The guess at x0, moved on along the way from no label to this one."""
    cond, none = torch.tensor([label]), torch.tensor([spec.null_id])
    with_label, without = denoiser(x_t, t, cond), denoiser(x_t, t, none)
    return without + scale * (with_label - without)


x_t = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))
with torch.no_grad():
    for scale in (0, 1, 2, 4):
        guess = guided(x_t, 1000, 3, scale)
        print(f"scale {scale}: darkest {guess.min():5.2f}, lightest {guess.max():5.2f}")
