"""Five defects of code that was published with the studies repeated here; each test fails where its defect is.

1. The checkpoint of the initial weights is written again in every epoch. Bytes and inode of ours, over two calls:
   tests/test_training.py::test_the_initial_checkpoint_is_written_once_and_never_again.
2. A frozen block never thaws. To the last bit, and what is said of it: tests/test_interventions.py.
3. The schedule reaches only the first group of parameters. For a factory's groups: tests/test_training.py, through a
   freeze: tests/test_interventions.py.
4. Of several mini-batches, whose gradients should be summed, one counts. Beside plain loops: tests/test_training.py,
   tests/test_connect.py.
5. A random point of the curve is kept in place of its bend. Beside separate leaves: tests/test_connect.py.
"""

from collections.abc import Iterable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

import closerlook as cl
from closerlook.batches import classification
from closerlook.files import read_tensors
from closerlook.schedules import Constant, LinearDecay
from closerlook.training.loop import Tick
from conftest import digit_batches, small_net

BATCHES = digit_batches(96, 32, dtype=torch.float64)
EPOCHS = 3


def network(seed: int = 0) -> nn.Module:
    return small_net(seed).double()


def test_the_initial_checkpoint_is_that_of_the_initial_weights(tmp_path: Path) -> None:
    model, first = network(), tmp_path / "checkpoints" / "step-000000.safetensors"
    seen: list[bytes] = []

    def look(tick: Tick) -> None:
        if tick.step and tick.ends_epoch:
            seen.append(first.read_bytes())

    result = cl.train(model, BATCHES, epochs=EPOCHS, lr=0.1, snapshots=["1ep", "2ep"], observers=[look], out=tmp_path)
    assert len(seen) == EPOCHS
    assert set(seen) == {first.read_bytes()}
    stored = read_tensors(first)[0]
    assert all(torch.equal(stored[name], value) for name, value in model.state_dict().items())
    points = [point.vector for point in result.snapshots.values()]
    assert not any(torch.equal(points[0], later) for later in points[1:])


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_frozen_block_thaws(optimizer: str) -> None:
    model = network()
    result = cl.train(
        model, BATCHES, optimizer, epochs=EPOCHS, lr=0.01, snapshots=["1ep", "4it"],
        interventions=[cl.freeze("head.*", end="1ep")],
    )  # fmt: skip
    space = cl.WeightSpace(model)
    heads = {step: space.state_dict(point)["head.weight"] for step, point in result.snapshots.items()}
    assert list(heads) == [0, 3, 4, 9]
    assert torch.equal(heads[0], heads[3])
    assert not torch.equal(heads[3], heads[4])
    assert not torch.equal(heads[4], heads[9])


def every_parameter_its_group(parameters: Iterable[Tensor]) -> Optimizer:
    return torch.optim.SGD([{"params": [value]} for value in parameters], lr=0.1)


def test_the_schedule_reaches_every_group() -> None:
    """With a rate of 0 from the second epoch on, nothing moves any more, and everything did before."""
    stop = Constant(1.0).then(Constant(0.0), at="1ep")
    model = network()
    result = cl.train(model, BATCHES, every_parameter_its_group, epochs=2, schedule=stop, snapshots=["1ep"])
    start, end, last = (cl.WeightSpace(model).state_dict(result.snapshots[step]) for step in (0, 3, 6))
    for name, _ in model.named_parameters():
        assert not torch.equal(start[name], end[name]), name
        assert torch.equal(end[name], last[name]), name


def gradients(seed: int) -> list[Tensor]:
    """Of every mini-batch at a network's weights, batch norm by the batch."""
    found = list[Tensor]()
    for batch in BATCHES:
        model = network(seed).train()
        own = torch.autograd.grad(classification(model, batch).loss.mean(), list(model.parameters()))
        found.append(torch.cat([value.flatten() for value in own]))
    return found


def test_every_mini_batch_counts_in_a_training() -> None:
    """At a tiny rate the weights move by the sum of all mini-batches' gradients."""
    model, rate = network(), 1e-7
    start = cl.WeightSpace(model).point(model).vector
    moved = cl.train(model, BATCHES, epochs=1, lr=rate).point.vector - start
    parts = gradients(0)
    assert len(parts) == 3
    # The gradient changes along the way by about the rate; the weights are rounded at 1e-16.
    assert torch.allclose(moved / -rate, sum(parts, torch.zeros_like(start)), rtol=1e-4, atol=1e-5)
    assert min(float(part.norm()) for part in parts) > 0.1


def test_every_mini_batch_counts_for_a_bend() -> None:
    """The bend moves by the sum over the steps of the gradient at each step's point, times the bend's share there."""
    model, rate = network(1), 1e-7
    a = cl.WeightSpace(model).point(model)
    runs = [
        cl.connect(
            model, a, a, BATCHES[:count], epochs=1, lr=rate, momentum=0.0, weight_decay=0.0, schedule=Constant(), seed=5
        ).points[1].vector - a.vector
        for count in (1, 2, 3)
    ]  # fmt: skip
    # Between equal ends every point of the curve is the same: a bend's gradient is that of the loss there, times c(t).
    steps = [runs[0], runs[1] - runs[0], runs[2] - runs[1]]
    for step, gradient in zip(steps, gradients(1), strict=True):
        share = float(-(step @ gradient) / rate / (gradient @ gradient))
        assert 0.01 < share <= 1
        assert torch.allclose(step, -rate * share * gradient, rtol=0, atol=1e-5 * rate * float(gradient.norm()))


def test_what_is_kept_of_a_curve_is_its_bend(tmp_path: Path) -> None:
    """With a rate of 0 the bend stays where it began, in the middle: any other point that was kept would show."""
    model = network()
    a, b = (cl.WeightSpace(model).point(network(seed)).vector for seed in (1, 2))
    settings = {"epochs": 2, "snapshots": ["1it", "2it", "1ep"], "seed": 3}
    still = cl.connect(model, a, b, BATCHES, lr=0.1, schedule=Constant(0.0), **settings)
    for curve in (still, *still.snapshots.values()):
        assert torch.allclose(curve.points[1].vector, (a + b) / 2, rtol=0, atol=1e-15)
    trained = cl.connect(model, a, b, BATCHES, lr=0.1, schedule=LinearDecay(), out=tmp_path, **settings)
    assert torch.equal(trained.snapshots[6].points[1].vector, trained.points[1].vector)
    assert not torch.equal(trained.points[1].vector, still.points[1].vector)
