"""Sums over a stream: independent of batches and order, merged, saved, refused where they would lie."""

import subprocess
import sys
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from closerlook.errors import LayerError, LoaderError, MismatchError, StoreError, UsageError
from closerlook.similarity import GridMoments, Moments, Pair, SpectralMoments, cca, cka
from closerlook.similarity.memory import available


def rows(n: int, width: int, seed: int, *, offset: float = 0.0) -> Tensor:
    """Correlated rows in float64."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(width, width, generator=generator, dtype=torch.float64)
    return torch.randn(n, width, generator=generator, dtype=torch.float64) @ mixing + offset


def moments_of(x: Tensor, y: Tensor, batch: int) -> Moments:
    made = Moments()
    for start in range(0, len(x), batch):
        made.update(x[start : start + batch], y[start : start + batch])
    return made


def assert_same(one: Pair, other: Pair, tolerance: float = 1e-12) -> None:
    """Equal up to rounding, relative to the lengths of the units."""
    for a, b in ((one.left, other.left), (one.right, other.right)):
        lengths = a.own.diagonal().sqrt()
        assert float(((a.own - b.own) / lengths / lengths[:, None]).abs().max()) < tolerance
        assert a.squares == pytest.approx(b.squares, rel=tolerance)
        assert float((a.mean - b.mean).abs().max()) < tolerance * float(a.mean.abs().max() + 1)
    scale = one.left.own.diagonal().sqrt()[:, None] * one.right.own.diagonal().sqrt()
    assert float(((one.cross - other.cross) / scale).abs().max()) < tolerance
    assert one.joint == pytest.approx(other.joint, rel=tolerance)
    assert one.n == other.n


def direct(x: Tensor, y: Tensor) -> Pair:
    """The same moments from the centred examples at once."""
    pair = moments_of(x, y, len(x)).pair()
    a, b = x - x.mean(0), y - y.mean(0)
    assert float((a.T @ b - pair.cross).abs().max()) < 1e-10 * float(pair.cross.abs().max())
    norms_a, norms_b = a.square().sum(1), b.square().sum(1)
    assert pair.joint == pytest.approx(float(norms_a @ norms_b), rel=1e-12)
    assert pair.left.squares == pytest.approx(float(norms_a @ norms_a), rel=1e-12)
    assert pair.left.total == pytest.approx(float(norms_a.sum()), rel=1e-12)
    return pair


@pytest.mark.parametrize("batch", [1, 7, 64, 600])
@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_batches_do_not_matter(batch: int, offset: float) -> None:
    x, y = rows(1300, 70, 0, offset=offset), rows(1300, 65, 1, offset=-offset)
    # At an offset of 1e4 the examples themselves are rounded at 1e-12 of their spread.
    assert_same(moments_of(x, y, batch).pair(), direct(x, y), 1e-12 if offset == 0 else 1e-11)


def test_order_does_not_matter() -> None:
    x, y = rows(900, 20, 0), rows(900, 30, 1)
    order = torch.randperm(900, generator=torch.Generator().manual_seed(2))
    assert_same(moments_of(x[order], y[order], 50).pair(), moments_of(x, y, 900).pair())


@settings(max_examples=25)
@given(cuts=st.lists(st.integers(1, 299), max_size=4, unique=True), offset=st.sampled_from([0.0, 50.0]))
def test_merging_is_exact_whatever_the_shifts(cuts: list[int], offset: float) -> None:
    x, y = rows(300, 6, 0), rows(300, 5, 1)
    # A drift makes the shift of every worker another one.
    x = x + offset * torch.arange(300, dtype=torch.float64)[:, None] / 300
    total = Moments()
    for start, end in zip([0, *sorted(cuts)], [*sorted(cuts), 300], strict=True):
        part = Moments()
        part.update(x[start:end], y[start:end])
        total.merge(part)
    assert_same(total.pair(), moments_of(x, y, 300).pair())


def test_what_was_merged_goes_on_and_is_left_alone() -> None:
    x, y = rows(300, 6, 0), rows(300, 5, 1)
    first, second = moments_of(x[:100], y[:100], 9), moments_of(x[100:200], y[100:200], 9)
    first.merge(second)
    first.update(x[200:], y[200:])
    assert_same(first.pair(), moments_of(x, y, 300).pair())
    assert_same(second.pair(), moments_of(x[100:200], y[100:200], 100).pair())


def test_sums_are_float64_whatever_comes_in_and_leave_it_alone() -> None:
    x = rows(500, 4, 0).float()
    y = x.numpy()[:, :2]
    kept = x.clone()
    moments = Moments()
    moments.update(x.requires_grad_(), y)
    assert moments.pair().cross.dtype == torch.float64
    assert not moments.pair().cross.requires_grad
    assert torch.equal(x.detach(), kept)
    assert_same(moments.pair(), direct(kept.double(), kept.double()[:, :2]))


def test_integers_and_half_precision_are_summed_exactly() -> None:
    counts = torch.randint(0, 50, (200, 3), generator=torch.Generator().manual_seed(0))
    moments = Moments()
    moments.update(counts, counts.bfloat16())
    assert_same(moments.pair(), direct(counts.double(), counts.double()))


def test_a_grid_is_its_pairs() -> None:
    layers = {f"layer {i}": rows(400, width, i) for i, width in enumerate((3, 70, 5, 66))}
    grid = GridMoments()
    for start in range(0, 400, 30):
        grid.update({name: layer[start : start + 30] for name, layer in layers.items()})
    for a, b in combinations(layers, 2):
        expected = moments_of(layers[a], layers[b], 400).pair()
        assert_same(grid.pair(a, b), expected)
        assert_same(grid.pair(b, a), expected.swapped)
    assert cca(grid.pair("layer 1", "layer 1")).value == pytest.approx(1, abs=1e-12)
    assert grid.pair("layer 0", "layer 1").left is grid.pair("layer 0", "layer 3").left


def test_chosen_pairs_only() -> None:
    layers = {name: rows(100, 3, i) for i, name in enumerate("abcd")}
    grid, other = GridMoments(pairs=[("d", "a"), ("b", "c")]), GridMoments(pairs=[("d", "a"), ("b", "c")])
    grid.update({name: layer[:50] for name, layer in layers.items()})
    other.update({name: layer[50:] for name, layer in reversed(layers.items())})
    with pytest.raises(MismatchError, match="sums of"):
        grid.merge(other)
    grid.update({name: layers[name][50:] for name in "dcba"})
    assert_same(grid.pair("d", "a"), moments_of(layers["d"], layers["a"], 100).pair())
    with pytest.raises(LayerError, match="name the pair"):
        grid.pair("a", "b")
    with pytest.raises(LayerError, match="no layer 'e'"):
        grid.pair("a", "e")
    with pytest.raises(LayerError, match="pairs name e"):
        GridMoments(pairs=[("a", "e")]).update(layers)


def test_grids_merge_with_other_shifts() -> None:
    layers = {name: rows(300, width, width, offset=width) for name, width in (("a", 3), ("b", 5), ("c", 4))}
    pairs = [("a", "b"), ("b", "c")]
    total = GridMoments(pairs)
    for part in (slice(0, 10), slice(10, 299), slice(299, 300)):
        worker = GridMoments(pairs)
        worker.update({name: layer[part] for name, layer in layers.items()})
        total.merge(worker)
    for a, b in pairs:
        assert_same(total.pair(a, b), moments_of(layers[a], layers[b], 300).pair())


def test_saved_sums_go_on(tmp_path: Path) -> None:
    layers = {name: rows(200, width, width) for name, width in (("a", 3), ("b", 5), ("c", 4))}
    grid = GridMoments([("a", "c")], groups=3, cut=2.0)
    grid.update({name: layer[:77] for name, layer in layers.items()})
    grid.save(tmp_path / "grid.safetensors")
    again = GridMoments.load(tmp_path / "grid.safetensors")
    assert (again.n, again.groups, again.cut, again.names) == (77, 3, 2.0, ("a", "b", "c"))
    for each in (grid, again):
        each.update({name: layer[77:] for name, layer in layers.items()})
    assert_same(again.pair("a", "c"), grid.pair("a", "c"), 1e-15)
    assert_same(again.without(1).pair("a", "c"), grid.without(1).pair("a", "c"), 1e-15)
    grid.save(tmp_path / "one.safetensors")
    again.save(tmp_path / "two.safetensors")
    assert (tmp_path / "one.safetensors").read_bytes() == (tmp_path / "two.safetensors").read_bytes()


WORKER = """
import sys
import torch
from closerlook.similarity import GridMoments, Moments, SpectralMoments


def part(kind, start, end):
    x = torch.randn(90, 3, 2, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)[start:end]
    y = x[:, :2].roll(1, 3) + x[:, 1:].square()
    made = kind(groups=2)
    a, b = (x, y) if kind is SpectralMoments else (x.mean((2, 3)), y.mean((2, 3)))
    made.update({"a": a, "b": b}) if kind is GridMoments else made.update(a, b)
    return made


if __name__ == "__main__":
    for kind in (Moments, GridMoments, SpectralMoments):
        part(kind, 32, 90).save(f"{sys.argv[1]}/{kind.__name__}-other")
"""


def test_files_of_several_processes_are_merged(tmp_path: Path) -> None:
    own: dict[str, Any] = {"__name__": "own"}
    exec(WORKER, own)
    subprocess.run([sys.executable, "-c", WORKER, tmp_path], check=True)
    for kind in (Moments, GridMoments, SpectralMoments):
        total = kind(groups=2)
        own["part"](kind, 0, 31).save(tmp_path / "first")
        own["part"](kind, 31, 32).save(tmp_path / "second")
        for path in ("first", f"{kind.__name__}-other", "second"):
            total.merge(kind.load(tmp_path / path))
        total.save(tmp_path / "merged")
        whole, merged = own["part"](kind, 0, 90), kind.load(tmp_path / "merged")
        assert (merged.n, merged.groups) == (90, 2)
        if kind is SpectralMoments:
            for one, two in zip(whole.pairs(), merged.pairs(), strict=True):
                np.testing.assert_allclose(one.correlations, two.correlations, atol=1e-12)
        else:
            names = ("a", "b") if kind is GridMoments else ()
            assert_same(whole.pair(*names), merged.pair(*names))


def test_another_file_is_refused(tmp_path: Path) -> None:
    moments_of(rows(9, 2, 0), rows(9, 2, 1), 9).save(tmp_path / "moments.safetensors")
    with pytest.raises(StoreError, match="holds no GridMoments"):
        GridMoments.load(tmp_path / "moments.safetensors")
    (tmp_path / "moments.safetensors").write_bytes(b"no")
    with pytest.raises(StoreError):
        Moments.load(tmp_path / "moments.safetensors")
    with pytest.raises(UsageError, match="nothing to save"):
        Moments().save(tmp_path / "empty.safetensors")


def test_groups_add_up_and_spread_an_order_by_class() -> None:
    x, y = rows(205, 3, 0), rows(205, 4, 1)
    grouped = Moments(groups=10)
    for start in range(0, 205, 31):
        grouped.update(x[start : start + 31], y[start : start + 31])
    assert_same(grouped.pair(), moments_of(x, y, 205).pair())
    keep = torch.arange(205) % 10 != 4
    assert_same(grouped.without(4).pair(), moments_of(x[keep], y[keep], 205).pair())
    with pytest.raises(UsageError, match="no group 10"):
        grouped.without(10)
    with pytest.raises(UsageError, match="no group 0"):
        moments_of(x, y, 205).without(0)


def test_groups_can_be_given() -> None:
    x, y = rows(60, 3, 0), rows(60, 4, 1)
    group = torch.arange(60) // 30
    moments = Moments(groups=2)
    moments.update(x, y, group)
    assert_same(moments.without(0).pair(), moments_of(x[30:], y[30:], 60).pair())
    for wrong in (group[:9], group + 1, group - 1):
        with pytest.raises(UsageError, match="from 0 to 1"):
            moments.update(x, y, wrong)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_what_is_not_finite_is_named_and_nothing_is_added(bad: float, dtype: torch.dtype) -> None:
    x, y = rows(600, 3, 0).to(dtype), rows(600, 4, 1).to(dtype)
    grid = GridMoments()
    grid.update({"conv1": x, "fc": y})
    before = grid.pair("conv1", "fc").cross.clone()
    broken = y.clone()
    broken[599, 2] = broken[3, 1] = bad
    with pytest.raises(UsageError, match="fc has 2 values of 2400 that are NaN or infinite"):
        grid.update({"conv1": x, "fc": broken})
    assert grid.n == 600
    assert torch.equal(grid.pair("conv1", "fc").cross, before)


def test_shapes_are_checked() -> None:
    x = rows(10, 3, 0)
    moments = Moments()
    with pytest.raises(LoaderError, match=r"'x': 10, 'y': 9"):
        moments.update(x, x[:9])
    with pytest.raises(UsageError, match="average maps over space"):
        moments.update(x, torch.zeros(10, 3, 4, 4))
    with pytest.raises(UsageError, match="complex"):
        moments.update(x, x.to(torch.complex64))
    with pytest.raises(UsageError, match="not \\[examples, units\\]"):
        moments.update(x, x[:, :0])
    with pytest.raises(UsageError, match="say nothing"):
        moments.pair()
    moments.update(x, x)
    with pytest.raises(MismatchError, match=r"x \[3\], y \[3\] in 1 pairs cannot take x \[3\], y \[2\]"):
        moments.update(x, x[:, :2])
    with pytest.raises(MismatchError, match="2 groups"):
        moments.merge(_grouped(x))
    with pytest.raises(UsageError, match="groups are 1 or more"):
        Moments(groups=0)


def _grouped(x: Tensor) -> Moments:
    made = Moments(groups=2)
    made.update(x, x)
    return made


def test_an_empty_batch_and_an_empty_worker_change_nothing() -> None:
    x = rows(10, 3, 0)
    moments = moments_of(x, x, 10)
    moments.update(x[:0], x[:0])
    moments.merge(Moments())
    empty = Moments()
    empty.merge(moments)
    assert moments.n == empty.n == 10
    assert_same(empty.pair(), moments.pair())


def test_memory_is_refused_before_it_is_taken() -> None:
    wide = torch.zeros(2, 3000)
    with pytest.raises(UsageError, match=r"layers|sums of x \[3000\].* need .* MB .* raise max_bytes"):
        Moments(max_bytes=10**8).update(wide, wide)
    small = Moments(max_bytes=10**8)
    small.update(wide[:, :100], wide[:, :100])
    assert 10**6 < available() < 10**15


def test_the_estimate_covers_what_is_kept() -> None:
    grid = GridMoments()
    grid.update({name: rows(100, width, width) for name, width in (("a", 40), ("b", 50), ("c", 60))})
    sums = grid._sums[0]
    kept = sum(tensor.numel() * 8 for tensor in sums.tensors().values()) + 8 * sums._z.numel()
    assert kept <= sums.form.bytes <= 1.2 * kept


def test_coarse_activations_count_as_coarse() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2000, 20, generator=generator) @ torch.randn(20, 50, generator=generator)
    y = x @ torch.randn(50, 40, generator=generator)
    counted = Moments(dtype=torch.float32)
    counted.update(x.bfloat16(), y.bfloat16())
    known = Moments()
    known.update(x.bfloat16(), y.bfloat16())
    fine = Moments()
    fine.update(x, y)
    assert fine.pair().ranks == known.pair().ranks == (20, 20)
    assert cca(fine).value == pytest.approx(1, abs=1e-6)
    assert cca(known).value > 0.99
    # Rounding noise counted as 30 and 20 directions more, which nothing pairs.
    assert counted.pair().ranks == (50, 40)
    assert cca(counted).value < 0.6


def test_the_cut_can_be_changed_afterwards() -> None:
    x = rows(500, 4, 0)
    x[:, 3] = x[:, 0] + 1e-5 * x[:, 3]
    moments = moments_of(x, x, 500)
    assert moments.pair().ranks == (4, 4)
    moments.cut = 1000
    assert moments.pair().ranks == (3, 3)


def test_numpy_and_torch_are_the_same() -> None:
    x, y = rows(50, 3, 0), rows(50, 4, 1)
    moments = Moments()
    moments.update(x.numpy(), np.asfortranarray(y.numpy()))
    assert cka(moments).value == pytest.approx(cka(moments_of(x, y, 50)).value, rel=1e-14)


def test_maps_stream_merge_and_are_saved(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(150, 3, 4, 6, generator=generator, dtype=torch.float64) + 5
    y = torch.randn(150, 2, 4, 6, generator=generator, dtype=torch.float64) + x[:, :2]
    whole = SpectralMoments()
    whole.update(x, y)
    small = SpectralMoments()
    for start in range(0, 150, 7):
        small.update(x[start : start + 7], y[start : start + 7])
    merged = SpectralMoments(groups=2)
    worker = SpectralMoments(groups=2)
    merged.update(x[:1], y[:1])
    worker.update(x[1:], y[1:])
    merged.merge(worker)
    merged.save(tmp_path / "maps.safetensors")
    for other in (small, merged, SpectralMoments.load(tmp_path / "maps.safetensors")):
        for one, two in zip(whole.pairs(), other.pairs(), strict=True):
            scale = one.left.own.diagonal().real.sqrt()[:, None] * one.right.own.diagonal().real.sqrt()
            assert float(((one.cross - two.cross) / scale).abs().max()) < 1e-12
            assert float((one.left.own - two.left.own).abs().max()) < 1e-12 * one.left.total
            assert float((one.left.mean - two.left.mean).abs().max()) < 1e-12
