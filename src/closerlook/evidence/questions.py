"""What a rule asks of the table: parts with margins, controls with limits, and what is only shown."""

import math
from dataclasses import dataclass

from closerlook.evidence.paired import Answer


def in_english(name: str, yes: str, no: str, answer: Answer) -> str:
    """What an answer to the question `name` means; `yes` and `no` say it, or nothing."""
    meaning = {"yes": yes, "no": no, "open": yes and f"it is open whether {yes}", "left out": ""}[answer]
    return f"{meaning} ({name})" if meaning else f"{name} is {answer}"


@dataclass(frozen=True)
class Part:
    """One question of a rule: whether `arm` exceeds `baseline` in `quantity` by more than `margin`, within seeds.

    Several baselines count with their mean, formed within the seed; with none (an empty tuple) the value itself is
    compared with the margin. `yes` and `no` say in plain English what either answer means, `unit` what the numbers
    count. `all_or_nothing` marks an outcome that a run has or lacks, such as training at all: below five seeds such a
    part is open.

    Examples
    --------
    >>> Part("E", quantity="accuracy", arm="warm", baseline="cold", margin=0.01).contrast
    'accuracy warm - cold'
    >>> Part("H", quantity="accuracy", arm="half", baseline=("cold", "warm"), margin=0.0).contrast
    'accuracy half - mean(cold, warm)'
    """

    name: str
    quantity: str
    arm: str
    baseline: str | tuple[str, ...]
    margin: float
    yes: str = ""
    no: str = ""
    unit: str = ""
    all_or_nothing: bool = False

    @property
    def baselines(self) -> tuple[str, ...]:
        """The arms whose mean is subtracted."""
        return (self.baseline,) if isinstance(self.baseline, str) else self.baseline

    @property
    def arms(self) -> tuple[str, ...]:
        """Every arm that the part needs, its own first."""
        return (self.arm, *self.baselines)

    @property
    def against(self) -> str:
        """What is subtracted, in short; empty if nothing is."""
        return f"mean({', '.join(self.baselines)})" if len(self.baselines) > 1 else "".join(self.baselines)

    @property
    def contrast(self) -> str:
        """The difference in short."""
        return f"{self.quantity} {self.arm}" + (f" - {self.against}" if self.baselines else "")

    def says(self, answer: Answer) -> str:
        """What an answer to this part means."""
        return in_english(self.name, self.yes, self.no, answer)


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
    """A quantity of one arm that is shown beside the verdict and never enters it.

    An `arm` that ends in a colon stands for all arms that begin with it: "FB:" for "FB:conv1", "FB:conv2", ...
    """

    name: str
    quantity: str
    arm: str
    says: str

    def shows(self, arm: str) -> bool:
        """Tell whether values of `arm` are meant."""
        return arm == self.arm or (self.arm.endswith(":") and arm.startswith(self.arm))
