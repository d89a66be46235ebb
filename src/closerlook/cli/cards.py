"""What there is to know about a study, a model, a data set, a rule or an intervention."""

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, Field, fields
from importlib.resources import files
from typing import Any

from closerlook import data, evidence, models
from closerlook.cli.answer import facts
from closerlook.evidence import Agreed, Condition, Part, Rule
from closerlook.studies import STUDIES
from closerlook.training.interventions import INTERVENTIONS

KINDS: Mapping[str, Iterable[str]] = {
    "study": STUDIES, "model": models.MODELS, "data": data.SOURCES, "rule": evidence.RULES,
    "intervention": INTERVENTIONS,
}  # fmt: skip
_FROM_DATA = ("classes", "in_channels", "image_size", "in_features")


def study(name: str) -> str:
    """Question, arms, rule, cost and what would refute, as its card says them."""
    return (files("closerlook.studies") / name / "README.md").read_text(encoding="utf-8").rstrip()


def heading(name: str) -> str:
    """The first line of a study's card."""
    return study(name).splitlines()[0].lstrip("# ")


def model(name: str) -> str:
    """Options with their defaults, and what they mean."""
    entry = models.MODELS[name]
    parameters = inspect.signature(entry.builder).parameters
    options = {option: _default(parameters[option]) for option in entry.options()}
    return f"{name}: {entry.about}\n\n{facts(options)}\n\n{_doc(entry.builder)}"


def dataset(name: str) -> str:
    """What the images are, and where the files come from."""
    entry = data.SOURCES[name]
    return f"{name}: {entry.about}\nresolutions: {entry.resolutions}\n\n{_doc(entry.loader)}"


def rule(name: str) -> str:
    """Claim, parts with margins, controls, and what leads to which verdict."""
    chosen = evidence.RULES[name]
    parts = [f"{_asked(each)}\n    yes: {each.yes}\n    no: {each.no}" for each in chosen.questions()]
    controls = [
        f"  {control.name} ({control.quantity} of {control.arm}): {control.says}" for control in chosen.controls
    ]
    shown = [f"  {each.name} ({each.quantity} of {each.arm})" for each in chosen.illustrations]
    return "\n".join(
        [f"rule {name}, version {chosen.version}", f"claim: {chosen.claim}",
         "controls, first:", *(controls or ["  none"]), "parts:", *parts,
         "verdict:", *_decisions(chosen), "shown, never decisive:", *shown]
    )  # fmt: skip


def intervention(name: str) -> str:
    """What it changes, formula, cost, source, and its settings with their defaults."""
    kind = INTERVENTIONS[name]
    settings = {each.name: _setting(each) for each in fields(kind) if each.name != "kind"}  # type: ignore[arg-type]
    return f"{name}: {_doc(kind)}\n\n{facts(settings)}".replace("**", "")


def summary(kind: type) -> str:
    """The first line of a docstring, without markup."""
    return (inspect.getdoc(kind) or "").splitlines()[0].replace("`", "")


def card(kind: str, name: str) -> str:
    """The card of one thing."""
    writers: Mapping[str, Callable[[str], str]] = {
        "study": study, "model": model, "data": dataset, "rule": rule, "intervention": intervention,
    }  # fmt: skip
    return writers[kind](name)


def _asked(question: Part | Agreed) -> str:
    if isinstance(question, Agreed):
        return f"  {question.name}: what two of {', '.join(question.parts)} say, if none says the opposite"
    return f"  {question.name}: {question.contrast}, margin {question.margin:g} {question.unit}"


def _decisions(chosen: Rule) -> list[str]:
    gate = chosen.gate
    lines = _admission(chosen)
    lines += [f"  not decided unless {each.part} is yes ({each.otherwise})" for each in chosen.preconditions]
    lines += [f"  contradicted if {_said(chosen.contradicted)}", f"  supported if {_said(chosen.supported)}"]
    if gate is not None:
        first = f"  but if {gate.part} is {gate.answer} ({gate.words}): contradicted if {_said(gate.contradicted)}, "
        lines.append(f"{first}supported if {_said(gate.supported)}")
    lines.append("  else not decided; fewer than 3 seeds: numbers only; fewer than 5: provisional")
    if few := [part.name for part in chosen.parts if part.all_or_nothing]:
        lines.append(f"  open below 5 seeds, since a run trains or fails: {', '.join(few)}")
    if beside := chosen.beside():
        lines.append(f"  read and shown, never decisive: {', '.join(beside)}")
    return lines + [f"  remark if {_said(remark.when)}: {remark.words}" for remark in chosen.remarks]


def _admission(chosen: Rule) -> list[str]:
    asked = chosen.admission
    if asked is None:
        return []
    above = f"{asked.quantity} more than {asked.margin:g} above that of {asked.baseline} in some seed"
    return [
        f"  left out, with its parts: an arm that {asked.otherwise} ({above}), of {', '.join(asked.arms)}",
        f"  not decided if fewer than {asked.least} of {', '.join(asked.among)} are left",
    ]


def _said(condition: Condition) -> str:
    terms = [f"{part} is {answer}" for part, answer in condition.terms]
    return f"{(' or ' if condition.one_suffices else ' and ').join(terms)} ({100 * condition.level:.3g} % intervals)"


def _default(parameter: inspect.Parameter) -> str:
    return "from the data" if parameter.name in _FROM_DATA else f"default {parameter.default}"


def _setting(setting: Field[Any]) -> str:
    return "required" if setting.default is MISSING else f"default {setting.default!r}"


def _doc(function: Callable[..., Any]) -> str:
    """A docstring for people who call no function: without what it raises, returns and runs, and without markup."""
    blocks = re.split(r"\n\n(?=\w+\n---)", inspect.getdoc(function) or "")
    kept = [block for block in blocks if block.partition("\n")[0] not in ("Raises", "Returns", "Examples")]
    return re.sub(r":\w+:`([^`]*)`|``([^`]*)``", r"\1\2", "\n\n".join(kept))
