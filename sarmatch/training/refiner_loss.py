"""The loss of a refiner that is trained along with the encoder."""

from pathlib import Path

import torch
from torch import nn

from sarmatch.patches import pair_overlap
from sarmatch.refinement.learned import LearnedRefiner, listwise_loss, place_loss, shuffled
from sarmatch.refinement.networks import Batch
from sarmatch.training.config import Config

FAR = 1e6  # pixels between areas


class RefinerLoss(nn.Module):
    """The loss of a refiner that learns along with the encoder: the references of a batch are every query's list.

    Both learn from it, the encoder through the scores of its search alone: what else a network knows of a candidate
    pulled at it so hard that it learned nothing. Neighbours have to meet in a batch for a graph to have edges:
    `sampler="cluster"`.
    """

    def __init__(self, config: Config, dim: int, size: int) -> None:
        super().__init__()
        self.size, self.weight = size, config.refiner_weight
        self.about = LearnedRefiner(config.refiner, **config.refiner_options)
        self.network = self.about.build(dim)
        self.none = nn.Parameter(torch.zeros(()))

    def forward(self, query: torch.Tensor, reference: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
        """Weighted listwise loss of embeddings `(B, D)` and places `(B, 5)` in pixels."""
        count = len(query)
        area = place[:, 4].double()
        xy, own = (
            torch.stack([place[:, c].double() + area * FAR, -place[:, r].double()], 1) for r, c in ((2, 3), (0, 1))
        )  # other areas are out of sight
        lists = Batch(
            query @ reference.T,
            query.detach(),
            reference.detach().expand(count, -1, -1),
            xy.expand(count, -1, -1),
            float(self.size),
        )
        share = pair_overlap(place, self.size)
        share = share / share.sum(1, keepdim=True).clamp(min=1)  # references of a batch may overlap each other
        shift = ((own[:, None] - xy[None]) / self.size).to(query.dtype)
        lists, share, shift = shuffled(lists, share.to(query.dtype), shift)
        answer = self.network(lists)
        loss = listwise_loss(answer.score, self.none, share) + place_loss(answer.shift, shift, share)
        return self.weight * loss

    def save(self, path: Path) -> None:
        """As `LearnedRefiner.load` takes it."""
        self.about.network, self.about.none = self.network, self.none.item()
        self.about.save(path)
