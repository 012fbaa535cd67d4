"""Dense encoders: a map moves with its image, whatever window it is made in, and starts where CFOG ends."""

import pytest
import timm
import torch
from safetensors.torch import save_file

from sarmatch.encoders import CFOGEncoder, DenseEncoder, DenseTimm, cfog, create_encoder
from sarmatch.encoders.orientation import blurred, oriented
from sarmatch.encoders.unet import UNet
from sarmatch.search.windows import window_scores


def jolted(stride=2, **options):
    """A dense encoder whose every layer says something."""
    torch.manual_seed(0)
    encoder = DenseEncoder(stride=stride, width=8, channels=6, dilations=(1, 2), **options)
    for parameter in encoder.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return encoder.eval()


def timm_level(backbone, stride):
    torch.manual_seed(1)
    return DenseTimm(backbone=backbone, stride=stride, channels=6).eval()


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
    "dense, confidence": (lambda: jolted(confidence=True), 0),
    "dense, five scales": (lambda: jolted(scales=(0.8, 1.6, 3.2, 6.4, 12.8)), 0),
    "dense, shared": (lambda: jolted(shared=True), 0),
    "dense, U-Net": (lambda: jolted(depth=2, coarse=4), 1),  # which moves by whole cells of its coarsest level
    "resnet10t": (lambda: timm_level("resnet10t", 4), 0),
    "resnet10t, coarse": (lambda: timm_level("resnet10t", 4), 1),
    "convnext": (lambda: timm_level("convnext_atto", 4), 0),
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


@pytest.mark.parametrize("options", [{}, {"depth": 2}, {"scales": (0.8, 25.6)}], ids=str)
@pytest.mark.parametrize("modality", ["query", "reference"])
@torch.no_grad()
def test_nothing_beyond_its_reach_is_seen(modality, options):
    encoder = jolted(**options)
    side = 2 * encoder.reach + 32
    plain = image(modality, side)
    changed = plain.clone()
    changed[..., : side // 2 - encoder.reach - 1, :] += 1.0
    middle = side // 2 // encoder.stride
    before, after = (encoder.forward_features(i, modality)[:, :, middle] for i in (plain, changed))
    torch.testing.assert_close(before, after, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_the_reach_of_a_unet_is_what_it_depends_on_and_hardly_more(depth):
    torch.manual_seed(depth)
    network, cell = UNet(1, 1, 2, depth).double().eval(), 2**depth
    for parameter in network.parameters():
        parameter.data.abs_()  # so that nothing cancels out
    width, seen = 2 * network.reach() + 4 * cell, []
    for at in range(width // 2 // cell * cell, width // 2 // cell * cell + cell):
        images = torch.rand(1, 1, cell, width, dtype=torch.float64, requires_grad=True)
        (gradient,) = torch.autograd.grad(network(images)[0, 0, 0, at], images)
        columns = gradient[0, 0].abs().sum(0).nonzero()[:, 0]
        seen += [at - int(columns.min()), int(columns.max()) - at]
    assert max(seen) <= network.reach() < max(seen) + 2 * cell


@torch.no_grad()
def test_before_the_first_step_it_is_one_mix_of_orientations_for_both():
    encoder = DenseEncoder().eval()
    assert torch.equal(encoder.branch["query"].mix.weight, encoder.branch["reference"].mix.weight)
    picture = image("reference", 64)
    fine, coarse = encoder.forward_levels(picture, "reference")
    channels, _ = encoder._channels(encoder._seen(picture, "reference"))
    torch.testing.assert_close(fine, encoder.branch["reference"].mix(channels))
    torch.testing.assert_close(coarse, torch.nn.functional.avg_pool2d(fine, 4), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("options", [{"depth": 2}, {"shared": True}, {"scales": (0.8, 1.6, 3.2, 6.4, 12.8)}], ids=str)
@torch.no_grad()
def test_other_networks_begin_with_the_mix_too(options):
    encoder = DenseEncoder(**options).eval()
    picture = image("reference", 64)
    channels, _ = encoder._channels(encoder._seen(picture, "reference"))
    torch.testing.assert_close(
        encoder.forward_features(picture, "reference"), encoder.branch["reference"].mix(channels)
    )


@torch.no_grad()
def test_a_shared_trunk_sees_no_modality():
    encoder = jolted(shared=True)
    grey = torch.rand(1, 1, 64, 64)
    seen = (encoder.branch[m](*encoder._channels(grey)) for m in ("query", "reference"))
    for query, reference in zip(*seen, strict=True):
        assert torch.equal(query, reference)
    halves = [sum(p.numel() for p in jolted(shared=s).parameters()) for s in (True, False)]
    assert 1.9 < halves[1] / halves[0] < 2.1


def test_networks_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="coarse must be a multiple of the 8 cells of a U-Net of depth 3, got 4"):
        create_encoder("dense", depth=3)
    with pytest.raises(ValueError, match="shared and confidence are both set"):
        create_encoder("dense", shared=True, confidence=True)


def test_levels_and_their_strides():
    encoder = create_encoder("dense", stride=4, coarse=2, sar_bands=2)
    assert encoder.levels == (4, 8)
    fine, coarse = encoder.forward_levels(torch.randn(2, 2, 64, 96), "query")
    assert fine.shape == (2, 16, 16, 24) and coarse.shape == (2, 16, 8, 12)
    assert not hasattr(encoder, "feature_dim") and not encoder.centred
    with pytest.raises(ValueError, match="stride must be even and at least 2, got 3"):
        create_encoder("dense", stride=3)


@torch.no_grad()
def test_before_the_first_step_all_cells_are_trusted_alike():
    sure, plain = DenseEncoder(confidence=True, coarse=2).eval(), DenseEncoder(coarse=2).eval()
    plain.load_state_dict({k: v for k, v in sure.state_dict().items() if "trust" not in k})
    query, window = image("query", 32), image("reference", 48)
    levels = zip(sure.forward_levels(query, "query"), plain.forward_levels(query, "query"), strict=True)
    windows = plain.forward_levels(window, "reference")
    for (own, without), under in zip(levels, windows, strict=True):
        assert own.shape[1] == 17 and without.shape[1] == under.shape[1] == 16
        assert own[:, -1].std() < 1e-7
        found, expected = (window_scores(q, under, False) for q in (own, without))
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    assert sure.forward_features(window, "reference").shape[1] == 16


def test_whom_to_trust_is_learned_by_the_same_loss():
    encoder = DenseEncoder(confidence=True, coarse=2, width=8, dilations=(1,))
    scores = window_scores(
        encoder.forward_features(image("query", 32), "query"),
        encoder.forward_features(image("reference", 48), "reference"),
        encoder.centred,
    )
    scores[0, 0, 3, 4].backward()
    assert encoder.branch["query"].trust.weight.grad.abs().max() > 1e-5
    assert encoder.branch["reference"].trust is None


def test_what_half_of_the_query_shows_is_learned_to_be_left_out():
    """The left half of every query is noise of the strength of the rest; what is left out there makes the score."""
    torch.manual_seed(0)
    trust = torch.nn.Parameter(torch.zeros(1, 1, 12, 12))
    optimiser = torch.optim.Adam([trust], lr=0.3)
    for _ in range(30):
        windows = torch.randn(4, 3, 20, 20)
        queries = windows[:, :, 4:16, 4:16].clone()
        queries[..., :6] = torch.randn(4, 3, 12, 6)
        own = trust.sigmoid().expand(4, -1, -1, -1)
        right = window_scores(torch.cat([queries, own], 1), windows, False).diagonal()[4, 4]
        optimiser.zero_grad()
        (-right.mean()).backward()
        optimiser.step()
    weight = trust.detach().sigmoid()[0, 0]
    assert weight[:, :6].max() < 0.2 and weight[:, 6:].min() > 0.4


@pytest.mark.parametrize(("pooling", "dim"), [("gem", 16), ("safa", 128), ("smd", 128), ("pyramid", 256)])
@torch.no_grad()
def test_vectors_are_pooled_from_features_of_any_size(pooling, dim):
    torch.manual_seed(0)
    encoder = create_encoder("dense", pooling=pooling, width=8, dilations=(1,)).eval()
    assert encoder.feature_dim == dim
    for side in (32, 72):
        vectors = encoder.encode_query(image("query", side)), encoder.encode_reference(image("reference", side))
        for one in vectors:
            assert one.shape == (1, dim) and one.norm() == pytest.approx(1, abs=1e-5)
    nothing = torch.zeros(2, 16, 9, 9)
    assert encoder.forward_head(nothing, "reference").std(0).max() < 1e-6
    with pytest.raises(ValueError, match="no aggregator is called 'nope'"):
        create_encoder("dense", pooling="nope")
    with pytest.raises(NotImplementedError, match="has no head"):
        DenseEncoder().encode_query(image("query", 32))


def test_levels_of_timm_backbones_and_what_is_none():
    encoder = create_encoder("dense_timm", backbone="resnet10t", stride=8, coarse=2, sar_bands=2, channels=5)
    assert encoder.levels == (8, 16) and encoder.trainable
    for modality, bands in (("query", 2), ("reference", 3)):
        fine, coarse = encoder.forward_levels(torch.randn(2, bands, 71, 96), modality)  # 71 px are 8 cells and a rest
        assert fine.shape == (2, 5, 8, 12) and coarse.shape == (2, 5, 4, 6)
    for backbone, stride, message in (
        ("resnet10t", 3, r"backbone 'resnet10t' has levels of \[2, 4, 8, 16, 32\] px"),
        ("vit_tiny_patch16_224", 16, r"levels of \[16, 16, 16\] px.*once"),
        ("mobilenetv3_small_050", 4, "a cell of 4 px sees 1024 px and more.*squeeze and excitation"),
        ("resnet_nope", 4, "no backbone is called 'resnet_nope'"),
    ):
        with pytest.raises(ValueError, match=message):
            create_encoder("dense_timm", backbone=backbone, stride=stride)


def test_a_timm_level_begins_with_the_weights_of_a_file(tmp_path):
    whole, file = timm.create_model("resnet10t"), tmp_path / "weights.safetensors"
    save_file(whole.state_dict(), file)
    encoder = DenseTimm(backbone="resnet10t", pretrained=str(file))
    own, first = encoder.branch["reference"].trunk, encoder.branch["query"].trunk
    assert torch.equal(own.layer1[0].conv1.weight, whole.layer1[0].conv1.weight)
    assert torch.equal(own.conv1[0].weight, whole.conv1[0].weight)
    torch.testing.assert_close(first.conv1[0].weight, whole.conv1[0].weight.sum(1, keepdim=True))
    save_file({"other": torch.zeros(3)}, file)
    with pytest.raises(ValueError, match="weights of another network"):
        DenseTimm(backbone="resnet10t", pretrained=str(file))


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
