"""Published systems: their size to the digit, their parts against another library's, and the contract of encoders."""

import re

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from sarmatch.alignment import create_alignment
from sarmatch.encoders import create_encoder, embed, list_encoders
from sarmatch.encoders.pretrained import LITE0, in_order
from sarmatch.encoders.systems import matchers
from sarmatch.losses import create_loss
from sarmatch.scenes import Raster
from sarmatch.search.maps import encode_raster, margin_of, windows_of
from sarmatch.search.windows import window_scores
from sarmatch.training.checkpoints import load_weights, save_weights

VIGOR = {"image_size": 320, "query_size": (320, 640), "sar_bands": 3}
CVUSA = {"image_size": 256, "query_size": (128, 512), "sar_bands": 3}


def on_meta(name, **options):
    with torch.device("meta"):
        return create_encoder(name, **options)


def count(module):
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    ("name", "options", "query", "reference", "whole"),
    [
        ("saig_s", VIGOR, 9_309_696 + 5_130_408, 9_156_096 + 1_285_208, 24_881_408),
        ("saig_d", VIGOR, 15_823_104 + 5_130_408, 15_669_504 + 1_285_208, 37_908_224),
        ("saig_s", CVUSA, 9_100_800 + 527_624, 9_100_800 + 527_624, 19_256_848),
        ("saig_d", CVUSA, 15_614_208 + 527_624, 15_614_208 + 527_624, 32_283_664),
        ("saig_d", CVUSA | {"aggregator": "average"}, 15_614_208, 15_614_208, 2 * 15_614_208),
        ("transgeo", VIGOR, 22_668_368, 22_514_768, 45_183_136),
        ("transgeo", VIGOR | {"zoom": 1.25}, 22_668_368, 22_601_168, 22_668_368 + 22_601_168),
        ("transgeo", CVUSA | {"query_size": (112, 616)}, 22_463_312, 22_459_472, 44_922_784),
        ("vigor", VIGOR, 14_714_688 + 322_400, 14_714_688 + 81_200, 29_832_976),
        ("sample4geo", {"image_size": 384}, 87_566_464, 87_566_464, 87_566_464),
        ("cmpc", {"image_size": 200}, 23_508_032 + 1_050_112, 23_508_032 + 1_050_112, 23_508_032 + 1_050_112),
    ],
)
def test_parameters_are_as_many_as_published(name, options, query, reference, whole):
    encoder = on_meta(name, **options)
    assert count(encoder.branch["query"]) == query
    assert count(encoder.branch["reference"]) == reference
    assert count(encoder) == whole


def test_what_learns_beside_the_encoder_has_its_published_size():
    assert count(create_loss("offset_regression", 4096)) == 4_195_842
    assert count(create_loss("infonce", learnable_temperature=True)) == 1
    assert count(create_alignment("wasserstein_clipped", 512).critic) == 525_825


def test_tokens_and_dimensions_are_as_published():
    saig = on_meta("saig_d", **VIGOR)
    assert (saig.branch["query"].cells, saig.branch["reference"].cells) == ((20, 40), (20, 20))
    assert saig.feature_dim == 3072 and on_meta("saig_d", **VIGOR, aggregator="average").feature_dim == 384
    vigor = on_meta("vigor", **VIGOR)
    assert (vigor.branch["query"].head.cells, vigor.branch["reference"].head.cells) == ((10, 20), (10, 10))
    assert vigor.feature_dim == 4096
    cmpc = on_meta("cmpc", image_size=200)
    assert cmpc.stride == 16 and cmpc.feature_dim == 512 and cmpc.eval().feature_dim == 2048


@pytest.mark.parametrize(("side", "patches", "kept"), [(320, 625, 400), (256, 400, 256)])
def test_the_second_stage_keeps_as_many_patches_as_published(side, patches, kept):
    branch = on_meta("transgeo", image_size=side, zoom=1.25).branch["reference"]
    assert branch.cells[0] * branch.cells[1] == patches
    assert branch.kept == kept == branch.first[0] * branch.first[1]


SMALL = {
    "saig_s": {"dim": 24, "heads": 3, "depth": 2},
    "saig_d": {"dim": 24, "heads": 3, "depth": 3, "aggregator": "average"},
    "transgeo": {"patch_size": 16, "embed_dim": 24, "num_heads": 3, "depth": 3, "feature_dim": 10},
    "vigor": {"scale": 0.1},
    "cvm_net": {"scale": 0.1, "clusters": 4, "feature_dim": 12},
    "sample4geo": {"backbone": "convnext_atto", "depths": (1, 1, 1, 1), "dims": (8, 8, 16, 16)},
    "cmpc": {"backbone": "resnet18", "feature_dim": 12},
    "l2ltr": {
        "backbone": "vit_tiny_r_s16_p8_224", "patch_size": 4, "embed_dim": 24, "num_heads": 3, "depth": 3,
    },
}  # fmt: skip


def small(name, **options):
    torch.manual_seed(0)
    return create_encoder(name, image_size=64, **SMALL[name] | options).eval()


@pytest.mark.parametrize("name", SMALL)
@torch.no_grad()
def test_embeddings_have_unit_length_and_come_from_the_feature_map(name):
    encoder = small(name)
    for modality, channels in (("query", 1), ("reference", 3)):
        images = torch.rand(2, channels, 64, 64)
        images[1] = 10 * images[1] - 3  # untrained attention averages cells: what differs must differ by much
        features = encoder.forward_features(images, modality)
        assert features.shape[2:] == (64 // encoder.stride, 64 // encoder.stride)
        vectors = encoder.forward_head(features, modality)
        assert vectors.shape == (2, encoder.feature_dim)
        torch.testing.assert_close(vectors.norm(dim=1), torch.ones(2))
        assert (vectors[0] - vectors[1]).abs().max() > 1e-5, "two images must not look the same"


@pytest.mark.parametrize("name", ["saig_s", "transgeo", "vigor", "l2ltr", "sample4geo", "cvm_net"])
@torch.no_grad()
def test_the_two_inputs_may_differ_in_size(name):
    encoder = small(name, query_size=[32, 96])
    assert encoder.encode_query(torch.rand(2, 1, 32, 96)).shape == (2, encoder.feature_dim)
    assert encoder.encode_reference(torch.rand(2, 3, 64, 64)).shape == (2, encoder.feature_dim)


@pytest.mark.parametrize("name", ["cmpc", "transgeo"])
def test_weights_survive_the_disk(name, tmp_path):
    first, second = small(name), small(name)
    for parameter in first.parameters():
        parameter.data += 0.1
    images = torch.rand(2, 1, 64, 64)
    assert not torch.allclose(first.encode_query(images), second.encode_query(images))
    save_weights(first, tmp_path / "model.safetensors")
    load_weights(second, tmp_path / "model.safetensors")
    torch.testing.assert_close(first.encode_query(images), second.encode_query(images))


# ------------------------------------------------------------------------------------------------------ SAIG, L2LTR
def attended_by_torch(tokens, before, qkv, proj, heads):
    """Attention from one set of tokens to another, as torch computes it."""
    dim = tokens.shape[2]
    tokens, before = tokens.transpose(0, 1), before.transpose(0, 1)
    mixed, _ = F.multi_head_attention_forward(
        tokens, before, before, dim, heads, qkv.weight, qkv.bias, None, None, False, 0.0, proj.weight, proj.bias
    )
    return mixed.transpose(0, 1)


@torch.no_grad()
def test_a_block_of_saig_is_attention_around_a_skip_and_no_mlp():
    block = small("saig_s").branch["query"].blocks[0]
    tokens = torch.randn(2, 16, 24)
    normal = block.norm(tokens)
    torch.testing.assert_close(
        block(tokens), tokens + attended_by_torch(normal, normal, block.qkv, block.proj, 3), atol=1e-5, rtol=1e-4
    )
    assert [type(m).__name__ for m in block.children()] == ["LayerNorm", "Linear", "Linear"]


@torch.no_grad()
def test_layers_of_l2ltr_ask_the_layer_before():
    branch = small("l2ltr").branch["reference"]
    net, images = branch.net, torch.randn(2, 3, 64, 64)
    tokens = net._pos_embed(net.patch_embed(images))
    before = tokens
    for block in net.blocks:
        here, there = block.norm1(tokens), block.norm1(before)
        between = tokens + attended_by_torch(here, there, block.attn.qkv, block.attn.proj, 3)
        tokens, before = between + block.mlp(block.norm2(between)), tokens
    vectors = branch.vectors(branch.features(images))
    torch.testing.assert_close(vectors, net.norm(tokens)[:, 0], atol=1e-5, rtol=1e-4)
    assert not torch.allclose(vectors, net.forward_features(images)[:, 0], atol=1e-3), "plain self-attention differs"


@torch.no_grad()
def test_one_layer_of_l2ltr_is_the_transformer_it_is_made_of():
    branch = small("l2ltr", depth=1).branch["reference"]
    images = torch.randn(2, 3, 64, 64)
    plain = branch.net.forward_features(images)
    torch.testing.assert_close(branch.vectors(branch.features(images)), plain[:, 0], atol=1e-5, rtol=1e-4)


# --------------------------------------------------------------------------------------------------------- TransGeo
@pytest.mark.parametrize("options", [{}, {"zoom": 1.5, "keep": 1.0}])
@torch.no_grad()
def test_transgeo_without_patches_left_out_is_the_transformer_it_is_made_of(options):
    branch = small("transgeo", **options).branch["reference"]
    images = torch.randn(2, 3, *branch.cells_in_pixels())
    torch.testing.assert_close(branch.vectors(branch.features(images)), branch.net(images), atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_the_patches_kept_are_those_that_the_last_block_attends_to_most():
    branch = small("transgeo", zoom=1.5, keep=0.5).branch["reference"]
    assert (branch.first, branch.cells, branch.kept) == ((4, 4), (6, 6), 18)
    images = torch.randn(2, 3, 96, 96)
    last, seen = branch.net.blocks[-1].attn, []
    last.fused_attn = False  # so that its weights can be looked at
    hook = last.attn_drop.register_forward_hook(lambda module, given, weights: seen.append(weights))
    smaller = branch.patches(F.interpolate(images, size=64, mode="area"), (4, 4))
    branch.net.blocks(branch.with_leading(smaller))
    hook.remove()
    weights = seen[0][:, :, :2, 2:].sum((1, 2))  # both leading tokens' rows, over patches
    weights = F.interpolate(weights.reshape(2, 1, 4, 4), size=(6, 6), mode="bilinear").flatten(1)
    for kept, weight in zip(branch.attended(images), weights, strict=True):
        others = [i for i in range(36) if i not in kept.tolist()]
        assert len(set(kept.tolist())) == 18
        assert weight[kept].min() >= weight[others].max() - 1e-6
    features = branch.features(images)[:, : branch.net.embed_dim]
    empty = (features == 0).all(1).flatten(1)
    assert empty.sum(1).tolist() == [18, 18]
    assert not empty.gather(1, branch.attended(images)).any()


def test_sine_positions_are_not_learned():
    learned, sine = small("transgeo"), small("transgeo", position="sine")
    assert count(learned) - count(sine) == 2 * (16 + 2) * 24
    table = sine.branch["query"].net.pos_embed[0, 2:]
    assert (table - table[0]).norm(dim=1)[1:].min() > 0.1, "every patch has a position of its own"


@torch.no_grad()
def test_a_second_stage_goes_on_from_the_first(tmp_path):
    file = tmp_path / "model.safetensors"
    first = small("transgeo")
    save_weights(first, file)
    second = small("transgeo", zoom=1.5, pretrained=str(file))
    images = torch.rand(2, 1, 64, 64)
    torch.testing.assert_close(first.encode_query(images), second.encode_query(images))
    table, closer = (e.branch["reference"].net.pos_embed[:, 2:] for e in (first, second))
    grid = table.mT.reshape(1, 24, 4, 4)
    torch.testing.assert_close(closer, F.interpolate(grid, size=6, mode="bilinear").flatten(2).mT)
    with pytest.raises(ValueError, match=r"model\.safetensors"):
        small("transgeo", zoom=1.5, depth=2, embed_dim=12, pretrained=str(file))


# ---------------------------------------------------------------------------------------------------- attention maps
@pytest.mark.parametrize("modality", ["query", "reference"])
@pytest.mark.parametrize("name", ["transgeo", "saig_s", "l2ltr"])
@torch.no_grad()
def test_attention_maps_are_those_of_a_loop_over_heads(name, modality, monkeypatch):
    """Queries and keys are taken from the layers as they run, and attention from one head and token at a time."""
    encoder, heads = small(name), 3
    images = torch.randn(2, encoder.inputs[modality].channels, 64, 64)
    branch = encoder.branch[modality]
    given = []
    whole = F.scaled_dot_product_attention
    monkeypatch.setattr(
        F, "scaled_dot_product_attention", lambda *qkv, **rest: given.append(qkv) or whole(*qkv, **rest)
    )
    encoder.forward_features(images, modality)
    monkeypatch.undo()
    q, k = given[-1][:2]
    leading = {"transgeo": 2, "saig_s": 0, "l2ltr": 1}[name]
    found = encoder.attention(images, modality)
    assert found.shape[1:] == tuple(branch.cells) and len(q[0]) == heads
    for image, one in enumerate(found.flatten(1)):
        received = torch.zeros(len(one))
        for patch in range(len(one)):
            asking = range(leading) if leading else [t for t in range(len(one)) if t != patch]
            for head in range(heads):
                for token in asking:
                    scores = [q[image, head, token] @ other / q.shape[3] ** 0.5 for other in k[image, head]]
                    received[patch] += torch.stack(scores).softmax(0)[leading + patch] / (heads * len(asking))
        torch.testing.assert_close(one, received, atol=1e-6, rtol=1e-4)
    assert found.flatten(1).std(1).min() > 0


def test_encoders_without_attention_say_so():
    with pytest.raises(NotImplementedError, match="VIGOR has no attention maps"):
        small("vigor").attention(torch.rand(1, 3, 64, 64), "reference")


# ------------------------------------------------------------------------------------------------- CMPC, Sample4Geo
@torch.no_grad()
def test_cmpc_retrieves_by_what_no_loss_has_seen_and_mended_by_what_was_trained():
    images = [torch.rand(2, 1, 64, 64)]
    published, mended = small("cmpc"), small("cmpc", retrieves="trained")
    assert embed(published, images, "query").shape == (2, 512) and embed(mended, images, "query").shape == (2, 12)
    assert published.train().encode_query(images[0]).shape == (2, 12)
    features = published.eval().forward_features(images[0], "query")
    assert published.forward_head(features, "query").tolist() == F.normalize(features.amax((2, 3)), dim=1).tolist()


@torch.no_grad()
def test_sample4geo_is_the_backbone_alone():
    encoder = small("sample4geo")
    images = torch.rand(2, 3, 64, 64)
    backbone = encoder.branch["reference"].net
    torch.testing.assert_close(encoder.encode_reference(images), F.normalize(backbone(images), dim=1))
    assert encoder.branch["query"] is encoder.branch["reference"]


# ---------------------------------------------------------------------------------------------------- dense matchers
DENSE = {"fft_unet": {"width": 4, "depth": 2}, "osmnet": {"width": 8, "dilations": (1, 2)}}


def matcher(name, **options) -> matchers.Matcher:
    torch.manual_seed(0)
    return create_encoder(name, **DENSE[name] | options).eval()


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", DENSE)
@torch.no_grad()
def test_maps_of_windows_are_windows_of_the_map(name, stride):
    encoder = matcher(name, stride=stride)
    step = stride * (4 if name == "fft_unet" else 1)  # whole cells of a U-Net's coarsest level
    cut, margin = 6 * step, encoder.reach // stride
    whole = torch.randn(1, 3, 2 * encoder.reach + 20 * step, 2 * encoder.reach + 20 * step)
    features = encoder.forward_features(whole, "reference")[:, :, cut // stride :, cut // stride :]
    window = encoder.forward_features(whole[:, :, cut:, cut:], "reference")
    torch.testing.assert_close(
        features[:, :, margin:-margin, margin:-margin], window[:, :, margin:-margin, margin:-margin]
    )
    changed = whole.clone()
    changed[:, :, : len(whole[0, 0]) // 2 - encoder.reach - stride] += 1  # beyond its reach
    middle = whole.shape[-1] // 2 // stride
    before, after = (encoder.forward_features(x, "reference")[0, :, middle, middle] for x in (whole, changed))
    torch.testing.assert_close(before, after)


@pytest.mark.parametrize("window", [100, None])
@pytest.mark.parametrize("name", DENSE)
def test_maps_are_the_same_in_windows_of_any_size(name, window, monkeypatch):
    encoder = matcher(name, stride=2)
    monkeypatch.setattr("sarmatch.search.maps.CELLS", 91)  # no multiple of the cells of a U-Net
    pixels = np.random.default_rng(0).random((3, 300, 420), dtype=np.float32)
    raster = Raster.from_array("map", pixels, "reflectance")
    assert len(windows_of(encoder, raster, raster.bounds, window)) > 1
    ((parts, _),) = encode_raster(encoder, raster, "reference", window, dtype=torch.float32)
    ((whole, _),) = encode_raster(encoder, raster, "reference", 1000, dtype=torch.float32)
    torch.testing.assert_close(parts, whole, rtol=0, atol=1e-5)


def test_windows_of_a_narrow_network_are_larger():
    raster = Raster.from_array("map", np.zeros((3, 6000, 6000), np.float32), "reflectance")
    sides = []
    for width in (16, 8, 4):
        encoder = matcher("fft_unet", stride=4, width=width)
        top, _, bottom, _ = windows_of(encoder, raster, raster.bounds)[0]
        sides.append((bottom - top + 2 * margin_of(encoder)) / 4)
        assert (bottom - top) % encoder.step == 0
    np.testing.assert_allclose(sides, [480, 480 * 2**0.5, 960], atol=encoder.step / 4)


@torch.no_grad()
def test_correlation_of_osmnet_is_least_squared_differences():
    encoder = matcher("osmnet")
    query = encoder.forward_features(torch.randn(1, 1, 12, 12), "query")
    window = encoder.forward_features(torch.randn(1, 3, 20, 20), "reference")
    torch.testing.assert_close(query.norm(dim=1), torch.ones(1, 12, 12))
    scores = window_scores(query, window, encoder.centred)[0, 0]
    for row in range(9):
        for col in range(9):
            squared = (query - window[:, :, row : row + 12, col : col + 12]).square().sum()
            assert squared.item() == pytest.approx(2 * 144 * (1 - scores[row, col].item()), rel=1e-3)


def test_the_published_matchers_have_their_channels():
    unet, osmnet = on_meta("fft_unet"), on_meta("osmnet")
    assert unet.channels == 4 and unet.network["query"] is unet.network["reference"] and unet.centred
    assert osmnet.channels == 9 and osmnet.network["query"] is not osmnet.network["reference"]
    assert unet.network["query"].down[0][0].out_channels == 32


# --------------------------------------------------------------------------------------------------------- X modality
def test_the_generator_learns_in_training_and_is_absent_after_it():
    torch.manual_seed(0)
    encoder = create_encoder("x_modality", image_size=32, encoder="plain", encoder_options={"feature_dim": 8})
    images = torch.rand(32, 3, 32, 32)
    seen = encoder.seen(images, "reference")
    same = torch.tensor([torch.equal(a, b) for a, b in zip(seen, images, strict=True)])
    assert 4 < same.sum() < 28, "some of both"
    grey = (images * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1, keepdim=True).expand_as(images)
    torch.testing.assert_close(seen[~same], grey[~same])
    encoder.encode_reference(images).square()[:, 0].sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in encoder.generator.parameters())
    encoder.eval()
    torch.testing.assert_close(encoder.encode_reference(images), encoder.encoder.encode_reference(images))
    assert encoder.seen(torch.rand(2, 1, 32, 32), "query").shape == (2, 1, 32, 32)


# --------------------------------------------------------------------------------------------------------- weights
def test_a_backbone_begins_with_a_local_file(tmp_path):
    file = tmp_path / "weights.safetensors"
    net = timm.create_model("resnet10t", num_classes=5)
    save_file(net.state_dict(), file)
    backbone = create_encoder("resnet10t", image_size=32, shared=True, pretrained=str(file)).reference_branch[0]
    assert torch.equal(backbone.layer1[0].conv1.weight, net.layer1[0].conv1.weight)
    narrow = create_encoder("resnet10t", image_size=32, pretrained=str(file)).query_branch[0]
    torch.testing.assert_close(narrow.conv1[0].weight, net.conv1[0].weight.sum(1, keepdim=True))
    with pytest.raises(ValueError, match=r"weights\.safetensors: weights of another network"):
        create_encoder("mobilenetv3_small_050", image_size=32, pretrained=str(file))
    with pytest.raises(ValueError, match=r"weights\.safetensors: weights of another network"):
        create_encoder("vigor", image_size=64, scale=0.1, pretrained=str(file))
    with pytest.raises(FileNotFoundError, match=r"none\.safetensors.*'resnet10t'"):
        create_encoder("resnet10t", image_size=32, pretrained=str(tmp_path / "none.safetensors"))
    file.write_bytes(b"no weights")
    with pytest.raises(ValueError, match=r"weights\.safetensors: not readable"):
        create_encoder("resnet10t", image_size=32, pretrained=str(file))


LEARNED = SMALL | DENSE | {
    "plain": {"feature_dim": 8, "shared": True},
    "vgg16_features": {"scale": 0.1, "feature_dim": 8},
    "dense": {"width": 4, "channels": 6, "confidence": True, "pooling": "gem"},
    "dense_timm": {"backbone": "resnet10t", "channels": 6},
    "x_modality": {"encoder": "fft_unet", "encoder_options": DENSE["fft_unet"]},
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(set(list_encoders()) - {"hog", "cfog"}))
@torch.no_grad()
def test_every_encoder_that_learns_begins_with_the_weights_of_a_file(name, tmp_path):
    file = tmp_path / "model.safetensors"

    def made(**options):
        return create_encoder(name, image_size=64, **LEARNED[name], **options).eval()

    first, images = made(), {"query": torch.rand(2, 1, 64, 64), "reference": torch.rand(2, 3, 64, 64)}
    for parameter in first.parameters():
        parameter += 0.1 * torch.randn_like(parameter)
    first.fit_normalisation(3 * images["query"] + 1, "query")
    save_weights(first, file)
    second = made(pretrained=str(file))
    for modality, given in images.items():
        for own, others in zip(*(e.forward_levels(given, modality) for e in (first, second)), strict=True):
            assert torch.equal(own, others)
    assert not torch.equal(
        first.forward_features(images["query"], "query"), made().forward_features(images["query"], "query")
    )

    weights = load_file(file)
    longest = max(weights, key=lambda k: weights[k].numel())
    said = rf"model\.safetensors: .*{longest.split('.', 1)[1]}"  # what is shared has two names, and is in a file once
    wanted = re.escape(str(tuple(weights[longest].shape)))
    save_file(weights | {longest: torch.zeros(7, 5)}, file)
    with pytest.raises(ValueError, match=rf"{said} is \(7, 5\), expected {wanted}"):
        made(pretrained=str(file))
    save_file({k: v for k, v in weights.items() if k != longest}, file)
    with pytest.raises(ValueError, match=rf"{said} is missing, expected {wanted}"):
        made(pretrained=str(file))
    save_file(weights | {"more": torch.zeros(2, 3)}, file)
    with pytest.raises(ValueError, match=r"model\.safetensors: .*more is \(2, 3\), expected no such tensor"):
        made(pretrained=str(file))
    save_file({"of.another": torch.zeros(2, 3)}, file)
    with pytest.raises(ValueError, match=r"model\.safetensors: .*weights of another network"):
        made(pretrained=str(file))
    with pytest.raises(FileNotFoundError, match=r"none\.safetensors: no weights here"):
        made(pretrained=str(tmp_path / "none.safetensors"))


def test_nothing_is_put_into_an_encoder_that_does_not_learn(tmp_path):
    save_file({"weight": torch.zeros(2)}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"model\.safetensors: .*weight is \(2,\), expected no such tensor"):
        create_encoder("hog", pretrained=str(tmp_path / "model.safetensors"))
    with pytest.raises(ValueError, match="encoder 'osmnet' has no option 'pretrained'"):
        create_encoder("osmnet", pretrained=True)


def test_vgg_takes_the_names_of_others(tmp_path):
    file = tmp_path / "vgg16.safetensors"
    small_vgg = create_encoder("vigor", image_size=64, scale=0.1).branch["reference"].trunk
    weights = {k: v.contiguous() for k, v in small_vgg.state_dict().items()}
    save_file(weights | {"classifier.0.weight": torch.zeros(2, 2)}, file)
    loaded = create_encoder("vigor", image_size=64, scale=0.1, pretrained=str(file)).branch["reference"].trunk
    assert torch.equal(loaded.features[0].weight, small_vgg.features[0].weight)
    with torch.device("meta"):
        theirs, ours = timm.create_model("vgg16"), create_encoder("vigor", **VIGOR).branch["reference"].trunk
    assert {k: v.shape for k, v in theirs.features.state_dict().items()} == {
        k: v.shape for k, v in ours.features.state_dict().items()
    }


def test_weights_of_the_wheel_are_in_the_order_of_timm(tmp_path, monkeypatch):
    package = tmp_path / LITE0
    (package / "models").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    own = timm.create_model("tf_efficientnet_lite0").state_dict()
    shapes = [v.shape for k, v in own.items() if "num_batches" not in k]
    fake = {f"theirs_{i}": torch.randn(shape) for i, shape in enumerate(shapes)}
    torch.save(fake, package / "models" / "lite0.pth")
    monkeypatch.syspath_prepend(tmp_path)
    encoder = create_encoder("tf_efficientnet_lite0", image_size=32, shared=True, pretrained=True)
    first = next(iter(fake.values()))
    assert torch.equal(encoder.reference_branch[0].conv_stem.weight, first)
    assert len(in_order(own, fake, "fake")) == 247 == 296 - 49  # 49 are counts of batches
    with pytest.raises(ValueError, match=r"lite0: has 246 tensors, expected 247"):
        in_order(own, dict(list(fake.items())[1:]), "lite0")
    names = list(fake)
    swapped = {names[1]: fake[names[1]], names[0]: fake[names[0]]} | {k: fake[k] for k in names[2:]}
    with pytest.raises(ValueError, match=r"lite0: theirs_1 is .* expected conv_stem"):
        in_order(own, swapped, "lite0")
