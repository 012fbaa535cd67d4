"""Dense encoders: a map moves with its image, whatever window it is made in, and starts where CFOG ends."""

import pytest
import torch

from sarmatch.encoders import CFOGEncoder, DenseEncoder, cfog, create_encoder
from sarmatch.encoders.orientation import blurred, oriented


def jolted(stride=2, **options):
    """A dense encoder whose every layer says something."""
    torch.manual_seed(0)
    encoder = DenseEncoder(stride=stride, width=8, channels=6, dilations=(1, 2), **options)
    for parameter in encoder.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return encoder.eval()


def image(modality, side=320, seed=1):
    generator = torch.Generator().manual_seed(seed)
    if modality == "query":
        return 10 * torch.randn(1, 1, side, side, generator=generator) - 20
    return torch.rand(1, 3, side, side, generator=generator)


ENCODERS = {  # and which of their levels
    "cfog": (lambda: CFOGEncoder(stride=2), 0),
    "cfog 4": (lambda: CFOGEncoder(stride=4), 0),
    "dense": (jolted, 0),
    "dense 4": (lambda: jolted(4), 0),
    "dense, coarse": (jolted, 1),
}


@pytest.mark.parametrize("modality", ["query", "reference"])
@pytest.mark.parametrize("name", ENCODERS)
@torch.no_grad()
def test_a_map_moves_with_its_image(name, modality):
    make, level = ENCODERS[name]
    encoder = make()
    stride, cells = encoder.levels[level], 3
    whole = image(modality, 4 * encoder.reach + 64 * stride)
    moved = whole[:, :, cells * stride :, cells * stride :]
    margin = -(-encoder.reach // stride)
    first = encoder.forward_levels(whole, modality)[level][:, :, cells:, cells:]
    second = encoder.forward_levels(moved, modality)[level]
    inner = slice(margin, -margin)
    torch.testing.assert_close(first[:, :, inner, inner], second[:, :, inner, inner], atol=2e-4, rtol=1e-3)
    assert first[:, :, inner, inner].std() > 1e-3


@pytest.mark.parametrize("modality", ["query", "reference"])
@torch.no_grad()
def test_nothing_beyond_its_reach_is_seen(modality):
    encoder = jolted()
    side = 2 * encoder.reach + 32
    plain = image(modality, side)
    changed = plain.clone()
    changed[..., : side // 2 - encoder.reach - 1, :] += 1.0
    middle = side // 2 // encoder.stride
    before, after = (encoder.forward_features(i, modality)[:, :, middle] for i in (plain, changed))
    torch.testing.assert_close(before, after, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_before_the_first_step_it_is_one_mix_of_orientations_for_both():
    encoder = DenseEncoder().eval()
    assert torch.equal(encoder.branch["query"].mix.weight, encoder.branch["reference"].mix.weight)
    picture = image("reference", 64)
    fine, coarse = encoder.forward_levels(picture, "reference")
    channels, _ = encoder._channels(encoder._seen(picture, "reference"))
    torch.testing.assert_close(fine, encoder.branch["reference"].mix(channels))
    torch.testing.assert_close(coarse, torch.nn.functional.avg_pool2d(fine, 4), atol=1e-5, rtol=1e-4)


def test_levels_and_their_strides():
    encoder = create_encoder("dense", stride=4, coarse=2, sar_bands=2)
    assert encoder.levels == (4, 8)
    fine, coarse = encoder.forward_levels(torch.randn(2, 2, 64, 96), "query")
    assert fine.shape == (2, 16, 16, 24) and coarse.shape == (2, 16, 8, 12)
    assert not hasattr(encoder, "feature_dim") and not encoder.centred
    with pytest.raises(ValueError, match="stride must be even and at least 2, got 3"):
        create_encoder("dense", stride=3)


def test_oriented_gradients_are_what_they_say():
    """A ramp at angle a has |cos(a - t)| along direction t, and a bright edge is as good as a dark one."""
    rows, cols = torch.meshgrid(torch.arange(9.0), torch.arange(9.0), indexing="ij")
    for a in (0.0, 0.3, 2.0):
        angle = torch.tensor(a)
        ramp = (cols * angle.cos() + rows * angle.sin())[None, None]
        found = oriented(ramp)[0, :, 4, 4]
        expected = (angle - torch.arange(9) * torch.pi / 9).cos().abs()
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(oriented(-ramp), oriented(ramp))


def test_blurring_keeps_the_sum_and_has_the_variance_of_its_gaussian():
    spot = torch.zeros(1, 2, 41, 41)
    spot[:, :, 20, 20] = 1
    smooth = blurred(spot, 2.0)[0, 1]
    away = torch.arange(41.0) - 20
    assert smooth.sum().item() == pytest.approx(1, abs=1e-4)
    assert (smooth.sum(0) * away.square()).sum().item() == pytest.approx(4, rel=0.01)


def test_cfog_has_length_one_where_there_is_an_edge():
    features = cfog(torch.rand(1, 32, 32))
    torch.testing.assert_close(features.norm(dim=1), torch.ones(1, 32, 32), atol=1e-3, rtol=0)
    assert torch.equal(cfog(torch.zeros(1, 8, 8)), torch.zeros(1, 9, 8, 8))
