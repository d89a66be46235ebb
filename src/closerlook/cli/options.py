"""Options that several verbs share, each with its help text."""

from math import inf
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from tyro.conf import Positional, UseAppendAction, arg
from tyro.constructors import PrimitiveConstructorSpec

Number = TypeVar("Number", int, float)


def at_least(low: Number) -> PrimitiveConstructorSpec[Number]:
    """A number from `low` on."""
    kind = type(low)

    def read(words: list[str]) -> Number:
        value = kind(words[0])
        if not value >= low:
            raise ValueError(f"{value} is below {low}, the smallest possible value")
        return value

    return PrimitiveConstructorSpec(
        nargs=1, metavar="N" if kind is int else "X", instance_from_str=read,
        is_instance=lambda value: isinstance(value, kind), str_from_instance=lambda value: [str(value)],
    )  # fmt: skip


def inside(low: float, high: float) -> PrimitiveConstructorSpec[float]:
    """A number above `low` and below `high`."""

    def read(words: list[str]) -> float:
        value = float(words[0])
        if not low < value < high:
            raise ValueError(f"{value} does not lie between {low:g} and {high:g}")
        return value

    return PrimitiveConstructorSpec(
        nargs=1, metavar="X", instance_from_str=read,
        is_instance=lambda value: isinstance(value, float), str_from_instance=lambda value: [str(value)],
    )  # fmt: skip


Json = Annotated[bool, arg(help="Print the result as JSON on stdout, and nothing else there.", help_behavior_hint="")]
DryRun = Annotated[
    bool,
    arg(help="Show the steps, which of them are done already and what they cost; do nothing.", help_behavior_hint=""),
]
Runs = Annotated[Path, arg(metavar="FOLDER", help="Folder that holds the runs.")]
Out = Annotated[
    Path | None,
    arg(
        aliases=["-o"], metavar="FOLDER", help="Where JSON, CSV and figures go.",
        help_behavior_hint="(default: a folder of its own beside the runs)",
    ),
]  # fmt: skip
Set = Annotated[
    UseAppendAction[tuple[str, ...]],
    arg(
        name="set", metavar="KEY=VALUE", help="Change one setting, such as optimizer.lr=0.1.",
        help_behavior_hint="(again for more)",
    ),
]  # fmt: skip
First = Annotated[Positional[Path], arg(metavar="A", help_behavior_hint="")]
Second = Annotated[Positional[Path], arg(metavar="B", help_behavior_hint="")]
Whole = Annotated[int, at_least(0)]
Positive = Annotated[int, at_least(1)]
Real = Annotated[float, at_least(0.0)]
Metric = Literal["loss", "error", "accuracy"]
Above = Annotated[float, inside(0.0, inf)]
Interactive = Annotated[
    bool,
    arg(help="Write an HTML file to turn the surface in too; that needs plotly.", help_behavior_hint=""),
]
Grid = Annotated[tuple[int, int], arg(metavar="COLUMNS ROWS", help="Number of columns and of rows.")]
Coarse = Annotated[
    Above | None,
    arg(
        metavar="SHARE", help_behavior_hint="(default: read every cell)",
        help="Read coarse to fine, and finer only where the surface is bent; elsewhere losses are interpolated to "
        "about this share of their value, such as 0.05.",
    ),
]  # fmt: skip
Tolerance = Annotated[
    Above | None,
    arg(
        metavar="NATS", help_behavior_hint="(default: read everything)",
        help="Read only as many images at as few positions as give a loss barrier above the worse end to within this.",
    ),
]  # fmt: skip
Level = Annotated[float, inside(0.0, 1.0), arg(help="Probability that intervals hold.")]
Jobs = Annotated[
    int, at_least(1),
    arg(help="Processes that share the readings, one thread each; the bytes are those of one process."),
]  # fmt: skip
