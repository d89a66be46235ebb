"""Sharpness: the largest eigenvalues of the Hessian of the mean loss."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from numpy.typing import NDArray
from torch import Tensor, nn

from closerlook import figures
from closerlook.batches import BatchFn, Loader
from closerlook.curvature.hessian import HessianOperator
from closerlook.curvature.lanczos import Ritz, lanczos
from closerlook.curvature.modes import BatchNorm
from closerlook.curvature.opened import Opened, Reading, opened
from closerlook.curvature.preconditioner import Preconditioner, preconditioner_of
from closerlook.weights.blocks import Blocks, blocks_of, dots


@dataclass(frozen=True)
class Block:
    """The largest eigenvalue of the Hessian of one block's parameters, the others held; its residual and cost."""

    value: float
    residual: float
    parameters: int
    products: int
    passes: int
    converged: bool


@dataclass(frozen=True, eq=False, kw_only=True)
class Sharpness(Reading):
    """The largest eigenvalues of a Hessian; `float` gives the first.

    Attributes
    ----------
    values : the largest first [top], in units of the loss over squared weights.
    residuals : an eigenvalue lies within ``residuals[i]`` of ``values[i]`` [top]; its true error is of the order
        ``residual^2 / gap``.
    vectors : unit vectors [top, D], in the order of `WeightSpace`, zero at frozen parameters; preconditioned: in the
        coordinates ``sqrt(P) w``.
    products : Hessian-vector products of the whole Hessian.
    converged : whether every residual met the tolerance; if not, raise max_products.
    shares : per block (by layer without any) the share of the first vector's squared norm.
    blocks : per block its own largest eigenvalue, where asked for.
    preconditioned : whether the Hessian is that of the coordinates ``sqrt(P) w``.
    """

    values: NDArray[np.float64]
    residuals: NDArray[np.float64]
    vectors: Tensor
    products: int
    converged: bool
    shares: Mapping[str, float]
    blocks: Mapping[str, Block]
    preconditioned: bool

    @property
    def value(self) -> float:
        """The largest eigenvalue."""
        return float(self.values[0])

    def to_dict(self) -> dict[str, Any]:
        """Everything but the vectors."""
        return {
            **self.told(), "values": self.values.tolist(), "residuals": self.residuals.tolist(),
            "products": self.products, "converged": self.converged, "shares": dict(self.shares),
            "blocks": {name: vars(block).copy() for name, block in self.blocks.items()},
            "preconditioned": self.preconditioned,
        }  # fmt: skip

    def to_frame(self) -> pd.DataFrame:
        """One row per block: its share of the first vector, and what was read of its own."""
        own = {name: vars(block) for name, block in self.blocks.items()}
        rows = [{"block": name, "share": share, **own.get(name, {})} for name, share in self.shares.items()]
        return pd.DataFrame(rows)

    def plot(self, ax: Axes | None = None) -> Axes:
        """The shares of the first vector, block by block."""
        lines: dict[str, dict[int | str, Any]] = {"share of the top vector": {0: list(self.shares.values())}}
        return figures.layer_profile(list(self.shares), lines, "share of the squared norm", ax)


def sharpness(
    model: nn.Module,
    loader: Loader,
    *,
    top: int = 1,
    per_block: bool | Blocks = False,
    params: str = "*",
    preconditioner: Preconditioner | None = None,
    batch_norm: BatchNorm = "batch",
    tolerance: float = 0.01,
    max_products: int = 200,
    seed: int = 0,
    batch_fn: BatchFn | None = None,
    device: str | torch.device | None = None,
    autocast: torch.dtype | None = None,
) -> Sharpness:
    """The largest (algebraic) eigenvalues of the Hessian of the mean loss, by Lanczos.

    ``H = d^2 L / dw^2`` with ``L = sum_i loss_i / n`` over the whole loader, without any penalty on the weights. With a
    preconditioner P those of ``P^-1/2 H P^-1/2``.

    Parameters
    ----------
    per_block
        Also the largest eigenvalue of each diagonal block, the other parameters held: ``True`` by the layer that owns
        the parameters, or a mapping from names to patterns of parameter names, ``{"deep": ["layer4.*", "fc.*"]}``.
    preconditioner
        A `torch.optim.Adam` or AdamW that has taken steps with this model, or P itself [D].
    batch_norm
        ``"batch"``: statistics of each batch, as training sees it, so that the batch size is part of the number;
        ``"running"``: the running ones, as constants.
    tolerance
        Of every eigenvalue, relative, guaranteed by its residual; what is reached is mostly much better.
    max_products
        Products with the whole Hessian at most, and with each block; each costs about three forward and backward passes
        over the loader. Memory: one vector of weights per product.
    seed
        Of the first Lanczos vector.

    Raises
    ------
    NotFiniteError
        The loss or a product is NaN or infinite.
    LoaderError
        A one-shot or empty loader, or one that does not repeat: augmentation, shuffling.
    UsageError
        Every parameter is frozen, a block is empty, or an operation of the network has no second derivative.

    Examples
    --------
    The Hessian of squared errors of a linear layer is ``2 X'X / n``:

    >>> from closerlook.batches import Output
    >>> def squares(model, batch):
    ...     return Output((model(batch[0]) - batch[1]).square().sum(1), None)
    >>> x = torch.diag(torch.tensor([1.0, 2.0, 3.0]))
    >>> layer = nn.Linear(3, 1, bias=False)
    >>> round(float(sharpness(layer, [(x, torch.zeros(3, 1))], batch_fn=squares)), 4)
    6.0

    Source: Lanczos 1950; the bound by residuals is that of Parlett, The Symmetric Eigenvalue Problem, section 4.5.
    """
    with opened(
        model, loader, params=params, batch_norm=batch_norm, batch_fn=batch_fn, device=device, autocast=autocast
    ) as site:
        scale = None if preconditioner is None else preconditioner_of(preconditioner, model, site.space).sqrt()
        settings: dict[str, Any] = {"tolerance": tolerance, "max_products": max_products, "seed": seed}
        whole = site.operator()
        groups = blocks_of(whole.names, per_block)
        found = top_eigenvalues(whole, top=top, scale=scale, **settings)
        blocks = {name: _block(site, names, scale, settings) for name, names in groups.items() if per_block}
    return Sharpness(
        values=found.values, residuals=found.residuals, products=found.products, converged=found.converged,
        vectors=torch.stack([whole.spread(vector) for vector in found.vectors]), blocks=blocks,
        shares=dots(found.vectors[0], found.vectors[0], whole.spans(), groups), preconditioned=scale is not None,
        **site.told(whole, whole.passes + sum(block.passes for block in blocks.values())),
    )  # fmt: skip


def _block(site: Opened, names: tuple[str, ...], scale: Tensor | None, settings: Mapping[str, Any]) -> Block:
    operator = site.operator(names)
    found = top_eigenvalues(operator, scale=scale, **settings)
    return Block(
        float(found.values[0]), float(found.residuals[0]), operator.size, found.products, operator.passes,
        found.converged,
    )  # fmt: skip


def top_eigenvalues(
    operator: HessianOperator,
    *,
    top: int = 1,
    scale: Tensor | None = None,
    tolerance: float = 0.01,
    max_products: int = 200,
    seed: int = 0,
) -> Ritz:
    """`sharpness` for an operator that is at hand: no probe, no copy, nothing but products.

    `scale` [D] is the square root of a preconditioner, in the order of the operator's space.
    """
    source = torch.Generator().manual_seed(seed)
    first = torch.randn(operator.size, generator=source, dtype=operator.dtype).to(operator.device)
    inverse = None if scale is None else 1 / operator.gathered(scale.to(operator.device))

    def product(vector: Tensor) -> Tensor:
        if inverse is None:
            return operator.product(vector)
        return operator.product(vector * inverse) * inverse

    return lanczos(product, first, top=top, tolerance=tolerance, max_products=max_products, generator=source)
