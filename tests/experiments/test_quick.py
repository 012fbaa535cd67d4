"""Quick experiments: a row per question, kept; and what changes a question changes the scene as it says."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from sarmatch.experiments import quick
from sarmatch.figures import what_if_curve
from sarmatch.patches import read_patch

NUMBERS = {"queries": 5, "gallery": 100, "recall@1": 0.4, "recall@1_chance": 0.01, "median_m": 30.0}


@pytest.fixture
def asked(monkeypatch):
    """Settings that were computed, where nothing is searched."""
    seen = []

    def measured(setting, folder):
        seen.append(setting)
        return NUMBERS | {"recall@1": setting.looks / 20, "recall@1_low": 0.0, "recall@1_high": 1.0}

    monkeypatch.setattr(quick, "measured", measured)
    monkeypatch.setattr(quick, "made_with", lambda: {"commit": "abc1234", "machine": "one", "torch": "2"})
    return seen


def test_a_question_is_computed_once_and_kept_from_day_to_day(asked, tmp_path):
    quick.what_if(tmp_path)
    quick.what_if(tmp_path, looks=1)
    table = quick.what_if(tmp_path)
    assert asked == [quick.Setting(), quick.Setting(looks=1.0)]
    assert table["changed"].tolist() == ["looks 1.0", "nothing"], "what was asked last comes last"
    again = quick.kept(tmp_path)
    assert set(again["changed"]) == {"nothing", "looks 1.0"}
    assert again["commit"].tolist() == ["abc1234"] * 2
    assert (tmp_path / "table.csv").read_text().startswith("patch_size,")


def test_another_commit_computes_anew(asked, tmp_path, monkeypatch):
    quick.what_if(tmp_path)
    monkeypatch.setattr(quick, "made_with", lambda: {"commit": "def5678"})
    assert len(quick.what_if(tmp_path)) == len(asked) == 2


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"loks": 3}, "what_if has no option 'loks'"),
        ({"looks": 0}, "option looks is 0"),
        ({"search": "magic"}, "option search is 'magic'"),
        ({"train_fraction": 2.0}, "option train_fraction is 2.0"),
    ],
)
def test_mistakes_name_their_field_and_keep_nothing(changes, said, asked, tmp_path):
    with pytest.raises(ValueError, match=said):
        quick.what_if(tmp_path, **changes)
    assert quick.kept(tmp_path).empty
    assert not asked


def test_a_damaged_table_is_named(tmp_path):
    (tmp_path / "table.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match=r"table\.csv: has no column 'changed'"):
        quick.kept(tmp_path)


def test_every_field_has_choices_that_are_allowed():
    assert tuple(quick.CHOICES) == quick.FIELDS
    for field, values in quick.CHOICES.items():
        assert getattr(quick.Setting(), field) in values
        for value in values:
            quick.checked_options("what_if", quick._checked, {field: value})


def test_coarser_pixels_are_means_of_blocks_on_the_same_grid(tiny_scene):
    coarse = quick.coarser(tiny_scene, 2.0)
    window = pd.DataFrame({"area": ["one"], "strip": "one0", "row": 38, "col": 13, "size": 32, "modality": "sar"})
    for modality in ("sar", "optical"):
        row = next(window.assign(modality=modality).itertuples())
        fine = next(window.assign(modality=modality, row=36, col=12, size=40).itertuples())
        blocks = read_patch(tiny_scene, fine)
        mean = blocks.reshape(len(blocks), 10, 4, 10, 4).mean((2, 4)).repeat(4, 1).repeat(4, 2)
        np.testing.assert_allclose(read_patch(coarse, row), mean[:, 2:34, 1:33], rtol=1e-5)
    with pytest.raises(ValueError, match=r"pixel_size is 0\.7 m, expected a multiple of the 0\.5 m"):
        quick.coarser(tiny_scene, 0.7)


def test_a_setting_changes_the_town_as_it_says():
    town = quick.town_of(quick.Setting(incidence_shift=5.0, polarisation="VV"))
    usual = quick.town_of(quick.Setting())
    for one, other in zip(town.area("unseen").strips, usual.area("unseen").strips, strict=True):
        assert one.details["incidence_deg"] == other.details["incidence_deg"] + 5
        assert (one.bands, other.bands) == (("VV",), ("HH",))


def test_what_does_not_go_together_is_said(tmp_path, tiny_scene, monkeypatch):
    setting = quick.Setting(search="hog", train_fraction=0.5)
    with pytest.raises(ValueError, match="only search 'vector' is trained here"):
        quick._finder(setting, tiny_scene, pd.DataFrame(), tmp_path)


@pytest.mark.parametrize("search", ["hog", "cfog"])
def test_what_is_measured_finds_more_than_chance(search, tiny_scene, tmp_path, monkeypatch):
    monkeypatch.setenv("SARMATCH_CACHE", str(tmp_path))
    monkeypatch.setattr(quick, "town_of", lambda setting: tiny_scene)
    setting = replace(quick.Setting(), patch_size=32, stride=32, search=search)
    found = quick.measured(setting, tmp_path)
    assert found["recall@10"] > found["recall@10_chance"]
    assert found["recall@1_low"] <= found["recall@1"] <= found["recall@1_high"]


def test_the_curve_shows_one_change_and_nothing_else():
    rows = [quick.Setting(), quick.Setting(looks=1.0), quick.Setting(looks=2.0, k=5), quick.Setting(k=5)]
    words = ["nothing", "looks 1.0", "looks 2.0, k 5", "k 5"]
    table = pd.DataFrame([vars(r) | NUMBERS | {"changed": w} for r, w in zip(rows, words, strict=True)])
    ax = what_if_curve(table, "looks").axes[0]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["1.0", "4.0"]


@pytest.mark.parametrize(
    ("recall", "title"),
    [
        (0.5, "Search: dense search, learned takes recall@1 from 30% to 50% (simulated)"),
        (0.1, "Search: dense search, learned takes recall@1 from 30% to 10% (simulated)"),
        (0.35, "Search: no value is told from the present one, intervals overlap (simulated)"),
    ],
)
def test_the_title_of_the_curve_says_what_the_intervals_allow(recall, title):
    rows = [quick.Setting(), quick.Setting(search="dense")]
    table = pd.DataFrame([vars(r) for r in rows]).assign(changed=["nothing", "search dense"])
    table["recall@1"], table["recall@1_chance"] = [0.3, recall], 0.01
    table["recall@1_low"], table["recall@1_high"] = table["recall@1"] - 0.05, table["recall@1"] + 0.05
    assert what_if_curve(table, "search").axes[0].get_title() == title


def test_what_was_changed_is_told_in_words():
    table = pd.DataFrame({"changed": ["nothing", "patch_size 100, stride 100, search dense", "refiner correlation"]})
    assert list(quick.short(table)["changed"]) == [
        "nothing",
        "patch size 100; stride 100; dense search, learned",
        "correlation of pixels",
    ]


def test_the_panel_asks_and_shows(asked, tmp_path):
    panel = quick.WhatIfPanel(tmp_path)
    panel.field.value = "looks"
    panel.value.value = 16.0
    panel.run.click()
    assert asked == [quick.Setting(looks=16.0)]
    assert "looks 16.0" in panel.table.value
    assert bytes(panel.curve.value).startswith(b"\x89PNG")
    assert (panel.status.value, panel.run.disabled) == ("", False)
    (tmp_path / "table.csv").write_text("<b>\n")
    panel.run.click()
    assert "has no column" in panel.status.value
