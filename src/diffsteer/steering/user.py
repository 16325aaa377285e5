"""Losses of the user's own: a function in a file, `my_losses.py:redness`, or one given from Python.

The function takes pictures [B, C, H, W], or pictures and the moment (see `contract.py`), and returns one number per picture [B]. It is
tried on two pictures before any drawing starts; while drawing, each answer and each gradient is looked at. Whatever is wrong is a Mistake
that says what, and what to write instead.

A loss file is code that runs as the user. Only the person at the command line names one: a recipe, a model folder or a PNG never does.
"""

from __future__ import annotations

import importlib.util
import inspect
import itertools
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from diffsteer.diffusion.seeds import generator_for
from diffsteer.errors import Mistake
from diffsteer.steering.contract import Canvas, Loss, Moment
from diffsteer.steering.options import one_of

RANGES = ("unit", "signed")
PER_PICTURE = "return one number per picture, for example `.mean(dim=(1, 2, 3))`"
KEEP_TO_TORCH = "compute with torch operations from the pictures to the result, without .item(), .detach(), numpy, argmax or comparisons"
BOUNDED = "sqrt, log, norm and division do this near 0: add a small number inside, such as (x + 1e-6).sqrt()."
TRIAL = "in its trial, on pictures that are black and white in places"
SAME = 1e-3  # how near, relatively, a picture's number must be to itself in another batch

_numbers = itertools.count()


def from_file(text: str, canvas: Canvas, *, range: str = "unit") -> Loss:
    """`my_losses.py:redness` -> a loss. range: the pictures it gets, `unit` [0, 1] or `signed` [-1, 1]; neither is clamped.

    The file runs once, as a module of its own. While it runs its folder comes first in the search path, as it does for `python FILE`, so a
    helper beside it can be imported at its top; afterwards the path is as before. Nothing is written beside it. Raises Mistake.
    """
    signed = one_of("The range of the pictures (range)", range, RANGES) == "signed"
    place, colon, name = text.rpartition(":")
    if not colon or not name.isidentifier():
        raise Mistake(f"{text!r} does not name a function; write the file, a colon and the function's name, such as my_losses.py:redness.")
    path = Path(place).expanduser()
    if not path.is_file():
        raise Mistake(f"There is no file {place}; {text} means the function {name} in that file.")
    return checked(_function(_run(path), name, path), text, canvas, signed)


def checked(function: Callable[..., Any], name: str, canvas: Canvas, signed: bool = False) -> Loss:
    """A loss that asks `function` and looks at its answers; `name` is for messages. Tried here, before any drawing. Raises Mistake."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    loss = _UserLoss(function, name, _takes_moment(function, name), signed, getattr(code, "co_filename", ""))
    _try(loss, canvas)
    return loss


# ---- asking the function -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _UserLoss:
    function: Callable[..., Any]
    name: str
    takes_moment: bool
    signed: bool
    file: str  # where the function was written, as tracebacks call it

    def __call__(self, pictures: Tensor, moment: Moment) -> Tensor:
        """One number per picture [B]. Raises Mistake; what happens to memory is passed on as it is."""
        return self.asked(pictures, moment, f"at call {moment.call + 1} of the drawing (noise level {moment.noise_level:.2f})")

    def asked(self, pictures: Tensor, moment: Moment, when: str) -> Tensor:
        """The same; `when` is for messages."""
        # Pictures of its own: a function that works in place must not change the engine's, and its gradient can be looked at alone.
        own = 2 * pictures - 1 if self.signed else pictures.clone()
        if own.requires_grad:
            own.register_hook(lambda gradient: self._look(f"The gradient of {self.name} is", gradient, when))
        answer = self._shaped(self._ask(own, moment), own)
        self._look(f"{self.name} returned", answer, when)
        return answer.to(pictures.dtype)

    def _ask(self, pictures: Tensor, moment: Moment) -> Any:
        try:
            return self.function(pictures, moment) if self.takes_moment else self.function(pictures)
        except (torch.OutOfMemoryError, MemoryError):
            raise
        except Exception as error:
            shape = list(pictures.shape)
            place = _line(error, self.file)
            raise Mistake(f"{self.name} raised {_told(error)}{place}, given pictures {shape}.{_numpy_hint(error)}") from error

    def _shaped(self, answer: Any, pictures: Tensor) -> Tensor:
        if not isinstance(answer, Tensor):
            raise Mistake(f"{self.name} returned {_kind(answer)}, not a tensor; {PER_PICTURE}.")
        if answer.ndim == 0:
            raise Mistake(f"{self.name} returns one number for the whole batch; {PER_PICTURE}.")
        if answer.shape != pictures.shape[:1]:
            raise Mistake(f"{self.name} returned shape {list(answer.shape)} for {len(pictures)} pictures; {PER_PICTURE}.")
        if not answer.is_floating_point():
            raise Mistake(f"{self.name} returned {answer.dtype} values, through which no gradient flows; {KEEP_TO_TORCH}.")
        if pictures.requires_grad and not answer.requires_grad:
            raise Mistake(f"{self.name} is not differentiable: its result has lost the way back to the pictures; {KEEP_TO_TORCH}.")
        return answer

    def _look(self, what: str, values: Tensor, when: str) -> None:
        if not bool(values.isfinite().all()):
            found = "NaN" if bool(values.isnan().any()) else "infinity"
            raise Mistake(f"{what} {found} {when}. {BOUNDED}")


def _takes_moment(function: Callable[..., Any], name: str) -> bool:
    """Whether to hand over the moment: to a second parameter that must be given, or is called `moment`. Mistake for other signatures."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:  # functions written in C need not tell
        return False
    places = [one for one in parameters if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)]
    needed = [one for one in places if one.default is one.empty]
    only_by_name = [one.name for one in parameters if one.kind is one.KEYWORD_ONLY and one.default is one.empty]
    takes_any = any(one.kind is one.VAR_POSITIONAL for one in parameters)
    if len(needed) > 2 or only_by_name or not (places or takes_any):
        names = ", ".join([one.name for one in needed] + only_by_name) or "none"
        raise Mistake(
            f"{name} is called with the pictures, or with the pictures and the moment; its parameters without a default are: {names}. "
            "Write `def NAME(pictures)` or `def NAME(pictures, moment)`, and give the others a default."
        )
    return len(needed) == 2 or (len(places) > 1 and places[1].name == "moment")


# ---- the trial ---------------------------------------------------------------------------------------------------------


def _try(loss: _UserLoss, canvas: Canvas) -> None:
    """Two pictures, together and alone: does it answer, does a gradient come back, does each number keep to its own picture?"""
    pictures = _plausible(canvas)  # [2, C, H, W]
    with torch.enable_grad():
        own = pictures.clone().requires_grad_()
        together = _asked(loss, own)
        if torch.autograd.grad(together.sum(), own, retain_graph=True, allow_unused=True)[0] is None:
            raise Mistake(f"{loss.name} does not depend on the pictures; {KEEP_TO_TORCH}.")
        if bool(torch.autograd.grad(together[0], own)[0][1].any()):
            raise Mistake(f"{loss.name} mixes pictures: the number of one depends on another in its batch; {PER_PICTURE}.")
        again, alone = (_asked(loss, batch.clone().requires_grad_())[0] for batch in (pictures, pictures[:1]))
    # A function that draws random numbers cannot be judged by its values.
    if torch.equal(again, together[0]) and not torch.allclose(alone, again, rtol=SAME, atol=1e-6):
        raise Mistake(f"{loss.name} mixes pictures: one costs {alone:.4g} alone and {again:.4g} beside another; {PER_PICTURE}.")


def _asked(loss: _UserLoss, pictures: Tensor) -> Tensor:
    moment = Moment(seeds=(0, 1)[: len(pictures)], call=0, t=500.0, noise_level=0.5, x_t=2 * pictures.detach() - 1)
    return loss.asked(pictures, moment, TRIAL)


def _plausible(canvas: Canvas) -> Tensor:
    """Two blurry pictures with a little noise, [2, C, H, W] in [0, 1], black and white in places: the same every time."""
    generator = generator_for("trial of a loss")
    coarse = torch.rand((2, canvas.channels, 4, 4), generator=generator)
    fine = torch.rand((2, canvas.channels, canvas.height, canvas.width), generator=generator)
    smooth = F.interpolate(coarse, (canvas.height, canvas.width), mode="bilinear")
    return (1.6 * smooth + 0.1 * fine - 0.35).clamp(0, 1).to(canvas.device)


# ---- the file ----------------------------------------------------------------------------------------------------------


def _run(path: Path) -> ModuleType:
    """The file as a module under a name of its own, so that it neither hides another nor is hidden. Mistake when it cannot run."""
    name = f"diffsteer_user_{next(_numbers)}_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path.resolve())
    if spec is None or spec.loader is None:
        raise Mistake(f"{path} is not a Python file; its name has to end in .py.")
    module = importlib.util.module_from_spec(spec)
    try:
        code = compile(path.read_bytes(), str(path.resolve()), "exec")  # no .pyc: nothing stale is read, nothing is left behind
    except SyntaxError as error:
        raise Mistake(f"{path} has a syntax error in line {error.lineno}: {error.msg}.") from error
    except (OSError, ValueError) as error:
        raise Mistake(f"{path} cannot be read as Python ({error}).") from error
    sys.modules[name] = module  # dataclasses look there
    try:
        with _searching_first(path.resolve().parent):
            exec(code, module.__dict__)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise Mistake(f"{path} could not be run: {_told(error)}{_line(error, str(path.resolve()))}.{_import_hint(error)}") from error
    return module


@contextmanager
def _searching_first(folder: Path) -> Iterator[None]:
    before = list(sys.path)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path[:] = before


def _function(module: ModuleType, name: str, path: Path) -> Callable[..., Any]:
    there = [
        key
        for key, value in vars(module).items()
        if inspect.isfunction(value) and value.__module__ == module.__name__ and not key.startswith("_")
    ]
    if not hasattr(module, name):
        near = get_close_matches(name, there, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        listing = f"Its functions are: {', '.join(there)}." if there else "It has no function at all."
        raise Mistake(f"{path} has no function {name}.{hint} {listing}")
    found = getattr(module, name)
    if not callable(found):
        raise Mistake(f"{name} in {path} is {_kind(found)}, not a function; write `def {name}(pictures): ...`.")
    if inspect.isclass(found):
        raise Mistake(f"{name} in {path} is a class; name a function, or an object made from it that can be called.")
    return found


# ---- words -------------------------------------------------------------------------------------------------------------


def _told(error: BaseException) -> str:
    """`KeyError: 'x'`, in one line and without its final stop."""
    message = " ".join(str(error).split()).rstrip(".")
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def _line(error: BaseException, file: str) -> str:
    """` in line 12 of my_losses.py`, the deepest line of the user's own file; empty when it was not there."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return f" in line {lines[-1]} of {Path(file).name}" if lines else ""


def _kind(value: Any) -> str:
    if value is None:
        return "None (is `return` missing?)"
    return f"a value of type {type(value).__name__}"


def _numpy_hint(error: Exception) -> str:
    # torch's own advice here is .detach(), which ends the gradient.
    return f" No gradient flows through numpy: {KEEP_TO_TORCH}." if "numpy()" in str(error) else ""


def _import_hint(error: BaseException) -> str:
    if not isinstance(error, ModuleNotFoundError):
        return ""
    return f" Install {error.name} where diffsteer is installed, or put it beside the file."
