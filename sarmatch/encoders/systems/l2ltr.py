"""L2LTR: a convolution stem and a transformer whose layers attend to the layer before them."""

from collections.abc import Iterable

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sarmatch.checks import Count, Size
from sarmatch.encoders.backbones import create_network
from sarmatch.encoders.base import Modality, height_and_width, register_encoder
from sarmatch.encoders.systems.branches import TwoBranches
from sarmatch.encoders.systems.tokens import as_map, leading_of_map, leading_tokens, received


class L2LTRBranch(nn.Module):
    """timm's hybrid transformer, its blocks' attention led across layers; the vector is the class token."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.cells: tuple[int, int] = net.patch_embed.grid_size  # type: ignore[assignment] # timm leaves it open
        self.stride = net.patch_embed.img_size[0] // self.cells[0]
        self.feature_dim = net.embed_dim

    def tokens(self, images: Tensor, blocks: Iterable[nn.Module]) -> tuple[Tensor, Tensor]:
        """Tokens of images after those blocks, and those of a layer earlier."""
        patches = self.net.patch_embed(images) + self.net.pos_embed[:, self.net.num_prefix_tokens :]
        tokens = torch.cat([leading_tokens(self.net).expand(len(images), -1, -1), patches], 1)
        before = tokens
        for block in blocks:
            tokens, before = across(block, tokens, before), tokens
        return tokens, before

    def features(self, images: Tensor) -> Tensor:
        tokens, count = self.net.norm(self.tokens(images, self.net.blocks)[0]), self.net.num_prefix_tokens
        return as_map(tokens[:, count:], tokens[:, :count], self.cells)

    def attention(self, images: Tensor) -> Tensor:
        """What each patch receives from the class token in the last block `(B, h, w)`."""
        *blocks, last = self.net.blocks  # type: ignore[misc] # timm leaves it open
        q, k, _ = queries_keys_values(last, *self.tokens(images, blocks))
        return received(q, k, self.net.num_prefix_tokens).unflatten(1, self.cells)

    def vectors(self, features: Tensor) -> Tensor:
        return leading_of_map(features, self.feature_dim)[:, 0]


def queries_keys_values(block: nn.Module, tokens: Tensor, before: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries of tokens, keys and values of those of a layer earlier, of all heads `(B, heads, N, D)` each."""
    attn, dim = block.attn, tokens.shape[2]
    weight, bias = attn.qkv.weight, attn.qkv.bias
    here, there = block.norm1(tokens), block.norm1(before)
    q = F.linear(here, weight[:dim], bias[:dim]).unflatten(2, (attn.num_heads, -1))
    k, v = F.linear(there, weight[dim:], bias[dim:]).unflatten(2, (2, attn.num_heads, -1)).unbind(2)
    return q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)


def across(block: nn.Module, tokens: Tensor, before: Tensor) -> Tensor:
    """A block of timm's transformer whose queries come from its tokens, keys and values from those of a layer earlier.

    In the first block both are the same, and it is the block that it was.
    """
    attn = block.attn
    mixed = F.scaled_dot_product_attention(*queries_keys_values(block, tokens, before))
    tokens = tokens + block.drop_path1(block.ls1(attn.proj_drop(attn.proj(mixed.transpose(1, 2).flatten(2)))))
    return tokens + block.drop_path2(block.ls2(block.mlp(block.norm2(tokens))))


@register_encoder("l2ltr")
class L2LTR(TwoBranches):
    """A ResNet stem and a transformer with self-cross attention, in two branches without a common weight.

    Each layer asks with its own tokens and is answered by those of the layer before it.

    Parameters
    ----------
    image_size, sar_bands, query_size, reference_size
        See `TwoBranches`.
    backbone, options
        A hybrid transformer of timm, and what it takes.
    pretrained
        See `create_backbone`.

    Notes
    -----
    A ResNet-50 makes a coarse map, and a ViT-B with positions that are learned reads its cells as tokens: the
    convolutions see detail, the transformer the layout, and it learns by itself how a street lies in a panorama and
    in a tile. The idea is in between its layers. In a plain transformer each layer asks and answers with its own
    tokens, and the tokens of neighbouring layers grow alike. Here a layer asks with its tokens and is answered by
    those of the layer *before*: queries come from here, keys and values from there. It costs no weight and nothing
    to compute, and a residual connection joins two levels of abstraction instead of one. The class token is the
    vector. Two branches without a common weight, soft-margin triplets, AdamW with a warm-up; tiles are unrolled
    about their centre for the best published numbers. Keys and values come from there alike: this is our reading of
    the paper, which publishes no count to check it by.

    References
    ----------
    .. [1] Yang et al., "Cross-view geo-localization with layer-to-layer transformer", NeurIPS 2021.
    """

    def __init__(
        self,
        image_size: Size = 256,
        sar_bands: Count = 1,
        backbone: str = "vit_base_r50_s16_224",
        query_size: Size | None = None,
        reference_size: Size | None = None,
        pretrained: bool | str = False,
        **options,
    ) -> None:
        if not timm.is_model(backbone) or "vit" not in backbone:
            raise ValueError(f"backbone is {backbone!r}, expected one of {timm.list_models('vit_*_r*_s*')}")

        def make(modality: Modality, channels: int, size: Size) -> L2LTRBranch:
            sides = height_and_width(size)
            return L2LTRBranch(create_network(backbone, channels, 0, pretrained, img_size=sides, **options))

        super().__init__(make, image_size, sar_bands, query_size, reference_size)
