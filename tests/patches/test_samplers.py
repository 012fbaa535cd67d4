"""What a batch is made of: no shared ground, and hard negatives where asked for."""

import numpy as np
import pytest
import torch
from accelerate.data_loader import BatchSamplerShard

from sarmatch.patches import EpochPairs, create_sampler, list_samplers, register_sampler
from sarmatch.patches.samplers import SAMPLERS

SIZE = 10


def epoch_pairs(count: int = 400, extent: int = 300, areas: int = 2, seed: int = 0) -> EpochPairs:
    rng = np.random.default_rng(seed)
    corner = rng.integers(0, extent, (count, 2))
    place = np.concatenate(
        [corner, corner + rng.integers(-3, 4, (count, 2)), rng.integers(0, areas, (count, 1))], axis=1
    )
    angle = np.sort(rng.uniform(0, 2 * np.pi, count))
    features = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return EpochPairs(place, SIZE, 0.5, lambda: (features, features))


def arrange(name: str, pairs: EpochPairs, batch_size: int, seed: int = 0, epoch: int = 1) -> np.ndarray:
    sampler = create_sampler(name, batch_size, seed)
    sampler.start(epoch, pairs)
    batches = np.array(list(sampler))
    assert len(sampler) == len(batches)
    return batches


def shares_ground(place: np.ndarray, i: int, j: int) -> bool:
    if place[i, 4] != place[j, 4]:
        return False
    return any(np.abs(place[i, a : a + 2] - place[j, b : b + 2]).max() < SIZE for a in (0, 2) for b in (0, 2))


OVERLAPPING = ("random", "cluster", "mined_overlapping")


@pytest.mark.parametrize("name", [n for n in SAMPLERS if n not in OVERLAPPING])
@pytest.mark.parametrize("seed", range(3))
def test_no_two_pairs_of_a_batch_share_ground(name, seed):
    pairs = epoch_pairs(seed=seed)
    batches = arrange(name, pairs, 24, seed)
    assert batches.shape[1] == 24
    assert len(batches) >= 8
    assert len(np.unique(batches)) == batches.size, "a pair came twice"
    for batch in batches:
        assert not any(shares_ground(pairs.place, i, j) for i in batch for j in batch if i < j)


def pairs_that_share(place: np.ndarray, batches: np.ndarray) -> int:
    return sum(shares_ground(place, i, j) for batch in batches for i in batch for j in batch if i < j)


def test_random_batches_do_share_ground_and_clusters_more():
    """The control: the data above are crowded enough for the test to fail."""
    pairs = epoch_pairs()
    random, cluster = (arrange(name, pairs, 24) for name in ("random", "cluster"))
    assert random.shape == cluster.shape == (16, 24)
    assert len(np.unique(cluster)) == cluster.size
    assert pairs_that_share(pairs.place, cluster) > 2 * pairs_that_share(pairs.place, random) > 0


def mean_nearest(values: np.ndarray, batches: np.ndarray) -> float:
    """Distance of a pair to its nearest in the batch."""
    gaps = np.linalg.norm(values[batches][:, :, None] - values[batches][:, None], axis=3)
    return float(np.where(np.eye(batches.shape[1], dtype=bool), np.inf, gaps).min(2).mean())


def test_neighbours_are_near_in_metres_and_mined_pairs_in_features():
    pairs = epoch_pairs(2000, extent=1200, areas=1)
    batches = {name: arrange(name, pairs, 32) for name in SAMPLERS if name != "random"}
    ground = {name: mean_nearest(pairs.place[:, :2], b) for name, b in batches.items()}
    looks = {name: mean_nearest(pairs.features()[0], b) for name, b in batches.items()}
    assert ground["neighbour"] < 0.7 * ground["distinct"]
    assert looks["similarity"] < 0.7 * looks["distinct"]
    assert looks["mined"] < 0.9 * looks["distinct"]


def test_pairs_are_mined_by_what_an_encoder_has_learned():
    """In the first epoch nothing has been: nobody asks for features, and batches are drawn at random."""

    def unasked() -> tuple[np.ndarray, np.ndarray]:
        raise AssertionError("features of an untrained encoder were asked for")

    pairs = epoch_pairs()._replace(features=unasked)
    np.testing.assert_array_equal(arrange("mined", pairs, 24, epoch=0), arrange("distinct", pairs, 24, epoch=0))
    with pytest.raises(AssertionError, match="untrained"):
        arrange("mined", pairs, 24, epoch=1)


@pytest.mark.parametrize("name", ["neighbour", "similarity"])
def test_the_nearest_of_a_seed_are_always_with_it_and_as_many_of_those_next(name):
    """Sample4Geo: of 128, 32 nearest and 32 of the next 96; of a batch of 16, 4 and 4 of the next 12."""
    rng = np.random.default_rng(0)
    place = np.zeros((400, 5), int)
    place[:, 0] = place[:, 2] = SIZE * rng.permutation(400)  # none overlaps another
    angle = place[:, 0] / SIZE * np.pi / 400  # what is near looks alike
    features = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    batch = arrange(name, EpochPairs(place, SIZE, 1.0, lambda: (features, features)), 16)[0]
    position, seed = place[:, 0] // SIZE, batch[0]
    order = np.argsort(np.abs(position - position[seed]), kind="stable")[1:]
    apart = np.abs(position - position[seed])
    assert apart[batch[1:5]].tolist() == apart[order[:4]].tolist()
    assert set(apart[batch[5:9]]) <= set(apart[order[4:16]])
    assert apart[batch[9]] > 0 and len(set(batch)) == 16, "the rest belongs to another seed"


def test_semi_positives_stand_beside_half_of_the_mined_pairs():
    pairs, beside = epoch_pairs(1200, extent=160), []
    batches = arrange("mined_overlapping", pairs, 24)
    assert batches.shape[1] == 24 and len(batches) >= 40 and len(np.unique(batches)) == batches.size
    for batch in batches:
        hard, semi = batch[:16], batch[16:]
        assert not any(shares_ground(pairs.place, i, j) for i in hard for j in hard if i < j)
        beside += [shares_ground(pairs.place, i, j) for i, j in zip(hard, semi, strict=False)]
    assert np.mean(beside) > 0.6, "the last batches find fewer, for every pair comes once"
    others = zip(batches[:-1, :8].ravel(), batches[1:, 16:].ravel(), strict=True)
    assert np.mean([shares_ground(pairs.place, i, j) for i, j in others]) < 0.05, "the control"


def test_neighbours_come_first_and_similar_pairs_after_four_epochs():
    pairs = epoch_pairs()
    for epoch, name in ((0, "neighbour"), (3, "neighbour"), (4, "similarity"), (9, "similarity")):
        both = [create_sampler(n, 24, seed=0) for n in ("neighbour_similarity", name)]
        for sampler in both:
            sampler.start(epoch, pairs)
        assert list(both[0]) == list(both[1])


def test_the_same_chance_gives_the_same_batches():
    first, second = (arrange("mined", epoch_pairs(), 16, seed=3) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_ground_that_is_too_small_is_named():
    crowded = epoch_pairs(count=100, extent=15, areas=1)
    with pytest.raises(ValueError, match="'distinct'.*no 24 that.*lower batch_size"):
        arrange("distinct", crowded, 24)
    with pytest.raises(ValueError, match="'hard'.*mined"):
        create_sampler("hard", 24)


def test_the_state_of_a_sampler_goes_on_with_the_epoch_that_comes_next():
    """Seed and epoch are all that shapes the batches of given pairs."""
    whole, resumed = create_sampler("mined", 16, seed=3), create_sampler("mined", 16, seed=9)
    for epoch in range(3):
        whole.start(epoch, epoch_pairs(seed=epoch))
        if epoch == 1:
            state = whole.state_dict()
    resumed.load_state_dict(state)
    assert resumed.epoch == 1
    resumed.start(resumed.epoch + 1, epoch_pairs(seed=2))
    assert list(resumed) == list(whole)
    resumed.start(1, epoch_pairs(seed=2))
    assert list(resumed) != list(whole), "another epoch of the same pairs has other batches"
    with pytest.raises(ValueError, match="batch_size is 8, its state has 16"):
        create_sampler("mined", 8).load_state_dict(state)
    with pytest.raises(ValueError, match="name is 'random', its state has 'mined'"):
        create_sampler("random", 16).load_state_dict(state)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_takes_it_as_its_batch_sampler(workers):
    sampler = create_sampler("distinct", 24)
    loader = torch.utils.data.DataLoader(torch.arange(400), batch_sampler=sampler, num_workers=workers)
    for epoch in range(2):
        sampler.start(epoch, epoch_pairs())
        assert [batch.tolist() for batch in loader] == list(sampler)


def test_several_processes_divide_every_batch_in_its_order():
    sampler = create_sampler("distinct", 24)
    shards = [BatchSamplerShard(sampler, 2, process, split_batches=True) for process in range(2)]
    sampler.start(0, epoch_pairs())
    assert [first + second for first, second in zip(*shards, strict=True)] == list(sampler)


def test_a_sampler_of_ones_own_is_a_function_and_a_name():
    @register_sampler("backwards")
    def backwards(pairs, batch_size, rng):
        return np.arange(len(pairs.place))[::-1].reshape(-1, batch_size)

    try:
        assert arrange("backwards", epoch_pairs(48), 24)[0].tolist() == list(range(47, 23, -1))
        assert "backwards" in list_samplers()
    finally:
        del SAMPLERS._things["backwards"]
