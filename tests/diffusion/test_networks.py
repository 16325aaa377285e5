"""The networks are the lessons' own, to the last parameter; the denoiser pads, feeds and reads them as it says."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import UNet2DModel
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from diffsteer.config import TrainSettings
from diffsteer.data.batch import Pictures
from diffsteer.data.images import load_pictures
from diffsteer.diffusion.denoiser import Denoiser, ModelSpec
from diffsteer.diffusion.networks import (
    BasicUNet,
    ConditionalUNet,
    LabelChannelsUNet,
    PatchUNet,
    default_channels,
    size_multiple,
    unet_config,
)
from diffsteer.diffusion.process import PROCESSES, Process
from diffsteer.recipebook import train_settings
from diffsteer.training.build import build_model


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


# ---- the lessons' networks, as they wrote them -----------------------------------------------------------------------


class LessonBasicUNet(nn.Module):
    """Chapter 3, "from scratch"."""

    def __init__(self, in_channels: int = 1, out_channels: int = 1) -> None:
        super().__init__()
        self.down_layers = torch.nn.ModuleList(
            [
                nn.Conv2d(in_channels, 32, kernel_size=5, padding=2),
                nn.Conv2d(32, 64, kernel_size=5, padding=2),
                nn.Conv2d(64, 64, kernel_size=5, padding=2),
            ]
        )
        self.up_layers = torch.nn.ModuleList(
            [
                nn.Conv2d(64, 64, kernel_size=5, padding=2),
                nn.Conv2d(64, 32, kernel_size=5, padding=2),
                nn.Conv2d(32, out_channels, kernel_size=5, padding=2),
            ]
        )
        self.act = nn.SiLU()
        self.downscale = nn.MaxPool2d(2)
        self.upscale = nn.Upsample(scale_factor=2)

    def forward(self, x: Tensor) -> Tensor:
        h = []
        for i, l in enumerate(self.down_layers):  # noqa: E741
            x = self.act(l(x))
            if i < 2:
                h.append(x)
                x = self.downscale(x)
        for i, l in enumerate(self.up_layers):  # noqa: E741
            if i > 0:
                x = self.upscale(x)
                x += h.pop()
            x = self.act(l(x))
        return x


class LessonClassConditionedUnet(nn.Module):
    """The class-conditioned notebook."""

    def __init__(self, num_classes: int = 10, class_emb_size: int = 4) -> None:
        super().__init__()
        self.class_emb = nn.Embedding(num_classes, class_emb_size)
        self.model = UNet2DModel(
            sample_size=28,
            in_channels=1 + class_emb_size,
            out_channels=1,
            layers_per_block=2,
            block_out_channels=(32, 64, 64),
            down_block_types=("DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        )

    def forward(self, x: Tensor, t: Tensor, class_labels: Tensor) -> Tensor:
        bs, _, w, h = x.shape
        class_cond = self.class_emb(class_labels)
        class_cond = class_cond.view(bs, class_cond.shape[1], 1, 1).expand(bs, class_cond.shape[1], w, h)
        net_input = torch.cat((x, class_cond), 1)
        return self.model(net_input, t).sample


@pytest.fixture(scope="module")
def like_mnist(tmp_path_factory: pytest.TempPathFactory) -> Pictures:
    """Ten classes of 28x28 grey pictures."""
    folder = tmp_path_factory.mktemp("pictures")
    values = np.random.default_rng(0)
    for label in range(10):
        (folder / str(label)).mkdir()
        for number in range(2):
            picture = values.integers(0, 256, (28, 28)).astype(np.uint8)
            Image.fromarray(picture).save(folder / str(label) / f"{number}.png")
    return load_pictures(str(folder))


def lesson_settings(recipe: str, **given: Any) -> TrainSettings:
    return train_settings(recipe, {"data": "elsewhere", **given})


@pytest.mark.parametrize(
    ("recipe", "given", "count"),
    [
        ("seed-basic", {}, 309_057),
        ("seed-unet", {}, 1_707_009),
        ("seed-class-conditional", {"class_emb_size": 1}, 1_707_307),
        ("seed-class-conditional", {}, 1_708_201),
        ("seed-class-conditional", {"class_emb_size": 10}, 1_709_989),
        ("seed-class-conditional", {"conditioning": "onehot"}, 1_709_889),
    ],
)
def test_the_recipes_have_the_lessons_parameters(like_mnist: Pictures, recipe: str, given: dict[str, Any], count: int) -> None:
    network, spec = build_model(lesson_settings(recipe, **given), like_mnist)
    assert parameters(network) == count
    assert spec.shape == (1, 28, 28) and not spec.null_class


def test_the_conditional_unets_parameters_are_pinned(like_mnist: Pictures) -> None:
    assert parameters(ConditionalUNet()) == 3_496_323
    grey, _ = build_model(lesson_settings("seed-cifar10-conditional"), like_mnist)
    assert parameters(grey) == 3_496_323 - 2 * (64 * 9 + 64 + 1), "one channel in and out instead of three"


def test_the_same_seed_gives_the_same_first_weights(like_mnist: Pictures) -> None:
    def weights(seed: int) -> Tensor:
        network, _ = build_model(lesson_settings("seed-basic", seed=seed), like_mnist)
        return torch.cat([parameter.flatten() for parameter in network.parameters()])

    torch.manual_seed(3)
    first = weights(1)
    after = torch.rand(())
    torch.manual_seed(3)
    assert torch.equal(after, torch.rand(())), "torch's own generator is left alone"
    assert torch.equal(first, weights(1)) and not torch.equal(first, weights(2))


def test_basic_answers_as_the_lessons_network() -> None:
    lesson, network = LessonBasicUNet(), BasicUNet()
    network.load_state_dict(lesson.state_dict())
    x = noise(3, 1, 28, 28)
    with torch.no_grad():
        assert torch.equal(network(x).sample, lesson(x))
        assert network(20 * x).sample.min() >= -0.2785, "SiLU's minimum"


def test_label_channels_answer_as_the_lessons_network(like_mnist: Pictures) -> None:
    torch.manual_seed(0)
    lesson = LessonClassConditionedUnet()
    network, _ = build_model(lesson_settings("seed-class-conditional"), like_mnist)
    network.load_state_dict(lesson.state_dict())
    x, t, labels = noise(3, 1, 28, 28), torch.tensor([0, 500, 999]), torch.tensor([3, 0, 9])
    with torch.no_grad():
        assert torch.equal(network(x, t, class_labels=labels).sample, lesson(x, t, labels))


def test_plain_unet_is_the_lessons_network(like_mnist: Pictures) -> None:
    network, spec = build_model(lesson_settings("seed-unet"), like_mnist)
    lesson = UNet2DModel(
        sample_size=28,
        in_channels=1,
        out_channels=1,
        layers_per_block=2,
        block_out_channels=(32, 64, 64),
        down_block_types=("DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    )
    lesson.load_state_dict(network.state_dict())
    x01 = torch.rand(2, 1, 28, 28, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = lesson(x01, 0).sample  # the lesson: pictures in [0, 1], the time always 0
        found = Denoiser(network, spec, 4)(x01 * 2 - 1, 700.0)
    torch.testing.assert_close((found + 1) / 2, expected, rtol=1e-4, atol=1e-5)


# ---- labels ----------------------------------------------------------------------------------------------------------

INNER: dict[str, Any] = unet_config((32, 32), 1, 1, 32, 0.0, 16, None)


def planes_told(network: LabelChannelsUNet, labels: Tensor) -> Tensor:
    """The extra channels that the inner network is given."""
    seen: list[Tensor] = []
    handle = network.model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        network(noise(len(labels), 1, 8, 8), torch.zeros(len(labels)), labels)
    handle.remove()
    return seen[0][:, 1:]


def test_onehot_is_a_plane_of_ones_and_the_null_class_is_zeros() -> None:
    network = LabelChannelsUNet((8, 8), num_classes=5, class_emb_size=0, null_class=True, unet=INNER)
    planes = planes_told(network, torch.tensor([0, 4, 5]))
    assert planes.shape == (3, 5, 8, 8)
    assert torch.equal(planes[:2, :, 3, 3], torch.eye(5)[[0, 4]]) and torch.equal(planes[:2].sum((1, 2, 3)), torch.tensor([64.0, 64.0]))
    assert torch.equal(planes[2], torch.zeros(5, 8, 8))


def test_concat_spreads_the_labels_vector_and_the_null_class_has_its_own() -> None:
    network = LabelChannelsUNet((8, 8), num_classes=5, class_emb_size=3, null_class=True, unet=INNER)
    assert network.class_emb is not None and network.class_emb.weight.shape == (6, 3)
    planes = planes_told(network, torch.tensor([2, 5]))
    assert torch.equal(planes, network.class_emb.weight[[2, 5]][:, :, None, None].expand(-1, -1, 8, 8))
    without = LabelChannelsUNet((8, 8), num_classes=5, class_emb_size=3, unet=INNER)
    assert without.class_emb is not None and without.class_emb.weight.shape == (5, 3)


@pytest.mark.parametrize("conditioning", ["concat", "onehot", "add"])
def test_the_null_class_exists_exactly_with_label_dropout(like_mnist: Pictures, conditioning: str) -> None:
    """The network takes the null id when it was trained with dropout; its answer there is another than for any label."""
    chosen = {"data": "elsewhere", "channels": "32,32,32", "layers": 1, "conditioning": conditioning}
    network, spec = build_model(train_settings(None, {**chosen, "label_dropout": 0.1}), like_mnist)
    assert spec.null_class and spec.null_id == 10
    x, labels = noise(1, 1, 28, 28).repeat(11, 1, 1, 1), torch.arange(11)
    with torch.no_grad():
        answers = Denoiser(network, spec, size_multiple(network))(x, 500.0, labels).flatten(1)
    assert (answers[:10] - answers[10]).abs().amax(1).min() > 1e-5
    _, none = build_model(train_settings(None, {**chosen, "label_dropout": 0}), like_mnist)
    assert not none.null_class


@pytest.mark.parametrize("channels", [(32,), (32, 32), (32, 64, 64), (64, 64), (64, 128, 128)])
def test_a_unet_hears_time_and_label(channels: tuple[int, ...]) -> None:
    """diffusers' 32 GroupNorm groups take what is added to each channel out of levels of 32 channels; some level must be left to hear."""
    torch.manual_seed(0)
    network = UNet2DModel((8, 8), 1, 1, **unet_config(channels, 0, 1, 32, 0.0, 16, 3))
    x = noise(1, 1, 8, 8).repeat(3, 1, 1, 1)
    with torch.no_grad():
        answers = network(x, torch.tensor([0.0, 0.0, 500.0]), torch.tensor([0, 1, 0])).sample.flatten(1)
    assert torch.pdist(answers).min() > 1e-3


def test_the_conditional_unet_hears_time_and_label() -> None:
    torch.manual_seed(0)
    network = ConditionalUNet(num_classes=3, null_class=True, time_dim=16).eval()
    x = noise(1, 3, 8, 8).repeat(4, 1, 1, 1)
    with torch.no_grad():
        answers = network(x, torch.tensor([0.0, 0.0, 500.0, 0.0]), torch.tensor([0, 1, 0, 3])).sample.flatten(1)
    assert torch.pdist(answers).min() > 1e-4
    angle = torch.tensor(7.0)
    seen: list[Tensor] = []
    network.time_embed[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    network(x[:1], angle[None], torch.tensor([0]))
    expected = [f(7.0 * 10_000 ** (-k / 8)) for f in (math.sin, math.cos) for k in range(8)]  # Vaswani et al. 2017, section 3.5
    torch.testing.assert_close(seen[0][0], torch.tensor(expected), rtol=1e-4, atol=1e-5)


# ---- sizes -----------------------------------------------------------------------------------------------------------


class Remembering(nn.Module):
    """A network that answers with its own input, and remembers it."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[Tensor] = []
        self.times: list[Tensor] = []

    def forward(self, x: Tensor, t: Tensor, class_labels: Tensor | None = None) -> Any:
        self.told.append(x)
        self.times.append(t)
        return type("Output", (), {"sample": x})


@settings(max_examples=60, deadline=None)
@given(height=st.integers(8, 21), width=st.integers(8, 21), multiple=st.sampled_from([1, 2, 4, 8]))
def test_padding_is_cropped_exactly(height: int, width: int, multiple: int) -> None:
    network = Remembering()
    spec = ModelSpec(Process("flow"), "x0", height, width, 1)
    x = noise(2, 1, height, width)
    assert torch.equal(Denoiser(network, spec, multiple)(x, 500.0), x), "what is padded is cut off again, in its place"
    padded = network.told[0]
    assert padded.shape[-2] % multiple == padded.shape[-1] % multiple == 0
    assert 0 <= padded.shape[-2] - height < multiple and 0 <= padded.shape[-1] - width < multiple
    top, left = (padded.shape[-2] - height) // 2, (padded.shape[-1] - width) // 2
    down, right = padded.shape[-2] - height - top, padded.shape[-1] - width - left
    assert torch.equal(padded, F.pad(x, (left, right, top, down), mode="reflect"))


@pytest.mark.parametrize(
    ("made", "multiple"),
    [
        (lambda: UNet2DModel((8, 8), 1, 1, **INNER), 2),
        (lambda: UNet2DModel((8, 8), 1, 1, **unet_config((32, 32, 32, 32), 0, 1, 32, 0.0, 16, None)), 8),
        (lambda: LabelChannelsUNet((8, 8), unet=INNER), 2),
        (lambda: PatchUNet((12, 12), patch_size=3, unet=INNER), 6),
        (BasicUNet, 4),
        (lambda: ConditionalUNet(time_dim=16), 1),
    ],
    ids=["unet", "deep unet", "label channels", "patches", "basic", "conditional-unet"],
)
def test_the_multiple_is_what_the_network_needs(made: Callable[[], nn.Module], multiple: int) -> None:
    network = made()
    assert size_multiple(network) == multiple
    channels = 3 if isinstance(network, ConditionalUNet) else 1
    labels = {} if isinstance(network, UNet2DModel | PatchUNet) else {"class_labels": torch.tensor([0])}
    side = 2 * multiple if multiple > 1 else 5
    with torch.no_grad():
        assert network(noise(1, channels, side, side), torch.zeros(1), **labels).sample.shape == (1, channels, side, side)
        if multiple > 1:
            with pytest.raises(RuntimeError, match="size"):
                network(noise(1, channels, side + 1, side + 1), torch.zeros(1), **labels)


def test_a_patch_is_a_place_whose_channels_are_its_pixels() -> None:
    """The pixel at (2 i + a, 2 j + b) of channel c is channel 4 c + 2 a + b at (i, j) inside, on the way in and on the way out."""
    network = PatchUNet((8, 8), in_channels=3, out_channels=3, patch_size=2, unet=INNER)
    x = noise(2, 3, 8, 8)
    with torch.no_grad():
        inner = network.model(F.pixel_unshuffle(x, 2), torch.tensor([3.0, 900.0])).sample
        out = network(x, torch.tensor([3.0, 900.0])).sample
    for c, a, b in ((0, 0, 0), (1, 0, 1), (2, 1, 0)):
        assert torch.equal(out[:, c, a::2, b::2], inner[:, 4 * c + 2 * a + b])
        assert torch.equal(F.pixel_unshuffle(x, 2)[:, 4 * c + 2 * a + b], x[:, c, a::2, b::2])


@pytest.mark.parametrize(
    ("given", "patch"),
    [
        ({}, 2),
        ({"patch_size": 1}, 1),
        ({"patch_size": 4, "channels": "32,32"}, 4),
        ({"conditioning": "concat"}, 1),
        ({"process": "cosine", "conditioning": "none"}, 1),
        ({"process": "cosine", "conditioning": "none", "patch_size": 2}, 2),
    ],
)
def test_patches_are_two_wide_where_nothing_wants_pixels(like_mnist: Pictures, given: dict[str, Any], patch: int) -> None:
    network, spec = build_model(train_settings(None, {"data": "elsewhere", **given}), like_mnist)
    assert (network.config["patch_size"] if isinstance(network, PatchUNet) else 1) == patch
    with torch.no_grad():
        labels = torch.tensor([1]) if spec.labelled else None
        assert Denoiser(network, spec, size_multiple(network))(noise(1, 1, 28, 28), 500.0, labels).shape == (1, 1, 28, 28)


@settings(max_examples=40, deadline=None)
@given(height=st.integers(8, 256), width=st.integers(8, 256))
def test_default_networks_fit_every_size(height: int, width: int) -> None:
    channels = default_channels(height, width)
    multiple = 2 ** (len(channels) - 1)
    assert all(width % 32 == 0 for width in channels) and all(width % 64 == 0 for width in channels[-2:]), (
        "--head-dim is checked against it"
    )
    pads = (-height % multiple, -width % multiple)
    assert (pads[0] + 1) // 2 < height and (pads[1] + 1) // 2 < width, "mirrored padding must be shorter than the picture"


# ---- the denoiser reads by the spec ----------------------------------------------------------------------------------


@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize("prediction", ["x0", "eps", "v", "flow"])
def test_the_denoiser_reads_each_prediction(process: str, prediction: str) -> None:
    network, noise_process = Remembering(), Process(process, sigma_data=0.7 if process == "edm" else 1.0)
    model = Denoiser(network, ModelSpec(noise_process, prediction, 8, 8, 1))
    x_t, t = noise(3, 1, 8, 8), torch.tensor([10.0, 400.0, 990.0])
    found = model(x_t, t)
    scale = noise_process.input_scale(t)[:, None, None, None]
    torch.testing.assert_close(network.told[0], x_t * scale)
    torch.testing.assert_close(network.times[0], t)
    torch.testing.assert_close(found, noise_process.to_x0(prediction, x_t * scale, x_t, t))
    assert torch.equal(model(x_t[:1], 10.0), model(x_t[:1], t[:1])), "one time for all, or one for each"


@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize("prediction", ["x0", "eps", "v", "flow"])
def test_a_network_that_hits_its_target_is_read_as_the_picture(process: str, prediction: str) -> None:
    model = Denoiser(Remembering(), ModelSpec(Process(process), prediction, 8, 8, 1))
    x0, eps, t = noise(3, 1, 8, 8, seed=1).clamp(-1, 1), noise(3, 1, 8, 8), torch.tensor([100.0, 400.0, 700.0])
    x_t = model.spec.process.add_noise(x0, eps, t)
    torch.testing.assert_close(model.read(model.target(x0, eps, t), x_t, t), x0, rtol=1e-3, atol=2e-4)


def test_unit_range_shows_and_reads_zero_to_one() -> None:
    network = Remembering()
    model = Denoiser(network, ModelSpec(Process("flow", noise="uniform"), "x0", 8, 8, 1, pixel_range="unit", feed_time=False))
    x_t = torch.linspace(-1, 1, 64).reshape(1, 1, 8, 8)
    assert torch.allclose(model(x_t, 700.0), x_t)
    assert (network.told[0].min(), network.told[0].max()) == (0, 1) and torch.equal(network.times[0], torch.zeros(1))
    assert torch.equal(model.target(x_t, x_t, torch.zeros(1)), (x_t + 1) / 2)
    with pytest.raises(ValueError, match="go with the prediction x0"):
        ModelSpec(Process("flow"), "flow", 8, 8, 1, pixel_range="unit")


def test_half_precision_touches_the_network_only() -> None:
    torch.manual_seed(0)
    network = UNet2DModel((8, 8), 1, 1, **INNER)
    spec = ModelSpec(Process("flow"), "flow", 8, 8, 1)
    x_t = noise(2, 1, 8, 8)
    with torch.no_grad():
        full, half = (Denoiser(network, spec, 2, precision)(x_t, 500.0) for precision in ("fp32", "bf16"))
    assert full.dtype == half.dtype == torch.float32
    assert not torch.equal(full, half) and (full - half).abs().max() < 0.1


def test_a_spec_survives_json(tmp_path: Path) -> None:
    import json

    spec = ModelSpec(
        Process("linear", betas=(0.1, 0.2)), "eps", 9, 14, 3, "add", ("猫", "ankle-boot"), True, data_mean=-0.3, spacing="leading", steps=7
    )
    (tmp_path / "spec.json").write_text(json.dumps(spec.as_dict()))
    assert ModelSpec.from_dict(json.loads((tmp_path / "spec.json").read_text())) == spec
    assert spec.labelled and spec.null_id == 2 and spec.shape == (3, 9, 14)
