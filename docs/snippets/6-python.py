import diffsteer


def dim(pictures):
    """The picture's mean brightness, in units of 0.02."""
    return pictures.clamp(min=0).mean(dim=(1, 2, 3)) / 0.02


plain = diffsteer.sample("runs/labels", per_label=2)
steered = diffsteer.sample(diffsteer.steer("runs/labels", dim, strength=1), per_label=2)
for name, pictures in (("unsteered", plain), ("steered", steered)):
    print(f"{name}: mean brightness {pictures.pixels.float().mean() / 255:.3f}")
steered
