"""The graph of steps: what is ready is submitted, what is done is reused, what fails stops only what needs it."""

from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal

from closerlook.errors import DiskFullError, StepFailedError, StoreError, UsageError
from closerlook.runs.identity import run_id
from closerlook.runs.recipe import Recipe, inputs_of
from closerlook.runs.store import Store
from closerlook.steps import has_helper, help_step, run_step
from closerlook.steps.cost import counts

Outcome = Literal["reused", "done", "failed"]


@dataclass(frozen=True)
class Event:
    """One step came to its end."""

    run: str
    recipe: Recipe
    outcome: Outcome
    share: float
    message: str = ""


@dataclass
class Graph:
    """Recipes and what they wait for; recipes come in any order, inputs among them or finished before."""

    recipes: Sequence[Recipe]
    nodes: dict[str, Recipe] = field(init=False)
    urgency: dict[str, float] = field(init=False)

    def __post_init__(self) -> None:
        self.nodes = {run_id(recipe): recipe for recipe in self.recipes}
        self.needs = {
            run: [need for need in inputs_of(recipe) if need in self.nodes] for run, recipe in self.nodes.items()
        }
        self.costs = {run: float(counts(recipe)[1]) for run, recipe in self.nodes.items()}
        self.urgency = {}
        users: dict[str, list[str]] = {run: [] for run in self.nodes}
        for run, needs in self.needs.items():
            for need in needs:
                users[need].append(run)
        for run in reversed(self.order()):
            # The longest way from here to the end: the steps on it must not wait.
            self.urgency[run] = self.costs[run] + max((self.urgency[user] for user in users[run]), default=0.0)

    def order(self) -> list[str]:
        """Names of the runs, every one after its inputs."""
        placed: dict[str, None] = {}

        def place(run: str) -> None:
            for need in self.needs[run]:
                if need not in placed:
                    place(need)
            placed[run] = None

        for run in self.nodes:
            if run not in placed:
                place(run)
        return list(placed)


def launch(
    recipes: Sequence[Recipe], store: Store, executor: Executor, jobs: int, progress: Callable[[Event], None]
) -> None:
    """Finish every recipe's run in `store`, at most `jobs` at a time.

    What is submitted is the path of a run folder, so any ``concurrent.futures`` executor of processes will do; threads
    of one process would share their random numbers.

    Raises
    ------
    UsageError
        A recipe needs a run that is neither among them nor finished in the store; fewer than one job.
    StepFailedError
        Some steps raised; all those that do not depend on them were finished first, unless the executor broke or the
        disk is full.
    """
    if jobs < 1:
        raise UsageError(f"{jobs} jobs do no work; take at least one")
    work = _Work(Graph(recipes), store, progress)
    work.check_inputs()
    work.reuse()
    while work.waiting or work.running:
        for run in work.ready()[: jobs - len(work.running)]:
            work.submit(run, executor)
        work.lend(jobs, executor)
        if work.running:
            work.collect()
        elif not work.ready():
            break
    if work.failures:
        lines = [f"  {run}: {_described(error)}" for run, error in work.failures.items()]
        counts = f"steps failed: {len(work.failures)}; not started: {len(work.waiting)}; finished work is kept"
        raise StepFailedError("\n".join([counts, *lines])) from next(iter(work.failures.values()))


class _Work:
    def __init__(self, graph: Graph, store: Store, progress: Callable[[Event], None]) -> None:
        self.graph, self.store, self.progress = graph, store, progress
        self.waiting = sorted(graph.nodes, key=lambda run: -graph.urgency[run])
        self.running: dict[Future[str], str] = {}
        self.failures: dict[str, BaseException] = {}
        self.finished: set[str] = set()
        self.helping: set[Future[None]] = set()
        self.helped: set[str] = set()
        self.ended = False

    def check_inputs(self) -> None:
        to_do = {run: recipe for run, recipe in self.graph.nodes.items() if not self.store.folder(run).done}
        for run, recipe in to_do.items():
            for need in inputs_of(recipe):
                if need not in self.graph.nodes and not self.store.folder(need).done:
                    raise UsageError(f"{run} needs {need}, which is not finished in {self.store.root}; add its recipe")

    def reuse(self) -> None:
        for run in self.graph.order():
            if self.store.folder(run).done:
                self.waiting.remove(run)
                self._close(run, "reused")

    def ready(self) -> list[str]:
        if self.ended:
            return []
        return [run for run in self.waiting if self.finished.issuperset(self.graph.needs[run])]

    def submit(self, run: str, executor: Executor) -> None:
        self.waiting.remove(run)
        try:
            folder = self.store.create(self.graph.nodes[run])
            self.running[executor.submit(run_step, str(folder.path))] = run
        except (StoreError, BrokenExecutor) as error:
            self._fail(run, error)

    def lend(self, jobs: int, executor: Executor) -> None:
        """Let idle jobs help with steps that several processes can work on, each step once."""
        self.helping = {future for future in self.helping if not future.done()}
        open_to = [run for run in self.running.values() if has_helper(self.graph.nodes[run].kind)]
        for run in open_to[: max(0, jobs - len(self.running) - len(self.helping))]:
            if run not in self.helped and not self.ended:
                self.helped.add(run)
                with suppress(BrokenExecutor):  # the step itself will say so
                    self.helping.add(executor.submit(help_step, str(self.store.folder(run).path)))

    def collect(self) -> None:
        # What a helper says is not asked: an error of its own comes again in the step itself.
        for future in wait(self.running, return_when=FIRST_COMPLETED).done:
            run, error = self.running.pop(future), future.exception()
            if error is None:
                self._close(run, "done")
            else:
                self._fail(run, error)

    def _fail(self, run: str, error: BaseException) -> None:
        # A process pool that lost one process takes no more work; a full disk would let the next step fail as well.
        self.ended = self.ended or isinstance(error, BrokenExecutor | DiskFullError)
        self.failures[run] = error
        self._close(run, "failed", _described(error))

    def _close(self, run: str, outcome: Outcome, message: str = "") -> None:
        if outcome != "failed":
            self.finished.add(run)
        costs = self.graph.costs
        share = sum(costs[name] for name in self.finished) / (sum(costs.values()) or 1.0)
        self.progress(Event(run, self.graph.nodes[run], outcome, share, message))


def _described(error: BaseException) -> str:
    if isinstance(error, BrokenExecutor):
        return "its process was ended from outside (out of memory?); start the command again, with fewer --jobs"
    return f"{type(error).__name__}: {error}"
