"""Layers watched while they train: every number against float64, small angles, resume, and no trace in the training."""

import math
from collections import OrderedDict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.optim import Optimizer

import closerlook as cl
from closerlook.curvature.while_training import SharpnessTrace
from closerlook.data import TensorBatches
from closerlook.errors import UsageError
from closerlook.schedules import Constant, LinearDecay
from closerlook.training import TrainResult
from closerlook.training.checkpoint import StateFile
from closerlook.training.loop import Tick
from closerlook.training.observers import _angle
from networks import CASES
from untouched import same

STEPS, EPOCHS = 4, 3
TOTAL = STEPS * EPOCHS
NUMBERS = ["angle", "distance", "gradient", "similarity", "update"]


def batches(dtype: torch.dtype = torch.float64) -> TensorBatches:
    source = torch.Generator().manual_seed(0)
    images = torch.randn(30, 1, 8, 8, generator=source, dtype=torch.float64).to(dtype)
    return TensorBatches(images, torch.randint(0, 10, (30,), generator=source), 8, shuffle=True)


def network(dtype: torch.dtype = torch.float64) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = OrderedDict(
            body=nn.Conv2d(1, 5, 3), norm=nn.BatchNorm2d(5), relu=nn.ReLU(), flatten=nn.Flatten(),
            dropout=nn.Dropout(0.2), head=nn.Linear(180, 10),
        )  # fmt: skip
        return nn.Sequential(layers).to(dtype)


def train(model: nn.Module | None = None, **settings: Any) -> TrainResult:
    defaults = {"epochs": EPOCHS, "weight_decay": 0.01, "schedule": LinearDecay(final=0.1), "seed": 1}
    rates = {"lr": 0.01} if "optimizer" in settings else {"lr": 0.1, "momentum": 0.9}
    loader = settings.pop("loader", None) or batches()
    return cl.train(model or network(), loader, **{**defaults, **rates, **settings})


def vectors(state: dict[str, Tensor], names: list[str]) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.concatenate([state[name].double().numpy().ravel() for name in names])


class Recorder:
    """Weights after every step and the gradients of every step, from outside the instrument."""

    def __init__(self) -> None:
        self.weights: list[dict[str, Tensor]] = []
        self.gradients: list[dict[str, Tensor]] = []

    def batch_fn(self, model: nn.Module, batch: Any) -> cl.Output:
        """Keep the weights before a step; those of the trial pass are the first ones too."""
        self.weights.append({name: value.detach().clone() for name, value in model.named_parameters()})
        output = cl.batches.classification(model, batch)
        own = list(model.parameters())
        found = torch.autograd.grad(output.loss.mean(), own, retain_graph=True)
        self.gradients.append(dict(zip(self.weights[-1], found, strict=True)))
        return output


def angle_of(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> float:
    """In extended precision, from the part of b that stands upright on a."""
    a, b = a.astype(np.longdouble), b.astype(np.longdouble)
    along = (a @ b) / (a @ a)
    upright = b - along * a
    return float(np.arctan2(np.sqrt(upright @ upright), along * np.sqrt(a @ a)))


BLOCKS = {name: [f"{name}.weight", f"{name}.bias"] for name in ("body", "norm", "head")}
OPTIMIZERS: dict[str, dict[str, Any]] = {"sgd": {}, "adam": {"optimizer": "adam"}}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_number_is_that_of_float64(optimizer: str, dtype: torch.dtype) -> None:
    record, lrs = Recorder(), list[float]()
    losses: list[float] = []

    def look(tick: Tick) -> None:
        lrs.append(tick.lr)
        losses.append(tick.loss)

    model = network(dtype)
    settings = {"loader": batches(dtype), "batch_fn": record.batch_fn, **OPTIMIZERS[optimizer]}
    result = train(model, observers=[cl.LayerTrace(), look], **settings)
    weights = [*record.weights[1:], cl.WeightSpace(model).state_dict(result.point)]  # the first is the trial pass's
    gradients = record.gradients[1:]
    rows = result.observations
    assert [row["step"] for row in rows] == list(range(1, TOTAL + 1))
    assert [row["lr"] for row in rows] == lrs[1:]
    assert [row["loss"] for row in rows] == losses[1:]
    # Float32 weights differ exactly while they are close; far from the start their difference is rounded.
    exact = 1e-9 if dtype == torch.float64 else 1e-6
    for step, row in enumerate(rows):
        assert list(row["layers"]) == list(BLOCKS)
        for block, names in BLOCKS.items():
            old, new, first = (vectors(each, names) for each in (weights[step], weights[step + 1], weights[0]))
            expected = {
                "gradient": np.linalg.norm(vectors(gradients[step], names)),
                "update": np.linalg.norm(new - old) / np.linalg.norm(old),
                "angle": angle_of(old, new),
                "distance": np.linalg.norm(new - first) / np.linalg.norm(first),
                "similarity": new @ first / np.linalg.norm(new) / np.linalg.norm(first),
            }
            assert row["layers"][block] == pytest.approx(expected, rel=exact)


@given(st.floats(-7, 0.49), st.floats(-3, 3), st.integers(0, 99))
def test_angles_of_any_size_are_accurate(exponent: float, length: float, seed: int) -> None:
    source = np.random.default_rng(seed)
    a = source.normal(size=200)
    a /= np.linalg.norm(a)
    across = source.normal(size=200)
    across -= (across @ a) * a
    across /= np.linalg.norm(across)
    # 10^-7 to pi: the arccos of a cosine loses those below 10^-8 altogether, and half the digits of 10^-4.
    theta, scale = min(10**exponent, math.pi), 10**length
    b = scale * (math.cos(theta) * a + math.sin(theta) * across)
    found = _angle(np.linalg.norm(a), float(np.linalg.norm(b)), float(np.linalg.norm(b - a)))
    # Three sides that are right to 1e-16: near 0 at lengths that differ, and near pi, half the digits are left.
    assert found == pytest.approx(theta, rel=1e-6, abs=3e-8)
    if abs(length) < 1e-3 and theta < 3:
        assert found == pytest.approx(theta, rel=1e-8)


@pytest.mark.parametrize("size", [1e-6, 1e-3, 1.0])
def test_a_step_of_known_angle(size: float) -> None:
    """The weight (1, 0) moves by (0, size): relative update `size`, angle arctan(size)."""
    layer = nn.Linear(2, 1, bias=False).double()
    layer.weight.data = torch.tensor([[1.0, 0.0]], dtype=torch.float64)

    def pull(model: nn.Module, batch: Any) -> cl.Output:
        return cl.Output(-model.weight[0, 1].expand(len(batch)), None)

    (row,) = cl.train(
        layer, [torch.zeros(3, 2).double()], lr=size, epochs=1, batch_fn=pull, observers=[cl.LayerTrace()]
    ).observations
    found = row["layers"]["(model)"]
    expected = {"gradient": 1.0, "update": size, "distance": size}
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-15)
    assert found["angle"] == pytest.approx(math.atan(size), rel=1e-9)
    assert found["similarity"] == pytest.approx(math.cos(math.atan(size)), rel=1e-15)


def test_the_gradient_is_the_one_that_the_optimizer_got() -> None:
    for optimizer in OPTIMIZERS.values():
        rows = train(interventions=[cl.clip(0.01)], observers=[cl.LayerTrace(blocks={"all": "*"})], **optimizer)
        found = [row["layers"]["all"]["gradient"] for row in rows.observations]
        assert found == pytest.approx([0.01] * TOTAL, rel=1e-4)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_frozen_layer_does_not_move(optimizer: str) -> None:
    frozen = cl.freeze("head.*", begin="3it", end="6it")
    rows = train(interventions=[frozen], observers=[cl.LayerTrace()], **OPTIMIZERS[optimizer]).observations
    layers = [row["layers"]["head"] for row in rows if "layers" in row]
    assert [step for step in range(TOTAL) if layers[step]["update"] == 0] == [3, 4, 5]
    for step in (3, 4, 5):
        assert (layers[step]["gradient"], layers[step]["angle"]) == (0, 0)
        assert layers[step]["distance"] == layers[2]["distance"] > 0
    assert [row["step"] for row in rows if "frozen" in row or "thawed" in row] == [3, 6]


def test_a_layer_that_was_zero_has_no_relative_numbers() -> None:
    model = network()
    nn.init.zeros_(model.get_parameter("head.weight"))
    nn.init.zeros_(model.get_parameter("head.bias"))
    first, second = (row["layers"]["head"] for row in train(model, observers=[cl.LayerTrace()]).observations[:2])
    assert [first[name] for name in ("update", "angle", "distance", "similarity")] == [None] * 4
    assert first["gradient"] > 0
    assert second["update"] > 0
    assert second["angle"] > 0
    assert (second["distance"], second["similarity"]) == (None, None)
    assert math.isfinite(first["gradient"])


# Which rows, which blocks ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("every", [1, 3, 5, 12, 13])
def test_every_so_many_steps_there_is_a_row(every: int) -> None:
    all_of_them = train(observers=[cl.LayerTrace()]).observations
    rows = train(observers=[cl.LayerTrace(every)]).observations
    assert rows == tuple(row for row in all_of_them if row["step"] % every == 0)


@pytest.mark.parametrize("every", [0, -2])
def test_an_interval_that_never_comes_is_refused(every: int) -> None:
    with pytest.raises(UsageError, match="at least 1"):
        cl.LayerTrace(every)


def test_blocks_are_patterns() -> None:
    blocks = {"early": ("body.*", "norm.*"), "late": "head.*", "all": "*"}
    rows = train(observers=[cl.LayerTrace(blocks=blocks)]).observations
    by_layer = train(observers=[cl.LayerTrace()]).observations
    for row, other in zip(rows, by_layer, strict=True):
        assert list(row["layers"]) == list(blocks)
        parts = [other["layers"][name]["gradient"] for name in BLOCKS]
        assert row["layers"]["all"]["gradient"] == pytest.approx(math.hypot(*parts))
        assert row["layers"]["early"]["gradient"] == pytest.approx(math.hypot(*parts[:2]))
        assert row["layers"]["late"] == other["layers"]["head"]


def test_a_block_of_nothing_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"in the block 'late' \(haed\.\*\)"):
        train(observers=[cl.LayerTrace(blocks={"late": "haed.*"})], out=tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("case", [name for name in CASES if "compiled" not in name])
def test_any_network_is_watched(case: str) -> None:
    chosen = CASES[case]
    model = chosen.build(0)
    settings: dict[str, Any] = {"loader": chosen.batches, "batch_fn": chosen.batch_fn, "epochs": 1}
    if case == "all frozen":
        model.requires_grad_(True)
    rows = train(model, observers=[cl.LayerTrace()], **settings).observations
    trained = [name for name, value in model.named_parameters() if value.requires_grad]
    assert len(rows) == len(chosen.batches)
    assert len(rows[0]["layers"]) == len({name.rpartition(".")[0] for name in trained})
    assert max(layer["update"] or 0 for layer in rows[0]["layers"].values()) > 0
    assert all(sorted(layer) == NUMBERS for layer in rows[0]["layers"].values())


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_sharpness_is_read_beside_interventions_and_leaves_no_trace(optimizer: str) -> None:
    chosen = [cl.freeze("head.*", end="1ep", norm="eval"), cl.clip(1.0)]
    settings = {"interventions": chosen, **OPTIMIZERS[optimizer]}
    fixed = SharpnessTrace([next(iter(batches()))], every=3)
    watched, bare = train(observers=[fixed, cl.LayerTrace(2)], **settings), train(**settings)
    assert torch.equal(watched.point.vector, bare.point.vector)
    read = [row["step"] for row in watched.observations if "sharpness" in row]
    # Adam has nothing to divide by for what has been frozen from the start.
    assert read == ([0, 3, 6, 9, 12] if optimizer == "sgd" else [6, 9, 12])


# Resume, divergence, and no trace -------------------------------------------------------------------------------------


class StoppedError(Exception):
    """What a test raises in place of a kill."""


def stop_at(step: int) -> Callable[[Tick], None]:
    def observe(tick: Tick) -> None:
        if tick.step == step:
            raise StoppedError

    return observe


@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("stop", [0, 1, 5, 6, TOTAL])
def test_a_resumed_run_has_the_rows_of_one_that_was_not_stopped(
    every: int, stop: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(StateFile, "due", lambda self: True)
    with pytest.raises(StoppedError):
        train(observers=[cl.LayerTrace(every), stop_at(stop)], out=tmp_path)
    result = train(observers=[cl.LayerTrace(every)], out=tmp_path)
    assert result.observations == train(observers=[cl.LayerTrace(every)]).observations
    again = train(observers=[cl.LayerTrace(every)], out=tmp_path)
    assert again.observations == result.observations


def test_a_fork_is_measured_from_where_it_began(tmp_path: Path) -> None:
    train(forks=["1ep"], out=tmp_path)
    start = tmp_path / "checkpoints" / "fork-000004.safetensors"
    first = train(start=start, epochs=1, observers=[cl.LayerTrace()]).observations[0]["layers"]["head"]
    assert first["distance"] == pytest.approx(first["update"], rel=1e-12)
    assert first["similarity"] == pytest.approx(math.cos(first["angle"]), rel=1e-12)


def test_the_rows_of_a_run_that_diverges_are_finite_and_end_with_it() -> None:
    result = train(lr=1e25, schedule=Constant(), observers=[cl.LayerTrace()])
    assert result.diverged_at is not None
    assert result.diverged_at >= 1
    assert [row["step"] for row in result.observations] == list(range(1, result.diverged_at + 1))
    numbers = [value for row in result.observations for layer in row["layers"].values() for value in layer.values()]
    assert all(value is None or math.isfinite(value) for value in numbers)


def infinite_weights(parameters: Iterable[Tensor]) -> Optimizer:
    class Spoiling(torch.optim.SGD):
        def step(self, closure: Any = None) -> None:
            super().step(closure)
            self.param_groups[0]["params"][-1].data.fill_(math.inf)

    return Spoiling(parameters, lr=0.1)


def test_weights_that_are_not_finite_have_no_numbers() -> None:
    model, loader = network(), batches()
    observers = [cl.LayerTrace(blocks={"a": "*.bias"})]
    (row,) = cl.train(model, loader, infinite_weights, epochs=1, observers=observers).observations
    assert (row["layers"]["a"]["update"], row["layers"]["a"]["distance"]) == (None, None)
    assert row["layers"]["a"]["gradient"] > 0


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_watched_training_is_the_same_to_the_last_bit(optimizer: str, dtype: torch.dtype) -> None:
    settings = {"loader": batches(dtype), "snapshots": ["5it"], **OPTIMIZERS[optimizer]}
    watched, bare = (
        train(network(dtype), observers=observers, **settings) for observers in ([cl.LayerTrace()], [])
    )
    assert watched.history == bare.history
    assert same(watched.point.buffers, bare.point.buffers)
    for step in bare.snapshots:
        assert torch.equal(watched.snapshots[step].vector, bare.snapshots[step].vector)
