"""Measure how often the rules give a wrong verdict under planted truths; write results/rule_error_rates.json.

Run it with ``python benchmarks/rule_error_rates.py``; ``--draws`` sets the number of simulated studies per truth, and
``--rule`` measures one rule anew and keeps what is stored of the others.
"""

import argparse
import json
import platform
import time
from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import scipy

from closerlook.evidence import RULES, Rule
from closerlook.evidence.all_or_nothing import worst_rate
from closerlook.evidence.paired import LEVEL
from closerlook.evidence.planted import CLAIM, planted, trains
from closerlook.evidence.simulate import simulate
from closerlook.evidence.truths import ALL, SPREAD, Truth
from closerlook.files import write_json

OUT = Path(__file__).with_name("results") / "rule_error_rates.json"
SEEDS = (3, 5, 8)
VERDICTS = ("supported", "contradicted")
MEASURED = tuple(name for name in RULES if name != "distillation-small")  # which asks what distillation asks
DOUBTS = (("WD",), ("WS",), ("P",), ("WD", "WS"))
PLACES = (
    ("N at most 10 %, W at least 90 %", (0.0, 0.05, 0.1), (1.0, 0.95, 0.9)),
    ("N at most 50 %, W at least 50 %", (0.0, 0.1, 0.2, 0.3, 0.4, 0.5), (1.0, 0.9, 0.8, 0.7, 0.6, 0.5)),
)


def measure(rule_name: str, draws: int) -> Iterator[dict[str, Any]]:
    """One record per planted truth and number of seeds."""
    rule = RULES[rule_name]
    for index, truth in enumerate(planted(rule)):
        for n in SEEDS:
            rates = simulate(rule, truth, n, draws, seed=1000 * index + n)
            yield _about(rule, truth, n) | {
                verdict: {"rate": rates.rate(verdict), "interval_99": list(rates.interval(verdict))}
                for verdict in VERDICTS
            }


def _about(rule: Rule, truth: Truth, n: int) -> dict[str, Any]:
    facts = {"rule": rule.name, "version": rule.version, "n": n, "truth": truth.name}
    return facts | {"effects": dict(truth.effects), "wrong": list(truth.wrong), "promised": truth.bounded}


def corners(draws: int) -> list[dict[str, Any]]:
    """Worst rates over how often N and W train, where the arms in doubt keep exactly half of the benefit."""
    records = []
    for (place, none, full), doubt, n in product(PLACES, DOUBTS, SEEDS[1:]):
        worst = dict.fromkeys(VERDICTS, 0.0)
        for low, high in product(none, full):
            shares = CLAIM | {"N": low, "W": high} | dict.fromkeys(doubt, (low + high) / 2)
            rates = simulate(RULES["warmup-small"], trains(RULES["warmup-small"], "corner", shares), n, draws, seed=n)
            worst = {verdict: max(rate, rates.rate(verdict)) for verdict, rate in worst.items()}
        records.append({"place": place, "doubt": " and ".join(doubt), "n": n} | worst)
    return records


def corner_table(records: list[dict[str, Any]]) -> list[str]:
    """Markdown rows: how often N and W train, the arms in doubt, then the worst rates in percent."""
    rows: dict[str, list[str]] = {}
    for record in records:
        cell = " / ".join(f"{100 * record[verdict]:.1f}" for verdict in VERDICTS)
        rows.setdefault(f"| {record['place']} | {record['doubt']}", []).append(cell)
    return [f"{case} | {' | '.join(cells)} |" for case, cells in rows.items()]


def single_parts() -> list[dict[str, Any]]:
    """Exact worst rates of a wrong yes for one part with outcomes that are all or nothing."""
    distinct = ("restarts", "restarts-small", "warmup")  # the margin of warmup-small is that of warmup
    margins = {"0": 0.0} | {name: RULES[name].parts[0].margin / ALL["accuracy"] for name in distinct}
    return [
        {"margin_of": name, "margin": margin, "n": n, "level": level, "rate": worst_rate(n, margin, level)}
        for name, margin in margins.items() for level in (LEVEL, 0.95) for n in SEEDS
    ]  # fmt: skip


def table(records: list[dict[str, Any]], rule_name: str) -> list[str]:
    """Markdown rows: a truth, then supported / contradicted in percent for each number of seeds; wrong ones marked."""
    by_truth: dict[str, list[str]] = {}
    for record in records:
        if record["rule"] == rule_name:
            by_truth.setdefault(record["truth"], []).append(" / ".join(_cell(record, name) for name in VERDICTS))
    return [f"| {truth} | {' | '.join(cells)} |" for truth, cells in by_truth.items()]


def _cell(record: Mapping[str, Any], verdict: str) -> str:
    mark = "*" if verdict in record["wrong"] else ""
    return f"{100 * record[verdict]['rate']:.1f}{mark}"


def part_table(records: list[dict[str, Any]]) -> list[str]:
    """Markdown rows: margin and level, then the worst rate in percent for each number of seeds."""
    by_case: dict[str, list[str]] = {}
    for record in records:
        case = f"| {100 * record['margin']:.1f} % | {100 * record['level']:.0f} %"
        by_case.setdefault(case, []).append(f"{100 * record['rate']:.1f}")
    return [f"{case} | {' | '.join(cells)} |" for case, cells in by_case.items()]


def renewed(rule_name: str, draws: int) -> None:
    """Put the rates of one rule into the stored results, with the number of studies that they rest on."""
    stored = json.loads(OUT.read_text(encoding="utf-8"))
    kept = [record for record in stored["rates"] if record["rule"] != rule_name]
    found = [record | {"draws": draws} for record in measure(rule_name, draws)]
    write_json(OUT, stored | {"rates": kept + found, "spread": SPREAD})
    print(*table(found, rule_name), sep="\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=200_000, help="simulated studies per truth and number of seeds")
    parser.add_argument("--rule", choices=MEASURED, help="measure this rule alone")
    asked = parser.parse_args()
    if asked.rule:
        renewed(asked.rule, asked.draws)
    else:
        everything(asked.draws)


def everything(draws: int) -> None:
    """Measure every rule, single parts and corners, and write them."""
    start = time.perf_counter()
    records = [record for name in MEASURED for record in measure(name, draws)]
    exact, worst = single_parts(), corners(max(1, draws // 10))
    where = {"python": platform.python_version(), "numpy": np.__version__, "scipy": scipy.__version__}
    facts = {"draws": draws, "seconds": round(time.perf_counter() - start, 1), "spread": SPREAD, "versions": where}
    write_json(OUT, facts | {"rates": records, "all_or_nothing_part": exact, "warmup_corners": worst})
    for name in MEASURED:
        print(f"{name}: supported / contradicted in % (* is wrong) with {SEEDS} seeds", *table(records, name), sep="\n")
    print("one part with outcomes that are all or nothing", *part_table(exact), sep="\n")
    print("warmup-small, worst over how often N and W train, 5 and 8 seeds", *corner_table(worst), sep="\n")


if __name__ == "__main__":
    main()
