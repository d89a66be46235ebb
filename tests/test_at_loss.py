"""Points by training loss: the first kept epoch that is as low; what diverged, or never gets there, is missing."""

import json
from pathlib import Path
from typing import Any

import pytest

from closerlook import files
from closerlook.errors import NotFiniteError, PointMissingError, UsageError
from closerlook.runs.recipe import AtLoss, CompareRecipe, DataSpec, File, ModelSpec, Snapshot
from closerlook.runs.store import RunFolder
from closerlook.steps import compare
from closerlook.steps.points import at_loss

DATA = DataSpec(name="digits", n_train=40, n_validation=0, n_statistics=0, n_read=20, n_test=20, seed=0)


def trained(root: Path, name: str, losses: list[float], kept: list[int], diverged_at: int | None = None) -> None:
    """A finished training of epochs of 10 steps with these losses, and empty snapshots at the kept steps."""
    rows: list[dict[str, Any]] = [{"step": 10 * place, "loss": loss} for place, loss in enumerate(losses, 1)]
    rows += [{"step": diverged_at, "diverged": True}] if diverged_at else []
    files.write_bytes(root / name / "metrics.jsonl", b"".join(json.dumps(row).encode() + b"\n" for row in rows))
    files.write_json(root / name / "results" / "outcome.json", {"diverged_at": diverged_at})
    for step in kept:
        files.write_bytes(root / name / "checkpoints" / f"step-{step:06d}.safetensors", b"")


def found(root: Path, step: int = 10) -> Snapshot:
    return at_loss(RunFolder(root / "compare-1"), AtLoss(run="n", like=Snapshot(run="w", step=step)))


def test_the_first_kept_epoch_at_or_below(tmp_path: Path) -> None:
    trained(tmp_path, "w", [1.5, 1.0], kept=[10, 20])
    trained(tmp_path, "n", [2.3, 1.5, 1.4, 0.9], kept=[10, 30, 40])
    assert found(tmp_path) == Snapshot(run="n", step=30)  # the second epoch is as low, and its weights are not kept
    assert found(tmp_path, 20) == Snapshot(run="n", step=40)


def test_a_loss_that_is_never_reached_is_missing(tmp_path: Path) -> None:
    trained(tmp_path, "w", [1.5], kept=[10])
    trained(tmp_path, "n", [2.3, 2.3], kept=[10, 20], diverged_at=27)
    with pytest.raises(PointMissingError, match=r"no kept epoch of n has a training loss of 1.5 or less"):
        found(tmp_path)


def test_a_run_to_be_like_that_diverged_is_missing_and_no_loss_inside_an_epoch(tmp_path: Path) -> None:
    trained(tmp_path, "w", [1.5], kept=[10, 15], diverged_at=17)
    trained(tmp_path, "n", [1.0], kept=[10])
    with pytest.raises(PointMissingError, match="diverged before"):
        found(tmp_path, 20)
    with pytest.raises(UsageError, match="the end of an epoch"):
        found(tmp_path, 15)


def test_activations_that_overflow_have_nothing_to_compare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def overflows(*given: Any) -> Any:
        raise NotFiniteError("activations of fc1 are infinite")

    monkeypatch.setattr(compare, "_compared", overflows)
    model, point = ModelSpec(name="mlp"), Snapshot(run="n", step=10)
    recipe = CompareRecipe(data=DATA, model=model, a=point, b=point)
    with pytest.raises(PointMissingError, match="fc1 are infinite"):
        compare.run(recipe, RunFolder(tmp_path))
    theirs = recipe.model_copy(update={"b": File(path="b.pt", sha256="0")})
    with pytest.raises(NotFiniteError):
        compare.run(theirs, RunFolder(tmp_path))
