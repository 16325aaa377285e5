"""Steering by text and picture: the network sees what it was trained to see, weights weigh, and mistakes are told."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import tiny_clip as tiny
import torch
from PIL import Image
from torch import Tensor

from diffsteer.data.pixels import to_pil
from diffsteer.errors import Mistake
from diffsteer.steering import encoders
from diffsteer.steering.contract import Canvas, Loss, Moment
from diffsteer.steering.embedding import Prompt, clip, clip_seed, parse_prompts, squared_angle
from diffsteer.steering.encoders import held, load_embedder

CANVAS = Canvas(3, 8, 8)


def pictures(count: int = 3, size: int = 8, channels: int = 3) -> Tensor:
    return torch.rand((count, channels, size, size), generator=torch.Generator().manual_seed(0))


def moment(some: Tensor, seeds: Any = None, call: int = 0) -> Moment:
    return Moment(tuple(seeds or range(len(some))), call, 500.0, 0.5, some.detach())


def value_and_gradient(loss: Loss, some: Tensor, when: Moment) -> tuple[Tensor, Tensor]:
    leaf = some.detach().clone().requires_grad_()
    values = loss(leaf, when)
    return values.detach(), torch.autograd.grad(values.sum(), leaf)[0]


@pytest.fixture
def copy_of_clip(untrained_clip: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(untrained_clip, tmp_path / "clip"))


# ---- what the network sees -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("old_layout", [False, True])
def test_a_picture_is_seen_as_by_the_folders_own_processor(copy_of_clip: Path, old_layout: bool) -> None:
    from transformers import CLIPImageProcessorPil, CLIPModel

    settings = copy_of_clip / "processor_config.json"
    values = json.loads(settings.read_text())["image_processor"] | {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.5, 0.4, 0.3]}
    settings.unlink()
    if old_layout:
        (copy_of_clip / "preprocessor_config.json").write_text(json.dumps(values))
    else:
        settings.write_text(json.dumps({"image_processor": values}))
    levels = (pictures(2, tiny.SIDE) * 255).to(torch.uint8)
    theirs = CLIPImageProcessorPil(**values)([to_pil(picture) for picture in levels], return_tensors="pt")["pixel_values"]
    wanted = CLIPModel.from_pretrained(copy_of_clip).get_image_features(theirs).pooler_output.detach()
    seen = load_embedder(str(copy_of_clip)).pictures(levels / 255)
    torch.testing.assert_close(seen, wanted / wanted.norm(dim=1, keepdim=True), atol=1e-5, rtol=1e-5)


def test_texts_and_pictures_have_unit_length(untrained_clip: Path) -> None:
    embedder = load_embedder(str(untrained_clip))
    for vectors in (embedder.text(["a red three", "a zebra"]), embedder.pictures(pictures(2, 20)), embedder.pictures(pictures(2, 8, 1))):
        assert vectors.shape == (2, tiny.DEPTH) and vectors.dtype == torch.float32
        torch.testing.assert_close(vectors.norm(dim=1), torch.ones(2))
    assert not any(parameter.requires_grad for parameter in embedder.network.parameters()) and not embedder.network.training


def test_a_text_reads_the_same_in_any_company(untrained_clip: Path) -> None:
    embedder = load_embedder(str(untrained_clip))
    torch.testing.assert_close(embedder.text(["a three", "a red digit and more words than it can read"])[:1], embedder.text(["a three"]))


def test_values_beyond_the_range_are_held_and_can_come_back() -> None:
    values = torch.tensor([-0.5, -0.5, 0.5, 1.5, 1.5], requires_grad=True)
    clamped = held(values)
    clamped.backward(torch.tensor([1.0, -1.0, 1.0, 1.0, -1.0]))
    assert clamped.tolist() == [0, 0, 0.5, 1, 1]
    assert values.grad is not None and values.grad.tolist() == [0, -1, 1, 1, 0]


def test_grey_is_seen_as_colour_of_three_equal_channels(untrained_clip: Path) -> None:
    loss, grey = clip("a three", Canvas(1, 8, 8), model=str(untrained_clip)), pictures(2, 8, 1)
    torch.testing.assert_close(loss(grey, moment(grey)), loss(grey.expand(-1, 3, -1, -1), moment(grey)))


# ---- the loss --------------------------------------------------------------------------------------------------------


def test_the_loss_of_a_picture_does_not_depend_on_its_batch(untrained_clip: Path) -> None:
    loss, batch = clip("a red three", CANVAS, model=str(untrained_clip)), pictures(8)
    together = value_and_gradient(loss, batch, moment(batch, call=7))
    for index in range(8):
        alone = value_and_gradient(loss, batch[[index]], moment(batch[[index]], [index], 7))
        torch.testing.assert_close(alone[0], together[0][[index]], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(alone[1], together[1][[index]], rtol=1e-4, atol=1e-6)


def test_what_does_not_fit_goes_through_in_parts(untrained_clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loss, some = clip("a red three", CANVAS, model=str(untrained_clip)), pictures(5)
    whole = value_and_gradient(loss, some, moment(some))
    assert loss.embedder._bytes > 10_000
    monkeypatch.setattr(encoders, "free_memory", lambda device: 6 * loss.embedder._bytes)  # 3 of the 20 cutouts at a time
    assert loss.embedder._at_once(torch.zeros(20, 3, 16, 16, requires_grad=True)) == 3
    parts = value_and_gradient(loss, some, moment(some))
    torch.testing.assert_close(parts[0], whole[0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(parts[1], whole[1], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("crops", ["mixed", "seed"])
def test_the_gradient_is_that_of_finite_differences(copy_of_clip: Path, crops: str) -> None:
    loss = clip("a red three|a green one::-0.5", CANVAS, model=str(copy_of_clip), crops=crops)
    loss.embedder.network.double()
    some = (0.05 + 0.9 * pictures(2)).double()
    _, gradient = value_and_gradient(loss, some, moment(some))
    for seed in range(4):
        direction = torch.randn(some.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        ahead, behind = (loss(some + h * direction, moment(some)).sum() for h in (1e-5, -1e-5))
        assert float((ahead - behind) / 2e-5) == pytest.approx(float((gradient * direction).sum()), rel=1e-6, abs=1e-9)


def test_weights_weigh(untrained_clip: Path) -> None:
    some = pictures()

    def of(value: str, **options: Any) -> Tensor:
        return clip(value, CANVAS, model=str(untrained_clip), tolerance=1.0, **options)(some, moment(some))

    red, three = of("red"), of("a three")
    torch.testing.assert_close(of("red|a three"), red + three)
    torch.testing.assert_close(of(" red ::0.25 | a three::2"), red / 4 + 2 * three)
    embedder = load_embedder(str(untrained_clip))
    assert of("red", cuts=1, crops="whole").tolist() == pytest.approx(
        squared_angle(embedder.pictures(some), embedder.text(["red"])).tolist(), rel=1e-4
    )
    away = of("red::-1", cuts=1, crops="whole")
    angle = (2 * of("red", cuts=1, crops="whole")).sqrt()
    torch.testing.assert_close(away, (torch.pi - angle).square() / 2, rtol=1e-4, atol=1e-5)


def test_the_tolerance_is_the_networks_own_temperature(untrained_clip: Path) -> None:
    some, model = pictures(), str(untrained_clip)
    own, one, seed = (
        clip("red", CANVAS, model=model),
        clip("red", CANVAS, model=model, tolerance=1.0),
        clip_seed("red", CANVAS, model=model),
    )
    assert own.tolerance == pytest.approx(1 / 14.29, rel=0.01)  # exp(-logit_scale), 0.07 before training
    torch.testing.assert_close(own(some, moment(some)) * own.tolerance, one(some, moment(some)))
    assert seed.tolerance == 1.0


def test_the_squared_angle_is_the_courses_distance() -> None:
    a, b = (torch.nn.functional.normalize(torch.randn(5, 8, generator=torch.Generator().manual_seed(s)), dim=1) for s in (0, 1))
    torch.testing.assert_close(squared_angle(a, b), ((a - b).norm(dim=1) / 2).arcsin().square() * 2)
    for other, value in ((a, 0.0), (-a, torch.pi**2 / 2)):
        leaf = a.clone().requires_grad_()
        away = squared_angle(leaf, other)
        away.sum().backward()
        assert away.tolist() == pytest.approx([value] * 5, abs=1e-6)
        assert leaf.grad is not None and leaf.grad.isfinite().all()


def test_a_picture_is_a_prompt(untrained_clip: Path, tmp_path: Path) -> None:
    levels = (pictures(2) * 255).round().to(torch.uint8)
    to_pil(levels[0]).save(tmp_path / "Wanted.PNG")
    loss = clip(f"{tmp_path / 'Wanted.PNG'}", CANVAS, model=str(untrained_clip), cuts=1, crops="whole")
    there, other = loss(levels / 255, moment(levels))
    assert there == pytest.approx(0, abs=1e-5) and other > 100 * there


# ---- prompts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "prompts"),
    [
        ("a red rose", [Prompt("a red rose")]),
        ("time: 8:30", [Prompt("time: 8:30")]),
        ("a red rose::2|blurry::-1", [Prompt("a red rose", 2), Prompt("blurry", -1)]),
        (" a | photo.jpg :: .5", [Prompt("a"), Prompt("photo.jpg", 0.5)]),
    ],
)
def test_prompts_are_read(value: str, prompts: list[Prompt]) -> None:
    assert parse_prompts(value) == prompts


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("", "needs a text or the path of a picture"),
        ("  ", "needs a text or the path of a picture"),
        ("a rose|", "A prompt in .* is empty"),
        ("::2", "A prompt in .* is empty"),
        ("a rose::much", "a number other than 0; in .* there is much"),
        ("a rose::", "there is nothing"),
        ("a rose::0", "a number other than 0"),
        ("a rose::nan", "a number other than 0"),
        ("gone.png", "There is no picture 'gone.png'"),
    ],
)
def test_a_prompt_that_is_none_is_told(value: str, said: str, untrained_clip: Path) -> None:
    with pytest.raises(Mistake, match=said):
        clip(value, CANVAS, model=str(untrained_clip))


def test_options_that_cannot_be_are_told(untrained_clip: Path, tmp_path: Path) -> None:
    for options, said in (({"crops": "whol"}, "Did you mean whole"), ({"cuts": 0}, "at least 1"), ({"tolerance": -1.0}, "above 0")):
        with pytest.raises(Mistake, match=said):
            clip("red", CANVAS, model=str(untrained_clip), **options)
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(Mistake, match="not a picture that can be read"):
        clip(str(tmp_path / "text.png"), CANVAS, model=str(untrained_clip))


# ---- folders ---------------------------------------------------------------------------------------------------------


def test_without_a_network_the_user_is_told_how_to_give_a_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Mistake, match=r"No network: .* openai/clip-vit-base-patch32 cannot be fetched\. .*model=FOLDER"):
        clip("a red rose", CANVAS)


def test_what_is_no_clip_is_told(copy_of_clip: Path, tmp_path: Path) -> None:
    def told(model: Path | str) -> str:
        with pytest.raises(Mistake) as mistake:
            clip("red", CANVAS, model=str(model))
        return str(mistake.value)

    assert "There is no CLIP at ./nowhere; give a folder (model=FOLDER)" in told("./nowhere")
    (tmp_path / "empty").mkdir()
    assert "has no config.json" in told(tmp_path / "empty")
    config = json.loads((copy_of_clip / "config.json").read_text())
    (copy_of_clip / "config.json").write_text(json.dumps(config | {"model_type": "bert"}))
    assert "'bert', and steering by text or embedding needs clip or siglip" in told(copy_of_clip)
    (copy_of_clip / "config.json").write_text("{")
    assert "cannot be read" in told(copy_of_clip)
    (copy_of_clip / "config.json").write_text(json.dumps(config))
    whole = (copy_of_clip / "model.safetensors").read_bytes()
    (copy_of_clip / "model.safetensors").write_bytes(whole[:1000])
    assert "The weights in" in told(copy_of_clip) and "cannot be read" in told(copy_of_clip)
    (copy_of_clip / "model.safetensors").write_bytes(whole)
    (copy_of_clip / "processor_config.json").unlink()
    assert "no preprocessor_config.json or processor_config.json with image_mean and image_std" in told(copy_of_clip)


def test_weights_that_lack_a_part_are_no_weights(copy_of_clip: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(copy_of_clip / "model.safetensors")
    del weights["text_projection.weight"]
    save_file(weights, copy_of_clip / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(Mistake, match="not whole: 1 tensors are missing"):
        load_embedder(str(copy_of_clip))


def test_a_pickle_is_read_as_numbers_and_told(copy_of_clip: Path, untrained_clip: Path) -> None:
    from safetensors.torch import load_file

    torch.save(load_file(copy_of_clip / "model.safetensors"), copy_of_clip / "pytorch_model.bin")
    (copy_of_clip / "model.safetensors").unlink()
    loss = clip("red", CANVAS, model=str(copy_of_clip))
    assert "are a pickle" in loss.notes[0]
    some = pictures()
    torch.testing.assert_close(loss(some, moment(some)), clip("red", CANVAS, model=str(untrained_clip))(some, moment(some)))


def test_two_steers_share_a_network_until_its_folder_changes(copy_of_clip: Path) -> None:
    first, again = load_embedder(str(copy_of_clip)), load_embedder(str(copy_of_clip))
    assert first is again
    tiny.make_tiny_clip(copy_of_clip, steps=0, seed=1)
    assert load_embedder(str(copy_of_clip)) is not first


def test_loading_says_nothing(copy_of_clip: Path, capfd: pytest.CaptureFixture[str]) -> None:
    load_embedder(str(copy_of_clip)).text(["more words than it can read, by far"])
    said = capfd.readouterr()
    assert said.out == said.err == ""


def test_without_transformers_the_extra_is_named(untrained_clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(Mistake, match=r"pip install 'diffsteer\[clip\]'"):
        clip("red", CANVAS, model=str(untrained_clip))


# ---- SigLIP ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def siglip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SigLIP with its first weights, its tokenizer a sentencepiece model as in the real ones."""
    import sentencepiece
    from transformers import SiglipConfig, SiglipImageProcessorPil, SiglipModel, SiglipTokenizer

    folder = tmp_path_factory.mktemp("siglip")
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([*tiny.BOTH, *tiny.COLOR] * 4), model_prefix=str(folder / "spiece"), vocab_size=30, minloglevel=2
    )
    SiglipTokenizer(str(folder / "spiece.model"), pad_token="</s>").save_pretrained(folder)
    tower = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = tower | {"vocab_size": 30, "max_position_embeddings": 16, "projection_size": 32}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = SiglipModel(SiglipConfig(text_config=text, vision_config=tower | {"image_size": 16, "patch_size": 8}))
    network.save_pretrained(folder)
    SiglipImageProcessorPil(size={"height": 16, "width": 16}).save_pretrained(folder)
    return folder


def test_siglip_is_a_second_family(siglip: Path) -> None:
    embedder, some = load_embedder(str(siglip)), pictures(4)
    assert embedder.size == 16 and embedder.mean == embedder.std == (0.5, 0.5, 0.5)
    red, three = embedder.text(["a red three", "a three"])
    assert not torch.allclose(red, three)
    torch.testing.assert_close(embedder.text(["a three"])[0], three)
    values, gradient = value_and_gradient(clip("a red three", CANVAS, model=str(siglip)), some, moment(some))
    assert (values > 0).all() and (gradient.flatten(1).norm(dim=1) > 0).all()


def test_siglip_sees_the_filling_of_a_text_as_its_own_processor_gives_it(siglip: Path) -> None:
    from transformers import SiglipModel, SiglipTokenizer

    words = SiglipTokenizer.from_pretrained(siglip)(["a three"], padding="max_length", max_length=16, return_tensors="pt")
    wanted = SiglipModel.from_pretrained(siglip).get_text_features(words["input_ids"]).pooler_output.detach()
    torch.testing.assert_close(load_embedder(str(siglip)).text(["a three"]), wanted / wanted.norm(), atol=1e-5, rtol=1e-5)


# ---- open_clip -------------------------------------------------------------------------------------------------------


class StubNetwork(torch.nn.Module):
    """As open_clip's: `encode_image`, `encode_text`, `logit_scale` as a logarithm."""

    def __init__(self) -> None:
        super().__init__()
        self.logit_scale = torch.nn.Parameter(torch.tensor(100.0).log())
        self.project = torch.nn.Linear(3, 4)

    def encode_image(self, seen: Tensor) -> Tensor:
        return self.project(seen.mean(dim=(2, 3)))

    def encode_text(self, tokens: Tensor) -> Tensor:
        return self.project(tokens[:, :3].float())


@pytest.fixture
def open_clip(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A stand-in with the functions of open_clip that are called."""
    asked = SimpleNamespace(models=[])
    stub = ModuleType("open_clip")

    def create_model(name: str, pretrained: str, precision: str, device: str) -> StubNetwork:
        asked.models.append((name, pretrained, precision, device))
        return StubNetwork()

    stub.create_model = create_model
    stub.list_models = lambda: ["RN50", "ViT-B-32", "ViT-L-14"]
    stub.list_pretrained_tags_by_model = lambda name: ["openai", "laion2b_s34b_b79k"]
    stub.get_tokenizer = lambda name: lambda texts: torch.tensor([[len(text), 1, 2, 0] for text in texts])
    stub.get_model_preprocess_cfg = lambda network: {"size": (16, 16), "mean": (0.4, 0.5, 0.6), "std": (0.2, 0.2, 0.2)}
    monkeypatch.setitem(sys.modules, "open_clip", stub)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    encoders._open_clip.cache_clear()
    return asked


def test_open_clip_is_a_second_back_end(open_clip: SimpleNamespace) -> None:
    embedder, some = load_embedder("open_clip:ViT-B-32/openai"), pictures(4)
    assert open_clip.models == [("ViT-B-32", "openai", "fp32", "cpu")]
    assert (embedder.size, embedder.mean, embedder.temperature) == (16, (0.4, 0.5, 0.6), pytest.approx(0.01))
    network = embedder.network
    assert isinstance(network, StubNetwork) and not any(parameter.requires_grad for parameter in network.parameters())
    wanted = network.encode_image((pictures(4, 16) - torch.tensor([0.4, 0.5, 0.6]).view(3, 1, 1)) / 0.2)
    torch.testing.assert_close(embedder.pictures(pictures(4, 16)), wanted / wanted.norm(dim=1, keepdim=True))
    values, gradient = value_and_gradient(clip("a rose", CANVAS, model="open_clip:ViT-B-32/openai"), some, moment(some))
    assert (values > 0).all() and (gradient.flatten(1).norm(dim=1) > 0).all()


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("open_clip:ViT-B32/openai", "Did you mean ViT-B-32"),
        ("open_clip:ViT-B-32", "no weights '' of ViT-B-32; there are openai, laion2b_s34b_b79k"),
        ("open_clip:ViT-B-32/opnai", "no weights 'opnai'"),
    ],
)
def test_open_clips_own_names_are_checked(open_clip: SimpleNamespace, model: str, said: str) -> None:
    with pytest.raises(Mistake, match=said):
        clip("a rose", CANVAS, model=model)


def test_without_open_clip_its_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "open_clip", None)
    encoders._open_clip.cache_clear()
    with pytest.raises(Mistake, match=r"pip install 'diffsteer\[open-clip\]'"):
        clip("a rose", CANVAS, model="open_clip:ViT-B-32/openai")


# ---- what the tiny CLIP knows ----------------------------------------------------------------------------------------


def test_the_tiny_clip_reads_pictures_that_it_was_not_trained_on(tiny_clip: Path) -> None:
    told = tiny.accuracies(tiny_clip)
    assert told["color"] > 0.98 and told["digit"] > 0.93 and told["both"] > 0.93, told


def test_following_the_gradient_makes_noise_a_red_three(tiny_clip: Path) -> None:
    loss = clip("a red three", CANVAS, model=str(tiny_clip))
    some = pictures(4)
    before = loss(some, moment(some)).detach()
    for call in range(40):
        _, gradient = value_and_gradient(loss, some, moment(some, call=call))
        some = some - 0.1 * gradient / gradient.flatten(1).norm(dim=1)[:, None, None, None]
    after = loss(some, moment(some, call=1000)).detach()
    assert (after < 0.5 * before).all(), (before, after)


def test_a_real_picture_of_it_is_nearer_than_others(tiny_clip: Path) -> None:
    _, data = tiny.captioned()
    values = clip("a red three", CANVAS, model=str(tiny_clip))(data.pictures, moment(data.pictures))
    red, three = data.colors == 0, data.digits == 3
    assert values[red & three].mean() + 3 < min(values[red & ~three].mean(), values[~red & three].mean()), "3 nats: twenty to one"


def test_a_png_with_alpha_is_laid_on_white(untrained_clip: Path, tmp_path: Path) -> None:
    Image.new("RGBA", (20, 10), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    white = torch.ones(1, 3, 8, 8)
    loss = clip(str(tmp_path / "clear.png"), CANVAS, model=str(untrained_clip), cuts=1, crops="whole")
    assert float(loss(white, moment(white))) == pytest.approx(0, abs=1e-5)
