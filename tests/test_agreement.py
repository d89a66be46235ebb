"""Function-space distance, on logits made by hand."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from closerlook.agreement import Agreement, agreement, compare_logits, ensemble, ensemble_logits
from closerlook.batches import Output
from closerlook.errors import UsageError
from conftest import digit_batches, small_net

# A handful of logarithms in float64.
EXACT = 1e-12


def logits(*probabilities: list[float]) -> Tensor:
    return torch.tensor(probabilities, dtype=torch.float64).log()


# Four examples. The first model is right, right, wrong, wrong; the second right, wrong, right, wrong.
TARGETS = torch.tensor([0, 1, 2, 2])
A = logits([0.5, 0.25, 0.25], [0.2, 0.6, 0.2], [0.7, 0.2, 0.1], [0.1, 0.8, 0.1])
B = logits([0.8, 0.1, 0.1], [0.5, 0.3, 0.2], [0.1, 0.1, 0.8], [0.6, 0.3, 0.1])


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
    assert Agreement(**found.to_dict()) == found


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
    for correct, outputs in ((None, A), (torch.ones(4), A), (torch.ones(4, dtype=torch.bool), A[:, :, None])):
        with pytest.raises(UsageError, match=r"returns logits \[n, classes\] and hits \[n\] \(bool\)"):
            agreement(
                stored(A), stored(B), [(A, TARGETS)],
                batch_fn=lambda model, batch, correct=correct, outputs=outputs: Output(
                    batch[1].double(), outputs, correct
                ),
            )  # fmt: skip
