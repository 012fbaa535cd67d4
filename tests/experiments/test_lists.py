"""Candidate lists of runs: cross-fitting, joint training, and the comparison of refiners."""

import numpy as np
import pandas as pd
import pytest
import torch

from sarmatch.datasets import registry
from sarmatch.experiments import studies
from sarmatch.experiments.lists import cross_fitted, fold_config, list_ranks, lists
from sarmatch.patches import fold_of, guard_band, training_regions
from sarmatch.refinement import LearnedRefiner, create_refiner, expanded
from sarmatch.search import Candidates
from sarmatch.training.loop import RefinerLoss, training_ground
from sarmatch.training.runs import evaluate, run
from tests.training.test_training import config


@pytest.fixture(autouse=True)
def _tiny_is_a_preset(tiny_scene, monkeypatch):
    monkeypatch.setitem(registry.SIMULATED, "tiny", lambda profile, bands: tiny_scene)


@pytest.fixture(scope="module")
def finished(tiny_scene, tmp_path_factory):
    """A run and those that leave out its folds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(registry.SIMULATED, "tiny", lambda profile, bands: tiny_scene)
        patch.setenv("SARMATCH_RUNS", str(tmp_path_factory.mktemp("folds")))
        whole = run(config(epochs=4), report=lambda history: None)
        return whole, [run(fold_config(whole, i), report=lambda history: None) for i in range(2)]


def test_a_fold_is_never_trained_on(tiny_scene):
    size = tiny_scene.patch_size
    for number in range(2):
        ground = training_ground(config(fold=(number, 2)), tiny_scene, size)
        regions = training_regions(tiny_scene, ("cross_area",), guard_band(tiny_scene, size))
        _, held = fold_of(regions, (number, 2), guard_band(tiny_scene, size))
        assert not set(ground["area"]) & set(held["area"])
        assert set(ground["area"]) | set(held["area"]) == set(regions["area"])


def test_folds_of_one_area_are_bands_with_a_guard():
    ground = pd.DataFrame(
        {"area": ["a"], "strip": ["s"], "split": ["train"], "row0": 0, "col0": 0, "row1": 900, "col1": 50}
    )
    covered = np.zeros(900, int)
    for number in range(3):
        rest, held = fold_of(ground, (number, 3), 40)
        rows = np.zeros(900, int)
        for part in rest.itertuples():
            rows[part.row0 : part.row1] = 1
        low, high = held["row0"].iloc[0], held["row1"].iloc[0]
        assert not rows[max(0, low - 40) : high + 40].any()
        assert rows.sum() >= 900 - (high - low) - 80
        covered[low:high] += 1
    assert (covered == 1).all()
    with pytest.raises(ValueError, match="does not hold 3 folds"):
        fold_of(ground, (0, 3), 400)


def test_the_key_of_runs_made_before_folds_stands():
    assert config().key == config(fold=None, refiner="none", refiner_weight=1.0).key
    assert len({config().key, config(fold=(0, 2)).key, config(fold=(1, 2)).key, config(refiner="gnn").key}) == 4
    with pytest.raises(ValueError, match="fold is"):
        config(fold=(2, 2))


def test_lists_agree_with_the_evaluation(finished):
    whole, _ = finished
    found, queries, _ = lists(whole, "cross_area", "arbitrary", k=10**6)
    _, results = evaluate(whole.encoder, whole.scene(), whole.config, "cross_area", "arbitrary")
    np.testing.assert_array_equal(list_ranks(found.candidates, queries["positive"].to_numpy()), results["rank"])
    truth = found.candidates.indices[np.arange(len(queries)), found.share.argmax(1)]
    best = np.sort(found.share, axis=1)
    certain = best[:, -1] - best[:, -2] > 1e-6  # two equally good tiles are one truth or the other
    np.testing.assert_array_equal(truth[certain], queries["positive"].to_numpy()[certain])
    np.testing.assert_allclose(found.share.max(1), queries["overlap"], atol=1e-5)


def test_ranks_in_lists_count_ties_against_us_and_absence_as_last():
    positions = np.zeros((9, 2))
    scores = np.array([[0.9, 0.5, 0.5, 0.1]] * 3, np.float32)
    candidates = Candidates(np.array([[1, 2, 3, 4]] * 3), scores, positions)
    np.testing.assert_array_equal(list_ranks(candidates, np.array([1, 2, 7])), [0, 2, 9])


def test_cross_fitted_lists_keep_to_the_gallery_of_their_fold(finished):
    whole, folds = finished
    for part in cross_fitted(whole, folds, "arbitrary", k=10, count=120):
        evidence, indices = part.evidence, part.candidates.indices
        first = len(evidence.parts[0].query)
        assert 0 < first < len(evidence.query) == len(part.share)
        for row in (0, -1):
            own = evidence.reference[indices[row]] @ evidence.query[row]
            np.testing.assert_allclose(part.candidates.scores[row], own, atol=1e-5)
        assert indices[:first].max() < len(evidence.parts[0].reference) <= indices[first:].min()
    with pytest.raises(ValueError, match="leaves out no fold"):
        cross_fitted(whole, [whole], "arbitrary", k=10, count=20)


def test_lists_to_choose_by_are_searched_in_the_same_gallery_and_share_no_ground(finished):
    whole, folds = finished
    learn, check = cross_fitted(whole, folds, "arbitrary", k=10**6, count=400)
    assert 0.15 < len(check.share) / len(learn.share) < 0.5
    for one, other in zip(learn.evidence.parts, check.evidence.parts, strict=True):
        np.testing.assert_allclose(one.reference, other.reference, atol=1e-5)
    tile = learn.evidence.tile_m
    for number in range(2):  # towns have coordinates of their own
        apart = np.abs(_where(learn, number)[:, None] - _where(check, number)).max(-1)
        assert apart.min() >= 2 * tile * (1 - 1e-6)  # centres: windows with a tile's width between them


def _where(part, number):
    """Where the queries of a fold lie, from their best candidate and its shift."""
    sizes = [len(p.query) for p in part.evidence.parts]
    rows = slice(sum(sizes[:number]), sum(sizes[: number + 1]))
    return part.candidates.xy[rows, 0] + part.evidence.tile_m * part.shift[rows, 0]


def test_cross_fitted_lists_are_no_cleaner_than_those_of_ground_nobody_knows(finished):
    """Where the truth stands in them is no better than on test ground, by more than chance."""
    whole, folds = finished
    train, _ = cross_fitted(whole, folds, "arbitrary", k=20, count=300)
    test, _, _ = lists(whole, "cross_area", "arbitrary", k=20)
    shares = [x.share.sum(1).mean() for x in (train, test)]
    assert shares[0] < shares[1] + 0.15


def test_a_refiner_trained_along_is_kept_and_refines(tiny_scene, tmp_path):
    options = {"refiner": "gnn", "refiner_options": {"width": 16}, "sampler": "cluster", "epochs": 2}
    joint = run(config(**options), tmp_path, report=lambda history: None)
    found, _, _ = lists(joint, "cross_area", "arbitrary", k=8)
    refined = joint.refiner.refine(expanded(found.candidates, found.evidence, extra=4), found.evidence)
    assert refined.indices.shape[1] == 12
    with pytest.raises(ValueError, match="does not learn"):
        run(config(refiner="coarse"), tmp_path / "wrong")


def test_a_refiner_does_not_drown_the_loss_of_an_encoder_that_knows_nothing_yet():
    torch.manual_seed(0)
    loss = RefinerLoss(config(refiner="gnn"), 16, 40)
    for weight in loss.network.parameters():
        torch.nn.init.normal_(weight, std=0.3)  # as after some steps: a new network passes nothing on
    place = torch.tensor([[40 * i, 20 * i, 40 * i, 20 * i, 0] for i in range(12)])
    almost_one_point = torch.ones(12, 16) + 1e-3 * torch.randn(2, 12, 16)
    query, reference = torch.nn.functional.normalize(almost_one_point, dim=-1).requires_grad_()
    pull = torch.autograd.grad(loss(query, reference, place), query)[0].norm()
    assert 0 < pull < 1  # over 1,000 where gradients pass through all that a node knows


def test_a_run_without_a_refiner_says_so(finished):
    with pytest.raises(FileNotFoundError, match="trained no refiner"):
        _ = finished[0].refiner


@pytest.mark.slow
def test_the_comparison_gives_all_rows_and_paired_differences(finished, tmp_path, monkeypatch):
    whole, folds = finished
    arms = ("coarse", "geographic_vote", "correlation", "M2", "G0", "G1", "G1t", "surface")
    table, gaps = studies.compare_refiners(
        whole, folds, ("arbitrary",), arms, seeds=(0, 1), k=8, count=60, folder=tmp_path, epochs=1
    )
    assert set(table["arm"]) == set(arms)
    learned = {"M2", "G0", "G1", "G1t", "surface"}
    assert table.groupby("arm").size().to_dict() == {arm: 2 if arm in learned else 1 for arm in arms}
    assert table["recall@1"].le(table["oracle"] + 1e-9).all()
    assert table["oracle"].nunique() == 1
    g0, g1 = (table.loc[table["arm"] == a, "parameters"].iloc[0] for a in ("G0", "G1"))
    assert g0 == g1 > 0
    mean = table.groupby("arm")[list(studies.COMPARED)].mean()
    assert set(gaps["measure"]) == set(studies.COMPARED)
    for row in gaps.itertuples():
        gap = mean.loc[row.arm, row.measure] - mean.loc[row.control, row.measure]
        assert row.difference == pytest.approx(gap, abs=1e-4)
        assert row.low <= row.difference <= row.high
    assert not ((gaps["control"] == "G0") & (gaps["arm"] == "coarse")).any()

    # cut off after some of it, the same call gives the same table without learning anew what is there
    (tmp_path / "arbitrary-G1-1.json").unlink()
    fits = []
    fit = LearnedRefiner.fit
    monkeypatch.setattr(LearnedRefiner, "fit", lambda self, *a, **o: fits.append(self.name) or fit(self, *a, **o))
    again, _ = studies.compare_refiners(
        whole, folds, ("arbitrary",), arms, seeds=(0, 1), k=8, count=60, folder=tmp_path, epochs=1
    )
    assert fits == ["gnn"]
    pd.testing.assert_frame_equal(again.drop(columns="ms_per_query"), table.drop(columns="ms_per_query"))


def test_a_study_of_an_own_run_trains_its_folds_and_has_a_table_for_each_length(finished, tmp_path, monkeypatch):
    whole, folds = finished
    monkeypatch.setattr(studies, "runs_dir", lambda: tmp_path / "runs")
    monkeypatch.setattr(studies, "run", lambda config: folds[config.fold[0]])
    study = studies.study_of(str(whole.path))._replace(
        lengths=(4, 8), arms=("coarse", "geographic_vote"), kinds=("arbitrary",)
    )
    table = studies.run_study(study, tmp_path / "kept")
    assert table.groupby("k")["oracle"].first().is_monotonic_increasing
    assert set(table["k"]) == {4, 8}
    assert set(pd.read_csv(tmp_path / "kept" / "differences.csv")["k"]) == {4, 8}
    assert {p.name for p in (tmp_path / "runs").glob("*/*")} == {"k4", "k8"}
    with pytest.raises(ValueError, match="neither a finished run's folder"):
        studies.study_of(str(tmp_path))


def test_area_under_the_metre_curve_is_its_closed_form(finished):
    whole, _ = finished
    task = studies.tasks(whole, "arbitrary", 8)[0]
    found = studies.judge(task.lists.candidates, task)
    error = found["error_m"]
    curve = np.mean([(error <= t).mean() for t in np.linspace(0, 100, 20001)])
    assert studies.measures(found, task)["area_100m"] == pytest.approx(curve, abs=1e-3)


def test_edges_shuffled_at_test_are_those_of_the_trained_network(finished):
    whole, folds = finished
    train, _ = cross_fitted(whole, folds, "arbitrary", k=8, count=60)
    refiner = create_refiner("gnn", width=16).fit(train, epochs=1)
    before = {k: v.clone() for k, v in refiner.network.state_dict().items()}
    shuffled = studies.shuffled_at_test(refiner)
    assert shuffled.network.edges == "shuffled"
    assert all((before[k] == v).all() for k, v in shuffled.network.state_dict().items())
