"""Refiners that learn: one training for all networks, on lists whose answer is known."""

import copy
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from sarmatch.atomic_io import write
from sarmatch.evaluation.calibration import fit_temperature
from sarmatch.progress import progress
from sarmatch.refinement.correlation import surfaces
from sarmatch.refinement.evidence import Evidence, Lists, reordered
from sarmatch.refinement.networks import Batch, GraphNetwork, PointNetwork, PublishedNetwork, SurfaceNetwork
from sarmatch.search import Candidates

#: Names to networks; they differ in who hears whom, and see the same.
NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "mlp_without_xy": partial(PointNetwork, coordinates=False),
    "mlp": PointNetwork,
    "deepsets": partial(PointNetwork, layers=2, pooled=True),
    "gnn_self_loops": partial(GraphNetwork, edges="none"),
    "gnn": GraphNetwork,
    "gnn_without_xy": partial(GraphNetwork, coordinates=False),
    "gnn_features": partial(GraphNetwork, edges="features"),
    "attention": partial(GraphNetwork, edges="full"),
    "gnn_random": partial(GraphNetwork, edges="random"),
    "gnn_shuffled": partial(GraphNetwork, edges="shuffled"),
    "gnn_angle": partial(GraphNetwork, edges="angle"),
    "gnn_permuted": partial(GraphNetwork, permuted=True),
    "cmpc": PublishedNetwork,
    "surface": SurfaceNetwork,
}
CHUNK = 64  # lists that are scored at once, at most
EDGES = 20_000  # heard at once, at most: messages of more do not stay in the cache, which is four times as slow


class LearnedRefiner:
    """A network over lists, trained and asked.

    Parameters
    ----------
    name
        A key of `NETWORKS`.
    resolution
        Pixels per tile of the correlation, for networks that look at it.
    options
        Passed to the network.

    Attributes
    ----------
    network : Module or None
        Made by `fit`, which knows the size of the embeddings.
    none : float
        Score of the answer "none of these", learned with the network.
    temperature : float
        What scores are divided by to become probabilities; 1 unless `fit` was given validation lists.
    """

    learns = True

    def __init__(self, name: str, resolution: int = 25, **options: Any) -> None:
        self.name, self.resolution, self.options = name, resolution, options
        self.network: nn.Module | None = None
        self.none, self.temperature = 0.0, 1.0

    def build(self, feature_dim: int) -> nn.Module:
        """An untrained network for embeddings of `feature_dim` numbers."""
        return NETWORKS[self.name](feature_dim, **self.options)

    def fit(
        self,
        lists: Lists,
        validation: Lists | None = None,
        epochs: int = 8,
        learning_rate: float = 1e-3,
        batch_size: int = 64,
        weight_decay: float = 0.05,
        seed: int = 0,
        report: Callable[[int, float, float], None] | None = None,
    ) -> "LearnedRefiner":
        """Learn from lists by listwise cross-entropy with soft targets, and where in its tile a query lies.

        The target of a candidate is the share of the query's ground it holds; what the list misses is the target of
        "none of these". The truth is not forced into lists, and the order of nodes is drawn anew for every batch.

        Parameters
        ----------
        lists
            What is learned from: of an encoder that has not trained on this ground, else they look better than test
            lists.
        validation
            Lists of other ground, by encoders that have not trained on it either: chooses the epoch by the
            same cross-entropy, and fits the temperature. Without them the last epoch stands.
        epochs, learning_rate, batch_size, weight_decay
            Of AdamW, the rate falling to zero by half a cosine.
        seed
            Of weights, order and dropout.
        report
            Called after every epoch with its number, loss, and cross-entropy of validation lists or nan.

        Returns
        -------
        Itself.

        Raises
        ------
        FloatingPointError
            Where the loss is not finite.
        """
        torch.manual_seed(seed)
        dim = lists.evidence.query.shape[1]
        self.network = self.build(dim).eval().to("cuda" if torch.cuda.is_available() else "cpu")
        count = len(lists.share)
        maps = self._surfaces(lists.candidates, lists.evidence)
        with torch.no_grad():  # "none" starts level with the candidates, wherever a network's scores begin
            some = torch.arange(count)[:CHUNK]
            level = self.network(self._batch(lists.candidates, lists.evidence, some, maps)).score.mean()
        none = nn.Parameter(level)
        optimizer = torch.optim.AdamW([*self.network.parameters(), none], learning_rate, weight_decay=weight_decay)
        steps = epochs * -(-count // batch_size)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        best, kept = float("inf"), None
        seen = None if validation is None else self._surfaces(validation.candidates, validation.evidence)
        for epoch in progress(range(epochs), desc=f"refiner {self.name}", unit="epoch"):
            self.network.train()
            total = 0.0
            for rows in torch.randperm(count).split(batch_size):
                batch = self._batch(lists.candidates, lists.evidence, rows, maps)
                truth = (torch.from_numpy(known)[rows].to(batch.score.device) for known in (lists.share, lists.shift))
                batch, share, shift = turned(*shuffled(batch, *truth))
                answer = self.network(batch, seed=int(torch.randint(2**31, ())))
                loss = listwise_loss(answer.score, none, share) + place_loss(answer.shift, shift, share)
                if not torch.isfinite(loss):
                    raise FloatingPointError(
                        f"the loss of refiner {self.name!r} is {loss.item()} in epoch {epoch + 1}; lower learning_rate"
                    )
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
                optimizer.step()
                schedule.step()
                total += loss.item() * len(rows)
            self.none = none.item()
            found = float("nan")
            if validation is not None:
                logits, _ = self._scored(validation.candidates, validation.evidence, seen)
                known = torch.from_numpy(logits), torch.tensor(self.none), torch.from_numpy(validation.share)
                found = listwise_loss(*known).item()
                if found < best:
                    best, kept = found, (copy.deepcopy(self.network.state_dict()), self.none)
            if report is not None:
                report(epoch + 1, total / count, found)
        if kept is not None:
            self.network.load_state_dict(kept[0])
            self.none = kept[1]
            logits, _ = self._scored(validation.candidates, validation.evidence, seen)
            self.temperature = fit_temperature(_with_none(logits, self.none), _with_missing(validation.share))
        self.network.eval()
        return self

    def answers(
        self, candidates: Candidates, evidence: Evidence, seed: int = 0
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """In the order of the list: scores float32 `(Q, K)`, and offsets `(Q, K, 2)` in metres where it gives any."""
        if self.network is None:
            raise ValueError(f"refiner {self.name!r} has learned nothing yet: call fit, or load one")
        evidence.check(candidates)
        return self._scored(candidates, evidence, self._surfaces(candidates, evidence), seed)

    @torch.no_grad()
    def _scored(
        self, candidates: Candidates, evidence: Evidence, maps: Tensor | None, seed: int = 0
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """What `answers` gives, from surfaces that are there already."""
        self.network.eval()
        count, k = candidates.indices.shape
        each = k * (k if getattr(self.network, "edges", None) == "full" else 9)
        rows = torch.arange(count).split(max(1, min(CHUNK, EDGES // each)))
        parts = [self.network(self._batch(candidates, evidence, r, maps), seed=seed) for r in rows]
        scores = torch.cat([part.score for part in parts]).float().cpu().numpy()
        if parts[0].shift is None:
            return scores, None
        return scores, evidence.tile_m * torch.cat([part.shift for part in parts]).double().cpu().numpy()

    def refine(self, candidates: Candidates, evidence: Evidence, seed: int = 0) -> Candidates:
        """The lists in a new order, best first, with the network's scores and places."""
        return reordered(candidates, *self.answers(candidates, evidence, seed))

    def probabilities(self, candidates: Candidates) -> tuple[np.ndarray, np.ndarray]:
        """From refined lists: `(Q, K)` of each candidate, `(Q,)` of none of them."""
        logits = _with_none(candidates.scores, self.none) / self.temperature
        share = np.exp(logits - logits.max(1, keepdims=True))
        share /= share.sum(1, keepdims=True)
        return share[:, :-1], share[:, -1]

    def save(self, path: Path) -> None:
        """Keep it as safetensors, with what is needed to make it again."""
        about = {"name": self.name, "resolution": self.resolution, "options": self.options}
        about |= {"none": self.none, "temperature": self.temperature}
        state = {k: v.contiguous() for k, v in self.network.state_dict().items()}
        write(path, lambda p: save_file(state, p, {"refiner": json.dumps(about)}))

    @classmethod
    def load(cls, path: Path) -> "LearnedRefiner":
        """A refiner that `save` has kept."""
        with safe_open(path, "pt") as file:
            about = json.loads(file.metadata()["refiner"])
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        refiner = cls(about["name"], about["resolution"], **about["options"])
        refiner.none, refiner.temperature = about["none"], about["temperature"]
        dim = state["leave.weight"].shape[0] if refiner.name == "cmpc" else 0
        dim = state["inputs.product.weight"].shape[1] if "inputs.product.weight" in state else dim
        refiner.network = refiner.build(dim).eval()
        refiner.network.load_state_dict(state)
        return refiner

    def _surfaces(self, candidates: Candidates, evidence: Evidence) -> Tensor | None:
        if not getattr(NETWORKS[self.name], "needs_surface", False):
            return None
        parts = list(surfaces(candidates, evidence, self.resolution))
        return torch.cat(parts)

    def _batch(self, candidates: Candidates, evidence: Evidence, rows: Tensor, maps: Tensor | None) -> Batch:
        """Lists of these rows, where the network is."""
        at, (query, reference) = rows.numpy(), evidence.whitened
        device = next(self.network.parameters()).device
        listed = candidates.indices[at]
        arrays = candidates.scores[at], query[at], reference[listed], candidates.positions[listed]
        score, query, reference, xy = (torch.from_numpy(array).to(device) for array in arrays)
        return Batch(score, query, reference, xy, evidence.tile_m, None if maps is None else maps[rows].to(device))


def listwise_loss(logits: Tensor, none: Tensor, share: Tensor) -> Tensor:
    """Cross-entropy of lists `(Q, K)` and of "none of these" against shares of ground `(Q, K)`.

    `-mean sum_k t_k log p_k` with `p` the softmax over the candidates and `none`, `t_k` the share of the query's ground
    that candidate k holds, and for `none` the share that no candidate holds.
    """
    log_p = _with_none(logits, none).log_softmax(1)
    return -(_with_missing(share) * log_p).sum(1).mean()


def place_loss(shift: Tensor | None, true: Tensor, share: Tensor) -> Tensor:
    """Mean absolute error of places in tile widths, of candidates that hold ground of the query, weighted by how much.

    Parameters
    ----------
    shift, true
        Where the query lies as seen from each candidate `(Q, K, 2)`; a place further than half a tile counts as half,
        which is all an answer can say. None costs nothing.
    share
        `(Q, K)`.
    """
    if shift is None:
        return share.new_zeros(())
    error = (shift - true.clamp(-0.5, 0.5)).abs().sum(-1)
    return (share * error).sum() / share.sum().clamp(min=1e-6)


def shuffled(batch: Batch, *known: Tensor) -> tuple[Batch, *tuple[Tensor, ...]]:
    """The same lists with their nodes in another order, and with them what is known of each `(Q, K, ...)`."""
    order = torch.rand(batch.score.shape, device=batch.score.device).argsort(1)

    def deal(values: Tensor | None) -> Tensor | None:
        if values is None:
            return None
        index = order.view(*order.shape, *[1] * (values.ndim - 2)).expand_as(values)
        return values.gather(1, index)

    fields = {name: deal(getattr(batch, name)) for name in ("score", "reference", "xy", "surface")}
    return batch._replace(**fields), *(deal(values) for values in known)


def turned(batch: Batch, share: Tensor, shift: Tensor) -> tuple[Batch, Tensor, Tensor]:
    """The same lists on a map that is turned by quarters and mirrored at random, each by itself."""
    count = len(share)
    sign = torch.randint(0, 2, (count, 1, 2), device=share.device) * 2 - 1
    swap = (torch.rand(count, 1, 1, device=share.device) < 0.5).expand(-1, share.shape[1], 2)

    def turn(values: Tensor) -> Tensor:
        return sign.to(values.dtype) * torch.where(swap, values.flip(-1), values)

    middle = batch.xy.mean(1, keepdim=True)
    return batch._replace(xy=turn(batch.xy - middle)), share, turn(shift)


def _with_none(logits, none):
    """Lists `(Q, K)` with the score of "none of these" behind them `(Q, K + 1)`."""
    if isinstance(logits, Tensor):
        return torch.cat([logits, torch.as_tensor(none).expand(len(logits), 1)], 1)
    return np.concatenate([logits, np.full((len(logits), 1), none, logits.dtype)], 1)


def _with_missing(share):
    """Shares `(Q, K)` with what the list misses behind them `(Q, K + 1)`."""
    rest = 1 - share.sum(1, keepdims=True)
    if isinstance(share, Tensor):
        return torch.cat([share, rest.clamp(min=0)], 1)
    return np.concatenate([share, np.clip(rest, 0, None)], 1)
