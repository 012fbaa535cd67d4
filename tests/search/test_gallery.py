"""Galleries on disk: what their key stands for, and that what is kept is what was made."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

import sarmatch as sm
from sarmatch.encoders import create_encoder, embed
from sarmatch.patches import PatchImages
from sarmatch.scenes import Area, NoCoordinatesError, Raster, Scene
from sarmatch.search import Gallery, VectorSearch, build_gallery, galleries_dir
from sarmatch.search.gallery import gallery_key
from tests.search.test_vector import unit

WIDTHS = (8, 8, 16, 16, 16)


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    return create_encoder("plain", image_size=16, feature_dim=8, widths=WIDTHS)


@pytest.fixture(scope="module")
def tiles(tiny_scene):
    return sm.references(tiny_scene)


def chart(*areas: tuple[str, np.ndarray], pixel_size: float | None = 0.5) -> Scene:
    return Scene(
        "chart",
        tuple(
            Area(name, Raster.from_array("map", pixels, "reflectance"), (), (), (1000.0 * i, 0.0))
            for i, (name, pixels) in enumerate(areas)
        ),
        pixel_size,
        32,
    )


def test_a_gallery_is_the_embedding_of_every_tile(encoder, tiny_scene, tiles):
    gallery = build_gallery(encoder, tiny_scene, tiles, 16, batch_size=7)
    images = torch.stack(list(PatchImages(tiny_scene, tiles, 16)))
    np.testing.assert_allclose(gallery.vectors, embed(encoder, [images], "reference"), atol=1e-5)
    np.testing.assert_array_equal(gallery.xy, tiles[["x", "y"]])
    assert gallery.tile_m == 16
    assert [gallery.areas[i] for i in gallery.area] == tiles["area"].tolist()
    assert len(gallery) == len(tiles)


def test_a_saved_gallery_is_the_same(tmp_path, tiles):
    tiles = tiles.assign(area=tiles["area"].replace({"one": "007"}), x=tiles["x"] + 5.7e6 + 1 / 3)
    gallery = Gallery(tiles, unit(len(tiles)), 16.0)
    gallery.save(tmp_path / "g.safetensors")
    loaded = Gallery.load(tmp_path / "g.safetensors")
    np.testing.assert_array_equal(loaded.vectors, gallery.vectors)
    pd.testing.assert_frame_equal(loaded.tiles, tiles, rtol=1e-14, atol=0)
    assert loaded.areas[0] == "007"
    assert loaded.tile_m == 16.0
    blind = Gallery.of_vectors(unit(5))
    blind.save(tmp_path / "blind.safetensors")
    loaded = Gallery.load(tmp_path / "blind.safetensors")
    assert loaded.tile_m is None
    assert not loaded.has_coordinates


def test_a_kept_gallery_is_found_again_and_a_damaged_one_is_built_anew(
    encoder, tiny_scene, tiles, tmp_path, monkeypatch
):
    first = build_gallery(encoder, tiny_scene, tiles, 16, keep=tmp_path)
    (file,) = tmp_path.glob("*.safetensors")
    assert file.stem == gallery_key(encoder, tiny_scene, tiles, 16)
    with monkeypatch.context() as patch:
        patch.setattr("sarmatch.search.gallery.embed", None)  # nothing is embedded a second time
        again = build_gallery(encoder, tiny_scene, tiles, 16, keep=tmp_path)
    np.testing.assert_array_equal(first.vectors, again.vectors)
    whole = file.read_bytes()
    for damaged in (whole[:-100], b"", b"not a gallery"):
        file.write_bytes(damaged)
        with pytest.raises(ValueError, match=f"{file.name}: not readable as a gallery.*delete it"):
            Gallery.load(file)
        with pytest.warns(UserWarning, match=f"{file.name}: damaged, and built anew"):
            again = build_gallery(encoder, tiny_scene, tiles, 16, keep=tmp_path)
        np.testing.assert_array_equal(again.vectors, first.vectors)
        np.testing.assert_array_equal(Gallery.load(file).vectors, first.vectors)


def test_galleries_are_kept_in_the_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("SARMATCH_CACHE", str(tmp_path))
    assert galleries_dir() == tmp_path / "galleries"


class TestKey:
    """The key changes with the map's pixels, the tiling and the weights, and with nothing else."""

    pixels = np.random.default_rng(0).random((3, 96, 96)).astype(np.float32)

    def key(self, encoder, scene=None, image_size=16, **tiling):
        scene = scene or chart(("a", self.pixels))
        return gallery_key(encoder, scene, sm.references(scene, **tiling), image_size)

    def test_the_same_again(self, encoder):
        copy = create_encoder("plain", image_size=16, feature_dim=8, widths=WIDTHS)
        copy.load_state_dict(encoder.state_dict())
        assert self.key(encoder) == self.key(encoder, chart(("a", self.pixels.copy()))) == self.key(copy.eval())

    def test_strips_and_areas_without_a_tile_do_not_matter(self, encoder):
        scene = chart(("a", self.pixels), ("b", 1 - self.pixels))
        strip = Raster.from_array("s", self.pixels[:1] + 1, "intensity")
        seen = replace(scene, areas=(replace(scene.areas[0], strips=(strip,), roles=("train",)), scene.areas[1]))
        tiles = sm.references(scene)
        own = tiles[tiles["area"] == "a"]
        assert gallery_key(encoder, scene, own, 16) == gallery_key(encoder, seen, own, 16) == self.key(encoder)
        assert self.key(encoder, scene) != self.key(encoder)

    def test_a_single_pixel(self, encoder):
        changed = self.pixels.copy()
        changed[1, 70, 3] += 1e-6
        assert self.key(encoder, chart(("a", changed))) != self.key(encoder)

    def test_the_tiling_and_the_image_size(self, encoder):
        keys = [self.key(encoder), self.key(encoder, stride=16), self.key(encoder, size=24)]
        keys.append(self.key(encoder, image_size=32))
        assert len(set(keys)) == 4

    def test_weights_and_what_an_encoder_measured_of_its_input(self, encoder):
        keys = {self.key(encoder)}
        for name in ("reference_branch", "normalise_reference"):
            other = create_encoder("plain", image_size=16, feature_dim=8, widths=WIDTHS)
            other.load_state_dict(encoder.state_dict())
            with torch.no_grad():
                next(iter(getattr(other, name).state_dict().values())).add_(1e-3)
            keys.add(self.key(other))
        assert len(keys) == 3

    def test_options_of_an_encoder_without_weights(self):
        options = ({}, {"cells": 4}, {"sigma": 2.0}, {"orientations": 5})
        assert len({self.key(create_encoder("hog", 16, **{"cells": 8} | o)) for o in options}) == 4


def test_areas_keep_their_order_and_positions_may_be_absent():
    tiles = pd.DataFrame({"area": ["z", "a", "z"]})
    gallery = Gallery(tiles, unit(3))
    assert gallery.areas == ("z", "a")
    assert gallery.area.tolist() == [0, 1, 0]
    with pytest.raises(NoCoordinatesError, match="no coordinates"):
        _ = gallery.xy
    found = VectorSearch(gallery).search(unit(3)[:1], 3)
    assert [found.areas[i] for i in found.area[0]] == [tiles["area"][t] for t in found.tile[0]]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Gallery(pd.DataFrame({"area": ["a"] * 4}), unit(5)), "one per tile, got 5 for 4 tiles"),
        (lambda: Gallery.of_vectors(unit(5), tile_m=0.0), "tile_m must be above 0 metres and finite, got 0.0"),
        (lambda: Gallery.of_vectors(unit(5), np.zeros((5, 2)), tile_m=-1.0), "tile_m must be above 0 metres"),
        (lambda: Gallery.of_vectors(unit(5), np.full((5, 2), np.inf)), "finite, tile 0"),
        (lambda: Gallery.of_vectors(2 * unit(5)), "L2-normalised.*norm 2"),
        (lambda: Gallery.of_vectors(unit(5)[:, :0]), "L2-normalised.*norm 0"),
    ],
)
def test_a_gallery_that_cannot_be_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
