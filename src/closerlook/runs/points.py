"""Where the weights of a recipe are found: in another run, or in a file."""

from typing import Annotated, Literal

from pydantic import Field

from closerlook.runs.specs import Frozen


class Snapshot(Frozen):
    """The weights of a run at a step."""

    kind: Literal["snapshot"] = "snapshot"
    run: str
    step: int


class Bend(Frozen):
    """A trained point of a curve: at its end, or at a step that the run keeps."""

    kind: Literal["bend"] = "bend"
    run: str
    index: int = 1
    step: int | None = None


class Average(Frozen):
    """The mean of several runs' weights."""

    kind: Literal["average"] = "average"
    of: tuple[Snapshot, ...]


class File(Frozen):
    """A checkpoint made elsewhere, by content."""

    kind: Literal["file"] = "file"
    path: str
    sha256: str


class Control(Frozen):
    """A control point of a curve that the reference code trained, by content: `closerlook.load_curve`."""

    kind: Literal["control"] = "control"
    path: str
    sha256: str
    index: int


class AtLoss(Frozen):
    """The weights of a run at its first kept epoch whose training loss is as low as that of another run's snapshot."""

    kind: Literal["at_loss"] = "at_loss"
    run: str
    like: Snapshot


class Aligned(Frozen):
    """The end that a run permuted to lie near another one."""

    kind: Literal["aligned"] = "aligned"
    run: str


Whole = Annotated[Snapshot | File, Field(discriminator="kind")]  # with the buffers that belong to the weights

PointRef = Annotated[Snapshot | Bend | Average | File | Control | AtLoss | Aligned, Field(discriminator="kind")]
