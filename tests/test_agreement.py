"""Function-space distance, on logits made by hand."""

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon
from scipy.stats import binomtest, entropy, sem
from scipy.stats import t as student
from sklearn.metrics import cohen_kappa_score, log_loss, r2_score
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from closerlook.agreement import Agreement, agreement, compare_logits, ensemble, ensemble_logits
from closerlook.batches import Output
from closerlook.errors import LoaderError, MismatchError, NotFiniteError, UsageError
from conftest import digit_batches, small_net
from untouched import everything, same

# A handful of logarithms in float64.
EXACT = 1e-12


def logits(*probabilities: list[float]) -> Tensor:
    return torch.tensor(probabilities, dtype=torch.float64).log()


# Four examples. The first model is right, right, wrong, wrong; the second right, wrong, right, wrong.
TARGETS = torch.tensor([0, 1, 2, 2])
A = logits([0.5, 0.25, 0.25], [0.2, 0.6, 0.2], [0.7, 0.2, 0.1], [0.1, 0.8, 0.1])
B = logits([0.8, 0.1, 0.1], [0.5, 0.3, 0.2], [0.1, 0.1, 0.8], [0.6, 0.3, 0.1])


HITS = A.argmax(1) == TARGETS, B.argmax(1) == TARGETS


def stored(scores: Tensor) -> nn.Module:
    """A model that answers the i-th unit vector with the i-th row of scores."""
    layer = nn.Linear(len(scores), scores.shape[1], bias=False, dtype=scores.dtype)
    layer.weight.data = scores.T.clone()
    return layer


UNITS = torch.eye(4, dtype=torch.float64)
BATCHES = [(UNITS[:3], TARGETS[:3]), (UNITS[3:], TARGETS[3:])]


def kl(p: list[list[float]], q: list[list[float]]) -> float:
    rows = [sum(a * math.log(a / b) for a, b in zip(x, y, strict=True)) for x, y in zip(p, q, strict=True)]
    return sum(rows) / len(rows)


def test_agreement_of_two_models_by_hand() -> None:
    found = agreement(stored(A), stored(B), BATCHES)
    assert found.n == 4
    # Labels 0 1 0 1 against 0 0 2 0.
    assert found.disagreement == 0.75
    assert found.kl_a_b == pytest.approx(kl(A.exp().tolist(), B.exp().tolist()), abs=EXACT)
    assert found.kl_b_a == pytest.approx(kl(B.exp().tolist(), A.exp().tolist()), abs=EXACT)
    assert abs(found.kl_a_b - found.kl_b_a) > 0.01
    # Both wrong on one example, at least one wrong on three.
    assert found.error_overlap == pytest.approx(1 / 3, abs=EXACT)
    assert (found.accuracy_a, found.accuracy_b) == (0.5, 0.5)
    assert Agreement.from_dict(found.to_dict()).to_dict() == found.to_dict()


def test_a_shift_of_the_logits_is_no_difference() -> None:
    shift = torch.arange(4.0, dtype=torch.float64)[:, None]
    found = agreement(stored(A), stored(A + 7 * shift), BATCHES)
    assert found.disagreement == 0
    assert found.kl_a_b == pytest.approx(0, abs=EXACT)
    assert found.error_overlap == 1


def test_the_two_directions_exchange_with_the_models() -> None:
    one, two = agreement(stored(A), stored(B), BATCHES), agreement(stored(B), stored(A), BATCHES)
    assert (one.kl_a_b, one.accuracy_a, one.error_overlap) == (two.kl_b_a, two.accuracy_b, two.error_overlap)


def test_without_errors_the_overlap_is_whole() -> None:
    right = torch.ones(4, dtype=torch.bool)
    assert compare_logits(A, A, right, right).error_overlap == 1
    assert compare_logits(A, A, right, ~right).error_overlap == 0


def test_both_models_see_a_shuffled_loader_in_one_order() -> None:
    inputs, targets = (torch.cat(part) for part in zip(*digit_batches(), strict=True))
    shuffled = DataLoader(TensorDataset(inputs, targets), batch_size=16, shuffle=True)
    ordered = agreement(small_net(0), small_net(1), digit_batches(batch_size=16))
    found = agreement(small_net(0), small_net(1), shuffled)
    assert found.disagreement == ordered.disagreement
    # Means over another order, in float64, of float32 logits that depend on the batch they are in.
    assert found.kl_a_b == pytest.approx(ordered.kl_a_b, rel=1e-5)
    members = ensemble([small_net(0), small_net(1)], shuffled)
    assert members.members == pytest.approx((ordered.accuracy_a, ordered.accuracy_b), abs=EXACT)


def test_an_ensemble_averages_probabilities() -> None:
    # One confident and two mildly other members: the mean probability follows the first, a vote would not.
    members = [logits([0.9, 0.1]), logits([0.4, 0.6]), logits([0.4, 0.6])]
    found = ensemble_logits(members, torch.tensor([0]))
    assert found.members == (1.0, 0.0, 0.0)
    assert found.accuracy == 1.0
    # One nearly certain member against two fairly sure ones: the mean of logits would follow it.
    found = ensemble_logits([logits([0.8, 0.2]), logits([0.8, 0.2]), logits([0.0001, 0.9999])], torch.tensor([0]))
    assert found.accuracy == 1.0
    found = ensemble_logits([logits([0.001, 0.499, 0.5]), logits([0.6, 0.399, 0.001])], torch.tensor([1]))
    assert (found.members, found.accuracy, found.gain) == ((0.0, 0.0), 1.0, 1.0)
    assert found.to_dict() == {"n": 1, "members": [0.0, 0.0], "accuracy": 1.0, "gain": 1.0}


def test_an_ensemble_of_models_by_hand() -> None:
    found = ensemble([stored(A), stored(B)], BATCHES)
    # Means: [.65 ...] right, [.35 .45 .2] right, [.4 .15 .45] right, [.35 .55 .1] wrong.
    assert (found.members, found.accuracy, found.gain) == ((0.5, 0.5), 0.75, 0.25)
    dicts = [{"x": inputs, "labels": targets} for inputs, targets in BATCHES]
    assert ensemble([stored(A), stored(B)], dicts) == found


def test_what_is_missing_is_named() -> None:
    with pytest.raises(UsageError, match="at least one model"):
        ensemble_logits([], TARGETS)
    with pytest.raises(UsageError, match="logits"):
        ensemble(
            [stored(A)], [(UNITS, TARGETS)], batch_fn=lambda model, batch: Output(batch[1].double(), A[:, :, None])
        )
    for correct, outputs in ((None, A), (torch.ones(4), A), (torch.ones(4, dtype=torch.bool), A[:, :, None])):
        found = agreement(
            stored(A), stored(B), [(UNITS, TARGETS)],
            batch_fn=lambda model, batch, correct=correct, outputs=outputs: Output(
                batch[1].double(), outputs, correct
            ),
        )  # fmt: skip
        with pytest.raises(UsageError, match=r"kappa is not defined here: it needs logits \[n, classes\] and hits"):
            _ = found.kappa
        assert (found.rms_difference, found.r2) == (0, 1)
    with pytest.raises(UsageError, match="takes logits"):
        compare_logits(A, B, torch.ones(4), torch.ones(4))
    with pytest.raises(MismatchError, match=r"\(4, 3\) and model_b \(4, 2\)"):
        compare_logits(A, B[:, :2], *HITS)
    with pytest.raises(NotFiniteError, match="model_b gives NaN for 1 of 4"):
        compare_logits(A, B.index_fill(0, torch.tensor([2]), math.nan), *HITS)
    with pytest.raises(UsageError, match="temperature"):
        agreement(stored(A), stored(B), BATCHES, temperature=0.0)
    with pytest.raises(UsageError, match="level"):
        agreement(stored(A), stored(B), BATCHES, level=95)
    with pytest.raises(UsageError, match="model_b is a str"):
        agreement(stored(A), "b.pt", BATCHES)
    with pytest.raises(LoaderError, match="one-shot"):
        agreement(stored(A), stored(B), iter(BATCHES))
    found = compare_logits(A, B, *HITS)
    for name in ("gain", "loss_a"):
        with pytest.raises(UsageError, match=f"{name} is not defined here: it needs targets"):
            getattr(found, name)
    with pytest.raises(UsageError, match="no part 'a right'"):
        found.estimate("js", "a right")
    with pytest.raises(UsageError, match="no example is in the part 'b wrong'"):
        compare_logits(A, A, HITS[0], torch.ones(4, dtype=torch.bool)).estimate("js", "b wrong")


# Against other packages and by hand ---------------------------------------------------------------------------------


def random_pair(n: int = 400, classes: int = 5, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Logits of two models that are right more often than not, and the targets."""
    source = torch.Generator().manual_seed(seed)
    targets = torch.randint(classes, (n,), generator=source)
    shared = torch.randn(n, classes, dtype=torch.float64, generator=source)
    a, b = (shared + torch.randn(n, classes, dtype=torch.float64, generator=source) for _ in range(2))
    right = torch.nn.functional.one_hot(targets, classes).double()
    return a + 1.5 * right, b + 2.5 * right, targets


def test_every_quantity_against_independent_packages() -> None:
    a, b, targets = random_pair()
    hits = a.argmax(1) == targets, b.argmax(1) == targets
    found = compare_logits(a, b, *hits, targets)
    p, q = a.softmax(1).numpy(), b.softmax(1).numpy()
    assert found.kappa == pytest.approx(cohen_kappa_score(*hits), abs=EXACT)
    assert found.loss_a == pytest.approx(log_loss(targets, p), abs=EXACT)
    assert found.loss_b == pytest.approx(log_loss(targets, q), abs=EXACT)
    assert found.kl_a_b == pytest.approx(entropy(p, q, axis=1).mean(), abs=EXACT)
    assert found.kl_b_a == pytest.approx(entropy(q, p, axis=1).mean(), abs=EXACT)
    assert found.js == pytest.approx((jensenshannon(p, q, axis=1) ** 2).mean(), abs=EXACT)
    assert found.gain == pytest.approx(ensemble_logits([a, b], targets).gain, abs=EXACT)
    for ece, probabilities, hit in ((found.ece_a, p, hits[0]), (found.ece_b, q, hits[1])):
        confidence = probabilities.max(1)
        bins = np.ceil(confidence * 15)
        by_bin = [
            np.mean(bins == k) * abs(confidence[bins == k].mean() - hit.numpy()[bins == k].mean()) for k in set(bins)
        ]
        assert ece == pytest.approx(sum(by_bin), abs=EXACT)


def test_the_parts_are_those_of_the_examples_in_them() -> None:
    a, b, targets = random_pair()
    hits = a.argmax(1) == targets, b.argmax(1) == targets
    found = compare_logits(a, b, *hits, targets)
    for part, mask in (("b right", hits[1]), ("b wrong", ~hits[1])):
        alone = compare_logits(a[mask], b[mask], hits[0][mask], hits[1][mask], targets[mask])
        assert found.sizes[part] == alone.n == int(mask.sum())
        for name in found.parts[part]:
            estimate = alone.estimate(name)
            mine = found.estimate(name, part)
            assert (mine.value, mine.low, mine.high) == pytest.approx(
                (estimate.value, estimate.low, estimate.high), nan_ok=True
            )
    # Where B is right the two agree exactly where A is right too; all of A's agreement elsewhere is a shared mistake.
    assert found.estimate("agreement", "b right").value == found.estimate("accuracy_a", "b right").value
    assert "kappa" not in found.to_dict()["parts"]["b right"]
    never = compare_logits(a, b, *[torch.ones(len(a), dtype=torch.bool)] * 2)
    assert math.isnan(never.kappa)
    assert never.to_dict()["parts"]["all"]["kappa"] == {"value": None, "low": None, "high": None}


def test_a_copy_agrees_with_itself() -> None:
    found = agreement(small_net(0), copy.deepcopy(small_net(0)), digit_batches())
    assert (found.agreement, found.kl_a_b, found.kl_b_a, found.kappa, found.error_overlap) == (1, 0, 0, 1, 1)
    assert found.js == pytest.approx(0, abs=EXACT)
    assert (found.gain, found.ece_a) == (0, found.ece_b)
    assert found.estimate("kl_a_b").high == 0
    # That 96 examples agree does not say that all would.
    assert 0.9 < found.estimate("agreement").low < 1


def test_models_that_err_where_the_other_does_not() -> None:
    targets = torch.arange(100) % 2
    right = torch.arange(100) < 50
    sure = torch.nn.functional.one_hot(targets, 2).double() * 2 - 1
    a, b = (sure * torch.where(hit, 40.0, -40.0)[:, None] for hit in (right, ~right))
    found = compare_logits(a, b, right, ~right, targets)
    assert (found.agreement, found.kappa, found.error_overlap, found.ece_a) == (0, -1, 0, 0.5)
    assert found.js == pytest.approx(math.log(2), abs=EXACT)
    assert found.kl_a_b == pytest.approx(80, abs=EXACT)
    assert found.estimate("accuracy_a").value == 0.5


def test_the_temperature_divides_the_logits_of_the_divergences_alone() -> None:
    a, b, targets = random_pair()
    hits = a.argmax(1) == targets, b.argmax(1) == targets
    warm, scaled = (
        compare_logits(a, b, *hits, targets, temperature=4.0),
        compare_logits(a / 4, b / 4, *hits, targets),
    )
    for name in ("kl_a_b", "kl_b_a", "js"):
        assert getattr(warm, name) == pytest.approx(getattr(scaled, name), abs=EXACT)
    plain = compare_logits(a, b, *hits, targets)
    for name in ("ece_a", "loss_a", "gain", "agreement"):
        assert getattr(warm, name) == getattr(plain, name)


def test_a_class_that_is_ruled_out_divides_infinitely_one_way_only() -> None:
    a, b = torch.tensor([[0.0, 0.0, -math.inf]]), torch.zeros(1, 3)
    found = compare_logits(a, b, torch.ones(1, dtype=torch.bool), torch.ones(1, dtype=torch.bool))
    assert found.kl_a_b == pytest.approx(math.log(1.5), abs=EXACT)
    assert found.kl_b_a == math.inf
    assert 0 < found.js < math.log(2)


@given(seed=st.integers(0, 2**16), shift=st.floats(-50, 50), n=st.integers(2, 60))
def test_order_and_shifts_change_nothing(seed: int, shift: float, n: int) -> None:
    a, b, targets = random_pair(n, seed=seed)
    hits = a.argmax(1) == targets, b.argmax(1) == targets
    found = compare_logits(a, b, *hits, targets).to_frame()
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    moved = compare_logits(
        a[order] + shift, b[order] - shift, hits[0][order], hits[1][order], targets[order]
    ).to_frame()
    assert found[["part", "quantity", "n"]].equals(moved[["part", "quantity", "n"]])
    for column in ("value", "low", "high"):
        # Shifts of 50 cost two digits of the logits.
        np.testing.assert_allclose(moved[column], found[column], rtol=1e-9, atol=1e-11)


def test_intervals_are_those_of_other_packages() -> None:
    a, b, targets = random_pair()
    hits = a.argmax(1) == targets, b.argmax(1) == targets
    found = compare_logits(a, b, *hits, targets, level=0.9)
    share = found.estimate("agreement")
    known = binomtest(round(400 * share.value), 400).proportion_ci(0.9, method="wilson")
    assert (share.low, share.high) == pytest.approx((known.low, known.high), abs=EXACT)
    each = entropy(a.softmax(1).numpy(), b.softmax(1).numpy(), axis=1)
    mean = found.estimate("kl_a_b")
    known = student.interval(0.9, 399, each.mean(), sem(each))
    assert (mean.low, mean.high) == pytest.approx(known, abs=1e-10)


def test_intervals_of_kappa_hold_as_often_as_they_say() -> None:
    # Both wrong 0.10, one 0.15 and 0.05, both right 0.70: kappa = (0.8 - 0.6875) / (1 - 0.6875).
    true, source, held = (0.8 - (0.75 * 0.85 + 0.25 * 0.15)) / (1 - (0.75 * 0.85 + 0.25 * 0.15)), 0, 0
    for source in range(300):
        cell = np.random.default_rng(source).choice(4, 250, p=[0.1, 0.15, 0.05, 0.7])
        hits = torch.tensor(cell >= 2), torch.tensor((cell == 1) | (cell == 3))
        zeros = torch.zeros(250, 2)
        estimate = compare_logits(zeros, zeros, *hits).estimate("kappa")
        held += estimate.low < true < estimate.high
    # Of 300 draws of probability 0.95, between 273 and 295 in all but one of a thousand tests.
    assert 273 <= held <= 295


# Models, loaders, results -------------------------------------------------------------------------------------------


def test_both_models_and_the_loader_come_back_as_they_were() -> None:
    inputs, targets = (torch.cat(part) for part in zip(*digit_batches(), strict=True))
    loader = DataLoader(TensorDataset(inputs, targets), 16, shuffle=True, generator=torch.Generator().manual_seed(1))
    models = [small_net(0).train(), small_net(1).eval()]
    before = [everything(model, loader) for model in models]
    agreement(*models, loader)
    assert all(same(everything(model, loader), was) for model, was in zip(models, before, strict=True))

    def broken(model: nn.Module, batch: Any) -> Output:
        raise RuntimeError("of the user's")

    with pytest.raises(RuntimeError, match="of the user's"):
        agreement(*models, loader, batch_fn=broken)
    assert all(same(everything(model, loader), was) for model, was in zip(models, before, strict=True))


def test_a_model_that_writes_into_its_input_is_refused() -> None:
    net = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(4, 3, dtype=torch.float64))
    with pytest.raises(LoaderError, match="writes into its input"):
        agreement(net, stored(A), [(UNITS.clone(), TARGETS)])


def test_a_batch_function_of_ones_own() -> None:
    def shifted(model: nn.Module, batch: Any) -> Output:
        logits, classes = model(batch["image"]), batch["label"] - 1
        return Output(
            nn.functional.cross_entropy(logits, classes, reduction="none"), logits, logits.argmax(1) == classes
        )

    plain = agreement(stored(A), stored(B), BATCHES)
    found = agreement(stored(A), stored(B), [{"image": UNITS, "label": TARGETS + 1}], batch_fn=shifted)
    assert found.kappa == plain.kappa
    assert found.loss_a == pytest.approx(plain.loss_a, abs=EXACT)
    # Its targets are not those of a batch of the usual form, so that no ensemble can be judged by them.
    with pytest.raises(UsageError, match="gain is not defined"):
        _ = found.gain

    def named(model: nn.Module, batch: Any) -> Output:
        return shifted(model, {"image": batch[0], "label": batch[1]})

    moved = [(UNITS, TARGETS + 1)]
    with pytest.raises(UsageError, match="gain is not defined"):  # (x, y), and yet y is not what the hits are of
        _ = agreement(stored(A), stored(B), moved, batch_fn=named).gain


def test_outputs_of_a_regression() -> None:
    def squares(model: nn.Module, batch: Any) -> Output:
        outputs = model(batch[0])
        return Output((outputs - batch[1]).square().mean(1), outputs)

    y = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = agreement(stored(A), stored(B), [(UNITS, y)], batch_fn=squares)
    assert found.rms_difference == pytest.approx(float((A - B).square().mean().sqrt()), abs=EXACT)
    assert found.r2 == pytest.approx(r2_score(B, A, multioutput="variance_weighted"), abs=EXACT)
    assert found.loss_a == pytest.approx(float((A - y).square().mean()), abs=EXACT)
    assert set(found.sizes) == {"all"}
    assert "accuracy_a" not in found.parts["all"]


def test_the_result_as_table_and_figure() -> None:
    a, b, targets = random_pair()
    found = compare_logits(a, b, a.argmax(1) == targets, b.argmax(1) == targets, targets)
    frame = found.to_frame()
    assert list(frame.columns) == ["part", "quantity", "value", "low", "high", "n", "level"]
    assert found.to_dict()["intervals"] == "over images, not over seeds"
    known = frame.dropna()
    assert ((known.low <= known.value) & (known.value <= known.high)).all()
    ax = found.plot()
    assert "over images, not over seeds" in ax.get_xlabel()
    assert [text.get_text() for text in ax.get_legend().get_texts()] == [
        f"{part} (n = {size})" for part, size in found.sizes.items()
    ]
    one = compare_logits(a[:1], b[:1], torch.tensor([True]), torch.tensor([True]))
    assert math.isnan(one.estimate("kl_a_b").low)
