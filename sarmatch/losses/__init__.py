"""Losses that pull a query to its own reference and away from the others, by name.

Every loss is a module called as ``loss(batch)`` on an `EmbeddedBatch`; it returns a scalar. A loss of your own is one
class with a name:

    @register_loss("mine")
    class Mine(nn.Module):
        def forward(self, batch):
            return (1 - (batch.query * batch.reference).sum(1)).mean()
"""

from sarmatch.losses.batch import EmbeddedBatch
from sarmatch.losses.contrastive import JointInfoNCE, SoftLabelInfoNCE, SymmetricInfoNCE
from sarmatch.losses.dense import DenseBatch, DiscHinge, ShiftCircle, ShiftCrossEntropy
from sarmatch.losses.geometry import IoUSemiPositive, OffsetRegression
from sarmatch.losses.registry import LOSSES, create_loss, list_losses, register_loss
from sarmatch.losses.triplet import BatchHardTriplet, SemiHardTriplet, SoftMarginTriplet

__all__ = [
    "LOSSES",
    "BatchHardTriplet",
    "DenseBatch",
    "DiscHinge",
    "EmbeddedBatch",
    "IoUSemiPositive",
    "JointInfoNCE",
    "OffsetRegression",
    "SemiHardTriplet",
    "ShiftCircle",
    "ShiftCrossEntropy",
    "SoftLabelInfoNCE",
    "SoftMarginTriplet",
    "SymmetricInfoNCE",
    "create_loss",
    "list_losses",
    "register_loss",
]
