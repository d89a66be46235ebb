"""What the warmup study asks, and its tables."""

from collections.abc import Iterator

from closerlook.report import Table
from closerlook.studies.plan import Results
from closerlook.studies.stored import diverged_at, mean
from closerlook.studies.warmup import changes, numbers, sharpest
from closerlook.studies.warmup.arms import name_of

QUESTION = "Is warming up the deep layers alone enough, and is it needed?"
NOTES = (
    "Exploratory, outside the rule: everything but the parts above.",
    "What would refute claim (b): warming up the shallow layers alone rescues training as well, or the block that "
    "needs warmup follows the missing batch norm rather than depth.",
    "Batch norm stands in the convolutions and not in the head: here depth and normalisation coincide. The scale "
    "'standard' crosses them.",
    "A frozen block gets no weight decay and no momentum, and is released at the rate that warmup has reached at that "
    "step. A random set is drawn over all weights, as many as the deep block has.",
    "Sources: Gotmare et al. 2019 (arXiv 1810.13243), section 4; Goyal et al. 2017 (arXiv 1706.02677); Gilmer et al. "
    "2021 (arXiv 2110.04369); Kalra and Barkeshli 2024 (arXiv 2406.09405); Cohen et al. 2021 (arXiv 2103.00065).",
)


def tables(results: Results) -> tuple[Table, ...]:
    """Every table of the report."""
    makers = (_accuracies, _boundaries, changes.tables, sharpest.tables)
    return tuple(table for make in makers for table in make(results))


def _accuracies(results: Results) -> Iterator[Table]:
    seeds, values, shares = results.plan.seeds, numbers.counted(results), numbers.benefits(results)
    rows = []
    for arm, by_seed in values.items():
        ended = {seed: diverged_at(results, f"{arm}/{seed}/train") for seed in by_seed}
        cells = [_cell(by_seed.get(seed), ended.get(seed)) for seed in seeds]
        rows.append((name_of(arm), *cells, 100 * mean(by_seed.values()), mean(shares[arm].values())))
    yield Table(
        "accuracy", "Test accuracy at the end (%), and share of warmup's benefit",
        ("arm", *(f"seed {seed}" for seed in seeds), "mean", "(X - N) / (W - N)"), tuple(rows),
        "On the whole test set, with each network's own batch-norm statistics. A run that diverged counts as guessing; "
        "its step stands beside it. A share stands where warmup gains more than 5 points. Other blocks and small "
        "batches on the first seeds alone.",
    )  # fmt: skip


def _cell(value: float | None, ended: int | None) -> str | float | None:
    if value is None:
        return None
    return round(100 * value, 2) if ended is None else f"{100 * value:.1f} (diverged at {ended})"


def _boundaries(results: Results) -> Iterator[Table]:
    roles = [role for role, recipe in results.plan.roles.items() if recipe.kind == "boundary"]
    names = dict.fromkeys(role.rpartition("/")[0] for role in roles)
    seeds = results.plan.seeds
    rows = [(_network(name), *(_limit(results, f"{name}/{seed}") for seed in seeds)) for name in names]
    if rows:
        yield Table(
            "boundaries", "Failure boundaries: the largest learning rate that trains",
            ("network and arm", *(f"seed {seed}" for seed in seeds)), tuple(rows),
            "By bisection; a rate trains where the run does not diverge and ends above half of the validation images "
            "right; the boundary is the middle between the last rate that does and the next. A sign stands where it "
            "lies beyond the grid.",
        )  # fmt: skip


def _network(name: str) -> str:
    where, _, arm = name.rpartition("/")
    return f"{where.removeprefix('boundary').removeprefix(' of ') or 'as studied'}, {name_of(arm)}"


def _limit(results: Results, role: str) -> str | None:
    found = numbers.boundary(results, role) if role in results.plan.roles else None
    if found is None:
        return None
    sign = {"below": "< ", "above": "> ", None: ""}[found["beyond"]]
    return f"{sign}{found['boundary']:.3g}"
