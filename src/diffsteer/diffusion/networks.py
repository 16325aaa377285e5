"""The networks. All are called as diffusers' `UNet2DModel` is: `network(x, t, class_labels=None).sample`.

This file needs torch and diffusers only: a copy of it travels in the model folders whose network is not a plain `UNet2DModel`.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from diffusers import ModelMixin, UNet2DModel
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.unets.unet_2d import UNet2DOutput
from torch import Tensor, nn
from torch.nn import functional as F

NETWORKS = ("unet", "basic", "conditional-unet")


def default_patch_size(height: int, width: int) -> int:
    """Pixels on a side of the squares in which a network sees pictures of this size: 2 from 24 pixels a side, 1 below."""
    return 2 if max(height, width) >= 24 else 1


def default_channels(height: int, width: int) -> tuple[int, ...]:
    """Channels of each level for pictures, or for patches, of this many a side: more levels for larger ones, and no more than a laptop can
    train in minutes."""
    side = max(height, width)
    if side < 16:
        return (64, 64)
    if side == 16:
        return (64, 128)
    if side <= 32:
        return (32, 64, 64)
    return (64, 128, 128, 256) if side <= 64 else (64, 64, 128, 128, 256)


def usual_channels(height: int, width: int) -> tuple[int, ...]:
    """Channels of a network that sees pictures of this size in the patches that are its default."""
    patch = default_patch_size(height, width)
    return default_channels(-(-height // patch), -(-width // patch))


def unet_config(
    channels: tuple[int, ...],
    attention_levels: int,
    layers: int,
    head_dim: int,
    dropout: float,
    norm_groups: int,
    embedding_rows: int | None,
) -> dict[str, object]:
    """Keyword arguments of a `UNet2DModel` with attention in its deepest `attention_levels` levels."""
    depth = len(channels)
    attention = [level >= depth - attention_levels for level in range(depth)]
    return {
        "layers_per_block": layers,
        "block_out_channels": tuple(channels),
        "down_block_types": tuple("AttnDownBlock2D" if here else "DownBlock2D" for here in attention),
        "up_block_types": tuple("AttnUpBlock2D" if here else "UpBlock2D" for here in reversed(attention)),
        "attention_head_dim": head_dim,
        "dropout": dropout,
        "num_class_embeds": embedding_rows,
        "norm_num_groups": norm_groups,
    }


def size_multiple(network: nn.Module) -> int:
    """Height and width must be multiples of this: one halving between two levels."""
    if isinstance(network, PatchUNet):
        return network.config["patch_size"] * size_multiple(network.model)
    if isinstance(network, LabelChannelsUNet):
        network = network.model
    if isinstance(network, BasicUNet):
        return 4
    return 2 ** (len(network.config.block_out_channels) - 1) if isinstance(network, UNet2DModel) else 1


class LabelChannelsUNet(ModelMixin, ConfigMixin):
    """A `UNet2DModel` that is told the label by extra input channels: a learned vector, or a one-hot, spread over the picture.

    num_classes: labels; id `num_classes` is the null class when there is one.
    class_emb_size: length of the learned vector; 0 means one-hot, in which the null class is all zeros.
    null_class: whether the embedding has a row for the null class.
    unet: keyword arguments of the inner `UNet2DModel`.
    """

    @register_to_config
    def __init__(
        self,
        sample_size: tuple[int, int] = (28, 28),
        in_channels: int = 1,
        out_channels: int = 1,
        num_classes: int = 10,
        class_emb_size: int = 4,
        null_class: bool = False,
        unet: dict | None = None,
    ) -> None:
        super().__init__()
        extra = class_emb_size or num_classes
        self.class_emb = nn.Embedding(num_classes + null_class, class_emb_size) if class_emb_size else None
        self.model = UNet2DModel(sample_size=sample_size, in_channels=in_channels + extra, out_channels=out_channels, **(unet or {}))

    def forward(self, sample: Tensor, timestep: Tensor, class_labels: Tensor) -> UNet2DOutput:
        """sample [B, C, H, W], timestep [B], class_labels [B] -> .sample [B, C, H, W]"""
        if self.class_emb is not None:
            label = self.class_emb(class_labels)
        else:
            classes = self.config["num_classes"]
            label = F.one_hot(class_labels, classes + 1)[:, :classes].to(sample.dtype)  # the null class falls off the end: zeros
        planes = label[:, :, None, None].expand(-1, -1, *sample.shape[-2:])  # [B, class_emb_size, H, W]
        return self.model(torch.cat([sample, planes], dim=1), timestep)


class PatchUNet(ModelMixin, ConfigMixin):
    """A `UNet2DModel` that works on squares of `patch_size` pixels, their values as its channels: p^2 fewer places to visit, so about p^2
    times as fast, and it can draw every picture all the same.

    sample_size, in_channels, out_channels: of the picture. unet: keyword arguments of the inner `UNet2DModel`.
    """

    @register_to_config
    def __init__(
        self,
        sample_size: tuple[int, int] = (28, 28),
        in_channels: int = 1,
        out_channels: int = 1,
        patch_size: int = 2,
        unet: dict | None = None,
    ) -> None:
        super().__init__()
        inside = (sample_size[0] // patch_size, sample_size[1] // patch_size)
        values = patch_size**2
        self.model = UNet2DModel(sample_size=inside, in_channels=in_channels * values, out_channels=out_channels * values, **(unet or {}))

    def forward(self, sample: Tensor, timestep: Tensor, class_labels: Tensor | None = None) -> UNet2DOutput:
        """sample [B, C, H, W], H and W multiples of patch_size, timestep [B], class_labels [B] -> .sample [B, C, H, W]"""
        squares = F.pixel_unshuffle(sample, self.config["patch_size"])  # [B, C p p, H / p, W / p]
        out = self.model(squares, timestep, class_labels=class_labels).sample
        return UNet2DOutput(sample=F.pixel_shuffle(out, self.config["patch_size"]))


class BasicUNet(ModelMixin, ConfigMixin):
    """Three 5x5 convolutions down, three up, skips added, SiLU after each, the last too; no time input.

    Its output is never below -0.278, SiLU's minimum, so it can only predict pictures in [0, 1].
    """

    @register_to_config
    def __init__(self, sample_size: tuple[int, int] = (28, 28), in_channels: int = 1, out_channels: int = 1) -> None:
        super().__init__()
        widths = [in_channels, 32, 64, 64]
        self.down_layers = nn.ModuleList(nn.Conv2d(i, o, 5, padding=2) for i, o in pairwise(widths))
        self.up_layers = nn.ModuleList(nn.Conv2d(i, o, 5, padding=2) for i, o in [(64, 64), (64, 32), (32, out_channels)])

    def forward(self, sample: Tensor, timestep: Tensor | None = None, class_labels: Tensor | None = None) -> UNet2DOutput:
        """sample [B, C, H, W] -> .sample [B, C, H, W]; H and W multiples of 4."""
        skips = []
        h = sample
        for level, layer in enumerate(self.down_layers):
            h = F.silu(layer(h))
            if level < 2:
                skips.append(h)
                h = F.max_pool2d(h, 2)
        for level, layer in enumerate(self.up_layers):
            if level > 0:
                h = F.interpolate(h, scale_factor=2.0, mode="nearest") + skips.pop()
            h = F.silu(layer(h))
        return UNet2DOutput(sample=h)


class ConditionalUNet(ModelMixin, ConfigMixin):
    """The `ConditionalUNet` of the CIFAR-10-by-label lesson: label embedding added to the time embedding, no resampling.

    The lesson leaves `Block` open. Here a block is two 3x3 convolutions, each followed by GroupNorm(8) and ReLU, with a linear map of
    the condition added after the first. The sinusoids are those of Vaswani et al. 2017 with base 10,000.
    """

    @register_to_config
    def __init__(
        self,
        sample_size: tuple[int, int] = (32, 32),
        in_channels: int = 3,
        out_channels: int = 3,
        num_classes: int = 10,
        null_class: bool = False,
        time_dim: int = 256,
    ) -> None:
        super().__init__()
        self.time_embed = nn.Sequential(nn.Linear(time_dim, time_dim), nn.ReLU())
        self.label_embed = nn.Embedding(num_classes + null_class, time_dim)
        self.conv0 = nn.Conv2d(in_channels, 64, 3, padding=1)
        self.down1 = _Block(64, 128, time_dim)
        self.down2 = _Block(128, 256, time_dim)
        self.bot = _Block(256, 256, time_dim)
        self.up1 = _Block(512, 128, time_dim)
        self.up2 = _Block(256, 64, time_dim)
        self.final = nn.Conv2d(64, out_channels, 1)

    def forward(self, sample: Tensor, timestep: Tensor, class_labels: Tensor) -> UNet2DOutput:
        """sample [B, C, H, W], timestep [B], class_labels [B] -> .sample [B, C, H, W]"""
        time = _sinusoids(timestep, self.config["time_dim"]).to(sample.dtype)
        cond = self.time_embed(time) + self.label_embed(class_labels)  # [B, time_dim]
        x0 = self.conv0(sample)
        x1 = self.down1(x0, cond)
        x2 = self.down2(x1, cond)
        x3 = self.bot(x2, cond)
        h = self.up1(torch.cat([x3, x2], 1), cond)
        h = self.up2(torch.cat([h, x1], 1), cond)
        return UNet2DOutput(sample=self.final(h))


# Networks that are no plain `UNet2DModel`: they travel with the model as code.
OWN = (PatchUNet, LabelChannelsUNet, BasicUNet, ConditionalUNet)


class _Block(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, cond_dim: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm1 = nn.GroupNorm(8, out_channels)
        self.cond = nn.Linear(cond_dim, out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.norm2 = nn.GroupNorm(8, out_channels)

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        h = F.relu(self.norm1(self.conv1(x))) + self.cond(cond)[:, :, None, None]
        return F.relu(self.norm2(self.conv2(h)))


def _sinusoids(t: Tensor, dim: int) -> Tensor:
    """[B] -> [B, dim]"""
    half = dim // 2
    frequencies = torch.exp(-math.log(10_000) * torch.arange(half, device=t.device, dtype=torch.float32) / half)
    angles = t.float()[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=1)
