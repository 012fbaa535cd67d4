"""What is kept while it is made: by who is interrupted, and by several processes together."""

import importlib
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

import sarmatch as sm
from sarmatch.encoders import CFOGEncoder
from sarmatch.search import DenseGallery, build_gallery, build_maps
from tests.launch import launched


def interrupt(patch, place, after):
    """Let a function be called so many times, then interrupt; returns the calls."""
    module, name = place.rsplit(".", 1)
    function, calls = getattr(importlib.import_module(module), name), []

    def called(*given):
        if len(calls) == after:
            raise KeyboardInterrupt
        calls.append(given)
        return function(*given)

    patch.setattr(place, called)
    return calls


def vectors(scene, folder):
    torch.manual_seed(0)
    encoder = sm.create_encoder("plain", image_size=16, feature_dim=8, widths=(8, 8, 16, 16, 16))
    return build_gallery(encoder, scene, sm.references(scene), 16, 4, folder)


def maps(scene, folder):
    return build_maps(CFOGEncoder(), scene, keep=folder)


@pytest.mark.parametrize(
    ("build", "place", "parts"),
    [(maps, "sarmatch.search.maps._encoded", 48), (vectors, "sarmatch.search.gallery.embed", 19)],
)
def test_who_is_interrupted_goes_on_and_ends_with_the_same_bytes(
    tiny_scene, tmp_path, monkeypatch, build, place, parts
):
    monkeypatch.setattr("sarmatch.search.maps.CELLS", 40 + CFOGEncoder().reach)  # windows of 80 px
    build(tiny_scene, tmp_path / "whole")
    (whole,) = (tmp_path / "whole").iterdir()
    for _ in range(2):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            interrupt(patch, place, 5)
            build(tiny_scene, tmp_path / "cut")
    (left,) = (tmp_path / "cut").iterdir()
    assert left.is_dir() and left.stem == whole.stem
    files = [path for path in left.rglob("*") if path.is_file()]
    assert len(files) == 10 and all(path.suffix == ".safetensors" for path in files)
    files[0].write_bytes(files[0].read_bytes()[:-1])
    with monkeypatch.context() as patch, pytest.warns(UserWarning, match=f"{files[0].name}: damaged"):
        calls = interrupt(patch, place, parts)
        build(tiny_scene, tmp_path / "cut")
    assert len(calls) == parts - 10 + 1
    assert [path.read_bytes() for path in (tmp_path / "cut").iterdir()] == [whole.read_bytes()]


def test_parts_make_room_for_the_whole(tiny_scene, tmp_path, monkeypatch):
    save = DenseGallery.save

    def on_a_full_disk(gallery, path):
        if list(tmp_path.rglob("*.safetensors")):
            raise OSError("No space left on device")
        save(gallery, path)

    monkeypatch.setattr(DenseGallery, "save", on_a_full_disk)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        maps(tiny_scene, tmp_path)
    assert [path.suffix for path in tmp_path.iterdir()] == [".safetensors"]


@pytest.mark.slow
def test_several_processes_share_the_work_and_keep_what_one_does(tmp_path):
    script, done = Path(__file__).with_name("several_processes.py"), {}
    for count in (1, 2):
        lines = sorted(launched(count, script, tmp_path / str(count)).splitlines())
        done[count] = np.array([[int(word) for word in line.split()[:3]] for line in lines])
        assert len(lines) == count and all(line.endswith("True") for line in lines), "each holds what is kept"
    assert (done[2][:, 0] == [0, 1]).all()
    assert np.ptp(done[2][:, 1:], axis=0).max() <= 1, "they share the work evenly"
    assert (done[2][:, 1:].sum(0) == done[1][0, 1:]).all(), "nothing is made twice"
    one, two = (
        {path.relative_to(tmp_path / n): path.read_bytes() for path in (tmp_path / n).rglob("*.*")} for n in "12"
    )
    assert one == two and len(one) == 2
