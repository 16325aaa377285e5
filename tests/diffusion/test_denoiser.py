"""A network as it is read: its times, and the arithmetic that it draws in."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from diffsteer.diffusion.denoiser import Denoiser, ModelSpec, times_of
from diffsteer.diffusion.process import Process


class Watching(nn.Module):
    """Answers with what it is given, and notes how convolutions were to be computed then."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[bool] = []

    def forward(self, x: torch.Tensor, t: torch.Tensor, **labels: Any) -> SimpleNamespace:
        self.seen.append(torch.backends.cudnn.allow_tf32)
        return SimpleNamespace(sample=x)


@pytest.mark.parametrize("t", [300.0, torch.tensor(300), torch.tensor([300.0], dtype=torch.float64), torch.full((4,), 300.0)])
def test_a_time_is_each_pictures_own(t: Any) -> None:
    assert torch.equal(times_of(t, torch.zeros(4, 1, 8, 8)), torch.full((4,), 300.0))


def test_pictures_are_drawn_in_whole_float32_and_learnt_as_the_machine_does() -> None:
    spec = ModelSpec(Process("flow"), prediction="x0", conditioning="none", channels=1, height=8, width=8)
    network = Watching()
    denoiser, x = Denoiser(network, spec), torch.zeros(2, 1, 8, 8)
    before = torch.backends.cudnn.allow_tf32
    denoiser(x, 500.0)
    network.eval()
    denoiser(x, 500.0)
    assert network.seen == [before, False] and torch.backends.cudnn.allow_tf32 == before
