"""Comparison of layers: every number against an oracle that sees all examples at once, and the traps of other tools."""

import json
from collections import OrderedDict
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import closerlook as cl
from closerlook import figures
from closerlook.errors import LayerError, LoaderError, MismatchError, TooFewExamplesError, UsageError
from closerlook.similarity import Comparison, Moments, compare, measure
from closerlook.similarity.untrained import untrained
from conftest import digit_batches, small_net
from untouched import everything, same

EPS = 2.0**-52
LAYERS = ["relu1", "conv2", "relu2", "head"]
A, B = small_net(0), small_net(1)
BATCHES = digit_batches(600, 64)


def rows_of(model: nn.Module, layer: str, batches: Any = BATCHES, **handling: Any) -> np.ndarray:
    return cl.activations(model, batches, [layer], **handling).rows[layer].double().numpy()


def centred(rows: np.ndarray) -> np.ndarray:
    return rows - rows.mean(0)


def oracle_r2(x: np.ndarray, y: np.ndarray) -> float:
    bases = []
    for side in (centred(x), centred(y)):
        u, s, _ = np.linalg.svd(side[:, side.std(0) > 0], full_matrices=False)
        bases.append(u[:, s > 1e-6 * s[0]])
    return float((np.linalg.svd(bases[0].T @ bases[1], compute_uv=False) ** 2).mean())


def oracle_cka(x: np.ndarray, y: np.ndarray) -> float:
    def hsic(k: np.ndarray, m: np.ndarray) -> float:
        n = len(k)
        k, m = k - np.diag(np.diag(k)), m - np.diag(np.diag(m))
        ends = k.sum() * m.sum() / ((n - 1) * (n - 2)) - 2 * (k.sum(0) @ m.sum(0)) / (n - 2)
        return float(((k * m).sum() + ends) / (n * (n - 3)))

    k, m = x @ x.T, y @ y.T
    return hsic(k, m) / np.sqrt(hsic(k, k) * hsic(m, m))


def oracle_procrustes(x: np.ndarray, y: np.ndarray) -> float:
    x, y = centred(x), centred(y)
    return float(np.linalg.svd(x.T @ y, compute_uv=False).sum() / np.linalg.norm(x) / np.linalg.norm(y))


ORACLES = {"cca:r2": oracle_r2, "cka": oracle_cka, "procrustes": oracle_procrustes}


@pytest.fixture(scope="module")
def found() -> Comparison:
    return compare(A, B, BATCHES, LAYERS, measures=[*ORACLES, "cca"])


def test_every_cell_is_what_all_examples_at_once_give(found: Comparison) -> None:
    rows = {side: {layer: rows_of(model, layer) for layer in LAYERS} for side, model in (("a", A), ("b", B))}
    for name, oracle in ORACLES.items():
        expected = [[oracle(rows["a"][a], rows["b"][b]) for b in LAYERS] for a in LAYERS]
        np.testing.assert_allclose(found.table(name).to_numpy(), expected, atol=1e-9)
    assert found.n == 600
    assert found.dtype == "float32"
    assert [side.width for side in found.side_a] == [6, 8, 8, 10]
    np.testing.assert_allclose(found.tables["chance"]["cca:r2"][:2, :2], [[6 / 599, 8 / 599], [8 / 599, 8 / 599]])


def test_corrected_is_the_part_above_chance(found: Comparison) -> None:
    for name in found.measures:
        value, chance = found.tables["value"][name], found.tables["chance"][name]
        np.testing.assert_allclose(found.tables["corrected"][name], (value - chance) / (1 - chance))


def test_a_copy_is_1_on_the_diagonal() -> None:
    copy, every = cl.loaded(small_net(5), A), ["cca", "cca:r2", "svcca", "pwcca", "cka", "cka:biased", "procrustes"]
    found = compare(A, copy, BATCHES, ["conv1", *LAYERS], measures=every)
    for name in found.measures:
        for layer, value, side in zip(found.layers_a, found.diagonal(name), found.side_a, strict=True):
            assert abs(value - 1) <= 10 * EPS * side.condition**2, (name, layer)
    assert found.tables["value"]["cka"][0, -1] < 0.9


class Witness(nn.Module):
    """Notes which batch object it is shown."""

    def __init__(self, seen: list[int]) -> None:
        super().__init__()
        self.fc, self.seen = nn.Linear(4, 3), seen

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(id(x))
        return self.fc(x)


def test_both_models_see_the_same_batches_of_a_shuffling_loader() -> None:
    seen: tuple[list[int], list[int]] = ([], [])
    pair = [Witness(each) for each in seen]
    pair[1].load_state_dict(pair[0].state_dict())
    data = torch.randn(300, 4, generator=torch.Generator().manual_seed(0))
    loader = DataLoader(TensorDataset(data), 64, shuffle=True)
    found = compare(*pair, loader, ["fc"], measures=["cca", "cka"])
    assert seen[0] == seen[1]
    assert len(seen[0]) == 5 + 3  # the first batch tells the layers, and whether they repeat
    np.testing.assert_allclose([found.tables["value"][name] for name in found.measures], 1, atol=1e-12)


def test_nothing_of_the_callers_is_changed() -> None:
    models = [small_net(seed).train() for seed in (0, 1)]
    models[0].norm1.eval()
    loader = DataLoader(TensorDataset(torch.randn(80, 1, 8, 8)), 40, shuffle=True, generator=torch.Generator())
    before = [everything(model, loader) for model in models]
    compare(*models, loader, ["relu?"], measures=["cka"], nulls=["random", "shuffled"])
    assert all(same(one, everything(model, loader)) for one, model in zip(before, models, strict=True))
    with torch.no_grad():
        models[1].conv2.weight[:] = float("nan")
    before = [everything(model, loader) for model in models]
    with pytest.raises(UsageError, match=r"B relu2 has \d+ values of \d+ that are NaN"):
        compare(*models, loader, ["relu?"], measures=["cka"])
    assert all(str(one) == str(everything(model, loader)) for one, model in zip(before, models, strict=True))


class WritesItsInput(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x.sub_(1))


def test_a_model_that_writes_into_the_batch_is_refused() -> None:
    with pytest.raises(LoaderError, match="the WritesItsInput writes into its input"):
        compare(WritesItsInput(), nn.Linear(4, 3), [torch.ones(30, 4)], ["fc"], ["(model)"])


def test_two_architectures_and_layers_of_both(found: Comparison) -> None:
    other = nn.Sequential(OrderedDict(flatten=nn.Flatten(), fc=nn.Linear(64, 7), tanh=nn.Tanh()))
    mixed = compare(A, other, BATCHES, ["head"], ["fc", "tanh"], ["cka"])
    assert (mixed.layers_a, mixed.layers_b) == (("head",), ("fc", "tanh"))
    expected = oracle_cka(rows_of(A, "head"), rows_of(other, "tanh"))
    np.testing.assert_allclose(mixed.tables["value"]["cka"][0, 1], expected, atol=1e-9)
    with pytest.raises(UsageError, match="no layer of A has the name of one of B"):
        mixed.diagonal()


def test_positions_as_examples() -> None:
    found = compare(A, B, BATCHES, ["relu1", "conv2", "head"], measures=["cca:r2", "procrustes"], conv="positions")
    for name in found.measures:
        for i, layer in enumerate(found.layers_a):
            pair = (rows_of(model, layer, conv="positions") for model in (A, B))
            np.testing.assert_allclose(found.tables["value"][name][i, i], ORACLES[name](*pair), atol=1e-8)
        assert np.isnan(found.tables["value"][name][~np.eye(3, dtype=bool)]).all()
    assert any(note.startswith("not compared: the maps have other sizes") for note in found.notes)
    assert any(note.startswith("rows are positions of 600 examples") for note in found.notes)
    assert found.n == 600


def test_maps_of_one_place_pair_with_layers_without_space() -> None:
    model = nn.Sequential(OrderedDict(conv=nn.Conv2d(1, 5, 8), flatten=nn.Flatten(), fc=nn.Linear(5, 4)))
    found = compare(model, model, BATCHES, ["conv", "fc"], measures=["cka"], conv="positions")
    assert np.isfinite(found.tables["value"]["cka"]).all()
    assert found.notes == ()


def test_maps_flattened_to_units() -> None:
    measures = ["cca:r2", "procrustes"]
    found = compare(A, B, BATCHES, ["relu1", "conv2", "head"], measures=measures, conv="flatten", insist=True)
    for name in measures:
        for i, layer in enumerate(found.layers_a):
            pair = (rows_of(model, layer, conv="flatten") for model in (A, B))
            np.testing.assert_allclose(found.tables["value"][name][i, i], ORACLES[name](*pair), atol=1e-7)
    assert [side.width for side in found.side_a] == [384, 128, 10]
    assert all(note.startswith("cca:r2: insisted: 600 examples for ") for note in found.notes)


def test_maps_per_spatial_frequency() -> None:
    settings: dict[str, Any] = {"measures": ["cca", "cca:r2"], "conv": "spectral"}
    found = compare(A, B, BATCHES, ["relu1", "relu2", "head"], intervals=True, nulls=["shuffled"], **settings)
    maps = {
        side: cl.activations(model, BATCHES, ["relu1", "relu2", "head"], conv="spectral").rows
        for side, model in (("a", A), ("b", B))
    }
    for name, summary in (("cca", "mean"), ("cca:r2", "r2")):
        for (i, a), (j, b) in (((0, "relu1"), (0, "relu1")), ((0, "relu1"), (1, "relu2"))):
            direct = cl.spectral_cca(maps["a"][a], maps["b"][b], summary=summary)
            np.testing.assert_allclose(found.tables["value"][name][i, j], direct.value, atol=1e-10)
            np.testing.assert_allclose(found.tables["chance"][name][i, j], direct.chance)
    # A layer without space has one frequency: the mean over space of the other side.
    pooled = oracle_r2(rows_of(A, "relu1"), rows_of(B, "head"))
    np.testing.assert_allclose(found.tables["value"]["cca:r2"][0, 2], pooled, atol=1e-9)
    dead = int((maps["a"]["relu2"].amax((0, 2, 3)) == 0).sum())
    assert [(side.width, side.rank + side.dropped) for side in found.side_a] == [(6, 6), (8, 8), (10, 10)]
    assert found.side_a[1].dropped == dead > 0
    assert (found.tables["error"]["cca"] > 0).all()
    assert (found.tables["shuffled"]["cca:r2"] < 0.1).all()
    copy = compare(A, cl.loaded(B, A), BATCHES, ["relu?"], **settings)
    np.testing.assert_allclose(copy.diagonal("cca"), 1, atol=1e-12)
    with pytest.raises(UsageError, match="conv='spectral' has the measures cca and cca:r2, not 'cka'"):
        compare(A, B, BATCHES, conv="spectral")
    with pytest.raises(UsageError, match=r"the sums of 4 pairs of layers at each spatial frequency need .* MB"):
        compare(A, B, BATCHES, ["relu?"], max_bytes=10_000, **settings)


def test_the_shuffled_null_permutes_all_examples_at_once() -> None:
    labels = torch.cat([y for _, y in BATCHES])
    images = torch.cat([x for x, _ in BATCHES])[labels.argsort()]
    by_class = list(images.split(60))  # a shuffle within these batches would keep the class
    for conv in ("mean", "positions"):
        settings: dict[str, Any] = {"measures": ["cka", "procrustes"], "nulls": ["shuffled"], "conv": conv}
        found = compare(A, A, by_class, ["relu2"], seed=3, **settings)
        rows = rows_of(A, "relu2", by_class, conv=conv)
        order = torch.randperm(600, generator=torch.Generator().manual_seed(3)).numpy()
        moved = rows.reshape(600, -1, 8)[order].reshape(rows.shape)
        expected = oracle_procrustes(rows, moved)
        np.testing.assert_allclose(found.tables["shuffled"]["procrustes"], [[expected]], atol=1e-9)
        # What all images have in common at a place survives their shuffle: this is what positions alone give.
        assert (abs(found.tables["shuffled"]["cka"][0, 0]) < 0.02) == (conv == "mean")


def test_the_random_null_is_a_comparison_with_an_untrained_network(found: Comparison) -> None:
    null = compare(A, B, BATCHES, LAYERS, measures=["cka"], nulls=["random"], seed=7)
    direct = compare(A, untrained(B, 7), BATCHES, LAYERS, measures=["cka"])
    np.testing.assert_array_equal(null.tables["random"]["cka"], direct.tables["value"]["cka"])
    given = compare(A, B, BATCHES, LAYERS, measures=["cka"], nulls=["random"], untrained=A)
    assert given.tables["random"]["cka"][3, 3] == pytest.approx(1)


class Bare(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale, self.fc = nn.Parameter(torch.ones(4)), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x * self.scale)


def test_parameters_that_cannot_be_drawn_anew_are_named() -> None:
    with pytest.raises(UsageError, match=r"the model .Bare. has parameters and no reset_parameters"):
        compare(Bare(), Bare(), [torch.randn(50, 4)], ["fc"], measures=["cka"], nulls=["random"])


def test_untrained_networks_are_drawn_as_their_constructors_do() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.MultiheadAttention(4, 2), nn.BatchNorm1d(4))
    state = torch.get_rng_state()
    drawn = untrained(model, 0)
    assert torch.equal(torch.get_rng_state(), state)
    assert drawn[1].out_proj.bias.abs().max() == 0  # attention sets it after its inner layer drew it
    assert not torch.equal(drawn[0].weight, model[0].weight)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        began = nn.Linear(3, 4)  # the untrained network of a seed is not where a training with that seed began
    assert not torch.equal(untrained(began, 0).weight, began.weight)


def test_intervals_are_the_jackknife_over_groups_of_examples() -> None:
    found = compare(A, B, BATCHES, ["relu2"], measures=["procrustes"], intervals=True)
    x, y = rows_of(A, "relu2"), rows_of(B, "relu2")
    left = [np.arange(600) % 10 != group for group in range(10)]
    values = np.array([oracle_procrustes(x[kept], y[kept]) for kept in left])
    error = np.sqrt(0.9 * ((values - values.mean()) ** 2).sum())
    np.testing.assert_allclose(found.tables["error"]["procrustes"], [[error]], rtol=1e-7)
    reach = 2.2621571628540993  # Student's t, 9 degrees of freedom, 97.5 %
    unbiased = 10 * found.tables["value"]["procrustes"] - 9 * values.mean()
    np.testing.assert_allclose(found.tables["high"]["procrustes"] - unbiased, [[reach * error]], rtol=1e-7)
    np.testing.assert_allclose(unbiased - found.tables["low"]["procrustes"], [[reach * error]], rtol=1e-7)


def test_positions_of_one_image_are_left_out_together() -> None:
    found = compare(A, B, BATCHES, ["relu2"], measures=["procrustes"], intervals=True, conv="positions")
    x, y = (rows_of(model, "relu2", conv="positions").reshape(600, 16, 8) for model in (A, B))
    left = [np.arange(600) % 10 != group for group in range(10)]
    values = np.array([oracle_procrustes(x[kept].reshape(-1, 8), y[kept].reshape(-1, 8)) for kept in left])
    error = np.sqrt(0.9 * ((values - values.mean()) ** 2).sum())
    np.testing.assert_allclose(found.tables["error"]["procrustes"], [[error]], rtol=1e-7)


def test_enough_examples_for_a_value_are_enough_for_its_interval() -> None:
    # 50 examples for 10 directions are just enough; without a tenth of them they are not.
    found = compare(A, B, digit_batches(50, 25), ["head"], measures=["cca:r2"], intervals=True)
    assert np.isfinite([found.tables[end]["cca:r2"][0, 0] for end in ("value", "error", "low", "high")]).all()
    some = compare(A, B, digit_batches(45, 15), ["relu1", "head"], measures=["cca"], intervals=True)
    for end in ("value", "error", "low", "high"):  # what has no value has no interval
        assert np.isfinite(some.tables[end]["cca"]).tolist() == [[True, False], [False, False]]
    with pytest.raises(TooFewExamplesError, match="leaves out 10 groups in turn, and there are 9 examples"):
        compare(A, B, digit_batches(9, 9), ["head"], measures=["cka"], intervals=True)


def test_a_null_that_cannot_be_had_says_why() -> None:
    class Dead(nn.Module):
        def __init__(self, alive: float) -> None:
            super().__init__()
            self.flatten, self.fc, self.relu = nn.Flatten(), nn.Linear(64, 3), nn.ReLU()
            self.alive = alive

        def forward(self, x: Tensor) -> Tensor:
            return self.relu(self.fc(self.flatten(x)) * self.alive)

    found = compare(Dead(1), Dead(1), BATCHES, ["relu"], measures=["cka"], nulls=["random"], untrained=Dead(0))
    assert np.isfinite(found.tables["value"]["cka"]).all()
    assert np.isnan(found.tables["random"]["cka"]).all()
    assert found.notes == ("cka, the random null: B relu does not vary: rank 0 [relu / relu]",)


def test_stored_activations_give_the_same_numbers(found: Comparison, tmp_path: Any) -> None:
    stored = [cl.activations(model, BATCHES, LAYERS, cache=tmp_path) for model in (A, B)]
    again = compare(*stored, measures=found.measures)
    for name in found.measures:
        np.testing.assert_allclose(again.table(name), found.table(name), atol=1e-12)
    other = cl.activations(B, BATCHES[::-1], LAYERS)
    with pytest.raises(MismatchError, match="read on other batches"):
        compare(stored[0], other)
    with pytest.raises(MismatchError, match="read with conv='mean' and tokens='mean'; read them again"):
        compare(*stored, conv="positions")
    shuffled = compare(*stored, measures=["cka"], nulls=["shuffled"], seed=3)
    direct = compare(A, B, BATCHES, LAYERS, measures=["cka"], nulls=["shuffled"], seed=3)
    np.testing.assert_allclose(shuffled.table("cka", "shuffled"), direct.table("cka", "shuffled"), atol=1e-12)
    with pytest.raises(UsageError, match="an untrained network has no stored activations"):
        compare(*stored, nulls=["random"])
    with pytest.raises(UsageError, match="the activations of both"):
        compare(stored[0], B, BATCHES)
    with pytest.raises(UsageError, match="compared on a loader"):
        compare(A, B)


def test_few_examples_are_refused_with_the_repair_unless_insisted_on() -> None:
    few = digit_batches(24, 8)
    with pytest.raises(TooFewExamplesError, match=r"24 examples for \d directions is less than 5 each"):
        compare(A, B, few, ["relu?"], measures=["cca"])
    found = compare(A, B, few, ["relu?"], measures=["cca"], insist=True)
    assert np.isfinite(found.tables["value"]["cca"]).all()
    assert any(note.startswith("cca: insisted: 24 examples") for note in found.notes)
    some = compare(A, B, digit_batches(45, 15), ["relu1", "head"], measures=["cca", "cka"])
    assert np.isfinite(some.tables["value"]["cca"]).tolist() == [[True, False], [False, False]]
    assert np.isfinite(some.tables["value"]["cka"]).all()
    assert any("cca: 45 examples for 10 directions" in note and "and 2 more pairs" in note for note in some.notes)


def test_one_number_of_directions_on_every_side(found: Comparison) -> None:
    fixed = compare(A, B, BATCHES, LAYERS, measures=["svcca:4,r2"])
    x, y = (centred(rows_of(model, "relu1")) for model in (A, B))
    u, v = (np.linalg.svd(side, full_matrices=False)[0][:, :4] for side in (x, y))
    expected = (np.linalg.svd(u.T @ v, compute_uv=False) ** 2).mean()
    np.testing.assert_allclose(fixed.tables["value"]["svcca:4,r2"][0, 0], expected, atol=1e-9)
    np.testing.assert_allclose(fixed.tables["chance"]["svcca:4,r2"], 4 / 599)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("ckaa", "no measure 'ckaa'; there is cca, svcca, pwcca, cka, procrustes"),
        ("cka:r2", "cannot read 'r2' in the measure 'cka:r2'; cka takes biased"),
        ("svcca:1.5", "svcca takes r2, a number of directions, a share of the variance"),
        ("procrustes:x", "procrustes takes no words"),
    ],
)
def test_measures_that_do_not_exist(name: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        compare(A, B, BATCHES, measures=[name])


def test_words_of_measures_reach_them() -> None:
    moments = Moments()
    x = torch.randn(100, 3, generator=torch.Generator().manual_seed(0))
    moments.update(x, x.square() + x)
    pair = moments.pair()
    assert measure("cka:biased")(pair).value == cl.similarity.cka(pair, debiased=False).value
    assert measure("pwcca:y")(pair).value == cl.similarity.pwcca(pair, side="y").value
    assert measure("svcca:0.8")(pair).conventions["variance"] == 0.8
    assert measure("cca:r2", seed=3)(pair).value == cl.similarity.cca(pair, summary="r2").value


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"measures": []}, "measures are a list of names"),
        ({"measures": "cka"}, "measures are a list of names"),
        ({"nulls": ["permuted"]}, "no null permuted; there is random, shuffled"),
        ({"conv": "average"}, "unknown conv handling"),
        ({"nulls": "random"}, r"nulls are a list of names such as \['random'\]"),
        ({"measures": ["rbf_cka"]}, r"no measure 'rbf_cka'; there is .* and rbf_cka\(x, y\) of the examples"),
        ({"max_bytes": 10_000}, "need .* MB and 0 MB may be used"),
        ({"untrained": "b.pt", "nulls": ["random"]}, "untrained is a str and not a network"),
        ({"untrained": B, "nulls": ["shuffled"]}, r"say nulls=\['random'\] as well"),
    ],
)
def test_wrong_use(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        compare(A, B, BATCHES, ["relu?"], **settings)


def test_unknown_layers_are_an_error_for_either_side() -> None:
    with pytest.raises(LayerError, match="did you mean relu2 or relu1"):
        compare(A, B, BATCHES, ["relu1"], ["relu3"])
    for wrong in ("relu1", []):  # a string would be read letter by letter
        with pytest.raises(LayerError, match="layers are a list of names or patterns"):
            compare(A, B, BATCHES, ["relu1"], wrong)


def test_checkpoints_are_loaded_into_networks_first() -> None:
    for weights in ("b.pt", B.state_dict(), cl.WeightSpace(B).point(B)):
        with pytest.raises(UsageError, match=r"model_b is a \w+ and not a network; closerlook.loaded"):
            compare(A, weights, BATCHES)


def test_every_number_carries_its_conventions_and_the_directions_it_used(found: Comparison) -> None:
    assert found.conventions["cca"] == {
        "summary": "mean", "denominator": "min_rank", "chance": "simulated from the ranks, seed 0",
    }  # fmt: skip
    assert found.conventions["cka"] == {"debiased": True, "chance": "exact: 0"}
    assert "simulated from the spectra" in found.conventions["procrustes"]["chance"]
    share = compare(A, B, BATCHES, ["relu1", "head"], measures=["svcca"])
    for i, layer in enumerate(share.layers_a):
        shares = np.linalg.svd(centred(rows_of(A, layer)), compute_uv=False) ** 2
        kept = int((shares.cumsum() / shares.sum() < 0.99).sum()) + 1
        assert share.tables["directions_a"]["svcca"][i].tolist() == [kept, kept]
    assert share.tables["directions_a"]["svcca"][1, 0] < share.side_a[1].rank  # fewer than there are
    assert share.to_frame().directions_b[0] == share.table("svcca", "directions_b").iloc[0, 0]
    old = {name: value for name, value in share.to_dict().items() if name != "conventions"}
    assert Comparison.from_dict(old).conventions == {}


def test_what_is_not_finite_is_named_per_spatial_frequency_too() -> None:
    broken = small_net()
    with torch.no_grad():
        broken.conv2.weight[:] = float("nan")
    with pytest.raises(UsageError, match=r"B conv2 has \d+ values of \d+ that are NaN"):
        compare(A, broken, BATCHES, ["relu1", "conv2"], measures=["cca"], conv="spectral")


def test_frame_and_dict_hold_everything(found: Comparison) -> None:
    frame = found.to_frame()
    assert len(frame) == 4 * len(LAYERS) ** 2
    row = frame[(frame.measure == "cka") & (frame.layer_a == "relu1") & (frame.layer_b == "head")].iloc[0]
    assert row.value == found.table("cka").loc["relu1", "head"]
    assert (row.n, row.width_a, row.width_b, row.rank_b, row.dropped_b) == (600, 6, 10, 10, 0)
    again = Comparison.from_dict(json.loads(json.dumps(found.to_dict())))
    assert again.to_dict() == found.to_dict()
    few = compare(A, B, BATCHES, ["relu1", "head"], measures=["procrustes"], conv="positions")
    assert np.isnan(Comparison.from_dict(json.loads(json.dumps(few.to_dict()))).tables["value"]["procrustes"][0, 1])


def test_differences_of_two_comparisons(found: Comparison) -> None:
    other = compare(A, A, BATCHES, LAYERS, measures=[*ORACLES, "cca"])
    difference = other - found
    np.testing.assert_array_equal(
        difference.table("cka", "corrected"), other.table("cka", "corrected") - found.table("cka", "corrected")
    )
    assert difference.label == "(A against B) minus (A against B)"
    assert Comparison.from_dict(json.loads(json.dumps(difference.to_dict()))).is_difference
    fewer = compare(A, B, BATCHES[:-1], LAYERS, measures=[*ORACLES, "cca"])
    assert any("n differs" in note for note in (fewer - found).notes)
    with pytest.raises(MismatchError, match="measures differ"):
        found - compare(A, B, BATCHES, LAYERS, measures=["cka"])
    with pytest.raises(UsageError, match="there is no chance of 'cka' here; there is value"):
        difference.table("cka", "chance")


def test_memory_is_refused_for_all_sums_together() -> None:
    settings: dict[str, Any] = {"measures": ["cka"], "conv": "flatten"}
    needed = 8 * (3 * 384**2 + 4 * 768 + 512 * (768 + 8 + 3) + 3 * 2 * 384**2)
    assert compare(A, B, BATCHES, ["relu1"], max_bytes=needed, **settings).n == 600
    seen: list[int] = []
    settings["max_bytes"] = needed - 1
    for nulls, factor in (([], 1), (["random"], 2), (["shuffled"], 2), (["random", "shuffled"], 3)):
        megabytes = f"{factor * needed / 1e6:.0f} MB"
        said = rf"2 layers .the widest: A model.relu1, 384 units.( and those of the nulls)? need {megabytes}"
        with pytest.raises(UsageError, match=said):
            compare(Counted(A, seen), B, BATCHES, ["*relu1"], nulls=nulls, **settings)
    assert max(seen) == 64  # before a second batch is read


class Counted(nn.Module):
    """Notes how many examples it was shown at once."""

    def __init__(self, model: nn.Module, seen: list[int]) -> None:
        super().__init__()
        self.model, self.seen = model, seen

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(len(x))
        return self.model(x)


def test_the_shuffled_null_is_refused_before_its_rows_fill_the_memory() -> None:
    # The sums of six units need a few hundred kB of buffer, the rows 48 bytes per example.
    settings: dict[str, Any] = {"measures": ["cka"], "max_bytes": 2_000_000, "nulls": ["shuffled"]}
    batches = [(torch.zeros(20_000, 1, 8, 8), None)] * 3
    with pytest.raises(UsageError, match=r"the rows that the shuffled null keeps need 3 MB and 2 MB may be used"):
        compare(small_net(), small_net(1), batches, ["relu1"], **settings)


def test_plots(found: Comparison) -> None:
    title = found.plot("cka", "corrected").get_title(loc="left").replace("\n", " ")
    assert title == "cka, A against B, n = 600, conv: mean, tokens: mean"
    assert found.plot_layers(["cka", "procrustes"]).get_xlabel() == "layer, from input to output"
    title = found.plot("cca:r2").get_title(loc="left").replace("\n", " ")
    assert title.endswith("tokens: mean, chance 0.01 to 0.017")  # 6 to 10 directions, 600 examples
    shown = found.plot("cka")
    assert shown.get_title(loc="left").endswith("chance 0")
    assert (shown.collections[0].norm.vmin, shown.collections[0].norm.vmax) == (0, 1)
    assert len(shown.texts) == len(LAYERS) ** 2
    few = figures.heat_map([[0.526, np.nan], [-0.02, 1]], ["a", "b"], ["a", "b"])
    assert [text.get_text() for text in few.texts] == [".53", "\N{MINUS SIGN}.02", "1"]
    assert not figures.heat_map(np.eye(90), range(90), range(90), ax=figures.panels()[0]).texts  # no room for numbers
    label = (found - found).plot_layers(["cka"], "corrected").get_ylabel().replace("\n", " ")
    assert label == "difference of similarity above chance"
    shown = (found - found).plot("cka")
    assert shown.collections[0].norm.vmin == -shown.collections[0].norm.vmax
