"""The comparisons of layers that this study stores: within arms, and between seeds."""

from itertools import combinations

from closerlook.studies.compared import Compared, found_in
from closerlook.studies.plan import Results
from closerlook.studies.restarts.comparisons import WITHIN

LATE, ACROSS = "two seeds, late floors", "two seeds, early against late floor"


def compared(results: Results, role: str) -> Compared | None:
    """What the study stored under this role, or None where it has none or all is missing."""
    seeds = results.plan.seeds
    pairs = [f"{a}-{b}" for a, b in combinations(seeds, 2)]
    roles = {arm: {f"seed {seed}": f"{arm}/{seed}/{role}" for seed in seeds} for arm in WITHIN}
    roles[ACROSS] = {f"seeds {pair}": f"I/{pair}/{role}-across" for pair in pairs}
    roles[LATE] = {f"seeds {pair}": f"I/{pair}/{role}" for pair in pairs}
    return found_in(results, roles)
