"""Settings of comparisons of layers, as groups of options."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from tyro.conf import arg
from tyro.constructors import PrimitiveConstructorSpec

from closerlook.cli.options import Positive
from closerlook.cli.pairs import read_pairs
from closerlook.cli.points import with_source
from closerlook.runs.recipe import ModelSpec, Split


def _above_zero(words: list[str]) -> float:
    if not float(words[0]) > 0:
        raise ValueError(f"{words[0]} is not above 0")
    return float(words[0])


above_zero = PrimitiveConstructorSpec(
    nargs=1, metavar="X", instance_from_str=_above_zero, is_instance=lambda value: isinstance(value, float),
    str_from_instance=lambda value: [str(value)],
)  # fmt: skip
Flag = Annotated[bool, arg(help_behavior_hint="")]
Patterns = Annotated[tuple[str, ...], arg(metavar="PATTERN ...")]
PatternsB = Annotated[tuple[str, ...] | None, arg(metavar="PATTERN ...", help_behavior_hint="(default: as A)")]


@dataclass(frozen=True)
class Comparing:
    """What is compared, and how.

    Attributes
    ----------
    layers
        Which layers of A: names with the wildcards * and ?, NAME#2 for a second call, NAME:1 for a second output.
    layers_b
        Which layers of B.
    measures
        Any of cca, svcca, pwcca, cka, procrustes; with words after a colon: cca:r2 (mean of squares), svcca:20,r2 (20
        directions on both sides), svcca:0.9 (of the variance), pwcca:mean, cka:biased.
    conv
        What the units of maps are: channels averaged over space (mean), channels with every position as an example
        (positions), every value (flatten), or channels at each spatial frequency (spectral).
    tokens
        The same for token sequences; first takes the first token.
    nulls
        Also compare A with an untrained B (random), or with B's images in another order (shuffled).
    intervals
        Standard errors over images.
    insist
        Accept fewer than 5 images per direction.
    cut
        Drop directions below this many times the rounding of fp32.
    split
        Images to compare on: those that carry the training loss (--n-read), or the test part.
    read_size
        Images per batch.
    """

    layers: Patterns = ("*",)
    layers_b: PatternsB = None
    measures: Annotated[tuple[str, ...], arg(metavar="NAME ...")] = ("cca", "cka", "procrustes")
    conv: Literal["mean", "positions", "flatten", "spectral"] = "mean"
    tokens: Literal["mean", "positions", "first", "flatten"] = "mean"
    nulls: Annotated[tuple[Literal["random", "shuffled"], ...], arg(metavar="{random,shuffled} ...")] = ()
    intervals: Flag = False
    insist: Flag = False
    cut: Annotated[float, above_zero] = 1.0
    split: Split = "train"
    read_size: Positive = 500

    def of(self) -> Mapping[str, Any]:
        """These settings as a recipe names them."""
        renamed = {"layers": "layers_a", "read_size": "batch_size"}
        return {renamed.get(name, name): value for name, value in vars(self).items()}


@dataclass(frozen=True)
class Other:
    """The network of B, where it is another one.

    Attributes
    ----------
    model_b
        A built-in network, or your function that returns an nn.Module.
    model_b_options
        Settings of it.
    """

    model_b: Annotated[str | None, arg(metavar="NAME|MODULE:FUNCTION", help_behavior_hint="(default: as A)")] = None
    model_b_options: Annotated[tuple[str, ...], arg(metavar="KEY=VALUE ...", help_behavior_hint="")] = ()

    def spec(self) -> ModelSpec | None:
        """The network as a recipe names it; None where it is A's."""
        if self.model_b is None:
            return None
        return with_source(ModelSpec(name=self.model_b, options=read_pairs(self.model_b_options)))
