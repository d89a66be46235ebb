"""``closerlook verdict``: judge a table of measurements by a rule."""

from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from closerlook import evidence
from closerlook.cli.answer import answer
from closerlook.cli.names import known
from closerlook.cli.options import Json, Real
from closerlook.evidence.verdicts import Setting


def verdict(
    table: Annotated[Positional[Path], arg(metavar="TABLE.csv", help_behavior_hint="")],
    rule: Annotated[str, arg(metavar="NAME")],
    setting: Annotated[Setting | None, arg(help_behavior_hint="(default: not stated)")] = None,
    chance: Annotated[Real | None, arg(help_behavior_hint="")] = None,
    json: Json = False,
) -> int:
    """Judge a table of measurements by a rule that was fixed before them.

    The table has one row per measurement and the columns arm, seed, quantity, value; closerlook show RULE lists the
    arms and quantities that a rule compares. Every study leaves such a table.csv.

    Parameters
    ----------
    table
        A CSV file with a header; a missing value is an empty cell.
    rule
        Which rule; closerlook ls rules.
    setting
        How the settings of the runs were chosen: by the baseline's validation accuracy, or because the effect shows.
    chance
        Accuracy that a diverged run (a row without a value) counts as, such as 0.1 for ten classes.

    Examples
    --------
    closerlook verdict table.csv --rule restarts --setting tuned
    closerlook verdict runs/study-restarts-small-1a2b3c4d/table.csv --rule restarts-small --setting demonstration
    """
    found = evidence.verdict(str(table), known("rule", rule, evidence.RULES), setting, chance)
    answer(found.to_dict(), str(found), json)
    return 0
