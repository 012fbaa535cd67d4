"""What changes as training goes on: the learning rate, and the weights of the alignment and of auxiliary losses."""

import math
from collections.abc import Sequence

import torch

from sarmatch.training.config import Config


class Rate:
    """Linear warm-up, then half a cosine down to zero (Loshchilov and Hutter, ICLR 2017), or steps to a tenth.

    An object, not a function: torch keeps the attributes of such a one with the state of a `LambdaLR`.

    Parameters
    ----------
    peak
        Highest learning rate.
    warmup
        Fraction of the steps over which it rises.
    decay
        `cosine`, or the fractions of the steps after each of which the rate is a tenth; none for a constant rate.
    total
        Number of steps.
    """

    def __init__(self, peak: float, warmup: float, decay: str | Sequence[float], total: int) -> None:
        self.peak, self.warmup, self.decay, self.total = peak, warmup, decay, total

    def __call__(self, step: int) -> float:
        warmup = self.warmup * self.total
        if step < warmup:
            return self.peak * (step + 1) / (warmup + 1)
        if isinstance(self.decay, str):
            return self.peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, self.total - warmup)))
        return self.peak * 0.1 ** sum(step >= after * self.total for after in self.decay)


class Schedule(torch.optim.lr_scheduler.LambdaLR):
    """The learning rate of a config, as one of torch's schedulers.

    Parameters
    ----------
    optimizer
        Made with learning rates of 1: the schedule gives rates, not factors of one. Where a group's rate is another,
        it is a factor of these.
    config
        The experiment.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, config: Config) -> None:
        steps = config.epochs * (config.pairs_per_epoch // config.batch_size)
        self.rate = Rate(config.learning_rate, config.warmup, config.decay, steps)
        self.epochs = config.epochs
        super().__init__(optimizer, self.rate)

    def start(self, epoch: int, steps: int) -> None:
        """Begin an epoch of so many steps. Samplers do not fill the same number of batches in every epoch."""
        self.rate.total = self.epochs * steps
        self.last_epoch = epoch * steps
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * self.rate(self.last_epoch)

    def state_dict(self) -> dict:
        return {name: value for name, value in super().state_dict().items() if name != "rate"}  # it is in lr_lambdas


def alignment_weight(config: Config, step: int, total: int) -> float:
    """Linear warm-up to its full size: a critic that has learnt nothing yet has nothing to say."""
    warmup = config.alignment_warmup * total
    return config.alignment_weight * min(1.0, step / warmup if warmup else 1.0)


def auxiliary_weights(config: Config, epoch: int) -> dict[str, float]:
    """Weights of the auxiliary losses by name: nothing before the epoch from which they join."""
    return {name: weight * joined(config, epoch) for name, weight in config.auxiliary.items()}


def joined(config: Config, epoch: int) -> bool:
    """Whether the auxiliary losses have joined in an epoch, counted from 0."""
    return epoch >= config.auxiliary_from * config.epochs
