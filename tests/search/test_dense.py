"""Dense search: places of shifted images, maps in windows, and what a stranger may do wrong."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter, shift

import sarmatch as sm
from sarmatch.encoders import CFOGEncoder
from sarmatch.scenes import Area, Raster, Scene
from sarmatch.search import DenseGallery, DenseSearch, FeatureMap, build_maps, surface
from sarmatch.search.maps import encode_raster

SIDE = 2.0  # metres a pixel


def ground(seed, height=180, width=220):
    smooth = gaussian_filter(np.random.default_rng(seed).normal(size=(height, width)), 2)
    return ((smooth - smooth.min()) / np.ptp(smooth)).astype(np.float32)


@pytest.fixture(scope="module")
def scene():
    """Two areas whose SAR is the optical map in decibels, upside down in contrast."""
    areas = []
    for i in range(2):
        grey = ground(i)
        chart = Raster.from_array("map", np.repeat(grey[None], 3, 0), "reflectance")
        strip = Raster.from_array("s", (-20 * grey)[None], "decibel")
        areas.append(Area(f"area {i}", chart, (strip,), ("test",), origin=(5000.0 * i, 100.0)))
    return Scene("twins", tuple(areas), SIDE, 40)


@pytest.fixture(scope="module", params=[1, 2])
def encoder(request):
    return CFOGEncoder(stride=request.param)


def test_queries_anywhere_are_found_to_a_fraction_of_a_cell_in_the_right_area(scene, encoder):
    queries = sm.queries(scene, "arbitrary", 40, count=40, seed=1)
    images = torch.stack([torch.from_numpy(sm.read_patch(scene, q)) for q in queries.itertuples()])
    search = DenseSearch(build_maps(encoder, scene), encoder)
    found = search.search(images.split(16), 3)
    assert found.areas == ("area 0", "area 1") and found.tile is None and found.valid.all()
    names = np.array(found.areas)[found.area[:, 0]]
    assert (names == queries["area"]).all()
    error = np.abs(found.xy[:, 0] - queries[["x", "y"]].to_numpy()).max(1)
    assert np.median(error) < 0.5 * SIDE * encoder.stride
    assert error.max() < 1.5 * SIDE * encoder.stride
    np.testing.assert_allclose(search.search(search.encode(images.split(7)), 3).xy, found.xy, atol=1e-3)


@pytest.mark.parametrize("moved", [(0.0, 0.0), (0.3, -0.4), (0.5, 0.25)])
def test_a_shift_by_a_fraction_of_a_cell_is_seen(moved):
    grey = ground(3).astype(np.float64)
    query = torch.from_numpy(shift(grey, moved, order=3))[None, None, 60:100, 80:120].float()
    fmap = FeatureMap(torch.from_numpy(grey)[None].float(), None, (0.0, 0.0), 1.0)
    found = DenseSearch(DenseGallery({"a": fmap}, 1)).search(query, 1)
    x, y = found.xy[0, 0]
    assert x == pytest.approx(100 - moved[1], abs=0.1) and -y == pytest.approx(80 - moved[0], abs=0.1)


def test_masked_cells_do_not_count(scene):
    encoder = CFOGEncoder(stride=1)
    query = sm.queries(scene, "arbitrary", 40, count=1, seed=5)
    features = encoder.forward_features(torch.from_numpy(sm.read_patch(scene, next(query.itertuples())))[None], "query")
    masks = torch.ones(1, 40, 40, dtype=torch.bool)
    masks[:, :, 25:] = False
    spoiled = torch.where(masks[:, None], features, torch.randn(features.shape))
    search = DenseSearch(build_maps(encoder, scene))
    np.testing.assert_allclose(
        search.search(spoiled, 1, masks).xy, query[["x", "y"]].to_numpy()[:, None], atol=1.5 * SIDE
    )


def test_a_map_encoded_in_windows_is_the_map_encoded_whole(scene, encoder):
    raster = scene.areas[0].map
    whole = encode_raster(encoder, raster, "reference", 10_000)
    parts = encode_raster(encoder, raster, "reference", 48)
    for (one, none), (other, _) in zip(whole, parts, strict=True):
        assert none is None
        torch.testing.assert_close(other, one, atol=2e-3, rtol=0)


def test_features_move_with_the_image(encoder):
    images = torch.from_numpy(ground(7, 96, 96))[None, None].expand(1, 3, -1, -1)
    moved = torch.roll(images, (4, -6), (2, 3))
    a, b = (encoder.forward_features(x, "reference") for x in (images, moved))
    cut = -(-encoder.reach // encoder.stride) + 6
    rolled = torch.roll(a, (4 // encoder.stride, -6 // encoder.stride), (2, 3))
    torch.testing.assert_close(b[..., cut:-cut, cut:-cut], rolled[..., cut:-cut, cut:-cut], atol=1e-5, rtol=0)


def test_holes_in_a_map_are_no_features_and_no_place(encoder, tmp_path):
    grey = np.repeat(ground(0)[None], 3, 0)
    grey[:, 40:140, 60:200] = np.nan
    raster = Raster.from_array("map", grey, "reflectance")
    ((features, valid),) = encode_raster(encoder, raster, "reference", 64)
    for _ in range(2):  # made and kept, then taken from there
        ((kept, seen),) = encode_raster(encoder, raster, "reference", 64, parts=tmp_path)
        assert torch.equal(kept, features) and torch.equal(seen, valid)
    stride = encoder.stride
    assert not valid[40 // stride : 140 // stride, 60 // stride : 200 // stride].any()
    assert valid[: 24 // stride].all() and (features[:, ~valid] == 0).all()
    scores = surface(FeatureMap(features, valid, (0.0, 0.0), 1.0), torch.randn(9, 40 // stride, 40 // stride))
    assert torch.isinf(scores[60 // stride, 100 // stride])


def test_maps_are_kept_under_what_made_them_and_found_again(scene, tmp_path, monkeypatch):
    first = build_maps(CFOGEncoder(), scene, keep=tmp_path)
    monkeypatch.setattr("sarmatch.search.maps.encode_raster", lambda *a, **k: pytest.fail("built anew"))
    again = build_maps(CFOGEncoder(), scene, keep=tmp_path)
    assert again.areas == first.areas and again.stride == first.stride == 2 and again.cells == first.cells
    for name in first.areas:
        assert torch.equal(again.maps[name].features, first.maps[name].features)
        assert again.maps[name].corner == first.maps[name].corner
    monkeypatch.undo()
    build_maps(CFOGEncoder(sigma=1.2), scene, keep=tmp_path)
    assert len(list(tmp_path.iterdir())) == 2
    monkeypatch.setattr(CFOGEncoder, "centred", False)
    for _ in range(2):  # built, then found; under another key than the centred ones
        assert not any(m.centred for m in build_maps(CFOGEncoder(), scene, keep=tmp_path).maps.values())
    assert len(list(tmp_path.iterdir())) == 3
    kept = next(tmp_path.iterdir())
    kept.write_bytes(b"damaged")
    with pytest.raises(ValueError, match=kept.name):
        DenseGallery.load(kept)


DAMAGES = {
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-100]),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
}


@pytest.mark.parametrize("damage", ["empty", "cut", "a folder"])
def test_damaged_maps_are_built_anew_with_a_warning(scene, tmp_path, damage):
    first = build_maps(CFOGEncoder(), scene, keep=tmp_path)
    kept = next(tmp_path.iterdir())
    DAMAGES[damage](kept)
    with pytest.warns(UserWarning, match=kept.name):
        again = build_maps(CFOGEncoder(), scene, keep=tmp_path)
    assert all(torch.equal(again.maps[name].features, first.maps[name].features) for name in first.areas)


def test_maps_that_cannot_be_kept_are_used(scene, tmp_path):
    (tmp_path / "full").write_bytes(b"")
    with pytest.warns(UserWarning, match="full.*cannot be kept"):
        assert build_maps(CFOGEncoder(), scene, keep=tmp_path / "full").cells


def test_short_maps_fill_lists_up_with_what_is_not_valid():
    fmap = FeatureMap(torch.randn(1, 12, 12), None, (0.0, 0.0), 1.0)
    found = DenseSearch(DenseGallery({"a": fmap}, 1)).search(torch.randn(2, 1, 10, 10), 30)
    assert found.scores.shape == (2, 30)
    assert found.valid[:, 0].all() and not found.valid[:, -1].any()


def test_a_map_without_contrast_finds_nobody(scene):
    tiles = sm.references(scene, 40)
    queries = sm.match(sm.queries(scene, "arbitrary", 40, count=60, seed=2), tiles, scene)
    flat = {a.name: FeatureMap(torch.ones(9, 90, 110), None, a.origin, 2 * SIDE) for a in scene.areas}
    found = DenseSearch(DenseGallery(flat, 2)).search(torch.randn(60, 9, 20, 20), 5)
    xy = queries[["x", "y"]].to_numpy()
    report = sm.candidate_report(found, queries["positive"].to_numpy(), tiles, 40 * SIDE, xy)
    assert report["recall@1"] < 0.15  # chance is one in forty


def test_what_does_not_fit_is_named(scene):
    search = DenseSearch(build_maps(CFOGEncoder(), scene, ["area 0"]))
    with pytest.raises(ValueError, match="no encoder"):
        search.search([torch.randn(1, 1, 40, 40)], 1)
    with pytest.raises(ValueError, match=r"must be \(Q, 9, h, w\)"):
        search.search(torch.randn(1, 3, 20, 20), 1)
    with pytest.raises(ValueError, match="k must be a whole number of at least 1, got 0"):
        search.search(torch.randn(1, 9, 20, 20), 0)
    with pytest.raises(ValueError, match=r"masks must be \(Q, h, w\), \(1, 20, 20\).*\(20, 20\)"):
        search.search(torch.randn(1, 9, 20, 20), 1, torch.ones(20, 20))
    with pytest.raises(ValueError, match="weights from 0 to 1, got 0 to 2"):
        search.search(torch.randn(1, 9, 20, 20), 1, torch.arange(20).clamp(max=2).expand(1, 20, 20))
    with pytest.raises(ValueError, match="radius must be a whole number of at least 1, got 0"):
        DenseSearch(search.gallery, radius=0)
    with pytest.raises(ValueError, match="radius must be a whole number of at least 1, got 1.5"):
        DenseSearch(search.gallery, radius=1.5)
    with pytest.raises(ValueError, match="queries must be finite"):
        search.search(torch.full((1, 9, 20, 20), torch.nan), 1)
    with pytest.raises(NotImplementedError, match="has no head"):
        CFOGEncoder().encode_query(torch.randn(1, 1, 40, 40))


def test_maps_that_are_none_are_named(scene):
    features = torch.zeros(9, 20, 20)
    place = (0.0, 0.0), 1.0
    for maps, message in (
        ({}, "no area"),
        ({"a": FeatureMap(features * torch.nan, None, *place)}, "map of area 'a': its features are not finite"),
        ({"a": FeatureMap(features, torch.ones(3, 3, dtype=torch.bool), *place)}, r"'a': .* with valid \(3, 3\)"),
        ({"a": FeatureMap(features, None, *place), "b": FeatureMap(features[:4], None, *place)}, r"'b': .*\(9, H, W\)"),
    ):
        with pytest.raises(ValueError, match=message):
            DenseGallery(maps, 2)
    for areas in ({"area 0": (0, 0, 10**6, 10)}, {"area 0": (10, 10, 10, 20)}, {"area 0": (-5, 0, 10, 10)}):
        with pytest.raises(ValueError, match="area 'area 0': pixels .* do not lie within its map"):
            build_maps(CFOGEncoder(), scene, areas)
    with pytest.raises(ValueError, match="HOGEncoder has no stride and reach"):
        build_maps(sm.create_encoder("hog", 32), scene)


def test_dense_and_vector_search_are_made_by_name(scene):
    assert {"dense", "vector"} <= set(sm.list_searches())
    assert isinstance(sm.create_search("dense", build_maps(CFOGEncoder(), scene, ["area 1"])), DenseSearch)


def test_an_encoder_is_used_in_evaluation_mode_whatever_mode_it_is_in(scene):
    torch.manual_seed(0)
    encoder = sm.create_encoder("dense", width=8, channels=4, dilations=(1,)).train()
    for parameter in encoder.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    image = torch.randn(3, 1, 40, 40)
    found = DenseSearch(build_maps(encoder, scene), encoder)
    trained = found.encode([image])
    assert encoder.training
    encoder.eval()
    torch.testing.assert_close(found.encode([image]), trained)
    for name, fmap in build_maps(encoder, scene).maps.items():
        assert torch.equal(fmap.features, found.gallery.maps[name].features)


ENCODERS = {
    "cfog": CFOGEncoder,
    "dense": lambda: sm.create_encoder("dense", width=8, channels=8, dilations=(1,), coarse=2),
}


@pytest.mark.parametrize("name", ENCODERS)
def test_maps_in_eight_bits_find_the_same_places_with_scores_within_a_hundredth(scene, name, tmp_path):
    torch.manual_seed(3)
    encoder = ENCODERS[name]()
    queries = sm.queries(scene, "arbitrary", 40, count=30, seed=4)
    images = torch.stack([torch.from_numpy(sm.read_patch(scene, q)) for q in queries.itertuples()])
    galleries = {p: build_maps(encoder, scene, keep=tmp_path / p, precision=p) for p in ("float32", "float16", "int8")}
    searches = {p: DenseSearch(gallery, encoder) for p, gallery in galleries.items()}
    features = searches["float32"].encode([images])
    found = {p: search.search(features, 1) for p, search in searches.items()}
    size = {p: next((tmp_path / p).iterdir()).stat().st_size for p in galleries}
    for precision, apart, part in (("float16", 0.001, 1 / 2), ("int8", 0.01, 1 / 4)):
        surfaces = (searches[p].surfaces(features) for p in (precision, "float32"))
        for a, b in zip(*surfaces, strict=True):
            assert 0 < (a - b).abs().max() < apart
        np.testing.assert_array_equal(found[precision].area, found["float32"].area)
        assert np.abs(found[precision].xy - found["float32"].xy).max() < 0.1 * SIDE * encoder.stride
        assert size[precision] == pytest.approx(part * size["float32"], rel=0.02)


def test_no_feature_of_eight_bits_is_off_by_more_than_half_a_step(scene, tmp_path):
    encoder = CFOGEncoder()
    exact, few = (build_maps(encoder, scene, precision=p, keep=tmp_path) for p in ("float32", "int8"))
    again = build_maps(encoder, scene, precision="int8", keep=tmp_path)
    for name, fmap in few.maps.items():
        true, side = exact.maps[name].features, exact.maps[name].features.shape[1:]
        assert fmap.features.dtype == torch.int8 and fmap.scale.shape == (9,)
        torch.testing.assert_close(127 * fmap.scale, true.abs().amax((1, 2)), atol=0, rtol=1e-3)
        error = (fmap.cut(0, 0, *side) - true).abs().amax((1, 2))
        assert (error <= 0.5 * fmap.scale + 5e-4 * true.abs().amax((1, 2))).all()  # those of half precision on top
        assert torch.equal(fmap.cut(-3, 4, 9, 9)[:, 3:], fmap.cut(0, 4, 6, 9))
        assert torch.equal(again.maps[name].features, fmap.features)
        assert torch.equal(again.maps[name].scale, fmap.scale)


def test_maps_of_numbers_that_are_none_are_named(scene):
    with pytest.raises(ValueError, match="precision is 'int4', expected one of .*'float16', 'float32', 'int8'"):
        build_maps(CFOGEncoder(), scene, precision="int4")
    few = torch.zeros(3, 9, 9, dtype=torch.int8)
    for scale in (None, torch.ones(2)):
        with pytest.raises(ValueError, match="map of area 'a': torch.int8 with .*expected floats, or int8 with one"):
            DenseGallery({"a": FeatureMap(few, None, (0.0, 0.0), 1.0, True, scale)}, 1)
