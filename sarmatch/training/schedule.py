"""What changes from step to step: the learning rate, and the weight of the alignment."""

import math

import torch

from sarmatch.training.config import Config


class WarmupCosine:
    """Linear warm-up, then half a cosine down to zero (Loshchilov and Hutter, ICLR 2017).

    An object, not a function: torch keeps the attributes of such a one with the state of a `LambdaLR`.

    Parameters
    ----------
    peak
        Highest learning rate.
    warmup
        Fraction of the steps over which it rises.
    total
        Number of steps.
    """

    def __init__(self, peak: float, warmup: float, total: int) -> None:
        self.peak, self.warmup, self.total = peak, warmup, total

    def __call__(self, step: int) -> float:
        warmup = self.warmup * self.total
        if step < warmup:
            return self.peak * (step + 1) / (warmup + 1)
        return self.peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, self.total - warmup)))


class Schedule(torch.optim.lr_scheduler.LambdaLR):
    """The learning rate of a config, as one of torch's schedulers.

    Parameters
    ----------
    optimizer
        Made with a learning rate of 1: the schedule gives rates, not factors of one.
    config
        The experiment.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, config: Config) -> None:
        steps = config.epochs * (config.pairs_per_epoch // config.batch_size)
        self.rate = WarmupCosine(config.learning_rate, config.warmup, steps)
        self.epochs = config.epochs
        super().__init__(optimizer, self.rate)

    def start(self, epoch: int, steps: int) -> None:
        """Begin an epoch of so many steps. Samplers do not fill the same number of batches in every epoch."""
        self.rate.total = self.epochs * steps
        self.last_epoch = epoch * steps
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate(self.last_epoch)

    def state_dict(self) -> dict:
        return {name: value for name, value in super().state_dict().items() if name != "rate"}  # it is in lr_lambdas


def alignment_weight(config: Config, step: int, total: int) -> float:
    """Linear warm-up to its full size: a critic that has learnt nothing yet has nothing to say."""
    warmup = config.alignment_warmup * total
    return config.alignment_weight * min(1.0, step / warmup if warmup else 1.0)
