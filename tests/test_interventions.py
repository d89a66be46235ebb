"""Interventions: one table of settings, each beside a plain PyTorch loop, resumed, forked, and without effect.

The plain loop knows nothing of closerlook's interventions: rates are those of parameter groups, frozen parameters do
not require gradients, clipping and smoothing are PyTorch's own. Everything is in float64.
"""

import copy
import itertools
import json
import math
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from scipy.stats import chi2
from torch import Tensor, nn
from torch.optim import Optimizer

import closerlook as cl
from closerlook.data import TensorBatches
from closerlook.durations import Clock
from closerlook.errors import UsageError
from closerlook.files import read_tensors
from closerlook.runs.identity import identity, run_id
from closerlook.runs.recipe import ADAPTER, DataSpec, ModelSpec, OptimizerSpec, Seeds, TrainRecipe
from closerlook.schedules import Constant, LinearDecay, Schedule, Warmup
from closerlook.training import TrainResult
from closerlook.training.checkpoint import StateFile
from closerlook.training.interventions import Intervention
from closerlook.training.interventions.rates import _drawn
from closerlook.training.loop import Tick, mixed_seed
from untouched import everything, same

STEPS, EPOCHS = 4, 3
TOTAL = STEPS * EPOCHS
CLOCK = Clock(STEPS, TOTAL)
SCHEDULE = LinearDecay(final=0.2)


class StoppedError(Exception):
    """What a test raises in place of a kill."""


# Data, networks, optimizers -------------------------------------------------------------------------------------------


def batches() -> TensorBatches:
    """30 drawn images in 4 batches, the last one smaller."""
    source = torch.Generator().manual_seed(0)
    images = torch.randn(30, 1, 8, 8, generator=source, dtype=torch.float64)
    return TensorBatches(images, torch.randint(0, 10, (30,), generator=source), 8, shuffle=True)


def convolutions() -> nn.Module:
    """Batch norm and dropout; no bias before the norm, whose gradient would be rounding alone."""
    layers = OrderedDict(
        body=nn.Conv2d(1, 5, 3, padding=1, bias=False), norm=nn.BatchNorm2d(5), relu=nn.Tanh(), pool=nn.AvgPool2d(2),
        deep=nn.Conv2d(5, 7, 3), flatten=nn.Flatten(), dropout=nn.Dropout(0.3), head=nn.Linear(28, 10),
    )  # fmt: skip
    return nn.Sequential(layers)


class Tied(nn.Module):
    """One layer under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.norm, self.head = nn.Linear(64, 64), nn.BatchNorm1d(64), nn.Linear(64, 10)
        self.deep = self.body

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        x = torch.tanh(self.norm(self.body(x.flatten(1))))
        return self.head(self.norm(self.deep(x)))


def partly_trained() -> nn.Module:
    model = convolutions()
    model.get_submodule("deep").requires_grad_(False)
    return model


NETWORKS: Mapping[str, Callable[[], nn.Module]] = {
    "convolutions": convolutions, "tied": Tied, "partly trained": partly_trained,
}  # fmt: skip


def network(kind: str = "convolutions", seed: int = 0) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return NETWORKS[kind]().double()


def in_two_groups(parameters: Iterable[Tensor]) -> Optimizer:
    """Weights with decay; biases and norms without it, at a tenth of the rate."""
    values = list(parameters)
    weights, others = [v for v in values if v.ndim > 1], [v for v in values if v.ndim <= 1]
    groups = [{"params": weights, "weight_decay": 0.1}, {"params": others, "lr": 0.01}]
    return torch.optim.SGD([group for group in groups if group["params"]], lr=0.1, momentum=0.9, nesterov=True)


# Settings for `cl.train`, and the optimizer of a single parameter in a plain loop.
OPTIMIZERS: Mapping[str, tuple[dict[str, Any], Callable[[Iterable[Tensor]], Optimizer]]] = {
    "sgd": (
        {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01},
        lambda values: torch.optim.SGD(values, lr=0.1, momentum=0.9, weight_decay=0.01),
    ),
    "adam": (
        {"optimizer": "adam", "lr": 0.01, "weight_decay": 0.01},
        lambda values: torch.optim.Adam(values, lr=0.01, weight_decay=0.01),
    ),
    "adamw": (
        {"optimizer": "adamw", "lr": 0.01, "weight_decay": 0.1},
        lambda values: torch.optim.AdamW(values, lr=0.01, weight_decay=0.1),
    ),
    "factory": ({"optimizer": in_two_groups}, in_two_groups),
}
SETTINGS = [*((kind, "convolutions") for kind in OPTIMIZERS), ("sgd", "tied"), ("sgd", "partly trained")]


# The table ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """Interventions, and what a plain loop does in their place.

    `exact` says that both do the same arithmetic (a norm is summed in the order of memory, which differs). `rate` and
    `frozen` are functions of a parameter's name and a step.
    """

    interventions: tuple[Intervention, ...] = ()
    exact: bool = True
    rate: Callable[[str, int], float] = lambda name, step: 1.0
    entries: Callable[[int], float] = lambda step: 1.0
    frozen: Callable[[str, int], bool] = lambda name, step: False
    still: Callable[[int], bool] = lambda step: False
    clip: float | None = None
    smoothing: float = 0.0
    said: Mapping[int, str] = field(default_factory=dict)


def ramp(step: int) -> float:
    return min(step / 5, 1.0)


def is_head(name: str) -> bool:
    return name.startswith("head.")


RANDOM = cl.random_rate(Warmup("5it"), like="head.*", seed=3)
TABLE: Mapping[str, Row] = {
    "nothing": Row(),
    "group_rate": Row(
        (cl.group_rate(Warmup("5it"), "head.*"),), exact=False,
        rate=lambda name, step: ramp(step) if is_head(name) else 1.0,
    ),
    "group_rate of all but one": Row(
        (cl.group_rate(Warmup("5it"), but="head.*"),), exact=False,
        rate=lambda name, step: 1.0 if is_head(name) else ramp(step),
    ),
    "group_rates that overlap": Row(
        (cl.group_rate(Warmup("5it")), cl.group_rate(Constant(0.1), ("head.*", "norm.*"))), exact=False,
        rate=lambda name, step: ramp(step) * (0.1 if name.startswith(("head.", "norm.")) else 1.0),
    ),
    "random_rate": Row((RANDOM,), exact=False, entries=ramp),
    "freeze": Row((cl.freeze("head.*", end="6it"),), frozen=lambda name, step: is_head(name) and step < 6,
                  said={0: "frozen", 6: "thawed"}),
    "freeze later": Row(
        (cl.freeze(("body.*", "norm.*"), begin="3it", end="7it"),),
        frozen=lambda name, step: name.startswith(("body.", "norm.")) and 3 <= step < 7,
        said={3: "frozen", 7: "thawed"},
    ),
    "freeze with still norms": Row(
        (cl.freeze(but="head.*", params="*", begin="3it", end="7it", norm="eval"),),
        frozen=lambda name, step: not is_head(name) and 3 <= step < 7, still=lambda step: 3 <= step < 7,
        said={3: "frozen", 7: "thawed"},
    ),
    # The first to thaw is asked last: neither may wake what the other one holds.
    "freezes that overlap": Row(
        (cl.freeze("norm.*", begin="3it", end="8it", norm="eval"), cl.freeze("*.bias", end="5it", norm="eval")),
        frozen=lambda name, step: (name.startswith("norm.") and 3 <= step < 8) or (name.endswith("bias") and step < 5),
        still=lambda step: step < 8, said={0: "frozen", 3: "frozen", 5: "thawed", 8: "thawed"},
    ),
    "clip": Row((cl.clip(0.3),), exact=False, clip=0.3),
    "label_smoothing": Row((cl.label_smoothing(0.2),), exact=False, smoothing=0.2),
    "clip without the frozen": Row(
        (cl.clip(0.3), cl.freeze("head.*", begin="2it", end="9it")), exact=False, clip=0.3,
        frozen=lambda name, step: is_head(name) and 2 <= step < 9, said={2: "frozen", 9: "thawed"},
    ),
    "everything": Row(
        (cl.label_smoothing(0.1), cl.freeze("norm.*", begin="2it", end="9it", norm="eval"), RANDOM, cl.clip(0.3),
         cl.group_rate(Constant(0.1), "head.*")),
        exact=False, rate=lambda name, step: 0.1 if is_head(name) else 1.0, entries=ramp, clip=0.3, smoothing=0.1,
        frozen=lambda name, step: name.startswith("norm.") and 2 <= step < 9, still=lambda step: 2 <= step < 9,
        said={2: "frozen", 9: "thawed"},
    ),
}  # fmt: skip


def train(model: nn.Module | None = None, *interventions: Intervention, **settings: Any) -> TrainResult:
    loader = settings.pop("loader", None) or batches()
    if "optimizer" not in settings:
        settings = {**OPTIMIZERS["sgd"][0], **settings}
    defaults = {"epochs": EPOCHS, "schedule": SCHEDULE, "seed": 1}
    return cl.train(model or network(), loader, interventions=interventions, **{**defaults, **settings})


def state_of(model: nn.Module, result: TrainResult) -> dict[str, Tensor]:
    return cl.WeightSpace(model).state_dict(result.point)


def drawn_by(model: nn.Module, chosen: cl.random_rate) -> dict[str, Tensor]:
    """Where a drawn weight lies, from the outside: with the rate 0 it does not move in a step of plain descent."""
    still = cl.random_rate(Constant(0.0), chosen.like, chosen.seed)
    moved = state_of(model, pushed(model, still))
    return {name: moved[name] == value for name, value in model.named_parameters()}


def pushed(model: nn.Module, *interventions: Intervention) -> TrainResult:
    """After one step of plain descent on `push`."""
    batch = (torch.zeros(2, 1, 8, 8, dtype=torch.float64), torch.tensor([0, 1]))
    settings = {"epochs": 1, "momentum": 0.0, "weight_decay": 0.0, "batch_fn": push}
    return train(model, *interventions, loader=[batch], **settings)


def push(model: nn.Module, batch: Any) -> cl.Output:
    """Every weight has the gradient 1."""
    total = torch.stack([value.sum() for value in model.parameters() if value.requires_grad]).sum()
    return cl.Output(total.expand(len(batch[1])), None)


def plain(model: nn.Module, make: Callable[[Iterable[Tensor]], Optimizer], row: Row, schedule: Schedule) -> nn.Module:
    """What a PyTorch user would write: one optimizer of one group for every parameter, so that each has a rate."""
    model = copy.deepcopy(model).train()
    mask = drawn_by(model, RANDOM) if RANDOM in row.interventions else {}
    trained = {name: value for name, value in model.named_parameters() if value.requires_grad}
    optimizers = {name: make([value]) for name, value in trained.items()}
    bases = {name: optimizer.param_groups[0]["lr"] for name, optimizer in optimizers.items()}
    criterion = nn.CrossEntropyLoss(label_smoothing=row.smoothing)
    factor, loader = schedule.factor(CLOCK), batches()
    for step in range(TOTAL):
        loader.set_epoch(step // STEPS)
        x, y = next(loader.from_batch(step % STEPS))
        for name, value in trained.items():
            value.requires_grad_(not row.frozen(name, step))
            optimizers[name].param_groups[0]["lr"] = bases[name] * factor(step) * row.rate(name, step)
        model.get_submodule("norm").train(not row.still(step))
        torch.manual_seed(mixed_seed(1, step))
        model.zero_grad()
        criterion(model(x), y).backward()
        if row.clip is not None:
            nn.utils.clip_grad_norm_([value for value in trained.values() if value.grad is not None], row.clip)
        old = {name: value.detach().clone() for name, value in trained.items()}
        for optimizer in optimizers.values():
            optimizer.step()
        for name, value in trained.items():
            if name in mask and value.requires_grad:
                slowed = old[name] + row.entries(step) * (value.detach() - old[name])
                value.data = torch.where(mask[name], slowed, value.detach())
    return model


def difference(left: Mapping[str, Tensor], right: Mapping[str, Tensor]) -> float:
    """The largest relative difference, entry by entry, beside 1."""
    assert left.keys() == right.keys()
    return max(float(((left[k] - right[k]).abs() / right[k].abs().clamp_min(1.0)).max()) for k in left)


@cache
def without(optimizer: str, kind: str) -> dict[str, Tensor]:
    """The outcome of a training without interventions."""
    model = network(kind)
    return state_of(model, train(model, **OPTIMIZERS[optimizer][0]))


@pytest.mark.parametrize(("optimizer", "kind"), SETTINGS)
@pytest.mark.parametrize("name", TABLE)
def test_trains_as_a_plain_loop(name: str, optimizer: str, kind: str) -> None:
    model, row = network(kind), TABLE[name]
    settings, make = OPTIMIZERS[optimizer]
    result = train(model, *row.interventions, **settings)
    expected = plain(model, make, row, SCHEDULE).state_dict()
    found = state_of(model, result)
    assert difference(found, expected) <= (0.0 if row.exact else 1e-12)
    assert difference(found, model.state_dict()) > 1e-3
    if name != "nothing":  # the settings bite
        assert difference(found, without(optimizer, kind)) > 1e-6


# Resume ---------------------------------------------------------------------------------------------------------------


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def stop_at(step: int) -> Callable[[Tick], None]:
    def observe(tick: Tick) -> None:
        if tick.step == step:
            raise StoppedError

    return observe


def watched(out: Path, name: str, *observers: Any, **settings: Any) -> TrainResult:
    """A run whose folder holds all that a run can leave behind."""
    kept = {"snapshots": ["5it"], "forks": ["1ep"], "validation": batches(), "out": out}
    return train(None, *TABLE[name].interventions, observers=[*observers, cl.LayerTrace(every=2)], **kept, **settings)


@cache
def whole(folder: Path, name: str) -> dict[str, bytes]:
    watched(folder / name, name)
    return contents(folder / name)


@pytest.fixture(scope="module")
def unstopped(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict[str, bytes]]:
    folder = tmp_path_factory.mktemp("whole")
    return lambda name: whole(folder, name)


def bad_at_step_6(model: nn.Module, batch: Any) -> cl.Output:
    output = cl.batches.classification(model, batch)
    loader = batches()
    loader.set_epoch(1)
    bad = torch.equal(batch[0], next(loader.from_batch(2))[0])
    return cl.Output(output.loss * (math.inf if bad else 1.0), output.outputs)


@pytest.mark.parametrize("name", TABLE)
def test_a_stopped_run_leaves_the_bytes_of_one_that_was_not(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unstopped: Callable[[str], dict[str, bytes]]
) -> None:
    monkeypatch.setattr(StateFile, "due", lambda self: True)
    for step in (0, 3, 9, TOTAL) if name == "everything" else (3, 9):
        with pytest.raises(StoppedError):
            watched(tmp_path, name, stop_at(step))
    result = watched(tmp_path, name)
    assert contents(tmp_path) == unstopped(name)
    rows = [json.loads(line) for line in (tmp_path / "observations.jsonl").read_text().splitlines()]
    assert list(result.observations) == rows
    assert [row["step"] for row in rows if "layers" in row] == [2, 4, 6, 8, 10, 12]
    assert {row["step"]: word for row in rows for word in ("frozen", "thawed") if word in row} == TABLE[name].said


@pytest.mark.parametrize("number", [1, 3, 6])
@pytest.mark.parametrize("diverging", [False, True])
def test_a_kill_between_a_row_and_its_state(
    number: int, diverging: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"batch_fn": bad_at_step_6} if diverging else {}
    expected = watched(tmp_path / "whole", "everything", **settings)
    assert expected.diverged_at == (6 if diverging else None)
    write, asked = StateFile.write, count(1)

    def die(self: StateFile, *told: Any) -> None:
        if next(asked) == number:
            raise StoppedError
        write(self, *told)

    with monkeypatch.context() as patched, suppress(StoppedError):
        patched.setattr(StateFile, "due", lambda self: True)
        patched.setattr(StateFile, "write", die)
        watched(tmp_path / "parts", "everything", **settings)
    for _ in range(2):  # the second call finds a finished run
        result = watched(tmp_path / "parts", "everything", **settings)
        assert contents(tmp_path / "parts") == contents(tmp_path / "whole")
        assert result.observations == expected.observations
        assert not diverging or max(row["step"] for row in result.observations) == 6


@pytest.mark.parametrize("stop", [3, 6, 9])
def test_a_foreign_loader_goes_on_at_an_epoch(stop: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StateFile, "due", lambda self: True)

    def run(folder: str, *observers: Any) -> TrainResult:
        data = torch.utils.data.TensorDataset(batches().inputs, batches().targets)
        loader = torch.utils.data.DataLoader(data, 8, shuffle=True)
        return watched(tmp_path / folder, "everything", *observers, loader=loader)

    with pytest.raises(StoppedError):
        run("parts", stop_at(stop))
    assert not run("parts").exact_resume
    run("whole")
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")


def test_rows_of_another_attempt_do_not_stay(tmp_path: Path) -> None:
    with pytest.raises(StoppedError):
        train(None, cl.freeze("head.*", end="2it"), out=tmp_path, observers=[stop_at(3)])
    assert (tmp_path / "observations.jsonl").exists()
    assert train(out=tmp_path).observations == ()
    assert not (tmp_path / "observations.jsonl").exists()


def test_other_interventions_in_the_same_folder_are_refused(tmp_path: Path) -> None:
    train(None, cl.clip(1.0), out=tmp_path)
    before = contents(tmp_path)
    for other in ((), (cl.clip(2.0),), (cl.clip(1.0), cl.freeze("head.*", end="2it"))):
        with pytest.raises(UsageError, match="another interventions"):
            train(None, *other, out=tmp_path)
    assert contents(tmp_path) == before


# Forks ----------------------------------------------------------------------------------------------------------------

STEADY = (cl.label_smoothing(0.1), cl.clip(0.3), cl.group_rate(Constant(0.1), "head.*"))


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_fork_repeats_its_trunk_under_the_same_interventions(optimizer: str, tmp_path: Path) -> None:
    settings = {"schedule": Constant(), **OPTIMIZERS[optimizer][0]}
    trunk = train(None, *STEADY, out=tmp_path, forks=["1ep"], **settings)
    start = tmp_path / "checkpoints" / "fork-000004.safetensors"
    branch = train(network(seed=9), *STEADY, start=start, epochs=EPOCHS - 1, **settings)
    assert torch.equal(trunk.point.vector, branch.point.vector)
    other = train(network(seed=9), start=start, epochs=EPOCHS - 1, **settings)
    assert not torch.equal(trunk.point.vector, other.point.vector)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_fork_taken_at_a_thaw_goes_on_as_its_trunk(optimizer: str, tmp_path: Path) -> None:
    settings = {"schedule": Constant(), **OPTIMIZERS[optimizer][0]}
    trunk = train(None, cl.freeze("head.*", end="1ep"), out=tmp_path, forks=["1ep"], **settings)
    start = tmp_path / "checkpoints" / "fork-000004.safetensors"
    branch = train(network(seed=9), start=start, epochs=EPOCHS - 1, **settings)
    assert torch.equal(trunk.point.vector, branch.point.vector)


def test_a_fork_can_be_frozen(tmp_path: Path) -> None:
    trunk = train(out=tmp_path, forks=["1ep"])
    start = tmp_path / "checkpoints" / "fork-000004.safetensors"
    branch = train(None, cl.freeze("head.*", end="1dur"), start=start, epochs=1, snapshots=[0])
    first, last = (state_of(network(), result) for result in (trunk, branch))
    forked = cl.WeightSpace(network()).state_dict(branch.snapshots[0])
    assert torch.equal(forked["head.weight"], last["head.weight"])
    assert not torch.equal(forked["head.weight"], first["head.weight"])
    assert not torch.equal(forked["body.weight"], last["body.weight"])


# What leaves no trace -------------------------------------------------------------------------------------------------

IDLE: Mapping[str, tuple[Intervention, ...]] = {
    "rate 1": (cl.group_rate(Constant(1.0), "head.*"),),
    "warmup of no length": (cl.group_rate(Warmup("0it")),),
    "random rate 1": (cl.random_rate(Constant(1.0), "*", seed=0),),
    "clip far away": (cl.clip(math.inf), cl.clip(1e30)),
    "no smoothing": (cl.label_smoothing(0.0),),
    "all of them": (cl.label_smoothing(0.0), cl.clip(math.inf), cl.group_rate(Constant(1.0))),
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("name", IDLE)
def test_what_changes_nothing_keeps_every_bit(name: str, optimizer: str) -> None:
    settings = {"validation": batches(), **OPTIMIZERS[optimizer][0]}
    idle, bare = train(None, *IDLE[name], **settings), train(**settings)
    assert same(state_of(network(), idle), state_of(network(), bare))
    assert idle.history == bare.history
    assert idle.observations == ()


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_nothing_changes_before_a_freeze_begins(optimizer: str) -> None:
    settings = {"snapshots": ["8it"], **OPTIMIZERS[optimizer][0]}
    later, bare = train(None, cl.freeze("head.*", begin="8it", end="9it", norm="eval"), **settings), train(**settings)
    assert torch.equal(later.snapshots[8].vector, bare.snapshots[8].vector)
    assert not torch.equal(later.point.vector, bare.point.vector)


# Refusals -------------------------------------------------------------------------------------------------------------


def maps(model: nn.Module, batch: Any) -> cl.Output:
    """Losses of outputs that are no logits [n, classes]."""
    output = cl.batches.classification(model, batch)
    return cl.Output(output.loss, output.outputs[:, None])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (cl.freeze("haed.*", end="2it"), r"no trained parameter matches 'haed\.\*'; the names are body\.weight, norm"),
        (cl.freeze(("head.*", "haed.*"), end="2it"), r"matches 'haed\.\*'"),
        (cl.group_rate(Constant(0.5), but="haed.*"), r"matches 'haed\.\*'"),
        (cl.group_rate(Constant(0.5), "head.*", but="*"), r"matches 'head\.\*' but not '\*'"),
        (cl.random_rate(Constant(0.5), like="nothing", seed=0), "matches 'nothing'"),
        (cl.group_rate(0.5, "head.*"), r"takes a schedule, such as closerlook\.constant\(0\.5\)"),
        (cl.random_rate(0.5, "head.*", seed=0), "takes a schedule"),
        (cl.group_rate(Warmup("5"), "head.*"), "cannot read the duration '5'"),
        (cl.freeze("head.*", end="0it"), "from step 0 to step 0 freezes nothing; move 'end'"),
        (cl.freeze("head.*", begin="5it", end="1ep"), "from step 5 to step 4 freezes nothing"),
        (cl.freeze("head.*", begin="12it", end="13it"), "from step 12 on freezes nothing in a run of 12 steps"),
        (cl.freeze("head.*", end="2it", norm="frozen"), "norm layers.*'train' or 'eval'.*'frozen'"),
        (cl.clip(0.0), "norm of 0.0; give one above 0"),
        (cl.clip(-1.0), "norm of -1.0"),
        (cl.clip(math.nan), "norm of nan"),
        (cl.label_smoothing(1.0), "below 1, not 1.0"),
        (cl.label_smoothing(-0.1), "not -0.1"),
        (cl.LayerTrace(), "LayerTrace.*is no intervention.*observers"),
        (cl.freeze, "is no intervention"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_written(wrong: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        train(None, cl.clip(1.0), wrong, out=tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_outputs_that_are_no_logits_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"logits \[n, classes\]"):
        train(None, cl.label_smoothing(0.1), batch_fn=maps, out=tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_an_intervention_is_no_observer(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"Clip\(norm=1\.0.*is no observer.*interventions"):
        train(observers=[cl.clip(1.0)], out=tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


# What the caller keeps ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", NETWORKS)
def test_the_callers_things_come_back_as_they_were(kind: str) -> None:
    model, loader = network(kind).eval(), batches()
    loader.set_epoch(17)
    before = everything(model, loader)
    for observers in ([], [stop_at(5)]):
        with suppress(StoppedError):
            train(model, *TABLE["everything"].interventions, loader=loader, observers=observers)
        assert same(everything(model, loader), before)
        assert loader.epoch == 17


# Freezes --------------------------------------------------------------------------------------------------------------


def momenta(path: Path, model: nn.Module, optimizer: str) -> dict[str, Tensor]:
    """The optimizer's first moments by parameter, from a file of the whole state; where there is none, zero."""
    tensors, _ = read_tensors(path)
    if optimizer == "sgd":
        slices = cl.WeightSpace(model).slices()
        return {name: tensors["optimizer.0.momentum_buffer"][span] for name, _, span in slices}
    names = [name for name, value in model.named_parameters() if value.requires_grad]
    return {name: tensors.get(f"optimizer.{i}.exp_avg", torch.zeros(1)) for i, name in enumerate(names)}


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_a_frozen_block_keeps_weights_and_momentum_to_the_last_bit(optimizer: str, tmp_path: Path) -> None:
    model = network()
    settings = {"snapshots": [1, 2], "forks": [1, 2], "out": tmp_path, **OPTIMIZERS[optimizer][0]}
    result = train(model, cl.freeze("head.*", begin="1ep", end="2ep"), **settings)
    held = [cl.WeightSpace(model).state_dict(result.snapshots[step]) for step in (4, 8)]
    moments = [momenta(tmp_path / "checkpoints" / f"fork-{step:06d}.safetensors", model, optimizer) for step in (4, 8)]
    for name in moments[0]:
        assert torch.equal(moments[0][name], moments[1][name]) == is_head(name), name
        assert torch.equal(held[0][name], held[1][name]) == is_head(name), name
        assert not is_head(name) or float(moments[0][name].abs().max()) > 0
    after = state_of(model, result)
    assert not torch.equal(after["head.weight"], held[1]["head.weight"])


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_a_block_that_was_frozen_from_the_start_thaws_without_momentum(optimizer: str, tmp_path: Path) -> None:
    train(None, cl.freeze("head.*", end="1ep"), forks=[1], out=tmp_path, **OPTIMIZERS[optimizer][0])
    found = momenta(tmp_path / "checkpoints" / "fork-000004.safetensors", network(), optimizer)
    assert {name: bool((value == 0).all()) for name, value in found.items()} == {name: is_head(name) for name in found}


def test_a_freeze_thaws_once_and_says_of_whom() -> None:
    rows = train(
        None, cl.freeze("norm.*", begin="2it", end="6it"), cl.freeze("*.bias", begin="4it", end="9it"),
        cl.freeze("head.*", begin="10it", end="99it"),
    ).observations  # fmt: skip
    assert rows == (
        {"step": 2, "frozen": ["norm.weight", "norm.bias"]},
        {"step": 4, "frozen": ["deep.bias", "head.bias"]},
        {"step": 6, "thawed": ["norm.weight"]},
        {"step": 9, "thawed": ["norm.bias", "deep.bias", "head.bias"]},
        {"step": 10, "frozen": ["head.weight", "head.bias"]},
    )


def test_the_schedule_reaches_every_group_through_a_freeze_and_after_it() -> None:
    made: list[Optimizer] = []
    seen: list[list[float]] = []
    heads: list[Tensor] = []

    def factory(parameters: Iterable[Tensor]) -> Optimizer:
        made.append(in_two_groups(parameters))
        return made[0]

    def look(tick: Tick) -> None:
        last = made[0].param_groups[0]["params"][-1]
        assert last.shape == (10, 28)
        heads.append(last.detach().clone())
        if tick.step:
            seen.append([group["lr"] for group in made[0].param_groups])

    train(None, cl.freeze("head.*", begin="2it", end="6it"), optimizer=factory, observers=[look])
    expected = [[base * SCHEDULE.factor(CLOCK)(step) for base in (0.1, 0.01)] for step in range(TOTAL)]
    assert torch.equal(torch.tensor(seen), torch.tensor(expected))
    moved = [not torch.equal(old, new) for old, new in itertools.pairwise(heads)]
    assert moved == [not 2 <= step < 6 for step in range(TOTAL)]


def test_a_frozen_block_does_not_count_in_the_norm() -> None:
    model = network()
    sizes = {name: value.numel() for name, value in model.named_parameters()}
    free = sum(size for name, size in sizes.items() if not is_head(name))
    for chosen in itertools.permutations((cl.freeze("head.*", end="1ep"), cl.clip(1.0))):
        moved = state_of(model, pushed(model, *chosen))
        for name, value in model.named_parameters():
            # Gradients of 1, of which `free` count: each becomes 1 / sqrt(free).
            expected = 0.0 if is_head(name) else 0.1 / math.sqrt(free)
            torch.testing.assert_close(value - moved[name], torch.full_like(value, expected), rtol=1e-5, atol=1e-15)


class SecondNorm(nn.Sequential):
    """Its author keeps one norm layer still; another one has no parameters."""

    def __init__(self) -> None:
        super().__init__(
            OrderedDict(
                flatten=nn.Flatten(), body=nn.Linear(64, 6), norm=nn.BatchNorm1d(6),
                bare=nn.BatchNorm1d(6, affine=False), kept=nn.BatchNorm1d(6), head=nn.Linear(6, 10),
            )
        )  # fmt: skip

    def train(self, mode: bool = True) -> "SecondNorm":
        super().train(mode)
        self.kept.eval()
        return self


@pytest.mark.parametrize("wrap", [lambda model: model, nn.DataParallel])
@pytest.mark.parametrize("norm", ["train", "eval"])
def test_norm_layers_of_a_frozen_block_follow_their_setting(norm: Any, wrap: Callable[[nn.Module], nn.Module]) -> None:
    seen: list[list[bool]] = []
    means: list[Tensor] = []

    def look(model: nn.Module, batch: Any) -> cl.Output:
        inner = getattr(model, "module", model)
        layers = [inner.get_submodule(name) for name in ("norm", "bare", "kept")]
        seen.append([layer.training for layer in layers])
        means.append(torch.stack([layer.running_mean.clone() for layer in layers]))
        return cl.batches.classification(model, batch)

    chosen = cl.freeze(("norm.*", "bare.*", "kept.*"), begin="2it", end="6it", norm=norm)
    rows = train(wrap(SecondNorm().double()), chosen, batch_fn=look).observations
    assert rows[0] == {"step": 2, "frozen": ["norm.weight", "norm.bias", "kept.weight", "kept.bias"]}
    still = [norm == "eval" and 2 <= step < 6 for step in range(TOTAL)]
    assert seen == [[not each, not each, False] for each in still]
    collected = [(new != old).any(1).tolist() for old, new in itertools.pairwise(means)]
    assert collected == [[not each, not each, False] for each in still[:-1]]


def test_a_pattern_without_a_trained_parameter_can_name_nothing_to_freeze() -> None:
    with pytest.raises(UsageError, match=r"matches 'bare\.\*'"):
        train(SecondNorm().double(), cl.freeze("bare.*", end="1ep"))


@pytest.mark.parametrize("wrap", [nn.DataParallel, lambda model: torch.compile(model, backend="eager")])
def test_wrapped_networks_go_by_their_plain_names(wrap: Callable[[nn.Module], nn.Module]) -> None:
    chosen = (cl.group_rate(Constant(0.5), "body.*"), cl.freeze("head.*", end="6it"), cl.clip(1.0))
    settings = {"observers": [cl.LayerTrace()], "epochs": 2}
    bare, wrapped = (train(model, *chosen, **settings) for model in (network(), wrap(network())))
    assert torch.equal(bare.point.vector, wrapped.point.vector)
    assert bare.observations == wrapped.observations


def test_a_tied_weight_goes_by_each_of_its_names() -> None:
    model = network("tied")
    result = train(model, cl.freeze("deep.*", end="1dur"), cl.group_rate(Constant(0.0), but="deep.*"))
    assert result.observations[0] == {"step": 0, "frozen": ["body.weight", "body.bias"]}
    assert torch.equal(result.point.vector, cl.WeightSpace(model).point(model).vector)


# Random sets ----------------------------------------------------------------------------------------------------------


def test_as_many_weights_are_drawn_as_the_block_has() -> None:
    model = network()
    for like in ("head.*", "norm.bias", "*"):
        count_of = sum(value.numel() for name, value in model.named_parameters() if fnmatchcase(name, like))
        masks = [drawn_by(model, cl.random_rate(Constant(0.0), like, seed)) for seed in (0, 0, 1)]
        assert [sum(int(mask.sum()) for mask in each.values()) for each in masks] == [count_of] * 3
        assert same(masks[0], masks[1])
        assert same(masks[0], masks[2]) == (like == "*")


def test_every_weight_is_drawn_as_often_as_any_other() -> None:
    model, draws = network(), 1000
    parameters = dict(model.named_parameters())
    sizes = [value.numel() for value in parameters.values()]
    chosen, every = 290, sum(sizes)
    counts = torch.zeros(every)
    for seed in range(draws):
        counts += torch.cat([mask.flatten() for mask in _drawn(parameters, chosen, seed).values()])
    share = chosen / every
    # Without replacement the counts sum to a constant: one degree of freedom less, variances as of single draws.
    statistic = float((counts - draws * share).square().sum() / (draws * share * (1 - share)) * (every - 1) / every)
    assert chi2(every - 1).ppf(0.001) < statistic < chi2(every - 1).ppf(0.999)
    assert int(counts.sum()) == draws * chosen


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_all_drawn_is_the_rate_of_the_group(optimizer: str, dtype: torch.dtype) -> None:
    model = network().to(dtype)
    loader = [(x.to(dtype), y) for x, y in batches()]
    results = [
        train(model, chosen, loader=loader, **OPTIMIZERS[optimizer][0]).point.vector
        for chosen in (cl.random_rate(Warmup("5it"), "*", seed=2), cl.group_rate(Warmup("5it")))
    ]
    assert torch.equal(*results)


# Recipes --------------------------------------------------------------------------------------------------------------

BASE: Mapping[str, Any] = {
    "data": DataSpec(name="digits", n_train=600, n_validation=200, n_statistics=100, n_read=300, seed=100),
    "model": ModelSpec(name="mlp"), "optimizer": OptimizerSpec(lr=0.1), "epochs": 3, "batch_size": 50,
    "seeds": Seeds.of(1),
}  # fmt: skip
# A changed line here makes every stored run with that intervention another run.
PINNED: Mapping[str, tuple[Intervention, ...]] = {
    "train-9b73e596": (),
    "train-8bc8cce6": (cl.group_rate(Warmup("5it"), "head.*"),),
    "train-c25911ad": (cl.random_rate(Warmup("5it"), "head.*", 3),),
    "train-f5331dbc": (cl.freeze(("a", "b"), "1ep"),),
    "train-acd12345": (cl.clip(1.0),),
    "train-8a572832": (cl.label_smoothing(0.1),),
}


def test_interventions_are_part_of_a_recipes_identity() -> None:
    recipes = {name: TrainRecipe(**BASE, interventions=chosen) for name, chosen in PINNED.items()}
    assert {run_id(recipe): recipe.interventions for recipe in recipes.values()} == PINNED
    assert identity(TrainRecipe(**BASE)) == identity(TrainRecipe(**BASE, interventions=()))
    for change in (cl.clip(2.0), cl.freeze(("a", "b"), "1ep", norm="eval"), cl.freeze(("a", "b"), "1ep", begin="1it")):
        assert run_id(TrainRecipe(**BASE, interventions=(change,))) not in PINNED


@pytest.mark.parametrize("name", TABLE)
def test_a_recipe_comes_back_from_json(name: str) -> None:
    recipe = TrainRecipe(**BASE, interventions=TABLE[name].interventions)
    again = ADAPTER.validate_json(recipe.model_dump_json())
    assert again == recipe
    assert identity(again) == identity(recipe)
    assert again.interventions == TABLE[name].interventions


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"kind": "freeze", "params": "a", "end": "1ep", "unfreeze": True}, "unfreeze"),
        ({"kind": "thaw", "params": "a"}, "thaw"),
        ({"kind": "clip"}, "norm"),
        ({"kind": "clip", "norm": "inf"}, "finite"),
        (cl.clip(math.inf), "finite"),
        (cl.freeze("a", "1ep", norm="frozen"), "'train' or 'eval'"),  # type: ignore[arg-type]
        ({"kind": "group_rate", "schedule": {"kind": "warmup", "length": "5it", "shape": "cosine"}}, "shape"),
    ],
)
def test_recipes_know_every_key_of_an_intervention(wrong: Any, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TrainRecipe(**BASE, interventions=(wrong,))
