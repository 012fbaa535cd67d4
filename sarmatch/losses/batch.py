"""What every loss is given: the embedded pairs of a batch, and where they lie."""

from typing import NamedTuple

from torch import Tensor


class EmbeddedBatch(NamedTuple):
    """A batch of pairs as a loss sees it: row ``i`` of the queries belongs to row ``i`` of the references.

    Only the embeddings are always there. What a loss cannot do without it asks for with an error of its own.

    Attributes
    ----------
    query, reference : Tensor (B, D)
        L2-normalised embeddings of SAR and of the optical map.
    overlap : Tensor (B, B) or None
        Fraction of ground that query ``i`` and reference ``j`` have in common; NaN where it is unknown. Off-diagonal
        pairs above zero, or unknown, are no negatives. ``None`` says that no two patches of the batch overlap.
    offset : Tensor (B, 2) or None
        Reference minus query, rows and columns in patch widths.
    place : Tensor (B, 5) of int or None
        Corners of query and reference and number of the area, in pixels, as ``TrainingPairs`` gives them.
    sample : Tensor (B,) of int or None
        Which pair of the epoch each row is, for a loss that remembers pairs from one batch to the next. The pairs are
        drawn anew in every epoch, and their numbers begin again.
    vectors : pair of Tensor (B, D) or None
        The embeddings of both before their normalisation, for a loss that reads their lengths.
    """

    query: Tensor
    reference: Tensor
    overlap: Tensor | None = None
    offset: Tensor | None = None
    place: Tensor | None = None
    sample: Tensor | None = None
    vectors: tuple[Tensor, Tensor] | None = None
