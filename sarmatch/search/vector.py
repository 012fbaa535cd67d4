"""Search for the tiles whose vectors are nearest to a query's: exact, or by one of faiss' indices."""

import os
from collections.abc import Iterable

import numpy as np
import torch  # before faiss, so that both share one OpenMP runtime
from numpy.typing import NDArray
from torch import nn

import faiss  # isort: skip

from sarmatch.checks import Count, whole_number
from sarmatch.encoders import embed
from sarmatch.search.candidates import Candidates
from sarmatch.search.gallery import Gallery, unit_rows
from sarmatch.search.searches import register_search

# A forked worker inherits the runtime's bookkeeping but not its threads: asking for a second one waits forever.
if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(after_in_child=lambda: faiss.omp_set_num_threads(1))

_GPU_LIMIT = 2048  # the longest list that faiss selects on a GPU

Queries = NDArray | torch.Tensor | Iterable[torch.Tensor]


@register_search("vector")
class VectorSearch:
    """One vector per tile, compared by cosine: with all of them, unless an index is named.

    Parameters
    ----------
    gallery
        Tiles with their vectors.
    encoder
        Makes vectors of queries that are given as images.
    index
        As faiss' ``index_factory`` reads it: ``Flat`` compares with every vector; ``IVF4096,PQ32`` for a million of
        them sorts vectors into 4,096 cells, keeps 32 bytes of each, and looks into a few cells only.
    probes
        Cells that are looked into, where the index has any.

    Raises
    ------
    ValueError
        For an index that faiss does not know, or that wants more vectors to learn its cells from than there are.

    Notes
    -----
    ``Flat`` is exact, so a missed tile is the encoder's fault, never the index's, and runs on the GPUs where faiss
    reports any. Others miss some: ``benchmarks/search.py --tiles`` measures how many.

    Examples
    --------
    >>> search = VectorSearch(Gallery.of_vectors(np.eye(3), [[0, 0], [100, 0], [200, 0]]))
    >>> search.search(np.eye(3)[1:2], k=1).xy
    array([[[100.,   0.]]])
    """

    def __init__(
        self, gallery: Gallery, encoder: nn.Module | None = None, index: str = "Flat", probes: Count = 16
    ) -> None:
        self.gallery, self.encoder = gallery, encoder
        self.index = _filled(index, gallery.vectors, whole_number("probes", probes))
        on_gpu = index == "Flat" and getattr(faiss, "get_num_gpus", lambda: 0)() > 0
        self._fast = faiss.index_cpu_to_all_gpus(self.index) if on_gpu else self.index

    def encode(self, images: Iterable[torch.Tensor]) -> NDArray[np.float32]:
        """Vectors `(Q, D)` of batches of SAR images `(B, C, H, W)`.

        Raises
        ------
        ValueError
            Where the search was made without an encoder.
        """
        if self.encoder is None:
            raise ValueError("this search has no encoder: give it one, or search with vectors instead of images")
        return embed(self.encoder, images, "query")

    def search(self, queries: Queries, k: int) -> Candidates:
        """The `k` tiles of highest cosine for each query; its place is the tile's centre.

        Parameters
        ----------
        queries : array or tensor (Q, D), or batches of images (B, C, H, W)
            Vectors L2-normalised to 1e-3, or images that the encoder makes them of.
        k : int
            Length of the lists, from 1 to the size of the gallery.

        Returns
        -------
        Candidates
            Best first; an index that finds less than ``k`` fills up with candidates that are not valid. The order of
            equal scores means nothing: count ties with `sarmatch.evaluation.ranks`.

        Raises
        ------
        ValueError
            If ``k`` does not fit the gallery or ``queries`` do not fit the vectors.
        """
        if not isinstance(queries, (np.ndarray, torch.Tensor)):
            queries = self.encode(queries)
        queries = unit_rows("queries", queries)
        if queries.shape[1] != self.index.d:
            raise ValueError(f"queries have dimension {queries.shape[1]}, the gallery has {self.index.d}")
        if not 1 <= whole_number("k", k) <= len(self.gallery):
            raise ValueError(f"k must be between 1 and the gallery size {len(self.gallery)}, got {k}")
        index = self._fast if k <= _GPU_LIMIT else self.index
        scores, tile = index.search(queries, k)
        gallery, valid = self.gallery, tile >= 0
        tile = np.where(valid, tile, 0)
        places = gallery.xy[tile] if gallery.has_coordinates else None
        scores = np.where(valid, scores, -np.inf).astype(np.float32)
        return Candidates(scores, places, gallery.area[tile], gallery.areas, valid, tile)


def _filled(name: str, vectors: NDArray[np.float32], probes: int) -> faiss.Index:
    """An index that holds these vectors."""
    try:
        index = faiss.index_factory(vectors.shape[1], name, faiss.METRIC_INNER_PRODUCT)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1]
        raise ValueError(
            f"index is {name!r}, expected one for {vectors.shape[1]} numbers, as 'IVF4096,PQ32': {reason}"
        ) from error
    try:
        index.train(vectors)
    except RuntimeError as error:
        raise ValueError(f"index {name!r} cannot be learned from {len(vectors):,} vectors: {error}") from error
    index.add(vectors)
    if (cells := faiss.try_extract_index_ivf(index)) is not None:
        cells.nprobe = probes
    return index
