"""``closerlook show``: explain a study, a model, a data set, a rule or an intervention."""

from typing import Annotated

from tyro.conf import Positional, arg

from closerlook.cli.answer import answer
from closerlook.cli.cards import KINDS, card
from closerlook.cli.names import known
from closerlook.cli.options import Json


def show(name: Annotated[Positional[str], arg(metavar="NAME", help_behavior_hint="")], json: Json = False) -> int:
    """Explain what comes with closerlook: a study, a model, a data set, a rule or an intervention, by its name.

    A study: question, arms, rule, cost, what would refute. A model: its options. A data set: where its files come from.
    A rule: its parts, margins and controls, and what leads to which verdict. An intervention: what it changes in a
    training, formula, cost, source, and its settings.

    Parameters
    ----------
    name
        Whatever closerlook ls lists.

    Examples
    --------
    closerlook show restarts
    closerlook show vgg11_bn
    """
    every = dict.fromkeys(each for names in KINDS.values() for each in names)
    known("study, model, data set, rule or intervention", name, every)
    cards = {kind: card(kind, name) for kind, names in KINDS.items() if name in names}
    answer({"name": name, **cards}, "\n\n".join(cards.values()), json)
    return 0
