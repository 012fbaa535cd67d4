"""Exact search for the references nearest to a query."""

import os
from dataclasses import dataclass

import numpy as np
import torch  # before faiss, so that both share one OpenMP runtime

import faiss  # isort: skip

# A forked worker inherits the runtime's bookkeeping but not its threads: asking for a second one waits forever.
if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(after_in_child=lambda: faiss.omp_set_num_threads(1))

_GPU_LIMIT = 2048  # the longest list that faiss selects on a GPU


@dataclass(frozen=True, eq=False)
class Candidates:
    """The best references of each query, best first: what a search gives, and a refiner takes and gives back.

    Attributes
    ----------
    indices : int64 (Q, K)
        Rows of the gallery.
    scores : float32 (Q, K)
        Higher is better; cosines after a search, whatever the refiner says after a refinement.
    positions : float64 (N, 2) or None
        Metres, x east and y north, of *all* references of the gallery (not only the candidates).
    offsets : float64 (Q, K, 2) or None
        Metres from a candidate's centre to where in it the query lies; of refiners that say so.

    Raises
    ------
    ValueError
        If a shape or dtype differs from the above, or an index lies outside the gallery.
    """

    indices: np.ndarray
    scores: np.ndarray
    positions: np.ndarray | None = None
    offsets: np.ndarray | None = None

    def __post_init__(self) -> None:
        _expect("indices", self.indices, np.int64, "(Q, K)")
        _expect("scores", self.scores, np.float32, "(Q, K)")
        if self.indices.shape != self.scores.shape:
            raise ValueError(f"indices {self.indices.shape} and scores {self.scores.shape} differ in shape")
        if self.indices.size and self.indices.min() < 0:
            raise ValueError(f"indices must be >= 0, got {self.indices.min()}")
        if self.offsets is not None and self.offsets.shape != (*self.indices.shape, 2):
            raise ValueError(f"offsets must be {(*self.indices.shape, 2)}, got {self.offsets.shape}")
        if self.positions is None:
            return
        _expect("positions", self.positions, np.float64, "(N, 2)")
        if self.positions.shape[1] != 2:
            raise ValueError(f"positions must be (N, 2), got {self.positions.shape}")
        if self.indices.size and self.indices.max() >= len(self.positions):
            raise ValueError(f"index {self.indices.max()} lies outside a gallery of {len(self.positions)}")

    @property
    def xy(self) -> np.ndarray:
        """Position of every candidate, float64 (Q, K, 2), metres; a ValueError where there are none."""
        if self.positions is None:
            raise ValueError("this set has no coordinates: its candidates have no positions in metres")
        return self.positions[self.indices]

    @property
    def places(self) -> np.ndarray:
        """Where each candidate says the query is centred, float64 (Q, K, 2), metres: its own centre, or better."""
        return self.xy if self.offsets is None else self.xy + self.offsets


class MapIndex:
    """All references of a map, searched exhaustively by cosine.

    Parameters
    ----------
    embeddings : array or tensor (N, D)
        L2-normalised to 1e-3; kept as float32.
    positions : array (N, 2), optional
        Metres, x east and y north, one row per embedding. Leave out where the set has no coordinates.

    Raises
    ------
    ValueError
        On an empty gallery, a wrong shape, a value that is not finite, or a row that is not L2-normalised.

    Notes
    -----
    ``faiss.IndexFlatIP``: exact, so a missed reference is the encoder's fault, never the index's. The
    search runs on the GPUs where faiss reports any.

    Examples
    --------
    >>> index = MapIndex(np.eye(3), positions=[[0, 0], [100, 0], [200, 0]])
    >>> index.search(np.eye(3)[1:2], k=1).xy
    array([[[100.,   0.]]])
    """

    def __init__(self, embeddings: np.ndarray | torch.Tensor, positions: np.ndarray | None = None) -> None:
        embeddings = _unit_rows("embeddings", embeddings)
        if len(embeddings) == 0:
            raise ValueError("the gallery is empty: embeddings has 0 rows")
        self.positions = None if positions is None else _positions(positions, len(embeddings))
        self._flat = faiss.IndexFlatIP(embeddings.shape[1])
        self._flat.add(embeddings)
        on_gpu = getattr(faiss, "get_num_gpus", lambda: 0)() > 0
        self._fast = faiss.index_cpu_to_all_gpus(self._flat) if on_gpu else self._flat

    def __len__(self) -> int:
        return self._flat.ntotal

    def search(self, queries: np.ndarray | torch.Tensor, k: int) -> Candidates:
        """The ``k`` references of highest cosine for each query.

        Parameters
        ----------
        queries : array or tensor (Q, D)
            L2-normalised to 1e-3.
        k : int
            Length of the lists, from 1 to the size of the gallery.

        Returns
        -------
        Candidates
            Best first. The order of equal scores means nothing: count ties with
            `sarmatch.evaluation.ranks`.

        Raises
        ------
        ValueError
            If ``k`` does not fit the gallery or ``queries`` do not fit the embeddings.
        """
        queries = _unit_rows("queries", queries)
        if queries.shape[1] != self._flat.d:
            raise ValueError(f"queries have dimension {queries.shape[1]}, the gallery has {self._flat.d}")
        if not 1 <= k <= len(self):
            raise ValueError(f"k must be between 1 and the gallery size {len(self)}, got {k}")
        index = self._fast if k <= _GPU_LIMIT else self._flat
        scores, indices = index.search(queries, k)
        return Candidates(indices, scores, self.positions)


def _expect(name: str, value: object, dtype: type, shape: str) -> None:
    """Refuse anything but a 2-D array of this dtype."""
    if not isinstance(value, np.ndarray) or value.ndim != 2 or value.dtype != dtype:
        got = f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__
        raise ValueError(f"{name} must be a {np.dtype(dtype)} array {shape}, got {got}")


def _unit_rows(name: str, value: np.ndarray | torch.Tensor) -> np.ndarray:
    """As a contiguous float32 matrix of finite, L2-normalised rows."""
    if isinstance(value, torch.Tensor):
        value = value.detach().float().cpu().numpy()
    value = np.ascontiguousarray(value, dtype=np.float32)
    if value.ndim != 2:
        raise ValueError(f"{name} must be a matrix of one row per patch, got shape {value.shape}")
    norms = np.linalg.norm(value, axis=1)
    if not np.isfinite(norms).all():
        raise ValueError(f"{name} must be finite, row {np.flatnonzero(~np.isfinite(norms))[0]} is not")
    if len(norms) and np.abs(norms - 1).max() > 1e-3:
        row = np.abs(norms - 1).argmax()
        raise ValueError(f"{name} must be L2-normalised to 1e-3, row {row} has norm {norms[row]:.6g}")
    return value


def _positions(value: np.ndarray, count: int) -> np.ndarray:
    """As float64 (N, 2), finite."""
    value = np.asarray(value, dtype=np.float64)
    if value.shape != (count, 2):
        raise ValueError(f"positions must be ({count}, 2), one row per embedding, got {value.shape}")
    if not np.isfinite(value).all():
        raise ValueError(f"positions must be finite, row {np.flatnonzero(~np.isfinite(value).all(axis=1))[0]} is not")
    return value
