"""Which pairs of an epoch meet in one batch.

A batch is where a pair finds its negatives. Drawn at random they are mostly easy; drawn from nearby places or from
what looks alike they are hard. In all but `random`, `cluster` and `mined_overlapping`, no two pairs of a batch
overlap, so that none is a false negative.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch

from sarmatch.progress import progress
from sarmatch.registry import Registry

NEIGHBOUR_EPOCHS = 4  # of `neighbour_similarity`


class EpochPairs(NamedTuple):
    """The pairs of an epoch, as a sampler sees them."""

    place: np.ndarray  # int (N, 5): corner of the query, corner of the reference, number of the area; pixels
    size: int  # side of a patch in pixels
    pixel_size: float  # metres; 1 where there are none
    features: Callable[[], tuple[np.ndarray, np.ndarray]]  # embeddings of queries and references (N, D), made on demand
    epoch: int = 0  # a sampler begins it with these pairs


Nearness = Callable[[int], np.ndarray]  # from one pair to all `(N,)`; small is near

#: `(pairs, batch_size, rng) -> int (M, batch_size)`: pair numbers, every pair once at most.
SAMPLERS: Registry[Callable[[EpochPairs, int, np.random.Generator], np.ndarray]] = Registry("sampler")
register_sampler = SAMPLERS.register


def list_samplers() -> list[str]:
    """Names that `create_sampler` knows, sorted."""
    return sorted(SAMPLERS)


def create_sampler(name: str, batch_size: int, seed: int = 0) -> "BatchSampler":
    """A batch sampler by name: one of `list_samplers()`; see `BatchSampler`."""
    return BatchSampler(name, batch_size, seed)


class BatchSampler(torch.utils.data.Sampler[list[int]]):
    """Batches of pair numbers, as a `DataLoader` takes them for its `batch_sampler`.

    Seed and number of an epoch fix its batches, so these are all its state.

    Parameters
    ----------
    name
        One of `list_samplers()`.
    batch_size
        Pairs in a batch.
    seed
        Of all epochs.

    Raises
    ------
    ValueError
        For an unknown name.
    """

    drop_last = True  # every batch is whole; with `batch_size` it tells accelerate how to divide them

    def __init__(self, name: str, batch_size: int, seed: int = 0) -> None:
        self.name, self.batch_size, self.seed = name, batch_size, seed
        self.epoch = 0
        self._arrange = SAMPLERS[name]
        self._batches = np.empty((0, batch_size), int)

    def start(self, epoch: int, pairs: EpochPairs) -> None:
        """Arrange the pairs of an epoch. Not called `set_epoch`, which accelerate would call by a count of its own.

        Pairs are left over where the area is too small for another whole batch.

        Raises
        ------
        ValueError
            Where not even one batch can be filled.
        """
        self.epoch = epoch
        self._batches = self._arrange(
            pairs._replace(epoch=epoch), self.batch_size, np.random.default_rng([self.seed, epoch, 1])
        )
        if not len(self._batches):
            raise ValueError(
                f"sampler {self.name!r}: {len(pairs.place)} training pairs have no {self.batch_size} that may stand in "
                "one batch; lower batch_size or take sampler 'random', whose neighbours are masked in the loss"
            )

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self._batches.tolist())

    def __len__(self) -> int:
        return len(self._batches)

    def state_dict(self) -> dict[str, Any]:
        """What has to be kept to go on: `name`, `batch_size`, `seed` and the epoch that was started last."""
        return {"name": self.name, "batch_size": self.batch_size, "seed": self.seed, "epoch": self.epoch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`; the next epoch is started as any other.

        Raises
        ------
        ValueError
            Where the state is of a sampler with another name or size of batches.
        """
        for field in ("name", "batch_size"):
            if state[field] != getattr(self, field):
                raise ValueError(f"sampler {field} is {getattr(self, field)!r}, its state has {state[field]!r}")
        self.seed, self.epoch = state["seed"], state["epoch"]


@register_sampler("random")
def random(pairs: EpochPairs, batch_size: int, rng: np.random.Generator) -> np.ndarray:
    """In the order in which they were drawn, which is random; pairs of a batch may overlap."""
    whole = len(pairs.place) // batch_size * batch_size
    return np.arange(whole).reshape(-1, batch_size)


@register_sampler("distinct")
def distinct(pairs: EpochPairs, batch_size: int, rng: np.random.Generator) -> np.ndarray:
    """No two pairs of a batch overlap."""
    return filled(pairs, batch_size, rng)


@register_sampler("neighbour")
def neighbour(pairs: EpochPairs, batch_size: int, rng: np.random.Generator) -> np.ndarray:
    """From the same quarter, by metres: the nearest of a seed and some that are next, as Sample4Geo."""
    return _near_and_next(pairs, batch_size, rng, _in_metres(pairs))


@register_sampler("cluster")
def cluster(pairs: EpochPairs, batch_size: int, rng: np.random.Generator) -> np.ndarray:
    """Eight at a time from one place, which overlap: lists for a refiner."""
    return filled(pairs, batch_size, rng, group=8, pool=16, nearness=_in_metres(pairs), may_overlap=True)


@register_sampler("similarity")
def similarity(pairs: EpochPairs, batch_size: int, rng: np.random.Generator) -> np.ndarray:
    """What looks alike: the nearest of a seed and some that are next, as Sample4Geo."""
    return _near_and_next(pairs, batch_size, rng, _in_features(pairs))


@register_sampler("neighbour_similarity")
def neighbour_similarity(pairs: EpochPairs, batch_size: int, rng: np.random.Generator) -> np.ndarray:
    """From neighbours in the first four epochs, afterwards from what looks alike: the order of Sample4Geo.

    What an untrained encoder finds alike says little; neighbours are hard negatives from the beginning.
    """
    arrange = neighbour if pairs.epoch < NEIGHBOUR_EPOCHS else similarity
    return arrange(pairs, batch_size, rng)


@register_sampler("mined")
def mined(pairs: EpochPairs, batch_size: int, rng: np.random.Generator) -> np.ndarray:
    """Half at random, and for each a hard one of its 100 nearest, as VIGOR; in the first epoch all at random."""
    if pairs.epoch == 0:  # what an untrained encoder finds alike says little
        return distinct(pairs, batch_size, rng)
    return filled(pairs, batch_size, rng, group=2, pool=100, nearness=_in_features(pairs))


@register_sampler("mined_overlapping")
def mined_overlapping(pairs: EpochPairs, batch_size: int, rng: np.random.Generator) -> np.ndarray:
    """Two thirds as in `mined`, and beside every second of them the pair nearest to it: a semi-positive, as VIGOR.

    It overlaps where pairs lie dense, which the loss has to know.
    """
    hard, near, count = 2 * batch_size // 3, _in_metres(pairs), len(pairs.place)
    batches = mined(pairs, hard, rng)[: count // batch_size]
    left = np.setdiff1d(np.arange(count), batches)
    joined = []
    for batch in batches:
        for seed in batch[: batch_size - hard]:
            nearest = left[np.argmin(near(seed)[left])]
            left, batch = left[left != nearest], np.append(batch, nearest)
        joined.append(batch)
    return np.array(joined, int).reshape(-1, batch_size)


def _near_and_next(pairs: EpochPairs, batch_size: int, rng: np.random.Generator, nearness: Nearness) -> np.ndarray:
    """Of a batch of 128, 32 nearest to each seed and 32 of the next 96; of others so many parts of it."""
    near = max(1, batch_size // 4)
    return filled(pairs, batch_size, rng, group=1 + 2 * near, pool=4 * near, nearness=nearness, always=near)


def _in_metres(pairs: EpochPairs) -> Nearness:
    corner, area = pairs.place[:, :2] * pairs.pixel_size, pairs.place[:, 4]
    return lambda i: np.where(area == area[i], np.hypot(*(corner - corner[i]).T), np.inf)


def _in_features(pairs: EpochPairs) -> Nearness:
    query, reference = pairs.features()
    return lambda i: -(reference @ query[i])


def filled(
    pairs: EpochPairs,
    batch_size: int,
    rng: np.random.Generator,
    group: int = 1,
    pool: int = 0,
    nearness: Nearness | None = None,
    may_overlap: bool = False,
    always: int = 0,
) -> np.ndarray:
    """Fill batches one by one: seeds at random, and with each seed some pairs from a pool of its nearest.

    Parameters
    ----------
    pairs, batch_size, rng
        The pairs, how many make a batch, and chance.
    group
        Pairs per seed, the seed included.
    pool
        Of how many nearest the others of a group are drawn.
    nearness
        By which the nearest are found; none for seeds alone.
    may_overlap
        Whether pairs of a batch may overlap.
    always
        How many of the nearest come first, in their order, before others are drawn from the pool.

    Returns
    -------
    `(M, batch_size)` of pair numbers, as many batches as can be filled.
    """
    free = np.ones(len(pairs.place), bool)
    batches = []
    bar = progress(total=len(free) // batch_size, desc="batches", unit="batch")
    while free.sum() >= batch_size:
        batch = _fill(pairs, free, batch_size, rng, group, pool, nearness, may_overlap, always)
        if batch is None:
            break
        free[batch] = False
        batches.append(batch)
        bar.update()
    bar.close()
    return np.array(batches, int).reshape(-1, batch_size)


def _fill(
    pairs: EpochPairs,
    free: np.ndarray,
    batch_size: int,
    rng: np.random.Generator,
    group: int,
    pool: int,
    nearness: Nearness | None,
    may_overlap: bool,
    always: int,
) -> np.ndarray | None:
    """One batch of free pairs, or none where they do not suffice."""
    allowed = free.copy()
    batch: list[int] = []
    while len(batch) < batch_size:
        candidates = np.flatnonzero(allowed)
        if not len(candidates):
            return None
        seed = int(rng.choice(candidates))
        _take(seed, batch, allowed, pairs, may_overlap)
        if nearness is None:
            continue
        others = np.flatnonzero(allowed)
        distance = nearness(seed)
        near = others[np.argsort(distance[others], kind="stable")[:pool]]
        left = min(group - 1, batch_size - len(batch))
        near = near[np.isfinite(distance[near])]
        for other in (*near[:always], *rng.permutation(near[always:])):
            if left and allowed[other]:
                _take(int(other), batch, allowed, pairs, may_overlap)
                left -= 1
    return np.array(batch)


def _take(pair: int, batch: list[int], allowed: np.ndarray, pairs: EpochPairs, may_overlap: bool) -> None:
    """Put a pair into the batch; itself, and what may not overlap it, is no longer allowed."""
    batch.append(pair)
    allowed[pair] = False
    if may_overlap:
        return
    corners, area = pairs.place[:, :4].reshape(-1, 2, 2), pairs.place[:, 4]
    apart = np.abs(corners[:, :, None] - corners[pair][None, None]).max(-1) >= pairs.size  # (N, 2, 2)
    allowed &= (area != area[pair]) | apart.all((1, 2))
