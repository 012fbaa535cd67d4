"""The examples of CONTRIBUTING.md work as they stand."""

import re

import pytest
import torch

import sarmatch as sm
from sarmatch.alignment import ALIGNMENTS
from sarmatch.encoders.base import ENCODERS
from sarmatch.losses import LOSSES, EmbeddedBatch
from sarmatch.paths import ROOT
from sarmatch.refinement import REFINERS

README = (ROOT / "README.md").read_text()


@pytest.fixture(autouse=True)
def _own_names(monkeypatch):
    for registry in (LOSSES, ALIGNMENTS, ENCODERS, REFINERS):  # what is added here stays here
        monkeypatch.setattr(registry, "_things", dict(registry._things))


def test_what_readme_adds_is_found_and_trains(monkeypatch):
    asked = []
    monkeypatch.setattr(sm, "run", asked.append)
    monkeypatch.setattr(sm, "sweep", asked.append)
    (block,) = (b for b in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "register_loss" in b)
    exec(block, {"__name__": "readme", "sm": sm})
    assert asked[0].loss == "cosine" and asked[0].alignment == "means" and len(asked[1]) == 6
    z = torch.eye(4)
    assert sm.create_loss("cosine")(EmbeddedBatch(z, z)) == 0
    features = sm.create_encoder("edges", image_size=32, sar_bands=2).forward_features(torch.rand(3, 2, 8, 8), "query")
    assert features.shape == (3, 1, 8, 7)
    assert sm.create_refiner("sharpen").options == {}


def test_what_the_guide_adds_is_found_and_works():
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL)
    names: dict = {"__name__": "contributing"}
    for block in blocks:
        exec(block, names)
    assert "cosine" in sm.list_losses() and "means" in sm.list_alignments()
    assert sm.create_alignment("means", feature_dim=4).estimate(torch.ones(8, 4), torch.zeros(8, 4)) == 4
    encoder = sm.create_encoder("thumbnail", image_size=32, sar_bands=2)
    query, reference = encoder(torch.rand(3, 2, 32, 32), torch.rand(3, 3, 32, 32))
    assert query.shape == reference.shape == (3, 64)
    torch.testing.assert_close(query.norm(dim=1), torch.ones(3))
    system = sm.create_encoder("pooled_resnet", image_size=32, aggregator="max").eval()
    assert system.encode_query(torch.rand(2, 1, 32, 32)).shape == (2, 512)
    assert sm.create_refiner("sharpen", power=1.0).options == {"power": 1.0}
    assert names["MINE"].name == "mine"


def test_the_guide_names_every_mark_and_target():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    for target in ("demo", "check", "test", "hooks", "format", "sweep", "notebooks"):
        assert f"make {target}" in text
    marks = re.findall(r'^  "(\w+): ', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert marks and all(f"`{mark}`" in text for mark in marks)
