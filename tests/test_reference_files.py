"""Files as the reference code of mode connectivity writes them, made here by hand, against plain evaluations."""

import copy
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from math import floor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import binom
from torch import Tensor, nn
from torch.func import functional_call

import closerlook as cl
from closerlook.checkpoints import read_checkpoint
from closerlook.errors import CheckpointError, MismatchError, NotFiniteError, UsageError
from conftest import Batch, digit_batches, small_net

# Losses of size 1 and logits of size 10 in float64, through two layers: rounding is far below 1e-12.
CLOSE = 1e-10
KINDS = ("polychain", "bezier")
BATCHES = digit_batches(96, 32, dtype=torch.float64)
TEST = digit_batches(60, 32, start=96, dtype=torch.float64)
Write = Callable[..., Path]


def curve_state(
    kind: str, nets: Sequence[nn.Module], layers: Mapping[str, str] | None = None
) -> "OrderedDict[str, Tensor]":
    """The state dict of a CurveNet through these networks, in its order; `layers` are renamed."""
    count = len(nets)
    state: OrderedDict[str, Tensor] = OrderedDict()
    if kind == "bezier":
        state["coeff_layer.binom"] = torch.tensor(binom(count - 1, np.arange(count)), dtype=torch.float32)
    state["coeff_layer.range"] = torch.arange(0, float(count))
    if kind == "bezier":
        state["coeff_layer.rev_range"] = torch.arange(float(count - 1), -1, -1)
    for layer, module in nets[0].named_modules():
        name = (layers or {}).get(layer, layer)
        for leaf, _ in module.named_parameters(recurse=False):
            for i, net in enumerate(nets):
                state[f"net.{name}.{leaf}_{i}"] = net.get_submodule(layer).get_parameter(leaf).detach().clone()
        for leaf, _ in module.named_buffers(recurse=False):
            state[f"net.{name}.{leaf}"] = torch.full_like(module.get_buffer(leaf), 7)  # those of whatever t came last
    return state


def saved(path: Path, state: Mapping[str, Tensor], legacy: bool = False) -> Path:
    """A checkpoint with the keys and the optimizer of its train.py, in the format of its day or of today."""
    free = [nn.Parameter(value) for name, value in state.items() if name.endswith("_1")]
    optimizer = torch.optim.SGD(free or [nn.Parameter(torch.zeros(1))], lr=0.01, momentum=0.9)
    stored = {"epoch": 50, "model_state": state, "optimizer_state": optimizer.state_dict()}
    torch.save(stored, path, _use_new_zipfile_serialization=not legacy)
    return path


def at(kind: str, points: Sequence[Tensor], t: float) -> Tensor:
    """The curve by its geometric definition: de Casteljau's scheme, or the segment that t lies in."""
    if kind == "bezier":
        while len(points) > 1:
            points = [(1 - t) * a + t * b for a, b in pairwise(points)]
        return points[0]
    position = t * (len(points) - 1)
    number = min(floor(position), len(points) - 2)
    return points[number] + (position - number) * (points[number + 1] - points[number])


def weights_at(kind: str, nets: Sequence[nn.Module], t: float) -> dict[str, Tensor]:
    return {
        name: at(kind, [net.get_parameter(name).detach() for net in nets], t)
        for name, _ in nets[0].named_parameters()
    }  # fmt: skip


def networks(count: int = 3) -> list[nn.Module]:
    return [small_net(seed).double() for seed in range(1, count + 1)]


# Checkpoints ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("legacy", [False, True])
def test_a_checkpoint_of_one_network_is_a_point(tmp_path: Path, legacy: bool) -> None:
    net = small_net(1)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    nn.functional.cross_entropy(net(digit_batches()[0][0]), digit_batches()[0][1]).backward()
    optimizer.step()
    stored = {"epoch": 3, "model_state": net.state_dict(), "optimizer_state": optimizer.state_dict()}
    torch.save(stored, tmp_path / "checkpoint-3.pt", _use_new_zipfile_serialization=not legacy)
    point = cl.WeightSpace(small_net()).point(tmp_path / "checkpoint-3.pt")
    assert torch.equal(point.vector, cl.WeightSpace(net).point(net).vector)
    assert torch.equal(point.buffers["norm1.running_mean"], net.norm1.running_mean)
    assert "entry model_state sha256:" in point.origin


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("count", [2, 3, 5])
@pytest.mark.parametrize("kind", KINDS)
def test_a_curve_computes_what_its_own_network_computes(kind: str, count: int, legacy: bool, tmp_path: Path) -> None:
    nets, model = networks(count), small_net().double()
    before = copy.deepcopy(model.state_dict())
    curve = cl.load_curve(saved(tmp_path / "checkpoint-50.pt", curve_state(kind, nets), legacy), model)
    assert (curve.kind, len(curve.points), curve.free) == (kind, count, tuple(range(1, count - 1)))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    for t in (0.0, 0.1, 0.5, 0.73, 1.0):
        found = cl.loaded(model, curve.at(t)).eval()(BATCHES[0][0])
        expected = functional_call(model.eval(), weights_at(kind, nets, t), (BATCHES[0][0],))
        assert torch.allclose(found, expected, rtol=0, atol=CLOSE)
    # Its statistics of batch norm are those of the last random t: no point has them.
    assert not any(point.buffers for point in curve.points)
    assert curve.points[0].origin.endswith("point 0")


class Named(nn.Module):
    """Layers called as in the plain forms of the reference's networks."""

    def __init__(self, layers: Mapping[str, nn.Module]) -> None:
        super().__init__()
        for name, layer in layers.items():
            inside: nn.Module = self
            *parents, last = name.split(".")
            for parent in parents:
                if not hasattr(inside, parent):
                    inside.add_module(parent, nn.Module())
                inside = getattr(inside, parent)
            inside.add_module(last, layer)


FORMS = {
    "VGG": {
        "layer_blocks.0.0": "layer_blocks.0.0", "layer_blocks.0.1": "layer_blocks.0.1",
        "classifier.1": "fc1", "classifier.4": "fc2", "classifier.6": "fc3",
    },
    "PreResNet": {
        "conv1": "conv1", "layer2.0.conv1": "layer2.0.conv1", "layer2.0.downsample.0": "layer2.0.downsample", "fc": "fc"
    },
    "WideResNet": {"conv1": "conv1", "layer3.0.shortcut.0": "layer3.0.shortcut", "linear": "linear"},
    "ConvFC": {
        "conv_part.0": "conv1", "conv_part.3": "conv2", "conv_part.6": "conv3",
        "fc_part.0": "fc4", "fc_part.2": "fc5", "fc_part.4": "fc6",
    },
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_layers_that_the_curve_form_renames_find_their_plain_names(form: str, tmp_path: Path) -> None:
    # All of one shape, so that nothing but the names can tell them apart.
    nets = [Named({name: nn.Linear(3, 3) for name in FORMS[form]}) for _ in range(3)]
    path = saved(tmp_path / "curve.pt", curve_state("bezier", nets, FORMS[form]))
    plain, same = cl.load_curve(path, nets[0]), Named({name: nn.Linear(3, 3) for name in FORMS[form].values()})
    for net, point in zip(nets, plain.points, strict=True):
        assert torch.equal(point.vector, cl.WeightSpace(net).point(net).vector)
    named_alike = cl.load_curve(path, same)
    # The curve form's own names are taken as they are; the order of a vector is its model's.
    space, weights = cl.WeightSpace(same), curve_state("bezier", nets, FORMS[form])
    for i, point in enumerate(named_alike.points):
        parts = space.state_dict(point)
        assert all(torch.equal(parts[name], weights[f"net.{name}_{i}"]) for name in space.names)


def test_a_curve_that_was_saved_from_a_wrapper_is_the_same(tmp_path: Path) -> None:
    state, model = curve_state("bezier", networks()), small_net().double()
    plain = cl.load_curve(saved(tmp_path / "plain.pt", state), model)
    wrapped = saved(tmp_path / "wrapped.pt", {f"module.{name}": value for name, value in state.items()})
    found = cl.load_curve(wrapped, nn.DataParallel(model))
    assert found.kind == "bezier"
    for one, other in zip(plain.points, found.points, strict=True):
        assert torch.equal(one.vector, other.vector)


def test_what_is_no_curve_or_does_not_fit_says_so(tmp_path: Path) -> None:
    model, state = small_net().double(), curve_state("bezier", networks())
    alone = saved(tmp_path / "one.pt", small_net().state_dict())
    torn = saved(tmp_path / "torn.pt", {name: value for name, value in state.items() if name != "net.head.bias_1"})
    none = saved(tmp_path / "none.pt", {name: state[name] for name in state if not name.startswith("net.")})
    refused: list[tuple[Path, nn.Module, type[Exception], str]] = [
        (alone, model, CheckpointError, "no curve of the reference code.*coeff_layer.range"),
        (torn, model, CheckpointError, r"3 points, but head.bias is there for points \[0, 2\]"),
        (none, model, CheckpointError, "3 points, but no layer has any"),
        (tmp_path / "missing.pt", model, CheckpointError, "no checkpoint at"),
        (saved(tmp_path / "c.pt", state), nn.Linear(2, 2), MismatchError, "point 0 does not fit the model: 2 missing"),
    ]
    for path, net, error, message in refused:
        with pytest.raises(error, match=message):
            cl.load_curve(path, net)
    with pytest.raises(MismatchError, match=r"a whole curve .* read it with load_curve"):
        cl.WeightSpace(model).point(tmp_path / "c.pt")


def test_a_curve_that_needs_code_is_refused(tmp_path: Path) -> None:
    torch.save({"model_state": curve_state("bezier", networks()), "args": Path("x")}, tmp_path / "curve.pt")
    with pytest.raises(CheckpointError, match=r"needs code \(pathlib"):
        cl.load_curve(tmp_path / "curve.pt", small_net())
    assert "coeff_layer.range" in read_checkpoint(saved(tmp_path / "b.pt", curve_state("bezier", networks()))).tensors


# Readings -------------------------------------------------------------------------------------------------------------


def refilled(model: nn.Module, weights: Mapping[str, Tensor], batches: Sequence[Batch]) -> None:
    """Statistics as a running average whose momentum is the batch's share of what has been seen."""
    seen, norms = 0, [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
    for inputs, _ in batches:
        for norm in norms:
            norm.momentum = len(inputs) / (seen + len(inputs))
        seen += len(inputs)
        functional_call(model.train(), dict(weights), (inputs,))


def evaluated(model: nn.Module, weights: Mapping[str, Tensor], batches: Sequence[Batch], decay: float) -> list[float]:
    """Loss with the penalty, cross-entropy, accuracy in percent."""
    nll, hits, n = 0.0, 0, sum(len(targets) for _, targets in batches)
    for inputs, targets in batches:
        logits = functional_call(model.eval(), dict(weights), (inputs,))
        nll += float(nn.functional.cross_entropy(logits, targets, reduction="sum"))
        hits += int((logits.argmax(1) == targets).sum())
    penalty = decay / 2 * float(sum(value.square().sum() for value in weights.values()))
    return [nll / n + penalty, nll / n, 100.0 * hits / n]


@torch.no_grad()
def curve_npz(path: Path, kind: str, nets: Sequence[nn.Module], points: int) -> dict[str, np.ndarray]:
    """What eval_curve.py stores, from a plain loop over t."""
    model, rows, flat = small_net().double(), [], []
    for t in np.linspace(0, 1, points):
        weights = weights_at(kind, nets, t)
        refilled(model, weights, BATCHES)
        rows.append([*evaluated(model, weights, BATCHES, 1e-2), *evaluated(model, weights, TEST, 1e-2)])
        flat.append(torch.cat([value.flatten() for value in weights.values()]).numpy())
    arrays = dict(zip(("tr_loss", "tr_nll", "tr_acc", "te_loss", "te_nll", "te_acc"), np.array(rows).T, strict=True))
    dl = np.array([0.0, *(np.linalg.norm(b - a) for a, b in pairwise(flat))])
    stored: dict[str, Any] = {"ts": np.linspace(0, 1, points), "dl": dl, **arrays}
    stored |= {f"{split}_err": 100.0 - arrays[f"{split}_acc"] for split in ("tr", "te")}
    for name in ("tr_loss", "tr_nll", "tr_err", "te_loss", "te_nll", "te_err"):
        values = stored[name]
        mean = np.sum(0.5 * (values[:-1] + values[1:]) * dl[1:]) / np.sum(dl[1:])
        summary = {"min": values.min(), "max": values.max(), "avg": values.mean(), "int": mean}
        stored |= {f"{name}_{which}": value for which, value in summary.items()}
    np.savez(path, **stored)
    return stored


@pytest.mark.parametrize("kind", KINDS)
def test_a_reading_of_theirs_and_one_of_ours_agree(kind: str, tmp_path: Path) -> None:
    nets, model = networks(), small_net().double()
    stored = curve_npz(tmp_path / "curve.npz", kind, nets, 9)
    theirs = cl.read_curve_npz(tmp_path / "curve.npz")
    curve = cl.load_curve(saved(tmp_path / "curve.pt", curve_state(kind, nets)), model)
    ours = cl.profile(model, curve, {"train": BATCHES, "test": TEST}, points=9, batch_stats="reference")
    assert list(theirs.to_frame()) == list(ours.to_frame())
    assert np.allclose(theirs.to_frame(), ours.to_frame(), rtol=0, atol=CLOSE)
    for split in ("train", "test"):
        for metric in ("loss", "error", "accuracy"):
            for definition in ("above_ends", "above_mean_of_ends", "above_line"):
                one, other = (path.barrier(split, metric, definition) for path in (theirs, ours))
                assert one.value == pytest.approx(other.value, abs=CLOSE)
                assert (one.t, one.points, one.batch_stats) == (other.t, 9, "reference")
                assert (one.dtype, one.precision, one.low) == ("unknown", "unknown", None)
    # The training loss of the file has the penalty in it, and is not what is read.
    assert np.abs(theirs.metric("train", "loss") - stored["tr_loss"]).min() > 0.05
    assert theirs.metric("test", "accuracy").max() <= 1


def test_a_reading_of_theirs_is_drawn_and_stored_without_intervals(tmp_path: Path) -> None:
    stored = curve_npz(tmp_path / "curve.npz", "bezier", networks(), 5)
    found = cl.read_curve_npz(str(tmp_path / "curve.npz"))
    assert np.array_equal(found.plot(split="test").lines[0].get_ydata(), stored["te_nll"])
    again = cl.Profile.from_dict(found.to_dict())
    assert again.to_frame().equals(found.to_frame())
    with pytest.raises(UsageError, match="without its spread over images"):
        found.interval("test")


def test_files_that_are_no_reading_of_theirs_are_refused(tmp_path: Path) -> None:
    arrays = curve_npz(tmp_path / "curve.npz", "polychain", networks(), 5)
    nan = np.where(np.arange(5) == 3, np.nan, arrays["te_nll"])
    refused: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({"te_nll": nan}, NotFiniteError, "te_nll is not finite at t = 0.75"),
        ({"tr_acc": arrays["tr_acc"][:4]}, CheckpointError, r"tr_acc is float64 \[4\] beside 5 positions"),
        ({"dl": np.array(["a"] * 5)}, CheckpointError, "dl is <U1"),
        ({"tr_nll": np.array([None] * 5)}, CheckpointError, "not a readable npz.*allow_pickle=False"),
    ]
    for number, (other, error, message) in enumerate(refused):
        np.savez(tmp_path / f"{number}.npz", **{**arrays, **other})
        with pytest.raises(error, match=message):
            cl.read_curve_npz(tmp_path / f"{number}.npz")
    np.savez(tmp_path / "plane.npz", ts=arrays["ts"], grid=np.zeros((3, 3, 2)))
    with pytest.raises(CheckpointError, match=r"no array dl: it is no curve.npz.*there is ts, grid"):
        cl.read_curve_npz(tmp_path / "plane.npz")
    with pytest.raises(CheckpointError, match=r"missing.npz"):
        cl.read_curve_npz(tmp_path / "missing.npz")
