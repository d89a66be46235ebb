"""The loop is a plain PyTorch loop, to the last bit; what it keeps, what it refuses, and what it leaves alone."""

import copy
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer

import closerlook as cl
from closerlook.data import CropFlip, TensorBatches
from closerlook.errors import LoaderError, UsageError
from closerlook.files import read_tensors
from closerlook.models import build
from closerlook.schedules import Constant, LinearDecay, Schedule
from closerlook.training import TrainResult
from closerlook.training.loop import Tick, mixed_seed

STEPS, EPOCHS = 4, 3


def digits(n: int = 30, **options: Any) -> TensorBatches:
    """30 drawn images in 4 batches, the last one smaller."""
    source = torch.Generator().manual_seed(0)
    images, targets = torch.randn(n, 1, 8, 8, generator=source), torch.randint(0, 10, (n,), generator=source)
    return TensorBatches(images, targets, 8, shuffle=True, augment=CropFlip(1), **options)


def network(kind: str, seed: int = 0) -> nn.Module:
    """Odd sizes, so that no vector instruction divides them; VGG is channels_last with dropout and batch norm."""
    if kind == "mlp":
        return build("mlp", in_features=64, hidden=(7, 5), seed=seed)
    return build("vgg11_bn", width=0.05, in_channels=1, image_size=8, init="he", seed=seed)


def plain(
    model: nn.Module, loader: TensorBatches, make: Callable[[nn.Module], Optimizer], schedule: Schedule, seed: int = 0
) -> nn.Module:
    """The loop that a PyTorch user writes, with one seed per step."""
    model = copy.deepcopy(model).train()
    optimizer = make(model)
    bases = [group["lr"] for group in optimizer.param_groups]
    factor = schedule.factor(cl.durations.Clock(len(loader), EPOCHS * len(loader)))
    step = 0
    for epoch in range(EPOCHS):
        loader.set_epoch(epoch)
        for x, y in loader:
            for group, base in zip(optimizer.param_groups, bases, strict=True):
                group["lr"] = base * factor(step)
            torch.manual_seed(mixed_seed(seed, step))
            optimizer.zero_grad()
            functional.cross_entropy(model(x), y, reduction="none").mean().backward()
            optimizer.step()
            step += 1
    return model


def same(left: Any, right: Any) -> bool:
    left, right = (value.state_dict() if isinstance(value, nn.Module) else value for value in (left, right))
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def state_of(model: nn.Module, result: TrainResult) -> dict[str, Tensor]:
    return cl.WeightSpace(model).state_dict(result.point)


NAMED: dict[str, tuple[dict[str, Any], Callable[[nn.Module], Optimizer]]] = {
    "sgd": (
        {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01},
        lambda model: torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01),
    ),
    "adam": (
        {"optimizer": "adam", "lr": 0.01, "weight_decay": 0.01},
        lambda model: torch.optim.Adam(model.parameters(), lr=0.01, weight_decay=0.01),
    ),
}


@pytest.mark.parametrize("kind", ["mlp", "vgg"])
@pytest.mark.parametrize("optimizer", NAMED)
def test_training_is_a_plain_loop_to_the_last_bit(kind: str, optimizer: str) -> None:
    model, schedule = network(kind), LinearDecay(final=0.1)
    settings, make = NAMED[optimizer]
    result = cl.train(model, digits(), epochs=EPOCHS, schedule=schedule, seed=3, **settings)
    assert same(state_of(model, result), plain(model, digits(), make, schedule, seed=3))
    assert not same(state_of(model, result), model)


class Branching(nn.Module):
    """A network of which every batch reaches one of two heads."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = nn.ModuleList(nn.Linear(64, 10) for _ in range(2))
        self.used: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        chosen = int(1000 * x.double().sum().abs()) % 2
        self.used.append(chosen)
        return self.heads[chosen](x.flatten(1))


@pytest.mark.parametrize("optimizer", NAMED)
def test_what_a_step_does_not_reach_stays_as_in_a_plain_loop(optimizer: str) -> None:
    model = Branching()
    settings, make = NAMED[optimizer]
    result = cl.train(model, digits(), epochs=EPOCHS, seed=3, **settings)
    assert same(state_of(model, result), plain(model, digits(), make, Constant(), seed=3))
    heads = copy.deepcopy(model)
    for x, _ in digits():
        heads(x)
    assert len(set(heads.used)) == 2


def two_groups(parameters: Iterable[Tensor]) -> Optimizer:
    """Weights with decay, biases and norms without it and at a tenth of the rate."""
    values = list(parameters)
    weights, others = [v for v in values if v.ndim > 1], [v for v in values if v.ndim <= 1]
    groups = [{"params": weights, "weight_decay": 0.1}, {"params": others, "lr": 0.01}]
    return torch.optim.SGD(groups, lr=0.1, momentum=0.9)


def test_the_schedule_reaches_every_group_of_a_factory() -> None:
    model, schedule = network("vgg"), LinearDecay(final=0.0)
    seen: list[list[float]] = []
    made: list[Optimizer] = []

    def factory(parameters: Iterable[Tensor]) -> Optimizer:
        made.append(two_groups(parameters))
        return made[0]

    def look(tick: Tick) -> None:
        if tick.step:
            seen.append([group["lr"] for group in made[0].param_groups])

    result = cl.train(model, digits(), factory, epochs=EPOCHS, schedule=schedule, observers=[look])
    total = EPOCHS * STEPS
    expected = [[base * (1 - step / total) for base in (0.1, 0.01)] for step in range(total)]
    assert torch.allclose(torch.tensor(seen), torch.tensor(expected))
    assert same(state_of(model, result), plain(model, digits(), lambda m: two_groups(m.parameters()), schedule))


def test_settings_beside_a_factory_are_refused() -> None:
    for settings in ({"lr": 0.1}, {"momentum": 0.9}, {"weight_decay": 0.1}):
        with pytest.raises(UsageError, match="leave them out"):
            cl.train(network("mlp"), digits(), two_groups, epochs=1, **settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lr": None}, "pass lr"),
        ({"optimizer": "lion", "lr": 0.1}, "choose one of sgd, adam, adamw, or pass a factory"),
        ({"optimizer": "adam", "lr": 0.1, "momentum": 0.9}, "adam has no momentum"),
        ({"lr": -0.1}, "at least 0, not lr=-0.1"),
        ({"lr": 0.1, "momentum": float("nan"), "weight_decay": -1.0}, "not momentum=nan, weight_decay=-1"),
        ({"lr": 0.1, "epochs": 0}, "no step to take"),
        ({"lr": 0.1, "snapshots": ["4ep"]}, "at step 16 lies after the end, step 12"),
        ({"lr": 0.1, "forks": ["13it"]}, "at step 13 lies after the end, step 12"),
        ({"lr": 0.1, "forks": ["5it"], "out": "x"}, "step 5 lies inside an epoch.*multiple of 4"),
        ({"lr": 0.1, "forks": ["1ep"]}, "pass out"),
    ],
)
def test_what_cannot_work_is_refused_before_the_first_step(
    settings: dict[str, Any], message: str, tmp_path: Path
) -> None:
    if "out" in settings:
        settings = {**settings, "out": tmp_path / "x"}
    ticks: list[Tick] = []
    with pytest.raises(UsageError, match=message):
        cl.train(network("mlp"), digits(), observers=[ticks.append], **{"epochs": EPOCHS, **settings})
    assert ticks == []
    assert list(tmp_path.iterdir()) == []


def test_the_callers_things_come_back_as_they_were() -> None:
    model, loader = network("vgg").eval(), digits()
    model.get_parameter("head.fc1.weight").grad = torch.ones_like(model.get_parameter("head.fc1.weight"))
    loader.set_epoch(17)
    before = copy.deepcopy(model.state_dict())
    pointers = [value.data_ptr() for value in model.parameters()]
    torch.manual_seed(5)
    generator = torch.get_rng_state()

    def stop(tick: Tick) -> None:
        if tick.step == 6:
            raise KeyboardInterrupt

    for observers in ((), (stop,)):
        try:
            cl.train(model, loader, epochs=EPOCHS, lr=0.1, observers=observers)
        except KeyboardInterrupt:
            assert observers
        assert same(before, model)
        assert pointers == [value.data_ptr() for value in model.parameters()]
        assert not any(module.training for module in model.modules())
        assert [name for name, value in model.named_parameters() if value.grad is not None] == ["head.fc1.weight"]
        assert torch.equal(generator, torch.get_rng_state())
        assert loader.epoch == 17


def test_frozen_parameters_stay_and_the_others_are_trained_as_in_a_plain_loop() -> None:
    model = network("mlp")
    for name, value in model.named_parameters():
        value.requires_grad_("fc2" not in name)
    settings, _ = NAMED["sgd"]
    result = cl.train(model, digits(), epochs=EPOCHS, **settings)
    trained = state_of(model, result)
    assert [name for name in trained if torch.equal(trained[name], model.state_dict()[name])] == [
        "fc2.weight",
        "fc2.bias",
    ]
    expected = plain(
        model, digits(),
        lambda m: torch.optim.SGD(
            [v for v in m.parameters() if v.requires_grad], lr=0.1, momentum=0.9, weight_decay=0.01
        ),
        Constant(),
    )  # fmt: skip
    assert same(trained, expected)
    assert [value.requires_grad for value in model.parameters()] == [True, True, False, False, True, True]


def test_the_history_has_a_row_per_epoch_that_can_be_checked() -> None:
    model, loader = network("mlp"), digits()
    losses: list[float] = []
    result = cl.train(
        model, digits(), epochs=EPOCHS, lr=0.1, schedule=LinearDecay(final=0.0), validation=loader,
        observers=[lambda tick: losses.append(tick.loss)],
    )  # fmt: skip
    assert [row["step"] for row in result.history] == [4, 8, 12]
    assert [row["epoch"] for row in result.history] == [1.0, 2.0, 3.0]
    assert [row["lr"] for row in result.history] == pytest.approx([0.1 * (1 - step / 12) for step in (3, 7, 11)])
    assert [row["loss"] for row in result.history] == pytest.approx(
        [sum(losses[first : first + STEPS]) / STEPS for first in (1, 5, 9)]
    )
    model.load_state_dict(state_of(model, result))
    found = cl.evaluate(model, loader)
    assert result.history[-1]["validation_loss"] == found.loss
    assert result.history[-1]["validation_accuracy"] == found.accuracy
    assert result.history[-1]["weight_norm"] == pytest.approx(float(result.point.vector.double().norm()))
    assert list(result.to_frame()["step"]) == [4, 8, 12]
    assert result.to_dict()["diverged_at"] is None


def test_snapshots_and_forks_are_those_of_their_times(tmp_path: Path) -> None:
    model = network("vgg")
    seen: dict[int, Tensor] = {}
    space = cl.WeightSpace(model)

    def run(epochs: int, **settings: Any) -> TrainResult:
        return cl.train(model, digits(), epochs=epochs, lr=0.1, momentum=0.9, **settings)

    result = run(EPOCHS, snapshots=["1ep", "5it", "0.5dur"], forks=["2ep"], out=tmp_path)
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    steps = [0, 4, 5, 6, 12]
    assert names == ["fork-000008.safetensors", *(f"step-{step:06d}.safetensors" for step in steps)]
    assert list(result.snapshots) == steps
    for step, point in result.snapshots.items():
        stored, note = read_tensors(tmp_path / "checkpoints" / f"step-{step:06d}.safetensors")
        assert torch.equal(space.point(stored).vector, point.vector)
        assert (note["step"], note["epoch"]) == (step, step / STEPS)
        seen[step] = point.vector
    assert torch.equal(seen[0], space.point(model).vector)
    assert torch.equal(seen[12], result.point.vector)
    assert torch.equal(seen[4], run(1).point.vector)
    assert len({tuple(vector[:50].tolist()) for vector in seen.values()}) == len(steps)


def test_the_initial_checkpoint_is_written_once_and_never_again(tmp_path: Path) -> None:
    model, first = network("mlp"), tmp_path / "checkpoints" / "step-000000.safetensors"
    found: list[tuple[int, int, bytes]] = []

    def look(tick: Tick) -> None:
        if tick.step:
            found.append((first.stat().st_ino, first.stat().st_mtime_ns, first.read_bytes()))

    for _ in range(2):
        cl.train(model, digits(), epochs=EPOCHS, lr=0.1, out=tmp_path, observers=[look])
    look(Tick(1, 1, 1))
    assert len(found) == EPOCHS * STEPS + 1
    assert len(set(found)) == 1
    assert same(read_tensors(first)[0], model)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_divergence_is_an_outcome_with_its_step(optimizer: str, tmp_path: Path) -> None:
    ticks: list[tuple[int, bool]] = []
    result = cl.train(
        network("mlp"), digits(), optimizer, epochs=EPOCHS, lr=1e25, snapshots=["1it", "2ep"], out=tmp_path,
        observers=[lambda tick: ticks.append((tick.step, tick.diverged))],
    )  # fmt: skip
    step = result.diverged_at
    assert step is not None
    assert 0 < step < EPOCHS * STEPS
    assert result.history[-1] == {"step": step, "epoch": step / STEPS, "diverged": True}
    assert ticks == [*((number, False) for number in range(step + 1)), (step, True)]
    assert set(result.snapshots) == {kept for kept in (0, 1, 8, 12) if kept <= step}
    assert not (tmp_path / "checkpoints" / "step-000012.safetensors").exists()
    assert "diverged" not in result.history[0] or len(result.history) == 1


@pytest.mark.parametrize(("at", "kept", "diverged_at"), [(5, ["5it"], 5), (5, [], 5), (12, [], 12), (4, ["1ep"], 4)])
def test_weights_that_are_not_finite_are_never_kept(at: int, kept: list[str], diverged_at: int, tmp_path: Path) -> None:
    class Spoiling(torch.optim.SGD):
        """Its step number `at` gives infinite weights, though every loss so far was finite."""

        taken = 0

        def step(self, closure: Any = None) -> None:
            super().step(closure)
            self.taken += 1
            if self.taken == at:
                self.param_groups[0]["params"][0].data.fill_(torch.inf)

    result = cl.train(
        network("mlp"), digits(), lambda parameters: Spoiling(parameters, lr=0.1), epochs=EPOCHS, snapshots=kept,
        forks=["1ep"], out=tmp_path,
    )  # fmt: skip
    assert result.diverged_at == diverged_at
    assert result.history[-1] == {"step": diverged_at, "epoch": diverged_at / STEPS, "diverged": True}
    assert len([row for row in result.history if row["step"] == diverged_at]) == 1
    assert list(result.snapshots) == [0]
    assert [path.name for path in sorted((tmp_path / "checkpoints").iterdir())] == [
        *(["fork-000004.safetensors"] if at > 4 else []),
        "step-000000.safetensors",
    ]


def test_what_the_model_draws_follows_from_the_seed_alone() -> None:
    model = network("vgg")

    def run(seed: int, noise: bool = False) -> Tensor:
        torch.manual_seed(99 if noise else 1)
        draw = [lambda tick: torch.rand(3)] if noise else []
        return cl.train(model, digits(), epochs=1, lr=0.1, seed=seed, observers=draw).point.vector

    assert torch.equal(run(0), run(0, noise=True))
    assert not torch.equal(run(0), run(1))


def test_a_model_without_dropout_does_not_depend_on_the_seed() -> None:
    first, second = (cl.train(network("mlp"), digits(), epochs=1, lr=0.1, seed=seed).point.vector for seed in (0, 1))
    assert torch.equal(first, second)


def test_order_and_augmentation_are_the_loaders() -> None:
    def run(**seeds: int) -> Tensor:
        return cl.train(network("mlp"), digits(**seeds), epochs=1, lr=0.1).point.vector

    assert torch.equal(run(), run(order_seed=0, augment_seed=0))
    assert not torch.equal(run(), run(order_seed=1))
    assert not torch.equal(run(), run(augment_seed=1))


def test_autocast_trains_and_differs() -> None:
    full, low = (
        cl.train(network("mlp"), digits(), epochs=1, lr=0.1, autocast=kind).point.vector
        for kind in (None, torch.bfloat16)
    )
    assert low.dtype == torch.float32
    assert not torch.equal(full, low)
    assert torch.allclose(full, low, atol=0.01)


class Promising:
    """A loader whose length says more, or less, than it gives; it stops a loop that would not end."""

    def __init__(self, length: int, given: int) -> None:
        self.length, self.given, self.passes = length, given, 0

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        self.passes += 1
        assert self.passes < 10
        yield from ((torch.ones(2, 64), torch.tensor([0, 1])) for _ in range(self.given))


@pytest.mark.parametrize("given", [0, 2])
def test_a_loader_that_gives_less_than_its_length_is_refused(given: int) -> None:
    with pytest.raises(LoaderError, match=rf"gave {given} batches in epoch 0 and has a length of 4"):
        cl.train(network("mlp"), Promising(4, given), epochs=2, lr=0.1)


def test_an_epoch_is_as_long_as_the_loaders_length() -> None:
    loader = Promising(2, 5)
    result = cl.train(network("mlp"), loader, epochs=3, lr=0.1)
    assert loader.passes == 3
    assert [row["step"] for row in result.history] == [2, 4, 6]


def test_loaders_that_cannot_be_trained_on_are_refused() -> None:
    class Endless(torch.utils.data.IterableDataset[Tensor]):
        def __iter__(self) -> Iterator[Tensor]:
            return iter([])

    class Bare:
        def __iter__(self) -> Iterator[Tensor]:
            return iter([])

    for loader in (torch.utils.data.DataLoader(Endless()), Bare()):
        with pytest.raises(LoaderError, match="a loader with a length"):
            cl.train(network("mlp"), loader, epochs=1, lr=0.1)
    with pytest.raises(LoaderError, match="one-shot"):
        cl.train(network("mlp"), iter(digits()), epochs=1, lr=0.1)
