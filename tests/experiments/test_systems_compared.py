"""Systems are compared at one budget: what each is given to learn from is the same, and every one can be built."""

import pandas as pd
import pytest

from sarmatch.encoders import create_encoder
from sarmatch.experiments import systems
from sarmatch.experiments.pages import published_table, systems_table
from sarmatch.experiments.records import Comparison
from sarmatch.experiments.sweeps import SWEEPS
from sarmatch.training.config import Config, recipe
from sarmatch.training.prepare import check_parts

OF_SYSTEMS = [name for name in SWEEPS if name.startswith("systems_")]
BUDGETED = ("pairs", "pairs_per_epoch", "batch_size", "image_size")
TESTED = ("protocols", "kinds", "val_queries", "test_queries", "bands", "profile", "augment", "offset")


def by_search(arms: dict[str, Config]) -> dict[str, list[Config]]:
    """Those that search by vectors, and dense matchers."""
    searches = dict.fromkeys(config.search for config in arms.values())
    return {search: [c for c in arms.values() if c.search == search] for search in searches}


@pytest.mark.parametrize("name", OF_SYSTEMS)
def test_every_method_of_a_table_has_the_same_budget_and_the_same_test(name):
    arms = SWEEPS[name].arms("a_folder")
    assert len({config.key for config in arms.values()}) == len(arms), "a method stands twice"
    for configs in by_search(arms).values():
        asked = {"augment"} if name == "systems_ablations_modalities" else set()  # what that table changes
        for field in {*BUDGETED, *TESTED} - asked:
            assert len({str(getattr(config, field)) for config in configs}) == 1, field
    for field in ("protocols", "kinds", "test_queries", "seed"):  # across both searches: paired query by query
        assert len({str(getattr(config, field)) for config in arms.values()}) == 1, field


@pytest.mark.parametrize("name", ["systems_standard", "systems_panorama_cross_area", "systems_ablations_saig"])
def test_every_method_can_be_built(name):
    for config in SWEEPS[name].arms("a_folder").values():
        check_parts(config)


def test_an_ablation_changes_one_thing():
    """Of the system, or of a row that stands beside it: what has two changes is read against a row of one."""
    for of in systems.ABLATED:
        rows = SWEEPS[f"systems_ablations_{of}"].arms("")
        assert len({config.key for config in rows.values()}) == len(rows)
        (control, own), *others = ((name, config.model_dump()) for name, config in rows.items())
        fewer: dict[str, set[str]] = {}
        for name, values in others:
            found = {field.removesuffix("_options") for field, value in values.items() if value != own[field]}
            fewer[name] = found - ({"rho"} if "sharpness" in found else set())  # the radius of SAM is not ASAM's
        for name, changed in fewer.items():
            one_less = [other for other in fewer.values() if len(other) == len(changed) - 1 and other < changed]
            assert len(changed) == 1 or one_less, (control, name, changed)


def test_every_system_is_told_in_about_ten_lines():
    told = systems.ideas().split("\n\n")
    assert len(told) == len(systems.TOLD) == 9
    for paragraph, name in zip(told, systems.TOLD, strict=True):
        assert paragraph.startswith(f"**{name}.** ")
        assert 850 <= len(paragraph) <= 1200, "ten lines of a page, of about a hundred characters each"
    named = {recipe(name).encoder for name in (*systems.SYSTEMS[1:], *systems.MATCHERS[1:])} - {"saig_d"}
    assert set(systems.TOLD.values()) == named


def test_unknown_heading_is_a_method_where_its_set_lies_beside(tmp_path):
    (tmp_path / f"set{systems.UNKNOWN_HEADING}").mkdir()
    arms = SWEEPS["systems_panorama_same_area"].arms(str(tmp_path / "set"))
    assert arms["vigor_unknown_heading"].scene.endswith(systems.UNKNOWN_HEADING)
    assert "vigor_unknown_heading" not in SWEEPS["systems_panorama_same_area"].arms(str(tmp_path / "other"))


def test_headings_differ_in_the_set_alone_and_the_known_one_is_a_run_of_the_panoramas():
    known, unknown = SWEEPS["systems_heading"].arms("a_set/").values()
    assert known.key == SWEEPS["systems_panorama_same_area"].arms("a_set/")["saig_s_smd"].key
    assert unknown.model_dump() | {"scene": known.scene} == known.model_dump()
    assert unknown.scene == f"a_set{systems.UNKNOWN_HEADING}"


def test_sizes_are_the_published_ones_and_operations_those_of_convolutions():
    stated = {"saig_s_smd": 24_881_408, "saig_d_smd": 37_908_224, "transgeo": 45_183_136, "vigor_vgg16": 29_832_976}
    rows = systems.sizes(tuple(stated)).set_index("system")
    assert (1e6 * rows["parameters"]).round().to_dict() == stated  # of panoramas and tiles
    assert (rows["our_parameters"] < 1).all()
    unet = create_encoder("fft_unet", width=8, depth=1)
    large, small = (systems.operations(unet, side) for side in (64, 32))
    assert large == 4 * small > 0


def test_images_per_second_are_of_every_system_that_is_named():
    found = systems.images_per_second(("saig_s_smd", "osmnet"), count=2)
    assert list(found.index) == ["saig_s_smd", "osmnet"] and (found > 0).all()


def test_a_table_of_systems_says_budget_difference_and_chance():
    common = {"seed": 0, "kind": "arbitrary", "data": "simulated", "queries": 500, "gallery": 400, "commit": "aaa"}
    common |= {"recall@1_chance": 0.0025, "recall@10_chance": 0.025, "chance_median_m": 990.0, "within_10m": 0.01}
    arms = {"infonce": (0.3, 792_352, 8192), "transgeo": (0.1, 758_912, 8192), "hog": (0.08, 0, 0)}
    rows = [
        {**common, "arm": arm, "protocol": protocol, "recall@1": found / 10, "recall@10": found, "recall@1%": found / 2}
        | {"recall@5": found / 3, "hit_rate": found / 9}
        | {"parameters": size, "pairs": pairs, "median_m": 700.0}
        for arm, (found, size, pairs) in arms.items()
        for protocol in ("same_area", "cross_area")
    ]
    gap = {"arm": "transgeo", "control": "infonce", "protocol": "cross_area", "kind": "arbitrary"}
    gaps = pd.DataFrame([gap | {"measure": "recall@10", "difference": -0.2, "low": -0.3, "high": -0.1}])
    table = systems_table(Comparison(pd.DataFrame(rows), gaps, ""))
    lines = table.splitlines()
    assert (
        "| TransGeo | 758,912 | 8,192 | **1.0** / **3.3** / **10.0** | **1.0** / **3.3** / **10.0** | 5.0 | 1.1 |"
        in lines[3]
    )
    assert "**-20.0 (-30.0 to -10.0)**" in lines[3] and "-20.0" not in lines[2]
    assert lines[4].startswith("| HOG, training-free | 0 | 0 |")
    assert "**simulated**, 1 seed, 500 queries, gallery 400, chance 0.25 / 2.5, 990 m." in table
    more = [row | {"seed": 1} for row in rows if row["arm"] != "transgeo"]
    fewer = systems_table(Comparison(pd.DataFrame(rows + more), gaps, ""))
    assert "| TransGeo (1 seed) |" in fewer and "| InfoNCE alone |" in fewer and "**simulated**, 2 seeds," in fewer


def test_what_publications_state_is_marked_as_theirs():
    lines = published_table().splitlines()
    assert len(lines) == 2 + len(systems.PUBLISHED)
    assert all("stated in" in lines[0] and 0 < theirs.cvusa < 100 for theirs in systems.PUBLISHED.values())


def test_what_begins_with_weights_of_imagenet_differs_in_that_alone():
    """And in its rate or image size where its name says so: both are shared by the two modalities."""
    arms = SWEEPS["pretrained"].arms("")
    assert all(config.encoder_options["shared"] for config in arms.values())
    dense = SWEEPS["pretrained_dense"].arms("")
    for control, ours in (
        (arms["lite0"], arms["lite0_imagenet"]),
        (dense["dense_lite0"], dense["dense_lite0_imagenet"]),
    ):
        assert ours.model_dump() | {"encoder_options": control.encoder_options} == control.model_dump()
        assert ours.encoder_options == control.encoder_options | {"pretrained": True}
