"""Which systems of the field are compared, on what, and at which budget: the methods of the sweeps `systems_*`.

A system comes with its network in small, its loss, its sampler and its schedule. What it is given to learn from is the
same for all: training pairs, image size and batches. Dense matchers learn from windows of the map, of which each holds
a whole surface of shifts; they have a budget of their own, the same for all of them.
"""

import inspect
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch.utils.flop_counter import FlopCounterMode

from sarmatch.encoders import Encoder, create_encoder
from sarmatch.encoders.base import ENCODERS, height_and_width
from sarmatch.evaluation import error_summary, localization_errors
from sarmatch.patches import positions
from sarmatch.training.config import Config, recipe
from sarmatch.training.runs import Run, compared_and_read, nearest, tile_widths
from sarmatch.training.vectors import moved

#: What every system that makes a vector per tile is given.
BUDGET = {"epochs": 8, "pairs_per_epoch": 1024, "batch_size": 32, "image_size": 64}
#: What every dense matcher is given.
DENSE_BUDGET = {"epochs": 4, "pairs_per_epoch": 360, "batch_size": 6, "image_size": 64}
#: What a simulated cross-view set of a few streets still holds in every epoch.
VIEW_BUDGET = BUDGET | {"epochs": 12, "pairs_per_epoch": 640}

#: A vector per tile, our reference first. Of each the method is as published, the network small.
SYSTEMS = (
    "infonce",
    "cmpc_published",
    "cmpc_mended",
    "vigor_vgg16",
    "vigor_resnet",
    "vigor_hybrid",
    "transgeo",
    "transgeo_zoom",
    "saig_s_smd",
    "saig_d_smd",
    "sample4geo",
    "l2ltr",
    "cvm_net",
)
MATCHERS = ("dense", "fft_unet", "maru_net", "osmnet")
#: Those that are also trained on street panoramas.
OF_PANORAMAS = tuple(name for name in SYSTEMS[1:] if name not in ("cmpc_published", "cmpc_mended"))  # of one size
#: Added to the name of a cross-view set's folder: the same set, where nobody knows where a panorama looks to.
UNKNOWN_HEADING = "_unknown_heading"


class Published(NamedTuple):
    """recall@1 in percent that a publication's own repository states, on its own data; None where it states none."""

    cvusa: float | None
    vigor_same_area: float | None
    vigor_cross_area: float | None
    source: str


#: Theirs, on theirs: trained on tens of thousands of real panoramas from ImageNet's weights.
PUBLISHED: dict[str, Published] = {
    "transgeo": Published(94.08, None, None, "University-1652, state of the art"),
    "saig_s_smd": Published(95.37, 57.57, 25.44, "SAIG, README; triplet and ASAM"),
    "saig_d_smd": Published(96.08, 61.27, 27.61, "SAIG, README; triplet and ASAM"),
    "sample4geo": Published(98.68, 77.86, 61.09, "University-1652, state of the art; names of checkpoints"),
    "l2ltr": Published(94.05, None, None, "L2LTR, README; polar transform"),
}

_TESTED: dict[str, Any] = {
    "protocols": ("same_area", "cross_area"),
    "kinds": ("arbitrary",),
    "val_queries": 200,
    "test_queries": 500,
}
_PANORAMA, _WIDE = {"query_size": (64, 128)}, {"query_size": (64, 128), "reference_size": (64, 128)}


def _staged(name: str, budget: dict[str, Any]) -> dict[str, Any]:
    """A budget, which a system that learns in two stages divides between them."""
    return budget | {"epochs": budget["epochs"] // (2 if recipe(name).before else 1)}


def on_standard(scene: str = "") -> dict[str, Config]:
    """Systems on the simulated scene `standard`: vectors, then the whole-map task."""
    searched = {name: recipe(name, **_TESTED, **_staged(name, BUDGET)) for name in SYSTEMS}
    return searched | {name: recipe(name, **_TESTED, **DENSE_BUDGET) for name in MATCHERS}


def on_sentinel(scene: str) -> dict[str, Config]:
    """The same on real Sentinel-1 and Sentinel-2, trained on one region and tested on another."""
    real = {**_TESTED, "scene": scene, "protocols": ("cross_area",), "offset": 0.5}
    real["augment"] = ("dihedral", "radiometry")
    real["baseline_options"] = recipe("sentinel").baseline_options
    searched = {name: recipe(name, **real, **_staged(name, BUDGET)) for name in SYSTEMS}
    dense = real | {name: getattr(recipe("dense_sentinel"), name) for name in ("offset", "augment", "baseline_options")}
    return searched | {name: recipe(name, **dense, **DENSE_BUDGET) for name in MATCHERS}


def on_panoramas(protocol: str) -> Callable[[str], dict[str, Config]]:
    """Systems on a cross-view set: on tiles as they are, on unrolled ones, and at unknown heading where that is there.

    The set of unknown heading is looked for beside the folder, by the name with `UNKNOWN_HEADING` behind it.
    """

    def arms(scene: str) -> dict[str, Config]:
        polar: dict[str, Any] = {"reference_view": "polar"}
        changes: dict[str, tuple[str, dict[str, Any]]] = {"panorama": ("panorama", {})}
        changes |= {name: (name, {}) for name in OF_PANORAMAS}
        changes["panorama_polar"] = ("panorama", {**polar, "encoder_options": _WIDE})
        changes["vigor_polar"] = ("vigor_vgg16", {**polar, "encoder_options": _WIDE})
        changes["vigor_polar_shared"] = ("vigor_vgg16", {**polar, "encoder_options": {**_WIDE, "shared": True}})
        if scene and Path(_turned(scene)).is_dir():
            changes["vigor_unknown_heading"] = ("vigor_vgg16", {"scene": _turned(scene)})
        return {arm: _of_views(start, scene, protocol, change) for arm, (start, change) in changes.items()}

    return arms


def on_headings(scene: str) -> dict[str, Config]:
    """SAIG-S on a cross-view set, and on the set of the same places beside it in which nobody knows the heading."""
    changes: dict[str, dict[str, Any]] = {"saig_s_smd": {}, "saig_unknown_heading": {"scene": _turned(scene)}}
    return {arm: _of_views("saig_s_smd", scene, "same_area", change) for arm, change in changes.items()}


def _turned(scene: str) -> str:
    """Where the set of unknown heading lies that belongs to a cross-view set."""
    return f"{Path(scene)}{UNKNOWN_HEADING}"


def _of_views(start: str, scene: str, protocol: str, changes: dict[str, Any]) -> Config:
    """A recipe on a cross-view set."""
    fixed = {
        "scene": scene or "none",
        "bands": ("red", "green", "blue"),
        "protocols": (protocol,),
        "kinds": ("arbitrary",),
        "augment": ("turn_views",),
        "baseline_options": {},
        "val_queries": 400,
        "test_queries": 1000,
        "clip_norm": recipe(
            start, profile="full"
        ).clip_norm,  # what a system does on VIGOR, on tiles of SAR it does not
    }
    options = recipe(start).encoder_options | _PANORAMA | changes.get("encoder_options", {})
    return recipe(start, **{**fixed, **_staged(start, VIEW_BUDGET), **changes, "encoder_options": options})


#: One thing changed each, under the recipe that it is changed of; options join those of the recipe. Semi-positives
#: would change nothing of VIGOR's, whose pool keeps tiles that overlap out of a batch; `vigor_hybrid` has them.
#: SGD comes in three steps of one change each: at the rate of AdamW, at one of its own, and there without ASAM. SAM has
#: a radius of its own, and triplets of near negatives a lower rate: at the others they make all images alike.
ABLATED: dict[str, tuple[str, dict[str, dict[str, Any]]]] = {
    "saig": (
        "saig_s_smd",
        {
            "saig_average": {"encoder_options": {"aggregator": "average"}},
            "saig_gem": {"encoder_options": {"aggregator": "gem"}},
            "saig_safa": {"encoder_options": {"aggregator": "safa"}},
            "saig_triplet": {"loss": "soft_margin_triplet", "loss_options": {}},
            "saig_infonce": {"loss": "infonce"},
            "saig_mined": {"sampler": "mined"},
            "saig_shared": {"encoder_options": {"shared": True}},
            "saig_semi_positive": {"auxiliary": {"iou_semi_positive": 0.1}},
            "saig_slow": {"learning_rate": 3e-4},
            "saig_semi_hard": {"learning_rate": 3e-4, "loss": "semi_hard_triplet"},
        },
    ),
    "optimisers": (
        "saig_s_smd",
        {
            "saig_adam": {"sharpness": "none"},
            "saig_sam": {"sharpness": "sam", "rho": 0.05},
            "saig_slow": {"learning_rate": 3e-4},
            "saig_fast": {"learning_rate": 3e-3},
            "saig_sgd": {"optimizer": "sgd"},
            "saig_sgd_fast": {"optimizer": "sgd", "learning_rate": 2e-2},
            "saig_sgd_plain": {"optimizer": "sgd", "learning_rate": 2e-2, "sharpness": "none"},
        },
    ),
    "cmpc": (
        "cmpc_published",
        {
            "cmpc_gradient_penalty": {"alignment": "wasserstein"},
            "cmpc_retrieves_trained": {"encoder_options": {"retrieves": "trained"}},
            "cmpc_mended": {"alignment": "wasserstein", "encoder_options": {"retrieves": "trained"}},
            "cmpc_unaligned": {"alignment": "none"},
            "cmpc_average": {"encoder_options": {"aggregator": "average"}},
        },
    ),
    "modalities": (
        "infonce",
        {
            "infonce_grey": {"augment": ("radiometry", "grey")},
            "infonce_one_channel": {"augment": ("radiometry", "one_channel")},
            "infonce_channel_exchange": {"augment": ("radiometry", "channel_exchange")},
            "infonce_intermediate": {"augment": ("radiometry", "intermediate")},
            "infonce_x_modality": {
                "encoder": "x_modality",
                "encoder_options": {"encoder": "plain", "encoder_options": {"shared": True}},
            },
        },
    ),
    "vigor": (
        "vigor_vgg16",
        {
            "vigor_infonce": {"loss": "infonce", "loss_options": {}},
            "vigor_unmined": {"sampler": "random"},
        },
    ),
}


#: What is changed in each of them.
ABLATION_WORDS = {
    "saig": "SAIG-S, one thing changed at a time",
    "optimisers": "SAIG-S, its optimiser changed",
    "cmpc": "CMPC as published, one thing changed at a time",
    "modalities": "ideas that bring the modalities nearer, beside plain InfoNCE",
    "vigor": "VIGOR's network, one thing changed at a time",
}


def ablations(of: str) -> Callable[[str], dict[str, Config]]:
    """A system of `ABLATED`, first as it is, then with one thing changed each, on `standard`."""
    name, changes = ABLATED[of]
    options = recipe(name).encoder_options

    def arms(scene: str) -> dict[str, Config]:
        found = {name: recipe(name, **_TESTED, **BUDGET)}
        for arm, change in changes.items():
            own = "encoder" in change  # another encoder takes options of its own
            joined = {"encoder_options": ({} if own else options) | change.get("encoder_options", options)}
            found[arm] = recipe(name, **{**_TESTED, **BUDGET, **change, **joined})
        return found

    return arms


def moved_answers(finished: Run) -> pd.DataFrame:
    """What the offset head of a run is worth, on the test queries of its first protocol and kind.

    Returns
    -------
    One row per `tile`, the `first` found or the `right` one whatever was found, and `answer`: its `centre`, the place
    `moved` by the head, and as a `control` one moved by what the head says of another query, which has the same spread.
    Columns are those of `error_summary`.

    Raises
    ------
    ValueError
        Where the run trained no offset head.
    """
    head, config, scene = finished.offset_head, finished.config, finished.scene()
    if head is None:
        raise ValueError(f"{finished.path}: auxiliary is {config.auxiliary}, expected 'offset_regression' among it")
    asked, tiles = finished.task(scene, config.protocols[0], config.kinds[0])
    compared, read = compared_and_read(finished.encoder, scene, asked, tiles, config, head)
    widths, own = tile_widths(scene, tiles), asked["positive"].to_numpy()[:, None]
    first = nearest(scene, tiles, *compared, 1)
    right = replace(first, tile=own, places=positions(tiles)[own])
    order = np.random.default_rng(config.seed).permutation(len(asked))
    rows = []
    for tile, found in (("first", first), ("right", right)):
        shift = moved(found, *read, widths, head).xy - found.xy
        for answer, by in (("centre", 0 * shift), ("moved", shift), ("control", shift[order])):
            errors = localization_errors((found.xy + by)[:, 0], positions(asked))
            rows.append({"tile": tile, "answer": answer, **error_summary(errors)})
    return pd.DataFrame(rows)


#: Systems in the order in which they are told, and whose encoder tells it.
TOLD = {
    "CMPC": "cmpc",
    "VIGOR": "vigor",
    "TransGeo": "transgeo",
    "SAIG": "saig_s",
    "Sample4Geo": "sample4geo",
    "L2LTR": "l2ltr",
    "CVM-Net": "cvm_net",
    "FFT U-Net, and MARU-Net's loss": "fft_unet",
    "OSMNet": "osmnet",
}


def ideas() -> str:
    """Every system in about ten lines of Markdown, a paragraph each: the notes of its encoder."""
    told = []
    for system, name in TOLD.items():
        notes = (inspect.getdoc(ENCODERS[name]) or "").partition("Notes\n-----\n")[2].partition("\n\n")[0]
        told.append(f"**{system}.** {' '.join(notes.split())}")
    return "\n\n".join(told)


#: Images that publications state their networks' sizes for: tiles and panoramas of VIGOR; SAR is one band elsewhere.
_VIGOR_IMAGES: dict[str, Any] = {"image_size": 320, "query_size": (320, 640), "sar_bands": 3}
STATED_FOR: dict[str, dict[str, Any]] = dict.fromkeys(
    ("vigor_vgg16", "vigor_resnet", "vigor_hybrid", "transgeo", "transgeo_zoom", "saig_s_smd", "saig_d_smd"),
    _VIGOR_IMAGES,
)


def sizes(names: Sequence[str] = (*SYSTEMS[1:], *MATCHERS[1:])) -> pd.DataFrame:
    """Parameters and operations of systems at their published size and in ours, without computing anything.

    Returns
    -------
    One row per system: `image` the side of a reference in pixels as published, `parameters` in millions and `gflops`
    (2 for each multiplication and addition, of a query and a reference together), for panoramas as queries where
    `STATED_FOR` has the system; and the same of ours, `our_...`, for SAR patches.
    """
    rows = []
    for name in names:
        row: dict[str, Any] = {"system": name}
        for profile, start in (("full", ""), ("quick", "our_")):
            config = recipe(name, profile=profile)
            options = {"image_size": config.image_size, "sar_bands": config.sar_bands} | config.encoder_options
            options |= STATED_FOR.get(name, {}) if profile == "full" else {}
            with torch.device("meta"):
                encoder = create_encoder(config.encoder, **options)
            count = sum(weights.numel() for weights in encoder.parameters())
            row |= {f"{start}image": config.image_size, f"{start}parameters": count / 1e6}
            row[f"{start}gflops"] = operations(encoder, config.image_size) / 1e9
        rows.append(row)
    return pd.DataFrame(rows)


def images_per_second(names: Sequence[str] = (*SYSTEMS[1:], *MATCHERS[1:]), count: int = 64) -> pd.Series:
    """Images a second that our small networks look at here and now, queries and references: a batch of `count` of each.

    The best of three; `benchmarks/systems.py` measures it with care.
    """
    found = {}
    for name in names:
        config = recipe(name)
        encoder = create_encoder(config.encoder, config.image_size, config.sar_bands, **config.encoder_options).eval()
        seconds = []
        for _ in range(3):
            begin = time.perf_counter()
            _looked_at(encoder, config.image_size, count)
            seconds.append(time.perf_counter() - begin)
        found[name] = 2 * count / min(seconds)
    return pd.Series(found, name="our_images_per_s")


@torch.no_grad()
def operations(encoder: Encoder, image_size: int) -> int:
    """Floating-point operations of a forward pass of one query and one reference; on the device `meta` none is done."""
    encoder.eval()
    with FlopCounterMode(display=False) as counter:
        _looked_at(encoder, image_size, 1)
    return counter.get_total_flops()


@torch.no_grad()
def _looked_at(encoder: Encoder, image_size: int, count: int) -> None:
    """So many empty queries and references go through an encoder."""
    device = next(encoder.parameters()).device
    for modality in ("query", "reference"):
        wants = encoder.inputs[modality]
        side = height_and_width(wants.image_size or image_size)
        features = encoder.forward_features(torch.zeros(count, wants.channels, *side, device=device), modality)
        if hasattr(encoder, "feature_dim"):
            encoder.forward_head(features, modality)
