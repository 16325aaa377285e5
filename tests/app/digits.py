"""What the page knows of a model of coloured digits, and the limits of a job, for tests without a page."""

from __future__ import annotations

from diffsteer.app.asked import Limits
from diffsteer.app.commission import About

DIGITS = About(
    labels=tuple("0123456789"), channels=3, height=8, width=8, guidance=True, spacings={"ddim": None, "dpm++2m": None, "unipc": None},
    own_solver="dpm++2m", own_steps=4, own_guidance=1.0, own_interval=(0.0, 1.0), device="cpu",
)  # fmt: skip
LIMITS = Limits(pictures=40, steps=50)
