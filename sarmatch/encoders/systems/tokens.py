"""What systems on timm's transformers share: positions of another grid, and tokens as a feature map."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sarmatch.encoders.aggregators import Cells


def resized_positions(table: Tensor, cells: Cells, to: Cells, mode: Literal["bilinear", "bicubic"]) -> Tensor:
    """A position table `(1, h w, D)` of a grid of cells for another grid."""
    if tuple(cells) == tuple(to):
        return table
    return F.interpolate(table.mT.unflatten(2, cells), size=to, mode=mode).flatten(2).mT


def received(q: Tensor, k: Tensor, leading: int) -> Tensor:
    """Attention that each patch receives from the leading tokens, or without any from all other patches.

    Parameters
    ----------
    q, k
        Queries and keys of all tokens `(B, heads, N, D)`.
    leading
        How many tokens stand before the patches.

    Returns
    -------
    Tensor (B, N - leading), the mean over heads and over the tokens that attend.
    """
    asking = q[:, :, :leading] if leading else q
    weights = (q.shape[3] ** -0.5 * asking @ k.mT).softmax(3).mean(1)[:, :, leading:]
    if leading:
        return weights.mean(1)
    own = weights.diagonal(dim1=1, dim2=2)
    return (weights.sum(1) - own) / (weights.shape[1] - 1)


def leading_tokens(net: nn.Module) -> Tensor:
    """Class token, and distillation token where there is one, with their positions: `(1, P, D)`."""
    tokens = [net.cls_token, *([net.dist_token] if hasattr(net, "dist_token") else [])]
    return torch.cat(tokens, 1) + net.pos_embed[:, : len(tokens)]


def as_map(patches: Tensor, leading: Tensor, cells: Cells, kept: Tensor | None = None) -> Tensor:
    """Tokens as a feature map: each cell holds its own, and beside it the leading ones, the same in all cells.

    Parameters
    ----------
    patches
        `(B, N, D)`, row by row.
    leading
        `(B, P, D)`.
    cells
        Of the map.
    kept
        Cell of each patch `(B, N)` where some are left out; those are 0.

    Returns
    -------
    Tensor (B, (1 + P) D, h, w)
    """
    batch, _, dim = patches.shape
    if kept is not None:
        whole = patches.new_zeros(batch, cells[0] * cells[1], dim)
        patches = whole.scatter(1, kept[:, :, None].expand_as(patches), patches)
    beside = leading.flatten(1)[:, :, None, None].expand(-1, -1, *cells)
    return torch.cat([patches.mT.unflatten(2, cells), beside], 1)


def leading_of_map(features: Tensor, dim: int) -> Tensor:
    """The leading tokens `(B, P, D)` that `as_map` has put beside the cells."""
    return features[:, dim:, 0, 0].unflatten(1, (-1, dim))
