"""Linear probes: layers that hold what is asked for, layers that hold nothing, and what cannot be probed."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import r2_score
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import closerlook as cl
from closerlook.errors import LayerError, LoaderError, NotFiniteError, TooFewExamplesError, UsageError
from closerlook.probes import Probes
from conftest import digit_batches, small_net
from untouched import everything, same


class Sees(nn.Module):
    """Three layers: one that holds the class in its first units, one that holds noise, one that holds nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.signal, self.noise, self.dead = nn.Identity(), nn.Identity(), nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        self.noise(x[:, 4:].clone())
        self.dead(0 * x)
        return self.signal(x[:, :4] + 0)


def planted(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Four units that hold one of four classes linearly, four of noise."""
    source = torch.Generator().manual_seed(seed)
    classes = torch.randint(4, (n,), generator=source)
    noise = torch.randn(n, 8, generator=source)
    noise[:, :4] = 0.1 * noise[:, :4] + 5 * torch.nn.functional.one_hot(classes, 4)
    return noise, classes


TRAIN, TEST = [planted(400, 0)], [planted(400, 1)]


def table(found: Probes) -> dict[str, float]:
    return {layer: round(value, 12) for layer, value in found.values.items()}


def test_a_layer_that_holds_the_label_and_layers_that_do_not() -> None:
    found = cl.probes(Sees(), TRAIN, TEST, ["signal", "noise", "dead"])
    probes = {probe.layer: probe for probe in found.probes}
    assert (found.quantity, found.target, found.n_train, found.n_test) == ("accuracy", "labels", 400, 400)
    assert (probes["signal"].score.value, probes["signal"].train) == (1, 1)
    assert probes["signal"].score.low < 1
    # Noise: four classes, so a quarter; four standard errors of 400 examples are 0.09.
    assert abs(probes["noise"].score.value - 0.25) < 0.09
    commonest = int(TRAIN[0][1].mode().values)
    assert found.chance == float((TEST[0][1] == commonest).double().mean())
    assert probes["dead"].score.value == found.chance
    assert {probe.layer: probe.width for probe in found.probes} == {"signal": 4, "noise": 4, "dead": 8}
    assert all(probe.seconds > 0 for probe in found.probes)


def test_what_a_linear_layer_answers_is_linear_in_its_input() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 6), nn.Linear(6, 5))
    x, y = (torch.randn(300, 8, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    teacher = nn.Sequential(model[0], nn.Linear(6, 3))
    found = cl.probes(model, [x], [y], ["0", "1"], target=teacher)
    probes = {probe.layer: probe for probe in found.probes}
    assert (found.quantity, found.target, found.chance) == ("r2", "the teacher's logits", 0)
    # The penalty of 1e-3 beside 300 examples, and rounding of float32 in both networks.
    assert probes["0"].score.value == pytest.approx(1, abs=1e-6)
    assert probes["0"].agreement is not None
    assert probes["0"].agreement.value == 1
    assert probes["1"].score.value < 0.999  # five directions of six
    labels = teacher(x).argmax(1), teacher(y).argmax(1)
    assert found.chance_agreement == float((labels[1] == labels[0].mode().values).double().mean())
    noise = cl.probes(nn.Sequential(nn.Linear(8, 6)), [x.flip(0)], [y.flip(0)], ["0"], target=_Reversed(teacher))
    assert abs(noise.values["0"]) < 0.15


class _Reversed(nn.Module):
    """Answers that belong to other examples of the batch."""

    def __init__(self, teacher: nn.Module) -> None:
        super().__init__()
        self.teacher = teacher

    def forward(self, x: Tensor) -> Tensor:
        return self.teacher(x.roll(7, 0))


def test_labels_that_are_numbers() -> None:
    (x, _), (y, _) = TRAIN[0], TEST[0]
    weights = torch.tensor([1.0, -2.0, 0.5, 0.0])
    parts = [[(z, z[:, :4] @ weights)] for z in (x, y)]
    found = cl.probes(Sees(), *parts, ["signal", "noise", "dead"])
    assert found.quantity == "r2"
    assert found.values["signal"] == pytest.approx(1, abs=1e-6)
    assert abs(found.values["noise"]) < 0.1
    assert -0.1 < found.values["dead"] <= 0
    assert all(probe.agreement is None for probe in found.probes)
    assert "agreement" not in found.to_frame().columns


def test_the_probes_are_those_of_scikit_learn() -> None:
    model, fit, test = small_net(0), digit_batches(300, 100), digit_batches(200, 100, start=300)
    found = cl.probes(model, fit, test, ["relu1", "relu2"])
    logits = cl.probes(model, fit, test, ["relu2"], target=small_net(1))
    read = [cl.activations(model, part, ["relu1", "relu2"]) for part in (fit, test)]
    labels = [torch.cat([classes for _, classes in part]).numpy() for part in (fit, test)]
    with torch.no_grad():
        answers = [torch.cat([small_net(1).eval()(x) for x, _ in part]).double().numpy() for part in (fit, test)]
    for probe in found.probes:
        x, y = (part.rows[probe.layer].double().numpy() for part in read)
        scale = StandardScaler().fit(x)
        other = LogisticRegression(C=1 / probe.penalty, max_iter=1000).fit(scale.transform(x), labels[0])
        assert probe.score.value == other.score(scale.transform(y), labels[1])
        assert probe.train == other.score(scale.transform(x), labels[0])
    (probe,) = logits.probes
    x, y = (part.rows["relu2"].double().numpy() for part in read)
    scale = StandardScaler().fit(x)
    other = Ridge(alpha=probe.penalty).fit(scale.transform(x), answers[0])
    predicted = other.predict(scale.transform(y))
    # Two solvers of one linear system in float64.
    assert probe.score.value == pytest.approx(
        r2_score(answers[1], predicted, multioutput="variance_weighted"), abs=1e-8
    )
    assert probe.agreement is not None
    assert probe.agreement.value == np.mean(predicted.argmax(1) == answers[1].argmax(1))


def test_order_of_the_examples_and_scale_of_the_units_change_nothing() -> None:
    (x, classes), (y, targets) = TRAIN[0], TEST[0]
    teacher = nn.Linear(8, 3)
    scaled = nn.Sequential(nn.Linear(8, 8, bias=False))
    plain = nn.Sequential(nn.Linear(8, 8, bias=False))
    plain[0].weight.data = torch.eye(8)
    scaled[0].weight.data = torch.diag(2.0 ** torch.arange(8))
    order = torch.randperm(400, generator=torch.Generator().manual_seed(0))
    one = cl.probes(plain, [x], [y], ["0"], target=teacher)
    two = cl.probes(scaled, [x[order]], [y], ["0"], target=teacher)
    assert two.values["0"] == pytest.approx(one.values["0"], abs=1e-9)
    parts = list(zip(x.split(64), classes.split(64), strict=True))
    assert table(cl.probes(Sees(), parts, TEST, ["signal"])) == table(cl.probes(Sees(), TRAIN, TEST, ["signal"]))
    assert len(targets) == 400


def test_shuffled_loaders_keep_examples_and_targets_together_and_all_is_as_it_was() -> None:
    inputs, classes = TRAIN[0]
    source = torch.Generator().manual_seed(3)
    loader = DataLoader(TensorDataset(inputs, classes), 50, shuffle=True, generator=source)
    model, teacher = Sees().train(), small_net(1).train()
    before = everything(model, loader), everything(teacher)
    assert cl.probes(model, loader, TEST, ["signal"]).values["signal"] == 1
    digits = digit_batches(200, 50)
    cl.probes(small_net(0), digits, digits, ["relu2"], target=teacher)
    assert same(everything(model, loader), before[0])
    assert same(everything(teacher)["values"], before[1]["values"])
    assert teacher.training

    class Breaks(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise RuntimeError("of the user's")

    with pytest.raises(RuntimeError, match="of the user's"):
        cl.probes(model, loader, TEST, ["signal"], target=Breaks())
    assert same(everything(model, loader), before[0])


def test_a_batch_function_of_ones_own() -> None:
    def loss(model: nn.Module, batch: Any) -> cl.Output:
        return cl.Output(model(batch["x"]).sum(1), None)

    parts = [[{"x": x, "labels": y}] for x, y in (TRAIN[0], TEST[0])]
    found = cl.probes(Sees(), *parts, ["signal"], batch_fn=loss)
    assert found.values == cl.probes(Sees(), TRAIN, TEST, ["signal"]).values


def test_the_result_as_table_and_figure() -> None:
    model, fit, test = small_net(0), digit_batches(300, 100), digit_batches(200, 100, start=300)
    found = cl.probes(model, fit, test, ["relu?", "flatten"], target=small_net(1), level=0.9)
    frame = found.to_frame()
    assert list(frame.columns) == [
        "layer", "width", "value", "low", "high", "train", "agreement", "agreement_low", "agreement_high", "penalty",
        "seconds", "target", "quantity", "chance", "n_train", "n_test",
    ]  # fmt: skip
    assert list(frame.layer) == ["relu1", "relu2", "flatten"]
    assert ((frame.low < frame.value) & (frame.value < frame.high)).all()
    told = found.to_dict()
    assert (told["level"], told["n_test"], told["handling"]) == (0.9, 200, {"conv": "mean", "tokens": "mean"})
    assert [row["layer"] for row in told["probes"]] == ["relu1", "relu2", "flatten"]
    assert found.plot().get_ylabel().replace("\n", " ") == "R^2 of a linear probe on the test part"
    wide = cl.probes(model, fit, test, ["relu1"], conv="flatten")
    assert wide.notes == ("as many units as training examples (300) or more, so that the penalty decides: relu1",)


def test_what_cannot_be_probed_is_refused() -> None:
    model, few = Sees(), [(TRAIN[0][0][:39], TRAIN[0][1][:39])]
    with pytest.raises(TooFewExamplesError, match=r"39 training and 400 test examples are too few .* takes 40 and 10"):
        cl.probes(model, few, TEST, ["signal"])
    with pytest.raises(TooFewExamplesError, match="9 test"):
        cl.probes(model, TRAIN, [(TEST[0][0][:9], TEST[0][1][:9])], ["signal"])
    rare = TRAIN[0][1].clone()
    rare[0] = 7
    with pytest.raises(TooFewExamplesError, match="class 7 has 1 training examples; the folds need 3"):
        cl.probes(model, [(TRAIN[0][0], rare)], TEST, ["signal"])
    with pytest.raises(UsageError, match="all training labels are the same"):
        cl.probes(model, [(TRAIN[0][0], 0 * rare)], TEST, ["signal"])
    with pytest.raises(UsageError, match="do not vary"):
        cl.probes(model, [(TRAIN[0][0], 0.0 * rare)], [(TEST[0][0], TEST[0][1].float())], ["signal"])
    with pytest.raises(UsageError, match="differ in form"):
        cl.probes(model, TRAIN, [(TEST[0][0], TEST[0][1].float())], ["signal"])
    with pytest.raises(UsageError, match="not 'teacher'"):
        cl.probes(model, TRAIN, TEST, ["signal"], target="teacher")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="conv='positions' has no single row"):
        cl.probes(model, TRAIN, TEST, ["signal"], conv="positions")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="level"):
        cl.probes(model, TRAIN, TEST, ["signal"], level=95)
    with pytest.raises(LayerError, match="no layer matches"):
        cl.probes(model, TRAIN, TEST, ["conv*"])
    with pytest.raises(LoaderError, match="labels are y of a batch"):
        cl.probes(model, [TRAIN[0][0]], TEST, ["signal"])
    with pytest.raises(LoaderError, match="train_loader is a one-shot iterator"):
        cl.probes(model, iter(TRAIN), TEST, ["signal"])
    with pytest.raises(UsageError, match=r"real numbers \[n\] or \[n, d\] per example, not \(400, 2\)"):
        cl.probes(model, [(TRAIN[0][0], torch.zeros(400, 2, dtype=torch.long))], TEST, ["signal"])
    broken = nn.Sequential(nn.Linear(8, 4))
    broken[0].weight.data[0, 0] = math.nan
    with pytest.raises(NotFiniteError, match="layer 0 gives NaN"):
        cl.probes(broken, TRAIN, TEST, ["0"])
    with pytest.raises(NotFiniteError, match="targets"):
        cl.probes(model, TRAIN, TEST, ["signal"], target=broken)
