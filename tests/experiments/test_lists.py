"""Candidate lists of runs: cross-fitting, joint training, and the comparison of refiners."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from sarmatch.datasets import registry
from sarmatch.evaluation import list_ranks, tiles_of_places
from sarmatch.experiments import studies
from sarmatch.experiments.lists import cross_fitted, fold_config
from sarmatch.experiments.provenance import code_version, digest_of, identity_of
from sarmatch.patches import fold_of, guard_band, training_regions
from sarmatch.refinement import LearnedRefiner, create_refiner, expanded
from sarmatch.training.data import training_ground
from sarmatch.training.joint import RefinerLoss
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
    found, queries, tiles = whole.lists("cross_area", "arbitrary", k=10**6)
    _, results = evaluate(whole.encoder, whole.scene(), whole.config, "cross_area", "arbitrary")
    positive = queries["positive"].to_numpy()
    tile = tiles_of_places(found.candidates, tiles, found.context.tile_m)
    np.testing.assert_array_equal(list_ranks(tile, found.candidates.scores, positive, len(tiles)), results["rank"])
    truth = found.candidates.tile[np.arange(len(queries)), found.overlap.argmax(1)]
    best = np.sort(found.overlap, axis=1)
    certain = best[:, -1] - best[:, -2] > 1e-6  # two equally good tiles are one truth or the other
    np.testing.assert_array_equal(truth[certain], positive[certain])
    np.testing.assert_allclose(found.overlap.max(1), queries["overlap"], atol=1e-5)


def test_cross_fitted_lists_keep_to_the_gallery_of_their_fold(finished):
    whole, folds = finished
    for parts in cross_fitted(whole, folds, "arbitrary", k=10, count=120):
        assert len(parts) == len(folds)
        for part in parts:
            context, tile = part.context, part.candidates.tile
            assert len(context.query) == len(part.overlap) == len(part.candidates) > 0
            assert len(context.gallery.areas) == 1  # the fold is one of the two towns
            for row in (0, -1):
                own = context.reference[tile[row]] @ context.query[row]
                np.testing.assert_allclose(part.candidates.scores[row], own, atol=1e-5)
        assert parts[0].context.gallery.areas != parts[1].context.gallery.areas
    with pytest.raises(ValueError, match="leaves out no fold"):
        cross_fitted(whole, [whole], "arbitrary", k=10, count=20)


def test_lists_to_choose_by_are_searched_in_the_same_gallery_and_share_no_ground(finished):
    whole, folds = finished
    learn, check = cross_fitted(whole, folds, "arbitrary", k=10**6, count=400)
    assert 0.15 < sum(len(p.overlap) for p in check) / sum(len(p.overlap) for p in learn) < 0.5
    for one, other in zip(learn, check, strict=True):  # towns have coordinates of their own
        np.testing.assert_allclose(one.context.reference, other.context.reference, atol=1e-5)
        apart = np.abs(_where(one)[:, None] - _where(other)).max(-1)
        assert apart.min() >= 2 * one.context.tile_m * (1 - 1e-6)  # centres: windows with a tile's width between them


def _where(part):
    """Where the queries of a fold lie, from their best candidate and its shift."""
    return part.candidates.xy[:, 0] + part.context.tile_m * part.shift[:, 0]


def test_cross_fitted_lists_are_no_cleaner_than_those_of_ground_nobody_knows(finished):
    """Where the truth stands in them is no better than on test ground, by more than chance."""
    whole, folds = finished
    learn, _ = cross_fitted(whole, folds, "arbitrary", k=20, count=300)
    test, _, _ = whole.lists("cross_area", "arbitrary", k=20)
    overlaps = [np.concatenate([part.overlap for part in parts]).sum(1).mean() for parts in (learn, [test])]
    assert overlaps[0] < overlaps[1] + 0.15


def test_a_refiner_trained_along_is_kept_and_refines(tiny_scene, tmp_path):
    options = {"refiner": "gnn", "refiner_options": {"width": 16}, "sampler": "cluster", "epochs": 2}
    joint = run(config(**options), tmp_path, report=lambda history: None)
    found, asked, tiles = joint.lists("cross_area", "arbitrary", k=8)
    refined = joint.refiner.refine(expanded(found.candidates, found.context, extra=4), found.context)
    assert refined.tile.shape[1] == 12
    with pytest.raises(ValueError, match="does not learn"):
        run(config(refiner="coarse"), tmp_path / "wrong")

    # its numbers stand beside those of its encoder, and are those of its own lists
    rows = joint.metrics.set_index(["method", "kind"])
    assert set(joint.metrics["method"]) >= {"plain", "hog", "plain + gnn"}
    row = rows.loc[("plain + gnn", "arbitrary")]
    lists, asked, tiles = joint.lists("cross_area", "arbitrary")
    after = joint.refiner.refine(lists.candidates, lists.context)
    positive = asked["positive"].to_numpy()
    rank = list_ranks(tiles_of_places(after, tiles, lists.context.tile_m), after.scores, positive, len(tiles))
    assert row["recall@1"] == pytest.approx((rank < 1).mean(), abs=0.01)
    assert (
        row["recall@10"] <= row["oracle"] == pytest.approx((lists.candidates.tile == positive[:, None]).any(1).mean())
    )
    assert row["recall@1_low"] <= row["recall@1"] <= row["recall@1_high"]
    assert (row["queries"], row["gallery"], row["k"]) == (len(asked), len(tiles), 30)
    assert "plain + gnn" in joint.summary


def test_a_refiner_does_not_drown_the_loss_of_an_encoder_that_knows_nothing_yet():
    torch.manual_seed(0)
    loss = RefinerLoss(LearnedRefiner("gnn"), 16, 40, memory=12)
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
    (kept,) = tmp_path.glob("arbitrary-G1-1-*.json")
    kept.unlink()
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
    gaps = pd.read_csv(tmp_path / "kept" / "differences.csv", dtype={"commit": str})
    assert set(gaps["k"]) == {4, 8}
    assert set(gaps["commit"]) == set(table["commit"])
    assert {p.name for p in (tmp_path / "runs").glob("*/*")} == {"k4", "k8"}
    with pytest.raises(ValueError, match="neither a finished run's folder"):
        studies.study_of(str(tmp_path))

    # whatever the code has become, the same table is made anew of what was kept, and of nothing else
    monkeypatch.setattr(studies, "code_version", lambda rooms: "another")
    again = studies.run_study(study, tmp_path / "kept", finished=True)
    pd.testing.assert_frame_equal(again, table)
    assert (again["recall@10_low"] <= again["recall@10"]).all() and (
        again["recall@10"] <= again["recall@10_high"]
    ).all()
    environment = json.loads((tmp_path / "kept" / "environment.json").read_text())
    assert environment["commit"] == table["commit"].iloc[0]
    next((tmp_path / "runs").glob("*/k8/*")).unlink()
    with pytest.raises(FileNotFoundError, match="what made the recorded row is not kept here; refine anew"):
        studies.run_study(study, tmp_path / "kept", finished=True)


def test_some_arms_join_a_table_whose_controls_stand(finished, tmp_path, monkeypatch):
    whole, folds = finished
    monkeypatch.setattr(studies, "runs_dir", lambda: tmp_path / "runs")
    monkeypatch.setattr(studies, "run", lambda config: folds[config.fold[0]])
    study = studies.study_of(str(whole.path))._replace(
        lengths=(8,), arms=("coarse", "whitened", "geographic_vote", "k_reciprocal"), kinds=("arbitrary",)
    )
    kept, first = tmp_path / "kept", ("coarse", "whitened", "geographic_vote")
    with pytest.raises(FileNotFoundError, match="table.csv: no comparison is recorded here"):
        studies.run_study(study, kept, arms=["k_reciprocal"])
    before = studies.run_study(study._replace(arms=first), kept)
    monkeypatch.setattr(studies, "code_version", lambda rooms: "another")
    monkeypatch.setattr(studies, "made_with", lambda: {"commit": "0000001", "machine": "another", "torch": "2"})
    table = studies.run_study(study, kept, arms=["k_reciprocal"]).set_index("arm")
    assert set(table.index) == set(study.arms)
    assert table["commit"].eq("0000001").to_dict() == {arm: arm == "k_reciprocal" for arm in study.arms}
    assert table.loc["geographic_vote", "recall@10"] == before.set_index("arm").loc["geographic_vote", "recall@10"]
    gaps = pd.read_csv(kept / "differences.csv", dtype={"commit": str})
    assert set(gaps["arm"]) == set(study.arms)
    assert not gaps.duplicated(["arm", "control", "measure"]).any()
    environment = json.loads((kept / "environment.json").read_text())
    assert environment["commit"] == f"0000001, {before['commit'].iloc[0]}"

    # a control that comes out otherwise would make every other row one of another comparison
    text = (kept / "table.csv").read_text()
    moved = pd.read_csv(kept / "table.csv", dtype={"key": str, "commit": str})
    moved.loc[moved["arm"] == "coarse", "recall@1"] += 0.1
    moved.to_csv(kept / "table.csv", index=False)
    with pytest.raises(ValueError, match=r"table.csv: recall@1 of 'coarse' is .* there and .* now; refine anew"):
        studies.run_study(study, kept, arms=["k_reciprocal"])
    (kept / "table.csv").write_text(text)
    with pytest.raises(ValueError, match=r"arms are \['M9'\], expected some of"):
        studies.run_study(study, kept, arms=["M9"])


@pytest.mark.parametrize(("arm", "off", "stands"), [("G0", 0.005, True), ("G0", 0.02, False), ("coarse", 0.001, False)])
def test_a_control_that_learns_may_round_otherwise_and_no_other(arm, off, stands):
    row = {"protocol": "cross_area", "kind": "arbitrary", "k": 8, "seed": 0, "recall@5": 0.5, "area_100m": 0.1}
    recorded = pd.DataFrame([row | {"arm": a, "recall@1": 0.3, "recall@10": 0.6} for a in studies.CONTROLS])
    made = recorded.assign(**{"recall@10": recorded["recall@10"] + off * (recorded["arm"] == arm)})
    if stands:
        studies.check_controls(recorded, made, Path("table.csv"))
        return
    with pytest.raises(ValueError, match=f"table.csv: recall@10 of {arm!r} is 0.6 there"):
        studies.check_controls(recorded, made, Path("table.csv"))
    with pytest.raises(ValueError, match="is nan there"):
        studies.check_controls(recorded.iloc[:0], recorded, Path("table.csv"))


def test_area_under_the_metre_curve_is_its_closed_form(finished):
    whole, _ = finished
    task = studies.tasks(whole, "arbitrary", 8)[0]
    found = studies.judge(task.lists.candidates, task)
    error = found["error_m"]
    curve = np.mean([(error <= t).mean() for t in np.linspace(0, 100, 20001)])
    assert studies.measures(found, task)["area_100m"] == pytest.approx(curve, abs=1e-3)


def test_edges_shuffled_at_test_are_those_of_the_trained_network(finished):
    whole, folds = finished
    learn, _ = cross_fitted(whole, folds, "arbitrary", k=8, count=60)
    refiner = create_refiner("gnn", width=16).fit(learn, epochs=1)
    before = {k: v.clone() for k, v in refiner.network.state_dict().items()}
    shuffled = studies.shuffled_at_test(refiner)
    assert shuffled.network.edges == "shuffled"
    assert refiner.network.edges == "metres"
    assert all((before[k] == v).all() for k, v in shuffled.network.state_dict().items())


def test_what_shapes_a_result_gives_it_another_key_and_nothing_old_is_reused(finished, tmp_path, monkeypatch):
    whole, folds = finished
    usual = {"k": 8, "count": 60, "epochs": 1}

    def keys(weights=None, code=None, **changes):
        """Keys of the rows, and what was learned anew for them."""
        fits, fit = [], LearnedRefiner.fit
        with monkeypatch.context() as patch:
            patch.setattr(LearnedRefiner, "fit", lambda self, *a, **o: fits.append(self.name) or fit(self, *a, **o))
            if weights:
                patch.setattr(studies, "identity_of", lambda run: identity_of(run) | {"model.safetensors": weights})
            if code:
                patch.setattr(studies, "code_version", lambda rooms: code)
            table, _ = studies.compare_refiners(
                whole, folds, ("arbitrary",), ("coarse", "M1"), (0,), folder=tmp_path, **usual | changes
            )
        assert table[["commit", "machine", "torch", "key"]].notna().all(axis=None)
        return table["key"].tolist(), fits

    first, fits = keys()
    assert fits == ["mlp_without_xy"]
    assert keys() == (first, [])
    seen = set(first)
    changes = ({"k": 6}, {"count": 80}, {"epochs": 2}, {"learning_rate": 2e-3}, {"weights": "ab"}, {"code": "cd"})
    for change in changes:
        other, fits = keys(**change)
        assert fits == ["mlp_without_xy"], change
        assert not set(other) & seen, change
        seen |= set(other)
    assert keys() == (first, [])
    assert len(seen) == 2 * (1 + len(changes))


def test_the_identity_of_a_run_is_its_config_and_its_weights(finished):
    whole, folds = finished
    first = identity_of(whole)
    assert set(first) == {"config", "model.safetensors"}
    assert len({str(identity_of(r)) for r in (whole, *folds)}) == 3
    path = whole.path / "model.safetensors"
    kept = path.read_bytes()
    try:
        path.write_bytes(kept[:-1] + bytes([kept[-1] ^ 1]))
        changed = identity_of(whole)
    finally:
        path.write_bytes(kept)
    assert changed["config"] == first["config"]
    assert changed["model.safetensors"] != first["model.safetensors"]


def test_digests_do_not_depend_on_the_order_of_names():
    assert digest_of({"a": 1, "b": [2, 3]}) == digest_of({"b": [2, 3], "a": 1}) != digest_of({"a": 1, "b": [3, 2]})


CODE = '''"""A module."""
def f(x):
    """What it does."""
    return x + 1
'''


@pytest.mark.parametrize(
    ("changed", "same"),
    [
        (CODE.replace("What it does.", "Something else."), True),
        (CODE.replace('    """What it does."""\n', ""), True),
        (CODE.replace('"""A module."""\n', "# a comment\n\n"), True),
        (CODE.replace("x + 1", "(x\n        + 1)  # one more"), True),
        (CODE.replace("x + 1", "x + 2"), False),
        (CODE.replace("f(x)", "f(x, y=0)"), False),
        (CODE + 'NAME = "text"\n', False),
    ],
)
def test_comments_and_docstrings_are_no_code(tmp_path, changed, same):
    versions = []
    for name, text in (("before", CODE), ("after", changed)):
        room = tmp_path / name / "sarmatch" / "room"
        room.mkdir(parents=True)
        (room / "module.py").write_text(text)
        (room.parent / "single.py").write_text(CODE)
        versions.append(code_version(("room", "single"), tmp_path / name))
    assert (versions[0] == versions[1]) is same
