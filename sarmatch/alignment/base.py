"""What all alignments share; by itself, no alignment at all."""

import torch
from torch import Tensor, nn

from sarmatch.progress import progress


class Alignment(nn.Module):
    """The two distributions are left alone: the control of every comparison.

    Parameters
    ----------
    feature_dim
        Numbers in an embedding.

    Attributes
    ----------
    optimizer : torch.optim.Optimizer or None
        Of the critic, where there is one. The encoder's optimiser never sees the critic's weights.
    """

    optimizer: torch.optim.Optimizer | None = None

    def __init__(self, feature_dim: int) -> None:
        super().__init__()
        self.feature_dim = feature_dim

    def critic_step(self, query: Tensor, reference: Tensor) -> None:
        """Let the critic learn from the embeddings `(B, feature_dim)` of both; their gradient is cut here."""

    def loss(self, query: Tensor, reference: Tensor) -> Tensor:
        """What the encoder minimises: a scalar."""
        return query.new_zeros(())

    @torch.no_grad()
    def estimate(self, query: Tensor, reference: Tensor) -> float:
        """How far apart the two distributions are."""
        return float(self.loss(query, reference))


def fit(
    alignment: Alignment, query: Tensor, reference: Tensor, steps: int = 300, batch_size: int = 128, seed: int = 0
) -> Alignment:
    """Let a critic learn from embeddings that stay as they are, to ask for its estimate afterwards.

    Parameters
    ----------
    alignment
        Its critic is trained further, in place.
    query, reference
        `(N, feature_dim)` and `(M, feature_dim)`.
    steps, batch_size, seed
        Of the training.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for _ in progress(range(steps), desc="critic", unit="step"):
            alignment.critic_step(*(z[torch.randint(len(z), (batch_size,))] for z in (query, reference)))
    return alignment
