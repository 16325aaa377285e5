"""The command line: the commands, and what becomes of their errors. Each command is imported when it is called, so `--help` is instant.

Exit codes: 0 done; 1 a run could not go on; 2 the user's mistake, said in a sentence; 130 interrupted, after saving.
"""

from __future__ import annotations

import errno
import os
import sys
import traceback
from typing import Any, NoReturn

from cyclopts import App, CycloptsError

from diffsteer import __version__
from diffsteer.errors import Mistake, Stopped

# Name: (what it does, an example).
COMMANDS = {
    "demo": ("The story so far on built-in data: check, train, sample, steer, score; pictures at the end.", "diffsteer demo --out demo"),
    "check": ("Read every picture and say what is odd; draw what the model will see.", "diffsteer check photos/ --out sheet"),
    "plan": (
        "Measure this machine for some seconds and propose how to train within a budget; say what that would give.",
        "diffsteer plan photos/ --budget 20m",
    ),
    "train": (
        "Train a model into a run folder, or go on with one: the same command again resumes.",
        "diffsteer train photos/ --out runs/photos --budget 20m",
    ),
    "finetune": (
        "Train a model that is there on other pictures, into a run folder, or go on with one.",
        "diffsteer finetune runs/photos drawings/ --out runs/drawings",
    ),
    "sample": ("Draw pictures with a model.", "diffsteer sample runs/photos --labels cat,dog --per-label 8 --out pets.png"),
    "judge": (
        "Train a small classifier of the data's classes, to steer by or to judge by.",
        "diffsteer judge photos/ --out judges/photos",
    ),
    "evaluate": (
        "Score a model's pictures; with --steer, what the steer gained beside what it cost.",
        "diffsteer evaluate runs/photos photos/ --out scores",
    ),
    "compare": (
        "Put runs into one table and one figure; numbers that cannot be compared get columns of their own.",
        "diffsteer compare runs/a runs/b --out comparison",
    ),
    "doctor": (
        "Find what is wrong with a run or a model, say it in plain words, and name the flag that mends it.",
        "diffsteer doctor runs/photos",
    ),
    "card": (
        "Write the model card: data, settings, scores, copies, limits, how to load it, and a grid of samples.",
        "diffsteer card runs/photos --license mit --data-license cc-by-4.0",
    ),
    "push": ("Upload a model folder to the Hub, and nothing else of its run.", "diffsteer push runs/photos user/photos --private"),
    "space": (
        "Write a Space, from which the Hub serves the web app of a model.",
        "diffsteer space user/photos spaces/photos --steer mine.py:redness:2 --losses my_losses",
    ),
    "app": ("Open the web app: draw, steer and watch, in the browser.", "diffsteer app runs/photos"),
    "recipes": ("List the recipes, or show one.", "diffsteer recipes show seed-class-conditional"),
}

app = App(
    name="diffsteer",
    version=__version__,
    help="Turn a folder of pictures into an image diffusion model that obeys. Start with: diffsteer demo\n\n"
    "Example: diffsteer train --help. Anywhere, --debug shows where in the code an error came from.",
    help_format="plaintext",
    result_action="return_value",
)
for _name, (_does, _example) in COMMANDS.items():
    app.command(f"diffsteer.commands:{_name}", name=_name, help=f"{_does}\n\nExample: {_example}")


def main(argv: list[str] | None = None) -> NoReturn:
    """The console script."""
    words = sys.argv[1:] if argv is None else argv
    debug = "--debug" in words or bool(os.environ.get("DIFFSTEER_DEBUG"))
    words = [word for word in words if word != "--debug"]
    sys.exit(run(words, debug))


def run(words: list[str], debug: bool = False) -> int:
    """Runs a command line; the exit code. Errors that are the user's are said on stderr."""
    try:
        app(words or ["--help"], exit_on_error=False, print_error=False)
        sys.stdout.flush()
    except CycloptsError as error:
        return _said(_plainly(error), 2, error, debug)
    except Mistake as error:
        return _said(str(error), 2, error, debug)
    except Stopped as error:
        return _said(str(error), 1, error, debug)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        _end_output()  # the reader of our output has gone (`diffsteer ... | head`): nothing is wrong
        return 0
    except OSError as error:
        # A place that cannot be written or read is the user's to mend; an error without a place is ours.
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return _no_room(error, debug)
        if error.filename is None:
            raise
        return _said(f"{error.filename}: {(error.strerror or str(error)).lower()}.", 2, error, debug)
    except Exception as error:
        if os.strerror(errno.ENOSPC) not in str(error):  # as libraries that write weights say it, each in an error of its own
            raise
        return _no_room(error, debug)
    return 0


def _no_room(error: BaseException, debug: bool) -> int:
    try:
        sys.stdout.flush()
    except OSError:
        _end_output()  # it is our output that has no room
    return _said("There is no room left on the disk. Make some; a run then goes on with the same command.", 1, error, debug)


def _end_output() -> None:
    """What is still to be written goes nowhere, and Python does not complain of that at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _said(sentence: str, code: int, error: BaseException, debug: bool) -> int:
    if debug:
        traceback.print_exception(error)
    sys.stderr.write(f"diffsteer: {sentence}\n")
    return code


def _plainly(error: Any) -> str:
    """A parsing error in our words: what cyclopts says, and where help is."""
    from pydantic import ValidationError

    cause: Any = error.__cause__ or error.__context__
    if isinstance(cause, ValidationError):
        from diffsteer.config import explain

        return explain(cause)
    said = " ".join(str(error).split())
    if (listed := said.find(" Available commands:")) >= 0:  # some of them; --help has all
        said = said[:listed]
    said = said.rstrip(".")
    command = " ".join(error.command_chain) if getattr(error, "command_chain", None) else ""
    return f"{said}{'' if said.endswith('?') else '.'} See diffsteer {command + ' ' if command else ''}--help."


if __name__ == "__main__":
    main()
