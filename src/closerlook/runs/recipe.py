"""Recipes: what a step does, as frozen data that refuses unknown keys and can be hashed and stored."""

from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import BaseModel, Field, TypeAdapter

from closerlook.runs.points import Aligned, AtLoss, Average, Bend, Control, File, PointRef, Snapshot, Whole
from closerlook.runs.readings import (
    AgreementRecipe,
    AlignRecipe,
    BarriersRecipe,
    CompareRecipe,
    DirectionsRecipe,
    PredictRecipe,
    ProbesRecipe,
    ProfileRecipe,
    Reading,
    SharpnessRecipe,
    SurfaceRecipe,
    TrajectoryRecipe,
)
from closerlook.runs.specs import (
    BatchStats,
    DataSpec,
    Frozen,
    MemoryFormat,
    ModelSpec,
    OptimizerSpec,
    Precision,
    Seeds,
    Split,
)
from closerlook.runs.trainings import BoundaryRecipe, ConnectRecipe, Teacher, TrainRecipe, Watch

__all__ = [
    "ADAPTER",
    "AgreementRecipe",
    "AlignRecipe",
    "Aligned",
    "AtLoss",
    "Average",
    "BarriersRecipe",
    "BatchStats",
    "Bend",
    "BoundaryRecipe",
    "CompareRecipe",
    "ConnectRecipe",
    "Control",
    "DataSpec",
    "DirectionsRecipe",
    "File",
    "Frozen",
    "MemoryFormat",
    "ModelSpec",
    "OptimizerSpec",
    "PointRef",
    "Precision",
    "PredictRecipe",
    "ProbesRecipe",
    "ProfileRecipe",
    "Reading",
    "Recipe",
    "Seeds",
    "SharpnessRecipe",
    "Snapshot",
    "Split",
    "SurfaceRecipe",
    "Teacher",
    "TrainRecipe",
    "TrajectoryRecipe",
    "Watch",
    "Whole",
    "inputs_of",
]

Recipe = (
    TrainRecipe | ConnectRecipe | ProfileRecipe | SurfaceRecipe | BarriersRecipe | PredictRecipe | CompareRecipe
    | BoundaryRecipe | AgreementRecipe | ProbesRecipe | SharpnessRecipe | AlignRecipe
    | DirectionsRecipe | TrajectoryRecipe
)  # fmt: skip

ADAPTER: TypeAdapter[Recipe] = TypeAdapter(Annotated[Recipe, Field(discriminator="kind")])


def inputs_of(recipe: Recipe) -> tuple[str, ...]:
    """The runs whose results a recipe reads, each once."""
    return tuple(dict.fromkeys(_runs(recipe)))


def _runs(value: Any) -> Iterator[str]:
    if isinstance(value, Snapshot | Bend | AtLoss | Aligned):
        yield value.run
    if isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from _runs(getattr(value, name))
    elif isinstance(value, dict):
        for item in value.values():
            yield from _runs(item)
    elif isinstance(value, tuple):
        for item in value:
            yield from _runs(item)
