"""A refiner that learns along with the encoder, from the lists that batches make."""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sarmatch.patches import pair_overlap
from sarmatch.refinement import LearnedRefiner, ListBatch, RefinementContext, network_inputs
from sarmatch.refinement.inputs import to_device
from sarmatch.refinement.learned import refiner_loss, shuffled
from sarmatch.search import Candidates, Gallery

MEMORY = 1024  # recent pairs at most that stand for a gallery
FAR = 1e6  # pixels between areas, so that no edge joins them


class RefinerLoss(nn.Module):
    """The loss of a refiner that learns along with the encoder: the references of a batch are every query's list.

    Both learn from it, the encoder through the scores of its search alone: what else a network knows of a candidate
    pulled at it so hard that it learned nothing. Neighbours have to meet in a batch for a graph to have edges:
    `sampler="cluster"`.

    The network sees what it will see in use: embeddings in the axes of a gallery, for which the last `memory` pairs
    stand. Until there are so many, the loss is 0.

    Parameters
    ----------
    refiner
        What learns; its network is built here.
    feature_dim
        Of the embeddings.
    size
        Side of a patch in pixels.
    weight
        Of this loss.
    memory
        Pairs that stand for a gallery.
    """

    def __init__(
        self, refiner: LearnedRefiner, feature_dim: int, size: int, weight: float = 1.0, memory: int = MEMORY
    ) -> None:
        super().__init__()
        self.about, self.size, self.weight = refiner, size, weight
        self.network = refiner.build(feature_dim)
        self.none = nn.Parameter(torch.zeros(()))
        self.filled: Tensor
        self.recent: Tensor
        self.register_buffer("filled", torch.zeros((), dtype=torch.int64))
        self.register_buffer("recent", torch.zeros(2, memory, feature_dim))

    def forward(self, query: Tensor, reference: Tensor, place: Tensor) -> Tensor:
        """Weighted listwise loss of embeddings `(B, D)` and places `(B, 5)` in pixels."""
        self._remember(query, reference)
        if self.filled < self.recent.shape[1]:
            return 0.0 * sum(p.sum() for p in self.parameters())  # every parameter takes part in every step
        lists = self.inputs(query, reference, place)
        fraction = pair_overlap(place, self.size)
        fraction = fraction / fraction.sum(1, keepdim=True).clamp(min=1)  # references of a batch may overlap each other
        shift = (_centres(place, 0, 1)[:, None] - _centres(place, 2, 3)[None]) / self.size
        lists, (fraction, shift) = shuffled(lists, fraction.to(query.dtype), shift.to(query.dtype))
        return self.weight * refiner_loss(self.network(lists), self.none, fraction, shift)

    def inputs(self, query: Tensor, reference: Tensor, place: Tensor) -> ListBatch:
        """What the network sees of a batch, with a gradient through its scores."""
        score, count = query @ reference.T, len(query)
        names, code = np.unique(place[:, 4].cpu().numpy(), return_inverse=True)
        own = self.recent.shape[1] - count + np.arange(count)  # of the batch in the memory
        candidates = Candidates(
            score.detach().float().cpu().numpy(),
            np.tile(_centres(place, 2, 3).cpu().numpy(), (count, 1, 1)),
            np.tile(code.astype(np.int64), (count, 1)),
            tuple(map(str, names)),
            tile=np.tile(own, (count, 1)),
        )
        recent_query, recent_reference = self.recent.cpu().numpy()
        gallery = Gallery.of_vectors(recent_reference, tile_m=float(self.size))
        context = RefinementContext(gallery, recent_query[own], recent_query.mean(0))
        return to_device(network_inputs(candidates, context), query.device)._replace(score=score)

    @torch.no_grad()
    def _remember(self, query: Tensor, reference: Tensor) -> None:
        batch = F.normalize(torch.stack([query, reference]).float(), dim=2)
        self.recent.copy_(torch.cat([self.recent, batch], 1)[:, -self.recent.shape[1] :])
        self.filled.add_(len(query))

    def save(self, path: Path) -> None:
        """As `LearnedRefiner.load` takes it."""
        self.about.network, self.about.none = self.network, self.none.item()
        self.about.save(path)


def _centres(place: Tensor, row: int, column: int) -> Tensor:
    """Where patches lie `(B, 2)`, pixels east and north; areas lie apart."""
    return torch.stack([place[:, column].double() + place[:, 4].double() * FAR, -place[:, row].double()], 1)
