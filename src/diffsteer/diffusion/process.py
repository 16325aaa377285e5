"""The noise process: `x_t = alpha_t * x0 + sigma_t * eps`, and the conversions between what a network may predict.

Training asks a `Process` to noise pictures and to name the target; denoisers ask it to turn a network's output into x0; solvers ask it
for coefficients. `t` runs from 0 (clean) to 1000 (noise). Nothing else in the package knows a noise schedule.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

PROCESSES = ("cosine", "linear", "flow", "edm")
PREDICTIONS = ("x0", "eps", "v", "flow")

# What diffusers calls our predictions, in scheduler configs.
DIFFUSERS_PREDICTION = {"x0": "sample", "eps": "epsilon", "v": "v_prediction"}


@dataclass(frozen=True)
class Process:
    """An immutable noise process.

    name: `cosine` (Nichol & Dhariwal 2021, eq. 17) or `linear` (Ho et al. 2020) variance preserving, where t is the fractional index of
        the table of betas; `flow` (Lipman et al. 2022; Liu et al. 2022), sigma = t / 1000 and alpha = 1 - sigma; `edm` (Karras et al.
        2022, eq. 5), alpha = 1 and sigma on their curve between sigma_min and sigma_max.
    noise: `gaussian`, or `uniform` on [-1, 1] (flow only).
    betas: the table of a variance-preserving process read from elsewhere; None for the named ones.
    """

    name: str = "flow"
    noise: str = "gaussian"
    sigma_data: float = 1.0
    train_steps: int = 1000
    betas: tuple[float, ...] | None = None
    sigma_min: float = 0.002
    sigma_max: float = 80.0
    rho: float = 7.0

    def __post_init__(self) -> None:
        if self.name not in PROCESSES:
            raise ValueError(f"unknown process {self.name!r}; there are {', '.join(PROCESSES)}")
        if self.noise not in ("gaussian", "uniform"):
            raise ValueError(f"unknown noise {self.noise!r}; there are gaussian and uniform")
        if self.noise == "uniform" and self.name != "flow":
            raise ValueError(f"uniform noise goes with the process flow, not {self.name}")
        if self.betas is not None:
            object.__setattr__(self, "betas", tuple(self.betas))  # JSON gives a list, and a process must be hashable

    # ---- coefficients ----------------------------------------------------------------------------------------------

    @property
    def variance_preserving(self) -> bool:
        return self.name in ("cosine", "linear")

    @property
    def t_max(self) -> float:
        """The noisiest time there is."""
        return float(self.train_steps - 1) if self.variance_preserving else 1000.0

    def alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """(alpha_t, sigma_t), shaped like t; float64 for a float64 t, else float32."""
        out = torch.float64 if t.dtype == torch.float64 else torch.float32
        t = widest(t)
        if self.name == "flow":
            sigma = t / 1000
            alpha = 1 - sigma
        elif self.name == "edm":
            low, high = self.sigma_min ** (1 / self.rho), self.sigma_max ** (1 / self.rho)
            sigma = (low + t / 1000 * (high - low)) ** self.rho
            alpha = torch.ones_like(sigma)
        else:
            table = _log_ratio_table(self, t.device, t.dtype)
            t = t.clamp(0, len(table) - 1)
            left = t.floor().long().clamp(max=len(table) - 2)
            ratio = torch.lerp(table[left], table[left + 1], t - left).exp()
            alpha = (1 + ratio**2).rsqrt()
            sigma = ratio * alpha
        return alpha.to(out), sigma.to(out)

    def ratio(self, t: Tensor) -> Tensor:
        """sigma_t / alpha_t, as `widest`: the one measure of noise that all processes share (infinite at flow's t = 1000)."""
        alpha, sigma = self.alpha_sigma(widest(t))
        return sigma / alpha

    def time_of(self, ratio: Tensor) -> Tensor:
        """The time at which sigma / alpha equals `ratio`, as `widest`, held inside the process's range."""
        ratio = widest(ratio)
        if self.name == "flow":
            return torch.where(torch.isinf(ratio), 1000.0, 1000 * ratio / (1 + ratio))
        if self.name == "edm":
            low, high = self.sigma_min ** (1 / self.rho), self.sigma_max ** (1 / self.rho)
            return (1000 * (ratio ** (1 / self.rho) - low) / (high - low)).clamp(0, 1000)
        table = _log_ratio_table(self, ratio.device, ratio.dtype)
        log_ratio = ratio.log().clamp(table[0], table[-1])
        right = torch.searchsorted(table, log_ratio).clamp(1, len(table) - 1)
        below, above = table[right - 1], table[right]
        return right - 1 + (log_ratio - below) / (above - below)

    def input_scale(self, t: Tensor) -> Tensor:
        """What x_t is multiplied by before a network sees it: EDM's c_in (eq. 7); 1 elsewhere, where x_t is of unit size already."""
        if self.name != "edm":
            return torch.ones_like(t, dtype=torch.float32)
        alpha, sigma = self.alpha_sigma(t)
        return (alpha**2 * self.sigma_data**2 + sigma**2).rsqrt()

    def start_scale(self, t: Tensor) -> Tensor:
        """The size of the pure noise that sampling starts from at time t: 1 where variance is preserved, else sigma_t."""
        return torch.ones_like(t, dtype=torch.float32) if self.variance_preserving else self.alpha_sigma(t)[1]

    # ---- noise and targets -----------------------------------------------------------------------------------------

    def add_noise(self, x0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """x_t for pictures x0 [B, ...] in [-1, 1], noise eps [B, ...] and times t [B]."""
        alpha, sigma = (broadcast(c, x0) for c in self.alpha_sigma(t))
        return alpha * x0 + sigma * eps

    def target(self, prediction: str, x0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """What a network of this prediction should answer: `a * x0 + b * eps`, shaped like x0."""
        a, b = (broadcast(c, x0) for c in self._target_weights(prediction, t))
        return a * x0 + b * eps

    def to_x0(self, prediction: str, output: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """x0 from a network's output: the inverse of `target`, given x_t. Shapes as x_t; t is [B]."""
        alpha, sigma = (broadcast(c, x_t) for c in self.alpha_sigma(t))
        if prediction == "x0":
            return output
        if prediction == "eps":
            return (x_t - sigma * output) / alpha
        if prediction == "flow":
            return (x_t - sigma * output) / (alpha + sigma)
        data = self.sigma_data
        norm2 = alpha**2 * data**2 + sigma**2
        return (alpha * data**2 * x_t - sigma * data * norm2.sqrt() * output) / norm2

    def from_x0(self, prediction: str, x0: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """What a network of this prediction would have answered to be read as x0. Shapes as x_t; t is [B]; sigma_t must not be 0."""
        alpha, sigma = (broadcast(c, x_t) for c in self.alpha_sigma(t))
        return self.target(prediction, x0, (x_t - alpha * x0) / sigma, t)

    def _target_weights(self, prediction: str, t: Tensor) -> tuple[Tensor, Tensor]:
        """(a, b) of `a * x0 + b * eps`.

        v is Salimans & Ho 2022 (alpha * eps - sigma * x0), written so that it is EDM's preconditioned target up to sign when alpha is 1;
        flow is the velocity eps - x0. (diffusers' EDM schedulers call that sign "v_prediction".)
        """
        alpha, sigma = self.alpha_sigma(t)
        if prediction == "v":
            norm = (alpha**2 * self.sigma_data**2 + sigma**2).sqrt()
            return -sigma / (self.sigma_data * norm), self.sigma_data * alpha / norm
        weights = {"x0": (1.0, 0.0), "eps": (0.0, 1.0), "flow": (-1.0, 1.0)}
        if prediction not in weights:
            raise ValueError(f"unknown prediction {prediction!r}; there are {', '.join(PREDICTIONS)}")
        a, b = weights[prediction]
        return torch.full_like(alpha, a), torch.full_like(alpha, b)

    # ---- as a diffusers scheduler config ---------------------------------------------------------------------------

    def scheduler_config(self, prediction: str) -> dict[str, Any]:
        """The config of the diffusers scheduler that means the same process (class name under `_class_name`)."""
        if self.name == "flow":
            return {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000, "shift": 1.0}
        if self.name == "edm":
            ends = {"sigma_min": self.sigma_min, "sigma_max": self.sigma_max, "sigma_data": self.sigma_data, "rho": self.rho}
            return {"_class_name": "EDMEulerScheduler", "num_train_timesteps": 1000, "prediction_type": "v_prediction", **ends}
        config: dict[str, Any] = {"_class_name": "DDPMScheduler", "num_train_timesteps": self.train_steps, "clip_sample": True}
        config["prediction_type"] = DIFFUSERS_PREDICTION.get(prediction, "epsilon")
        if self.betas is not None:
            return {**config, "trained_betas": list(self.betas)}
        if self.name == "cosine":
            return {**config, "beta_schedule": "squaredcos_cap_v2"}
        return {**config, "beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02}

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON; `Process(**values)` reads them back."""
        return asdict(self)


def process_from_scheduler_config(config: dict[str, Any]) -> tuple[Process, str]:
    """(process, prediction) that a diffusers scheduler config stands for. ValueError where there is no such process here."""
    name = str(config.get("_class_name", ""))
    if name.startswith("FlowMatch"):
        if float(config.get("shift", 1.0)) != 1.0:
            raise ValueError(f"a flow schedule with shift {config['shift']} is not supported; only shift 1 is")
        return Process("flow"), "flow"
    if name.startswith("EDM"):
        if config.get("prediction_type") != "v_prediction":
            raise ValueError("of EDM's preconditionings only v_prediction is supported")
        ends = {key: float(config[key]) for key in ("sigma_min", "sigma_max", "sigma_data", "rho") if key in config}
        return Process("edm", **ends), "v"  # type: ignore[arg-type]
    words = {theirs: ours for ours, theirs in DIFFUSERS_PREDICTION.items()}
    kind = config.get("prediction_type", "epsilon")
    if kind not in words:
        raise ValueError(f"the scheduler predicts {kind!r}; supported are {', '.join(words)}")
    if config.get("rescale_betas_zero_snr"):
        raise ValueError("a schedule with rescale_betas_zero_snr is not supported; only the betas as they are")
    steps = int(config.get("num_train_timesteps", 1000))
    schedule = config.get("beta_schedule", "linear")
    start, end = float(config.get("beta_start", 1e-4)), float(config.get("beta_end", 0.02))
    if config.get("trained_betas") is not None:
        betas = [float(beta) for beta in config["trained_betas"]]
        return Process("linear", train_steps=len(betas), betas=tuple(betas)), words[kind]
    if schedule == "squaredcos_cap_v2":
        return Process("cosine", train_steps=steps), words[kind]
    if schedule == "linear" and (start, end) == (1e-4, 0.02):
        return Process("linear", train_steps=steps), words[kind]
    if schedule in ("linear", "scaled_linear"):
        power = 1.0 if schedule == "linear" else 2.0
        grid = torch.linspace(start ** (1 / power), end ** (1 / power), steps, dtype=torch.float64) ** power
        return Process("linear", train_steps=steps, betas=tuple(grid.tolist())), words[kind]
    raise ValueError(f"the schedule {schedule!r} is not supported; supported are linear, scaled_linear, squaredcos_cap_v2, trained_betas")


def widest(values: Tensor) -> Tensor:
    """The values in float64; in float32 on Apple's GPUs, which have no more."""
    return values.to(torch.float32 if values.device.type == "mps" else torch.float64)


def broadcast(coefficient: Tensor, like: Tensor) -> Tensor:
    """[B] (or a scalar) -> [B, 1, 1, ...], to multiply a tensor shaped [B, ...]."""
    return coefficient.reshape(coefficient.shape + (1,) * (like.ndim - coefficient.ndim)) if coefficient.ndim else coefficient


@lru_cache(maxsize=32)
def _log_ratio_table(process: Process, device: torch.device, dtype: torch.dtype) -> Tensor:
    """log(sigma / alpha) at each index of a variance-preserving table, increasing. [train_steps]

    Between indices it is interpolated linearly: log-SNR is the smoothest of the schedule's curves, so fractional times stay exact enough
    even where the cosine's last steps multiply the noise ratio by thirty.
    """
    if process.betas is not None:
        betas = torch.tensor(process.betas, dtype=torch.float64)
    elif process.name == "cosine":
        betas = _cosine_betas(process.train_steps)
    else:
        betas = torch.linspace(1e-4, 0.02, process.train_steps, dtype=torch.float64)
    alphas_cumprod = torch.cumprod(1 - betas, dim=0)
    return ((1 - alphas_cumprod) / alphas_cumprod).log().div(2).to(device=device, dtype=dtype)


def _cosine_betas(steps: int) -> Tensor:
    """Nichol & Dhariwal 2021, eq. 17, betas capped at 0.999, as in diffusers' `squaredcos_cap_v2`."""

    def alpha_bar(at: float) -> float:
        return math.cos((at + 0.008) / 1.008 * math.pi / 2) ** 2

    return torch.tensor([min(1 - alpha_bar((i + 1) / steps) / alpha_bar(i / steps), 0.999) for i in range(steps)], dtype=torch.float64)
