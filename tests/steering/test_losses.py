"""From words to a steer: every loss by its own example, options as the maker and the engine want them, and what is told otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from diffsteer.data.images import load_pictures
from diffsteer.data.memory import MemoryPictures
from diffsteer.diffusion.judge import Judge, save_judge
from diffsteer.errors import Mistake
from diffsteer.steering.contract import Canvas, Moment, NoisyLoss
from diffsteer.steering.gradient import Steer
from diffsteer.steering.losses import ENGINE, LOSSES, build, distinct, with_whole_paths
from diffsteer.steering.presets import PRESETS
from diffsteer.steering.shapes import brightness
from diffsteer.steering.words import from_mapping, parse

COLOUR, GREY = Canvas(3, 8, 8), Canvas(1, 8, 8)


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, digits_judge: Judge) -> Path:
    """A folder to work in, with every file that the examples name."""
    monkeypatch.chdir(tmp_path)
    draw = np.random.default_rng(0)
    for name in ("photo", "cloth", "low"):
        Image.fromarray(draw.integers(0, 256, (8, 8, 3)).astype(np.uint8)).save(tmp_path / f"{name}.png")
    hole = np.zeros((8, 8), np.uint8)
    hole[2:6, 2:6] = 255
    Image.fromarray(hole).save(tmp_path / "hole.png")
    save_judge(tmp_path / "judges" / "digits", digits_judge)
    return tmp_path


def some_pictures(count: int, canvas: Canvas) -> Tensor:
    shape = (count, canvas.channels, canvas.height, canvas.width)
    return torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 1.2 - 0.1


def value_of(steer: Steer, pictures: Tensor, seeds: Sequence[int] = range(9)) -> Tensor:
    return steer.loss(pictures, Moment(tuple(seeds)[: len(pictures)], 0, 400.0, 0.4, pictures))


def told(text: str, canvas: Canvas = COLOUR) -> str:
    with pytest.raises(Mistake) as mistake:
        build(parse(text), canvas)
    assert "\n" not in str(mistake.value)
    return str(mistake.value)


# ---- every loss ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_is_built_from_its_own_example(name: str, there: Path, untrained_clip: Path) -> None:
    words = parse(LOSSES[name].example.strip('"'))
    assert words.name == name
    if name.startswith("clip"):
        words = replace(words, options={"model": str(untrained_clip)})
    canvas = GREY if name == "classifier" else COLOUR
    steer = build(words, canvas)
    assert steer.name == str(words), "a steer is called by its words"
    pictures = some_pictures(3, canvas).requires_grad_()
    values = value_of(steer, pictures)
    assert values.shape == (3,) and values.isfinite().all()
    assert torch.autograd.grad(values.sum(), pictures)[0].abs().sum() > 0


def test_losses_that_need_no_value_have_one() -> None:
    pictures = some_pictures(2, COLOUR)
    for bare, said in (
        ("symmetry", "symmetry=left-right"),
        ("smoothness", "smoothness=total-variation"),
        ("color-seed", "color-seed=#1ae680"),
    ):
        torch.testing.assert_close(
            value_of(build(parse(bare), COLOUR), pictures), value_of(build(parse(said), COLOUR), pictures), atol=0.01, rtol=0.01
        )


def test_the_course_s_losses_come_with_its_step_and_its_force(untrained_clip: Path) -> None:
    color = build(parse("color-seed"), Canvas(3, 256, 256))
    assert (color.way, color.scaling, color.strength) == ("shortcut", "seed", 5.0), "scale 40, a mean over 8 pictures"
    assert build(parse("color-seed"), Canvas(3, 128, 128)).strength == 5 / 4
    assert build(parse("color-seed:7"), Canvas(3, 128, 128)).strength == 7
    clip = build(from_mapping({"clip-seed": "a red zero", "model": str(untrained_clip)}), COLOUR)
    assert (clip.way, clip.scaling, clip.cell, clip.strength) == ("shortcut", "seed", "clip", 2.0), "scale 8, a mean over 4 pictures"


# ---- options ---------------------------------------------------------------------------------------------------------


def test_a_maker_s_options_come_as_it_wants_them(there: Path) -> None:
    pictures = some_pictures(2, COLOUR)
    steer = build(parse("brightness=0.4,tolerance=0.1"), COLOUR)
    assert torch.equal(value_of(steer, pictures), brightness("0.4", COLOUR, tolerance=0.1)(pictures, None))  # type: ignore[arg-type]
    halves, quarters = (build(parse(f"reference=photo.png,by=low,factor={factor}"), COLOUR) for factor in (2, 4))
    assert (value_of(halves, pictures) > value_of(quarters, pictures)).all(), "more blocks are compared"
    assert told("brightness=0.4,tolerance=big") == "The tolerance of brightness should be a number; 'big' was given."
    assert told("brightness=0.4,tolerance=nan") == "The tolerance of brightness should be a number; 'nan' was given."
    assert told("reference=photo.png,by=low,factor=2.5") == "The factor of reference should be a whole number; '2.5' was given."
    assert told("classifier=judges/digits,label=3,noise_aware=yes").endswith("cannot be 'yes'. It is one of on, off.")


def test_options_of_the_engine_reach_the_steer() -> None:
    text = "color=red,way=exact,window=0.2-0.9,copies=3,spread=0.5,inner=2,recurrence=4,most=0.25,checkpoint=on:2"
    steer = build(parse(text), COLOUR)
    assert (steer.way, steer.window, steer.copies, steer.spread, steer.inner) == ("exact", (0.2, 0.9), 3, 0.5, 2)
    assert (steer.recurrence, steer.most, steer.checkpoint, steer.strength) == (4, 0.25, True, 2.0)
    plain = build(parse("color=red,checkpoint=off"), COLOUR)
    assert plain == replace(Steer(plain.loss), name="color=red,checkpoint=off"), "without options a steer is the engine's own"
    assert build(from_mapping({"color": "red", "window": (0.2, 0.9), "checkpoint": True}), COLOUR).window == (0.2, 0.9)


def test_a_scaling_of_the_course_brings_its_way() -> None:
    for scaling in ("seed", "none", "alpha_bar", "sqrt_alpha_bar", "sqrt_one_minus_alpha_bar"):
        steer = build(parse(f"color=red,scaling={scaling}"), COLOUR)
        assert (steer.scaling, steer.way) == (scaling, "shortcut")
    assert build(parse("color=red,scaling=seed,way=exact"), COLOUR).way == "exact"
    assert build(parse("color=red,scaling=bayes"), COLOUR).way == "covariance"
    assert "scaling seed goes with the ways exact and shortcut" in told("color=red,scaling=seed,way=covariance")


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_its_parts_and_options_go_over_it(name: str, there: Path) -> None:
    """Also where the loss has a way of its own, as a classifier's is exact."""
    for text, canvas in (("color=red", COLOUR), ("classifier=judges/digits,label=3", GREY)):
        steer = build(parse(f"{text},preset={name}:2"), canvas)
        assert {key: getattr(steer, key) for key in PRESETS[name]} == PRESETS[name] and steer.strength == 2
        changed = build(parse(f"{text},preset={name},inner=7,way=covariance"), canvas)
        assert (changed.inner, changed.way) == (7, "covariance")
        assert changed.recurrence == steer.recurrence and changed.copies == steer.copies


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("colour=red", "There is no loss 'colour' to steer by. Did you mean color? There are color, mean-color,"),
        ("sharpness", "and your own as my_losses.py:function."),
        ("my_losses.py", "There is no loss 'my_losses.py' to steer by."),
        ("color", "--steer color needs a value, for example --steer color=#1ae680."),
        ("mask=hole.png", "--steer mask needs picture=..., for example --steer mask=hole.png,picture=photo.png."),
        ("classifier=judges/digits", "--steer classifier needs label=..., for example"),
        ("color=red,tolerence=1", "--steer color has no option 'tolerence'. Did you mean tolerance? It has tolerance, way, scaling,"),
        ("color=red,wndow=0-1", "Did you mean window?"),
        ("color=red,cell=clip", "--steer color has no option 'cell'."),
        ("color=red,way=exakt", "The way of color cannot be 'exakt'. Did you mean exact? It is one of covariance, exact, shortcut."),
        ("color=red,scaling=half", "The scaling of color cannot be 'half'. It is one of bayes, seed, none"),
        ("color=red,preset=dsp", "The preset of color cannot be 'dsp'. Did you mean dps?"),
        ("color=red,window=0.9-0.2", "The window of color is two noise levels from 0 (clean) to 1 (noise), such as 0.2-1.0; '0.9-0.2' was"),
        ("color=red,window=0.5", "The window of color is two noise levels"),
        ("color=red,window=a-b", "The window of color should be a number; 'a' was given."),
        ("color=red,copies=-1", "The copies of color should be at least 0; -1 was given."),
        ("color=red,copies=two", "The copies of color should be a whole number; 'two' was given."),
        ("color=red,most=inf", "The most of color should be a number; 'inf' was given."),
        ("color=red,most=-1", "most, the largest move, should be above 0; -1 was given."),
        ("color=red,checkpoint=maybe", "The checkpoint of color cannot be 'maybe'. It is one of on, off."),
        ("nowhere.py:redness", "There is no file nowhere.py; nowhere.py:redness means the function redness in that file."),
        ("nowhere.py:redness=3", "--steer nowhere.py:redness takes no value; '3' was given."),
    ],
)
def test_what_cannot_be_built_is_told(there: Path, text: str, said: str) -> None:
    assert said in told(text)


def test_an_option_that_would_do_nothing_is_refused(there: Path, noise_aware_judge: Judge) -> None:
    save_judge(there / "noisy", noise_aware_judge)
    noisy, solved = "classifier=noisy,label=3,noise_aware=on", "mask=hole.png,picture=photo.png"
    for option in ("way=exact", "scaling=seed", "preset=dps", "copies=4", "spread=0.5", "inner=2", "checkpoint=on"):
        said = told(f"{noisy},{option}", GREY)
        assert f": {option.split('=')[0]} has no effect, since it looks at the noisy picture itself. Leave it out." in said
    for option in ("scaling=seed", "copies=4", "spread=0.5", "inner=2"):
        assert "since what is observed is solved for; way=exact makes it a loss" in told(f"{solved},{option}")
        build(parse(f"{solved},way=exact,copies=1,{option}" if "copies" not in option else f"{solved},way=exact,{option}"), COLOUR)
    assert "spread has no effect, since there are no copies" in told("color=red,spread=0.5")
    build(parse(f"{noisy},window=0.2-0.9,recurrence=2,most=0.1"), GREY)
    build(parse(f"{solved},way=shortcut,window=0.2-0.9,recurrence=2,most=0.1"), COLOUR)


def test_every_option_of_the_engine_is_one_of_the_steer() -> None:
    assert set(ENGINE) - {"preset"} <= set(Steer.__dataclass_fields__)


# ---- several steers, and their files ---------------------------------------------------------------------------------


def test_steers_of_one_name_are_numbered() -> None:
    steers = [build(parse(text), COLOUR) for text in ("color=red", "hue=red", "color=red", "color=red:2")]
    assert [steer.name for steer in distinct(steers)] == ["color=red (1)", "hue=red", "color=red (2)", "color=red:2"]
    assert [steer.loss for steer in distinct(steers)] == [steer.loss for steer in steers]


def test_files_are_named_by_their_whole_paths(there: Path) -> None:
    (there / "my_losses.py").write_text("")
    for name in ("#1ae680", "digits.png"):
        (there / name).write_text("")

    def whole(text: str) -> str:
        return str(with_whole_paths(parse(text)))

    assert whole("mask=hole.png,picture=photo.png,tolerance=0.1:2") == f"mask={there}/hole.png,picture={there}/photo.png,tolerance=0.1:2"
    assert whole("classifier=judges/digits,label=3") == f"classifier={there}/judges/digits,label=3"
    assert whole("my_losses.py:redness:0.5") == f"{there}/my_losses.py:redness:0.5"
    assert whole("clip=a cat|photo.png::0.5|digits.png,model=judges:8") == (
        f"clip=a cat|{there}/photo.png::0.5|{there}/digits.png,model={there}/judges:8"
    )
    for elsewhere in (
        "reference=nowhere.png",
        "clip=hole,model=openai/clip-vit-base-patch32",
        "color=#1ae680",
        "nowhere.py:f",
        "clip-seed",
    ):
        assert whole(elsewhere) == elsewhere, "what is no file here, or no file's name, stays"
    whole_again = with_whole_paths(with_whole_paths(parse("style=cloth.png")))
    assert str(whole_again) == f"style={there}/cloth.png"


# ---- classifiers -----------------------------------------------------------------------------------------------------


def test_a_judge_s_class_is_asked_by_name_and_costs_nats(there: Path, digits_judge: Judge) -> None:
    pictures = some_pictures(4, GREY)
    asked = value_of(build(parse("classifier=judges/digits,label=3"), GREY), pictures)
    torch.testing.assert_close(asked, -digits_judge(pictures).log_softmax(1)[:, 3])


def test_each_asks_every_seed_for_its_class(there: Path, digits_judge: Judge) -> None:
    pictures = some_pictures(4, GREY)
    asked = value_of(build(parse("classifier=judges/digits,label=each"), GREY), pictures, seeds=(3, 14, 9, 20))
    torch.testing.assert_close(asked, F.cross_entropy(digits_judge(pictures), torch.tensor([3, 4, 9, 0]), reduction="none"))


@pytest.fixture(scope="module")
def noise_aware_judge() -> Judge:
    from diffsteer.training.classifier import train_judge

    digits = load_pictures("digits")
    assert isinstance(digits, MemoryPictures) and digits.labels is not None
    few = replace(digits, pixels=digits.pixels[:200], labels=digits.labels[:200])
    return train_judge(few, noise_aware=True, epochs=2)


def test_a_noise_aware_judge_is_asked_about_the_noisy_picture(there: Path, noise_aware_judge: Judge) -> None:
    save_judge(there / "noisy", noise_aware_judge)
    loss = build(parse("classifier=noisy,label=each,noise_aware=on"), GREY).loss
    assert isinstance(loss, NoisyLoss)
    x_t, level = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0)), 0.7
    moment, wanted = Moment((2, 15), 0, 600.0, level, x_t), torch.tensor([2, 5])
    noisy, clean = noise_aware_judge(x_t, torch.tensor(level)), noise_aware_judge(x_t)
    torch.testing.assert_close(loss.of_noisy(x_t, moment), F.cross_entropy(noisy, wanted, reduction="none"))
    torch.testing.assert_close(loss(x_t, moment), F.cross_entropy(clean, wanted, reduction="none"))
    assert not torch.allclose(noisy, clean)
    assert not isinstance(build(parse("classifier=noisy,label=3"), GREY).loss, NoisyLoss)
    assert "knows noisy pictures of 8x8, and the model draws 16x8" in told("classifier=noisy,label=3,noise_aware=on", Canvas(1, 16, 8))
    assert "knows clean pictures only; train another with diffsteer judge" in told("classifier=judges/digits,label=3,noise_aware=on", GREY)


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """The folder of a small transformers classifier with its first weights, and its network."""
    from transformers import ViTConfig, ViTForImageClassification

    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = ViTConfig(image_size=16, patch_size=8, id2label={0: "cat", 1: "dog", 2: "5"}, label2id={"cat": 0, "dog": 1, "5": 2}, **sizes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = ViTForImageClassification(config).eval()
    folder = tmp_path_factory.mktemp("vit") / "classifier"
    network.save_pretrained(folder)
    return folder, network


def test_a_transformers_classifier_steers_too(vit: tuple[Path, Any], tmp_path: Path) -> None:
    folder, network = vit
    pictures = some_pictures(2, Canvas(3, 16, 16))
    found = value_of(build(parse(f"classifier={folder},label=dog"), Canvas(3, 16, 16)), pictures)
    torch.testing.assert_close(found, -network(2 * pictures - 1).logits.log_softmax(1)[:, 1].detach())
    each = value_of(build(parse(f"classifier={folder},label=each"), Canvas(3, 16, 16)), pictures, seeds=(1, 5))
    torch.testing.assert_close(each, F.cross_entropy(network(2 * pictures - 1).logits, torch.tensor([1, 2]), reduction="none").detach())
    small = some_pictures(2, GREY).requires_grad_()
    resized = value_of(build(parse(f"classifier={folder},label=5"), GREY), small)
    assert resized.isfinite().all() and torch.autograd.grad(resized.sum(), small)[0].abs().sum() > 0, "grey, and of another size"


def test_a_transformers_classifier_s_own_preparation_is_kept(vit: tuple[Path, Any], tmp_path: Path) -> None:
    from transformers import ViTImageProcessor

    _, network = vit
    network.save_pretrained(tmp_path / "prepared")
    ViTImageProcessor(size={"height": 16, "width": 16}, image_mean=[0.1, 0.2, 0.3], image_std=[0.2, 0.3, 0.4]).save_pretrained(
        tmp_path / "prepared"
    )
    pictures = some_pictures(2, Canvas(3, 16, 16))
    found = value_of(build(parse(f"classifier={tmp_path}/prepared,label=cat"), Canvas(3, 16, 16)), pictures)
    mean, spread = (torch.tensor(values)[:, None, None] for values in ([0.1, 0.2, 0.3], [0.2, 0.3, 0.4]))
    torch.testing.assert_close(found, -network((pictures - mean) / spread).logits.log_softmax(1)[:, 0].detach())


def test_classifiers_that_cannot_be_are_told(there: Path, vit: tuple[Path, Any]) -> None:
    (there / "strange").mkdir()
    (there / "strange" / "config.json").write_text('{"model_type": "no-such-model"}')
    assert "judges is no classifier: give a folder that `diffsteer judge DATA --out FOLDER` made" in told("classifier=judges,label=3")
    assert "The judge judges/digits reads grey pictures, and the model draws in colour." in told("classifier=judges/digits,label=3")
    assert "no label 'three'" in told("classifier=judges/digits,label=three", GREY)
    assert "no label 10; its labels are 0 to 9" in told("classifier=judges/digits,label=10", GREY)
    assert "The label of classifier is one class, or each; '2-4' names 3." in told("classifier=judges/digits,label=2-4", GREY)
    assert "which knows clean pictures only; leave noise-aware out" in told(f"classifier={vit[0]},label=cat,noise_aware=on")
    assert "did you mean 'dog'" in told(f"classifier={vit[0]},label=dogs")
    assert "cannot be read as an image classifier" in told("classifier=strange,label=3")
