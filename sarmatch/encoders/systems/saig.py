"""SAIG: a convolution stem, then attention alone; aggregated by an average or by SMD."""

from functools import partial

import torch
from torch import Tensor, nn

from sarmatch.checks import Count, Size
from sarmatch.encoders.aggregators import Cells, create_aggregator
from sarmatch.encoders.base import Modality, height_and_width, register_encoder
from sarmatch.encoders.systems.branches import TwoBranches
from sarmatch.encoders.systems.tokens import received, resized_positions

STRIDES = (2, 2, 1, 2, 1, 2)  # of the stem's convolutions: one cell is 16 pixels wide


class AttentionBlock(nn.Module):
    """Self-attention around a skip; no MLP follows."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.qkv, self.proj, self.heads = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim), heads

    def queries_keys_values(self, tokens: Tensor) -> Tensor:
        """Of all heads `(3, B, heads, N, D)`."""
        return self.qkv(self.norm(tokens)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)

    def forward(self, tokens: Tensor) -> Tensor:
        mixed = nn.functional.scaled_dot_product_attention(*self.queries_keys_values(tokens))
        return tokens + self.proj(mixed.transpose(1, 2).flatten(2))


class SAIGBranch(nn.Module):
    """Stem, position table, attention blocks and an aggregator, for images `(B, channels, *size)`."""

    stride = 16

    def __init__(
        self, channels: int, size: Size, depth: int, dim: int, heads: int, aggregator: str, options: dict
    ) -> None:
        super().__init__()
        self.cells = tuple(-(-side // self.stride) for side in height_and_width(size))
        widths = (channels, dim // 6, dim // 3, dim // 3, 2 * dim // 3, 2 * dim // 3, 4 * dim // 3)
        stem: list[nn.Module] = []
        for before, after, stride in zip(widths, widths[1:], STRIDES, strict=False):
            stem += [nn.Conv2d(before, after, 3, stride, 1), nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
        self.stem = nn.Sequential(*stem, nn.Conv2d(widths[-1], dim, 1))
        self.positions = nn.Parameter(torch.zeros(1, self.cells[0] * self.cells[1], dim))
        self.blocks = nn.Sequential(*(AttentionBlock(dim, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        for layer in self.blocks.modules():
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)
        nn.init.trunc_normal_(self.positions, std=0.02)
        self.head = create_aggregator(aggregator, dim, self.cells, **options)
        self.feature_dim = self.head.feature_dim

    def tokens(self, images: Tensor) -> tuple[Tensor, Cells]:
        """Cells of images with their positions `(B, h w, D)`, and `h` and `w`."""
        cells = self.stem(images)
        grid = cells.shape[2], cells.shape[3]
        return cells.flatten(2).mT + resized_positions(self.positions, self.cells, grid, "bicubic"), grid

    def features(self, images: Tensor) -> Tensor:
        tokens, grid = self.tokens(images)
        return self.norm(self.blocks(tokens)).mT.unflatten(2, grid)

    def attention(self, images: Tensor) -> Tensor:
        """What each cell receives from all others in the last block `(B, h, w)`."""
        tokens, grid = self.tokens(images)
        q, k, _ = self.blocks[-1].queries_keys_values(self.blocks[:-1](tokens))
        return received(q, k, 0).unflatten(1, grid)

    def vectors(self, features: Tensor) -> Tensor:
        return self.head(features)


@register_encoder("saig_s")
class SAIG(TwoBranches):
    """A convolution stem, then attention without MLPs, in a branch per modality.

    Parameters
    ----------
    image_size, sar_bands, query_size, reference_size, shared
        See `TwoBranches`.
    depth
        Attention blocks: 11 in SAIG-S, 22 in SAIG-D (`saig_d`).
    dim, heads
        Numbers in a token, a multiple of 6 and of the heads, and attention heads. The stem is as wide as they say.
    aggregator, aggregator_options
        `smd` (8 times 384 numbers) or `average`, or any other, see `create_aggregator`.

    Notes
    -----
    What of a transformer does this task need? A stem of six convolutions makes tokens that know their surroundings,
    one for 16 x 16 pixels, where a plain transformer would cut hard patches. Blocks are attention around a skip and
    nothing else: the MLPs, two thirds of a transformer's weights, are gone. 11 blocks make SAIG-S, 22 SAIG-D. An
    average over the tokens would forget where things lie. SMD, spatially mixed aggregation, takes each of the 384
    channels as a picture over all tokens, mixes it by two dense layers with a non-linearity in between, and reads 8
    numbers from it: 3072 in all, which know the layout. ASAM is the optimiser's part, and the authors find it worth
    most: 11 points at first on VIGOR, where SMD is worth 5. Of losses they compare the soft-margin triplet, the
    same with the hardest sqrt(B) negatives of a batch, and an InfoNCE in which every embedding of either view, 2B -
    1 of them, is a possible answer. Two branches without a common weight.

    References
    ----------
    .. [1] Zhu et al., "Simple, effective and general: a new backbone for cross-view image geo-localization",
       arXiv:2302.01572.
    """

    def __init__(
        self,
        image_size: Size = 256,
        sar_bands: Count = 1,
        depth: Count = 11,
        dim: Count = 384,
        heads: Count = 12,
        aggregator: str = "smd",
        aggregator_options: dict | None = None,
        query_size: Size | None = None,
        reference_size: Size | None = None,
        shared: bool = False,
    ) -> None:
        if dim % 6 or dim % heads:
            raise ValueError(f"dim is {dim}, expected a multiple of 6 and of heads = {heads}")

        def make(modality: Modality, channels: int, size: Size) -> SAIGBranch:
            return SAIGBranch(channels, size, depth, dim, heads, aggregator, aggregator_options or {})

        super().__init__(make, image_size, sar_bands, query_size, reference_size, shared)


register_encoder("saig_d")(partial(SAIG, depth=22))
