"""Run a diagnosis: its trainings on an executor, then findings, figures and a report in a folder beside them."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from closerlook import files, report
from closerlook.diagnosis import words
from closerlook.diagnosis.arms import arms_of, name_of, recipes_of
from closerlook.diagnosis.drawings import drawings
from closerlook.diagnosis.findings import Findings, find
from closerlook.diagnosis.outcomes import Outcomes, outcomes
from closerlook.diagnosis.plan import settings_for
from closerlook.diagnosis.settings import Settings
from closerlook.launch import Event, Progress, launch, pool
from closerlook.runs.environment import environment
from closerlook.runs.identity import run_id
from closerlook.runs.store import Store

_QUESTION = "Does this network need a warmup at this learning rate, of how many steps, and because of which block?"


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """What a diagnosis found, and where its files lie; `print` says it in words."""

    outcomes: Outcomes
    findings: Findings
    folder: Path

    @property
    def advice(self) -> str:
        """What to do, in one line."""
        return words.advice(self.outcomes, self.findings)

    @property
    def report(self) -> Path:
        """The HTML page."""
        return self.folder / "report.html"

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values."""
        found, s = self.outcomes, self.outcomes.settings
        arms = {arm: {seed: vars(outcome) for seed, outcome in of.items()} for arm, of in found.by_arm.items()}
        unstable = {arm: {seed: found.instability(arm, seed) for seed in s.seeds} for arm in found.readings}
        return {
            "advice": self.advice, "words": words.lines(found, self.findings), "findings": self.findings.to_dict(),
            "arms": arms, "chance": found.chance, "critical_lr": dict(found.critical),
            "sharpness_above_threshold": {
                arm: {seed: None if one is None else one.to_dict() for seed, one in of.items()}
                for arm, of in unstable.items()
            },
            "settings": s.model_dump(mode="json"),
            "runs": {role: run_id(recipe) for role, recipe in recipes_of(s).items()},
        }  # fmt: skip

    def __str__(self) -> str:
        told = "\n".join(f"- {line}" for line in words.lines(self.outcomes, self.findings))
        return f"{told}\n\nadvice: {self.advice}\n{self.outcomes.cpu_seconds:.0f} CPU seconds in the trainings"


def folder_of(settings: Settings, root: Path) -> Path:
    """Where a diagnosis writes; named by its settings."""
    return root / f"diagnosis-{files.digest(settings.model_dump_json())[:8]}"


def run(settings: Settings, root: Path, jobs: int, progress: Callable[[Event], None], command: str = "") -> Diagnosis:
    """Finish every training and write findings, figures and report; what is done already is reused.

    Raises
    ------
    StepFailedError
        Some training failed; the finished ones are kept.
    """
    with pool(jobs) as executor:
        launch(list(recipes_of(settings).values()), Store(root), executor, jobs, progress)
    found = outcomes(settings, Store(root))
    diagnosis = Diagnosis(found, find(found), folder_of(settings, root))
    _write(diagnosis, command)
    return diagnosis


def _write(diagnosis: Diagnosis, command: str) -> None:
    found, folder = diagnosis.outcomes, diagnosis.folder
    drawn = drawings(found, diagnosis.findings)
    files.write_json(folder / "diagnosis.json", diagnosis.to_dict())
    for figure in drawn:
        files.write_bytes(folder / "figures" / f"{figure.id}.svg", figure.svg.encode())
    page = report.Report(
        title=f"Warmup of {found.settings.model.name}",
        question=_QUESTION,
        verdict={"answer": "numbers only", "words": f"Advice: {diagnosis.advice}."},
        figures=drawn,
        tables=(_table(found),),
        settings=_settings(found.settings),
        seeds=found.settings.seeds,
        environment=environment(),
        costs=((f"train: {len(recipes_of(found.settings))} runs, CPU seconds of all", found.cpu_seconds),),
        command=command,
        notes=tuple(words.lines(found, diagnosis.findings)),
    )
    report.write(page, diagnosis.report)


def _table(found: Outcomes) -> report.Table:
    s = found.settings
    rows = tuple((name_of(arm, s), *(_shown(found, arm, seed) for seed in s.seeds)) for arm in arms_of(s))
    return report.Table(
        "arms", "Every training", ("training", *(f"seed {seed}" for seed in s.seeds)), rows,
        "Validation accuracy at the end, or the step at which it diverged",
    )  # fmt: skip


def _shown(found: Outcomes, arm: str, seed: int) -> str:
    outcome = found.by_arm[arm][seed]
    return f"{100 * outcome.accuracy:.1f} %" if outcome.diverged_at is None else f"diverged at {outcome.diverged_at}"


def _settings(s: Settings) -> tuple[tuple[str, str, str], ...]:
    told = {
        "data": f"{s.data.name}, {s.data.n_train} to train, {s.data.n_validation} for validation",
        "optimizer": ", ".join(f"{name} {value}" for name, value in s.optimizer.model_dump().items()),
        "batch, steps": f"{s.batch_size}, {s.steps} ({s.epochs} epochs)",
        "lengths of warmup": ", ".join(map(str, s.lengths)),
        **{f"block {name}": ", ".join(patterns) for name, patterns in s.blocks.items()},
    }
    return tuple((name, value, "as given, or by default") for name, value in told.items())


def diagnose_warmup(model: str, data: str, *, runs: str | Path = "runs", jobs: int = 1, **settings: Any) -> Diagnosis:
    """Find out by training whether a network needs a warmup, how long, and which block it is for.

    For each seed short trainings at the constant learning rate: without warmup, with warmups of several lengths, with
    each block alone warmed up, with it alone frozen, with the gradient clipped, and at a quarter of the rate. Finished
    trainings in `runs` are reused, and the same call goes on where it was stopped.

    Parameters
    ----------
    model, data
        Built-in names, or ``"module:function"``: the function returns a module, or (train, validation, test), each a
        pair (inputs, targets) or a Dataset.
    runs
        Folder of the runs; findings, figures and report go to ``diagnosis-...`` in it.
    jobs
        Trainings at a time.
    settings
        As in `closerlook.diagnosis.settings_for`: lr and batch must be there; optimizer, momentum, weight_decay, steps,
        seeds, lengths, blocks, clip, model_options, resolution.

    Raises
    ------
    UsageError
        What cannot be trained, before anything is.
    StepFailedError
        A training failed; the finished ones are kept.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     found = diagnose_warmup("mlp", "digits", lr=0.01, batch=50, steps=8, seeds=(0, 1), runs=folder)
    >>> found.findings.unstable
    []
    """
    chosen = settings_for(model, data, **settings)
    progress = Progress(len(recipes_of(chosen)), sys.stderr)
    try:
        return run(chosen, Path(runs), jobs, progress)
    finally:
        progress.close()
