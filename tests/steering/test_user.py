"""Losses of the user's own: files and functions, what works and what is told about what does not."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from diffsteer.errors import Mistake
from diffsteer.steering.colors import color_seed
from diffsteer.steering.contract import Canvas, Loss, Moment
from diffsteer.steering.user import checked, from_file

CANVAS = Canvas(3, 8, 8)

# The course's function, as it stands there (seed 003), its comments shortened.
COURSE = """
import torch

def color_loss(images, target_color=(0.1, 0.9, 0.5)):
    target = (
        torch.tensor(target_color).to(images.device) * 2 - 1
    )
    target = target[
        None, :, None, None
    ]
    error = torch.abs(
        images - target
    ).mean()
    return error
"""

Write = Callable[..., str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(text: str, name: str = "my_losses.py") -> str:
        (tmp_path / name).write_text(dedent(text), encoding="utf-8")
        return str(tmp_path / name)

    return write


def value_of(loss: Loss, pictures: Tensor, call: int = 0) -> Tensor:
    return loss(pictures, Moment(tuple(range(len(pictures))), call, 400.0, 0.4, pictures.detach()))


def some_pictures(count: int) -> Tensor:
    return torch.rand((count, 3, 8, 8), generator=torch.Generator().manual_seed(0)) * 1.2 - 0.1


def told(text: str, canvas: Canvas = CANVAS, **options: str) -> str:
    with pytest.raises(Mistake) as mistake:
        from_file(text, canvas, **options)
    assert "\n" not in str(mistake.value)
    return str(mistake.value)


def told_of(function: Callable[..., object], canvas: Canvas = CANVAS) -> str:
    with pytest.raises(Mistake) as mistake:
        checked(function, "mine", canvas)
    return str(mistake.value)


# ---- the course's own ------------------------------------------------------------------------------------------------


def test_the_course_s_loss_as_pasted_is_told_what_to_write_instead(write: Write) -> None:
    text = write(COURSE) + ":color_loss"
    assert told(text, range="signed") == (
        f"{text} returns one number for the whole batch; return one number per picture, for example `.mean(dim=(1, 2, 3))`."
    )


def test_the_course_s_loss_with_that_change_works(write: Write) -> None:
    text = write(COURSE.replace(".mean()", ".mean(dim=(1, 2, 3))")) + ":color_loss"
    pictures = some_pictures(8)
    loss = from_file(text, CANVAS, range="signed")
    assert torch.allclose(value_of(loss, pictures), value_of(color_seed("0.1,0.9,0.5", CANVAS), pictures))
    assert torch.allclose(value_of(loss, pictures[3:4]), value_of(loss, pictures)[3:4])


# ---- what works ------------------------------------------------------------------------------------------------------


def test_the_range_is_chosen(write: Write) -> None:
    text = write("def lightness(pictures): return pictures.mean(dim=(1, 2, 3))") + ":lightness"
    pictures = some_pictures(2).requires_grad_()
    unit, signed = value_of(from_file(text, CANVAS), pictures), value_of(from_file(text, CANVAS, range="signed"), pictures)
    assert torch.allclose(signed, 2 * unit - 1)
    assert torch.allclose(torch.autograd.grad(signed.sum(), pictures)[0], torch.full((2, 3, 8, 8), 2 / 192))
    assert "The range of the pictures (range) cannot be 'sined'. Did you mean signed?" in told(text, range="sined")


def test_a_second_parameter_gets_the_moment() -> None:
    asked: list[Moment] = []

    def mine(pictures: Tensor, moment: Moment) -> Tensor:
        asked.append(moment)
        return pictures.mean(dim=(1, 2, 3)) * (1 + moment.call)

    loss = checked(mine, "mine", CANVAS)
    pictures = some_pictures(2)
    assert torch.allclose(value_of(loss, pictures, call=2), 3 * pictures.mean(dim=(1, 2, 3)))
    assert asked[-1].noise_level == 0.4 and len(asked[0].seeds) == 2


def test_a_second_parameter_with_a_default_gets_the_moment_only_by_its_name() -> None:
    def scaled(pictures: Tensor, scale: float = 2.0) -> Tensor:
        return scale * pictures.mean(dim=(1, 2, 3))

    def by_name(pictures: Tensor, moment: Moment | None = None) -> Tensor:
        assert moment is not None
        return pictures.mean(dim=(1, 2, 3))

    for function in (scaled, by_name):
        checked(function, "mine", CANVAS)


def test_a_module_a_partial_and_a_lambda_are_functions_too() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 1), nn.Flatten(0))
    for function in (network, lambda pictures: pictures.square().sum(dim=(1, 2, 3)), lambda *pictures: pictures[0].mean(dim=(1, 2, 3))):
        assert value_of(checked(function, "mine", CANVAS), some_pictures(4)).shape == (4,)


def test_a_function_that_works_in_place_does_not_change_the_engine_s_pictures() -> None:
    def mine(pictures: Tensor) -> Tensor:
        pictures -= 0.5
        return pictures.square().mean(dim=(1, 2, 3))

    pictures = some_pictures(2)
    before = pictures.clone()
    value_of(checked(mine, "mine", CANVAS), pictures)
    assert torch.equal(pictures, before)


def test_a_random_function_is_not_taken_for_one_that_mixes() -> None:
    checked(lambda pictures: (pictures * torch.rand(8)).mean(dim=(1, 2, 3)), "mine", CANVAS)


def test_an_answer_comes_in_the_pictures_type_and_without_gradients_when_they_have_none() -> None:
    loss = checked(lambda pictures: pictures.double().mean(dim=(1, 2, 3)), "mine", CANVAS)
    with torch.no_grad():
        assert value_of(loss, some_pictures(2)).dtype == torch.float32


# ---- the file --------------------------------------------------------------------------------------------------------


def test_a_helper_beside_the_file_is_found_and_nothing_is_left_behind(write: Write, tmp_path: Path) -> None:
    write("HALF = 0.5", "a_helper_of_mine.py")
    text = write(
        """
        from dataclasses import dataclass
        from a_helper_of_mine import HALF

        @dataclass
        class Aim:
            value: float = HALF

        def towards(pictures):
            return (pictures.mean(dim=(1, 2, 3)) - Aim().value) ** 2
        """
    )
    path, modules = list(sys.path), set(sys.modules)
    from_file(text + ":towards", CANVAS)
    assert sys.path == path
    assert not any(Path(text).stem == name for name in sys.modules)
    for name in set(sys.modules) - modules:
        del sys.modules[name]


def test_a_changed_file_is_read_anew(write: Write) -> None:
    for factor in (1, 2):
        text = write(f"def scaled(pictures): return {factor} * pictures.mean(dim=(1, 2, 3))") + ":scaled"
        assert value_of(from_file(text, CANVAS), torch.ones(1, 3, 8, 8)).item() == pytest.approx(factor)
    assert [path.name for path in Path(text).parent.iterdir()] == ["my_losses.py"]


def test_a_file_that_cannot_be_used_is_told_why(write: Write, tmp_path: Path) -> None:
    assert "write the file, a colon and the function's name" in told("my_losses.py")
    assert f"There is no file {tmp_path / 'gone.py'}" in told(f"{tmp_path / 'gone.py'}:redness")
    assert "its name has to end in .py" in told(write("", "losses.txt") + ":redness")
    assert "has a syntax error in line 3:" in told(write("import torch\n\ndef redness(pictures:\n") + ":redness")
    assert "could not be run: ZeroDivisionError: division by zero in line 2 of my_losses.py." in told(
        write("import sys\n1 / 0") + ":redness"
    )
    assert "could not be run: SystemExit: 2 in line 1" in told(write("raise SystemExit(2)") + ":redness")
    said = told(write("import no_such_library") + ":redness")
    assert "ModuleNotFoundError: No module named 'no_such_library' in line 1" in said
    assert said.endswith("Install no_such_library where diffsteer is installed, or put it beside the file.")


def test_a_function_that_is_not_there_is_told_what_is(write: Write) -> None:
    text = write("from math import sqrt\nedge = 3\ndef redness(pictures): ...\ndef _hidden(pictures): ...\nclass Blue: ...\n")
    assert told(text + ":rednes") == f"{text} has no function rednes. Did you mean redness? Its functions are: redness."
    assert told(text + ":edge") == f"edge in {text} is a value of type int, not a function; write `def edge(pictures): ...`."
    assert "Blue in" in told(text + ":Blue") and "is a class; name a function" in told(text + ":Blue")
    assert told(write("") + ":redness").endswith("It has no function at all.")


# ---- the function ----------------------------------------------------------------------------------------------------


def one_by_default(pictures: Tensor, a: float, b: float) -> Tensor: ...


def by_name(pictures: Tensor, *, strict: bool) -> Tensor: ...


def nothing() -> Tensor: ...


@pytest.mark.parametrize(
    ("function", "names"), [(one_by_default, "pictures, a, b"), (by_name, "pictures, strict"), (nothing, "none")], ids=["3", "keyword", "0"]
)
def test_a_signature_that_cannot_be_called_is_told(function: Callable[..., object], names: str) -> None:
    said = told_of(function)
    assert f"its parameters without a default are: {names}." in said and "Write `def NAME(pictures)`" in said


def test_what_it_raises_is_told_with_the_line_in_the_user_s_file(write: Write) -> None:
    text = write("import torch\n\ndef redness(pictures):\n    return pictures @ torch.ones(3, 3)\n") + ":redness"
    said = told(text)
    assert said.startswith(f"{text} raised RuntimeError: ")
    assert said.endswith("in line 4 of my_losses.py, given pictures [2, 3, 8, 8].")


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda p: None, "mine returned None (is `return` missing?), not a tensor; return one number per picture"),
        (lambda p: p.mean().item(), "mine returned a value of type float, not a tensor"),
        (lambda p: p.detach().numpy().mean(axis=(1, 2, 3)), "mine returned a value of type ndarray, not a tensor"),
        (lambda p: p.mean(), "mine returns one number for the whole batch"),
        (lambda p: p.mean(dim=1), "mine returned shape [2, 8, 8] for 2 pictures; return one number per picture"),
        (lambda p: p.flatten(1).argmax(dim=1), "mine returned torch.int64 values, through which no gradient flows"),
        (lambda p: p.mean(dim=(1, 2, 3)) > 0.5, "mine returned torch.bool values"),
        (lambda p: p.detach().mean(dim=(1, 2, 3)), "mine is not differentiable: its result has lost the way back to the pictures"),
        (lambda p: torch.from_numpy(np.asarray(p.tolist())).mean(dim=(1, 2, 3)), "mine is not differentiable"),
        (lambda p: p.numpy(), "No gradient flows through numpy: compute with torch operations"),
        (lambda p: torch.ones(2, requires_grad=True) * 2, "mine does not depend on the pictures"),
        (
            lambda p: (p - 2).log().mean(dim=(1, 2, 3)),
            "mine returned NaN in its trial, on pictures that are black and white in places. sqrt, log, norm and division",
        ),
        (lambda p: p.log().mean(dim=(1, 2, 3)), "mine returned infinity in its trial"),
        (lambda p: p.sqrt().mean(dim=(1, 2, 3)), "The gradient of mine is infinity in its trial"),
        (lambda p: (p.mean() - p).square().mean(dim=(1, 2, 3)), "mine mixes pictures: the number of one depends on another in its batch"),
        (lambda p: p.mean().expand(len(p)), "mine mixes pictures"),
        (lambda p: p.mean(dim=(1, 2, 3)) / len(p), "beside another"),
    ],
)
def test_an_answer_that_cannot_steer_is_told_at_the_trial(function: Callable[..., object], said: str) -> None:
    assert said in told_of(function)


def test_while_drawing_the_call_is_named() -> None:
    loss = checked(lambda pictures: (pictures + 1).log().mean(dim=(1, 2, 3)), "mine", CANVAS)
    with pytest.raises(Mistake, match=r"mine returned NaN at call 8 of the drawing \(noise level 0.40\)"):
        value_of(loss, torch.full((2, 3, 8, 8), -3.0), call=7)


def test_while_drawing_a_gradient_that_is_not_finite_is_told_by_its_loss() -> None:
    loss = checked(lambda pictures: (pictures - 3).abs().sqrt().mean(dim=(1, 2, 3)), "mine", CANVAS)
    pictures = torch.full((2, 3, 8, 8), 3.0, requires_grad=True)
    answer = value_of(loss, pictures, call=4) + pictures.mean(dim=(1, 2, 3))
    with pytest.raises(Mistake, match="The gradient of mine is NaN at call 5"):
        torch.autograd.grad(answer.sum(), pictures)


def test_too_little_memory_is_no_mistake_of_the_function() -> None:
    full = False

    def mine(pictures: Tensor) -> Tensor:
        if full:
            raise torch.OutOfMemoryError("full")
        return pictures.mean(dim=(1, 2, 3))

    loss = checked(mine, "mine", CANVAS)
    full = True
    with pytest.raises(torch.OutOfMemoryError):
        value_of(loss, some_pictures(2))


def test_grey_models_are_tried_with_grey_pictures() -> None:
    assert "given pictures [2, 1, 8, 8]" in told_of(lambda pictures: pictures[:, 2].mean(dim=(1, 2)), Canvas(1, 8, 8))
