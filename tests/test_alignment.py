"""Alignment: planted permutations come back, tiny networks as brute force says, and the caller's things untouched."""

from itertools import permutations, product
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import pearsonr
from torch import Tensor, nn

import closerlook as cl
from closerlook.activations.forward import Forward
from closerlook.alignment import Symmetry, trace
from closerlook.alignment.assignment import best_order
from closerlook.alignment.moments import Moments
from closerlook.alignment.weight_matching import Weights, climbed, match_weights
from closerlook.errors import LoaderError, MismatchError, NotFiniteError, UsageError
from closerlook.models import build
from conftest import digit_batches, small_net
from untouched import everything, same

CPU = Forward(torch.device("cpu"))
DATA = digit_batches(96, 48, dtype=torch.float64)
NETWORKS: dict[str, dict[str, Any]] = {
    "mlp": {"in_features": 64, "hidden": (24, 16)},
    "vgg11": {"width": 0.08, "image_size": 8, "in_channels": 1, "dropout": 0.0},
    "vgg11_bn": {"width": 0.08, "image_size": 8, "in_channels": 1, "head": "linear"},
    "resnet20": {"width": 0.5, "in_channels": 1},
}


def network(name: str, seed: int) -> nn.Module:
    """A network in float64, in eval mode, with statistics of the digits."""
    model = build(name, seed=seed, init="he", **NETWORKS[name]).double()
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        for value in model.parameters():
            if value.ndim == 1:
                value += 0.2 * torch.randn_like(value)
        model.train()
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.momentum = None
        for images, _ in DATA:
            model(images)
    return model.eval()


def planted(model: nn.Module, seed: int, noise: float) -> tuple[Symmetry, cl.Point, list[np.ndarray]]:
    """The network with its units in random orders and noise on each weight, in units of its tensor's spread."""
    symmetry, space, draws = trace(model, DATA[0][0], CPU), cl.WeightSpace(model), np.random.default_rng(seed)
    orders = [best_order(draws.standard_normal((group.size, group.size)), group.blocks) for group in symmetry.groups]
    moved = symmetry.moved(space, space.point(model), orders)
    parts = [moved.vector[span].std(correction=0) * torch.from_numpy(draws.standard_normal(span.stop - span.start))
             for _, _, span in space.slices()]  # fmt: skip
    return symmetry, cl.Point(moved.vector + noise * torch.cat(parts), moved.buffers), orders


@pytest.mark.parametrize("name", NETWORKS)
def test_a_planted_permutation_comes_back_by_weights(name: str) -> None:
    for seed in range(3):
        model = network(name, seed)
        symmetry, b, orders = planted(model, seed, noise=0.1)
        found = cl.alignment(model, model, b, loader=DATA, seed=seed)
        for group, order in zip(symmetry.groups, orders, strict=True):
            assert np.array_equal(found.permutations[group.name], np.argsort(order)), (seed, group)
        assert found.distance_after < found.distance_before
        assert found.output_difference < 1e-12


@pytest.mark.parametrize("name", ["mlp", "resnet20"])
def test_a_planted_permutation_comes_back_by_activations(name: str) -> None:
    model = network(name, 4)
    _, b, _ = planted(model, 4, noise=0.0)
    found = cl.align(model, model, b, "activations", loader=DATA)
    # Units that are silent on all these images cannot be told apart, and need not be.
    wanted, got = (cl.activations(net, DATA, ["*relu*", "*output"] if name != "mlp" else ["relu*"], conv="flatten").rows
                   for net in (model, cl.loaded(model, found)))  # fmt: skip
    for layer, rows in wanted.items():
        torch.testing.assert_close(rows, got[layer], rtol=0, atol=1e-10)


def tiny(seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)).double()


def both(one: nn.Module, two: nn.Module) -> Weights:
    sides = [{name: value.detach() for name, value in net.named_parameters()} for net in (one, two)]
    return Weights(trace(one, torch.zeros(2, 3).double(), CPU), *sides)


def by_hand(one: nn.Module, two: nn.Module, orders: Any) -> float:
    """Squared distance of all weights, the second network permuted by hand."""
    first, second = (list(map(int, order)) for order in orders)
    a, b = one.state_dict(), two.state_dict()
    moved = {
        "0.weight": b["0.weight"][first], "0.bias": b["0.bias"][first],
        "2.weight": b["2.weight"][second][:, first], "2.bias": b["2.bias"][second],
        "4.weight": b["4.weight"][:, second], "4.bias": b["4.bias"],
    }  # fmt: skip
    return sum(float(((a[name] - moved[name]) ** 2).sum()) for name in a)


@pytest.mark.parametrize("seed", range(8))
def test_tiny_networks_as_near_as_brute_force_finds(seed: int) -> None:
    one, two = tiny(seed), tiny(seed + 100)
    nearest = min(by_hand(one, two, orders) for orders in product(permutations(range(4)), permutations(range(3))))
    found = cl.alignment(one, one, two, loader=[torch.zeros(2, 3).double()], restarts=20)
    assert found.distance_after**2 == pytest.approx(nearest, rel=1e-12)
    assert found.distance_after**2 == pytest.approx(by_hand(one, two, found.permutations.values()), rel=1e-12)


def test_no_sweep_lowers_the_objective_and_the_end_is_a_local_optimum(monkeypatch: pytest.MonkeyPatch) -> None:
    weights, seen = both(tiny(1), tiny(2)), list[float]()
    original = Weights.scores

    def scores(self: Weights, group: int, orders: Any, known: Any = None) -> Any:
        seen.append(self.inner(orders))
        return original(self, group, orders, known)

    monkeypatch.setattr(Weights, "scores", scores)
    orders = climbed(weights, weights.symmetry.identity(), np.random.default_rng(0))
    assert np.all(np.diff(seen) >= 0)
    assert seen[-1] > seen[0]
    for group, order in enumerate(orders):
        for other in permutations(range(len(order))):
            changed = [*orders[:group], np.array(other), *orders[group + 1 :]]
            assert weights.inner(changed) <= weights.inner(orders) + 1e-12


def test_scores_are_the_change_of_the_objective() -> None:
    weights = both(tiny(3), tiny(4))
    draws = np.random.default_rng(0)
    orders = [draws.permutation(group.size) for group in weights.symmetry.groups]
    for group in range(2):
        scores, names = weights.scores(group, orders), {name for name, _, _ in weights.axes_of(group)}
        rest = [name for name in weights.a if name not in names]
        total = scores[np.arange(len(scores)), orders[group]].sum() + weights.inner(orders, rest)
        # Each tensor has the group on one axis here, so its scores sum to the whole inner product.
        assert total == pytest.approx(weights.inner(orders), rel=1e-12)


def test_more_restarts_are_never_further() -> None:
    one, two = tiny(5), tiny(6)
    tried = cl.alignment(one, one, two, loader=[torch.zeros(2, 3).double()], restarts=6, seed=3).tried
    assert len(tried) == 6
    for count in (1, 3):
        fewer = cl.alignment(one, one, two, loader=[torch.zeros(2, 3).double()], restarts=count, seed=3)
        assert fewer.tried == tried[:count]
        assert fewer.distance_after == min(tried[:count])
    again = match_weights(both(one, two), 3, 6)
    assert all(map(np.array_equal, again[2], match_weights(both(one, two), 3, 6)[2]))


def test_twice_is_no_more_than_once_and_the_inverse_undoes() -> None:
    one, two = network("resnet20", 1), network("resnet20", 2)
    space, found = cl.WeightSpace(one), cl.alignment(one, one, two, loader=DATA, restarts=2)
    again = cl.alignment(one, one, found.point, loader=DATA, restarts=2)
    assert again.distance_after <= found.distance_after
    symmetry = trace(one, DATA[0][0], CPU)
    orders = [found.permutations[group.name] for group in symmetry.groups]
    back = symmetry.moved(space, found.point, [np.argsort(order) for order in orders])
    assert torch.equal(back.vector, space.point(two).vector)
    assert all(torch.equal(back.buffers[name], value) for name, value in space.point(two).buffers.items())


def test_networks_that_are_aligned_already_stay() -> None:
    model = network("vgg11_bn", 0)
    found = cl.alignment(model, model, model, loader=DATA)
    assert (found.moved, found.distance_after, found.output_difference) == (0, 0.0, 0.0)
    assert "0 of " in str(found)


@pytest.mark.parametrize("method", ["weights", "activations"])
def test_everything_is_left_as_it_was(method: Any) -> None:
    model, other = small_net(1), small_net(2)
    loader = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(*digit_batches(64, 64)[0]), 16, shuffle=True, generator=torch.Generator()
    )
    for name, module in model.named_modules():
        module.train(name != "norm1")
    before, beside = everything(model, loader), everything(other)
    cl.align(model, model, other, method, loader=loader)
    assert same(before, everything(model, loader))
    assert same(beside, everything(other))
    with pytest.raises(NotFiniteError):
        cl.align(model, model, other, method, loader=[(torch.full((4, 1, 8, 8), torch.nan), torch.zeros(4).long())])
    assert same(before, everything(model, loader))


def test_a_path_a_state_dict_and_a_bare_vector_are_points(tmp_path: Any) -> None:
    one, two = small_net(1), small_net(2)
    torch.save(two.state_dict(), tmp_path / "b.pt")
    loader = digit_batches(8, 8)
    found = [cl.align(one, one, b, loader=loader, restarts=1) for b in (tmp_path / "b.pt", two, two.state_dict())]
    assert all(torch.equal(found[0].vector, point.vector) for point in found)
    bare = cl.align(one, one, cl.WeightSpace(two).point(two).vector, loader=loader, restarts=1)
    assert torch.equal(bare.vector, found[0].vector)
    assert bare.buffers == {}
    with pytest.raises(MismatchError, match="no batch-norm statistics"):
        cl.align(one, one, cl.WeightSpace(two).point(two).vector, "activations", loader=loader)


def test_other_batches_and_batch_functions() -> None:
    one, two = tiny(1), tiny(2)
    rows = torch.randn(6, 3, dtype=torch.float64)
    wanted = cl.align(one, one, two, loader=[rows]).vector

    def fitted(model: nn.Module, batch: dict[str, Tensor]) -> cl.Output:
        outputs = model(batch["rows"])
        return cl.Output((outputs**2).sum(1), outputs)

    assert torch.equal(cl.align(one, one, two, loader=[{"rows": rows}], batch_fn=fitted).vector, wanted)


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"method": "nearest"}, UsageError, "unknown method"),
        ({"restarts": 0}, UsageError, "at least one"),
        ({"loader": []}, LoaderError, "no batch"),
        ({"loader": iter([torch.zeros(2, 3)])}, LoaderError, "one-shot"),
        ({"b": torch.full((39,), torch.nan, dtype=torch.float64)}, UsageError, "NaN"),
        ({"b": torch.zeros(39)}, MismatchError, "float32"),
        ({"a": torch.zeros(39), "b": torch.zeros(39)}, MismatchError, "float32"),
        ({"b": {"weight": torch.zeros(3)}}, MismatchError, "the state dict"),
    ],
)
def test_bad_input_is_refused(settings: dict[str, Any], error: type[Exception], words: str) -> None:
    model = tiny(0)
    given = {"model": model, "a": model, "b": tiny(1), "loader": [torch.zeros(2, 3).double()], **settings}
    with pytest.raises(error, match=words):
        cl.align(**given)


@given(st.integers(0, 10_000), st.sampled_from([(6, ()), (6, (2,)), (6, (3,)), (8, (2, 4))]))
def test_assignments_are_the_best_of_all_that_keep_their_blocks(seed: int, kind: tuple[int, tuple[int, ...]]) -> None:
    n, blocks = kind
    scores = np.random.default_rng(seed).standard_normal((n, n))
    found = best_order(scores, blocks)
    for size in blocks:
        heads = found.reshape(-1, size) // size
        assert (heads == heads[:, :1]).all()
    every = (order for order in allowed(n, blocks))
    best = max(scores[np.arange(n), list(order)].sum() for order in every)
    assert scores[np.arange(n), found].sum() == pytest.approx(best, abs=1e-12)


def allowed(n: int, blocks: tuple[int, ...]) -> list[tuple[int, ...]]:
    """All permutations that move runs of the sizes in `blocks` as wholes."""
    if not blocks:
        return list(permutations(range(n)))
    *smaller, size = blocks
    inside = allowed(size, tuple(smaller))
    return [
        tuple(size * run + place for run, inner in zip(outer, each, strict=True) for place in inner)
        for outer in permutations(range(n // size))
        for each in product(inside, repeat=n // size)
    ]


@given(st.integers(0, 10_000), st.integers(1, 4))
def test_correlations_in_parts_are_those_of_scipy(seed: int, parts: int) -> None:
    draws = np.random.default_rng(seed)
    x, y = draws.standard_normal((2, 3, 40)) + draws.uniform(-50, 50, (2, 3, 1))
    x[1] = 7.0
    moments = Moments()
    for left, right in zip(np.array_split(x, parts, 1), np.array_split(y, parts, 1), strict=True):
        moments.add(torch.from_numpy(left), torch.from_numpy(right))
    for i, j in product((0, 2), range(3)):
        assert float(moments.correlations[i, j]) == pytest.approx(pearsonr(x[i], y[j])[0], abs=1e-10)
    assert moments.correlations[1].tolist() == [0.0, 0.0, 0.0]
    assert moments.std[:3].numpy() == pytest.approx(x.std(1), abs=1e-10)
