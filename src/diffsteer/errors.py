"""The exceptions the command line shows as a sentence, without a traceback."""


class Mistake(ValueError):
    """Something the user gave cannot be used: exit 2. The message says what was given, what is possible and what to try."""


class Stopped(RuntimeError):
    """A run could not go on: exit 1. The message says where it stopped, what is safe and what to try."""
