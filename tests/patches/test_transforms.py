"""Augmentations: geometry moves both images together, colours and speckle one alone, and chance is the generator's."""

import pytest
import torch

from sarmatch.patches.transforms import LUMA, TRANSFORMS, Pairs, augment, list_transforms, register_transform
from sarmatch.scenes.radiometry import STANDARD_WINDOW

OPTICAL_ONLY = ["grey", "one_channel", "channel_exchange", "intermediate"]
SAR_ONLY = ["jitter", "respeckle", "window"]


def pair(count: int = 64, size: int = 8) -> Pairs:
    generator = torch.Generator().manual_seed(0)
    query = torch.rand(count, 2, size, size, generator=generator) * 40 - 30
    return of(query, torch.rand(count, 3, size, size, generator=generator))


def of(query: torch.Tensor, reference: torch.Tensor) -> Pairs:
    return Pairs(query, reference, torch.zeros(len(query), 2))


def apply(name: str, pairs: Pairs, seed: int = 0) -> Pairs:
    return augment(pairs, [name], torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", TRANSFORMS)
def test_chance_is_the_generators_and_the_input_is_left_alone(name):
    images = pair()
    before = [i.clone() for i in images]
    first, again, other = apply(name, images), apply(name, images), apply(name, images, seed=1)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert name == "crop" or not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(images, before, strict=True))
    assert name == "crop" or all(a.shape == b.shape for a, b in zip(first, images, strict=True))


def test_what_changes_the_colours_of_tiles_alone_fits_panoramas():
    """Panoramas are no SAR, so a transform that fits them leaves them alone or turns them with their tiles."""
    assert list_transforms(views=True) == sorted([*OPTICAL_ONLY, "turn_views"])
    assert set(SAR_ONLY) < set(list_transforms()) and set(list_transforms(views=True)) < set(list_transforms())
    panoramas = torch.rand(64, 3, 4, 16, generator=torch.Generator().manual_seed(1))
    pairs = of(panoramas, pair().reference)
    for name in OPTICAL_ONLY:
        query, reference, _ = apply(name, pairs)
        assert torch.equal(query, panoramas) and not torch.equal(reference, pairs.reference)


@pytest.mark.parametrize("name", [*OPTICAL_ONLY, *SAR_ONLY])
def test_who_is_changed(name):
    images = pair()
    query, reference, offset = apply(name, images)
    assert torch.equal(offset, images.offset)
    assert torch.equal(query, images[0]) == (name in OPTICAL_ONLY)
    assert torch.equal(reference, images[1]) == (name in SAR_ONLY)


def test_geometry_moves_both_images_alike():
    """A mark in the same corner of both is found in one corner again."""
    query, reference = torch.zeros(200, 1, 5, 5), torch.zeros(200, 3, 5, 5)
    query[:, :, 0, 1], reference[:, :, 0, 1] = 1, 1
    turned, also, _ = apply("dihedral", of(query, reference))
    assert torch.equal(turned.expand_as(also), also)
    places = {tuple(p.nonzero()[0].tolist()) for p in turned[:, 0]}
    assert len(places) == 8, "eight symmetries of the square"


def test_the_offset_goes_with_the_images():
    """A query cut from its reference is found where the offset says, however both were turned."""
    whole = torch.rand(200, 1, 12, 12, generator=torch.Generator().manual_seed(1))
    top, left = 1, 2
    query = whole[:, :, top : top + 6, left : left + 6]
    offset = torch.tensor([12 / 2 - (top + 3), 12 / 2 - (left + 3)]).expand(200, 2)
    turned = apply("dihedral", Pairs(query, whole, offset))
    corners = ((12 - 6) / 2 - turned.offset).long()
    assert len({tuple(c.tolist()) for c in corners}) == 8
    for small, large, (row, col) in zip(turned.query, turned.reference, corners, strict=True):
        assert torch.equal(small, large[:, row : row + 6, col : col + 6])


def test_jitter_turns_and_scales_about_the_middle():
    ramp = torch.linspace(-1, 1, 33)
    query = torch.stack([ramp.expand(33, 33), ramp[:, None].expand(33, 33)])[None].repeat(300, 1, 1, 1)
    changed = apply("jitter", of(query, torch.zeros(300, 3, 4, 4))).query
    torch.testing.assert_close(changed[:, :, 16, 16], torch.zeros(300, 2), atol=1e-5, rtol=0)
    right = (changed[:, :, 16, 24] - changed[:, :, 16, 16]) / query[0, 0, 16, 24]
    scale, angle = right.norm(dim=1), torch.rad2deg(torch.atan2(right[:, 1], right[:, 0]))
    assert scale.min() >= 0.959 and scale.max() <= 1.041 and scale.std() > 0.02
    assert angle.abs().max() <= 4.01 and angle.std() > 2


def test_a_cropped_query_keeps_its_middle():
    pairs = pair(3)
    seen = {}
    for seed in range(40):
        query, reference, offset = apply("crop", pairs, seed)
        assert torch.equal(reference, pairs.reference) and torch.equal(offset, pairs.offset)
        cut = (8 - query.shape[-1]) // 2
        assert torch.equal(query, pairs.query[:, :, cut : 8 - cut, cut : 8 - cut])
        seen[query.shape[-1]] = seen.get(query.shape[-1], 0) + 1
    assert set(seen) == {4, 6, 8} and seen[8] > 10


def test_gamma_keeps_the_mean_of_sar_and_the_range_of_the_map():
    pairs = pair(100)
    changed = apply("gamma", pairs)
    torch.testing.assert_close(changed.query.mean((1, 2, 3)), pairs.query.mean((1, 2, 3)), atol=1e-4, rtol=0)
    ratio = changed.query.std((1, 2, 3)) / pairs.query.std((1, 2, 3))
    assert ratio.min() >= 0.799 and ratio.max() <= 1.251 and ratio.std() > 0.05
    assert changed.reference.min() >= 0 and changed.reference.max() <= 1


def test_grey_is_the_luma_of_half_of_the_images():
    _, images, _ = pair(400)
    _, changed, _ = apply("grey", pair(400))
    grey = (images * torch.tensor(LUMA)[:, None, None]).sum(1, keepdim=True).expand_as(images)
    is_grey = torch.tensor([torch.allclose(c, g) for c, g in zip(changed, grey, strict=True)])
    same = torch.tensor([torch.equal(c, i) for c, i in zip(changed, images, strict=True)])
    assert (is_grey ^ same).all()
    assert 0.4 < is_grey.float().mean() < 0.6


def test_one_channel_is_one_of_four():
    pairs = pair(400)
    images, changed = pairs.reference, apply("one_channel", pairs).reference
    kinds = torch.cat([images, (images * torch.tensor(LUMA)[:, None, None]).sum(1, keepdim=True)], dim=1)
    seen = set()
    for new, old, kind in zip(changed, images, kinds, strict=True):
        if torch.equal(new, old):
            continue
        match = [i for i in range(4) if torch.allclose(new, kind[i].expand_as(new))]
        assert len(match) == 1
        seen.update(match)
    assert seen == {0, 1, 2, 3}


def test_exchange_keeps_the_channels_as_a_set():
    pairs = pair(200)
    images, changed = pairs.reference, apply("channel_exchange", pairs).reference
    torch.testing.assert_close(changed.sort(1).values, images.sort(1).values)
    orders = {
        tuple(int((c == i[k]).all((1, 2)).nonzero()) for k in range(3)) for c, i in zip(changed, images, strict=True)
    }
    assert len(orders) == 6


def test_intermediate_images_have_no_colour_and_stay_in_range():
    pairs = pair(200)
    changed = apply("intermediate", pairs).reference
    colourless = (changed == changed[:, :1]).all((1, 2, 3))
    assert 0.35 < colourless.float().mean() < 0.65
    assert changed.min() >= 0
    assert changed.max() <= 1


def test_fresh_speckle_has_mean_one_and_the_variance_of_four_looks():
    query = torch.zeros(50, 1, 64, 64)
    changed = apply("respeckle", of(query, torch.zeros(50, 3, 64, 64))).query
    power = 10 ** (changed / 10)
    assert power.mean().item() == pytest.approx(1, abs=0.01)
    assert power.var().item() == pytest.approx(1 / 4, abs=0.01)


def test_a_window_only_clips():
    query = torch.linspace(STANDARD_WINDOW[0] - 5, STANDARD_WINDOW[1] + 5, 100).repeat(30, 1, 1, 1)
    changed = apply("window", of(query, torch.zeros(30, 3, 1, 100))).query
    inside = (query > STANDARD_WINDOW[0] + 6) & (query < STANDARD_WINDOW[1] - 6)
    torch.testing.assert_close(changed[inside], query[inside])
    low, high = changed.amin((1, 2, 3)), changed.amax((1, 2, 3))
    assert ((low >= STANDARD_WINDOW[0]) & (low <= STANDARD_WINDOW[0] + 6)).all()
    assert ((high <= STANDARD_WINDOW[1]) & (high >= STANDARD_WINDOW[1] - 6)).all()


def test_a_transform_of_ones_own_is_a_function_and_a_name():
    @register_transform("negative")
    def negative(pairs, generator):
        return pairs._replace(reference=1 - pairs.reference)

    try:
        images = pair()
        assert torch.equal(apply("negative", images).reference, 1 - images.reference)
        assert "negative" in list_transforms()
    finally:
        del TRANSFORMS._things["negative"]


def test_an_unknown_name_is_named():
    with pytest.raises(ValueError, match="'flip'.*dihedral"):
        apply("flip", pair())
