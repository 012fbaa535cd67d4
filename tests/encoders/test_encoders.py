"""Encoders: shapes and norms, what is shared, names, and the training-free floor."""

import pytest
import torch

from sarmatch.encoders import create_encoder, embed, layer_features, list_encoders
from sarmatch.training.checkpoints import load_weights, save_weights


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
