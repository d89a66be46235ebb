"""From a recipe's data and model to tensors and networks."""

from functools import lru_cache

import torch
from torch import Tensor, nn

from closerlook import data, models
from closerlook.data import CropFlip, Source, TensorBatches
from closerlook.errors import UsageError
from closerlook.evaluation import batch_norms
from closerlook.runs.recipe import DataSpec, ModelSpec, Reading, Split

MEMORY_FORMATS = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}


@lru_cache(maxsize=2)
def source(name: str, resolution: int | None) -> Source:
    """The data set, read once per process."""
    return data.load(name, resolution=resolution)


@lru_cache(maxsize=4)
def parts(spec: DataSpec) -> data.Parts:
    """The parts that a recipe names."""
    return data.split(
        source(spec.name, spec.resolution), n_train=spec.n_train, n_validation=spec.n_validation,
        n_statistics=spec.n_statistics, n_read=spec.n_read, seed=spec.seed,
    )  # fmt: skip


def network(spec: ModelSpec, data_spec: DataSpec, seed: int) -> nn.Module:
    """The network with its input shape and classes taken from the data."""
    loaded = source(data_spec.name, data_spec.resolution)
    return build_for(spec, loaded.input_shape(), loaded.classes, seed)


def build_for(spec: ModelSpec, shape: tuple[int, ...], classes: int, seed: int) -> nn.Module:
    """The network for inputs of a shape; what the options already say wins."""
    known = {
        "classes": classes,
        "in_channels": shape[0],
        "image_size": shape[-1],
        "in_features": int(torch.Size(shape).numel()),
    }
    takes = (
        [] if models.is_target(spec.name) else models.MODELS[spec.name].options() if spec.name in models.MODELS else []
    )
    return models.build(spec.name, seed=seed, **{**{k: v for k, v in known.items() if k in takes}, **spec.options})


def training_batches(
    spec: DataSpec, batch_size: int, augment: bool, order_seed: int, augment_seed: int, extra: Tensor | None = None
) -> TensorBatches:
    """Shuffled batches of the training images, with crop and flip when asked for, and what goes with each image."""
    inputs, targets = parts(spec).train
    crop = CropFlip(padding=inputs.shape[-1] // 8) if augment else None
    return TensorBatches(
        inputs, targets, batch_size, shuffle=True, order_seed=order_seed, augment=crop, augment_seed=augment_seed,
        extra=extra,
    )  # fmt: skip


def fixed_batches(pair: data.Pair, batch_size: int, most: int | None = None) -> TensorBatches:
    """The first `most` examples in their order."""
    return TensorBatches(pair.inputs[:most], pair.targets[:most], batch_size)


def reading_batches(recipe: Reading) -> dict[Split, TensorBatches]:
    """Loaders of a reading's splits."""
    held = parts(recipe.data)
    splits: dict[Split, TensorBatches] = {
        "train": fixed_batches(held.read, recipe.batch_size),
        "test": fixed_batches(held.test, recipe.batch_size, recipe.data.n_test),
    }
    return {name: splits[name] for name in recipe.splits}


def statistics_batches(recipe: Reading, model: nn.Module) -> TensorBatches | None:
    """Loader of the images for batch-norm statistics, none of which is read; None for a model without batch norm.

    Raises
    ------
    UsageError
        The model needs them, and the data set none aside.
    """
    if not batch_norms(model):
        return None
    if not recipe.data.n_statistics:
        raise UsageError(f"{recipe.model.name} has batch norm, whose statistics need images: set data.n_statistics")
    return fixed_batches(parts(recipe.data).statistics, recipe.batch_size)
