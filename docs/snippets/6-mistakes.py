import diffsteer
from diffsteer.errors import Mistake


def of_the_batch(pictures):
    return (pictures - 0.9).abs().mean()


def counts(pictures):
    return (pictures > 0.5).float().mean(dim=(1, 2, 3))


def among_others(pictures):
    return (pictures - pictures.mean(dim=0)).abs().mean(dim=(1, 2, 3))


for loss in (of_the_batch, counts, among_others):
    try:
        diffsteer.steer("runs/labels", loss)
    except Mistake as mistake:
        print(mistake, end="\n\n")
