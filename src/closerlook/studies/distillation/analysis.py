"""What the distillation study asks, and its tables."""

import math
from collections.abc import Callable, Iterable, Iterator

from closerlook.report import Table
from closerlook.studies.compared import named, span
from closerlook.studies.distillation import numbers, probed
from closerlook.studies.distillation.words import name_of
from closerlook.studies.plan import Results
from closerlook.studies.stored import arms_of, mean

QUESTION = "Beyond what soft targets of any origin do, where in the student does this teacher's knowledge sit?"
NOTES = (
    "Exploratory, outside the rule: everything but the parts above.",
    "What would refute claim (c): no contrast of depth once the room that is left and chance are taken into account, "
    "or a shallower half that recovers as much of the teacher, re-trained, as the deeper one.",
    "The loss acts on the logits, so the last layers are pulled by construction: hence the parts C2 to C4. Logits are "
    "left out of every contrast.",
    "Each seed has a teacher of its own; the teachers of the other seeds are the second teachers.",
    "Sources: Gotmare et al. 2019 (arXiv 1810.13243), section 5; Hinton et al. 2015 (arXiv 1503.02531); Stanton et al. "
    "2021 (arXiv 2106.05945); Kornblith et al. 2019 (arXiv 1905.00414).",
)


def tables(results: Results) -> tuple[Table, ...]:
    """Every table of the report."""
    makers: tuple[Callable[[Results], Iterator[Table]], ...] = (
        _outcomes, _teachers, _training, _depth, _directions, probed.tables,
    )  # fmt: skip
    return tuple(table for make in makers for table in make(results))


def _outcomes(results: Results) -> Iterator[Table]:
    seeds, rows = results.plan.seeds, []
    for arm in arms_of(results):
        accuracies = [100 * numbers.accuracy(results, arm, seed) for seed in seeds]
        apart = [numbers.agreement(results, arm, seed) for seed in seeds] if arm != "T" else []
        known = [one for one in apart if one is not None]
        rows.append((
            name_of(arm), _each(accuracies, 2), mean(accuracies),
            _each((one.kl_a_b for one in known), 4) if arm != "T" else None, mean(one.kl_a_b for one in known),
            mean(100 * (1 - one.disagreement) for one in known), mean(one.kappa for one in known),
        ))  # fmt: skip
    yield Table(
        "outcomes", "Test accuracy, and agreement with the teacher",
        ("arm", "accuracy (%), each seed", "mean", "divergence (nats), each seed", "mean", "same label (%)",
         "kappa of errors"), tuple(rows),
        "On the whole test set. Divergence: Kullback-Leibler from the seed's own teacher to the arm, mean over images. "
        "Kappa: agreement of right and wrong beyond chance.",
    )  # fmt: skip


def _teachers(results: Results) -> Iterator[Table]:
    rows = []
    for seed in results.plan.seeds:
        last = numbers.last_epoch(results, "T", seed) or {}
        seen, unseen = last.get("loss", math.nan), 100 * numbers.accuracy(results, "T", seed)
        rows.append((str(seed), seen, unseen, numbers.softness(results, seed)))
    yield Table(
        "teachers", "The teachers",
        ("seed", "training loss, last epoch", "test accuracy (%)", "entropy of the soft targets (nats)"), tuple(rows),
        "Entropy: of the softened probabilities on test images, mean; those of ten equal classes have 2.3 nats.",
    )  # fmt: skip


def _training(results: Results) -> Iterator[Table]:
    rows = []
    for arm in arms_of(results):
        last = [numbers.last_epoch(results, arm, seed) for seed in results.plan.seeds]
        losses = [row["loss"] for row in last if row is not None]
        if losses:
            rows.append((name_of(arm), _each(losses, 4), mean(losses)))
    yield Table(
        "training", "Training loss of the last epoch", ("arm", "each seed", "mean"), tuple(rows),
        "The loss that was trained: with soft targets it is not comparable with that of hard labels.",
    )  # fmt: skip


def _depth(results: Results) -> Iterator[Table]:
    seeds, names = results.plan.seeds, numbers.layers(results)
    for measure in numbers.measures(results):
        own = {
            arm: [numbers.diagonal(results, arm, seed, seed, measure) for seed in seeds]
            for arm in numbers.compared_arms(results)
        }
        gains = [numbers.gain(results, "D", seed, measure) for seed in seeds]
        specific = [
            numbers.specific(results, "D", seed, measure) - numbers.specific(results, "H", seed, measure)
            for seed in seeds
        ]
        rows = tuple(
            (layer, *(mean(line[place] for line in lines) for lines in own.values()),
             _each((line[place] for line in gains), 3), _each((line[place] for line in specific), 3))
            for place, layer in enumerate(names)
        )  # fmt: skip
        yield Table(
            f"depth-{measure.partition(':')[0]}", f"Similarity to the teacher: {named(measure)}",
            ("layer", *own, "room closed by D, each seed", "specific to the own teacher, each seed"), rows,
            "Above chance, mean over seeds, with the teacher's layer at the same depth. Room closed: the share "
            "(D - H) / (1 - H). Specific: similarity to the own teacher less that to the others' teachers, D less H.",
        )  # fmt: skip


def _directions(results: Results) -> Iterator[Table]:
    seeds, names, found = results.plan.seeds, numbers.layers(results), {}
    teachers = []
    for arm in numbers.compared_arms(results):
        kept = [one for one in (numbers.stored(results, arm, seed, seed) for seed in seeds) if one is not None]
        found[arm] = [[one.side_a[place].rank for one in kept] for place in range(len(names))]
        teachers += kept
    found["T"] = [[one.side_b[place].rank for one in teachers] for place in range(len(names))]
    rows = tuple((layer, *(_range(found[arm][place]) for arm in found)) for place, layer in enumerate(names))
    yield Table(
        "directions", "Directions that each layer has", ("layer", *(name_of(arm) for arm in found)), rows,
        "Rank of the centred activations, lowest to highest over seeds; every arm is compared along the same number.",
    )  # fmt: skip


def _range(ranks: list[int]) -> str | None:
    return span(min(ranks), max(ranks), digits="d") if ranks else None


def _each(values: Iterable[float], digits: int) -> tuple[float | None, ...]:
    return tuple(None if math.isnan(value) else round(float(value), digits) for value in values)
