"""Distillation: the loss against its formula, trainings beside a plain PyTorch loop, live and fixed soft targets."""

import copy
import math
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import closerlook as cl
from closerlook.batches import classification, without_extra
from closerlook.data import TensorBatches, permuted_within_class
from closerlook.data.augment import CropFlip
from closerlook.errors import LoaderError, UsageError
from closerlook.schedules import Constant
from closerlook.training import TrainResult
from closerlook.training.checkpoint import StateFile
from closerlook.training.interventions import Intervention
from closerlook.training.interventions.distil import soft_loss
from closerlook.training.loop import Tick, mixed_seed
from untouched import everything, same

EPOCHS, STEPS = 2, 4
SETTINGS: Mapping[str, Any] = {"lr": 0.1, "momentum": 0.9, "epochs": EPOCHS, "seed": 1}


class StoppedError(Exception):
    """What a test raises in place of a kill."""


def batches(extra: Tensor | None = None, **settings: Any) -> TensorBatches:
    """30 drawn images in 4 batches, the last one smaller."""
    source = torch.Generator().manual_seed(0)
    images = torch.randn(30, 1, 8, 8, generator=source, dtype=torch.float64)
    targets = torch.randint(0, 4, (30,), generator=source)
    return TensorBatches(images, targets, 8, **{"shuffle": True, "extra": extra, **settings})


def network(seed: int = 0, width: int = 5) -> nn.Module:
    """Batch norm and dropout, in float64."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = OrderedDict(
            body=nn.Conv2d(1, width, 3, padding=1, bias=False), norm=nn.BatchNorm2d(width), tanh=nn.Tanh(),
            pool=nn.AvgPool2d(4), flatten=nn.Flatten(), dropout=nn.Dropout(0.3), head=nn.Linear(4 * width, 4),
        )  # fmt: skip
        nn.init.normal_(layers["norm"].running_mean)
        return nn.Sequential(layers).double()


def loud(seed: int = 7) -> nn.Module:
    """A wider teacher that is left in training mode; its answers are far from uniform."""
    teacher = network(seed, width=9)
    with torch.no_grad():
        teacher.get_submodule("head").weight.mul_(10)
    return teacher.train()


def train(*interventions: Intervention, model: nn.Module | None = None, **settings: Any) -> TrainResult:
    loader = settings.pop("loader", None) or batches()
    return cl.train(model or network(), loader, interventions=interventions, **{**SETTINGS, **settings})


def difference(one: TrainResult, two: TrainResult | Tensor) -> float:
    """The largest difference of two outcomes, beside 1."""
    other = two if isinstance(two, Tensor) else two.point.vector
    return float(((one.point.vector - other).abs() / other.abs().clamp_min(1.0)).max())


# The loss -------------------------------------------------------------------------------------------------------------

TEMPERATURES = st.floats(0.5, 20.0)


def drawn(seed: int, n: int = 5, classes: int = 7) -> tuple[Tensor, Tensor]:
    """Logits of a student, which want a gradient, and of a teacher."""
    source = torch.Generator().manual_seed(seed)
    student, teacher = 4 * torch.randn(2, n, classes, generator=source, dtype=torch.float64)
    return student.requires_grad_(), teacher


@given(st.integers(0, 1000), TEMPERATURES)
def test_the_soft_loss_is_its_formula(seed: int, temperature: float) -> None:
    student, teacher = drawn(seed)
    p, q = torch.softmax(teacher / temperature, 1), torch.softmax(student / temperature, 1)
    expected = temperature**2 * (p * (p / q).log()).sum(1)
    found = soft_loss(student, teacher, temperature)
    # Sums of a few numbers near 1, times T^2: a hundred roundings.
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-14 * temperature**2)
    (gradient,) = torch.autograd.grad(found.sum(), student)
    torch.testing.assert_close(gradient, temperature * (q - p), rtol=1e-11, atol=1e-14 * temperature)


@given(st.integers(0, 1000))
def test_at_temperature_1_it_is_cross_entropy_less_a_constant_in_the_student(seed: int) -> None:
    student, teacher = drawn(seed)
    targets = torch.softmax(teacher, 1)
    crossed = nn.functional.cross_entropy(student, targets, reduction="none")
    entropy = torch.distributions.Categorical(targets).entropy()
    torch.testing.assert_close(soft_loss(student, teacher, 1.0), crossed - entropy, rtol=1e-12, atol=1e-12)
    slopes = [torch.autograd.grad(x.sum(), student)[0] for x in (soft_loss(student, teacher, 1.0), crossed)]
    torch.testing.assert_close(*slopes, rtol=1e-12, atol=1e-13)


@given(st.integers(0, 1000))
def test_for_large_temperatures_it_is_the_regression_of_centred_logits(seed: int) -> None:
    student, teacher = drawn(seed)
    apart = (student - student.mean(1, keepdim=True)) - (teacher - teacher.mean(1, keepdim=True))
    expected = apart.square().sum(1) / (2 * student.shape[1])
    limit = apart.detach() / student.shape[1]
    errors = []
    for temperature in (1e3, 1e4):
        found = soft_loss(student, teacher, temperature)
        (gradient,) = torch.autograd.grad(found.sum(), student)
        errors.append(float((gradient - limit).abs().max()))
        # The next terms are of third order in logits that reach about 15, over T.
        torch.testing.assert_close(found, expected, rtol=0, atol=15**3 / temperature)
    assert errors[1] < 0.11 * errors[0]  # the error falls as 1 / T
    assert errors[1] < 15**2 / 1e4


@given(st.integers(0, 1000), TEMPERATURES)
def test_a_copy_of_the_teacher_has_no_loss_and_no_gradient(seed: int, temperature: float) -> None:
    student, _ = drawn(seed)
    found = soft_loss(student, student.detach(), temperature)
    assert torch.equal(found, torch.zeros_like(found))
    (gradient,) = torch.autograd.grad(found.sum(), student)
    assert float(gradient.abs().max()) <= 4 * temperature * torch.finfo(torch.float64).eps


# Trainings ------------------------------------------------------------------------------------------------------------


def plain(teacher: nn.Module, temperature: float, mixing: float, **loader: Any) -> Tensor:
    """What a PyTorch user would write: the weights after the training."""
    model, teacher = network().train(), copy.deepcopy(teacher).eval()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    images = batches(**loader)
    for step in range(EPOCHS * STEPS):
        images.set_epoch(step // STEPS)
        x, y = next(images.from_batch(step % STEPS))
        torch.manual_seed(mixed_seed(1, step))
        optimizer.zero_grad()
        logits = model(x)
        with torch.no_grad():
            answered = teacher(x.clone(memory_format=torch.contiguous_format))
            targets = torch.softmax(answered / temperature, 1)
        hard = nn.functional.cross_entropy(logits, y)
        soft = nn.functional.kl_div(torch.log_softmax(logits / temperature, 1), targets, reduction="batchmean")
        ((1 - mixing) * hard + mixing * temperature**2 * soft).backward()
        optimizer.step()
    return cl.WeightSpace(model).point(model).vector


@pytest.mark.parametrize("augment", [None, CropFlip(padding=1)])
@pytest.mark.parametrize(("temperature", "mixing"), [(4.0, 0.9), (1.0, 0.5), (50.0, 1.0)])
def test_trains_as_a_plain_loop(temperature: float, mixing: float, augment: Any) -> None:
    loader = {"augment": augment}
    found = train(cl.distil(loud(), temperature, mixing), loader=batches(**loader))
    assert difference(found, plain(loud(), temperature, mixing, **loader)) < 1e-12
    assert difference(found, train(loader=batches(**loader))) > 1e-3


def test_without_mixing_it_is_a_plain_training_to_the_last_bit() -> None:
    found, bare = train(cl.distil(loud(), mixing=0.0), validation=batches()), train(validation=batches())
    assert torch.equal(found.point.vector, bare.point.vector)
    assert found.history == bare.history


def test_with_the_teacher_alone_labels_say_nothing() -> None:
    other = batches()
    other.targets = (other.targets + 1) % 4
    chosen = cl.distil(loud(), mixing=1.0)
    assert torch.equal(train(chosen).point.vector, train(chosen, loader=other).point.vector)


def without_statistics(seed: int = 0) -> nn.Module:
    """One that computes the same in both modes."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 6), nn.Tanh(), nn.Linear(6, 4)).double()


def test_a_student_that_is_its_teacher_stays_where_it_is() -> None:
    model = without_statistics()
    still, other = (train(cl.distil(without_statistics(seed), mixing=1.0), model=model) for seed in (0, 1))
    start = cl.WeightSpace(model).point(model).vector
    assert difference(still, start) < 1e-13
    assert max(abs(row["loss"]) for row in still.history) < 1e-14  # it is a sum of terms near 1
    assert difference(other, start) > 1e-2


def test_composes_with_the_others() -> None:
    """Smoothing changes the part of the labels when it comes first, the whole when it comes last."""
    teacher, (x, y) = without_statistics(7), next(iter(batches()))
    logits = without_statistics()(x)
    hard, soft = nn.functional.cross_entropy(logits, y), soft_loss(logits, teacher(x), 2.0).mean()
    uniform = -logits.log_softmax(1).mean()
    pair = cl.label_smoothing(0.1), cl.distil(teacher, 2.0, 0.75)
    one = {"model": without_statistics(), "loader": [(x, y)], "epochs": 1}
    losses = [train(*chosen, **one).history[0]["loss"] for chosen in (pair, pair[::-1])]
    smoothed = 0.9 * hard + 0.1 * uniform
    expected = [0.25 * smoothed + 0.75 * soft, 0.9 * (0.25 * hard + 0.75 * soft) + 0.1 * uniform]
    assert losses == pytest.approx([value.item() for value in expected], rel=1e-12)


ALL: tuple[Intervention, ...] = (
    cl.label_smoothing(0.1), cl.freeze("body.*", end="3it"), cl.group_rate(Constant(0.5), "head.*"), cl.clip(1.0),
)  # fmt: skip


def test_a_frozen_block_stays_frozen() -> None:
    model = network()
    result = train(*ALL, cl.distil(loud()), model=model, snapshots=["3it", "4it"])
    states = [cl.WeightSpace(model).state_dict(result.snapshots[step])["body.weight"] for step in (0, 3, 4)]
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[1], states[2])


# The teacher ----------------------------------------------------------------------------------------------------------


def test_the_teacher_is_untouched_by_several_runs() -> None:
    teacher = loud()
    teacher.get_submodule("norm").requires_grad_(False)
    teacher(batches().inputs).sum().backward()
    before = everything(teacher)
    chosen = cl.distil(teacher)
    one, two = train(chosen), train(chosen)
    with suppress(StoppedError):
        train(chosen, observers=[stop_at(2)])
    assert torch.equal(one.point.vector, two.point.vector)
    assert same(everything(teacher), before)


class Precise(nn.Module):
    """Notes in which type its product is computed, and whether anything is recorded for gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(64, 4)
        self.seen: list[tuple[torch.dtype, bool, bool]] = []

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        logits = self.head(x.flatten(1))
        self.seen.append((logits.dtype, logits.requires_grad, self.training))
        return logits

    def __deepcopy__(self, memo: Any) -> "Precise":
        made = Precise()
        made.load_state_dict(self.state_dict())
        made.seen = self.seen
        return made


def test_the_teacher_answers_in_its_own_precision_and_in_eval_mode() -> None:
    teacher, loader = Precise(), [(x.float(), y) for x, y in batches()]
    student = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
    train(cl.distil(teacher), model=student, loader=loader, autocast=torch.bfloat16)
    assert set(teacher.seen) == {(torch.float32, False, False)}


class Viewing(nn.Module):
    """It cannot bear the layout that the student computes in."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Conv2d(1, 3, 3), nn.Linear(108, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        maps = self.body(x)
        return self.head(maps.view(len(x), -1))


def test_a_teacher_computes_in_a_layout_of_its_own() -> None:
    teacher = Viewing().double()
    images = batches()
    assert difference(train(cl.distil(teacher, 2.0, 0.5), loader=images), plain(teacher, 2.0, 0.5)) < 1e-12
    expected = teacher(images.inputs.clone(memory_format=torch.contiguous_format))
    found = cl.teacher_logits(teacher, batches(shuffle=False))
    torch.testing.assert_close(found, expected.detach(), rtol=1e-12, atol=1e-13)


# Fixed soft targets ---------------------------------------------------------------------------------------------------


def fixed(teacher: nn.Module) -> Tensor:
    return cl.teacher_logits(teacher, batches(shuffle=False))


def test_fixed_soft_targets_are_those_of_the_live_teacher() -> None:
    settings = {"batch_fn": without_extra()}
    teacher = loud()
    live = train(cl.distil(teacher), loader=batches(shuffle=False))
    cached = train(cl.distil(None), loader=batches(fixed(teacher), shuffle=False), **settings)
    # The same batches: the same bits.
    assert torch.equal(live.point.vector, cached.point.vector)
    # Batches of other images may round otherwise.
    cached = train(cl.distil(None), loader=batches(fixed(teacher)), validation=batches(), **settings)
    assert difference(train(cl.distil(teacher)), cached) < 1e-12
    assert "validation_loss" in cached.history[0]


def test_the_logits_of_a_teacher_are_in_the_loaders_order_and_leave_it_untouched() -> None:
    teacher, images = loud(), batches(shuffle=False)
    before = everything(teacher)
    found = cl.teacher_logits(teacher, images)
    assert same(everything(teacher), before)
    assert not found.requires_grad
    torch.testing.assert_close(found, teacher.eval()(images.inputs).detach(), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("augment", [None, CropFlip(padding=1)])
def test_extra_goes_with_its_example(augment: Any) -> None:
    names = torch.arange(30)
    loader = batches(names[:, None], augment=augment)
    loader.set_epoch(3)
    whole = list(loader)
    assert sorted(torch.cat([extra for _, _, extra in whole]).flatten().tolist()) == names.tolist()
    for (_, targets, extra), (_, later_targets, later) in zip(whole[2:], loader.from_batch(2), strict=True):
        assert torch.equal(extra, later)
        assert torch.equal(targets, later_targets)
        assert torch.equal(loader.targets[extra.flatten()], targets)
    bare = batches(augment=augment)
    bare.set_epoch(3)
    assert all(torch.equal(x, y[0]) for (x, _), y in zip(bare, whole, strict=True))
    with pytest.raises(LoaderError, match="30 inputs and 29 rows of extra"):
        batches(names[1:])


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.integers(0, 10))
def test_permuted_within_a_class(labels: list[int], seed: int) -> None:
    targets = torch.tensor(labels)
    chosen = permuted_within_class(targets, seed)
    assert sorted(chosen.tolist()) == list(range(len(labels)))
    assert torch.equal(targets[chosen], targets)
    alone = torch.bincount(targets)[targets] == 1
    assert torch.equal(chosen == torch.arange(len(labels)), alone)
    assert torch.equal(chosen, permuted_within_class(targets, seed))


def test_another_seed_permutes_otherwise_and_no_partner_is_preferred() -> None:
    targets = torch.zeros(5, dtype=torch.int64)
    counts = torch.zeros(5, 5)
    for seed in range(1000):
        counts[torch.arange(5), permuted_within_class(targets, seed)] += 1
    # 20 cells of 250 expected, standard deviation 13.7: five of them.
    assert bool(((counts - 250).abs()[~torch.eye(5, dtype=torch.bool)] < 69).all())
    assert bool((counts.diagonal() == 0).all())


# Resume ---------------------------------------------------------------------------------------------------------------


def stop_at(step: int) -> Callable[[Tick], None]:
    def observe(tick: Tick) -> None:
        if tick.step == step:
            raise StoppedError

    return observe


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def taught(soft: str, out: Path, *observers: Any) -> TrainResult:
    teacher = loud()
    kept = {"out": out, "observers": observers, "forks": ["1ep"], "validation": batches()}
    if soft == "live":
        return train(*ALL, cl.distil(teacher), loader=batches(augment=CropFlip(padding=1)), **kept)
    order = permuted_within_class(batches().targets, 0) if soft == "permuted" else torch.arange(30)
    loader = batches(fixed(teacher)[order], augment=CropFlip(padding=1))
    return train(*ALL, cl.distil(None), loader=loader, batch_fn=without_extra(), **kept)


@pytest.mark.parametrize("soft", ["live", "cached", "permuted"])
def test_a_stopped_run_leaves_the_bytes_of_one_that_was_not(
    soft: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(StateFile, "due", lambda self: True)
    taught(soft, tmp_path / "whole")
    for step in (0, 3, 6):
        with pytest.raises(StoppedError):
            taught(soft, tmp_path / "parts", stop_at(step))
    taught(soft, tmp_path / "parts")
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")


def test_another_teacher_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    train(cl.distil(loud()), out=tmp_path)
    for other in (cl.distil(loud(8)), cl.distil(loud(), 2.0), cl.distil(loud(), mixing=0.5)):
        with pytest.raises(UsageError, match="another interventions"):
            train(other, out=tmp_path)
    assert train(cl.distil(loud().eval()), out=tmp_path).diverged_at is None


# Refusals -------------------------------------------------------------------------------------------------------------


def spoilt() -> nn.Module:
    teacher = loud()
    with torch.no_grad():
        teacher.get_submodule("head").bias.fill_(math.nan)
    return teacher


def maps(model: nn.Module, batch: Any) -> cl.Output:
    """Losses of outputs that are no logits [n, classes]."""
    output = classification(model, batch)
    return cl.Output(output.loss, output.outputs[:, None])


@pytest.mark.parametrize(
    ("wrong", "settings", "message"),
    [
        (cl.distil(loud(), temperature=0.0), {}, "finite temperature above 0, not 0.0"),
        (cl.distil(loud(), temperature=math.inf), {}, "not inf"),
        (cl.distil(loud(), temperature=math.nan), {}, "not nan"),
        (cl.distil(loud(), mixing=1.1), {}, "between 0 .* and 1 .*, not 1.1"),
        (cl.distil(loud(), mixing=math.nan), {}, "not nan"),
        (cl.distil("teacher.pt"), {}, r"not a str; closerlook\.loaded"),  # type: ignore[arg-type]
        (cl.distil(None), {}, r"batches \(x, y, logits\); pass a teacher"),
        (cl.distil(spoilt()), {}, "teacher's logits are not finite"),
        (cl.distil(loud()), {"batch_fn": maps}, "the student gave others"),
        (cl.distil(nn.Sequential(nn.Flatten(), nn.Linear(64, 5)).double()), {}, r"\(8, 4\) and \(8, 5\)"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_written(
    wrong: Any, settings: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        train(cl.clip(1.0), wrong, out=tmp_path / "out", **settings)
    assert list(tmp_path.iterdir()) == []


def test_batches_of_three_need_to_be_told_of() -> None:
    loader = batches(torch.zeros(30, 4, dtype=torch.float64))
    with pytest.raises(LoaderError, match="pass batch_fn"):
        train(loader=loader)
    told = train(loader=loader, batch_fn=without_extra())
    assert torch.equal(told.point.vector, train().point.vector)
