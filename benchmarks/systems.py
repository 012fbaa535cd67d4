"""What the published systems cost: our loop against the same network in a bare PyTorch loop, in one run.

Usage: python benchmarks/systems.py [--names saig_s_smd transgeo] [--full] [--sizes 32 64 128] [--quick]

Each system is a process of its own, one thread: its peak of memory is what training added to that after the imports.
The ratio of pairs per second is to the bare loop of `benchmarks/training.py`, with the system's network, a plain loss
and a plain optimiser in both; the median of the ratios of whole epochs in turn. `method` is our loop with the system's
own loss, mining and optimiser. Images per second are of both modalities, embedding by `embed` against the network
called in a row. Sizes: milliseconds of a training step of one pair. `--full` takes the published sizes of the networks
at their smallest image of `--sizes`; `--quick` fewer pairs and two systems.
"""

import argparse
import os
import resource
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

os.environ["TQDM_DISABLE"] = "1"

import pandas as pd
import torch
from training import bare, ours

import sarmatch as sm
from sarmatch.encoders import Encoder, embed
from sarmatch.experiments.systems import SYSTEMS
from sarmatch.training.config import Config

PLAIN = {"loss": "infonce", "loss_options": {}, "auxiliary": {}, "alignment": "none", "sampler": "random"}
PLAIN |= {"sharpness": "none", "optimizer": "adamw", "augment": ()}
REPEATS, BATCH = 3, 32


def network(config: Config, size: int) -> Encoder:
    """The untrained encoder of a system for images of a size."""
    return sm.create_encoder(config.encoder, size, config.sar_bands, **config.encoder_options)


def images(encoder: Encoder, modality: str, count: int) -> torch.Tensor:
    """Noise as that modality comes in."""
    wants = encoder.inputs[modality]
    height, width = (wants.image_size, wants.image_size) if isinstance(wants.image_size, int) else wants.image_size
    return torch.rand(count, wants.channels, height, width)


@torch.no_grad()
def embedding(config: Config, count: int) -> dict[str, float]:
    """Images per second of `embed`, and its ratio to calling the network."""
    encoder = network(config, config.image_size).eval()
    batches = {name: images(encoder, name, count).split(BATCH) for name in ("query", "reference")}
    rates = []
    for _ in range(REPEATS + 1):  # the first warms up
        begin = time.perf_counter()
        for name, of_modality in batches.items():
            torch.cat([encoder.forward_head(encoder.forward_features(b, name), name) for b in of_modality])
        between = time.perf_counter()
        for name, of_modality in batches.items():
            embed(encoder, of_modality, name)
        rates.append((2 * count / (time.perf_counter() - between), 2 * count / (between - begin)))
    return {
        "images/s": statistics.median(a for a, _ in rates[1:]),
        "of bare, embedding": statistics.median(a / b for a, b in rates[1:]),
    }


def step_ms(config: Config, size: int) -> float:
    """Milliseconds of a forward and backward pass, per pair."""
    encoder = network(config, size).train()
    pair = [images(encoder, name, 8) for name in ("query", "reference")]
    times = []
    for _ in range(3):
        begin = time.perf_counter()
        sum(vectors.square().sum() for vectors in encoder(*pair)).backward()
        times.append((time.perf_counter() - begin) / 8 * 1e3)
    return min(times)


def measured(job: tuple[str, bool, tuple[int, ...], int]) -> dict[str, float | str]:
    """The row of one system."""
    name, full, sizes, pairs = job
    torch.set_num_threads(1)
    changes = {"scene": "easy", "protocols": ("cross_area",), "epochs": 2, "pairs_per_epoch": pairs, "val_queries": 1}
    changes |= {"batch_size": BATCH, "image_size": sizes[0] if full else 64, "precision": "no"}
    published = sm.recipe(name, profile="full").encoder_options if full else sm.recipe(name).encoder_options
    own = sm.recipe(name, profile="quick", **changes, encoder_options=published)
    plain = Config(**own.model_dump() | PLAIN)
    scene = sm.load_scene("easy", "quick")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    rates = [(bare(plain, scene), ours(plain, scene)) for _ in range(REPEATS)]
    row = {
        "system": name,
        "parameters": sum(weights.numel() for weights in network(own, own.image_size).parameters()),
        "pairs/s": statistics.median(a for _, a in rates),
        "of bare": statistics.median(b / a for a, b in rates),
        "method, pairs/s": ours(own, scene),
        "peak MB": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024,
        **embedding(own, pairs),
    }
    return row | {f"step at {size} px, ms": step_ms(own, size) for size in sizes}


def main() -> None:
    """Print the table, a row as soon as it is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--names", nargs="+", default=list(SYSTEMS), help="recipes of systems with a vector per tile")
    parser.add_argument("--sizes", nargs="+", type=int, default=[32, 64, 128])
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--quick", action="store_true")
    asked = parser.parse_args()
    names, pairs = (asked.names[:2], 256) if asked.quick else (asked.names, 1024)
    rows = []
    for name in names:
        with ProcessPoolExecutor(1, get_context("spawn")) as alone:
            rows.append(alone.submit(measured, (name, asked.full, tuple(asked.sizes), pairs)).result())
        print(f"{name} measured", flush=True)
    print(pd.DataFrame(rows).set_index("system").round(2).to_string())


if __name__ == "__main__":
    main()
