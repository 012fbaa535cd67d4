"""What the published systems cost: our loop against the same network in a bare PyTorch loop, in one run.

Usage: python benchmarks/systems.py [--names saig_s_smd transgeo] [--full] [--sizes 32 64 128] [--steps 16]

All recipes whose network is a published system are measured, and our own two beside them. Each is a process of its own,
one thread: its peak of memory is what training added to that after the imports. Steps of our loop and of the bare one
of `benchmarks/training.py` are made in turn, with the system's network, a plain loss and a plain optimiser in both; the
ratio of pairs per second is the median over steps. `method` is whole epochs of our loop with the system's own loss,
mining and optimiser. Images per second: of vectors both modalities, by `embed` against the network called in a row; of
dense matchers as many pixels of a map, by `encode_raster` against the network called on the same windows in a row, and
`of one call` against the whole at once, which needs memory without bound: windows overlap by what a cell depends on.
Sizes: milliseconds of a training step of one pair. `--full` takes the published sizes of the networks at their smallest
image of `--sizes`.
"""

import argparse
import os
import resource
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context

os.environ["TQDM_DISABLE"] = "1"

import pandas as pd
import torch
import torch.nn.functional as F
from training import WARM, in_turn, ours

import sarmatch as sm
from sarmatch.encoders import Encoder, embed, systems
from sarmatch.encoders.base import ENCODERS, height_and_width, in_use
from sarmatch.experiments.systems import BUDGET, DENSE_BUDGET
from sarmatch.patches import to_input
from sarmatch.search.maps import Bounds, encode_raster, margin_of, windows_of
from sarmatch.training.config import Config

PLAIN = {"loss_options": {}, "auxiliary": {}, "alignment": "none", "sampler": "random"}
PLAIN |= {"sharpness": "none", "optimizer": "adamw", "augment": ()}
#: By search: the plain loss, and the pairs of a batch.
LEARNED = {
    "vector": ("infonce", BUDGET["batch_size"]),
    "dense": ("shift_cross_entropy", DENSE_BUDGET["batch_size"]),
}
REPEATS, EMBEDDED = 5, 128
Work = Callable[[], object]


def of_the_field() -> list[str]:
    """Recipes whose network is a published system, after our own two."""
    made_by = {name: getattr(make, "func", make).__module__ for name, make in ENCODERS.items()}  # one is a partial
    of_systems = {name for name, module in made_by.items() if module.startswith(systems.__name__)}
    return ["infonce", "dense", *(name for name in sm.list_recipes() if sm.recipe(name).encoder in of_systems)]


def network(config: Config, size: int) -> Encoder:
    """The untrained encoder of a system for images of a size."""
    return sm.create_encoder(config.encoder, size, config.sar_bands, **config.encoder_options)


def images(encoder: Encoder, modality: str, count: int, size: int) -> torch.Tensor:
    """Noise as that modality comes in."""
    wants = encoder.inputs[modality]
    return torch.rand(count, wants.channels, *height_and_width(wants.image_size or size))


def output(encoder: Encoder, batch: torch.Tensor, modality: str) -> torch.Tensor:
    """Vectors, or the map of features where the encoder makes none."""
    features = encoder.forward_features(batch, modality)
    return encoder.forward_head(features, modality) if hasattr(encoder, "feature_dim") else features


def of_images(encoder: Encoder, size: int, count: int) -> tuple[int, Work, dict[str, Work]]:
    """How many images of both modalities are embedded, by `embed`, and by the network called in a row."""
    batches = {name: images(encoder, name, count, size).split(BUDGET["batch_size"]) for name in encoder.inputs}

    def called() -> None:
        for name, parts in batches.items():
            torch.cat([output(encoder, part, name) for part in parts])

    def ours() -> None:
        for name, parts in batches.items():
            embed(encoder, parts, name)

    return 2 * count, ours, {"of bare, embedding": called}


def of_a_map(encoder: Encoder, size: int, scene: sm.Scene) -> tuple[float, Work, dict[str, Work]]:
    """How many images a map has the pixels of, its features by `encode_raster`, and by the network called.

    All are of the map with its edge repeated by what a cell depends on.
    """
    chart = scene.areas[0].map
    top, left, bottom, right = chart.bounds
    margin = margin_of(encoder)

    def called(windows: Sequence[Bounds]) -> None:
        pixels = torch.from_numpy(chart.read(top, left, bottom - top, right - left))[None]
        image = F.pad(to_input(pixels, chart.scale, None, chart.window), [margin] * 4, "replicate")
        for row0, col0, row1, col1 in windows:
            rows, cols = slice(row0 - top, row1 - top + 2 * margin), slice(col0 - left, col1 - left + 2 * margin)
            output(encoder, image[..., rows, cols], "reference")

    bare = {
        "of bare, embedding": partial(called, windows_of(encoder, chart, chart.bounds)),
        "of one call": partial(called, [chart.bounds]),
    }
    return (bottom - top) * (right - left) / size**2, partial(encode_raster, encoder, chart, "reference"), bare


def embedding(config: Config, scene: sm.Scene) -> dict[str, float]:
    """Images per second of how our code embeds, and its ratios to calling the network."""
    encoder, size = network(config, config.image_size), config.image_size
    dense = config.search == "dense"
    number, ours, bare = of_a_map(encoder, size, scene) if dense else of_images(encoder, size, EMBEDDED)
    seconds: dict[str, list[float]] = {name: [] for name in ("ours", *bare)}
    with in_use(encoder):
        for _ in range(REPEATS + 1):  # the first warms up
            for name, work in {**bare, "ours": ours}.items():
                begin = time.perf_counter()
                work()
                seconds[name].append(time.perf_counter() - begin)
    own = seconds.pop("ours")[1:]
    ratios = {name: statistics.median(b / a for a, b in zip(own, of[1:], strict=True)) for name, of in seconds.items()}
    return {"images/s": statistics.median(number / a for a in own), **ratios}


def step_ms(config: Config, size: int) -> float:
    """Milliseconds of a forward and backward pass, per pair."""
    encoder = network(config, size).train()
    pair = {name: images(encoder, name, 8, size) for name in ("query", "reference")}
    times = []
    for _ in range(3):
        begin = time.perf_counter()
        torch.stack([output(encoder, batch, name).square().sum() for name, batch in pair.items()]).sum().backward()
        times.append((time.perf_counter() - begin) / 8 * 1e3)
    return min(times)


def measured(job: tuple[str, bool, tuple[int, ...], int]) -> dict[str, float | str]:
    """The row of one system."""
    name, full, sizes, steps = job
    torch.set_num_threads(1)
    base = sm.recipe(name, profile="full" if full else "quick")
    loss, batch = LEARNED[base.search]
    changes = {"scene": "easy", "protocols": ("cross_area",), "epochs": 2, "val_queries": 1, "precision": "no"}
    changes |= {"batch_size": batch, "pairs_per_epoch": batch * steps, "image_size": sizes[0] if full else 64}
    own = sm.recipe(name, profile="quick", **changes, encoder_options=base.encoder_options)
    plain = Config(**own.model_dump() | PLAIN | {"loss": loss})
    scene = sm.load_scene("easy", "quick")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    method = ours(own, scene)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    seconds = in_turn(plain, scene)
    row = {
        "system": name,
        "parameters": sum(weights.numel() for weights in network(own, own.image_size).parameters()),
        "pairs/s": batch / statistics.median(a for a, _ in seconds),
        "of bare": statistics.median(b / a for a, b in seconds),
        "method, pairs/s": method,
        "peak MB": peak / 1024,
        **embedding(own, scene),
    }
    return row | {f"step at {size} px, ms": step_ms(own, size) for size in sizes}


def main() -> None:
    """Print each row as soon as it is there, then the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--names", nargs="+", default=of_the_field(), help="recipes, those of the field by default")
    parser.add_argument("--sizes", nargs="+", type=int, default=[32, 64, 128])
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--steps", type=int, default=16, help="of an epoch; there are two, and the first few warm up")
    asked = parser.parse_args()
    if 2 * asked.steps <= WARM:
        parser.error(f"--steps is {asked.steps}: the first {WARM} steps of two epochs warm up, expected more than half")
    rows = []
    for name in asked.names:
        with ProcessPoolExecutor(1, get_context("spawn")) as alone:
            rows.append(alone.submit(measured, (name, asked.full, tuple(asked.sizes), asked.steps)).result())
        print(pd.Series(rows[-1]).to_string(), end="\n\n", flush=True)
    print(pd.DataFrame(rows).set_index("system").round(2).to_string())


if __name__ == "__main__":
    main()
