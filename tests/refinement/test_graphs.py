"""Graphs over candidates against brute force in metres, and the cases that break others."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sarmatch.refinement import EDGES, candidate_graphs

UTM = np.array([5e5, 5.7e6])


def cloud(count=3, size=9, dim=5, seed=0, origin=UTM):
    rng = np.random.default_rng(seed)
    xy = origin + 100 * rng.integers(0, 6, (count, size, 2))
    return torch.from_numpy(xy.astype(np.float64)), torch.from_numpy(rng.normal(size=(count, size, dim)))


def edges_of(graph, size):
    """Who hears whom, as a set of (query, listener, speaker)."""
    speaker, listener = graph.edge_index.numpy()
    assert (speaker // size == listener // size).all()
    return {(int(i // size), int(i % size), int(j % size)) for i, j in zip(listener, speaker, strict=True)}


def brute_force(points, k, reach=np.inf):
    """The k nearest others and whoever is as near as the last, by plain loops."""
    found = set()
    for q, nodes in enumerate(points):
        for i in range(len(nodes)):
            found.add((q, i, i))
            apart = [(float(np.hypot(*(nodes[j] - nodes[i]))), j) for j in range(len(nodes)) if j != i]
            if not apart:
                continue
            limit = sorted(d for d, _ in apart)[min(k, len(apart)) - 1]
            found |= {(q, i, j) for d, j in apart if d <= limit + 1e-3 and d <= reach + 1e-3}
    return found


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 3), st.integers(1, 14), st.integers(1, 10), st.integers(0, 999), st.sampled_from([0.0, 1.0]))
def test_edges_in_metres_are_those_of_brute_force_at_any_origin(count, size, k, seed, far):
    xy, features = cloud(count, size, seed=seed, origin=far * UTM)
    graph = candidate_graphs(xy, features, 100.0, "metres", k=k, reach=2.0)
    assert edges_of(graph, size) == brute_force(xy.numpy(), k, reach=200.0)


def test_edges_by_features_ignore_the_ground():
    xy, features = cloud()
    graph = candidate_graphs(xy, features, 100.0, "features", k=3)
    points = features.numpy()
    for q, i, j in edges_of(graph, 9):
        nearer = (np.linalg.norm(points[q] - points[q, i], axis=1) < np.linalg.norm(points[q, j] - points[q, i])).sum()
        assert i == j or nearer <= 3


@pytest.mark.parametrize("edges", ["metres", "features", "full", "none", "angle"])
def test_the_graph_is_the_same_whatever_the_order_of_nodes(edges):
    xy, features = cloud(size=12, seed=3)
    order = torch.from_numpy(np.random.default_rng(1).permutation(12))
    graph = edges_of(candidate_graphs(xy, features, 100.0, edges, k=4), 12)
    other = edges_of(candidate_graphs(xy[:, order], features[:, order], 100.0, edges, k=4), 12)
    assert {(q, int(order[i]), int(order[j])) for q, i, j in other} == graph


def test_attributes_are_displacements_in_tile_widths():
    xy = torch.tensor([[[0.0, 0.0], [100.0, 0.0], [0.0, -50.0]]], dtype=torch.float64) + torch.from_numpy(UTM)
    graph = candidate_graphs(xy, torch.zeros(1, 3, 2), 100.0, "full")
    for (speaker, listener), attribute in zip(graph.edge_index.T.tolist(), graph.edge_attr, strict=True):
        shift = ((xy[0, speaker] - xy[0, listener]) / 100).tolist()
        assert attribute.tolist() == pytest.approx([*shift, np.hypot(*shift)], abs=1e-6)


def test_none_leaves_everybody_alone_and_full_nobody():
    xy, features = cloud(count=2, size=5)
    assert edges_of(candidate_graphs(xy, features, 100.0, "none"), 5) == {(q, i, i) for q in range(2) for i in range(5)}
    assert len(edges_of(candidate_graphs(xy, features, 100.0, "full"), 5)) == 2 * 5 * 5


@pytest.mark.parametrize("edges", ["random", "shuffled"])
def test_controls_keep_the_degrees_and_not_the_neighbours(edges):
    xy, features = cloud(count=4, size=20, seed=5)
    true = candidate_graphs(xy, features, 100.0, "metres", k=4)
    control = candidate_graphs(xy, features, 100.0, edges, k=4, seed=7)
    degrees = [np.bincount(g.edge_index[1].numpy(), minlength=80).reshape(4, 20) for g in (true, control)]
    if edges == "shuffled":
        degrees = [np.sort(d, axis=1) for d in degrees]
    np.testing.assert_array_equal(*degrees)
    assert len(edges_of(true, 20) & edges_of(control, 20)) < 0.6 * true.num_edges
    again = candidate_graphs(xy, features, 100.0, edges, k=4, seed=7)
    torch.testing.assert_close(control.edge_index, again.edge_index)


def test_a_node_far_from_all_hears_itself_and_duplicates_hear_each_other():
    xy = torch.tensor([[[0.0, 0.0], [0.0, 0.0], [9000.0, 0.0]]], dtype=torch.float64)
    graph = candidate_graphs(xy, torch.zeros(1, 3, 2), 100.0, "metres", k=2)
    assert edges_of(graph, 3) == {(0, 0, 0), (0, 1, 1), (0, 2, 2), (0, 0, 1), (0, 1, 0)}


def test_the_published_angle_loses_metres():
    """Two tiles 1,400 m apart on one ray from the origin are neighbours; one 100 m aside is not."""
    xy = torch.tensor([[[1000.0, 1000.0], [2000.0, 2000.0], [1100.0, 900.0]]], dtype=torch.float64)
    features = torch.zeros(1, 3, 2)
    assert (0, 0, 1) in edges_of(candidate_graphs(xy, features, 100.0, "angle", k=1), 3)
    assert (0, 0, 2) in edges_of(candidate_graphs(xy, features, 100.0, "metres", k=1), 3)


def test_bad_input_is_named():
    xy, features = cloud()
    with pytest.raises(ValueError, match="'metre'"):
        candidate_graphs(xy, features, 100.0, "metre")
    with pytest.raises(ValueError, match="xy must be"):
        candidate_graphs(xy[..., :1], features, 100.0)
    assert set(EDGES) == {"metres", "features", "full", "none", "random", "shuffled", "angle"}
