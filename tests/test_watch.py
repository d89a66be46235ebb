"""`watch`: the first steps of somebody else's loop."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import closerlook as cl
from closerlook.curvature import stability_threshold
from closerlook.errors import LoaderError, UsageError
from closerlook.watching.findings import critical, growth, instability
from conftest import digit_batches, small_net
from untouched import everything, same

DATA = digit_batches(96, 32)
PROBE = [digit_batches(48, 48, start=200)[0]]


def noisy_net() -> nn.Module:
    """A network with batch norm and dropout."""
    return nn.Sequential(small_net(0), nn.Dropout(0.2))


def optimizer_of(name: str, model: nn.Module, lr: float = 0.05) -> torch.optim.Optimizer:
    if name == "sgd":
        return torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9, weight_decay=1e-3)
    return torch.optim.AdamW(model.parameters(), lr=lr)


def loop(model: nn.Module, optimizer: Any, steps: int = 6, bf16: bool = False) -> list[float]:
    losses = []
    for step in range(steps):
        x, y = DATA[step % len(DATA)]
        optimizer.zero_grad(set_to_none=step % 2 == 0)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def trained(name: str, bf16: bool, **settings: Any) -> tuple[dict[str, Any], dict[str, Any], list[float]]:
    torch.manual_seed(3)
    model = noisy_net()
    optimizer = optimizer_of(name, model)
    if settings:
        with cl.watch(model, optimizer, **settings):
            losses = loop(model, optimizer, bf16=bf16)
    else:
        losses = loop(model, optimizer, bf16=bf16)
    state = everything(model)
    # Addresses differ between two models; everything else must not.
    for key in ("identity", "memory", "gradient memory"):
        state.pop(key)
    return state, optimizer.state_dict(), losses


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("name", ["sgd", "adamw"])
@pytest.mark.parametrize("settings", [{"steps": 4}, {"probe": PROBE, "every": 2, "steps": 5}])
def test_a_watched_training_is_the_same_bit_by_bit(name: str, bf16: bool, settings: dict[str, Any]) -> None:
    with torch.random.fork_rng(devices=[]):
        watched, plain = trained(name, bf16, **settings), trained(name, bf16)
    assert same(watched[0], plain[0])
    assert str(watched[1]) == str(plain[1])
    assert watched[2] == plain[2]


def test_one_reading_leaves_the_model_in_place() -> None:
    model = noisy_net()
    optimizer = optimizer_of("sgd", model)
    loop(model, optimizer, 2)
    watched = cl.watch(model, optimizer, probe=PROBE)
    before = everything(model)
    watched.start()
    watched._before(optimizer, (), {})
    assert same(everything(model), before)
    watched.stop()


def hooks_of(optimizer: torch.optim.Optimizer) -> int:
    return len(optimizer._optimizer_step_pre_hooks) + len(optimizer._optimizer_step_post_hooks)


def test_hooks_go_away() -> None:
    model = small_net()
    optimizer = optimizer_of("sgd", model)
    with pytest.raises(TypeError), cl.watch(model, optimizer):
        loop(model, optimizer, None)  # type: ignore[arg-type]
    assert hooks_of(optimizer) == 0
    with cl.watch(model, optimizer, steps=2) as w:
        loop(model, optimizer, 4)
        assert hooks_of(optimizer) == 0
    assert w.report().taken == 2
    assert 0 < w.share <= 1


class Bowl(nn.Module):
    """Loss ``(30 a^2 + 5 b^2) / 2`` at one example: curvatures 30 and 5."""

    def __init__(self) -> None:
        super().__init__()
        self.steep = nn.Parameter(torch.full((2,), 0.1, dtype=torch.float64))
        self.flat = nn.Parameter(torch.full((3,), 1.0, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return (15 * self.steep.square().sum() + 2.5 * self.flat.square().sum()) * x


def bowl(model: nn.Module, batch: Tensor) -> cl.Output:
    return cl.Output(model(batch), None)


ONE = [torch.ones(1, dtype=torch.float64)]
BLOCKS = {"steep": "steep", "flat": "flat"}


def in_the_bowl(lr: float, steps: int = 12, **settings: Any) -> cl.WatchReport:
    model = Bowl()
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    with cl.watch(model, optimizer, probe=ONE, batch_fn=bowl, every=4, blocks=BLOCKS, **settings) as w:
        for _ in range(steps):
            optimizer.zero_grad()
            model(ONE[0]).sum().backward()
            optimizer.step()
    return w.report()


def test_the_planted_block_is_found_unstable() -> None:
    found = in_the_bowl(0.1)  # the threshold is 20
    assert found.instability is not None
    assert (found.instability.block, found.instability.blocks, found.instability.step) == ("steep", ("steep",), 0)
    assert found.instability.ratio == pytest.approx(1.5, rel=1e-6)
    assert found.instability.ends is None
    assert "unstable first: steep, at step 0, 1.5 times" in str(found)
    assert [row["step"] for row in found.readings] == [0, 1, 2, 4, 8]
    assert [bool(row["blocks"]) for row in found.readings] == [True, False, False, False, False]


def test_below_the_threshold_nothing_is_unstable() -> None:
    found = in_the_bowl(0.06)  # the threshold is 33
    assert found.instability is None
    assert all(row["sharpness"] == pytest.approx(30) and not row["blocks"] for row in found.readings)
    assert "at no reading up to step 8" in str(found)


def test_the_critical_rate_is_that_of_the_quadratic() -> None:
    row = in_the_bowl(0.06).readings[0]
    steep, flat = (2 * (30 * 0.1) ** 2, 3 * 5.0**2)
    assert row["critical_lr"] == pytest.approx(2 * (steep + flat) / (30 * steep + 5 * flat), rel=0.05)
    assert row["lr"] == 0.06


def test_a_rate_that_falls_ends_the_instability() -> None:
    model = Bowl()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with cl.watch(model, optimizer, probe=ONE, batch_fn=bowl, every=2) as w:
        for step in range(8):
            optimizer.param_groups[0]["lr"] = 0.1 if step < 4 else 0.05
            optimizer.zero_grad()
            model(ONE[0]).sum().backward()
            optimizer.step()
    found = w.report().instability
    assert found is not None
    assert (found.begins, found.ends) == (0, 4)
    assert "until step 4: a warmup would have to last about 4 steps" in str(w)


def test_adam_is_read_with_its_preconditioner() -> None:
    model = Bowl()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    with cl.watch(model, optimizer, probe=ONE, batch_fn=bowl, steps=3, every=10) as w:
        for _ in range(3):
            optimizer.zero_grad()
            model(ONE[0]).sum().backward()
            optimizer.step()
    rows = w.report().readings
    assert rows[0]["sharpness"] is None  # nothing to precondition by
    assert rows[0]["critical_lr"] > 0
    assert rows[0]["threshold"] == stability_threshold("adam", 0.01)
    assert rows[1]["sharpness"] == pytest.approx(_preconditioned(), rel=0.02)


def _preconditioned() -> float:
    # After one step v / (1 - beta2) is g^2, so P = (1 - beta1) |g|: 30 / (0.1 |30 a|) and 5 / (0.1 |5 b|).
    return max(1 / (0.1 * 0.1), 1 / (0.1 * 1.0))


def test_moves_are_those_of_the_steps() -> None:
    found = in_the_bowl(0.06, steps=2)
    first = found.moves[0]["blocks"]["flat"]
    assert first["gradient"] == pytest.approx(5 * 3**0.5)
    assert first["update"] == pytest.approx(0.06 * 5)
    assert first["angle"] == pytest.approx(0, abs=1e-7)
    assert found.moves[1]["blocks"]["flat"]["distance"] == pytest.approx(1 - 0.7**2)
    assert set(found.to_frame().columns) > {"step", "lr", "block", "gradient", "sharpness", "own_sharpness"}


def test_what_is_not_finite_is_noted_with_step_and_block() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with cl.watch(model, optimizer) as w:
        for step in range(3):
            optimizer.zero_grad()
            model(torch.ones(2, 4)).square().mean().backward()
            if step == 1:
                model[1].bias.grad[0] = float("nan")
            optimizer.step()
    found = w.report().not_finite
    assert found[0] == {"step": 1, "block": "1", "what": "gradient"}
    assert found[1] == {"step": 1, "block": "1", "what": "weights"}
    assert {(row["step"], row["block"]) for row in found[2:]} == {(2, "0")}
    assert "not finite first at step 1: gradient of 1, weights of 1" in str(w)


def test_a_loss_that_is_not_finite_has_no_curvature_and_ends_nothing() -> None:
    model = Bowl()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with cl.watch(model, optimizer, probe=ONE, batch_fn=bowl, every=1) as w:
        for step in range(2):
            optimizer.zero_grad()
            model(ONE[0]).sum().backward()
            optimizer.step()
            if step == 0:
                model.steep.data.fill_(float("inf"))
    assert w.report().readings[1]["sharpness"] is None
    assert "not finite" in w.report().readings[1]["note"]


def test_steps_with_a_closure_are_watched() -> None:
    model = Bowl()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

    def closure() -> float:
        optimizer.zero_grad()
        loss = model(ONE[0]).sum()
        loss.backward()
        return float(loss.detach())

    with cl.watch(model, optimizer, blocks=BLOCKS) as w:
        optimizer.step(closure)
    assert w.report().moves[0]["blocks"]["flat"]["gradient"] == pytest.approx(5 * 3**0.5)


class Callback:
    """What a user writes for the Trainer of Hugging Face: the model and the optimizer come by name."""

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        self.watch = cl.watch(model, kwargs["optimizer"]).start()

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.watch.stop()


class Accelerated(torch.optim.Optimizer):
    """Wraps an optimizer as Accelerate does: a subclass of Optimizer that was never initialised as one."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer

    @property
    def param_groups(self) -> Any:
        return self.optimizer.param_groups

    def zero_grad(self, set_to_none: bool = True) -> None:
        self.optimizer.zero_grad(set_to_none)

    def step(self, closure: Any = None) -> None:
        self.optimizer.step(closure)


def test_as_a_callback_with_a_wrapped_optimizer() -> None:
    model, callback = small_net(), Callback()
    optimizer = Accelerated(optimizer_of("sgd", model))
    callback.on_train_begin(None, None, None, model=model, optimizer=optimizer)
    loop(model, optimizer, 3)
    callback.on_train_end(None, None, None, model=model, optimizer=optimizer)
    loop(model, optimizer, 1)
    assert callback.watch.report().taken == 3


class LightningStyle:
    def on_train_start(self, trainer: Any, pl_module: nn.Module) -> None:
        self.watch = cl.watch(pl_module, trainer.optimizers[0]).start()

    def on_train_end(self, trainer: Any, pl_module: nn.Module) -> None:
        self.watch.stop()


def test_as_a_callback_of_a_trainer_with_several_optimizers() -> None:
    model, callback = small_net(), LightningStyle()
    trainer = SimpleNamespace(optimizers=[optimizer_of("adamw", model)])
    callback.on_train_start(trainer, model)
    loop(model, trainer.optimizers[0], 2)
    callback.on_train_end(trainer, model)
    assert callback.watch.report().optimizer == "AdamW"
    assert callback.watch.report().taken == 2


def test_cost_is_said_before(capsys: pytest.CaptureFixture[str]) -> None:
    model = small_net()
    w = cl.watch(model, optimizer_of("sgd", model), probe=PROBE, steps=20, every=10)
    assert w.cost["readings"] == 6  # 0, 1, 2, 4, 8 and 10
    assert "6 readings" in str(w)
    with w:
        pass
    assert "closerlook: watching up to 20 steps" in capsys.readouterr().err
    assert w.cost["seconds"] > 0


def refuse(error: type[Exception], words: str, model: nn.Module, optimizer: Any, **settings: Any) -> None:
    with pytest.raises(error, match=words):
        cl.watch(model, optimizer, **settings).start()


def test_what_cannot_be_watched_is_refused() -> None:
    model, other = small_net(), small_net()
    sgd = optimizer_of("sgd", model)
    refuse(UsageError, "trains no parameter of this model", model, optimizer_of("sgd", other))
    refuse(UsageError, "not str", model, "sgd")
    refuse(UsageError, "L-BFGS", model, torch.optim.LBFGS(model.parameters()))
    refuse(UsageError, "Adagrad", model, torch.optim.Adagrad(model.parameters()), probe=PROBE)
    refuse(UsageError, "steps=0", model, sgd, steps=0)
    refuse(UsageError, "no trained parameter is in the block 'tail'", model, sgd, blocks={"tail": "tail.*"})
    refuse(LoaderError, "one-shot", model, sgd, probe=iter(PROBE))
    refuse(LoaderError, "no batch", model, sgd, probe=[])
    shuffled = torch.utils.data.DataLoader(list(zip(*DATA[0], strict=True)), 8, shuffle=True)
    refuse(LoaderError, "probe .*shuffles", model, sgd, probe=shuffled)
    half = torch.optim.SGD(model[0].parameters(), lr=0.1)
    refuse(UsageError, r"does not train norm1\.weight", model, half, probe=PROBE)
    assert hooks_of(sgd) == 0
    w = cl.watch(model, sgd).start()
    with pytest.raises(UsageError, match="started before"):
        w.start()
    w.stop()
    with pytest.raises(UsageError, match="no step was watched"):
        w.plot()


def test_without_a_probe_growth_is_all_there_is() -> None:
    rows = [
        {"step": step, "blocks": {"a": {"gradient": 1.0 + step}, "b": {"gradient": 0.5 * 4**step}}} for step in range(3)
    ]
    found = growth(rows)
    assert found == {"first": {"block": "b", "step": 2, "ratio": 16.0}, "most": {"block": "b", "ratio": 16.0}}
    model = small_net()
    optimizer = optimizer_of("sgd", model)
    with cl.watch(model, optimizer) as w:
        loop(model, optimizer)
    assert "pass probe=" in str(w)
    assert w.plot().get_ylabel() == "relative update per step"


def test_rows_without_an_answer() -> None:
    assert instability([]) is None
    assert critical([{"step": 0, "lr": 0.1, "critical_lr": 0.0}]) is None
    whole = {"step": 0, "threshold": 1.0, "sharpness": 2.0, "blocks": {"a": 0.9, "b": 0.8}}
    found = instability([whole])
    assert found is not None
    assert found.block is None  # only together


def test_seeds_together() -> None:
    found = cl.across_seeds([in_the_bowl(lr) for lr in (0.1, 0.1, 0.09)])
    assert (found.unstable, found.first) == (3, {"steep": 3})
    peak = next(each for each in found.spreads if each.name.startswith("sharpness"))
    assert peak.low < peak.mean < peak.high
    assert peak.mean == pytest.approx((1.5 * 1.5 * 1.35) ** (1 / 3))
    assert "in 3 of 3" in str(found)
    assert len(found.to_frame()) == len(found.to_dict()["numbers"]) == len(found.spreads)
    assert found.plot().get_yscale() == "log"
    single = cl.across_seeds([in_the_bowl(0.1)]).to_dict()
    assert single["numbers"][0]["low"] is None
    with pytest.raises(UsageError, match="at least one"):
        cl.across_seeds([])
