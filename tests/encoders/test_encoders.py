"""Encoders: shapes and norms, what is shared, names, and the training-free baseline."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from sarmatch.encoders import (
    Encoder,
    Inputs,
    create_encoder,
    embed,
    layer_features,
    list_encoders,
    register_backbone,
    register_encoder,
)
from sarmatch.encoders.backbones import BACKBONES
from sarmatch.encoders.base import ENCODERS
from sarmatch.paths import ROOT
from sarmatch.training.checkpoints import load_weights, save_weights
from sarmatch.training.runs import load_run


@pytest.mark.parametrize(
    ("name", "size", "options"),
    [
        ("plain", 64, {}),
        ("plain", 50, {"feature_dim": 32, "shared": True}),
        ("resnet18", 64, {"feature_dim": 16}),
        ("vit_tiny_patch16_224", 100, {}),
        ("hog", 64, {}),
    ],
)
def test_embeddings_have_the_stated_size_and_unit_length(name, size, options):
    encoder = create_encoder(name, image_size=size, **options).eval()
    with torch.no_grad():
        query = encoder.encode_query(torch.rand(3, 1, size, size))
        reference = encoder.encode_reference(torch.rand(3, 3, size, size))
    for features in (query, reference):
        assert features.shape == (3, encoder.feature_dim)
        assert features.norm(dim=1).tolist() == pytest.approx([1, 1, 1], abs=1e-5)


def test_two_branches_share_nothing_and_one_shares_all():
    apart, shared = (create_encoder("plain", image_size=32, shared=flag) for flag in (False, True))
    ids = {id(p) for p in apart.query_branch.parameters()}
    assert not ids & {id(p) for p in apart.reference_branch.parameters()}
    assert shared.query_branch is shared.reference_branch
    assert sum(p.numel() for p in apart.parameters()) > 1.9 * sum(p.numel() for p in shared.parameters())


@pytest.mark.parametrize("flag", [False, True])
def test_weights_survive_the_disk(tmp_path, flag):
    images = torch.rand(2, 1, 32, 32)
    first, second = (create_encoder("plain", image_size=32, shared=flag).eval() for _ in range(2))
    first.normalise_query.fit(torch.rand(8, 1, 32, 32) * 5)
    save_weights(first, tmp_path / "w.safetensors")
    assert not torch.allclose(first.encode_query(images), second.encode_query(images))
    load_weights(second, tmp_path / "w.safetensors")
    assert torch.equal(first.encode_query(images), second.encode_query(images))


def test_weights_that_do_not_fit_are_named(tmp_path):
    save_weights(create_encoder("plain", image_size=32, feature_dim=8), tmp_path / "small.safetensors")
    with pytest.raises(ValueError, match=r"small\.safetensors.*another encoder"):
        load_weights(create_encoder("plain", image_size=32, feature_dim=16), tmp_path / "small.safetensors")
    (tmp_path / "half.safetensors").write_bytes((tmp_path / "small.safetensors").read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"half\.safetensors: not readable as safetensors"):
        load_weights(create_encoder("plain", image_size=32, feature_dim=8), tmp_path / "half.safetensors")
    with pytest.raises(FileNotFoundError, match=r"none\.safetensors"):
        load_weights(create_encoder("plain", image_size=32), tmp_path / "none.safetensors")


def test_normalisation_is_measured_per_channel():
    encoder = create_encoder("plain", image_size=32)
    images = torch.randn(50, 3, 32, 32) * torch.tensor([1.0, 2.0, 3.0])[:, None, None] + 7
    encoder.normalise_reference.fit(images)
    normal = encoder.normalise_reference(images)
    assert normal.mean((0, 2, 3)).tolist() == pytest.approx([0, 0, 0], abs=1e-4)
    assert normal.std((0, 2, 3)).tolist() == pytest.approx([1, 1, 1], abs=1e-3)


def test_unknown_names_list_what_there_is():
    assert {"plain", "hog"} <= set(list_encoders())
    with pytest.raises(ValueError, match=r"'resnot18'.*plain"):
        create_encoder("resnot18")
    with pytest.raises(ValueError, match="no pretrained weights"):
        create_encoder("plain", pretrained=True)


def test_pretrained_weights_without_a_network_give_one_clear_sentence(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ConnectionError, match="resnet10t.*pretrained=False"):
        create_encoder("resnet10t", image_size=32, pretrained=True)


def test_hog_does_not_see_which_side_of_an_edge_is_bright():
    torch.manual_seed(0)
    scene = torch.nn.functional.interpolate(torch.rand(2, 1, 9, 9), size=64, mode="bilinear")
    hog = create_encoder("hog", image_size=64)
    assert torch.allclose(hog.encode_query(scene), hog.encode_query(5 - 3 * scene), atol=0.02)
    own, other = (hog.encode_query(scene) * hog.encode_query(scene.flip(0))).sum(1)
    assert max(own, other) < 0.95, "two scenes must not look the same"


def test_hog_needs_room_for_its_cells():
    with pytest.raises(ValueError, match="image_size is 12"):
        create_encoder("hog", image_size=12, cells=8)


def test_embed_keeps_the_order_and_the_mode():
    encoder = create_encoder("plain", image_size=32).train()
    images = torch.rand(10, 1, 32, 32)
    features = embed(encoder, images.split(3), "query")
    assert encoder.training
    with torch.no_grad():
        expected = encoder.eval().encode_query(images).numpy()
    assert features == pytest.approx(expected, abs=1e-5)
    assert features.dtype == "float32"


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("groups", [0, 4])
def test_layers_are_what_a_pass_through_the_network_shows(shared, groups):
    encoder = create_encoder("plain", 32, feature_dim=8, shared=shared, widths=(8, 8, 16, 16, 16), groups=groups)
    images = torch.rand(6, 3, 32, 32)
    found = layer_features(encoder.train(), images.split(4), "reference")
    assert list(found) == ["input", *(f"layer {n}" for n in range(1, 6)), "embedding"]
    assert encoder.training
    encoder.eval()
    with torch.no_grad():
        inside = encoder.normalise_reference(images)
        number = 0
        for module in encoder.reference_branch[0].layers:
            inside = module(inside)
            if isinstance(module, torch.nn.ReLU):
                number += 1
                expected = inside.mean((2, 3))
                torch.testing.assert_close(torch.from_numpy(found[f"layer {number}"]), expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(torch.from_numpy(found["embedding"]), encoder.encode_reference(images))
    torch.testing.assert_close(torch.from_numpy(found["input"]), images.mean((2, 3)))


def test_layers_of_a_timm_model_and_no_hook_is_left():
    encoder = create_encoder("resnet18", 32, feature_dim=8)
    found = layer_features(encoder, torch.rand(4, 1, 32, 32).split(2), "query")
    assert len(found) > 8
    assert all(len(values) == 4 for values in found.values())
    assert not any(m._forward_hooks for m in encoder.modules())


def test_a_head_with_norm_is_after_the_projection():
    encoder = create_encoder("plain", 32, feature_dim=8, head_norm=True)
    assert isinstance(encoder.query_branch[-1], torch.nn.BatchNorm1d)
    assert encoder.encode_query(torch.rand(4, 1, 32, 32)).shape == (4, 8)


HALVES = [
    ("plain", 64, {}, 256, 8),
    ("plain", 64, {"shared": True, "head_norm": True, "strides": (2, 1, 2, 1, 1)}, 256, 4),
    ("resnet18", 64, {"global_pool": "max"}, 512, 32),
    ("mobilenetv3_small_050", 64, {}, 288, 32),  # its head widens what it pools
    ("vit_tiny_patch16_224", 96, {}, 192, 16),
    ("swin_tiny_patch4_window7_224", 224, {}, 768, 32),
    ("hog", 64, {}, 36, 8),
]


@pytest.mark.parametrize(("name", "size", "options", "channels", "stride"), HALVES)
def test_an_embedding_is_the_head_of_a_feature_map(name, size, options, channels, stride):
    encoder = create_encoder(name, size, sar_bands=3, **options).eval()
    assert encoder.stride == stride
    assert encoder.inputs["query"].channels == encoder.inputs["reference"].channels == 3
    assert encoder.inputs["query"].image_size == size
    side = size // stride - (name == "hog")  # a block of HOG is two cells wide
    for modality, encode in (("query", encoder.encode_query), ("reference", encoder.encode_reference)):
        images = torch.rand(2, 3, size, size)
        with torch.no_grad():
            features = encoder.forward_features(images, modality)
            assert features.shape == (2, channels, side, side)
            assert torch.equal(encoder.forward_head(features, modality), encode(images))


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224"])
def test_the_two_halves_are_timms_whole(name):
    encoder = create_encoder(name, 64).eval()
    net, projection = encoder.reference_branch
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        whole = torch.nn.functional.normalize(projection(net(encoder.normalise_reference(images))), dim=1)
        assert torch.equal(encoder.encode_reference(images), whole)


def test_tokens_lie_on_the_map_where_their_patches_do():
    """A transformer without layers sees every patch alone: changing one changes one cell."""
    encoder = create_encoder("vit_tiny_patch16_224", 64, depth=0).eval()
    images = torch.rand(1, 3, 64, 96)
    changed = images.clone()
    changed[:, :, 16:32, 64:80] += 1
    with torch.no_grad():
        before, after = (encoder.forward_features(i, "reference") for i in (images, changed))
    assert before.shape == (1, 192, 4, 6)
    assert (before != after).any(1)[0].nonzero().tolist() == [[1, 4]]


def test_a_class_token_is_in_no_feature_map():
    encoder = create_encoder("vit_tiny_patch16_224", 64, global_pool="token")
    with pytest.raises(ValueError, match="global_pool is 'token'"):
        encoder.encode_query(torch.rand(1, 1, 64, 64))


@pytest.mark.parametrize("name", ["plain", "hog"])
def test_a_feature_map_moves_with_its_image(name):
    encoder = create_encoder(name, 64).eval()
    torch.manual_seed(0)
    wide, step, border = torch.rand(1, 3, 96, 96), encoder.stride, 3
    with torch.no_grad():
        first, second = (encoder.forward_features(wide[:, :, y : y + 72, :], "reference") for y in (0, step))
    torch.testing.assert_close(
        first[:, :, 1 + border : -border, border:-border], second[:, :, border : -border - 1, border:-border]
    )


def test_an_encoder_without_a_head_is_for_dense_search_alone():
    class Dense(Encoder):
        inputs = {"query": Inputs(1, 32), "reference": Inputs(3, 32)}

        def forward_features(self, images, modality):
            return images.mean(1, keepdim=True)

    encoder = Dense()
    assert encoder.forward_features(torch.rand(2, 3, 8, 8), "reference").shape == (2, 1, 8, 8)
    for ask in (encoder.encode_query, encoder.encode_reference, lambda images: embed(encoder, [images], "query")):
        with pytest.raises(NotImplementedError, match="Dense makes feature maps and has no head"):
            ask(torch.rand(2, 3, 8, 8))


def test_a_registered_encoder_is_told_how_many_bands_it_gets():
    """It was not: `sar_bands` was for backbones alone."""

    @register_encoder("counting")
    class Counting(Encoder):
        def __init__(self, image_size, sar_bands, scale=1):
            super().__init__()
            self.inputs = {"query": Inputs(sar_bands, image_size), "reference": Inputs(3, image_size)}
            self.scale = scale

    try:
        encoder = create_encoder("counting", image_size=48, sar_bands=2, scale=7)
        assert encoder.inputs["query"] == Inputs(channels=2, image_size=48, normalisation="none")
        assert encoder.scale == 7
        assert "counting" in list_encoders()
    finally:
        del ENCODERS._things["counting"]
    assert create_encoder("hog", 64, sar_bands=2).inputs["query"].channels == 2


def test_a_backbone_of_ones_own_gets_heads_and_normalisation():
    @register_backbone("stem")
    class Stem(torch.nn.Conv2d):
        def __init__(self, channels, width=6):
            super().__init__(channels, width, 4, 4)
            self.num_features = width

        def forward_features(self, images):
            return self(images)

        def forward_head(self, features):
            return features.amax((2, 3))

    try:
        encoder = create_encoder("stem", 32, feature_dim=5, width=9)
        assert encoder.encode_query(torch.rand(2, 1, 32, 32)).shape == (2, 5)
        assert encoder.forward_features(torch.rand(2, 3, 32, 32), "reference").shape == (2, 9, 8, 8)
    finally:
        del BACKBONES._things["stem"]


@pytest.mark.parametrize(("cells", "size"), [(8, 64), (8, 50), (4, 16), (5, 64)])
def test_hog_states_the_size_it_has(cells, size):
    encoder = create_encoder("hog", size, cells=cells)
    assert encoder.encode_query(torch.rand(1, 1, size, size)).shape == (1, encoder.feature_dim)


def test_an_image_without_a_gradient_still_has_a_direction():
    embedding = create_encoder("hog", 32).encode_query(torch.ones(1, 1, 32, 32))
    assert embedding.norm().item() == pytest.approx(1)
    assert embedding.unique().numel() == 1


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("keeps", ["query_branch", "reference_branch", "both"])
def test_recorded_weights_load_under_whichever_name_a_shared_tensor_was_kept(tmp_path, half, keeps):
    source, images = create_encoder("plain", 32, shared=True, feature_dim=8).eval(), torch.rand(2, 1, 32, 32)
    source = source.half().float() if half else source
    other = {"query_branch": "reference_branch", "reference_branch": "query_branch"}.get(keeps, "neither")
    state = {k: v.clone().contiguous() for k, v in source.state_dict().items() if not k.startswith(other)}
    save_file({k: v.half() if half and v.is_floating_point() else v for k, v in state.items()}, tmp_path / "w")
    target = create_encoder("plain", 32, shared=True, feature_dim=8).eval()
    load_weights(target, tmp_path / "w")
    assert torch.equal(source.encode_query(images), target.encode_query(images))
    assert target.query_branch is target.reference_branch
    del state[next(iter(state))]
    save_file(state, tmp_path / "less")
    with pytest.raises(ValueError, match="less: these weights are of another encoder"):
        load_weights(target, tmp_path / "less")


@pytest.mark.parametrize("path", sorted(ROOT.glob("data/**/model.safetensors")), ids=lambda path: path.parent.name)
def test_shipped_weights_load(path):
    encoder, kept = load_run(path.parent).encoder, load_file(path)
    for name, value in kept.items():
        assert torch.equal(encoder.state_dict()[name], value.to(encoder.state_dict()[name].dtype))
