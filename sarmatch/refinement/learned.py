"""Refiners that learn: one training for all networks, on labelled candidate lists."""

import copy
import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from sarmatch.atomic_io import write
from sarmatch.checks import Count, build, checked_options
from sarmatch.evaluation.calibration import fit_temperature
from sarmatch.progress import progress
from sarmatch.refinement.context import RefinementContext, checked_requirements
from sarmatch.refinement.correlation import surfaces
from sarmatch.refinement.inputs import ListBatch, concatenated, network_inputs, rows_of, to_device
from sarmatch.refinement.labelled import LabelledLists
from sarmatch.refinement.networks import GraphNetwork, PointNetwork, PublishedNetwork, RefinerOutput, SurfaceNetwork
from sarmatch.refinement.refiners import REFINERS, Scored
from sarmatch.registry import Registry
from sarmatch.search import Candidates

CHUNK = 64  # lists that are scored at once, at most
MESSAGES = 20_000  # passed at once, at most: more do not stay in the cache, which is four times as slow


class Network(NamedTuple):
    """A network over lists: how it is built `(feature_dim, **options)`, and what it requires of a context."""

    build: Callable[..., nn.Module]
    requires: tuple[str, ...]


#: Networks by name; they differ in who passes messages to whom, and see the same.
NETWORKS: Registry[Network] = Registry("network")


def register_network(
    name: str, requires: Sequence[str] = ("tiles", "vectors", "metres")
) -> Callable[[Callable[..., nn.Module]], Callable[..., nn.Module]]:
    """Decorator that makes a learned refiner of a network over lists.

    Parameters
    ----------
    name
        Under which `create_refiner` finds it.
    requires
        What it needs of a context; with `pixels` it is given surfaces of correlation.
    """

    def keep(build: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
        NETWORKS.register(name, build)(Network(build, checked_requirements(requires)))
        REFINERS.register(name, build)(partial(LearnedRefiner, name))
        return build

    return keep


class LearnedRefiner:
    """A network over lists, trained and used.

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
        Score of the class "none of these", learned with the network.
    temperature : float
        What scores are divided by to become probabilities; 1 unless `fit` was given validation lists.
    """

    learns = True

    def __init__(self, name: str, resolution: Count = 25, **options: Any) -> None:
        self.name, self.resolution = name, resolution
        self.options = checked_options(f"refiner {name!r}", NETWORKS[name].build, options)
        self.network: Any = None  # a module as soon as it has learned
        self.none, self.temperature = 0.0, 1.0

    @property
    def requires(self) -> tuple[str, ...]:
        """What it needs of a context."""
        return NETWORKS[self.name].requires

    def build(self, feature_dim: int) -> nn.Module:
        """An untrained network for embeddings of `feature_dim` numbers."""
        self.feature_dim = feature_dim
        return build(f"refiner {self.name!r}", NETWORKS[self.name].build, feature_dim, **self.options)

    def fit(
        self,
        lists: Sequence[LabelledLists],
        validation: Sequence[LabelledLists] = (),
        epochs: int = 8,
        learning_rate: float = 1e-3,
        batch_size: int = 64,
        weight_decay: float = 0.05,
        seed: int = 0,
        report: Callable[[int, float, float], None] | None = None,
    ) -> "LearnedRefiner":
        """Learn from lists by listwise cross-entropy with soft targets, and where in its tile a query lies.

        The target of a candidate is its overlap with the query; what the list misses is the target of "none of these".
        The truth is not forced into lists, and the order of nodes is drawn anew for every batch. The caller's random
        state is left as it was.

        Parameters
        ----------
        lists
            What is learned from, one part a gallery: of encoders that have not trained on these areas, else they look
            better than test lists.
        validation
            Lists of other areas, by encoders that have not trained on them either: chooses the epoch by the same
            cross-entropy, and fits the temperature. Without them the last epoch stands.
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
        devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
        with torch.random.fork_rng(devices):
            torch.manual_seed(seed)
            learned, known = self._labelled(lists), self._labelled(validation) if validation else None
            self.network = self.build(learned.inputs.query.shape[1]).eval()
            self.network.to("cuda" if torch.cuda.is_available() else "cpu")
            self._learn(learned, known, epochs, learning_rate, batch_size, weight_decay, report)
        self.network.eval()
        return self

    def _learn(
        self,
        learned: "_Labelled",
        known: "_Labelled | None",
        epochs: int,
        learning_rate: float,
        batch_size: int,
        weight_decay: float,
        report: Callable[[int, float, float], None] | None,
    ) -> None:
        """Train the network that is there, and keep the epoch that fits the known lists best."""
        count = len(learned.overlap)
        none = nn.Parameter(self._level(learned.inputs))
        optimizer = torch.optim.AdamW([*self.network.parameters(), none], learning_rate, weight_decay=weight_decay)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * -(-count // batch_size))
        best, kept = float("inf"), None
        for epoch in progress(range(epochs), desc=f"refiner {self.name}", unit="epoch"):
            self.network.train()
            total = 0.0
            for rows in torch.randperm(count).split(batch_size):
                loss = self._loss(learned, rows, none)
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
            found = float("nan") if known is None else self._cross_entropy(known)
            if found < best:
                best, kept = found, (copy.deepcopy(self.network.state_dict()), self.none)
            if report is not None:
                report(epoch + 1, total / count, found)
        if kept is not None:
            self.network.load_state_dict(kept[0])
            self.none = kept[1]
            logits = _with_none(self._scored(known.inputs)[0], self.none)
            self.temperature = fit_temperature(logits, _with_missing(known.overlap.numpy()))

    @torch.no_grad()
    def _level(self, inputs: ListBatch) -> Tensor:
        """Where an untrained network's scores lie: "none" starts level with the candidates."""
        return self.network(
            to_device(rows_of(inputs, torch.arange(len(inputs.score))[:CHUNK]), self._device)
        ).score.mean()

    def _loss(self, learned: "_Labelled", rows: Tensor, none: Tensor) -> Tensor:
        """Of some lists, their nodes in another order and their map turned at random."""
        batch = to_device(rows_of(learned.inputs, rows), self._device)
        truth = (known[rows].to(self._device) for known in (learned.overlap, learned.shift))
        batch, (fraction, shift) = shuffled(batch, *truth)
        batch, fraction, shift = turned(batch, fraction, shift)
        output = self.network(batch, seed=int(torch.randint(2**31, ())))
        return refiner_loss(output, none, fraction, shift)

    def _cross_entropy(self, known: "_Labelled") -> float:
        logits = torch.from_numpy(self._scored(known.inputs)[0])
        return listwise_loss(logits, torch.tensor(self.none), known.overlap).item()

    def answers(self, candidates: Candidates, context: RefinementContext, seed: int = 0) -> Scored:
        """In the order of the list: scores float32 `(Q, K)`, and places `(Q, K, 2)` in metres where it gives any."""
        if self.network is None:
            raise ValueError(f"refiner {self.name!r} has learned nothing yet: call fit, or load one")
        scores, shift = self._scored(self._inputs(candidates, context), seed)
        return scores, None if shift is None else candidates.xy + context.tile_m * shift

    @torch.no_grad()
    def _scored(self, inputs: ListBatch, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.float64] | None]:
        """Scores `(Q, K)` and shifts `(Q, K, 2)` in tile widths, some lists at a time."""
        self.network.eval()
        count, k = inputs.score.shape
        each = k * (k if getattr(self.network, "edges", None) == "full" else 9)
        rows = torch.arange(count).split(max(1, min(CHUNK, MESSAGES // each)))
        parts = [self.network(to_device(rows_of(inputs, r), self._device), seed=seed) for r in rows]
        scores = torch.cat([part.score for part in parts]).float().cpu().numpy()
        if parts[0].shift is None:
            return scores, None
        return scores, torch.cat([part.shift for part in parts]).double().cpu().numpy()

    def refine(self, candidates: Candidates, context: RefinementContext, seed: int = 0) -> Candidates:
        """The lists in a new order, best first, with the network's scores, places and log probabilities."""
        scores, places = self.answers(candidates, context, seed)
        logits = _with_none(scores, self.none) / self.temperature
        return candidates.reorder(scores, places, torch.from_numpy(logits).log_softmax(1).numpy())

    def probabilities(self, candidates: Candidates) -> tuple[NDArray, NDArray]:
        """From refined lists: `(Q, K)` of each candidate, `(Q,)` of none of them."""
        if candidates.log_prob is None:
            raise ValueError("these lists have no log probabilities: they were not refined by a refiner that learns")
        chance = np.exp(candidates.log_prob)
        return chance[:, :-1], chance[:, -1]

    def save(self, path: Path) -> None:
        """Keep it as safetensors, with what is needed to make it again."""
        about = {"name": self.name, "resolution": self.resolution, "options": self.options}
        about |= {"feature_dim": self.feature_dim, "none": self.none, "temperature": self.temperature}
        state = {k: v.contiguous() for k, v in self.network.state_dict().items()}
        write(path, lambda p: save_file(state, p, {"refiner": json.dumps(about)}))

    @classmethod
    def load(cls, path: Path) -> "LearnedRefiner":
        """A refiner that `save` has kept.

        Raises
        ------
        ValueError
            Where the file does not say what is needed to make it again; names what is missing.
        """
        with safe_open(path, "pt") as file:
            about = json.loads((file.metadata() or {}).get("refiner", "{}"))
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        missing = {"name", "resolution", "options", "feature_dim", "none", "temperature"} - set(about)
        if missing:
            raise ValueError(f"{path}: no refiner of this version, its header lacks {sorted(missing)}; train it anew")
        refiner = cls(about["name"], about["resolution"], **about["options"])
        refiner.none, refiner.temperature = about["none"], about["temperature"]
        refiner.network = refiner.build(about["feature_dim"]).eval()
        refiner.network.load_state_dict(state)
        return refiner

    @property
    def _device(self) -> torch.device:
        return next(self.network.parameters()).device

    def _inputs(self, candidates: Candidates, context: RefinementContext) -> ListBatch:
        """What the network sees, with surfaces where it requires pixels."""
        context.check(candidates, self.requires, self.name)
        if "pixels" not in self.requires:
            return network_inputs(candidates, context)
        parts = [surface for surface, _ in surfaces(candidates, context, self.resolution)]
        return network_inputs(candidates, context, torch.cat(parts))

    def _labelled(self, parts: Sequence[LabelledLists]) -> "_Labelled":
        """Lists of all galleries as inputs and targets."""
        inputs = concatenated([self._inputs(part.candidates, part.context) for part in parts])
        targets = (torch.from_numpy(np.concatenate([getattr(p, n) for p in parts])) for n in ("overlap", "shift"))
        return _Labelled(inputs, *targets)


class _Labelled(NamedTuple):
    """Inputs of a network with what is true of each candidate, see `LabelledLists`."""

    inputs: ListBatch
    overlap: Tensor
    shift: Tensor


def refiner_loss(output: RefinerOutput, none: Tensor, fraction: Tensor, shift: Tensor) -> Tensor:
    """`listwise_loss` of a network's scores, and of its votes where it gives any, and `place_loss` of its places."""
    logits = [output.score] if output.vote is None else [output.score, output.vote]
    return sum((listwise_loss(given, none, fraction) for given in logits), place_loss(output.shift, shift, fraction))


def listwise_loss(logits: Tensor, none: Tensor, fraction: Tensor) -> Tensor:
    """Cross-entropy of lists `(Q, K)` and of "none of these" against overlaps `(Q, K)`.

    `-mean sum_k t_k log p_k` with `p` the softmax over the candidates and `none`, `t_k` the fraction of the query
    that candidate k holds, and for `none` the fraction that no candidate holds.
    """
    log_p = _with_none(logits, none).log_softmax(1)
    return -(_with_missing(fraction) * log_p).sum(1).mean()


def place_loss(shift: Tensor | None, true: Tensor, fraction: Tensor) -> Tensor:
    """Mean absolute error of places in tile widths, of candidates that overlap the query, weighted by how much.

    Parameters
    ----------
    shift, true
        Where the query lies as seen from each candidate `(Q, K, 2)`; a place further than half a tile counts as half,
        which is all a prediction can say. None costs nothing.
    fraction
        `(Q, K)`.
    """
    if shift is None:
        return fraction.new_zeros(())
    error = (shift - true.clamp(-0.5, 0.5)).abs().sum(-1)
    return (fraction * error).sum() / fraction.sum().clamp(min=1e-6)


def shuffled(batch: ListBatch, *known: Tensor) -> tuple[ListBatch, list[Tensor]]:
    """The same lists with their nodes in another order, and with them what is known of each `(Q, K, ...)`."""
    order = torch.rand(batch.score.shape, device=batch.score.device).argsort(1)

    def deal(values: Tensor) -> Tensor:
        index = order.view(*order.shape, *[1] * (values.ndim - 2)).expand_as(values)
        return values.gather(1, index)

    names = ("score", "reference", "xy", "area", *([] if batch.surface is None else ["surface"]))
    fields = {name: deal(getattr(batch, name)) for name in names}
    return batch._replace(**fields), [deal(values) for values in known]


def turned(batch: ListBatch, fraction: Tensor, shift: Tensor) -> tuple[ListBatch, Tensor, Tensor]:
    """The same lists on a map that is turned by quarters and mirrored at random, each by itself."""
    count = len(fraction)
    sign = torch.randint(0, 2, (count, 1, 2), device=fraction.device) * 2 - 1
    swap = (torch.rand(count, 1, 1, device=fraction.device) < 0.5).expand(-1, fraction.shape[1], 2)

    def turn(values: Tensor) -> Tensor:
        return sign.to(values.dtype) * torch.where(swap, values.flip(-1), values)

    middle = batch.xy.mean(1, keepdim=True)
    return batch._replace(xy=turn(batch.xy - middle)), fraction, turn(shift)


def _with_none(logits, none):
    """Lists `(Q, K)` with the score of "none of these" behind them `(Q, K + 1)`."""
    if isinstance(logits, Tensor):
        return torch.cat([logits, torch.as_tensor(none).expand(len(logits), 1)], 1)
    return np.concatenate([logits, np.full((len(logits), 1), none, logits.dtype)], 1)


def _with_missing(fraction):
    """Overlaps `(Q, K)` with what the list misses behind them `(Q, K + 1)`."""
    rest = 1 - fraction.sum(1, keepdims=True)
    if isinstance(fraction, Tensor):
        return torch.cat([fraction, rest.clamp(min=0)], 1)
    return np.concatenate([fraction, np.clip(rest, 0, None)], 1)


for _name, _build in {
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
    "cmpc_metres": partial(PublishedNetwork, edges="metres"),
    "cmpc_shortcut": partial(PublishedNetwork, edges="metres", shortcut=True),
}.items():
    register_network(_name)(_build)
register_network("surface", ("tiles", "vectors", "metres", "pixels"))(SurfaceNetwork)
