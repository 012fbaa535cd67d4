"""How fast the line is on this machine: rendering per stage, and reading patches against training on them.

Usage: python benchmarks/pipeline.py

Prints seconds for a scene of 1000 x 1000 px, and pairs per second of the loader, of the encoder alone and of both;
the ratio says whether reading is the bottleneck (it is not, above 1).
"""

import time
from collections.abc import Callable

import pandas as pd
import torch

import sarmatch as sm
from sarmatch.patches import TrainingPairs, guard_band, pair_overlap, training_regions
from sarmatch.scenes.city import City, ground_grid
from sarmatch.scenes.optical import render_map
from sarmatch.scenes.sar import render_strip

SIDE, PIXEL = 1000, 0.5
PAIRS, BATCH = 1024, 128


def seconds(work: Callable[[], object], repeats: int = 3) -> float:
    """Median duration after one call to warm up."""
    work()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return sorted(times)[repeats // 2]


def rendering() -> pd.Series:
    """Seconds per stage for `SIDE` x `SIDE` px."""
    place = (City(seed=7, extent_m=SIDE * PIXEL), 0.0, SIDE * PIXEL, (SIDE, SIDE), PIXEL)
    return pd.Series(
        {
            "city alone": seconds(lambda: ground_grid(*place)),
            "optical map, city included": seconds(lambda: render_map(*place)),
            "SAR strip, city included": seconds(lambda: render_strip(*place, look="east", incidence_deg=40.0, seed=0)),
        },
        name=f"seconds for {SIDE} x {SIDE} px",
    )


def training() -> pd.Series:
    """Pairs per second of loader, encoder and both, for the demo recipe."""
    config = sm.recipe("demo", profile="quick")
    scene = sm.load_scene(config.scene)
    rectangles = training_regions(scene, config.protocols, guard_band(scene, scene.patch_size))
    pairs = TrainingPairs(scene, rectangles, scene.patch_size, config.image_size, PAIRS, config.offset, seed=0)
    loader = torch.utils.data.DataLoader(pairs, batch_size=BATCH)
    encoder, loss = sm.create_encoder(config.encoder, config.image_size), sm.create_loss(config.loss)
    batch = next(iter(loader))

    def step(batch: dict[str, torch.Tensor]) -> None:
        overlap = pair_overlap(batch["place"], scene.patch_size)
        loss(*encoder(batch["query"], batch["reference"]), overlap=overlap).backward()

    rates = {
        "loader": PAIRS / seconds(lambda: list(loader)),
        "encoder": BATCH / seconds(lambda: step(batch)),
        "both": PAIRS / seconds(lambda: [step(b) for b in loader]),
    }
    rates["loader / encoder"] = rates["loader"] / rates["encoder"]
    return pd.Series(rates, name="pairs per second")


if __name__ == "__main__":
    print(f"{torch.get_num_threads()} threads\n")
    for table in (rendering(), training()):
        print(table.round(2).to_string(), f"\n({table.name})\n")
