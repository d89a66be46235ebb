"""The critical learning rate on quadratics, where it is known, and on networks, where the losses tell."""

import math
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor, nn

import closerlook as cl
from closerlook.batches import Output
from closerlook.curvature.bracket import first_rise
from closerlook.errors import UsageError
from conftest import digit_batches, small_net
from networks import CASES
from untouched import everything, same

CURVATURES = torch.tensor([8.0, 2.0, 1.0, 0.5], dtype=torch.float64)
ONE: list[Any] = [torch.zeros(1, 1)]


class Quadratic(nn.Module):
    """The loss ``sum_i c_i w_i^2 / 2``, in two blocks of two weights."""

    def __init__(self, start: list[float], dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        self.first = nn.ParameterDict({"w": torch.tensor(start[:2], dtype=dtype)})
        self.second = nn.ParameterDict({"w": torch.tensor(start[2:], dtype=dtype)})

    def forward(self, batch: Tensor) -> Tensor:
        w = torch.cat([self.first["w"], self.second["w"]])
        return (CURVATURES.to(w) * w**2).sum().expand(len(batch)) / 2


def plain(model: nn.Module, batch: Any) -> Output:
    return Output(model(batch), None)


def critical(w: list[float], **settings: Any) -> cl.CriticalLR:
    return cl.critical_lr(Quadratic(w), ONE, batch_fn=plain, **settings)


@pytest.mark.parametrize(("start", "curvature"), [([1, 0, 0, 0], 8.0), ([0, 0, 0, 3], 0.5)])
def test_along_an_eigenvector_it_is_two_over_the_eigenvalue(start: list[float], curvature: float) -> None:
    found = critical(start, tolerance=1e-6)
    assert found.bracket.low <= 2 / curvature <= found.bracket.high
    assert found.value == pytest.approx(2 / curvature, rel=1e-6)
    assert found.loss == pytest.approx(curvature * sum(start) ** 2 / 2)


@given(
    start=st.lists(st.integers(-9, 9), min_size=4, max_size=4).filter(any),
    first=st.floats(1e-6, 1e6),
)
@settings(max_examples=25)
def test_of_any_quadratic_it_is_twice_slope_over_curvature(start: list[int], first: float) -> None:
    c = CURVATURES.numpy()
    g = c * np.array(start)
    found = critical([float(w) for w in start], start=first, per_block=True, limit=1e9)
    assert found.value == pytest.approx(2 * (g @ g) / (g @ (c * g)), rel=0.006)
    assert found.slope == pytest.approx(g @ g)
    for block, part in (("first", slice(0, 2)), ("second", slice(2, 4))):
        own = g[part]
        known = 2 * (own @ own) / (own @ (c[part] * own)) if own.any() else math.inf
        assert found.blocks[block].value == pytest.approx(known, rel=0.006)


def test_in_single_precision_and_the_number_of_passes() -> None:
    found = cl.critical_lr(Quadratic([1, 1, 1, 1], torch.float32), ONE, batch_fn=plain)
    g = CURVATURES.numpy()
    assert found.value == pytest.approx(2 * (g @ g) / (g**3).sum(), rel=0.006)
    assert found.forward_passes == 1 + found.bracket.forward_passes < 15
    assert found.passes == pytest.approx(1 + found.forward_passes / 3)


OPTIMIZERS: list[tuple[Any, dict[str, Any]]] = [
    (torch.optim.SGD, {"momentum": 0.9, "weight_decay": 0.1}),
    (torch.optim.SGD, {"momentum": 0.9, "nesterov": True}),
    (torch.optim.Adam, {}),
    (torch.optim.AdamW, {"weight_decay": 0.1, "amsgrad": True}),
]


@pytest.mark.parametrize("lr", [1e-3, 0.0])
@pytest.mark.parametrize(("make", "options"), OPTIMIZERS)
def test_along_the_next_step_of_an_optimizer(make: Any, options: dict[str, Any], lr: float) -> None:
    """A step of the optimizer itself, with the rates around the critical one, lowers the loss or raises it."""
    found, losses = None, []
    for factor in (None, 0.99, 1.01):
        model = Quadratic([1, 1, -1, 2])
        optimizer = make(model.parameters(), lr=1e-2, **options)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
        for _ in range(3):
            optimizer.zero_grad()
            model(ONE[0]).sum().backward()
            optimizer.step()
            schedule.step()
        optimizer.param_groups[0]["lr"] = lr
        optimizer.zero_grad()
        before, state = everything(model), repr(optimizer.state_dict())
        found = found or cl.critical_lr(model, ONE, batch_fn=plain, direction=optimizer, tolerance=1e-4)
        assert same(before, everything(model))
        assert state == repr(optimizer.state_dict())
        if factor is not None:
            optimizer.param_groups[0]["lr"] = factor * found.value
            model(ONE[0]).sum().backward()
            here = model(ONE[0]).item()
            optimizer.step()
            losses.append(model(ONE[0]).item() - here)
    assert losses[0] < 0 < losses[1]
    assert found is not None
    assert found.direction == make.__name__


def test_groups_keep_the_ratio_of_their_rates_and_the_rest_stays() -> None:
    model = Quadratic([1, 1, 1, 1])
    groups = [{"params": [model.first["w"]], "lr": 0.1}, {"params": [model.second["w"]], "lr": 0.4}]
    found = cl.critical_lr(model, ONE, batch_fn=plain, direction=torch.optim.SGD(groups), tolerance=1e-5)
    c = CURVATURES.numpy()
    d = c * np.array([1, 1, 4, 4])
    assert found.value == pytest.approx(2 * (d @ c) / (d @ (c * d)), rel=1e-5)
    alone = torch.optim.SGD([model.second["w"]], lr=0.3)
    found = cl.critical_lr(model, ONE, batch_fn=plain, direction=alone, per_block=True, tolerance=1e-5)
    known = critical([0, 0, 1, 1], tolerance=1e-5)
    assert found.value == pytest.approx(known.value, rel=1e-5)
    assert "nothing moves" in found.blocks["first"].note


def test_along_adams_next_step_on_weights_of_every_shape() -> None:
    """The loss after a step of Adam itself, at the two ends of the bracket."""
    data, losses = digit_batches(32, 32, dtype=torch.float64), []
    found = None
    for end in ("low", "high"):
        model = small_net(2).double()
        adam = torch.optim.Adam(model.parameters(), lr=1e-3)
        for _ in range(2):
            adam.zero_grad()
            nn.functional.cross_entropy(model(data[0][0]), data[0][1]).backward()
            adam.step()
        adam.zero_grad()
        found = found or cl.critical_lr(model, data, direction=adam)
        here = nn.functional.cross_entropy(model(data[0][0]), data[0][1])
        here.backward()
        adam.param_groups[0]["lr"] = getattr(found.bracket, end)
        adam.step()
        losses.append(nn.functional.cross_entropy(model(data[0][0]), data[0][1]).item() - here.item())
    assert losses[0] <= 0 < losses[1]


def test_the_bracket_holds_on_a_network_with_batch_norm() -> None:
    model, data = small_net(1).double(), digit_batches(64, 32, dtype=torch.float64)
    before = everything(model)
    found = cl.critical_lr(model, data, per_block=True)
    assert same(before, everything(model))
    model.train()
    mean_loss = sum(nn.functional.cross_entropy(model(x), y) for x, y in data) / len(data)
    gradients = torch.autograd.grad(mean_loss, list(model.parameters()))
    assert found.loss == pytest.approx(float(mean_loss.detach()))
    for name, bracket in {"": found.bracket, **found.blocks}.items():
        for eta, rises in ((bracket.low, False), (bracket.high, True)):
            if math.isinf(eta):
                continue  # what is normalised afterwards has no scale, and its loss may never rise
            moved = small_net(1).double().train()
            with torch.no_grad():
                for (own, value), gradient in zip(moved.named_parameters(), gradients, strict=True):
                    if own.startswith(f"{name}."[1 if not name else 0 :]):
                        value.sub_(gradient, alpha=eta)
                after = sum(nn.functional.cross_entropy(moved(x), y) for x, y in data) / len(data)
            assert bool(after > mean_loss) == rises, name
        assert bracket.high <= 1.01 * bracket.low or math.isinf(bracket.high)
    assert math.isfinite(found.value)


def falling(model: nn.Module, batch: Any) -> Output:
    return Output(model(batch[0]).sum(1), None)


def test_a_loss_that_never_rises_has_none_and_says_so() -> None:
    data = CASES["regression"].batches
    found = cl.critical_lr(nn.Linear(5, 3).double(), data, batch_fn=falling)
    assert found.value == math.inf
    assert "does not rise" in found.bracket.note
    assert found.to_dict()["value"] is None
    assert cl.critical_lr(nn.Linear(5, 3).double(), data, batch_fn=falling, limit=7.0).bracket.low <= 7


def test_at_a_stationary_point_nothing_moves() -> None:
    assert "nothing moves" in critical([0, 0, 0, 0]).bracket.note


def test_a_direction_that_leads_up_is_zero_at_once() -> None:
    model = Quadratic([1, 1, 1, 1])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, maximize=True)
    found = cl.critical_lr(model, ONE, batch_fn=plain, direction=optimizer)
    assert (found.value, found.forward_passes) == (0.0, 1)
    assert "does not fall" in found.bracket.note


def test_a_loss_that_ends_in_nan_counts_as_higher() -> None:
    def edge(model: nn.Module, batch: Any) -> Output:
        w = model(batch[0]).squeeze(1)
        return Output(w + (1 + w).sqrt(), None)  # slope 1.5 at 0, no number below -1

    layer = nn.Linear(1, 1, bias=False).double()
    nn.init.zeros_(layer.weight)
    found = cl.critical_lr(layer, [(torch.ones(1, 1).double(), 0)], batch_fn=edge, tolerance=1e-4)
    assert found.value == pytest.approx(1 / 1.5, rel=1e-4)


def test_a_tolerance_below_rounding_ends_too() -> None:
    found = first_rise(lambda eta: eta * (eta - 2), 0.0, start=0.3, limit=9.0, tolerance=1e-30)
    assert found.value == pytest.approx(2, rel=1e-14)


def test_a_function_that_rises_at_once_is_said() -> None:
    found = first_rise(lambda eta: 1 + eta, 1.0, start=1.0, limit=10.0, tolerance=0.01)
    assert (found.value, found.low) == (0.0, 0.0)
    assert "the smallest that was tried" in found.note


def test_settings_that_make_no_sense_are_refused() -> None:
    model = Quadratic([1, 1, 1, 1])
    with pytest.raises(UsageError, match="must be positive"):
        cl.critical_lr(model, ONE, batch_fn=plain, tolerance=0)
    with pytest.raises(UsageError, match="choose 'gradient'"):
        cl.critical_lr(model, ONE, batch_fn=plain, direction="up")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="trains none"):
        cl.critical_lr(model, ONE, batch_fn=plain, direction=torch.optim.SGD(nn.Linear(2, 2).parameters()))


def test_a_result_is_told_in_plain_values_and_drawn() -> None:
    found = critical([1, 1, 0, 0], per_block=True)
    assert found.to_dict()["blocks"]["second"]["value"] is None
    assert found.to_frame()["block"].tolist() == ["first", "second"]
    assert found.plot().get_yscale() == "log"
