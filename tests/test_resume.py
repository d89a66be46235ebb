"""A training that was stopped anywhere and started again leaves the bytes of one that was not."""

import math
import random
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

import closerlook as cl
from closerlook import files
from closerlook.data import CropFlip, TensorBatches
from closerlook.errors import MismatchError, StateError, UsageError
from closerlook.schedules import Constant, Cosine, Warmup
from closerlook.training import TrainResult, checkpoint
from closerlook.training.checkpoint import Journal, StateFile
from closerlook.training.loop import Tick

STEPS, EPOCHS = 4, 3
TOTAL = STEPS * EPOCHS


class StoppedError(Exception):
    """What a test raises in place of a kill."""


class Counting(TensorBatches):
    """Our loader, which counts what it hands out."""

    given = 0

    def from_batch(self, start: int) -> Iterator[tuple[Tensor, Tensor]]:
        for batch in super().from_batch(start):
            self.given += 1
            yield batch


def batches(n: int = 30) -> Counting:
    source = torch.Generator().manual_seed(0)
    images, targets = torch.randn(n, 1, 8, 8, generator=source), torch.randint(0, 10, (n,), generator=source)
    return Counting(images, targets, 8, shuffle=True, augment=CropFlip(1))


def network(seed: int = 0, dropout: float = 0.5) -> nn.Module:
    """Channels_last, with batch norm and dropout: everything that a state must hold."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = OrderedDict(
            conv1=nn.Conv2d(1, 5, 3, padding=1), norm=nn.BatchNorm2d(5), relu=nn.ReLU(), pool=nn.MaxPool2d(2),
            conv2=nn.Conv2d(5, 7, 3), flatten=nn.Flatten(), dropout=nn.Dropout(dropout), head=nn.Linear(28, 10),
        )  # fmt: skip
        return nn.Sequential(layers).to(memory_format=torch.channels_last)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder, hidden ones too."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def by_factory(parameters: Iterable[Tensor]) -> Optimizer:
    return torch.optim.AdamW(parameters, lr=0.01)


Run = Callable[..., Any]


def train(out: Path | None, **settings: Any) -> TrainResult:
    model, loader = settings.pop("model", None) or network(), settings.pop("loader", None) or batches()
    defaults = {
        "epochs": EPOCHS, "schedule": Warmup("5it", Cosine()), "snapshots": ["3it", "1ep"], "forks": ["1ep"],
        "validation": batches(), "seed": 1, "lr": 0.1, "momentum": 0.9, "weight_decay": 0.01,
    }  # fmt: skip
    return cl.train(model, loader, out=out, **{**defaults, **settings})


def train_with_adam(out: Path, **settings: Any) -> TrainResult:
    return train(out, optimizer="adam", momentum=0.0, lr=0.01, **settings)


def train_by_factory(out: Path, **settings: Any) -> TrainResult:
    return train(out, optimizer=by_factory, lr=None, momentum=0.0, weight_decay=0.0, **settings)


def bad_batch() -> Tensor:
    """The images of step 6."""
    loader = batches()
    loader.set_epoch(1)
    return next(loader.from_batch(2))[0]


def train_diverging(out: Path, **settings: Any) -> TrainResult:
    """Diverges inside the second epoch, on a batch that a resumed run meets again."""
    bad = bad_batch()

    def batch_fn(model: nn.Module, batch: Any) -> cl.Output:
        output = cl.batches.classification(model, batch)
        return cl.Output(output.loss * (math.inf if torch.equal(batch[0], bad) else 1.0), output.outputs)

    return train(out, **settings, batch_fn=batch_fn)


def curve(out: Path, **settings: Any) -> cl.Subspace:
    model = network()
    a, b = (cl.WeightSpace(model).point(network(seed)) for seed in (1, 2))
    return cl.connect(
        model, a, b, batches(), bends=2, epochs=EPOCHS, lr=0.1, snapshots=["1ep"], seed=1, out=out, **settings
    )


RUNS: dict[str, Run] = {
    "sgd": train, "adam": train_with_adam, "factory": train_by_factory, "diverging": train_diverging, "curve": curve,
}  # fmt: skip


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict[str, bytes]]:
    """The files of every kind of run that nothing stopped; their states are written at the end only."""
    made: dict[str, dict[str, bytes]] = {}

    def files_of(kind: str) -> dict[str, bytes]:
        if kind not in made:
            folder = tmp_path_factory.mktemp(kind)
            RUNS[kind](folder)
            made[kind] = contents(folder)
        return made[kind]

    return files_of


OFTEN = ["every step", "every third step", "at the end"]


@pytest.fixture
def states(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How often the state is written: given by the test's parameters."""
    asked = count()
    often = {"every step": lambda _: True, "every third step": lambda _: next(asked) % 3 == 2, "at the end": None}
    if often[request.param] is not None:
        monkeypatch.setattr(StateFile, "due", often[request.param])
    return request.param


def stop_at(step: int) -> Callable[[Tick], None]:
    def observe(tick: Tick) -> None:
        if tick.step == step:
            raise StoppedError

    return observe


@pytest.mark.parametrize(
    ("kind", "states"),
    [*((kind, often) for kind in ("sgd", "diverging", "curve") for often in OFTEN),
     ("adam", "every step"), ("factory", "every step")],
    indirect=["states"],
)  # fmt: skip
@pytest.mark.parametrize("stops", [(0, 1, 4), (3, 6, 7), (5, 8, 12)])
def test_stopped_in_an_observer(
    kind: str, stops: tuple[int, ...], states: str, tmp_path: Path, uninterrupted: Callable[[str], dict[str, bytes]]
) -> None:
    for step in stops:
        # A run that diverges at step 6 does not come to the later stops.
        with suppress(StoppedError):
            RUNS[kind](tmp_path, observers=[stop_at(step)])
    RUNS[kind](tmp_path)
    assert contents(tmp_path) == uninterrupted(kind)


@pytest.mark.parametrize("kind", ["sgd", "curve"])
@pytest.mark.parametrize("number", [1, 3])
@pytest.mark.parametrize("states", OFTEN, indirect=True)
def test_stopped_directly_after_a_state(
    kind: str, number: int, states: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    uninterrupted: Callable[[str], dict[str, bytes]],
) -> None:  # fmt: skip
    write, written = StateFile.write, count(1)

    def stop(self: StateFile, *args: Any) -> None:
        write(self, *args)
        if next(written) == number:
            raise StoppedError

    with monkeypatch.context() as patched, suppress(StoppedError):
        patched.setattr(StateFile, "write", stop)
        RUNS[kind](tmp_path)
    RUNS[kind](tmp_path)
    assert contents(tmp_path) == uninterrupted(kind)


@pytest.mark.parametrize("kind", ["sgd", "diverging"])
@pytest.mark.parametrize(("row", "share"), [(1, 0.0), (2, 0.3), (2, 1.0), (3, 0.7)])
@pytest.mark.parametrize("states", ["every step", "at the end"], indirect=True)
def test_stopped_in_the_middle_of_a_line_of_the_journal(
    kind: str, row: int, share: float, states: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    uninterrupted: Callable[[str], dict[str, bytes]],
) -> None:  # fmt: skip
    added = count(1)
    add = Journal.add

    def half(self: Journal, entry: dict[str, Any]) -> None:
        path = tmp_path / "metrics.jsonl"
        before = path.read_bytes()
        add(self, entry)
        if next(added) == row:
            line = path.read_bytes()[len(before) :]
            path.write_bytes(before + line[: int(share * len(line))])
            raise StoppedError

    with monkeypatch.context() as patched, suppress(StoppedError):
        patched.setattr(Journal, "add", half)
        RUNS[kind](tmp_path)
    RUNS[kind](tmp_path)
    assert contents(tmp_path) == uninterrupted(kind)


def test_half_written_files_of_a_killed_attempt_go(
    tmp_path: Path, uninterrupted: Callable[[str], dict[str, bytes]]
) -> None:
    with pytest.raises(StoppedError):
        train(tmp_path, observers=[stop_at(5)])
    (tmp_path / ".state.safetensors.4711.tmp").write_bytes(b"half")
    (tmp_path / "checkpoints" / ".step-000003.safetensors.4711.tmp").write_bytes(b"half")
    train(tmp_path)
    assert contents(tmp_path) == uninterrupted("sgd")


def test_a_resumed_run_does_not_take_its_steps_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "INTERVAL", 0.0)
    loader = batches()
    with pytest.raises(StoppedError):
        train(tmp_path, loader=loader, observers=[stop_at(7)])
    assert loader.given == 8  # the first batch once more, to find the layout
    seen: list[int] = []
    train(tmp_path, loader=loader, observers=[lambda tick: seen.append(tick.step)])
    # Step 7 is shown again: the observer that was stopped in it may not have done its work.
    assert seen == [7, 8, 9, 10, 11, 12]
    assert loader.given == 14


@pytest.mark.parametrize("kind", ["sgd", "factory", "diverging"])
def test_a_finished_run_called_again_changes_no_byte_and_takes_no_step(kind: str, tmp_path: Path) -> None:
    first = RUNS[kind](tmp_path)
    before, loader = contents(tmp_path), batches()
    again = RUNS[kind](tmp_path, loader=loader)
    assert contents(tmp_path) == before
    assert loader.given == 0
    assert first.history == again.history
    assert first.diverged_at == again.diverged_at
    assert torch.equal(first.point.vector, again.point.vector)
    assert list(first.snapshots) == list(again.snapshots)
    assert all(torch.equal(first.snapshots[step].vector, again.snapshots[step].vector) for step in first.snapshots)


def test_a_folder_and_memory_give_the_same(tmp_path: Path) -> None:
    with_folder, without = train(tmp_path), train(None, forks=[])
    assert with_folder.history == without.history
    assert torch.equal(with_folder.point.vector, without.point.vector)
    assert with_folder.exact_resume


def test_what_diverged_says_so_once(tmp_path: Path) -> None:
    for _ in range(2):
        result = train_diverging(tmp_path)
        assert result.diverged_at == 6
        assert [row["step"] for row in result.history] == [4, 6]
        assert [("diverged" in row) for row in result.history] == [False, True]
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 2


@pytest.mark.parametrize("spoiled", ["weights", "data"])
def test_what_diverged_at_the_first_step_says_so_once(spoiled: str, tmp_path: Path) -> None:
    model, loader = network(), batches()
    if spoiled == "weights":
        model.get_parameter("head.bias").data.fill_(math.nan)
    else:
        loader.inputs.fill_(math.nan)
    for _ in range(2):
        result = train(tmp_path, model=model, loader=loader)
        assert result.diverged_at == 0
        assert result.history == ({"step": 0, "epoch": 0.0, "diverged": True},)
        assert list(result.snapshots) == ([] if spoiled == "weights" else [0])
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 1


@pytest.mark.parametrize("stop", [2, 4, 7])
def test_a_foreign_loader_goes_on_at_the_start_of_an_epoch(
    stop: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = batches()
    data = torch.utils.data.TensorDataset(whole.inputs, whole.targets)

    def foreign(folder: Path, *observers: Any) -> TrainResult:
        # An unseeded shuffle: its order comes from the global generator, which the loop seeds per epoch.
        loader = torch.utils.data.DataLoader(data, batch_size=8, shuffle=True)
        return train(folder, loader=loader, observers=observers)

    monkeypatch.setattr(checkpoint, "INTERVAL", 0.0)
    torch.manual_seed(5)
    result = foreign(tmp_path / "whole")
    assert not result.exact_resume
    with pytest.raises(StoppedError):
        foreign(tmp_path / "parts", stop_at(stop))
    torch.manual_seed(6)
    seen: list[int] = []
    foreign(tmp_path / "parts", lambda tick: seen.append(tick.step))
    # The state of step 4 is written after its observers: stopped in step 4, the run starts anew.
    assert seen[0] == {2: 1, 4: 1, 7: 5}[stop] - (1 if stop in (2, 4) else 0)
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")


class Augmented(torch.utils.data.Dataset[tuple[Tensor, Tensor]]):
    """Draws from the global generators of numpy and Python, as image transforms do."""

    def __init__(self) -> None:
        self.whole = batches()

    def __len__(self) -> int:
        return len(self.whole.inputs)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        noise = torch.from_numpy(np.random.normal(size=(1, 8, 8))).float()
        image = self.whole.inputs[index] + noise
        return image.flip(2) if random.random() < 0.5 else image, self.whole.targets[index]


def test_what_a_foreign_loader_draws_from_numpy_and_random_is_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(folder: str, *observers: Any, seed: int = 1) -> TrainResult:
        loader = torch.utils.data.DataLoader(Augmented(), batch_size=8, shuffle=True)
        return train(tmp_path / folder, loader=loader, observers=observers, seed=seed)

    monkeypatch.setattr(checkpoint, "INTERVAL", 0.0)
    np.random.seed(5)
    random.seed(5)
    before = np.random.get_state()[1].tolist(), random.getstate()
    whole = run("whole")
    assert (np.random.get_state()[1].tolist(), random.getstate()) == before
    np.random.seed(6)
    random.seed(6)
    with pytest.raises(StoppedError):
        run("parts", stop_at(7))
    run("parts")
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")
    assert not torch.equal(run("other", seed=2).point.vector, whole.point.vector)


def test_the_order_of_a_foreign_loader_changes_from_epoch_to_epoch_and_with_the_seed() -> None:
    whole = batches()
    data = torch.utils.data.TensorDataset(whole.inputs, whole.targets)

    def orders(seed: int) -> list[list[int]]:
        seen: list[int] = []

        def batch_fn(model: nn.Module, batch: Any) -> cl.Output:
            seen.extend(int((whole.inputs == image).flatten(1).all(1).nonzero()) for image in batch[0])
            return cl.batches.classification(model, batch)

        loader = torch.utils.data.DataLoader(data, batch_size=8, shuffle=True)
        train(None, loader=loader, seed=seed, batch_fn=batch_fn, validation=None, forks=[])
        del seen[:8]  # the batch on which the layout was tried
        return [seen[epoch * 30 : (epoch + 1) * 30] for epoch in range(EPOCHS)]

    first = orders(1)
    assert all(sorted(order) == list(range(30)) for order in first)
    assert first[0] != first[1] != first[2]
    assert first == orders(1)
    assert first != orders(2)


@pytest.mark.parametrize("optimizer", [{}, {"optimizer": "adam", "momentum": 0.0, "lr": 0.01}])
def test_a_fork_with_the_same_schedule_repeats_its_trunk_to_the_last_bit(
    optimizer: dict[str, Any], tmp_path: Path
) -> None:
    settings = {"schedule": Constant(), **optimizer}
    trunk = train(tmp_path / "trunk", **settings)
    start = tmp_path / "trunk" / "checkpoints" / "fork-000004.safetensors"
    branch = train(tmp_path / "branch", model=network(9), start=start, epochs=EPOCHS - 1, forks=[], **settings)
    assert torch.equal(trunk.point.vector, branch.point.vector)
    for name, buffer in trunk.point.buffers.items():
        assert torch.equal(buffer, branch.point.buffers[name]), name
    same = ("epoch", "loss", "lr", "weight_norm", "validation_loss")
    expected = [[row[name] for name in same] for row in trunk.history[1:]]
    assert [[row[name] for name in same] for row in branch.history] == expected
    assert [row["step"] for row in branch.history] == [4, 8]


def test_a_fork_that_is_stopped_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(tmp_path / "trunk")
    start = tmp_path / "trunk" / "checkpoints" / "fork-000004.safetensors"
    train(tmp_path / "whole", start=start)
    monkeypatch.setattr(checkpoint, "INTERVAL", 0.0)
    with pytest.raises(StoppedError):
        train(tmp_path / "parts", start=start, observers=[stop_at(6)])
    start.unlink()  # the state is enough
    train(tmp_path / "parts", start=start)
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")


def test_a_fork_into_another_memory_format_takes_the_momentum_of_each_weight(tmp_path: Path) -> None:
    train(tmp_path, schedule=Constant())
    start = tmp_path / "checkpoints" / "fork-000004.safetensors"
    plain = network(dropout=0.0).to(memory_format=torch.contiguous_format)
    first, second = (
        train(None, model=model, start=start, epochs=1, forks=[], schedule=Constant(), lr=1e-3).point.vector
        for model in (network(dropout=0.0), plain)
    )
    begun = cl.WeightSpace(plain).point(
        {name[6:]: value for name, value in files.read_tensors(start)[0].items() if name.startswith("model.")}
    )
    moved = torch.linalg.vector_norm(first - begun.vector)
    assert torch.linalg.vector_norm(first - second) < 1e-3 * moved


def test_the_state_of_an_optimizer_comes_back_in_each_weights_own_memory_format() -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    cl.batches.classification(model, next(iter(batches()))).loss.mean().backward()
    optimizer.step()
    saved = {name: value.contiguous() for name, value in checkpoint.optimizer_tensors(optimizer).items()}
    other = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    checkpoint.load_optimizer(other, saved)
    for value in model.parameters():
        momentum = other.state[value]["momentum_buffer"]
        assert torch.equal(momentum, optimizer.state[value]["momentum_buffer"])
        assert momentum.stride() == torch.empty_like(value).stride()


def test_a_snapshot_is_no_fork(tmp_path: Path) -> None:
    train(tmp_path)
    with pytest.raises(UsageError, match=r"is not a fork.*fork-\*\.safetensors"):
        train(None, start=tmp_path / "checkpoints" / "step-000004.safetensors", forks=[])


def test_an_optimizer_of_more_parameters_is_refused(tmp_path: Path) -> None:
    train_by_factory(tmp_path)
    model = network()
    for name, value in model.named_parameters():
        value.requires_grad_(name == "head.bias")
    with pytest.raises(MismatchError, match="trained more parameters"):
        train(None, model=model, start=tmp_path / "checkpoints" / "fork-000004.safetensors", forks=[])


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"lr": 0.2}, "lr"), ({"momentum": 0.5}, "momentum"), ({"weight_decay": 0.0}, "weight_decay"),
        ({"epochs": 4}, "epochs"), ({"schedule": Constant()}, "schedule"), ({"seed": 2}, "seed"),
        ({"snapshots": ["2ep"]}, "snapshots"), ({"forks": []}, "forks"), ({"loader": batches(50)}, "steps_per_epoch"),
        ({"optimizer": "adam", "momentum": 0.0}, "optimizer and momentum"),
    ],
)  # fmt: skip
def test_another_training_in_the_same_folder_is_refused(change: dict[str, Any], named: str, tmp_path: Path) -> None:
    train(tmp_path)
    before = contents(tmp_path)
    with pytest.raises(UsageError, match=rf"another .*{named}.*folder of its own"):
        train(tmp_path, **change)
    assert contents(tmp_path) == before


def test_leftovers_of_another_attempt_without_a_state_do_not_stay(tmp_path: Path) -> None:
    with pytest.raises(StoppedError):
        train(tmp_path / "used", model=network(7), lr=0.5, observers=[stop_at(6)])
    train(tmp_path / "used")
    train(tmp_path / "fresh")
    assert contents(tmp_path / "used") == contents(tmp_path / "fresh")


def test_the_rows_before_a_state_are_on_the_disk_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    sync, write = Journal.sync, StateFile.write
    monkeypatch.setattr(Journal, "sync", lambda self: (calls.append("rows"), sync(self))[1])
    monkeypatch.setattr(StateFile, "write", lambda self, *args: (calls.append("state"), write(self, *args))[1])
    monkeypatch.setattr(StateFile, "due", lambda self: True)
    train(tmp_path)
    assert calls == ["rows", "rows", "state"] * (TOTAL + 1)  # the metrics, and what observers gave


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-9] ^= 2
    path.write_bytes(content)


def other_row(path: Path) -> None:
    path.write_text(path.read_text().replace('"loss": ', '"loss": 1', 1))


def no_row(path: Path) -> None:
    path.write_text("[3]\n" + path.read_text())


STATE, ROWS, POINT = "state.safetensors", "metrics.jsonl", "checkpoints/step-000003.safetensors"


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        (STATE, cut), (STATE, flip), (STATE, empty), (ROWS, Path.unlink), (ROWS, cut), (ROWS, other_row),
        (ROWS, no_row), (POINT, Path.unlink), (POINT, cut), (POINT, flip),
    ],
)  # fmt: skip
def test_damage_before_a_state_is_named_with_its_repair(
    name: str, damage: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    uninterrupted: Callable[[str], dict[str, bytes]],
) -> None:  # fmt: skip
    with monkeypatch.context() as patched, suppress(StoppedError):
        patched.setattr(StateFile, "due", lambda self: True)
        train(tmp_path, observers=[stop_at(9)])
    damage(tmp_path / name)
    with pytest.raises(StateError, match=r"state\.safetensors.*; delete it, and the same call starts from the beg"):
        train(tmp_path)
    (tmp_path / STATE).unlink()
    train(tmp_path)
    assert contents(tmp_path) == uninterrupted("sgd")


def test_a_state_of_another_kind_is_no_crash(tmp_path: Path) -> None:
    files.write_tensors(tmp_path / STATE, {"weight": torch.ones(2)}, {"call": {}})
    with pytest.raises(StateError, match="another version of closerlook"):
        train(tmp_path)
