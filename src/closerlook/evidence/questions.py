"""What a rule asks of the table: parts with margins, controls with limits, and what is only shown."""

import math
from dataclasses import dataclass

from closerlook.evidence.paired import Answer


@dataclass(frozen=True)
class Part:
    """One question of a rule: whether `arm` exceeds `baseline` in `quantity` by more than `margin`, within seeds.

    `yes` and `no` say in plain English what either answer means, `unit` what the numbers count.

    Examples
    --------
    >>> Part("E", quantity="accuracy", arm="warm", baseline="cold", margin=0.01).contrast
    'accuracy warm - cold'
    """

    name: str
    quantity: str
    arm: str
    baseline: str
    margin: float
    yes: str = ""
    no: str = ""
    unit: str = ""

    @property
    def contrast(self) -> str:
        """The difference in short."""
        return f"{self.quantity} {self.arm} - {self.baseline}"

    def says(self, answer: Answer) -> str:
        """What an answer to this part means."""
        meaning = {"yes": self.yes, "no": self.no, "open": self.yes and f"it is open whether {self.yes}"}[answer]
        return f"{meaning} ({self.name})" if meaning else f"{self.name} is {answer}"


@dataclass(frozen=True)
class Control:
    """A check of the instrument: every value of `quantity` in `arm` lies above `above` and below `below`.

    With `per_seed` each seed of the study needs its own value; otherwise one value is enough (pairs of seeds, say).
    A control without values, or with a missing one, is not passed.
    """

    name: str
    quantity: str
    arm: str
    says: str
    above: float = -math.inf
    below: float = math.inf
    per_seed: bool = False


@dataclass(frozen=True)
class Illustration:
    """A quantity of one arm that is shown beside the verdict and never enters it."""

    name: str
    quantity: str
    arm: str
    says: str
