"""Alignments by a critic that learns to tell the modalities apart, while the encoder learns to keep it from that."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sarmatch.alignment.base import Alignment
from sarmatch.alignment.registry import register_alignment
from sarmatch.checks import Count, NonNegative, Positive


def mlp(widths: tuple[int, ...]) -> nn.Sequential:
    """Linear layers with LeakyReLU in between; no normalisation, which would tie the samples of a batch together."""
    layers: list[nn.Module] = []
    for before, after in zip(widths, widths[1:], strict=False):
        layers += [nn.Linear(before, after), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers[:-1])


def lipschitz_bound(critic: nn.Module) -> float:
    """Upper bound on the slope of an `mlp`: the product of the largest singular values of its layers."""
    return math.prod(torch.linalg.matrix_norm(w.detach(), 2).item() for w in critic.parameters() if w.ndim == 2)


def gradient_penalty(critic: nn.Module, query: Tensor, reference: Tensor, fraction: Tensor) -> Tensor:
    """Mean of ``(|grad f(z)| - 1)^2`` at points between query and reference, the norm taken per sample.

    Parameters
    ----------
    critic
        `(B, D)` to `(B, 1)`.
    query, reference
        `(B, D)` each.
    fraction
        `(B, 1)` in 0..1: where between the two.

    Notes
    -----
    Gulrajani et al., NeurIPS 2017, equation 3.
    """
    between = torch.lerp(query.detach(), reference.detach(), fraction).requires_grad_()
    (slope,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    return (slope.norm(dim=1) - 1).square().mean()


@register_alignment("wasserstein")
class WassersteinCritic(Alignment):
    """Wasserstein-1 distance by a critic with gradient penalty; both modalities receive its gradient.

    The dual form is ``W1 = sup E f(query) - E f(reference)`` over functions with a slope of at most one (Kantorovich
    and Rubinstein). The critic looks for such a function and the encoder takes the distance that it finds back.

    Parameters
    ----------
    feature_dim
        Numbers in an embedding.
    widths
        Hidden layers.
    penalty
        Weight of the gradient penalty.
    critic_steps
        Steps of the critic for one of the encoder.
    critic_rate
        Its learning rate.

    Notes
    -----
    WDGRL (Shen et al., AAAI 2018, arXiv:1707.01217): five steps, penalty 10, Adam with 1e-4. A soft penalty lets the
    slope exceed one: against a pure shift by ``m`` it becomes ``1 + m / (2 penalty)``, and the estimate too large by
    that factor.
    """

    def __init__(
        self,
        feature_dim: int,
        widths: tuple[Count, ...] = (512, 256),
        penalty: NonNegative = 10.0,
        critic_steps: Count = 5,
        critic_rate: Positive = 1e-4,
    ) -> None:
        super().__init__(feature_dim)
        self.critic = mlp((feature_dim, *widths, 1))
        self.penalty, self.critic_steps = penalty, critic_steps
        self.optimizer = torch.optim.Adam(self.critic.parameters(), lr=critic_rate, betas=(0.5, 0.9))

    def critic_step(self, query: Tensor, reference: Tensor) -> None:
        query, reference = query.detach(), reference.detach()
        for _ in range(self.critic_steps):
            count = min(len(query), len(reference))
            fraction = torch.rand(count, 1).to(query)  # drawn on the CPU: the same numbers on every device
            objective = self._gap(query, reference) - self.penalty * gradient_penalty(
                self.critic, query[:count], reference[:count], fraction
            )
            self.optimizer.zero_grad(set_to_none=True)
            (-objective).backward()
            self.optimizer.step()

    def loss(self, query: Tensor, reference: Tensor) -> Tensor:
        return self._gap(query, reference)

    def _gap(self, query: Tensor, reference: Tensor) -> Tensor:
        return self.critic(query).mean() - self.critic(reference).mean()


@register_alignment("wasserstein_clipped")
class ClippedCritic(Alignment):
    """The published form (CMPC): clipped weights, half of each modality as anchors, gradient to optical samples only.

    The critic scores SAR above optical samples. Anchors are the half of SAR with the lowest scores and the half of the
    optical samples with the highest: those that are already hard to tell apart. Clipping every weight bounds the slope,
    but not by one, so that the estimate is a multiple of a distance that nobody knows.

    Parameters
    ----------
    feature_dim
        Numbers in an embedding.
    widths
        Hidden layers.
    clip
        Largest weight.
    critic_steps, critic_rate, critic_decay
        Steps of the critic for one of the encoder, its learning rate and weight decay.

    Notes
    -----
    Clipping: Arjovsky et al., ICML 2017. Widths, anchors and rates as the released code of CMPC has them (IEEE JSTARS
    2023); restated, not copied.
    """

    def __init__(
        self,
        feature_dim: int,
        widths: tuple[Count, ...] = (512, 512),
        clip: Positive = 0.1,
        critic_steps: Count = 5,
        critic_rate: Positive = 1e-3,
        critic_decay: NonNegative = 5e-4,
    ) -> None:
        super().__init__(feature_dim)
        self.critic = mlp((feature_dim, *widths, 1))
        self.clip, self.critic_steps = clip, critic_steps
        self.optimizer = torch.optim.Adam(self.critic.parameters(), lr=critic_rate, weight_decay=critic_decay)

    def critic_step(self, query: Tensor, reference: Tensor) -> None:
        query, reference = query.detach(), reference.detach()
        for _ in range(self.critic_steps):
            low, high = self._anchors(query, reference)
            self.optimizer.zero_grad(set_to_none=True)
            (high.mean() - low.mean()).backward()
            self.optimizer.step()
            with torch.no_grad():
                for weight in self.critic.parameters():
                    weight.clamp_(-self.clip, self.clip)

    def loss(self, query: Tensor, reference: Tensor) -> Tensor:
        return -self._anchors(query.detach(), reference)[1].mean()

    @torch.no_grad()
    def estimate(self, query: Tensor, reference: Tensor) -> float:
        low, high = self._anchors(query, reference)
        return float(low.mean() - high.mean())

    def _anchors(self, query: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
        """Scores of the anchors: of SAR the lowest half, of optical the highest."""
        low = self.critic(query)[:, 0].topk(max(1, len(query) // 2), largest=False).values
        high = self.critic(reference)[:, 0].topk(max(1, len(reference) // 2)).values
        return low, high


class ReverseGradient(torch.autograd.Function):
    """The identity, whose gradient is negated (Ganin and Lempitsky, ICML 2015)."""

    @staticmethod
    def forward(ctx, values: Tensor) -> Tensor:
        return values.view_as(values)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        return -gradient


@register_alignment("class_adversary")
class ClassAdversary(Alignment):
    """A classifier of the modality; the encoder gets its gradient reversed.

    The loss is the classifier's cross-entropy in bits: 1 where it can do no better than guess, 0 where it is always
    right. The gradient that reaches the encoder drives it *up*. `estimate` is one minus it, a lower bound on the
    Jensen-Shannon divergence of the two distributions in bits.

    Parameters
    ----------
    feature_dim
        Numbers in an embedding.
    widths
        Hidden layers.
    critic_steps, critic_rate
        Steps of the classifier for one of the encoder, and its learning rate.

    Notes
    -----
    DANN (Ganin et al., JMLR 2016).
    """

    def __init__(
        self,
        feature_dim: int,
        widths: tuple[Count, ...] = (512, 256),
        critic_steps: Count = 1,
        critic_rate: Positive = 1e-4,
    ) -> None:
        super().__init__(feature_dim)
        self.critic = mlp((feature_dim, *widths, 1))
        self.critic_steps = critic_steps
        self.optimizer = torch.optim.Adam(self.critic.parameters(), lr=critic_rate, betas=(0.5, 0.9))

    def critic_step(self, query: Tensor, reference: Tensor) -> None:
        for _ in range(self.critic_steps):
            self.optimizer.zero_grad(set_to_none=True)
            self._bits(query.detach(), reference.detach()).backward()
            self.optimizer.step()

    def loss(self, query: Tensor, reference: Tensor) -> Tensor:
        return self._bits(ReverseGradient.apply(query), ReverseGradient.apply(reference))

    @torch.no_grad()
    def estimate(self, query: Tensor, reference: Tensor) -> float:
        return 1 - float(self._bits(query, reference))

    def _bits(self, query: Tensor, reference: Tensor) -> Tensor:
        sides = [(self.critic(query), 1.0), (self.critic(reference), 0.0)]
        nats = [F.binary_cross_entropy_with_logits(z, torch.full_like(z, label)) for z, label in sides]
        return (nats[0] + nats[1]) / (2 * math.log(2))
