"""Files of the reference code of mode connectivity (Garipov et al. 2018, arXiv 1802.10026): its curves, its readings.

https://github.com/timgaripov/dnn-mode-connectivity; its checkpoints of single networks are read like any other.
"""

import re
from collections import defaultdict
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
from torch import Tensor, nn

from closerlook import files
from closerlook.checkpoints import Checkpoint, read_checkpoint
from closerlook.errors import CheckpointError, NotFiniteError, StoreError
from closerlook.landscape.metrics import with_error
from closerlook.landscape.profile import Profile
from closerlook.landscape.subspace import Kind, Subspace
from closerlook.weights import WeightSpace

_COUNT = "coeff_layer.range"  # one entry per control point
_BINOMIALS = "coeff_layer.binom"  # of Bezier curves alone
_OF_A_POINT = re.compile(r"(.+)_(\d+)")
# The curve's form of a network calls some layers otherwise than its plain form, to which the points belong.
_PLAIN_NAMES = {
    "fc1": "classifier.1", "fc2": "classifier.4", "fc3": "classifier.6",  # VGG
    "downsample": "downsample.0", "shortcut": "shortcut.0",  # PreResNet, WideResNet
    "conv1": "conv_part.0", "conv2": "conv_part.3", "conv3": "conv_part.6",  # ConvFC
    "fc4": "fc_part.0", "fc5": "fc_part.2", "fc6": "fc_part.4",
}  # fmt: skip
_ARRAYS = {"loss": "nll", "accuracy": "acc"}  # our metrics and its names for them
_SPLITS = {"train": "tr", "test": "te"}


def load_curve(path: str | Path, model: nn.Module) -> Subspace:
    """A curve that the reference code trained: the control points of its ``CurveNet``, of the kind that it says.

    Point i has the weights ``net.<layer>.weight_i`` and ``.bias_i`` of every layer, batch norm included; a file with
    binomial coefficients is a Bezier curve, any other a polygonal chain. The file's batch-norm statistics belong to no
    point of the curve and are left aside; the inner points count as the trained ones.

    Parameters
    ----------
    path
        ``checkpoint-N.pt``, as its train.py writes it, or any checkpoint with that state dict.
    model
        The plain form of the network, with the reference's names (the layers that its curve form renames are known)
        or those of the curve form. It is only read.

    Raises
    ------
    CheckpointError
        It is no curve of that code, or a layer lacks a point.
    MismatchError
        The points do not fit the model.

    Examples
    --------
    >>> import torch
    >>> points = {f"net.weight_{i}": torch.full((2, 3), float(i)) for i in range(3)}
    >>> torch.save({"epoch": 50, "model_state": {"coeff_layer.range": torch.arange(3.0), **points}}, "checkpoint-50.pt")
    >>> curve = load_curve("checkpoint-50.pt", nn.Linear(3, 2, bias=False))
    >>> curve.kind, curve.at(0.75).vector.tolist()
    ('polychain', [1.5, 1.5, 1.5, 1.5, 1.5, 1.5])
    """
    stored = read_checkpoint(path)
    kind, states = _points(stored)
    space = WeightSpace(model)
    named = [{_plain(name, space.names): value for name, value in state.items()} for state in states]
    points = [space.point(Checkpoint(state, f"{stored.origin} point {i}")) for i, state in enumerate(named)]
    return Subspace(kind, tuple(points), tuple(range(1, len(points) - 1)))


def _points(stored: Checkpoint) -> tuple[Kind, list[dict[str, Tensor]]]:
    """The kind of the curve, and its points' weights by the names of the curve form."""
    prefix = next((name.removesuffix(_COUNT) for name in stored.tensors if name.endswith(_COUNT)), None)
    if prefix is None:
        raise CheckpointError(
            f"{stored.origin} is no curve of the reference code: it has no {_COUNT}; a single network is a point "
            "itself, give its path"
        )
    count = stored.tensors[prefix + _COUNT].numel()
    layers: dict[str, dict[int, Tensor]] = defaultdict(dict)
    for name, value in stored.tensors.items():
        found = _OF_A_POINT.fullmatch(name.removeprefix(f"{prefix}net."))
        if found and name.startswith(f"{prefix}net."):
            layers[found[1]][int(found[2])] = value
    torn = [name for name, values in layers.items() if sorted(values) != list(range(count))]
    if torn or not layers:
        lacking = f"{torn[0]} is there for points {sorted(layers[torn[0]])}" if torn else "no layer has any"
        raise CheckpointError(f"{stored.origin} is a curve through {count} points, but {lacking}; get the file again")
    kind: Kind = "bezier" if prefix + _BINOMIALS in stored.tensors else "polychain"
    return kind, [{name: values[i] for name, values in layers.items()} for i in range(count)]


def _plain(name: str, known: Collection[str]) -> str:
    """The name in the plain form of the network."""
    layer, _, leaf = name.rpartition(".")
    *parents, last = layer.split(".")
    plain = ".".join([*parents, _PLAIN_NAMES.get(last, last), leaf])
    return plain if name not in known and plain in known else name


def read_curve_npz(path: str | Path) -> Profile:
    """What the reference code read along a curve, ``curve.npz`` of its eval_curve.py, as a profile.

    Its units become ours: accuracies in [0, 1] from percent; the loss is its ``nll``, the cross-entropy in nats, since
    its ``loss`` has the penalty on the weights in it.

    What the file does not say is missing: the number of images and their spread, so that there are no intervals; the
    ends with their own statistics; the kind of the curve; the type and precision of its weights (``"unknown"``). Its
    statistics of batch norm are those of ``batch_stats="reference"``, from the training images that carry the loss.
    It reads training images with random crops and flips, drawn anew at every t, so small differences of the training
    loss along t are partly those of draws. Its test images are the last 5,000 training images unless it was told
    ``--use_test``.

    Raises
    ------
    CheckpointError
        It cannot be read without running code, lacks an array, or has arrays that do not fit together.
    NotFiniteError
        A loss is NaN or infinite.

    Examples
    --------
    >>> read = {name: np.array([0.1, 0.4, 0.2]) for name in ("tr_nll", "te_nll")}
    >>> hits = {name: np.array([98.0, 90.0, 97.0]) for name in ("tr_acc", "te_acc")}
    >>> np.savez("curve.npz", ts=np.linspace(0, 1, 3), dl=np.array([0.0, 2.0, 2.0]), **read, **hits)
    >>> found = read_curve_npz("curve.npz")
    >>> round(found.barrier("test").value, 3), round(found.barrier("test", "error").value, 3)
    (0.2, 0.07)
    """
    if not Path(path).is_file():
        raise CheckpointError(f"there is no file {path}; give the path of a curve.npz")
    try:
        stored = files.read_arrays(path)
    except StoreError as error:
        raise CheckpointError(str(error)) from error
    t, steps = (_array(stored, name, path) for name in ("ts", "dl"))
    read = {f"{ours}_{metric}": _array(stored, f"{theirs}_{name}", path)
            for ours, theirs in _SPLITS.items() for metric, name in _ARRAYS.items()}  # fmt: skip
    values = {name: array / 100 if name.endswith("accuracy") else array for name, array in read.items()}
    nobody: dict[str, float] = {}
    return Profile(
        t, with_error(values), steps, {}, (nobody, nobody), "curve", "reference", "unknown",
        told={"precision": "unknown"},
    )  # fmt: skip


def _array(stored: Mapping[str, np.ndarray], name: str, path: str | Path) -> np.ndarray:
    """One array [m] of numbers, as many as there are positions t."""
    if name not in stored:
        raise CheckpointError(
            f"{path} has no array {name}: it is no curve.npz of the reference code's eval_curve.py; there is "
            f"{', '.join(stored) or 'nothing'}"
        )
    array, count = stored[name], stored["ts"].size
    if array.shape != (count,) or array.dtype.kind != "f" or not count:
        raise CheckpointError(f"{path}: {name} is {array.dtype} {list(array.shape)} beside {count} positions ts")
    if not np.isfinite(array).all():
        where = stored["ts"][~np.isfinite(array)][0]
        raise NotFiniteError(f"{path}: {name} is not finite at t = {where:g}; that curve's training diverged")
    return array
