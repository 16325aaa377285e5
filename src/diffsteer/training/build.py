"""From settings and data to an untrained network and the spec that says how to read it. Called by the run, before it is written down."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from diffsteer.config import TrainSettings
from diffsteer.data.batch import Pictures
from diffsteer.diffusion import networks
from diffsteer.diffusion.denoiser import ModelSpec
from diffsteer.diffusion.process import Process
from diffsteer.diffusion.seeds import generator_for
from diffsteer.errors import Mistake


def build_model(settings: TrainSettings, data: Pictures) -> tuple[nn.Module, ModelSpec]:
    """The untrained network for this data, first weights drawn from the run's seed, and how to read it. Raises Mistake."""
    spec = model_spec(settings, data)
    with torch.random.fork_rng():
        torch.manual_seed(generator_for(settings.seed, "weights").initial_seed())
        network = _network(settings, spec)
    return network, spec


def model_spec(settings: TrainSettings, data: Pictures) -> ModelSpec:
    """How the network of these settings is read. Raises Mistake."""
    conditioning = settings.resolved_conditioning(bool(data.label_names))
    if conditioning != "none" and not data.label_names:
        raise Mistake(f"--conditioning {conditioning} needs labels and {data.source} has none; put the pictures into one folder per class.")
    sigma_data = math.sqrt(data.variance + data.mean**2) if settings.process == "edm" else 1.0
    labelled = conditioning != "none"
    return ModelSpec(
        process=Process(settings.process, noise=settings.noise, sigma_data=sigma_data),
        prediction=settings.resolved_prediction,
        height=data.height,
        width=data.width,
        channels=data.channels,
        conditioning=conditioning,
        label_names=tuple(data.label_names) if labelled else (),
        null_class=labelled and settings.label_dropout > 0,
        pixel_range=settings.pixel_range,
        feed_time=settings.feed_time,
        data_mean=data.mean,
        data_variance=data.variance,
        solver=settings.solver,
        steps=settings.sample_steps,
        spacing=settings.spacing,
        guidance_scale=settings.guidance_scale,
        guidance_interval=settings.guidance_interval,
    )


def _network(settings: TrainSettings, spec: ModelSpec) -> nn.Module:
    from diffusers import UNet2DModel

    ends: dict[str, Any] = {"in_channels": spec.channels, "out_channels": spec.channels}
    classes = len(spec.label_names)
    if settings.network == "basic":
        return networks.BasicUNet(sample_size=_up((spec.height, spec.width), 4), **ends)
    if settings.network == "conditional-unet":
        return networks.ConditionalUNet(sample_size=(spec.height, spec.width), num_classes=classes, null_class=spec.null_class, **ends)
    patch = _patch_size(settings, spec)
    channels = settings.channels or networks.default_channels(-(-spec.height // patch), -(-spec.width // patch))
    rows = classes + spec.null_class if spec.conditioning == "add" else None
    unet = networks.unet_config(
        channels, settings.attention_levels, settings.layers, settings.head_dim, settings.dropout, settings.norm_groups, rows
    )
    size = _up((spec.height, spec.width), patch * 2 ** (len(channels) - 1))
    if size[0] - spec.height >= spec.height or size[1] - spec.width >= spec.width:
        raise Mistake(
            f"--channels has {len(channels)} levels, which halve the picture {len(channels) - 1} times; "
            f"{spec.height}x{spec.width}{f' in patches of {patch}' if patch > 1 else ''} is too small for that. Give fewer."
        )
    if patch > 1:
        return networks.PatchUNet(sample_size=size, **ends, patch_size=patch, unet=unet)
    if spec.conditioning in ("none", "add"):
        return UNet2DModel(sample_size=size, **ends, **unet)
    vector = settings.class_emb_size if spec.conditioning == "concat" else 0
    return networks.LabelChannelsUNet(
        sample_size=size, num_classes=classes, class_emb_size=vector, null_class=spec.null_class, unet=unet, **ends
    )


def _patch_size(settings: TrainSettings, spec: ModelSpec) -> int:
    """As asked; unasked, 1 wherever stock pipelines or the label channels want a network of pixels."""
    if settings.patch_size is not None:
        return settings.patch_size
    free = spec.process.name == "flow" and spec.conditioning in ("none", "add")
    return networks.default_patch_size(spec.height, spec.width) if free else 1


def _up(size: tuple[int, int], multiple: int) -> tuple[int, int]:
    return (-(-size[0] // multiple) * multiple, -(-size[1] // multiple) * multiple)
