"""Muon: the update of every hidden weight made orthogonal, so that no direction is learnt slowly (Jordan et al. 2024, "Muon: an optimizer
for hidden layers in neural networks"); AdamW (Loshchilov and Hutter 2019) for all other parameters.

On small U-Nets it learns in a third of AdamW's steps what AdamW learns (docs/what-was-tried.md).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # of x, x^3, x^5: singular values in (0, 1] come near 1 in five rounds
ROUNDS = 5
UPDATE = 0.8  # root mean square of a hidden weight's update over the rate: four times AdamW's usual one, and steady all the same
MOMENTUM = 0.9  # 0.95 is usual; in runs of a few hundred steps 0.9 learns faster


class Muon(torch.optim.Optimizer):
    """`hidden`: weights that are matrices, or kernels [out, in, h, w] read as [out, in h w]. `others`: every other parameter.

    lr is AdamW's for the others. A hidden weight's update has the root mean square 0.8 lr whatever its shape (after Liu et al. 2025,
    section 2.2, who take 0.2, AdamW's own): so one rate does for both, and rates that suit AdamW suit this. All in the parameters' dtype.
    lr may be a tensor of no dimensions. A step can be captured: whatever changes from step to step lies on the parameters' device.
    """

    def __init__(
        self,
        hidden: Iterable[nn.Parameter],
        others: Iterable[nn.Parameter],
        lr: float | Tensor,
        betas: tuple[float, float],
        weight_decay: float,
    ) -> None:
        groups = [{"params": list(hidden), "orthogonal": True}, {"params": list(others), "orthogonal": False}]
        super().__init__(
            [group for group in groups if group["params"]],
            {"lr": lr, "betas": betas, "eps": 1e-8, "weight_decay": weight_decay, "capturable": True},
        )

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One step by the gradients that are there."""
        assert closure is None
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            if not parameters:
                continue
            torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
            updates = self._orthogonal(parameters) if group["orthogonal"] else self._adam(parameters, group)
            torch._foreach_mul_(updates, -group["lr"])
            torch._foreach_add_(parameters, updates)

    def _orthogonal(self, parameters: list[nn.Parameter]) -> list[Tensor]:
        """The updates over the rate. Weights of one shape are made orthogonal together."""
        gradients = [_gradient(parameter) for parameter in parameters]
        momenta = self._states(parameters, "momentum")
        torch._foreach_lerp_(momenta, gradients, 1 - MOMENTUM)
        ahead = torch._foreach_lerp(gradients, momenta, MOMENTUM)  # Nesterov's
        shapes: dict[torch.Size, list[int]] = {}
        for index, parameter in enumerate(parameters):
            shapes.setdefault(parameter.flatten(1).shape, []).append(index)
        updates = list(ahead)
        for (rows, columns), places in shapes.items():
            stacked = orthogonalized(torch.stack([ahead[place].flatten(1) for place in places]))
            for place, one in zip(places, UPDATE * max(rows, columns) ** 0.5 * stacked, strict=True):
                updates[place] = one.reshape(parameters[place].shape)
        return updates

    def _adam(self, parameters: list[nn.Parameter], group: dict[str, Any]) -> list[Tensor]:
        """The updates over the rate: Kingma and Ba 2015, algorithm 1."""
        gradients = [_gradient(parameter) for parameter in parameters]
        first, second = self._states(parameters, "exp_avg"), self._states(parameters, "exp_avg_sq")
        steps = self._states(parameters, "step", scalar=True)
        torch._foreach_add_(steps, 1.0)
        beta1, beta2 = group["betas"]
        so_far1, so_far2 = (-torch.expm1(steps[0] * math.log(beta)) for beta in (beta1, beta2))  # 1 - beta^step
        torch._foreach_lerp_(first, gradients, 1 - beta1)
        torch._foreach_mul_(second, beta2)
        torch._foreach_addcmul_(second, gradients, gradients, 1 - beta2)
        roots = torch._foreach_sqrt(torch._foreach_div(second, so_far2))
        torch._foreach_add_(roots, group["eps"])
        return list(torch._foreach_div(torch._foreach_div(first, so_far1), roots))

    def _states(self, parameters: list[nn.Parameter], name: str, scalar: bool = False) -> list[Tensor]:
        """This state of each parameter, zeros at first."""
        for parameter in parameters:
            if name not in self.state[parameter]:
                self.state[parameter][name] = torch.zeros((), device=parameter.device) if scalar else torch.zeros_like(parameter)
        return [self.state[parameter][name] for parameter in parameters]


def orthogonalized(matrices: Tensor) -> Tensor:
    """[N, rows, columns] -> matrices with the same singular vectors and singular values near 1 (within 0.3), those of rounding apart."""
    x = matrices / (matrices.flatten(1).norm(dim=1)[:, None, None] + 1e-7)
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    a, b, c = NEWTON_SCHULZ
    for _ in range(ROUNDS):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    return x.mT if tall else x


def hidden_and_others(network: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Hidden weights: of every convolution but the first and the last, and of every linear layer in between. Others: all the rest, which
    are biases, norms, embeddings, and what touches the picture or the time first. What is frozen is in neither."""
    layers = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    kernels = [layer for layer in layers if isinstance(layer, nn.Conv2d)]
    ends = {id(kernels[0]), id(kernels[-1])} if kernels else set()
    chosen = {id(layer.weight) for layer in layers if id(layer) not in ends}
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    return [one for one in parameters if id(one) in chosen], [one for one in parameters if id(one) not in chosen]


def _gradient(parameter: nn.Parameter) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad
