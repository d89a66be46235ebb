"""Sharpness while a network trains: the numbers are those of the snapshots, and the training does not notice."""

from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import closerlook as cl
from closerlook.curvature import stability_threshold
from closerlook.curvature.while_training import SharpnessTrace
from closerlook.data import TensorBatches
from closerlook.durations import Clock
from closerlook.errors import UsageError
from closerlook.schedules import LinearDecay, Warmup
from closerlook.training import TrainResult
from closerlook.training.checkpoint import StateFile
from closerlook.training.interventions import Subject
from closerlook.training.loop import Observer, Tick
from closerlook.training.observers import Instrument
from conftest import digit_batches

STEPS, TOTAL = 3, 6
BLOCKS = {"body": ("body.*", "norm.*"), "head": ("head.*",)}
PROBE = digit_batches(24, 24, dtype=torch.float64)


def network() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = OrderedDict(
            body=nn.Conv2d(1, 3, 3, stride=2), norm=nn.BatchNorm2d(3), relu=nn.Tanh(), flatten=nn.Flatten(),
            dropout=nn.Dropout(0.3), head=nn.Linear(27, 10),
        )  # fmt: skip
        return nn.Sequential(layers).double()


def train(*observers: Any, **settings: Any) -> TrainResult:
    images, targets = digit_batches(24, 24, start=100, dtype=torch.float64)[0]
    loader = TensorBatches(images, targets, 8, shuffle=True)
    defaults = {"epochs": 2, "lr": 0.1, "seed": 1, "schedule": LinearDecay(final=0.1), "momentum": 0.9}
    if "optimizer" in settings:
        defaults["momentum"] = 0.0
    return cl.train(network(), loader, **{**defaults, "observers": observers, **settings})


def seen(result: TrainResult) -> list[dict[str, Any]]:
    return [dict(row) for row in result.observations if "sharpness" in row]


def test_rows_are_the_sharpness_of_the_snapshots_and_the_threshold_of_the_step_before() -> None:
    times = [f"{step}it" for step in range(1, TOTAL)]
    schedule = Warmup("2it", after=LinearDecay(final=0.1))
    result = train(SharpnessTrace(PROBE, blocks=BLOCKS), snapshots=times, schedule=schedule, weight_decay=0.01)
    rows, model = seen(result), network()
    assert [row["step"] for row in rows] == list(range(TOTAL + 1))
    for row in rows:
        found = cl.sharpness(cl.loaded(model, result.snapshots[row["step"]]), PROBE, per_block=BLOCKS)
        assert row["sharpness"] == pytest.approx(float(found), rel=1e-9)
        assert row["residual"] <= 0.01 * abs(row["sharpness"])
        assert row["products"] == found.products
        assert row["shares"] == pytest.approx(dict(found.shares), abs=1e-6)
        assert sum(row["shares"].values()) == pytest.approx(1.0)
    factor = schedule.factor(Clock(STEPS, TOTAL))
    wanted = [stability_threshold("sgd", 0.1 * factor(step), momentum=0.9, weight_decay=0.01) for step in range(TOTAL)]
    # Before the first step there is no rate, and after it the rate was 0, which bears any sharpness.
    assert [row["threshold"] for row in rows] == [None, None, *(pytest.approx(each, rel=1e-12) for each in wanted[1:])]


def equal_weights(a: TrainResult, b: TrainResult) -> bool:
    pairs = [(point, b.snapshots[step]) for step, point in a.snapshots.items()]
    buffers = [(value, other.buffers[name]) for point, other in pairs for name, value in point.buffers.items()]
    return all(torch.equal(x, y) for x, y in [*buffers, *((x.vector, y.vector) for x, y in pairs)])


def test_the_training_is_the_same_bit_by_bit() -> None:
    plain, watched = train(), train(SharpnessTrace(PROBE))
    assert {"norm.running_mean", "norm.running_var"} <= set(plain.snapshots[TOTAL].buffers)
    assert equal_weights(plain, watched)
    assert plain.history == watched.history
    assert len(seen(watched)) == TOTAL + 1


def test_every_and_until() -> None:
    assert [row["step"] for row in seen(train(SharpnessTrace(PROBE, every=2, until="1ep")))] == [0, 2]
    assert [row["step"] for row in seen(train(SharpnessTrace(PROBE, every=4)))] == [0, 4]
    with pytest.raises(UsageError, match="every 0 steps"):
        SharpnessTrace(PROBE, every=0)
    with pytest.raises(UsageError):
        train(SharpnessTrace(PROBE, blocks={"nowhere": ("nothing.*",)}))


class Beside(Instrument):
    """Reads the live optimizer's preconditioned sharpness and threshold with the functions for one model."""

    def __init__(self) -> None:
        self.read = list[tuple[float, float, float]]()

    def bind(self, subject: Subject) -> Observer:
        def look(tick: Tick) -> None:
            if tick.step and tick.step % 3 == 0:
                model, optimizer = subject.model, subject.optimizer
                scaled, plain = cl.sharpness(model, PROBE, preconditioner=optimizer), cl.sharpness(model, PROBE)
                self.read.append((float(scaled), float(plain), stability_threshold(optimizer)))

        return look


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_adam_is_read_preconditioned_once_it_has_taken_a_step(name: str) -> None:
    beside = Beside()
    rows = seen(train(SharpnessTrace(PROBE, every=3), beside, optimizer=name, lr=1e-3))
    assert [row["step"] for row in rows] == [3, 6]
    assert [row["sharpness"] for row in rows] == pytest.approx([scaled for scaled, _, _ in beside.read], rel=1e-9)
    assert [row["threshold"] for row in rows] == pytest.approx([limit for _, _, limit in beside.read], rel=1e-12)
    assert all(abs(scaled / plain - 1) > 0.5 for scaled, plain, _ in beside.read)


def test_a_loss_that_is_not_finite_has_no_sharpness() -> None:
    broken = [(PROBE[0][0] * float("nan"), PROBE[0][1])]
    row = seen(train(SharpnessTrace(broken, every=6, until="1it")))[0]
    assert (row["sharpness"], row["residual"], row["shares"], row["products"]) == (None, None, {}, 0)


class StoppedError(Exception):
    """What a test raises in place of a kill."""


def test_a_stopped_training_goes_on_with_the_same_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StateFile, "due", lambda self: True)

    def stop(tick: Tick) -> None:
        if tick.step == 4:
            raise StoppedError

    trace = SharpnessTrace(PROBE, every=2, blocks=BLOCKS)
    whole = train(trace, out=tmp_path / "whole")
    with pytest.raises(StoppedError):
        train(trace, stop, out=tmp_path / "parts")
    again = train(trace, out=tmp_path / "parts")
    assert seen(again) == seen(whole)
    assert equal_weights(again, whole)
    names = ["observations.jsonl", "metrics.jsonl"]
    assert all((tmp_path / "whole" / name).read_bytes() == (tmp_path / "parts" / name).read_bytes() for name in names)
