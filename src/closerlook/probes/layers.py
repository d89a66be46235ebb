"""One linear probe per layer, all from one pass over each part."""

import time
from collections import Counter
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

from closerlook.activations import Activations, Tokens, activations
from closerlook.batches import BatchFn, Loader
from closerlook.errors import NotFiniteError, TooFewExamplesError, UsageError
from closerlook.probes.result import Probe, Probes
from closerlook.probes.solvers import FOLDS, Fitted, Split, classify, regress
from closerlook.probes.targets import Noted, reading

PER_OUTPUT = 10  # training examples per class, or per number that is predicted
LEAST_TEST = 10


def probes(
    model: nn.Module,
    train_loader: Loader,
    test_loader: Loader,
    layers: Sequence[str] = ("*",),
    target: Literal["labels"] | nn.Module = "labels",
    *,
    conv: Literal["mean", "flatten"] = "mean",
    tokens: Tokens = "mean",
    level: float = 0.95,
    seed: int = 0,
    batch_fn: BatchFn | None = None,
    device: str | torch.device | None = None,
) -> Probes:
    """What a linear map reads from each layer: the labels, or the logits of a teacher.

    Class numbers: multinomial logistic regression, the score is its accuracy on `test_loader`. A teacher, or labels
    that are real numbers: ridge regression, the score is R^2 = 1 - sum |y - found|^2 / sum |y - mean y|^2 over examples
    and outputs; for a teacher also how often the largest output is the teacher's. Features are standardised by the
    training part. The penalty is chosen within it: of six by three folds (drawn from `seed`) for classes, of nine by
    leaving one example out for ridge.

    A probe says what a layer makes easy to read, not what the network uses; wide layers make more easy, untrained ones
    too: probe an untrained network, and a student without this teacher, beside the one in question.

    Parameters
    ----------
    train_loader, test_loader
        Two sets of examples; each is read once, in eval mode, and all layers and targets come from that pass.
    layers
        Patterns, as in `closerlook.activations`.
    target
        ``"labels"``, or a network whose outputs [n, c] are to be predicted.
    conv, tokens
        What becomes of maps and token sequences; a probe needs one row per example.
    level
        Of the intervals, which are over test images, not over seeds.
    batch_fn
        How `model` meets a batch, as everywhere; the teacher takes the inputs of the batch.

    Raises
    ------
    TooFewExamplesError
        Fewer than 10 training examples per class or output, 3 of a class, or 10 test examples.
    LayerError
        A pattern matches no layer, or one whose output cannot be read.
    UsageError
        A handling without one row per example, a target of another form, or one that does not vary.

    Examples
    --------
    >>> x = torch.randn(300, 4, generator=torch.Generator().manual_seed(0))
    >>> batches = [(x, (x[:, 0] > 0).long())]
    >>> net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3))
    >>> found = probes(net, [(x[:200], batches[0][1][:200])], [(x[200:], batches[0][1][200:])], ["0"])
    >>> found.values["0"] > 0.9
    True

    Source: Alain and Bengio 2016 (arXiv 1610.01644).
    """
    for what, how in (("conv", conv), ("tokens", tokens)):
        if how in ("positions", "spectral"):
            raise UsageError(f"{what}={how!r} has no single row per example; a probe takes 'mean' or 'flatten'")
    if not 0 < level < 1:
        raise UsageError(f"the level of intervals is a probability between 0 and 1, not {level}")
    parts, targets = [], []
    with reading(target, device) as of:
        for name, loader in (("train_loader", train_loader), ("test_loader", test_loader)):
            noted = Noted(loader, of, name)
            parts.append(activations(model, noted, layers, conv=conv, tokens=tokens, batch_fn=batch_fn, device=device))
            targets.append(noted.targets)
    _check(parts, targets)
    teacher = isinstance(target, nn.Module)
    with threadpool_limits(1):  # many small products: threads that wait for each other cost far more than they bring
        fitted = [_probe(layer.name, parts, targets, teacher, level, seed) for layer in parts[0].layers]
    numbers = targets[0].is_floating_point()
    return Probes(
        probes=tuple(probe for probe, _ in fitted), target="the teacher's logits" if teacher else "labels",
        quantity="r2" if numbers else "accuracy", chance=0.0 if numbers else _commonest(*targets),
        n_train=parts[0].n, n_test=parts[1].n, level=level, handling=vars(parts[0].handling),
        chance_agreement=_commonest(*(each.argmax(1) for each in targets)) if _names(targets[0], teacher) else None,
        notes=_notes(fitted, parts[0].n),
    )  # fmt: skip


def _probe(
    name: str, parts: Sequence[Activations], targets: Sequence[Tensor], teacher: bool, level: float, seed: int
) -> tuple[Probe, Fitted]:
    x, x_test = (part.rows[name].double().numpy() for part in parts)
    if not (np.isfinite(x).all() and np.isfinite(x_test).all()):
        raise NotFiniteError(f"layer {name} gives NaN or infinity; there is nothing to be read from it")
    split = Split(x, targets[0].numpy(), x_test, targets[1].numpy())
    started = time.process_time()
    if targets[0].is_floating_point():
        fit = regress(split, level, labels=_names(targets[0], teacher))
    else:
        fit = classify(split, level, seed)
    seconds = time.process_time() - started
    return Probe(name, x.shape[1], fit.score, fit.train, fit.penalty, seconds, fit.agreement), fit


def _names(targets: Tensor, teacher: bool) -> bool:
    """Whether the largest of these numbers names a class."""
    return teacher and targets.is_floating_point() and targets.shape[1] > 1


def _check(parts: Sequence[Activations], targets: Sequence[Tensor]) -> None:
    for part, target in zip(parts, targets, strict=True):
        if part.n != len(target):
            raise UsageError(f"there are {len(target)} targets for {part.n} examples; a probe needs one for each")
    train, test = targets
    if train.is_floating_point() != test.is_floating_point() or train.shape[1:] != test.shape[1:]:
        raise UsageError("training and test targets differ in form; give both loaders the same kind of labels")
    if train.is_floating_point():
        _check_numbers(train, test)
    else:
        _check_classes(train)
    outputs = train.shape[1] if train.is_floating_point() else len(train.unique())
    if len(train) < PER_OUTPUT * outputs or len(test) < LEAST_TEST:
        raise TooFewExamplesError(
            f"{len(train)} training and {len(test)} test examples are too few for a probe of {outputs} outputs; it "
            f"takes {PER_OUTPUT * outputs} and {LEAST_TEST}"
        )


def _check_classes(train: Tensor) -> None:
    counts = Counter(train.tolist())
    if len(counts) < 2:
        raise UsageError("all training labels are the same; there is nothing to tell apart")
    rare, count = min(counts.items(), key=lambda item: item[1])
    if count < FOLDS:
        raise TooFewExamplesError(f"class {rare} has {count} training examples; the folds need {FOLDS} of each")


def _check_numbers(train: Tensor, test: Tensor) -> None:
    if not (train.isfinite().all() and test.isfinite().all()):
        raise NotFiniteError("the targets of the probes hold NaN or infinity")
    if bool((train == train[0]).all()):
        raise UsageError("the targets do not vary over the training examples; there is nothing to predict")


def _commonest(train: Tensor, test: Tensor) -> float:
    """Accuracy on the test part of always naming the commonest training label."""
    return float((test == train.mode().values).double().mean())


def _notes(fitted: Sequence[tuple[Probe, Fitted]], n: int) -> tuple[str, ...]:
    wide = [probe.layer for probe, _ in fitted if probe.width >= n]
    stopped = [probe.layer for probe, fit in fitted if not fit.converged]
    notes = []
    if wide:
        notes.append(
            f"as many units as training examples ({n}) or more, so that the penalty decides: {', '.join(wide)}"
        )
    if stopped:
        notes.append(f"the solver stopped after 1000 steps for some penalty: {', '.join(stopped)}")
    return tuple(notes)
