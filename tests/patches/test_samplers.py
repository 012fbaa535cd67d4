"""What a batch is made of: no shared ground, and hard company where asked for."""

import numpy as np
import pytest

from sarmatch.patches import SAMPLERS, Drawn, arrange

SIZE = 10


def drawn(count: int = 400, extent: int = 300, areas: int = 2, seed: int = 0) -> Drawn:
    rng = np.random.default_rng(seed)
    corner = rng.integers(0, extent, (count, 2))
    place = np.concatenate(
        [corner, corner + rng.integers(-3, 4, (count, 2)), rng.integers(0, areas, (count, 1))], axis=1
    )
    angle = np.sort(rng.uniform(0, 2 * np.pi, count))
    features = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return Drawn(place, SIZE, 0.5, lambda: (features, features))


def shares_ground(place: np.ndarray, i: int, j: int) -> bool:
    if place[i, 4] != place[j, 4]:
        return False
    return any(np.abs(place[i, a : a + 2] - place[j, b : b + 2]).max() < SIZE for a in (0, 2) for b in (0, 2))


@pytest.mark.parametrize("name", [n for n in SAMPLERS if n not in ("random", "cluster")])
@pytest.mark.parametrize("seed", range(3))
def test_no_two_pairs_of_a_batch_share_ground(name, seed):
    pairs = drawn(seed=seed)
    batches = arrange(name, pairs, 24, np.random.default_rng(seed))
    assert batches.shape[1] == 24
    assert len(batches) >= 8
    assert len(np.unique(batches)) == batches.size, "a pair came twice"
    for batch in batches:
        assert not any(shares_ground(pairs.place, i, j) for i in batch for j in batch if i < j)


def pairs_that_share(place: np.ndarray, batches: np.ndarray) -> int:
    return sum(shares_ground(place, i, j) for batch in batches for i in batch for j in batch if i < j)


def test_random_batches_do_share_ground_and_clusters_more():
    """The control: the data above are crowded enough for the test to fail."""
    pairs = drawn()
    random, cluster = (arrange(name, pairs, 24, np.random.default_rng(0)) for name in ("random", "cluster"))
    assert random.shape == cluster.shape == (16, 24)
    assert len(np.unique(cluster)) == cluster.size
    assert pairs_that_share(pairs.place, cluster) > 2 * pairs_that_share(pairs.place, random) > 0


def mean_nearest(values: np.ndarray, batches: np.ndarray) -> float:
    """Distance of a pair to its nearest in the batch."""
    gaps = np.linalg.norm(values[batches][:, :, None] - values[batches][:, None], axis=3)
    return float(np.where(np.eye(batches.shape[1], dtype=bool), np.inf, gaps).min(2).mean())


def test_neighbours_are_near_in_metres_and_mined_pairs_in_features():
    pairs = drawn(2000, extent=1200, areas=1)
    rng = np.random.default_rng(0)
    batches = {name: arrange(name, pairs, 32, rng) for name in SAMPLERS if name != "random"}
    ground = {name: mean_nearest(pairs.place[:, :2], b) for name, b in batches.items()}
    looks = {name: mean_nearest(pairs.features()[0], b) for name, b in batches.items()}
    assert ground["neighbour"] < 0.7 * ground["distinct"]
    assert looks["similarity"] < 0.7 * looks["distinct"]
    assert looks["mined"] < 0.9 * looks["distinct"]


def test_the_same_chance_gives_the_same_batches():
    first, second = (arrange("mined", drawn(), 16, np.random.default_rng(3)) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_ground_that_is_too_small_is_named():
    crowded = drawn(count=100, extent=15, areas=1)
    with pytest.raises(ValueError, match="'distinct'.*no 24 places.*lower batch_size"):
        arrange("distinct", crowded, 24, np.random.default_rng(0))
    with pytest.raises(ValueError, match="'hard'.*mined"):
        arrange("hard", crowded, 24, np.random.default_rng(0))
