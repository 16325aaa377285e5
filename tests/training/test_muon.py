"""Muon: orthogonal updates by their singular values, torch's own Muon and AdamW as oracles, and which weights are hidden."""

from __future__ import annotations

import pytest
import torch
from diffusers import UNet2DModel
from torch import nn

from diffsteer.diffusion.networks import BasicUNet, ConditionalUNet, LabelChannelsUNet, unet_config
from diffsteer.training.muon import Muon, hidden_and_others, orthogonalized


@pytest.mark.parametrize("shape", [(3, 16, 16), (2, 8, 72), (1, 64, 9)])
def test_singular_values_come_near_one_and_singular_vectors_stay(shape: tuple[int, int, int]) -> None:
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    u, values, vh = torch.linalg.svd(matrices, full_matrices=False)
    seen = u.mT @ orthogonalized(matrices) @ vh.mT
    found = seen.diagonal(dim1=1, dim2=2)
    assert torch.allclose(seen, torch.diag_embed(found), atol=1e-6)
    assert found[values > 0.02 * values.sum()].sub(1).abs().max() < 0.35


def test_a_matrix_steps_as_in_torchs_own_muon() -> None:
    generator = torch.Generator().manual_seed(0)
    ours, theirs = (nn.Parameter(torch.ones(12, 40)) for _ in range(2))
    mine = Muon([ours], [], 0.01, (0.9, 0.999), 0.1)
    other = torch.optim.Muon([theirs], lr=0.04, weight_decay=0.025, momentum=0.9, adjust_lr_fn="match_rms_adamw")
    for _ in range(10):
        ours.grad = torch.randn(ours.shape, generator=generator)
        theirs.grad = ours.grad.clone()
        mine.step()
        other.step()
    moved = (ours - 1).norm()
    assert (ours - theirs).norm() < 0.02 * moved, "torch multiplies in bfloat16"


def test_a_kernel_is_read_as_a_matrix_and_shapes_do_not_mix() -> None:
    generator = torch.Generator().manual_seed(0)
    kernel, flat, other = (nn.Parameter(torch.zeros(shape)) for shape in ((6, 4, 3, 3), (6, 36), (6, 36)))
    kernel.grad, other.grad = torch.randn(kernel.shape, generator=generator), torch.randn(other.shape, generator=generator)
    flat.grad = kernel.grad.flatten(1).clone()
    Muon([kernel, flat, other], [], 1.0, (0.9, 0.999), 0.0).step()
    assert torch.allclose(kernel.flatten(1), flat, atol=1e-6)
    assert flat.square().mean().sqrt().item() == pytest.approx(0.8, rel=0.2), "the root mean square of an update is 0.8 of the rate"
    assert not torch.allclose(other, flat)


def test_the_rest_steps_as_adamw() -> None:
    generator = torch.Generator().manual_seed(0)
    ours, theirs = ([nn.Parameter(torch.ones(5)), nn.Parameter(torch.ones(2, 3))] for _ in range(2))
    mine = Muon([], ours, 0.01, (0.9, 0.99), 0.1)
    other = torch.optim.AdamW(theirs, lr=0.01, betas=(0.9, 0.99), weight_decay=0.1)
    for _ in range(20):
        for one, two in zip(ours, theirs, strict=True):
            one.grad = torch.randn(one.shape, generator=generator)
            two.grad = one.grad.clone()
        mine.step()
        other.step()
    for one, two in zip(ours, theirs, strict=True):
        assert torch.allclose(one, two, atol=1e-6)


def names(network: nn.Module) -> set[str]:
    """The names of the weights that are not hidden, biases and norms apart."""
    _, others = hidden_and_others(network)
    ids = {id(one) for one in others}
    return {name for name, one in network.named_parameters() if id(one) in ids and one.ndim > 1}


def test_what_touches_the_picture_or_is_an_embedding_is_not_hidden() -> None:
    config = unet_config((32, 64), 1, 1, 32, 0.0, 16, 11)
    assert names(UNet2DModel(sample_size=8, in_channels=1, out_channels=1, **config)) == {
        "conv_in.weight",
        "conv_out.weight",
        "class_embedding.weight",
    }
    plain = {**config, "num_class_embeds": None}
    assert names(LabelChannelsUNet((8, 8), unet=plain)) == {"class_emb.weight", "model.conv_in.weight", "model.conv_out.weight"}
    assert names(ConditionalUNet()) == {"label_embed.weight", "conv0.weight", "final.weight"}
    assert names(BasicUNet()) == {"down_layers.0.weight", "up_layers.2.weight"}
    hidden, others = hidden_and_others(BasicUNet())
    assert len(hidden) + len(others) == len(list(BasicUNet().parameters()))
