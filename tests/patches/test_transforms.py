"""Augmentations: geometry moves both images together, colours and speckle one alone, and chance is the generator's."""

import pytest
import torch

from sarmatch.patches.transforms import LUMA, TRANSFORMS, augment, list_transforms, register_transform
from sarmatch.scenes.radiometry import STANDARD_WINDOW

OPTICAL_ONLY = ["grey", "one_channel", "channel_exchange", "intermediate"]
SAR_ONLY = ["respeckle", "window"]


def pair(count: int = 64, size: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    query = torch.rand(count, 2, size, size, generator=generator) * 40 - 30
    return query, torch.rand(count, 3, size, size, generator=generator)


def apply(name: str, *images: torch.Tensor, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    return augment(*images, [name], torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", TRANSFORMS)
def test_chance_is_the_generators_and_the_input_is_left_alone(name):
    images = pair()
    before = [i.clone() for i in images]
    first, again, other = apply(name, *images), apply(name, *images), apply(name, *images, seed=1)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(images, before, strict=True))
    assert all(a.shape == b.shape for a, b in zip(first, images, strict=True))


@pytest.mark.parametrize("name", [*OPTICAL_ONLY, *SAR_ONLY])
def test_who_is_changed(name):
    images = pair()
    query, reference = apply(name, *images)
    assert torch.equal(query, images[0]) == (name in OPTICAL_ONLY)
    assert torch.equal(reference, images[1]) == (name in SAR_ONLY)


def test_geometry_moves_both_images_alike():
    """A mark in the same corner of both is found in one corner again."""
    query, reference = torch.zeros(200, 1, 5, 5), torch.zeros(200, 3, 5, 5)
    query[:, :, 0, 1], reference[:, :, 0, 1] = 1, 1
    turned, also = apply("dihedral", query, reference)
    assert torch.equal(turned.expand_as(also), also)
    places = {tuple(p.nonzero()[0].tolist()) for p in turned[:, 0]}
    assert len(places) == 8, "eight symmetries of the square"


def test_grey_is_the_luma_of_half_of_the_images():
    _, images = pair(400)
    _, changed = apply("grey", *pair(400))
    grey = (images * torch.tensor(LUMA)[:, None, None]).sum(1, keepdim=True).expand_as(images)
    is_grey = torch.tensor([torch.allclose(c, g) for c, g in zip(changed, grey, strict=True)])
    same = torch.tensor([torch.equal(c, i) for c, i in zip(changed, images, strict=True)])
    assert (is_grey ^ same).all()
    assert 0.4 < is_grey.float().mean() < 0.6


def test_one_channel_is_one_of_four():
    query, images = pair(400)
    _, changed = apply("one_channel", query, images)
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
    query, images = pair(200)
    _, changed = apply("channel_exchange", query, images)
    torch.testing.assert_close(changed.sort(1).values, images.sort(1).values)
    orders = {
        tuple(int((c == i[k]).all((1, 2)).nonzero()) for k in range(3)) for c, i in zip(changed, images, strict=True)
    }
    assert len(orders) == 6


def test_intermediate_images_have_no_colour_and_stay_in_range():
    query, images = pair(200)
    _, changed = apply("intermediate", query, images)
    colourless = (changed == changed[:, :1]).all((1, 2, 3))
    assert 0.35 < colourless.float().mean() < 0.65
    assert changed.min() >= 0
    assert changed.max() <= 1


def test_fresh_speckle_has_mean_one_and_the_variance_of_four_looks():
    query = torch.zeros(50, 1, 64, 64)
    changed, _ = apply("respeckle", query, torch.zeros(50, 3, 64, 64))
    power = 10 ** (changed / 10)
    assert power.mean().item() == pytest.approx(1, abs=0.01)
    assert power.var().item() == pytest.approx(1 / 4, abs=0.01)


def test_a_window_only_clips():
    query = torch.linspace(STANDARD_WINDOW[0] - 5, STANDARD_WINDOW[1] + 5, 100).repeat(30, 1, 1, 1)
    changed, _ = apply("window", query, torch.zeros(30, 3, 1, 100))
    inside = (query > STANDARD_WINDOW[0] + 6) & (query < STANDARD_WINDOW[1] - 6)
    torch.testing.assert_close(changed[inside], query[inside])
    low, high = changed.amin((1, 2, 3)), changed.amax((1, 2, 3))
    assert ((low >= STANDARD_WINDOW[0]) & (low <= STANDARD_WINDOW[0] + 6)).all()
    assert ((high <= STANDARD_WINDOW[1]) & (high >= STANDARD_WINDOW[1] - 6)).all()


def test_a_transform_of_ones_own_is_a_function_and_a_name():
    @register_transform("negative")
    def negative(query, reference, generator):
        return query, 1 - reference

    try:
        images = pair()
        assert torch.equal(apply("negative", *images)[1], 1 - images[1])
        assert "negative" in list_transforms()
    finally:
        del TRANSFORMS._things["negative"]


def test_an_unknown_name_is_named():
    with pytest.raises(ValueError, match="'flip'.*dihedral"):
        apply("flip", *pair())
