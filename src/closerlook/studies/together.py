"""All studies in one graph: a verdict and a report for each, as when it is run alone, and one page of all of them."""

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Executor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from closerlook import files
from closerlook.errors import CloserlookError, StepFailedError
from closerlook.evidence.deciding import deciding
from closerlook.launch import Event, launch, pool
from closerlook.launch.pool import InThisProcess
from closerlook.report import Collection, Section, write_collection
from closerlook.runs.identity import run_id
from closerlook.runs.recipe import Recipe
from closerlook.runs.store import Store, only_one
from closerlook.studies import STUDIES
from closerlook.studies.plan import Scale, StudyPlan
from closerlook.studies.run import StudyOutcome, conclude, study_folder

ALL = "all"
_QUESTION = "Which explanations of common training heuristics hold here, and what speaks for or against each?"


@dataclass(frozen=True)
class Whole:
    """The plans of all studies, in the order of the paper, and what was asked for: `seeds` None are each one's own."""

    scale: Scale
    seeds: tuple[int, ...] | None
    data: str | None
    plans: tuple[StudyPlan, ...]

    @property
    def recipes(self) -> list[Recipe]:
        """The recipes of all studies; one that several studies share is run once."""
        return list({run_id(recipe): recipe for plan in self.plans for recipe in plan.recipes}.values())

    @property
    def command(self) -> str:
        """What to type to get the same numbers again."""
        seeds = "" if self.seeds is None else f" --seeds {','.join(map(str, self.seeds))}"
        data = "" if self.data is None else f" --data {self.data}"
        return f"closerlook study {ALL} --scale {self.scale}{seeds}{data}"

    def folder(self, root: Path) -> Path:
        """Where the page of all studies goes; named by their folders."""
        text = "\n".join(study_folder(plan, root).name for plan in self.plans)
        return root / f"study-{ALL}-{self.scale}-{files.digest(text)[:8]}"


@dataclass(frozen=True)
class WholeOutcome:
    """What every study came to, by name; why some came to nothing, and what the steps that failed said."""

    studies: Mapping[str, StudyOutcome]
    missing: Mapping[str, str]
    failures: tuple[str, ...]
    report: Path
    folder: Path


def plan_all(scale: Scale, seeds: Iterable[int] | None = None, data: str | None = None) -> Whole:
    """The plans of all studies at a scale; other seeds and data hold for each of them.

    Raises
    ------
    UsageError
        An unknown scale, or no seed.
    """
    chosen = None if seeds is None else tuple(seeds)
    return Whole(scale, chosen, data, tuple(study.plan(scale, chosen, data) for study in STUDIES.values()))


def run_all(whole: Whole, root: Path, jobs: int, progress: Callable[[Event], None]) -> WholeOutcome:
    """Finish the steps of all studies in one launch, then judge each by its own numbers and write all reports.

    A step that failed takes away the verdicts of the studies that need it, and no other's.

    Raises
    ------
    StoreError
        Another command works on one of the studies.
    StepFailedError
        Steps failed, and no study could be judged.
    """
    with ExitStack() as held:
        for folder in [study_folder(plan, root) for plan in whole.plans] + [whole.folder(root)]:
            held.enter_context(only_one(folder / "LOCK"))
        with pool(jobs) as executor:
            try:
                launch(whole.recipes, Store(root), executor, jobs, progress)
            except StepFailedError as error:
                return conclude_all(whole, root, failure=error)  # here: a broken executor takes no more work
            return conclude_all(whole, root, executor)


def conclude_all(
    whole: Whole, root: Path, executor: Executor | None = None, failure: StepFailedError | None = None
) -> WholeOutcome:
    """Judge every study whose steps are all done, and write the page of all; `failure` says why others are not."""
    drawing = executor or InThisProcess()
    left = {plan.name: _left(plan, root) for plan in whole.plans}
    missing = {name: f"steps not finished: {count}" for name, count in left.items() if count}
    waiting = {plan.name: drawing.submit(conclude, plan, root) for plan in whole.plans if plan.name not in missing}
    studies = {}
    for name, future in waiting.items():
        try:
            studies[name] = future.result()
        except CloserlookError as error:
            missing[name] = str(error)
    if not studies:
        raise failure or StepFailedError("\n".join(f"{name}: {why}" for name, why in missing.items()))
    folder, failures = whole.folder(root), (str(failure),) if failure else ()
    return _written(whole, root, WholeOutcome(studies, missing, failures, folder / "report.html", folder))


def _left(plan: StudyPlan, root: Path) -> int:
    return sum(not Store(root).folder(run).done for run in {run_id(recipe) for recipe in plan.recipes})


def _written(whole: Whole, root: Path, outcome: WholeOutcome) -> WholeOutcome:
    folders = {name: study.folder.name for name, study in outcome.studies.items()}
    told = {"study": ALL, "scale": whole.scale, "seeds": whole.seeds, "data": whole.data, "studies": folders}
    files.write_json(outcome.folder / "plan.json", told)
    verdicts = {name: {"folder": folders[name], **study.verdict.to_dict()} for name, study in outcome.studies.items()}
    files.write_json(outcome.folder / "verdicts.json", verdicts)
    page = Collection(
        title=f"All studies: scale {whole.scale}",
        question=_QUESTION,
        sections=tuple(_section(name, study) for name, study in outcome.studies.items()),
        missing=tuple(outcome.missing.items()),
        environment=next(iter(outcome.studies.values())).page.environment,
        costs=_costs(whole, root),
        command=whole.command,
    )
    write_collection(page, outcome.report)
    return outcome


def _section(name: str, study: StudyOutcome) -> Section:
    return Section(name, study.page, tuple(ground.to_dict() for ground in deciding(study.verdict)))


def _costs(whole: Whole, root: Path) -> tuple[tuple[str, float], ...]:
    """CPU seconds per study; a run that several share counts for the first of them."""
    rows, counted = [], set[str]()
    for plan in whole.plans:
        own = {run_id(recipe) for recipe in plan.recipes} - counted
        counted |= own
        shared = len({run_id(recipe) for recipe in plan.recipes}) - len(own)
        beside = f", {shared} more shared with a study above" if shared else ""
        spent = sum(Store(root).folder(run).seconds()[1] for run in own)
        rows.append((f"{plan.name}: {len(own)} runs{beside}, CPU seconds of all", round(spent, 1)))
    return tuple(rows)
