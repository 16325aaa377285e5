"""Published methods as choices of the engine's parts: `--steer classifier=FOLDER,label=3,preset=dps`.

Each is the paper's way of moving x0 with the weights of Bayes' rule in place of its own, so that strengths compare. A method's own options
may be changed beside its name.
"""

from __future__ import annotations

from typing import Any

PRESETS: dict[str, dict[str, Any]] = {
    # Chung et al. 2023, Diffusion Posterior Sampling, eq. 16: the gradient in x_t, through the network.
    "dps": {"way": "exact"},
    # He et al. 2024, Manifold Preserving Guided Diffusion, eq. 7: the gradient in x0 alone.
    "mpgd": {"way": "shortcut"},
    # Song et al. 2023, Loss-Guided Diffusion, eq. 8: the loss's exponential averaged over noisy copies of x0.
    "lgd": {"way": "exact", "copies": 10},
    # Yu et al. 2023, FreeDoM, algorithm 2: time travel in the middle of the way, where meaning is made.
    "freedom": {"way": "exact", "recurrence": 2},
    # Bansal et al. 2023, Universal Guidance, algorithm 1: forward and backward guidance, and recurrence.
    "ugd": {"way": "exact", "inner": 4, "recurrence": 2},
    # Ye et al. 2024, Training-Free Guidance, algorithm 1: variance and mean guidance, smoothing and recurrence.
    "tfg": {"way": "exact", "inner": 4, "copies": 4, "spread": 0.5, "recurrence": 2},
}
