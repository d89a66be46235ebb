"""The verbs, one line each, and the help text that lists them; a verb's module is imported when it is called."""

from collections.abc import Callable
from difflib import get_close_matches
from importlib import import_module

VERBS = {
    "study": "Run a study, or all of them: train, connect, judge, report. Finished work is never redone.",
    "train": "Train one network from a recipe in a JSON file.",
    "path": "Read losses on the way from one checkpoint to another: straight, and along a trained curve.",
    "curve": "Read losses along a curve of the reference code of mode connectivity, or show its curve.npz.",
    "surface": "Read losses on the plane through three checkpoints, or around one.",
    "trajectory": "Follow the checkpoints of a training, and read losses on the plane in which it moves most.",
    "barrier": "Read the loss barriers between every two of some checkpoints.",
    "align": "Permute the hidden units of a checkpoint so that it lies near another, and read what barrier is left.",
    "compare": "Compare what the layers of two checkpoints hold.",
    "agreement": "Read how far two checkpoints agree in what they predict: a student and its teacher.",
    "sharpness": "Read how curved the loss is at checkpoints, where, and whether a learning rate can bear it.",
    "diagnose warmup": "Find out by training whether a network needs a warmup, how long, because of which block.",
    "layers": "List the layers of a network by the names that compare takes.",
    "verdict": "Judge a table of measurements by a rule.",
    "runs ls": "List the runs of a folder.",
    "runs show": "Show one run: recipe, state, results, seconds.",
    "runs rm": "Delete runs.",
    "runs verify": "Compare every file of finished runs with its checksum.",
    "report": "Write an HTML report of runs, that of a study again, or studies of several set-ups side by side.",
    "ls": "List the studies, models, data sets, rules and interventions that come with closerlook.",
    "show": "Explain one of them: a study, a model, a data set, a rule, an intervention.",
    "doctor": "Check this machine: versions, threads, data sets, disk.",
}
_ABOUT = "Why does this training heuristic work on my model? Curves, surfaces and controlled studies with verdicts."
_EXAMPLES = """\
first steps:
  closerlook doctor                          what is here, what is missing
  closerlook study restarts --scale smoke    a whole study in a minute; then --scale small
  closerlook path a.pt b.pt --model mymodule:network --data mymodule:data

Every verb takes --help and --json; every verb that computes takes --dry-run.
Exit status: 0 done, 1 failed, 2 wrong use."""


def find(words: list[str]) -> tuple[str, list[str]] | None:
    """The verb that the words begin with, and the words after it."""
    for length in (1, 2):
        verb = " ".join(words[:length])
        if verb in VERBS:
            return verb, words[length:]
    return None


def function_of(verb: str) -> Callable[..., int]:
    """The function of a verb."""
    room, name = verb.split()[0], verb.split()[-1]
    function: Callable[..., int] = getattr(import_module(f"closerlook.cli.{room}"), name)
    return function


def is_group(word: str) -> bool:
    """Whether verbs of two words begin with it."""
    return any(verb.startswith(word + " ") for verb in VERBS)


def overview(group: str = "") -> str:
    """Help text of the command, or of a group of verbs such as ``runs``."""
    chosen = {verb: line for verb, line in VERBS.items() if verb.startswith(group)}
    width = max(map(len, chosen))
    lines = [f"  {verb:<{width}}  {line}" for verb, line in chosen.items()]
    if group:
        actions = "|".join(verb.split()[-1] for verb in chosen)
        return "\n".join([f"usage: closerlook {group}{actions} [OPTIONS]", "", *lines])
    usage = "usage: closerlook VERB [OPTIONS]   closerlook VERB --help   closerlook --version"
    return "\n".join([usage, "", _ABOUT, "", "verbs:", *lines, "", _EXAMPLES])


def unknown(words: list[str]) -> str:
    """What to say about words that name no verb."""
    if is_group(words[0]):
        actions = [verb.split()[1] for verb in VERBS if verb.startswith(words[0] + " ")]
        said = f"{words[0]} has no action {words[1]!r}" if len(words) > 1 else f"{words[0]} needs an action"
        return f"{said}: {', '.join(actions)}"
    close = get_close_matches(words[0], {verb.split()[0] for verb in VERBS}, n=3)
    hint = f"did you mean {' or '.join(close)}?" if close else "see closerlook --help"
    return f"no verb {words[0]!r}; {hint}"
