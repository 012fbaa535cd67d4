"""The examples of CONTRIBUTING.md work as they stand."""

import re

import torch

import sarmatch as sm
from sarmatch.alignment import ALIGNMENTS
from sarmatch.encoders.base import ENCODERS
from sarmatch.losses import LOSSES
from sarmatch.paths import ROOT
from sarmatch.refinement import REFINERS


def test_what_the_guide_adds_is_found_and_works(monkeypatch):
    for registry in (LOSSES, ALIGNMENTS, ENCODERS, REFINERS):  # what is added here stays here
        monkeypatch.setattr(registry, "_things", dict(registry._things))
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
    assert sm.create_refiner("sharpen", power=1.0).options == {"power": 1.0}
    assert names["MINE"].name == "mine"


def test_the_guide_names_every_mark_and_target():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    for target in ("demo", "check", "test", "hooks", "format", "sweep", "notebooks"):
        assert f"make {target}" in text
    marks = re.findall(r'^  "(\w+): ', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert marks and all(f"`{mark}`" in text for mark in marks)
