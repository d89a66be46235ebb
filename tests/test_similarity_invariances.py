"""Every declared invariance holds, and what is not declared is really not there."""

from collections.abc import Callable
from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from closerlook.similarity import DECLARED, Moments, cca, cka, procrustes, pwcca, rbf_cka, spectral_cca, svcca
from closerlook.similarity.declared import Map

N = 60


def gaussian(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def through_moments(measure: Callable[[Moments], float]) -> Callable[[Tensor, Tensor], float]:
    def value(x: Tensor, y: Tensor) -> float:
        moments = Moments()
        moments.update(x, y)
        return float(measure(moments))

    return value


MEASURES: dict[str, Callable[[Tensor, Tensor], float]] = {
    "cca": through_moments(cca),
    "svcca": through_moments(lambda m: svcca(m, variance=0.8)),
    "pwcca:x": through_moments(lambda m: pwcca(m, side="x")),
    "pwcca:y": through_moments(lambda m: pwcca(m, side="y")),
    "pwcca:mean": through_moments(lambda m: pwcca(m, side="mean")),
    "cka": through_moments(cka),
    "cka:biased": through_moments(lambda m: cka(m, debiased=False)),
    "procrustes": through_moments(procrustes),
    "rbf_cka": lambda x, y: float(rbf_cka(x, y)),
    "spectral_cca": lambda x, y: float(spectral_cca(x, y)),
}


def pair(name: str, seed: int) -> tuple[Tensor, Tensor]:
    """Related representations with uneven spectra; maps where the measure is of maps."""
    shape = (4, 4) if name == "spectral_cca" else ()
    x, y = gaussian(N, 4, *shape, seed=seed), gaussian(N, 3, *shape, seed=seed + 1000)
    spread = torch.tensor([3.0, 2.0, 1.0, 0.4], dtype=torch.float64)
    x = x * spread.view(1, 4, *[1] * len(shape))
    y = y + x[:, [0, 1, 3]] * 0.7
    return x, y


def mapped(rows: Tensor, name: Map, seed: int) -> Tensor:
    """Rows, or maps through their channels, after a map of this name."""
    width = rows.shape[1]
    square = gaussian(width, width, seed=seed + 1)
    if name == "translation":
        return rows + 5 * gaussian(1, *rows.shape[1:], seed=seed)
    if name == "scaling":
        return rows * (0.1 + 10 * torch.rand((), generator=torch.Generator().manual_seed(seed)).double())
    if name == "orthogonal":
        return torch.einsum("nc...,cd->nd...", rows, torch.linalg.qr(square).Q)
    if name == "invertible":
        # Far from orthogonal, and well-conditioned enough to leave the tolerance to rounding.
        u, _, v = torch.linalg.svd(square)
        uneven = torch.logspace(0, 1.3, width, dtype=torch.float64)
        return torch.einsum("nc...,cd->nd...", rows, (u * uneven) @ v)
    if name == "circular shift":
        return rows.roll((1 + seed % 3, seed % 2), (2, 3))
    kernel = gaussian(4, 4, seed=seed)
    kernel[0, 0] += 6  # no zero in its transform
    return torch.fft.ifft2(torch.fft.fft2(rows) * torch.fft.fft2(kernel)).real


def maps_for(name: str) -> list[Map]:
    spatial = ("circular shift", "circular filter")
    return [each for each in get_args(Map) if name == "spectral_cca" or each not in spatial]


CASES = [(name, side, each) for name in DECLARED for side in "xy" for each in maps_for(name)]


def moved_by(name: str, side: str, each: Map, seed: int) -> float:
    """How far the value moves when one side is mapped."""
    x, y = pair(name, seed)
    before = MEASURES[name](x, y)
    after = MEASURES[name](mapped(x, each, seed), y) if side == "x" else MEASURES[name](x, mapped(y, each, seed))
    return abs(after - before)


@pytest.mark.parametrize(
    ("name", "side", "each"), [case for case in CASES if case[2] in getattr(DECLARED[case[0]], case[1])]
)
@settings(max_examples=5)
@given(seed=st.integers(0, 500))
def test_declared_invariances_hold(name: str, side: str, each: Map, seed: int) -> None:
    assert moved_by(name, side, each, seed) < 1e-9


@pytest.mark.parametrize(
    ("name", "side", "each"), [case for case in CASES if case[2] not in getattr(DECLARED[case[0]], case[1])]
)
def test_what_is_not_declared_is_not_there(name: str, side: str, each: Map) -> None:
    assert max(moved_by(name, side, each, seed) for seed in range(5)) > 1e-3


@pytest.mark.parametrize("name", DECLARED)
def test_equal_representations_are_the_most_similar(name: str) -> None:
    x, y = pair(name, 0)
    assert MEASURES[name](x, x) == pytest.approx(1, abs=1e-9)
    assert MEASURES[name](x, y) < 0.999


@pytest.mark.parametrize("name", [name for name in DECLARED if name not in ("pwcca:x", "pwcca:y")])
def test_both_sides_count_alike(name: str) -> None:
    x, y = pair(name, 3)
    assert MEASURES[name](x, y) == pytest.approx(MEASURES[name](y, x), abs=1e-10)


@pytest.mark.parametrize("name", DECLARED)
def test_more_is_more_similar(name: str) -> None:
    x, _ = pair(name, 4)
    noise = gaussian(*x.shape, seed=99)
    values = [MEASURES[name](x, x + level * noise) for level in (0.0, 0.3, 1.0, 3.0)]
    assert values == sorted(values, reverse=True)
