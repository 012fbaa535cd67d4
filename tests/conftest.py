"""What the tests share: tiny fake data, and real data where there are any."""

import os
from pathlib import Path

import pytest

from tests import fake_data

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # before the hub's client is imported: a test never waits for a network

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session", autouse=True)
def _own_runs(tmp_path_factory):
    """Run folders of tests stay out of the checkout, unless somebody names a place for them."""
    with pytest.MonkeyPatch.context() as patch:
        if "SARMATCH_RUNS" not in os.environ:
            patch.setenv("SARMATCH_RUNS", str(tmp_path_factory.mktemp("runs")))
        yield


@pytest.fixture(scope="session")
def tiny_scene():
    """Two areas to learn from and an unseen one, 100 tiles of 32 px each, in memory."""
    return fake_data.tiny_scene()


@pytest.fixture(scope="session")
def sentinel_folder(tmp_path_factory):
    """A Sentinel folder of 2 + 2 tiles in the selection's layout."""
    return fake_data.write_sentinel(tmp_path_factory.mktemp("sentinel"))


@pytest.fixture(scope="session")
def public_sentinel_folder(tmp_path_factory):
    """The same tiles in the public layout."""
    return fake_data.write_sentinel(tmp_path_factory.mktemp("sentinel_public"), "public")


@pytest.fixture(scope="session")
def pairs_folder(tmp_path_factory):
    """Ten pairs of 96 x 96 px without coordinates."""
    return fake_data.write_pairs(tmp_path_factory.mktemp("pairs"))


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data; whatever asks for it is skipped where it is absent."""
    folder = Path(os.environ.get("SARMATCH_REAL_DATA") or ROOT / ".." / "shared" / "real")
    if not folder.is_dir():
        pytest.skip("no real data: set SARMATCH_REAL_DATA to the folder that holds sentinel/ and gf3_pairs/")
    return folder
