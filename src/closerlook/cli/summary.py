"""What a run came to, by its kind, in a few numbers."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from closerlook.agreement import Agreement
from closerlook.cli.answer import facts
from closerlook.cli.profiles import barriers
from closerlook.cli.work import state
from closerlook.landscape import Profile, Surface
from closerlook.runs.store import RunFolder
from closerlook.similarity import Comparison


def summary(folder: RunFolder) -> dict[str, Any]:
    """State, seconds and, of a finished run, its results."""
    wall, cpu = folder.seconds()
    stands = state(folder)
    told = {"run": folder.id, "folder": folder.path, "state": stands, "seconds": wall, "cpu_seconds": cpu}
    return {**told, **(_results(folder) if stands == "done" else {})}


def described(told: Mapping[str, Any]) -> str:
    """A summary as text."""
    plain = {name: value for name, value in told.items() if not isinstance(value, list | dict)}
    lists = {name: value for name, value in told.items() if isinstance(value, list)}
    return "\n".join([facts(plain), *(f"{name}:\n" + "\n".join(f"  {item}" for item in lists[name]) for name in lists)])


def _results(folder: RunFolder) -> dict[str, Any]:
    if (folder.path / "results" / "missing.json").exists():
        return {"missing": folder.result("missing")["reason"]}
    return _KINDS[folder.recipe().kind](folder)


def _train(folder: RunFolder) -> dict[str, Any]:
    checkpoints = sorted((folder.path / "checkpoints").glob("step-*.safetensors"))
    return {**_last(folder), **folder.result("outcome"), "checkpoints": checkpoints}


def _connect(folder: RunFolder) -> dict[str, Any]:
    return {**_last(folder), **folder.result("curve")}


def _last(folder: RunFolder) -> dict[str, Any]:
    return {name: value for row in folder.journal()[-1:] for name, value in row.items()}


def _profile(folder: RunFolder) -> dict[str, Any]:
    stored = folder.result("profile")
    found = barriers("", Profile.from_dict(stored), "above_ends")
    heights = {f"{row['split']} {row['metric']} barrier above the worse end": row["value"] for row in found}
    return {"curve": stored["kind"], "length": stored["length"], "batch_stats": stored["batch_stats"], **heights}


def _surface(folder: RunFolder) -> dict[str, Any]:
    found = Surface.from_dict(folder.result("surface"))
    lowest = {f"lowest {name.replace('_', ' ')}": float(values.min()) for name, values in found.values.items()}
    return {"grid": f"{len(found.x)} x {len(found.y)}", "batch_stats": found.batch_stats, **lowest}


def _barriers(folder: RunFolder) -> dict[str, Any]:
    stored = folder.result("barriers")
    return {name: stored[name] for name in ("definition", "points", "batch_stats", "dtype", "labels", "values")}


def _predict(folder: RunFolder) -> dict[str, Any]:
    return {"logits": folder.path / "results" / "logits.npz"}


def _compare(folder: RunFolder) -> dict[str, Any]:
    found = Comparison.from_dict(folder.result("compare"))
    largest = {f"largest {name}": float(np.nanmax(found.tables["value"][name])) for name in found.measures}
    sizes = f"{len(found.layers_a)} x {len(found.layers_b)}"
    return {"layers": sizes, "images": found.n, "handling": found.handling_used, **largest, "notes": list(found.notes)}


def _agreement(folder: RunFolder) -> dict[str, Any]:
    found = Agreement.from_dict(folder.result("agreement"))
    return {"images": found.n, **{name: each.value for name, each in found.parts["all"].items()}}


def _probes(folder: RunFolder) -> dict[str, Any]:
    stored = folder.result("probes")
    scores = {f"{stored['quantity']} at {row['layer']}": row["value"] for row in stored["probes"]}
    return {"target": stored["target"], "chance": stored["chance"], **scores, "notes": stored["notes"]}


def _boundary(folder: RunFolder) -> dict[str, Any]:
    stored = folder.result("boundary")
    return {"largest rate that trains": stored["boundary"], "tried": stored["tried"]}


def _sharpness(folder: RunFolder) -> dict[str, Any]:
    stored = folder.result("sharpness")
    pairs = enumerate(zip(stored["values"], stored["residuals"], strict=True), start=1)
    values = {f"eigenvalue {rank}": f"{value:.4g}, to within {residual:.2g}" for rank, (value, residual) in pairs}
    told = {name: stored[name] for name in ("n", "batches", "loss", "batch_norm", "products", "converged")}
    shares = {f"share of the top vector in {name}": share for name, share in stored["shares"].items()}
    return {**values, "critical learning rate": stored["critical_lr"]["value"], **told, **shares}


def _align(folder: RunFolder) -> dict[str, Any]:
    names = ("method", "units", "moved", "distance_before", "distance_after", "output_difference")
    stored = folder.result("align")
    return {**{name: stored[name] for name in names}, "checkpoint": folder.path / "results" / "aligned.safetensors"}


_KINDS: Mapping[str, Callable[[RunFolder], dict[str, Any]]] = {
    "train": _train, "connect": _connect, "profile": _profile, "surface": _surface, "barriers": _barriers,
    "predict": _predict, "compare": _compare, "agreement": _agreement, "probes": _probes,
    "boundary": _boundary, "sharpness": _sharpness, "align": _align, "directions": _surface, "trajectory": _surface,
}  # fmt: skip
