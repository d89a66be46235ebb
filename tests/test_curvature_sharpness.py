"""Sharpness against dense Hessians in float64."""

from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import closerlook as cl
from closerlook.batches import Feed, Output
from closerlook.curvature import HessianOperator, reading, top_eigenvalues
from closerlook.curvature.preconditioner import preconditioner_of
from closerlook.errors import LoaderError, MismatchError, NotFiniteError, UsageError
from conftest import digit_batches
from dense import dense_hessian, top_of
from networks import CASES, Case, drawn, whole
from untouched import everything, same

TIGHT: dict[str, Any] = {"tolerance": 1e-9, "max_products": 400}


def mlp(seed: int = 0) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 3)).double()


def cnn() -> nn.Sequential:
    """A convolution with batch norm and a head: 96 weights, statistics that differ from those of any batch."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = nn.Sequential(
            nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Tanh(), nn.AvgPool2d(3), nn.Flatten(), nn.Linear(12, 10)
        ).double()
        model[1].running_mean.normal_()
        model[1].running_var.uniform_(0.5, 2)
        nn.init.uniform_(model[1].weight, 0.5, 1.5)
        return model


DATA = [(drawn(7, 5, seed=s), whole(3, 7, seed=s)) for s in (1, 2)] + [(drawn(4, 5, seed=3), whole(3, 4, seed=3))]
DIGITS = digit_batches(40, 16, dtype=torch.float64)
CHECKED = {
    "tied language model": "embedding.*", "inputs by name": "*", "regression": "*", "segmentation": "*",
    "lists of weights": "*", "adapters": "*lora*",
}  # fmt: skip


@pytest.mark.parametrize("batch_norm", ["batch", "running"])
@pytest.mark.parametrize(("model", "data"), [(mlp(), DATA), (cnn(), DIGITS)], ids=["mlp", "cnn with batch norm"])
def test_eigenpairs_are_those_of_the_dense_hessian(model: nn.Module, data: Any, batch_norm: Any) -> None:
    matrix = dense_hessian(model, data, batch_norm=batch_norm)
    found = cl.sharpness(model, data, top=3, batch_norm=batch_norm, **TIGHT)
    np.testing.assert_allclose(found.values, top_of(matrix, 3), rtol=1e-8)
    vector = found.vectors[0].numpy()
    np.testing.assert_allclose(matrix @ vector, found.value * vector, atol=1e-7)
    assert float(cl.sharpness(model, data, batch_norm=batch_norm)) == pytest.approx(found.value, rel=0.01)
    assert found.n == sum(len(batch[1]) for batch in data)
    assert (found.batches, found.batch_norm) == (3, batch_norm)
    assert found.passes == 3 * found.products


def test_batch_norms_two_ways_are_two_numbers() -> None:
    batch, running = (cl.sharpness(cnn(), DIGITS, batch_norm=how).value for how in ("batch", "running"))
    assert abs(batch - running) > 0.1 * running


@pytest.mark.parametrize(("name", "params"), CHECKED.items(), ids=CHECKED)
def test_other_batches_models_and_losses(name: str, params: str) -> None:
    case: Case = CASES[name]
    model = case.build(0)
    matrix = dense_hessian(model, case.batches, case.batch_fn, names=cl.WeightSpace(model, params).names)
    found = cl.sharpness(model, case.batches, batch_fn=case.batch_fn, params=params, **TIGHT)
    assert found.value == pytest.approx(top_of(matrix)[0], rel=1e-8)
    assert found.vectors.shape == (1, len(matrix))


@pytest.mark.parametrize("batch_norm", ["batch", "running"])
@pytest.mark.parametrize("name", sorted(set(CASES) - {"all frozen", "sparse gradients"}))
def test_every_kind_of_network_comes_back_as_it_was(name: str, batch_norm: Any) -> None:
    case = CASES[name]
    model = case.build(1).train()
    next(model.parameters()).grad = torch.ones_like(next(model.parameters()))
    before = everything(model)
    found = cl.sharpness(
        model, case.batches[:1], batch_fn=case.batch_fn, params=case.params, batch_norm=batch_norm, tolerance=0.1
    )
    assert np.isfinite(found.value)
    assert same(before, everything(model))


def test_blocks_are_the_diagonal_blocks_of_the_dense_hessian() -> None:
    model = mlp()
    found = cl.sharpness(model, DATA, per_block=True, **TIGHT)
    assert list(found.blocks) == list(found.shares) == ["0", "2", "4"]
    for layer, block in found.blocks.items():
        names = [f"{layer}.weight", f"{layer}.bias"]
        assert block.value == pytest.approx(top_of(dense_hessian(model, DATA, names=names))[0], rel=1e-8)
        assert block.value <= found.value
    named = cl.sharpness(model, DATA, per_block={"biases": "*.bias", "ends": ["0.*", "4.*"]}, **TIGHT)
    biases, ends = ["0.bias", "2.bias", "4.bias"], ["0.weight", "0.bias", "4.weight", "4.bias"]
    for block, names in {"biases": biases, "ends": ends}.items():
        known = top_of(dense_hessian(model, DATA, names=names))[0]
        assert named.blocks[block].value == pytest.approx(known, rel=1e-8)
    assert found.passes == 3 * (found.products + sum(block.products for block in found.blocks.values()))


def test_shares_are_those_of_the_top_vector() -> None:
    model = mlp()
    found = cl.sharpness(model, DATA, **TIGHT)
    _, vectors = np.linalg.eigh(dense_hessian(model, DATA))
    squares = vectors[:, -1] ** 2
    known = {"0": squares[:36].sum(), "2": squares[36:64].sum(), "4": squares[64:].sum()}
    assert found.shares == pytest.approx(known, abs=1e-7)
    assert sum(found.shares.values()) == pytest.approx(1)


def stepped(optimizer: type[torch.optim.Optimizer], **options: Any) -> tuple[nn.Module, Any]:
    model = mlp()
    made = optimizer(model.parameters(), **options)  # type: ignore[call-arg]
    for batch in DATA:
        made.zero_grad()
        nn.functional.cross_entropy(model(batch[0]), batch[1]).backward()
        made.step()
    return model, made


@pytest.mark.parametrize("amsgrad", [False, True])
@pytest.mark.parametrize("optimizer", [torch.optim.Adam, torch.optim.AdamW])
def test_preconditioned_as_adam_divides(optimizer: Any, amsgrad: bool) -> None:
    model, made = stepped(optimizer, lr=0.01, betas=(0.8, 0.95), eps=1e-4, amsgrad=amsgrad)
    squares = torch.cat(
        [made.state[value]["max_exp_avg_sq" if amsgrad else "exp_avg_sq"].ravel() for value in model.parameters()]
    )
    denominators = ((squares / (1 - 0.95**3)).sqrt() + 1e-4) * (1 - 0.8**3)
    scale = denominators.rsqrt().numpy()
    matrix = scale[:, None] * dense_hessian(model, DATA) * scale[None]
    found = cl.sharpness(model, DATA, preconditioner=made, per_block=True, **TIGHT)
    assert found.value == pytest.approx(top_of(matrix)[0], rel=1e-8)
    assert found.blocks["2"].value == pytest.approx(top_of(matrix[36:64, 36:64])[0], rel=1e-8)
    assert found.preconditioned
    assert cl.sharpness(model, DATA, preconditioner=denominators, **TIGHT).value == pytest.approx(found.value)


@pytest.mark.parametrize(("factor", "grows"), [(1.05, True), (0.95, False)])
def test_adam_is_momentum_in_the_preconditioned_coordinates_from_its_first_steps_on(factor: float, grows: bool) -> None:
    """With squares and bias corrections held as after three steps, the preconditioned sharpness decides."""
    layer = nn.Linear(1, 1, bias=False).double()
    w = layer.weight
    adam = torch.optim.Adam([w], lr=0.1, betas=(0.9, 0.5))
    w.grad = torch.full_like(w, 1e-6)
    adam.step()
    state = adam.state[w]
    state.update(step=torch.tensor(3.0), exp_avg=torch.zeros_like(w), exp_avg_sq=torch.ones_like(w))
    divisor = preconditioner_of(adam, layer, cl.WeightSpace(layer))
    curvature = float(factor * cl.stability_threshold(adam) * divisor)
    nn.init.constant_(w, 1e-6)
    sizes = []
    for _ in range(400):
        w.grad = curvature * w.detach()
        # So that the step leaves both as they are.
        state.update(step=torch.tensor(2.0), exp_avg_sq=(1 - 0.5 * w.grad**2) / 0.5)
        adam.step()
        sizes.append(abs(float(w.detach())))
        if sizes[-1] > 1e-3:
            break
    assert (sizes[-1] > 1e-4) == grows
    assert grows or sizes[-1] < 1e-6


def test_frozen_parameters_are_left_out_and_said() -> None:
    model = mlp()
    model[2].requires_grad_(False)
    found = cl.sharpness(model, DATA, per_block=True, **TIGHT)
    names = ["0.weight", "0.bias", "4.weight", "4.bias"]
    assert found.value == pytest.approx(top_of(dense_hessian(model, DATA, names=names))[0], rel=1e-8)
    assert found.frozen == ("2.weight", "2.bias")
    assert found.vectors.shape == (1, 79)
    assert found.vectors[0, 36:64].abs().max() == 0
    assert list(found.blocks) == ["0", "4"]


def test_a_single_batch_keeps_its_graph() -> None:
    one = [tuple(torch.cat(parts) for parts in zip(*DATA, strict=True))]
    many, kept = (cl.sharpness(mlp(), data, **TIGHT) for data in (DATA, one))
    assert kept.value == pytest.approx(many.value, rel=1e-9)
    assert (kept.passes, many.passes) == (1 + 2 * kept.products, 3 * many.products)


@given(order=st.permutations(range(3)), factor=st.floats(0.01, 100), sizes=st.lists(st.integers(1, 9), min_size=1))
@settings(max_examples=10)
def test_order_and_size_of_batches_do_not_matter_and_the_loss_scales(
    order: list[int], factor: float, sizes: list[int]
) -> None:
    def scaled(model: nn.Module, batch: Any) -> Output:
        return Output(factor * nn.functional.cross_entropy(model(batch[0]), batch[1], reduction="none"), None)

    known = cl.sharpness(mlp(), DATA, **TIGHT).value
    x, y = (torch.cat([DATA[number][part] for number in order]) for part in (0, 1))
    cuts = [size for size in np.diff(np.minimum(np.cumsum([0, *sizes, 18]), 18)).tolist() if size]
    data = list(zip(x.split(cuts), y.split(cuts), strict=True))
    assert cl.sharpness(mlp(), data, batch_fn=scaled, **TIGHT).value == pytest.approx(factor * known, rel=1e-8)


@given(seed=st.integers(0, 10_000))
@settings(max_examples=10)
def test_a_rotation_of_the_inputs_of_a_linear_model_changes_no_eigenvalue(seed: int) -> None:
    rotation = torch.linalg.qr(drawn(5, 5, seed=seed)).Q
    layer, turned = nn.Linear(5, 3, bias=False).double(), nn.Linear(5, 3, bias=False).double()
    with torch.no_grad():
        layer.weight.copy_(drawn(3, 5, seed=seed + 1))
        turned.weight.copy_(layer.weight @ rotation)
    one = cl.sharpness(layer, DATA, top=3, **TIGHT)
    two = cl.sharpness(turned, [(x @ rotation, y) for x, y in DATA], top=3, **TIGHT)
    np.testing.assert_allclose(two.values, one.values, rtol=1e-8)


def linear(model: nn.Module, batch: Any) -> Output:
    return Output(model(batch[0]).sum(1), None)


def test_of_a_loss_that_is_linear_in_the_weights_it_is_zero() -> None:
    found = cl.sharpness(nn.Linear(5, 3).double(), DATA, batch_fn=linear, per_block=True)
    assert (found.value, found.residuals.tolist(), found.converged) == (0.0, [0.0], True)
    assert [block.value for block in found.blocks.values()] == [0.0]


def test_negative_curvature_gives_the_largest_value_with_its_sign() -> None:
    def falling(model: nn.Module, batch: Any) -> Output:
        return Output(-model(batch[0]).square().sum(1), None)

    layer = nn.Linear(5, 1, bias=False).double()
    x = torch.cat([x for x, _ in DATA])
    known = np.linalg.eigvalsh((-2 * x.T @ x / len(x)).numpy())
    found = cl.sharpness(layer, DATA, top=5, batch_fn=falling, **TIGHT)
    np.testing.assert_allclose(found.values, known[::-1], rtol=1e-8)


def test_single_precision_reaches_the_tolerance() -> None:
    data = [(x.float(), y) for x, y in DIGITS]
    known = cl.sharpness(cnn(), DIGITS, **TIGHT).value
    assert cl.sharpness(cnn().float(), data, tolerance=1e-4).value == pytest.approx(known, rel=1e-4)


def test_an_observers_way_needs_no_probe_and_sees_new_weights() -> None:
    model, feed = mlp(), Feed(torch.device("cpu"))
    space, seen = cl.WeightSpace(model), []
    for _ in range(2):
        with reading(model):
            seen.append(top_eigenvalues(HessianOperator(model, DATA, feed, space), tolerance=1e-9).values[0])
        with torch.no_grad():
            model[0].weight.mul_(1.5)
    assert seen[0] == pytest.approx(cl.sharpness(mlp(), DATA, **TIGHT).value, rel=1e-8)
    assert abs(seen[1] - seen[0]) > 0.01 * seen[0]


def test_grad_mode_and_autocast_of_the_caller_do_not_reach_it() -> None:
    known = cl.sharpness(mlp().float(), [(x.float(), y) for x, y in DATA]).value
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert cl.sharpness(mlp().float(), [(x.float(), y) for x, y in DATA]).value == known


class Failing(nn.Module):
    """Raises in the middle of the second pass."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.calls = cnn(), 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        if self.calls > 8:
            raise OSError("the disk has gone")
        return self.body(x)


@pytest.mark.parametrize("run", [cl.sharpness, cl.hessian_trace, cl.critical_lr])
def test_all_comes_back_after_an_error_too(run: Any) -> None:
    model = Failing().train()
    model.body[0].weight.grad = torch.ones_like(model.body[0].weight)
    loader = DataLoader(TensorDataset(*map(torch.cat, zip(*DIGITS, strict=True))), 16, generator=torch.Generator())
    before = everything(model, loader)
    with pytest.raises(OSError, match="disk"):
        run(model, loader)
    assert same(before, everything(model, loader))


def test_what_does_not_repeat_is_refused() -> None:
    data = TensorDataset(*map(torch.cat, zip(*DATA, strict=True)))
    with pytest.raises(LoaderError, match="shuffles"):
        cl.sharpness(mlp(), DataLoader(data, 6, shuffle=True))
    with pytest.raises(LoaderError, match="one-shot"):
        cl.sharpness(mlp(), iter(DATA))
    with pytest.raises(LoaderError, match="no batch"):
        cl.sharpness(mlp(), [])
    with pytest.raises(LoaderError, match="noise is active"):
        cl.sharpness(nn.Sequential(mlp(), AlwaysDropping()), DATA)


class AlwaysDropping(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(x, 0.5, training=True)


def broken() -> nn.Module:
    model = mlp()
    nn.init.constant_(model[0].weight, float("nan"))
    return model


@pytest.mark.parametrize("run", [cl.sharpness, cl.hessian_trace, cl.noise_scale, cl.critical_lr])
def test_weights_that_are_not_finite_have_no_curvature(run: Any) -> None:
    with pytest.raises(NotFiniteError, match=r"loss is nan|NaN"):
        run(broken(), DATA)


def test_settings_that_make_no_sense_are_refused() -> None:
    model, data = mlp(), DATA
    with pytest.raises(UsageError, match="frozen"):
        cl.sharpness(mlp().requires_grad_(False), data)
    with pytest.raises(UsageError, match="in the block 'deep'"):
        cl.sharpness(model, data, per_block={"deep": "layer4.*"})
    with pytest.raises(UsageError, match="names no block"):
        cl.sharpness(model, data, per_block={})
    with pytest.raises(UsageError, match="choose 'batch' or 'running'"):
        cl.sharpness(model, data, batch_norm="eval")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="top=80"):
        cl.sharpness(model, data, top=80)
    sparse = CASES["sparse gradients"]
    with pytest.raises(UsageError, match="differentiated twice"):
        cl.sharpness(sparse.build(0), sparse.batches)
    with pytest.raises(LoaderError, match="one value per channel"):
        cl.sharpness(nn.Sequential(nn.BatchNorm1d(5), nn.Linear(5, 3)).double(), [(drawn(1, 5), whole(3, 1))])
    spoilt = cnn()
    spoilt[1].running_var.fill_(-1)
    with pytest.raises(MismatchError, match="batch_norm='batch'"):
        cl.sharpness(spoilt, DIGITS, batch_norm="running")
    with pytest.raises(MismatchError, match="one entry per weight"):
        cl.sharpness(model, data, preconditioner=torch.ones(3).double())
    with pytest.raises(NotFiniteError, match="positive"):
        cl.sharpness(model, data, preconditioner=torch.zeros(79).double())
    with pytest.raises(UsageError, match="must be Adam"):
        cl.sharpness(model, data, preconditioner=torch.optim.SGD(model.parameters()))
    with pytest.raises(UsageError, match="taken no step"):
        cl.sharpness(model, data, preconditioner=torch.optim.Adam(model.parameters()))
    with pytest.raises(UsageError, match="does not train"):
        cl.sharpness(model, data, preconditioner=torch.optim.Adam(mlp().parameters()))


def test_a_result_is_told_in_plain_values_and_drawn() -> None:
    found = cl.sharpness(mlp(), DATA, per_block=True)
    assert found.to_dict()["blocks"]["0"]["value"] == found.blocks["0"].value
    frame = found.to_frame()
    assert frame["block"].tolist() == ["0", "2", "4"]
    assert frame["share"].sum() == pytest.approx(1)
    assert found.plot().get_ylabel().startswith("share")
