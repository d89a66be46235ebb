"""Buffers are no coordinates: which ones a point is read with, and what is refused because a number would be wrong."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

import closerlook as cl
from closerlook.errors import MismatchError
from closerlook.evaluation import settle_spectral_norms
from conftest import digit_batches, small_net

BATCHES = digit_batches(dtype=torch.float64)
# Means of 96 losses of size 1 in float64.
EXACT = 1e-12


def net(seed: int, norms: str = "filled") -> nn.Sequential:
    """The small network with statistics that a training filled, fresh ones, or damaged ones."""
    model = small_net(seed).double()
    for norm in (model.norm1, model.norm2):
        if norms == "fresh":
            norm.reset_running_stats()
        if norms == "NaN":
            norm.running_mean[1] = math.nan
        if norms == "negative":
            norm.running_var[0] = -1
    return model


def state(seed: int, norms: str = "filled") -> dict[str, Tensor]:
    found = net(seed, norms).state_dict()
    return {name: value for name, value in found.items() if norms != "missing" or "running" not in name}


def profile(model: nn.Module, a: Any, b: Any, policy: str, **options: Any) -> cl.Profile:
    space = cl.WeightSpace(model)
    return cl.profile(
        model, cl.line(space.point(a), space.point(b)), {"train": BATCHES}, points=3, batch_stats=policy, **options
    )


# Statistics of batch norm ---------------------------------------------------------------------------------------------

REFUSED = [
    (
        "interpolate",
        "filled",
        "fresh",
        "filled",
        r"the first end \(the state dict\) has batch-norm statistics that no training has filled.*and the last end",
    ),
    ("interpolate", "filled", "filled", "NaN", r"has NaN, infinite or negative numbers in norm1\.running_mean"),
    ("interpolate", "filled", "negative", "filled", r"has NaN, infinite or negative numbers in norm1\.running_var"),
    ("interpolate", "filled", "filled", "missing", r"has no norm\d\.running_(mean|var), and batch_stats='interpolate'"),
    ("keep", "fresh", "filled", "filled", "the model has batch-norm statistics that no training has filled"),
    ("keep", "NaN", "filled", "filled", "the model has NaN, infinite or negative numbers"),
]


@pytest.mark.parametrize(("policy", "own", "first", "last", "message"), REFUSED)
def test_statistics_that_cannot_be_used_are_refused(policy: str, own: str, first: str, last: str, message: str) -> None:
    with pytest.raises(MismatchError, match=rf"(?s){message}.*use batch_stats='recompute'"):
        profile(net(0, own), state(1, first), state(2, last), policy)
    # The repair.
    found = profile(net(0, own), state(1, first), state(2, last), "recompute")
    assert (found.values["train_loss"] > 0).all()
    # The ends with their own statistics: a number for the usable ones, none for the others.
    for end, kind in zip(found.ends, (first, last), strict=True):
        assert bool(end) == (kind in ("filled", "fresh"))


@pytest.mark.parametrize(
    ("policy", "own", "ends"),
    [("interpolate", "fresh", "filled"), ("interpolate", "filled", "fresh"), ("keep", "filled", "fresh"),
     ("keep", "fresh", "fresh"), ("keep", "filled", "missing")],
)  # fmt: skip
def test_statistics_that_can_be_used_are(policy: str, own: str, ends: str) -> None:
    assert (profile(net(0, own), state(1, ends), state(2, ends), policy).values["train_loss"] > 0).all()


def test_the_models_own_statistics_are_kept_in_whatever_order_points_are_read() -> None:
    expected = net(1)
    expected.load_state_dict({**net(1).state_dict(), **dict(net(0).named_buffers())})
    loss = cl.evaluate(expected, BATCHES).loss
    once = profile(net(0), net(1), net(1).state_dict(), "keep")
    # Full precision is read last here, after the ends were read with theirs.
    again = profile(net(0), net(1), net(1).state_dict(), "keep", autocast=torch.bfloat16)
    assert once.values["train_loss"] == pytest.approx(loss, abs=EXACT)
    assert again.precision_errors["train_loss"] == pytest.approx(
        float(abs(again.values["train_loss"] - loss).max()), abs=EXACT
    )


# Other buffers --------------------------------------------------------------------------------------------------------


class Scaled(nn.Module):
    """Its inputs are normalised by buffers; a counter and a mask lie beside them."""

    def __init__(self, seed: int, mean: float = 0.0, std: float = 1.0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.head = nn.Linear(64, 10)
        self.register_buffer("mean", torch.tensor(mean))
        self.register_buffer("std", torch.tensor(std))
        self.register_buffer("calls", torch.tensor(seed))
        self.register_buffer("mask", torch.arange(64) % (seed + 2) == 0)
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        return self.head((x.flatten(1) - self.mean) / self.std)


def test_what_both_ends_agree_on_replaces_what_a_fresh_model_has() -> None:
    with torch.random.fork_rng(devices=[]):
        fresh, a, b = Scaled(0), Scaled(1, 0.5, 2.0), Scaled(2, 0.5, 2.0)
    found = profile(fresh, a, b, "recompute")
    for number, (end, model) in enumerate(zip(found.ends, (a, b), strict=True)):
        loss = cl.evaluate(model, BATCHES).loss
        assert end["train_loss"] == loss
        assert found.values["train_loss"][-number] == pytest.approx(loss, abs=EXACT)
    kept = profile(fresh, a, b, "keep")
    assert kept.values["train_loss"][0] != found.values["train_loss"][0]
    assert float(fresh.std) == 1.0
    # Training the curve sees them too: only the bend moves, from the middle, along the gradient there.
    curve = cl.connect(fresh, a, b, BATCHES[:1], epochs=1, lr=0.0)
    assert curve.history[-1]["loss"] == pytest.approx(_loss_at_some_t(fresh, a, b), abs=EXACT)


def _loss_at_some_t(fresh: nn.Module, a: Scaled, b: Scaled) -> float:
    """The loss of the first step of `connect`, at whichever t it drew, with the buffers of the ends."""
    seen: list[Tensor] = []

    def batch_fn(model: nn.Module, batch: Any) -> cl.Output:
        seen.append(torch.cat([value.detach().flatten() for value in model.parameters()]))
        outputs = model(batch[0])
        return cl.Output(nn.functional.cross_entropy(outputs, batch[1], reduction="none"), outputs)

    cl.connect(fresh, a, b, BATCHES[:1], epochs=1, lr=0.0, batch_fn=batch_fn)
    space = cl.WeightSpace(a)
    model = Scaled(1, 0.5, 2.0)
    model.load_state_dict(space.state_dict(cl.Point(seen[0], space.point(a).buffers)))
    return cl.evaluate(model, BATCHES[:1]).loss


def test_buffers_that_no_policy_sets_are_refused_where_the_ends_differ() -> None:
    with torch.random.fork_rng(devices=[]):
        fresh, a, b = Scaled(0), Scaled(1, 0.5, 2.0), Scaled(2, 0.5, 3.0)
    with pytest.raises(
        MismatchError, match=r"the buffer std differs from point to point.*'interpolate' to mix the ends"
    ):
        profile(fresh, a, b, "recompute")
    mixed = profile(fresh, a, b, "interpolate")
    for number, model in enumerate((a, b)):
        assert mixed.values["train_loss"][-number] == pytest.approx(cl.evaluate(model, BATCHES).loss, abs=EXACT)
    assert (profile(fresh, a, b, "keep").values["train_loss"] > 0).all()


# Spectral norm --------------------------------------------------------------------------------------------------------


def spectral(seed: int) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = (nn.Flatten(), spectral_norm(nn.Linear(64, 20)), nn.Tanh(), spectral_norm(nn.Linear(20, 10)))
        return nn.Sequential(*layers).double()


def divided(model: nn.Sequential) -> nn.Sequential:
    """The same network without spectral norm: every weight divided by its largest singular value."""
    plain = nn.Sequential(nn.Flatten(), nn.Linear(64, 20), nn.Tanh(), nn.Linear(20, 10)).double()
    for number in (1, 3):
        weight = model[number].parametrizations.weight.original.detach()
        plain[number].weight.data = weight / torch.linalg.matrix_norm(weight, 2)
        plain[number].bias.data = model[number].bias.detach()
    return plain


def test_weights_are_divided_by_their_largest_singular_value_at_every_point() -> None:
    model, a, b = spectral(0), spectral(1), spectral(2)
    found = profile(model, a, b, "recompute")
    space = cl.WeightSpace(model)
    middle = spectral(3)
    halfway = cl.line(space.point(a), space.point(b)).at(0.5)
    middle.load_state_dict({**middle.state_dict(), **space.state_dict(halfway)})
    for value, point in zip(found.values["train_loss"], (a, middle, b), strict=True):
        # The vectors move by less than 1e-14 at the end; close singular values cost some hundred times that.
        assert value == pytest.approx(cl.evaluate(divided(point), BATCHES).loss, abs=1e-9)
    # The ends with the vectors that they came with: the numbers that their owner knows.
    assert found.ends[0]["train_loss"] == cl.evaluate(a, BATCHES).loss


def test_modes_of_spectral_norms_come_back() -> None:
    model = spectral(0).eval()
    model[3].train()
    modes = [module.training for module in model.modules()]
    settle_spectral_norms(model)
    assert [module.training for module in model.modules()] == modes
