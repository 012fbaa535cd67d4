"""Recipes: named starting points for a config, our own and those of published systems."""

from typing import Any, NamedTuple


class Recipe(NamedTuple):
    """A named starting point: what differs from the defaults, and what the full profile changes on top."""

    about: str
    quick: dict[str, Any]
    full: dict[str, Any]


#: What the recipes of the comparison have in common: the same areas, the same budget.
_COMPARED = {
    "scene": "standard",
    "protocols": ("same_area", "cross_area"),
    "epochs": 10,
    "batch_size": 32,
    "encoder_options": {"shared": True},
    "learning_rate": 2e-3,
    "augment": ("radiometry",),
    "baseline_options": {"cells": 8, "sigma": 1.0},
}
_FULL = {
    "encoder": "resnet18",
    "image_size": 96,
    "epochs": 60,
    "batch_size": 128,
    "pairs_per_epoch": 16384,
    "precision": "bf16",
}


_DENSE = {
    "search": "dense",
    "encoder": "dense",
    "loss": "shift_cross_entropy",
    "protocols": ("cross_area",),
    "epochs": 8,
    "batch_size": 6,
    "pairs_per_epoch": 1200,
    "window": 2.0,
    "learning_rate": 2e-3,
    "weight_decay": 0.01,
    "augment": ("dihedral", "radiometry", "crop"),
    "baseline": "cfog",
    "select": "recall@1",
    "kinds": ("arbitrary",),
    "val_queries": 200,
}


def _aligned(about: str, alignment: str, **options: Any) -> Recipe:
    """InfoNCE with an alignment; nothing else differs between these recipes."""
    return Recipe(about, {**_COMPARED, "alignment": alignment, "alignment_options": options}, _FULL)


RECIPES: dict[str, Recipe] = {
    "demo": Recipe(
        "two simulated towns to learn from; tested on a held-out pass over one of them and on a third town",
        quick={
            "protocols": ("same_area", "cross_area"),
            "epochs": 14,
            "batch_size": 32,
            "encoder_options": {"shared": True},
            "learning_rate": 2e-3,
            "augment": ("radiometry",),
            "baseline_options": {"cells": 8, "sigma": 1.0},
        },
        full=_FULL,
    ),
    "own": Recipe(
        "a folder with your own data, of pairs or with positions: trained on one region, tested on another",
        quick={"epochs": 20, "batch_size": 32, "encoder_options": {"shared": True}, "learning_rate": 2e-3},
        full={**_FULL, "pairs_per_epoch": 4096},
    ),
    "panorama": Recipe(
        "the folder of a cross-view set, VIGOR or a simulated one: street panoramas against aerial tiles",
        quick={
            "bands": ("red", "green", "blue"),
            "encoder_options": {"query_size": (64, 128)},
            "epochs": 20,
            "batch_size": 32,
            "learning_rate": 2e-3,
            "augment": ("turn_views",),
            "kinds": ("arbitrary",),
            "val_queries": 1000,
        },
        full={
            "encoder": "resnet18",
            "encoder_options": {"query_size": (320, 640)},
            "image_size": 320,
            "epochs": 40,
            "pairs_per_epoch": 100_000,
            "test_queries": 100_000,
            "precision": "bf16",
        },
    ),
    "sentinel": Recipe(
        "real Sentinel-1 against Sentinel-2 at 8.3 m a pixel: trained on one region, tested on another",
        quick={
            "protocols": ("cross_area",),
            "epochs": 100,
            "learning_rate": 2e-3,
            "offset": 0.5,
            "val_queries": 1000,
            "baseline_options": {"cells": 16, "sigma": 2.0},
        },
        full={**_FULL, "image_size": 64},
    ),
    "dense": Recipe(
        "dense search: maps of features, learned on two simulated towns and tested on a third",
        quick={
            **_DENSE,
            "scene": "standard",
            "protocols": ("same_area", "cross_area"),
            "encoder_options": {"stride": 4},
            "baseline_options": {"stride": 4},
        },
        full={"epochs": 40, "batch_size": 16, "pairs_per_epoch": 8192},
    ),
    "dense_sentinel": Recipe(
        "dense search on real Sentinel-1 against Sentinel-2: trained on one region, tested on another",
        quick={**_DENSE, "epochs": 12, "pairs_per_epoch": 2000, "val_queries": 300},
        full={"epochs": 40, "batch_size": 16, "pairs_per_epoch": 8192},
    ),
    "infonce": Recipe("a metric loss alone: symmetric InfoNCE", _COMPARED, _FULL),
    "triplet": Recipe("a metric loss alone: soft-margin triplet", {**_COMPARED, "loss": "soft_margin_triplet"}, _FULL),
    "wasserstein": _aligned(
        "InfoNCE with a Wasserstein critic under a gradient penalty", "wasserstein", critic_rate=1e-3
    ),
    "clipped": _aligned("InfoNCE with a critic of clipped weights, half-batch anchors", "wasserstein_clipped"),
    "class_adversary": _aligned("InfoNCE with a classifier of the modality, its gradient reversed", "class_adversary"),
    "sliced": _aligned("InfoNCE with the sliced Wasserstein distance", "sliced"),
    "sinkhorn": _aligned("InfoNCE with the Sinkhorn divergence", "sinkhorn"),
    "cmpc": Recipe(
        "the published combination: shared weights, batch-hard triplets, a clipped critic, stochastic gradient descent",
        {
            **_COMPARED,
            "loss": "batch_hard_triplet",
            "alignment": "wasserstein_clipped",
            "alignment_weight": 0.01,
            "optimizer": "sgd",
            "learning_rate": 2.5e-2,
            "weight_decay": 5e-4,
            "batch_size": 24,
        },
        {
            **_FULL,
            "encoder": "resnet50",
            "batch_size": 24,
            "encoder_options": {"shared": True, "feature_dim": 512, "global_pool": "max", "head_norm": True},
            "image_size": 200,
        },
    ),
}


#: What the quick recipes of the published systems have in common: a stated budget, the same for all.
_SYSTEM = {
    "scene": "standard",
    "protocols": ("same_area", "cross_area"),
    "epochs": 6,
    "pairs_per_epoch": 1024,
    "batch_size": 32,
    "learning_rate": 1e-3,
    "augment": ("radiometry",),
    "baseline_options": {"cells": 8, "sigma": 1.0},
    "val_queries": 200,
    "test_queries": 500,
}
_SYSTEM_FULL = {"pairs_per_epoch": 16384, "test_queries": 1500}
_SMALL_VGG = {"scale": 0.125, "batch_norm": True}
_SMALL_RESNET = {"backbone": "resnet18", "channels": (16, 32, 64, 128)}
_SMALL_TOKENS = {"embed_dim": 96, "depth": 3, "num_heads": 3}


def _system(
    about: str,
    encoder: str,
    small: dict[str, Any],
    published: dict[str, Any],
    method: dict[str, Any],
    options: dict[str, Any] | None = None,
) -> Recipe:
    """A published system: its method in both profiles, its small size in the quick and its own in the full one.

    `small` and `options` are the encoder's options of the profiles, `published` what else the full one changes.
    """
    return Recipe(
        about,
        {**_SYSTEM, **method, "encoder": encoder, "encoder_options": small},
        {**_SYSTEM_FULL, "encoder_options": options or {}, **published},
    )


_SAIG = {"loss": "joint_infonce", "sharpness": "asam", "weight_decay": 0.03, "warmup": 0.0, "rho": 0.1}
# gradients are clipped on VIGOR alone, whose images these are
_SAIG_FULL = {"image_size": 320, "learning_rate": 1e-4, "rho": 2.0, "batch_size": 32, "epochs": 90, "clip_norm": 1.0}
_TRANSGEO: dict[str, Any] = {
    "loss": "soft_margin_triplet",  # alpha 10 on squared distances is 20 on cosines
    "sampler": "mined",
    "sharpness": "asam",
    "weight_decay": 0.03,
    "warmup": 0.0,
    "learning_rate": 3e-4,  # less than others: untrained transformers else make all images alike
    "rho": 0.1,
}
_TRANSGEO_SMALL = {"patch_size": 8, **_SMALL_TOKENS, "feature_dim": 128}
_FIRST_LOOK: dict[str, Any] = {"encoder_options": {"zoom": 1.0}}
_TRANSGEO_FULL: dict[str, Any] = {"image_size": 320, "learning_rate": 5e-5, "rho": 2.5, "batch_size": 16, "epochs": 50}
_VIGOR = {
    "loss": "soft_margin_triplet",
    "loss_options": {"include_diagonal": True},
    "sampler": "mined",
    "weight_decay": 0.0,
    "warmup": 0.0,
    "decay": (),  # to a tenth after 150,000 steps, which a first stage of 30 epochs does not reach
}
_VIGOR_FULL = {"image_size": 320, "learning_rate": 1e-5, "batch_size": 14, "epochs": 30}
_CMPC = {
    "loss": "batch_hard_triplet",
    "alignment_weight": 0.01,
    "optimizer": "sgd",
    "learning_rate": 2.5e-2,
    "weight_decay": 5e-4,
    "warmup": 0.0,
    "decay": (0.667,),  # after 20 of 30 epochs
    "batch_size": 24,
}
# a trunk with ImageNet's weights needs less than its head; one that begins at nothing, as in small, does not
_CMPC_FULL = {"image_size": 200, "epochs": 30, "trunk_rate": 0.1}
_MATCHER = {
    **_DENSE,
    "scene": "standard",
    "protocols": ("same_area", "cross_area"),
    "epochs": 6,
    "pairs_per_epoch": 480,
    "baseline_options": {"stride": 4},
    "test_queries": 500,
}
_MATCHER_FULL = {"epochs": 40, "batch_size": 8, "pairs_per_epoch": 8192, "window": 1.33, "test_queries": 1500}
_UNET_SMALL = {"stride": 4, "width": 8, "depth": 3}

RECIPES |= {
    "saig_s_smd": _system(
        "SAIG-S: convolution stem and 11 attention blocks, SMD, joint InfoNCE, ASAM",
        "saig_s",
        {"dim": 96, "heads": 3, "depth": 3},
        _SAIG_FULL,
        _SAIG,
    ),
    "saig_d_smd": _system(
        "SAIG-D: convolution stem and 22 attention blocks, SMD, joint InfoNCE, ASAM",
        "saig_d",
        {"dim": 96, "heads": 3, "depth": 6},
        _SAIG_FULL,
        _SAIG,
    ),
    "transgeo": _system(
        "TransGeo, first stage: two distilled transformers, soft-margin triplets, mined pairs, ASAM",
        "transgeo",
        _TRANSGEO_SMALL,
        _TRANSGEO_FULL,
        _TRANSGEO,
    ),
    "transgeo_zoom": _system(
        "TransGeo, both stages: in the second references come 1.25 times larger, and the most attended patches stay",
        "transgeo",
        {**_TRANSGEO_SMALL, "zoom": 1.25},
        {
            **_TRANSGEO_FULL,
            "learning_rate": 5e-6,
            "first_stage": {**_FIRST_LOOK, "learning_rate": _TRANSGEO_FULL["learning_rate"]},
        },
        # a tenth of the first stage's rate, as published
        {
            **_TRANSGEO,
            "learning_rate": 0.1 * _TRANSGEO["learning_rate"],
            "first_stage": {**_FIRST_LOOK, "learning_rate": _TRANSGEO["learning_rate"]},
        },
        {"zoom": 1.25},
    ),
    "vigor_vgg16": _system(
        "VIGOR: SAFA on VGG16, soft-margin triplets, mined pairs",
        "vigor",
        _SMALL_VGG,
        _VIGOR_FULL,
        _VIGOR,
    ),
    "vigor_resnet": _system(
        "VIGOR: SAFA on a ResNet, soft-margin triplets, mined pairs",
        "vigor",
        {**_SMALL_RESNET, "backbone": "resnet10t"},
        _VIGOR_FULL,
        _VIGOR,
        {"backbone": "resnet50"},
    ),
    "vigor_hybrid": _system(
        "VIGOR's hybrid loss: semi-positives by intersection over union and an offset head beside the triplets",
        "vigor",
        _SMALL_VGG,
        {**_VIGOR_FULL, "batch_size": 10, "epochs": 45},  # 30 by triplets alone, then 15 by all
        # published over 10, and over 100 for offsets in half tiles, summed over both axes: 0.08 in ours
        {
            **_VIGOR,
            "sampler": "mined_overlapping",
            "auxiliary": {"iou_semi_positive": 0.1, "offset_regression": 0.08},
            "auxiliary_from": 0.667,
            "decay": (0.82,),
        },
    ),
    "sample4geo": _system(
        "Sample4Geo: one ConvNeXt, symmetric InfoNCE with smoothed labels, pairs from neighbours, then by similarity",
        "sample4geo",
        {"backbone": "convnext_atto", "depths": (1, 1, 2, 1), "dims": (24, 48, 96, 192)},
        {"image_size": 384, "batch_size": 128, "epochs": 40, "warmup": 0.025, "precision": "bf16"},
        {
            "loss": "infonce",
            "loss_options": {"learnable_temperature": True, "label_smoothing": 0.1},
            "sampler": "neighbour_similarity",
            "weight_decay": 0.01,
            "clip_value": 100.0,
        },
    ),
    "cmpc_published": _system(
        "CMPC as published: one ResNet, batch-hard triplets, a clipped critic, retrieval by features before the head",
        "cmpc",
        {**_SMALL_RESNET, "feature_dim": 128},
        _CMPC_FULL,
        {**_CMPC, "alignment": "wasserstein_clipped"},
    ),
    "cmpc_mended": _system(
        "CMPC mended: a critic under a gradient penalty, retrieval by what was trained",
        "cmpc",
        {**_SMALL_RESNET, "feature_dim": 128, "retrieves": "trained"},
        _CMPC_FULL,
        {**_CMPC, "alignment": "wasserstein"},
        {"retrieves": "trained"},
    ),
    "l2ltr": _system(
        "L2LTR: a ResNet stem and a transformer whose layers attend to the layer before, soft-margin triplets",
        "l2ltr",
        {"backbone": "vit_tiny_r_s16_p8_224", "patch_size": 4, **_SMALL_TOKENS},
        {"image_size": 256, "warmup": 0.05, "epochs": 100},
        {"loss": "soft_margin_triplet", "learning_rate": 1e-4, "warmup": 0.3, "weight_decay": 0.03},
    ),
    "cvm_net": _system(
        "CVM-Net: NetVLAD on VGG16, soft-margin triplets",
        "cvm_net",
        {**_SMALL_VGG, "clusters": 16, "feature_dim": 128},
        {"image_size": 224, "learning_rate": 1e-5, "batch_size": 12, "epochs": 50},
        {"loss": "soft_margin_triplet", "weight_decay": 0.0},
    ),
    "fft_unet": _system(
        "FFT U-Net, dense search: one U-Net, four channels, cross-entropy over the shifts of correlation",
        "fft_unet",
        _UNET_SMALL,
        _MATCHER_FULL,
        {**_MATCHER, "loss_options": {"radius": 0.75, "queries": 0.0}},
    ),
    "maru_net": _system(
        "MARU-Net's loss on the same U-Net: cross-entropy, and a disc against the 16 hardest shifts",
        "fft_unet",
        _UNET_SMALL,
        _MATCHER_FULL,
        {**_MATCHER, "loss_options": {"queries": 0.0}, "auxiliary": {"disc_hinge": 1.0}},
    ),
    "osmnet": _system(
        "OSMNet, dense search: two branches at full resolution, nine channels of length one, circle loss over shifts",
        "osmnet",
        {"stride": 4, "width": 16, "dilations": (1, 2)},
        _MATCHER_FULL,
        {**_MATCHER, "loss": "shift_circle"},
    ),
}
