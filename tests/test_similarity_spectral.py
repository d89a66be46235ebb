"""DFT-CCA: against a direct transform, its invariances, unequal sizes, and what it refuses."""

import numpy as np
import pytest
import torch
from torch import Tensor

from closerlook.errors import LoaderError, MismatchError, TooFewExamplesError, UsageError
from closerlook.similarity import Moments, SpectralMoments, cca, spectral_cca
from closerlook.similarity.dft import Frequencies, Transform

SIZES = [(1, 1), (1, 2), (2, 1), (2, 2), (4, 4), (5, 7), (8, 5), (3, 6)]


def maps(n: int, channels: int, size: tuple[int, int], seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, channels, *size, generator=generator, dtype=torch.float64)


def direct(x: Tensor, y: Tensor) -> dict[tuple[int, int], np.ndarray]:
    """Correlations at every frequency of the whole spectrum, by singular value decompositions."""
    found = {}
    a, b = torch.fft.fft2(x - x.mean(0)), torch.fft.fft2(y - y.mean(0))
    for u in range(x.shape[2]):
        for v in range(x.shape[3]):
            bases = [torch.linalg.svd(z[:, :, u, v], full_matrices=False).U for z in (a, b)]
            found[u, v] = torch.linalg.svdvals(bases[0].mH @ bases[1]).numpy()
    return found


@pytest.mark.parametrize("size", SIZES)
def test_the_transform_is_that_of_fft(size: tuple[int, int]) -> None:
    height, width = size
    frequencies = Frequencies((height, height), (width, width))
    x = maps(3, 4, size, 0)
    made = Transform(size, frequencies, 12)(x)
    expected = torch.fft.fft2(x, norm="forward")
    for f, (u, v) in enumerate(frequencies.numbers):
        torch.testing.assert_close(torch.complex(made[f, 0], made[f, 1]), expected[:, :, u, v], rtol=0, atol=1e-14)
    assert float(frequencies.weights.sum()) == height * width
    # Parseval: the half spectrum with its weights holds all of the squares.
    total = float((frequencies.weights * made.square().sum((1, 2, 3))).sum()) * height * width
    assert total == pytest.approx(float(x.square().sum()), rel=1e-12)


@pytest.mark.parametrize("size", [(4, 4), (3, 6), (5, 2)])
def test_spectral_cca_against_a_direct_transform(size: tuple[int, int]) -> None:
    x = maps(120, 3, size, 0) + 2
    y = maps(120, 2, size, 1) + x[:, :2].roll(1, 2)
    expected = direct(x, y)
    result = spectral_cca(x, y)
    assert result.value == pytest.approx(np.mean([rho.mean() for rho in expected.values()]), abs=1e-12)
    for (u, v), value in zip(result.details["frequencies"], result.coefficients, strict=True):
        assert value == pytest.approx(expected[u % size[0], v].mean(), abs=1e-12)
    squares = spectral_cca(x, y, summary="r2")
    assert squares.value == pytest.approx(np.mean([(rho**2).mean() for rho in expected.values()]), abs=1e-12)
    assert (result.n, result.ranks) == (120, (3, 2))
    assert squares.chance == pytest.approx(3 / 119)
    assert 0 < result.chance < squares.chance**0.5


def test_the_first_frequency_is_average_pooling() -> None:
    x, y = maps(200, 4, (6, 6), 0), maps(200, 3, (6, 6), 1)
    y[:, :2] += x.roll(2, 3)[:, :2]
    pooled = Moments()
    pooled.update(x.mean((2, 3)), y.mean((2, 3)))
    moments = SpectralMoments()
    moments.update(x, y)
    first = next(iter(moments.pairs()))
    assert moments.frequencies.numbers[0] == (0, 0)
    np.testing.assert_allclose(first.correlations, cca(pooled).coefficients, atol=1e-12)
    torch.testing.assert_close(first.left.mean.real, x.mean((0, 2, 3)), rtol=0, atol=1e-13)


def test_shifts_and_filters_give_one() -> None:
    x = maps(100, 3, (5, 4), 0)
    kernel = torch.randn(5, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    kernel[0, 0] += 8
    filtered = torch.fft.ifft2(torch.fft.fft2(x) * torch.fft.fft2(kernel)).real
    mixing = torch.randn(3, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    for y in (x.roll((2, 1), (2, 3)), filtered, torch.einsum("nchw,cd->ndhw", filtered.roll(3, 2), mixing) + 1):
        assert spectral_cca(x, y).value == pytest.approx(1, abs=1e-9)
    # A filter per image is no such map, and neither is a reflection.
    assert spectral_cca(x, x.flip(3)).value < 0.9
    flattened = Moments()
    flattened.update(x.mean((2, 3)), x.roll(1, 2)[:, :, 0, 0])
    assert cca(flattened).value < 0.9


def upsampled(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps of a larger size with the same frequencies below the old Nyquist frequency, and none above."""
    old = torch.fft.fft2(x, norm="forward")
    new = torch.zeros(*x.shape[:2], *size, dtype=torch.complex128)
    for u in range(-((x.shape[2] - 1) // 2), (x.shape[2] - 1) // 2 + 1):
        for v in range(-((x.shape[3] - 1) // 2), (x.shape[3] - 1) // 2 + 1):
            new[:, :, u, v] = old[:, :, u, v]
    return torch.fft.ifft2(new, norm="forward").real


@pytest.mark.parametrize(("size", "larger"), [((4, 4), (8, 8)), ((4, 4), (7, 9)), ((5, 3), (10, 6)), ((4, 5), (4, 8))])
def test_maps_of_unequal_size_share_their_low_frequencies(size: tuple[int, int], larger: tuple[int, int]) -> None:
    x = maps(100, 3, size, 0)
    y = upsampled(x, larger)
    moments = SpectralMoments()
    moments.update(x, y)
    assert spectral_cca(moments).value == pytest.approx(1, abs=1e-9)
    # Below Nyquist where the sizes differ, and nothing at it: there the smaller map cannot tell u from -u.
    rows, columns = (
        a if a == b else 2 * ((a - 1) // 2) + 1 for a, b in zip(size, larger, strict=True)
    )
    assert float(moments.frequencies.weights.sum()) == rows * columns
    assert len(set(moments.frequencies.numbers)) == len(moments.frequencies.numbers)
    first = next(iter(moments.pairs()))
    torch.testing.assert_close(first.left.own, first.right.own, rtol=0, atol=1e-10)  # the same scale


def test_high_frequencies_of_smooth_maps_are_not_lost() -> None:
    # Power falls by eight orders of magnitude towards high frequencies; complex64 sums would see noise there.
    generator = torch.Generator().manual_seed(0)
    spectrum = torch.fft.fft2(torch.randn(300, 4, 8, 8, generator=generator, dtype=torch.float64))
    distance = torch.fft.fftfreq(8).abs()[:, None] + torch.fft.fftfreq(8).abs()
    x = torch.fft.ifft2(spectrum * torch.exp(-18 * distance)).real
    mixing = torch.randn(4, 4, generator=generator, dtype=torch.float64)
    y = torch.einsum("nchw,cd->ndhw", x, mixing).roll(3, 2)
    moments = SpectralMoments(dtype=torch.float64)
    moments.update(x, y)
    result = spectral_cca(moments)
    assert len(result.coefficients) == 34
    assert result.value == pytest.approx(1, abs=1e-7)


def test_rounding_noise_is_no_signal() -> None:
    # Constant in space but for float32 rounding: only (0, 0) varies.
    level = torch.randn(200, 3, 1, 1, generator=torch.Generator().manual_seed(0)) + 3
    x = (level.double() * (1 + 2e-8 * maps(200, 3, (4, 4), 1))).float()
    result = spectral_cca(x, x.roll(1, 2))
    assert result.details["frequencies"] == [(0, 0)]
    assert result.notes == ("9 of 10 frequencies do not vary on a side and are left out",)
    assert result.value == pytest.approx(1, abs=1e-9)


def test_dead_channels_and_dead_maps() -> None:
    x, y = maps(100, 3, (4, 4), 0), maps(100, 3, (4, 4), 1)
    y[:, 1] = 7
    result = spectral_cca(x, y)
    assert (result.dropped, result.ranks) == (((), (1,)), (3, 2))
    dead = spectral_cca(x, torch.ones_like(y))
    assert np.isnan([dead.value, dead.chance]).all()
    assert dead.to_dict()["value"] is None


def test_few_images_are_refused() -> None:
    x, y = maps(14, 3, (4, 4), 0), maps(14, 3, (4, 4), 1)
    with pytest.raises(TooFewExamplesError, match="14 examples for 3"):
        spectral_cca(x, y)
    assert spectral_cca(x, y, insist=True).notes == ("insisted: 14 examples for 3 directions is less than 5 each",)
    with pytest.raises(TooFewExamplesError, match="above n - 1"):
        spectral_cca(x[:6], y[:6], insist=True)


def test_arguments_are_checked() -> None:
    x = maps(30, 3, (4, 4), 0)
    with pytest.raises(UsageError, match="give maps_y"):
        spectral_cca(x)
    with pytest.raises(UsageError, match="unknown summary"):
        spectral_cca(x, x, summary="median")
    with pytest.raises(UsageError, match="use Moments for matrices"):
        spectral_cca(x[:, :, 0, 0], x)
    with pytest.raises(LoaderError):
        spectral_cca(x[:9], x)
    moments = SpectralMoments()
    moments.update(x, x)
    with pytest.raises(MismatchError, match=r"maps x \[3, 4, 4\]"):
        moments.update(x[:, :, :2], x)
    with pytest.raises(UsageError, match=r"maps x .* need .* MB"):
        SpectralMoments(max_bytes=1000).update(x, x)


def test_chance_is_the_mean_over_pairings_at_random() -> None:
    x, y = maps(60, 3, (4, 4), 0), maps(60, 4, (4, 4), 1)
    shuffled = {"mean": [], "r2": []}
    for seed in range(40):
        order = torch.randperm(60, generator=torch.Generator().manual_seed(seed))
        for summary, values in shuffled.items():
            values.append(spectral_cca(x, y[order], summary=summary).value)
    for summary, values in shuffled.items():
        result = spectral_cca(x, y, summary=summary)
        assert result.chance == pytest.approx(np.mean(values), abs=4 * np.std(values) / 40**0.5)
        assert result.null.error < 0.003
