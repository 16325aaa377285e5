import torch


def hollow(pictures):
    """The four pixels in the middle are dark. pictures [B, C, H, W] in [0, 1], not clamped -> [B]"""
    return pictures[:, :, 3:5, 3:5].mean(dim=(1, 2, 3)) / 0.1


def leaning(pictures):
    """The upper half of the ink lies to the right of the lower half, by two pixels."""
    ink = pictures.clamp(min=0).mean(dim=1)  # [B, H, W]
    places = torch.linspace(0, ink.shape[2] - 1, ink.shape[2], device=ink.device)
    upper, lower = ink.chunk(2, dim=1)
    middles = [(half * places).sum(dim=(1, 2)) / (half.sum(dim=(1, 2)) + 1e-3) for half in (upper, lower)]
    return (middles[0] - middles[1] - 2).square() / (2 * 0.3**2)
