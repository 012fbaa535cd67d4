"""One step of training: the losses of a batch, their gradients, and a move of all that learns."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator
from torch import nn

from sarmatch.alignment import create_alignment
from sarmatch.encoders import Encoder
from sarmatch.patches import Pairs, augment
from sarmatch.training.checkpoints import Parts
from sarmatch.training.config import Config
from sarmatch.training.objectives import OBJECTIVES
from sarmatch.training.schedule import Schedule, alignment_weight, auxiliary_weights
from sarmatch.training.sharpness import perturb, restore

COLLAPSED = 1e-3  # variance of unit vectors at cosines of 0.999; untrained encoders have 0.07 and more

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adamw": torch.optim.AdamW,
    "sgd": partial(torch.optim.SGD, momentum=0.9, nesterov=True),
}


#: What a learner is given of a batch, in this order; the last two where windows have been mined.
GIVEN = (*Pairs._fields, "place", "sample", "mined", "mined_place")


class Losses(NamedTuple):
    """What a batch costs, and the features that it costs this with, of length one: `(B, D)` for vectors."""

    total: torch.Tensor  # loss and weighted alignment
    loss: torch.Tensor
    query: torch.Tensor
    reference: torch.Tensor


class Step:
    """All that learns, and how it moves by one batch.

    Parameters
    ----------
    config
        The experiment.
    accelerator
        Device, precision and processes.
    encoder
        Learns in place.
    size
        Side of a patch in pixels.

    Attributes
    ----------
    parts : dict
        Modules and optimisers whose state is kept to go on.
    schedule : Schedule
        Of the learning rate.
    """

    def __init__(self, config: Config, accelerator: Accelerator, encoder: Encoder, size: int) -> None:
        self.config, self.accelerator = config, accelerator
        self.learner = OBJECTIVES[config.search].learner(encoder, config, size)
        self.refining, self.offset_head = self.learner.refining, self.learner.offset_head
        self.alignment = create_alignment(config.alignment, self.learner.feature_dim, **config.alignment_options)
        self.alignment.to(accelerator.device)
        self.optimizer = OPTIMIZERS[config.optimizer](
            parameter_groups(self.learner, config), lr=1.0, weight_decay=config.weight_decay
        )
        self.schedule = Schedule(self.optimizer, config)
        self.parts: Parts = {"learner": self.learner, "optimizer": self.optimizer, "alignment": self.alignment}
        if self.alignment.optimizer is not None:
            self.parts["critic"] = self.alignment.optimizer

    def prepare(self, loader: torch.utils.data.DataLoader) -> torch.utils.data.DataLoader:
        """Move everything to where it is computed; returns the loader that feeds this process."""
        if self.accelerator.num_processes > 1 and self.accelerator.device.type == "cuda":
            self.learner = nn.SyncBatchNorm.convert_sync_batchnorm(self.learner)
        self.learner, self.optimizer, loader = self.accelerator.prepare(self.learner, self.optimizer, loader)
        return loader

    def start(self, epoch: int, steps: int) -> None:
        """Begin an epoch of so many steps."""
        self.learner.train()
        self.accelerator.unwrap_model(self.learner).weights = auxiliary_weights(self.config, epoch)
        self.schedule.start(epoch, steps)

    def __call__(self, batch: dict[str, torch.Tensor], generator: torch.Generator, where: str) -> dict[str, float]:
        """Learn from a batch of `TrainingPairs`, augmented by chance of the generator.

        Returns
        -------
        `loss` of the batch, and the alignment's `estimate` after it.

        Raises
        ------
        FloatingPointError
            See `check_step`; `where` ends its message.
        """
        config = self.config
        batch = augmented(batch, config.augment, generator)
        losses = self._losses(batch, train_critic=True)
        check_step(config, where, losses)
        self._backward(losses)
        if config.sharpness != "none":
            before = perturb(self.learner.parameters(), config.sharpness, config.rho)
            self._backward(self._losses(batch, train_critic=False))
            restore(before)
        self.optimizer.step()
        self.schedule.step()
        estimate = self.alignment.estimate(losses.query.detach(), losses.reference.detach())
        return {"loss": losses.loss.item(), "estimate": estimate}

    def _losses(self, batch: dict[str, Any], train_critic: bool) -> Losses:
        with self.accelerator.autocast():
            loss, query, reference = self.learner(*(batch[name] for name in GIVEN if name in batch))
        if train_critic:
            self.alignment.critic_step(query, reference)
        weight = alignment_weight(self.config, self.schedule.last_epoch, self.schedule.rate.total)
        return Losses(loss + weight * self.alignment.loss(query, reference), loss, query, reference)

    def _backward(self, losses: Losses) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        self.accelerator.backward(losses.total)
        if self.config.clip_norm is not None:
            self.accelerator.clip_grad_norm_(self.learner.parameters(), self.config.clip_norm)
        if self.config.clip_value is not None:
            self.accelerator.clip_grad_value_(self.learner.parameters(), self.config.clip_value)


def parameter_groups(learner: nn.Module, config: Config) -> list[dict[str, Any]]:
    """What an optimiser is given: all parameters, or the trunk's at a rate of their own beside the others.

    Raises
    ------
    ValueError
        Where there is to be a rate of the trunk, and the encoder has none.
    """
    if config.trunk_rate == 1:
        return [{"params": list(learner.parameters())}]
    trunk = [weights for name, weights in learner.named_parameters() if ".trunk." in name]
    if not trunk:
        raise ValueError(
            f"trunk_rate is {config.trunk_rate}, and encoder {config.encoder!r} has no trunk; leave it at 1"
        )
    others = [weights for name, weights in learner.named_parameters() if ".trunk." not in name]
    return [{"params": others}, {"params": trunk, "lr": config.trunk_rate}]


def augmented(batch: dict[str, Any], names: Sequence[str], generator: torch.Generator) -> dict[str, Any]:
    """A batch with its pairs augmented, and mined windows by the same chance as the pairs' own: they stay as hard."""
    pairs, again = Pairs(*(batch[name] for name in Pairs._fields)), torch.Generator()
    again.set_state(generator.get_state())
    changed = augment(pairs, names, generator)._asdict()
    if "mined" in batch:
        changed["mined"] = augment(pairs._replace(reference=batch["mined"]), names, again).reference
    return batch | changed


def check_step(config: Config, where: str, losses: Losses) -> None:
    """Stop where training has gone wrong, and say what and where.

    Raises
    ------
    FloatingPointError
        Where a loss is not finite or the encoder has collapsed.
    """
    for name, value in ((f"loss {config.loss!r}", losses.loss), (f"alignment {config.alignment!r}", losses.total)):
        if not torch.isfinite(value):
            raise FloatingPointError(f"{name} is {value.item()} {where}; lower learning_rate or check the images")
    for modality, embeddings in (("SAR", losses.query), ("optical", losses.reference)):
        # unit vectors: one minus the squared length of their mean is their variance
        spread = 1 - embeddings.detach().mean(0).square().sum().item()
        if len(embeddings) > 1 and spread < COLLAPSED:
            raise FloatingPointError(
                f"the encoder has collapsed: all {modality} patches of a batch lie at one spot (variance {spread:.1e}) "
                f"under loss {config.loss!r} and alignment {config.alignment!r} {where}; "
                "lower alignment_weight or learning_rate"
            )
