"""Stability thresholds: PyTorch's own optimizers shrink just below them and grow just above."""

import math
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from torch import nn

import closerlook as cl
from closerlook.errors import UsageError

ADAMS = (torch.optim.Adam, torch.optim.AdamW)
SETTINGS: list[tuple[Any, dict[str, Any]]] = [
    (torch.optim.SGD, {}),
    (torch.optim.SGD, {"weight_decay": 0.4}),
    (torch.optim.SGD, {"momentum": 0.9}),
    (torch.optim.SGD, {"momentum": 0.5, "dampening": 0.5}),
    (torch.optim.SGD, {"momentum": 0.9, "dampening": 0.2, "weight_decay": 0.3}),
    (torch.optim.SGD, {"momentum": 0.9, "nesterov": True}),
    (torch.optim.SGD, {"momentum": 0.4, "nesterov": True, "weight_decay": 0.1}),
    (torch.optim.Adam, {"betas": (0.9, 0.5)}),
    (torch.optim.Adam, {"betas": (0.0, 0.5)}),
    (torch.optim.AdamW, {"betas": (0.6, 0.5), "weight_decay": 0.5}),
]


def last_size(optimizer: torch.optim.Optimizer, w: nn.Parameter, curvature: float) -> float:
    """|w| after 2,000 steps on ``curvature w^2 / 2``, or where it has grown much; Adam's divisor is held at 1."""
    much = 1e4 * abs(w.item())
    for _ in range(2000):
        w.grad = curvature * w.detach()
        if isinstance(optimizer, ADAMS):
            state, beta2 = optimizer.state[w], optimizer.param_groups[0]["betas"][1]
            held = (1 - (1 - beta2) * w.grad**2) / beta2
            state.update(step=torch.tensor(1e6), exp_avg_sq=held, exp_avg=state.get("exp_avg", torch.zeros_like(w)))
        optimizer.step()
        if abs(w.item()) > much:
            break
    return abs(w.item())


@pytest.mark.parametrize(("make", "options"), SETTINGS)
def test_iterates_shrink_below_and_grow_above(make: Any, options: dict[str, Any]) -> None:
    for factor, grows in ((0.99, False), (1.01, True)):
        w = nn.Parameter(torch.ones(1, dtype=torch.float64))
        # Adam's divisor is held by squares that leave no room for large gradients.
        optimizer = make([w], lr=0.1, eps=0.0, **options) if make in ADAMS else make([w], lr=0.1, **options)
        if make in ADAMS:
            nn.init.constant_(w, 1e-9)
        start = float(w.detach())
        size = last_size(optimizer, w, factor * cl.stability_threshold(optimizer))
        assert (size > 10 * start) == grows
        assert grows or size < 0.1 * start


@given(
    lr=st.floats(1e-4, 10), momentum=st.floats(0.01, 0.99), dampening=st.floats(0, 0.9), decay=st.floats(0, 0.1),
    nesterov=st.booleans(),
)  # fmt: skip
@settings(max_examples=50)
def test_at_the_threshold_the_largest_root_has_modulus_one(
    lr: float, momentum: float, dampening: float, decay: float, nesterov: bool
) -> None:
    """The matrix of one step on (w, buffer), written down from PyTorch's documentation of SGD."""
    q = 0.0 if nesterov else dampening
    curvature = cl.stability_threshold(
        "sgd", lr, momentum=momentum, dampening=q, weight_decay=decay, nesterov=nesterov
    ) + decay
    buffer = np.array([(1 - q) * curvature, momentum])  # of (w, buffer)
    step = np.array([curvature, 0]) + momentum * buffer if nesterov else buffer
    moduli = np.abs(np.linalg.eigvals(np.array([[1, 0] - lr * step, buffer])))
    assert max(moduli) == pytest.approx(1, abs=1e-6)


def test_known_values_and_groups() -> None:
    assert cl.stability_threshold("sgd", 0.5) == 4
    assert cl.stability_threshold("sgd", 0.1, momentum=0.9) == pytest.approx(38)
    assert cl.stability_threshold("sgd", 0.1, momentum=0.9, nesterov=True) == pytest.approx(38 / 2.8)
    assert cl.stability_threshold("adam", 1.0) == pytest.approx(38)
    assert cl.stability_threshold("sgd", 0.0) == math.inf
    one, two = (nn.Parameter(torch.ones(1)) for _ in range(2))
    groups = [{"params": [one], "lr": 0.1}, {"params": [two], "lr": 0.4}]
    assert cl.stability_threshold(torch.optim.SGD(groups)) == pytest.approx(5)


@pytest.mark.parametrize(
    ("optimizer", "lr", "options", "message"),
    [
        ("sgd", None, {}, "needs a learning rate"), ("lion", 0.1, {}, "known for 'lion'"),
        ("sgd", 0.1, {"beta1": 0.9}, "no setting 'beta1'"), ("sgd", -1.0, {}, "0 or more"),
        ("sgd", math.nan, {}, "0 or more"),
        (torch.optim.RMSprop([nn.Parameter(torch.ones(1))]), None, {}, "known for RMSprop"),
        (torch.optim.SGD([nn.Parameter(torch.ones(1))]), 0.1, {}, "has its own"),
    ],
)  # fmt: skip
def test_what_has_no_threshold_is_refused(optimizer: Any, lr: Any, options: dict[str, float], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        cl.stability_threshold(optimizer, lr, **options)
