"""``closerlook ls``: what comes with closerlook."""

from typing import Annotated, Any, Literal, get_args

from tyro.conf import Positional, arg

from closerlook import data, evidence, models
from closerlook.cli.answer import answer, columns
from closerlook.cli.cards import heading, summary
from closerlook.cli.options import Json
from closerlook.studies import STUDIES
from closerlook.training.interventions import INTERVENTIONS

What = Literal["studies", "models", "data", "rules", "interventions"]


def ls(
    what: Annotated[
        Positional[tuple[What, ...]],
        arg(metavar="{studies,models,data,rules,interventions} ...", help_behavior_hint=""),
    ] = (),
    json: Json = False,
) -> int:
    """List the studies, models, data sets, rules and interventions that come with closerlook.

    Models and data of your own need no entry here: name them package.module:function wherever a name is asked for.

    Parameters
    ----------
    what
        Which of them; all when none is named.

    Examples
    --------
    closerlook ls
    closerlook ls models
    """
    found = {name: listed(name) for name in what or get_args(What)}
    blocks = [
        f"{name}\n{columns(list(rows[0]), [tuple(row.values()) for row in rows])}" for name, rows in found.items()
    ]
    answer(found, "\n\n".join(blocks), json)
    return 0


def listed(what: str) -> list[dict[str, Any]]:
    """One row per thing."""
    if what == "models":
        return models.describe()
    if what == "data":
        return data.describe()
    if what == "rules":
        return [{"name": rule.name, "version": rule.version, "claim": rule.claim} for rule in evidence.RULES.values()]
    if what == "interventions":
        return [{"name": name, "about": summary(kind)} for name, kind in INTERVENTIONS.items()]
    return [{"name": name, "about": heading(name)} for name in STUDIES]
