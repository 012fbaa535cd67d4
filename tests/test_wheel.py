"""A wheel, built and unpacked elsewhere: what it carries, and a strip located with nothing but it."""

import os
import shutil
import subprocess
import sys
import zipfile

import numpy as np
import pytest

from sarmatch.paths import ROOT
from tests.localization.test_locate import field, power_of, write

SOURCE = ("pyproject.toml", "setup.py", "README.md", "LICENSE", "sarmatch", "data/dense", "data/results/localization")
BUILD = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
LOCATE = """
import sys
import sarmatch as sm
assert sm.__file__.startswith(sys.argv[1]), sm.__file__
found = sm.locate("strip.tif", "map.tif")
print(found.calibrated, found.on_map, *found.fix.place)
try:
    sm.paths.shipped("data/demo")
except FileNotFoundError as error:
    print(error)
"""


def run_in(folder, code, *words, **environment):
    """What some code prints in a folder, with nothing of this checkout to import."""
    words = [sys.executable, "-c", code, *map(str, words)]
    done = subprocess.run(words, cwd=folder, env=os.environ | environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.slow
def test_a_strip_is_located_with_nothing_but_the_wheel(tmp_path):
    pytest.importorskip("setuptools", minversion="77", reason="builds the wheel with setuptools")
    for name in SOURCE:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        (tmp_path / "source" / name).parent.mkdir(parents=True, exist_ok=True)
        copy(ROOT / name, tmp_path / "source" / name)
    run_in(tmp_path / "source", BUILD, tmp_path)
    (wheel,) = tmp_path.glob("*.whl")
    installed = tmp_path / "installed"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(installed)
    shutil.rmtree(tmp_path / "source")
    carried = sorted(str(p.relative_to(installed / "sarmatch/shipped")) for p in installed.glob("*/shipped/**/*.*"))
    assert carried == [
        *(f"data/dense/{name}" for name in ("config.json", "metrics.json", "model.safetensors")),
        "data/results/localization/calibration.json",
    ]
    ground = field(0, (640, 560))
    write(tmp_path / "map.tif", np.repeat((255 * ground)[None], 3, 0).astype(np.uint8), pixel=0.5)
    write(tmp_path / "strip.tif", power_of(ground[100:300, 60:260]), pixel=0.5)
    told = run_in(
        tmp_path, LOCATE, installed, PYTHONPATH=str(installed), SARMATCH_CACHE=str(tmp_path / "cache")
    ).splitlines()
    calibrated, on_map, *place = told[0].split()
    assert (calibrated, on_map) == ("True", "True")
    np.testing.assert_allclose(np.array(place, float), (80, -100), atol=4)
    assert told[1] == "data/demo: is not part of the installed package, expected a checkout of sarmatch"
