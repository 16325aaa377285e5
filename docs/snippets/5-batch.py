import torch

target = torch.tensor([0.1, 0.9, 0.5]).view(1, 3, 1, 1)


def pull(loss, batch_size):
    """How hard a loss pulls at the first picture of a batch."""
    pictures = torch.rand(batch_size, 3, 8, 8, generator=torch.Generator().manual_seed(0)).requires_grad_()
    (gradient,) = torch.autograd.grad(loss(pictures), pictures)
    return gradient[0].norm()


def lesson(pictures):
    return (pictures - target).abs().mean()  # over the batch as well


def ours(pictures):
    return (pictures - target).abs().mean(dim=(1, 2, 3)).sum()  # a loss for each picture


for batch_size in (1, 2, 4, 8):
    print(f"batch of {batch_size}: the lesson's loss pulls by {pull(lesson, batch_size):.4f}, ours by {pull(ours, batch_size):.4f}")
