"""Profiles and surfaces with intervals, to a tolerance, from folders, by several processes, in other precisions."""

import dataclasses
import multiprocessing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import norm
from torch import nn

import closerlook as cl
from closerlook.errors import UsageError
from closerlook.files import to_json
from conftest import digit_batches, small_net

TRAIN, TEST = digit_batches(1200, 100), digit_batches(500, 100, start=1200)
STATISTICS = digit_batches(200, 100)


@pytest.fixture(scope="module")
def ends() -> tuple[cl.Point, cl.Point]:
    """Two networks trained from different initial weights."""
    results = [cl.train(small_net(seed), TRAIN, lr=0.2, momentum=0.9, epochs=4, seed=seed) for seed in (0, 1)]
    return results[0].point, results[1].point


def read(ends: tuple[cl.Point, cl.Point], **settings: Any) -> cl.Profile:
    known: dict[str, Any] = {"points": 61, "stats_loader": STATISTICS, **settings}
    return cl.profile(small_net(), cl.line(*ends), {"train": TRAIN, "test": TEST}, **known)


@pytest.fixture(scope="module")
def whole(ends: tuple[cl.Point, cl.Point]) -> cl.Profile:
    return read(ends)


def test_spreads_are_those_of_the_examples(ends: tuple[cl.Point, cl.Point], whole: cl.Profile) -> None:
    i, j = 15, 30
    losses = []
    for number in (i, j):
        model = small_net()
        model.load_state_dict(cl.WeightSpace(model).state_dict(cl.line(*ends).at(whole.t[number])), strict=False)
        stats = cl.profile(model, cl.line(model, model), {"test": TEST}, points=[0.0], stats_loader=STATISTICS)
        assert stats.metric("test", "loss")[0] == pytest.approx(whole.metric("test", "loss")[number], abs=1e-5)
        losses.append(stats)
    # A difference of paired values varies less than their separate errors say.
    step, low, high = whole.difference(i, j, "test")
    assert step == pytest.approx(whole.metric("test", "loss")[j] - whole.metric("test", "loss")[i])
    covariance = whole.covariance["test_loss"]
    paired = np.sqrt((covariance[i, i] + covariance[j, j] - 2 * covariance[i, j]) / 500)
    assert (high - low) / 2 == pytest.approx(norm.ppf(0.975) * paired, rel=1e-9)
    assert whole.errors["test_loss"][i] == pytest.approx(np.sqrt(covariance[i, i] / 500), rel=1e-9)
    assert np.array_equal(whole.errors["test_error"], whole.errors["test_accuracy"])


def test_every_barrier_lies_in_its_interval(whole: cl.Profile) -> None:
    for split in ("train", "test"):
        for metric in ("loss", "error", "accuracy"):
            for definition in ("above_ends", "above_mean_of_ends", "above_line"):
                found = whole.barrier(split, metric, definition)  # type: ignore[arg-type]
                assert found.low is not None
                assert found.high is not None
                assert found.low <= found.value <= found.high
                assert found.interval_of == "population"
                wider = whole.barrier(split, metric, definition, level=0.999)  # type: ignore[arg-type]
                assert wider.high is not None
                assert wider.high >= found.high
    low, high = whole.interval("test", "loss")
    assert np.all(low < whole.metric("test", "loss"))
    assert np.all(whole.metric("test", "loss") < high)


def test_a_part_of_the_work_gives_the_barrier_to_the_tolerance(
    ends: tuple[cl.Point, cl.Point], whole: cl.Profile
) -> None:
    part = read(ends, tolerance=0.02)
    for split in ("train", "test"):
        found, full = part.barrier(split), whole.barrier(split).value
        assert found.low is not None
        assert found.high is not None
        assert found.low - 1e-6 <= full <= found.high + 1e-6  # losses of other batches round differently
        assert max(found.high - found.value, found.value - found.low) <= 0.02
        assert found.interval_of == "loader"
        assert part.barrier(split, "error").low is None  # only the certified barrier has an interval
        # Points that were read on few images are placed by their differences.
        at = np.searchsorted(whole.t, part.t)
        off = np.abs(part.metric(split, "loss") - whole.metric(split, "loss")[at])
        assert np.all(off <= 5 * part.errors[f"{split}_loss"] + 1e-5)
        assert part.images[split].max() <= part.n[split] == whole.n[split]
    assert part.evaluations < whole.evaluations / 2
    for own, expected in zip(part.ends, whole.ends, strict=True):
        assert own == pytest.approx(expected, abs=1e-6)
    assert cl.Profile.from_dict(part.to_dict()).barrier("test") == part.barrier("test")


def test_an_end_without_usable_statistics_has_no_numbers_of_its_own(ends: tuple[cl.Point, cl.Point]) -> None:
    fresh = cl.WeightSpace(small_net()).point(small_net(3))
    broken = {name: value * torch.nan if "running" in name else value for name, value in fresh.buffers.items()}
    flawed = cl.Point(fresh.vector, broken)
    for settings in ({"points": 3}, {"tolerance": 0.5, "points": 9}):
        found = read((ends[0], flawed), **settings)
        assert found.ends[0]
        assert found.ends[1] == {}


def test_differences_after_a_part_are_about_all_images(ends: tuple[cl.Point, cl.Point], whole: cl.Profile) -> None:
    part = read(ends, tolerance=0.02)
    last = len(part.t) - 1
    step, low, high = part.difference(0, last, "train")
    expected = whole.metric("train", "loss")[-1] - whole.metric("train", "loss")[0]
    assert low - 1e-5 <= expected <= high + 1e-5
    n = int(part.images["train"].min())
    again = dataclasses.replace(part, certificates={})  # as of the population: without what is left to read
    width = again.difference(0, last, "train")[2] - step
    assert high - step == pytest.approx(width * np.sqrt(1 - n / part.n["train"]), rel=1e-9)


def test_a_certified_barrier_has_its_own_level(ends: tuple[cl.Point, cl.Point], whole: cl.Profile) -> None:
    part = read(ends, tolerance=0.05, level=0.9)
    assert part.barrier("test").level == 0.9
    assert part.barrier("test", level=0.9) == part.barrier("test")
    with pytest.raises(UsageError, match=r"certified at level 0\.9; read again with level=0\.99"):
        part.barrier("test", level=0.99)
    assert whole.barrier("test").level == 0.95


def test_corners_of_a_chain_are_read(ends: tuple[cl.Point, cl.Point]) -> None:
    chain = cl.polychain([ends[0], cl.WeightSpace(small_net()).point(small_net(5)), ends[1]])
    part = cl.profile(small_net(), chain, {"test": TEST}, 53, tolerance=0.05, stats_loader=STATISTICS)
    assert 0.5 in part.t


def test_a_reading_from_a_folder_has_the_bytes_of_one_in_memory(
    ends: tuple[cl.Point, cl.Point], whole: cl.Profile, tmp_path: Path
) -> None:
    for name, settings in {"whole": {"points": 9}, "part": {"tolerance": 0.05}}.items():
        expected = to_json(read(ends, **settings).to_dict())
        first = read(ends, **settings, out=tmp_path / name)
        assert to_json(first.to_dict()) == expected
        cells = sorted((tmp_path / name).glob("*.npz"))
        for cell in cells[::2]:  # as after a kill
            cell.unlink()
        assert to_json(read(ends, **settings, out=tmp_path / name).to_dict()) == expected
        assert sorted((tmp_path / name).glob("*.npz")) == cells
    with pytest.raises(UsageError, match="holds a reading with other coordinates"):
        read(ends, points=8, out=tmp_path / "whole")
    with pytest.raises(UsageError, match="holds a reading with other tolerance"):
        read(ends, tolerance=0.04, out=tmp_path / "part")
    with pytest.raises(UsageError, match="holds a reading with other first batches"):
        cl.profile(
            small_net(), cl.line(*ends), {"train": TRAIN, "test": TEST[1:]}, 9, stats_loader=STATISTICS,
            out=tmp_path / "whole",
        )  # fmt: skip


def _shared(ends: Any, kind: str, out: Path, to: Path) -> None:
    torch.set_num_threads(1)
    found = _surface(ends, out=out) if kind == "surface" else read(ends, tolerance=0.05, out=out)
    to.write_text(to_json(found.to_dict()))


def _surface(ends: tuple[cl.Point, cl.Point], **settings: Any) -> cl.Surface:
    third = cl.WeightSpace(small_net()).point(small_net(2))
    known: dict[str, Any] = {"grid": (9, 9), "stats_loader": STATISTICS, **settings}
    return cl.surface(small_net(), cl.plane(*ends, third), {"test": TEST}, **known)


@pytest.mark.parametrize("kind", ["surface", "profile"])
def test_processes_that_share_a_reading_end_with_the_same_bytes(
    kind: str, ends: tuple[cl.Point, cl.Point], tmp_path: Path
) -> None:
    context = multiprocessing.get_context("fork")
    workers = [
        context.Process(target=_shared, args=(ends, kind, tmp_path / "cells", tmp_path / str(n))) for n in range(2)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    alone = _surface(ends) if kind == "surface" else read(ends, tolerance=0.05)
    assert {(tmp_path / str(n)).read_text() for n in range(2)} == {to_json(alone.to_dict())}


def test_a_coarse_surface_is_close_to_the_full_one(ends: tuple[cl.Point, cl.Point], tmp_path: Path) -> None:
    full = _surface(ends, grid=(13, 13))
    coarse = _surface(ends, grid=(13, 13), tolerance=0.1, out=tmp_path)
    assert coarse.was_read.sum() < 0.9 * full.was_read.sum() == 0.9 * 169
    assert np.array_equal(coarse.values["test_loss"][coarse.was_read], full.values["test_loss"][coarse.was_read])
    assert np.abs(np.log(coarse.values["test_loss"] / full.values["test_loss"])).max() < 0.3
    # A finer tolerance goes on with the cells that are there.
    before = {path.name for path in tmp_path.glob("cell-*")}
    finer = _surface(ends, grid=(13, 13), tolerance=0.01, out=tmp_path)
    assert before < {path.name for path in tmp_path.glob("cell-*")}
    assert finer.was_read.sum() > coarse.was_read.sum()


def test_a_lower_precision_is_told_with_its_error(ends: tuple[cl.Point, cl.Point], whole: cl.Profile) -> None:
    assert whole.told["precision"] == "fp32"
    assert whole.told["layout"] == "channels_last"
    assert whole.precision_errors == {}
    for settings in ({"points": 61}, {"tolerance": 0.05}):
        low = read(ends, autocast=torch.bfloat16, **settings)
        assert low.told["precision"] == "bf16"
        assert 0 < low.precision_errors["test_loss"] < 0.05
        assert abs(low.barrier("test").value - whole.barrier("test").value) < 0.1
    found = _surface(ends, grid=(3, 3), autocast=torch.bfloat16)
    assert 0 < found.precision_errors["test_loss"] < 0.1


class Viewing(nn.Module):
    """A network that cannot bear channels_last: `view` needs the contiguous layout."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, 3, 3), nn.Linear(108, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits."""
        return self.head(self.conv(x).view(len(x), -1))


def test_a_network_that_cannot_bear_channels_last_is_read_in_its_own_layout() -> None:
    a, b = Viewing(), Viewing()
    found = cl.profile(Viewing(), cl.line(a, b), TEST, points=3)
    assert found.told["layout"] == "contiguous_format"
    assert found.metric("train", "loss")[0] == pytest.approx(cl.evaluate(a, TEST).loss, abs=1e-6)


def test_tolerances_that_mean_nothing_are_refused(ends: tuple[cl.Point, cl.Point]) -> None:
    for settings, message in [
        ({"tolerance": 0.0}, "a tolerance is above 0 nats"),
        ({"tolerance": float("nan")}, "a tolerance is above 0 nats"),
        ({"tolerance": 0.1, "points": [0.0, 0.5, 0.9]}, "a tolerance is about a barrier"),
        ({"tolerance": 0.1, "points": 2}, "at least three points"),
        ({"level": 1.0}, "level is a probability"),
    ]:
        with pytest.raises(UsageError, match=message):
            read(ends, **settings)
