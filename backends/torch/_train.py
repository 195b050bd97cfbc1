"""How torch models are trained: torch's own losses and optimisers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial, singledispatch
from typing import Any

import torch
import torch.nn.functional as F

from backends.torch.custom import OPS
from blocks.loss import custom_loss
from blocks.optimizer import SGD, Adagrad, Adam, AdamW, Optimizer, without_rule


def cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """torch has the classes in axis 1, which is the last one where there are no positions."""
    return F.cross_entropy(logits if logits.ndim == 2 else logits.movedim(-1, 1), labels)


LOSSES: dict[str, Callable[..., torch.Tensor]] = {
    "cross_entropy": cross_entropy,
    "mse": F.mse_loss,
    "mae": F.l1_loss,
    "binary_cross_entropy": F.binary_cross_entropy_with_logits,
}


def loss_of(loss: Any) -> Callable[[Any, Any], torch.Tensor]:
    return LOSSES[loss] if isinstance(loss, str) else partial(custom_loss, loss, OPS)


@singledispatch
def native(
    optimizer: Optimizer, params: Iterable[torch.Tensor], rate: float
) -> torch.optim.Optimizer:
    """torch's own optimiser; the rate is set before every step."""
    raise without_rule("torch", optimizer)


@native.register
def _(optimizer: SGD, params: Iterable[torch.Tensor], rate: float) -> torch.optim.Optimizer:
    return torch.optim.SGD(
        params,
        lr=rate,
        momentum=optimizer.momentum,
        nesterov=optimizer.nesterov,
        weight_decay=optimizer.weight_decay,
    )


@native.register
def _(optimizer: Adagrad, params: Iterable[torch.Tensor], rate: float) -> torch.optim.Optimizer:
    return torch.optim.Adagrad(params, lr=rate, eps=optimizer.epsilon)


@native.register
def _(optimizer: Adam, params: Iterable[torch.Tensor], rate: float) -> torch.optim.Optimizer:
    return torch.optim.Adam(params, **adam(optimizer, rate))


@native.register
def _(optimizer: AdamW, params: Iterable[torch.Tensor], rate: float) -> torch.optim.Optimizer:
    return torch.optim.AdamW(params, **adam(optimizer, rate), weight_decay=optimizer.weight_decay)


def adam(optimizer: Adam, rate: float) -> dict[str, Any]:
    betas = optimizer.beta1, optimizer.beta2
    return {"lr": rate, "betas": betas, "eps": optimizer.epsilon}


# What torch calls the slots of an optimiser.
SLOTS = {
    "velocity": "momentum_buffer",
    "square_sum": "sum",
    "mean": "exp_avg",
    "square": "exp_avg_sq",
}


def kept(optimizer: torch.optim.Optimizer, param: torch.Tensor, slot: str) -> torch.Tensor:
    """What the optimiser keeps of a parameter, which before the first step is nothing."""
    found = optimizer.state.get(param, {}).get(SLOTS[slot])
    return torch.zeros_like(param) if found is None else found


def filled(param: torch.Tensor, steps: int, slots: dict[str, torch.Tensor]) -> dict[str, Any]:
    """The state of a parameter after so many steps."""
    state: dict[str, Any] = {
        SLOTS[name]: torch.empty_like(param, requires_grad=False).copy_(tensor)
        for name, tensor in slots.items()
    }
    counted = slots and "velocity" not in slots
    return state | ({"step": torch.tensor(float(steps))} if counted else {})


def clip(params: Iterable[torch.Tensor], limit: float) -> None:
    """Scale all gradients so that their norm is at most the limit.

    torch's clip_grad_norm_ divides by the norm plus 1e-6.
    """
    grads = [param.grad for param in params if param.grad is not None]
    scale = limit / torch.nn.utils.get_total_norm(grads).clamp(min=limit)
    for grad in grads:
        grad.mul_(scale)
