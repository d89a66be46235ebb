"""Failure boundaries: bisection finds what was planted, a kill costs one try, and nothing is left behind."""

import math
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from closerlook import files
from closerlook.errors import StateError, UsageError
from closerlook.runs.recipe import BoundaryRecipe, DataSpec, ModelSpec, OptimizerSpec, Seeds, TrainRecipe
from closerlook.runs.store import RunFolder, Store
from closerlook.steps import boundary as module
from closerlook.steps import run_step
from closerlook.steps.cost import counts

DATA = DataSpec(name="digits", n_train=40, n_validation=40, n_statistics=0, n_read=20, n_test=20, seed=0)
TRAIN = TrainRecipe(
    data=DATA, model=ModelSpec(name="mlp", options={"hidden": (4,)}), optimizer=OptimizerSpec(lr=99.0), epochs=1,
    batch_size=20, seeds=Seeds.of(0),
)  # fmt: skip


def recipe(**changed: Any) -> BoundaryRecipe:
    return BoundaryRecipe(**{"train": TRAIN, "low": 0.1, "high": 6.4, "factor": 1.25, "offset": 0.3, **changed})


class Planted:
    """In place of training: rates up to `limit` train, those above it diverge or do not learn."""

    def __init__(self, limit: float, diverges: bool = True, stop_at: int | None = None) -> None:
        self.limit, self.diverges, self.stop_at, self.asked = limit, diverges, stop_at, list[float]()

    def __call__(self, train: TrainRecipe, folder: RunFolder, out: Path) -> Any:
        self.asked.append(train.optimizer.lr)
        files.write_bytes(out / "state.safetensors", b"")
        if len(self.asked) == self.stop_at:
            raise KeyboardInterrupt
        fails = train.optimizer.lr > self.limit
        diverged = 3 if fails and self.diverges else None
        return SimpleNamespace(diverged_at=diverged, history=[{"validation_accuracy": 0.1 if fails else 0.9}])


def found(made: BoundaryRecipe, planted: Planted, root: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setattr(module, "trained", planted)
    folder = Store(root).create(made)
    module.run(made, folder)
    assert not (folder.path / "tries").exists()
    result = files.read_json(folder.path / "results" / "boundary.json")
    assert isinstance(result, dict)
    return result


@pytest.mark.parametrize("diverges", [True, False])
@pytest.mark.parametrize("count", [1, 2, 5, 8, 18])
def test_bisection_finds_every_planted_boundary_in_few_tries(
    count: int, diverges: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = recipe(high=0.1 * 1.25 ** (count - 1 + 0.5))
    rates = made.rates
    assert len(rates) == count
    for place in range(-1, count):
        planted = Planted(0.0 if place < 0 else rates[place] * 1.01, diverges)
        result = found(made, planted, tmp_path / f"{place}", monkeypatch)
        assert len(set(planted.asked)) == len(planted.asked) <= math.ceil(math.log2(count + 1))
        near = rates[max(place, 0) : place + 2] if 0 <= place < count - 1 else rates[max(place, 0) :][:1]
        wanted = math.prod(near) ** (1 / len(near))
        assert result["boundary"] == pytest.approx(wanted, rel=1e-12)
        assert result["beyond"] == ("below" if place < 0 else "above" if place == count - 1 else None)
        assert [row["lr"] for row in result["tried"]] == sorted(planted.asked)
        for row in result["tried"]:
            assert row["trains"] == (row["lr"] <= planted.limit)
            assert row["diverged_at"] == (3 if diverges and not row["trains"] else None)


def test_the_grid_is_moved_by_its_offset() -> None:
    plain, moved = recipe(offset=0.0).rates, recipe(offset=0.5).rates
    assert plain[0] == 0.1
    assert [b / a for a, b in pairwise(plain)] == pytest.approx([1.25] * (len(plain) - 1))
    assert [b / a for a, b in zip(plain, moved, strict=False)] == pytest.approx([math.sqrt(1.25)] * len(moved))
    assert max(*plain, *moved) <= 6.4


def test_a_stopped_bisection_ends_with_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, whole = recipe(), Planted(1.0)
    result = found(made, whole, tmp_path / "whole", monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        found(made, Planted(1.0, stop_at=2), tmp_path / "parts", monkeypatch)
    assert found(made, Planted(1.0), tmp_path / "parts", monkeypatch) == result


def test_a_damaged_try_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Damaged(Planted):
        def __call__(self, train: TrainRecipe, folder: RunFolder, out: Path) -> Any:
            if (out / "state.safetensors").exists():
                raise StateError("damaged")
            return super().__call__(train, folder, out)

    made = recipe()
    result = found(made, Planted(1.0), tmp_path / "whole", monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        found(made, Planted(1.0, stop_at=2), tmp_path / "parts", monkeypatch)
    assert found(made, Damaged(1.0), tmp_path / "parts", monkeypatch) == result


def test_what_cannot_work_is_refused_before_the_first_try(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blind = TRAIN.model_copy(update={"data": DATA.model_copy(update={"n_validation": 0})})
    for made, words in ((recipe(high=0.05), "no learning rate"), (recipe(train=blind), "data.n_validation")):
        planted = Planted(1.0)
        with pytest.raises(UsageError, match=words):
            found(made, planted, tmp_path, monkeypatch)
        assert planted.asked == []


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7, 8, 22])
def test_the_estimate_is_that_of_the_most_tries(count: int) -> None:
    made = recipe(high=0.1 * 1.25 ** (count - 1 + 0.5))
    tries = math.ceil(math.log2(count + 1))
    assert counts(made) == tuple(tries * number for number in counts(TRAIN))


def finished(root: Path, made: BoundaryRecipe) -> Path:
    path = Store(root).create(made).path
    run_step(str(path))
    return path


def test_tiny_trainings_on_digits_killed_inside_a_try(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = recipe(low=0.01, high=1e30, factor=1e8, trains=0.0)  # 4 rates: any that does not diverge trains
    whole = finished(tmp_path / "whole", made)
    result = RunFolder(whole).result("boundary")
    assert 0.01 < result["boundary"] < 1e30
    assert result["beyond"] is None
    real, asked = module.trained, list[float]()

    def stopped(train: TrainRecipe, folder: RunFolder, out: Path) -> Any:
        asked.append(train.optimizer.lr)
        if len(asked) == 2:
            raise KeyboardInterrupt
        return real(train, folder, out)

    monkeypatch.setattr(module, "trained", stopped)
    with pytest.raises(KeyboardInterrupt):
        finished(tmp_path / "parts", made)
    parts = finished(tmp_path / "parts", made)
    names = {str(path.relative_to(whole)) for path in whole.rglob("*") if path.is_file()}
    assert names == {str(path.relative_to(parts)) for path in parts.rglob("*") if path.is_file()}
    assert not any(name.startswith("tries") for name in names)
    for name in ("DONE", "recipe.json", "results/boundary.json"):
        assert (whole / name).read_bytes() == (parts / name).read_bytes()
