"""TransGeo: two transformers of their own, and a second stage that looks closer where the first one has looked."""

from typing import Annotated, Literal

import timm
import torch
import torch.nn.functional as F
from pydantic import Field
from timm.layers import build_sincos2d_pos_embed
from torch import Tensor, nn

from sarmatch.checks import Count, Size
from sarmatch.encoders.backbones import create_network
from sarmatch.encoders.base import Modality, height_and_width, register_encoder
from sarmatch.encoders.pretrained import Weights
from sarmatch.encoders.systems.branches import TwoBranches
from sarmatch.encoders.systems.tokens import as_map, leading_of_map, leading_tokens, received, resized_positions

Zoom = Annotated[float, Field(ge=1, le=8)]
Keep = Annotated[float, Field(gt=0, le=1)]


class TransGeoBranch(nn.Module):
    """A distilled transformer whose two heads are averaged; of a closer look only the attended patches are kept.

    Parameters
    ----------
    net
        timm's distilled transformer, for images of its `patch_embed.img_size`.
    zoom
        How much larger images are than what was looked at first; 1 for a single look.
    keep
        Fraction of the patches that a closer look keeps.
    """

    def __init__(self, net: nn.Module, zoom: float, keep: float) -> None:
        super().__init__()
        self.net, self.zoom = net, zoom
        self.cells: tuple[int, int] = net.patch_embed.grid_size  # type: ignore[assignment] # timm leaves it open
        self.stride = net.patch_embed.patch_size[0]
        self.first = tuple(round(side / zoom / self.stride) for side in self.cells_in_pixels())
        self.kept = int(keep * self.cells[0] * self.cells[1])
        self.feature_dim = net.num_classes

    def cells_in_pixels(self) -> tuple[int, int]:
        """Height and width that the cells cover."""
        return self.cells[0] * self.stride, self.cells[1] * self.stride

    def features(self, images: Tensor) -> Tensor:
        patches, kept = self.patches(images, self.cells), None
        if self.zoom > 1:
            kept = self.attended(images)
            patches = patches.gather(1, kept[:, :, None].expand(-1, -1, patches.shape[2]))
        tokens = self.net.norm(self.net.blocks(self.with_leading(patches)))
        count = self.net.num_prefix_tokens
        return as_map(tokens[:, count:], tokens[:, :count], self.cells, kept)

    def vectors(self, features: Tensor) -> Tensor:
        of_class, of_distillation = leading_of_map(features, self.net.embed_dim).unbind(1)
        return (self.net.head(of_class) + self.net.head_dist(of_distillation)) / 2

    def patches(self, images: Tensor, cells: tuple[int, int]) -> Tensor:
        """Patches of images of so many cells, with their positions `(B, h w, D)`."""
        embed, table = self.net.patch_embed, self.net.pos_embed[:, self.net.num_prefix_tokens :]
        tokens = embed.norm(embed.proj(images).flatten(2).mT)
        return tokens + resized_positions(table, self.cells, cells, "bilinear")

    def with_leading(self, patches: Tensor) -> Tensor:
        """Patches behind the class and the distillation token."""
        return torch.cat([leading_tokens(self.net).expand(len(patches), -1, -1), patches], 1)

    @torch.no_grad()
    def attended(self, images: Tensor) -> Tensor:
        """The patches `(B, kept)` that the last block attends to most when it sees the images as at first, smaller."""
        attention = F.interpolate(self.attention(images)[:, None], size=self.cells, mode="bilinear").flatten(1)
        return attention.topk(self.kept, dim=1).indices

    @torch.no_grad()
    def attention(self, images: Tensor) -> Tensor:
        """What each patch of a first look receives from the leading tokens in the last block `(B, h, w)`."""
        sides = [cells * self.stride for cells in self.first]
        tokens = self.with_leading(self.patches(F.interpolate(images, size=sides, mode="area"), self.first))
        *before, last = self.net.blocks  # type: ignore[misc] # timm leaves it open
        for block in before:
            tokens = block(tokens)
        q, k, _ = last.attn.qkv(last.norm1(tokens)).unflatten(2, (3, last.attn.num_heads, -1)).permute(2, 0, 3, 1, 4)
        return received(q, k, self.net.num_prefix_tokens).unflatten(1, self.first)


@register_encoder("transgeo")
class TransGeo(TwoBranches):
    """Two distilled transformers without a common weight; in a second stage the reference is looked at twice.

    The vector is the mean of both heads, of the class and of the distillation token. They belong to no patch: the
    feature map has them in every cell, beside the cell's own token.

    Parameters
    ----------
    image_size, sar_bands, query_size, reference_size
        See `TwoBranches`. `reference_size` is that of the first look.
    backbone, options
        A distilled transformer of timm, and what it takes.
    feature_dim
        Outputs of both heads.
    position
        Position table that is `learned`, or of fixed `sine` waves in both directions.
    zoom
        Above 1 references come larger by this factor (attend and zoom in). The network looks at them in the size of the
        first stage, and then at the most attended patches in full.
    keep
        Fraction of the patches that are kept; 0.64 costs at a zoom of 1.25 what the first look costs.
    pretrained
        See `create_backbone`. The weights that the run of a first stage has kept go into a second one as well, see
        `create_encoder`; their position tables are resized.

    Notes
    -----
    No convolutions: an image is cut into patches of 16 pixels, and a distilled DeiT-S without a common weight for
    each view lets all of them attend to each other. Positions are a learned table, so a panorama and a tile need no
    polar transform to be laid out alike: what corresponds may be learned. The vector is the mean of two heads, of
    the class token and of the distillation token. Soft-margin triplets on mined pairs, and ASAM, which asks for
    weights whose neighbourhood is good as well, since a transformer with few images otherwise remembers them. The
    second stage *attends and zooms*: what class tokens look at in the last block says which patches matter, the
    others are dropped, and the reference comes in a higher resolution, 1.25 times as large, of whose patches 0.64
    remain. The costs are those of the first look, the detail is finer where it counts, and positions keep their
    place. It begins with the first stage's weights at a tenth of its rate. The published second stage reads
    attention from files of 8 bits; here the network attends as it stands, and nothing is written.

    References
    ----------
    .. [1] Zhu et al., "TransGeo: transformer is all you need for cross-view image geo-localization", CVPR 2022.
    """

    def __init__(
        self,
        image_size: Size = 256,
        sar_bands: Count = 1,
        backbone: str = "deit_small_distilled_patch16_224",
        feature_dim: Count = 1000,
        position: Literal["learned", "sine"] = "learned",
        zoom: Zoom = 1.0,
        keep: Keep = 0.64,
        query_size: Size | None = None,
        reference_size: Size | None = None,
        pretrained: bool | str = False,
        **options,
    ) -> None:
        if not timm.is_model(backbone) or "distilled" not in backbone:
            raise ValueError(f"backbone is {backbone!r}, expected one of {timm.list_models('*deit*distilled*')}")
        seen = height_and_width(reference_size or image_size)
        reference_size = (round(zoom * seen[0]), round(zoom * seen[1]))

        def make(modality: Modality, channels: int, size: Size) -> TransGeoBranch:
            sides = height_and_width(size)
            net = create_network(backbone, channels, feature_dim, pretrained, img_size=sides, **options)
            if position == "sine":
                with_sines(net)
            return TransGeoBranch(net, zoom if modality == "reference" else 1.0, keep)

        super().__init__(make, image_size, sar_bands, query_size, reference_size)

    def begin_with(self, weights: Weights, origin: str) -> None:
        """Take over the weights of an encoder like this one or of its first stage, whose tables are resized."""
        weights = dict(weights)
        for modality, branch in self.branch.items():
            name, leading = f"branch.{modality}.net.pos_embed", branch.net.num_prefix_tokens
            own = branch.net.pos_embed.shape
            if name in weights and branch.zoom > 1 and weights[name].shape != own:
                tokens, table = weights[name].split([leading, weights[name].shape[1] - leading], 1)
                try:
                    table = resized_positions(table, branch.first, branch.cells, "bilinear")
                except RuntimeError as error:
                    raise ValueError(f"{origin}: its first stage has images of another size ({error})") from error
                weights[name] = torch.cat([tokens, table], 1)
        super().begin_with(weights, origin)


def with_sines(net: nn.Module) -> None:
    """Put sine waves in the place of a learned position table; the leading tokens have none."""
    waves = build_sincos2d_pos_embed(list(net.patch_embed.grid_size), net.embed_dim, interleave_sin_cos=True)
    table = F.pad(waves[None], (0, 0, net.num_prefix_tokens, 0)).to(net.pos_embed)
    del net.pos_embed
    net.register_buffer("pos_embed", table.detach(), persistent=False)
