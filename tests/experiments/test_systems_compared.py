"""Systems are compared at one budget: what each is given to learn from is the same, and every one can be built."""

import pytest

from sarmatch.experiments import systems
from sarmatch.experiments.sweeps import SWEEPS
from sarmatch.training.config import Config
from sarmatch.training.prepare import check_parts

OF_SYSTEMS = [name for name in SWEEPS if name.startswith("systems_")]
BUDGETED = ("epochs", "pairs_per_epoch", "batch_size", "image_size")
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
        for field in (*BUDGETED, *TESTED):
            assert len({str(getattr(config, field)) for config in configs}) == 1, field
    for field in ("protocols", "kinds", "test_queries", "seed"):  # across both searches: paired query by query
        assert len({str(getattr(config, field)) for config in arms.values()}) == 1, field


@pytest.mark.parametrize("name", ["systems_standard", "systems_panorama_cross_area", "systems_ablations"])
def test_every_method_can_be_built(name):
    for config in SWEEPS[name].arms("a_folder").values():
        check_parts(config)


def test_an_ablation_changes_one_thing():
    arms = systems.ablations()
    for start in ("saig", "vigor"):
        control, *others = [config for arm, config in arms.items() if arm.startswith(start)]
        own = control.model_dump()
        for config in others:
            changed = {name for name, value in config.model_dump().items() if value != own[name]}
            assert changed in (
                {"encoder_options"}, {"loss"}, {"loss", "loss_options"}, {"sampler"}, {"auxiliary"},
                {"sharpness"}, {"sharpness", "rho"}, {"sharpness", "optimizer", "learning_rate"},
            )  # fmt: skip


def test_unknown_heading_is_a_method_where_its_set_lies_beside(tmp_path):
    (tmp_path / f"set{systems.UNKNOWN_HEADING}").mkdir()
    arms = SWEEPS["systems_panorama_same_area"].arms(str(tmp_path / "set"))
    assert arms["vigor_unknown_heading"].scene.endswith(systems.UNKNOWN_HEADING)
    assert "vigor_unknown_heading" not in SWEEPS["systems_panorama_same_area"].arms(str(tmp_path / "other"))
