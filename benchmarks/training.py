"""What our training loop costs: its pairs per second as a share of a bare PyTorch loop's, in one run.

Usage: python benchmarks/training.py

The bare loop has the same encoder, loss, optimiser, data and batches, and nothing else: no record, no check, no
alignment, no accelerate. Both are timed on whole epochs in turn, and the median of the ratios is given. Then what
each alignment costs.
"""

import os
import statistics
import tempfile
import time
from pathlib import Path

os.environ["TQDM_DISABLE"] = "1"

import pandas as pd
import torch

import sarmatch as sm
from sarmatch.losses import EmbeddedBatch
from sarmatch.patches import TrainingPairs, guard_band, pair_overlap, training_regions
from sarmatch.training.config import Config
from sarmatch.training.data import fit_normalisation
from sarmatch.training.loop import train

EPOCHS, REPEATS, PAIRS = 2, 3, 2048


def config(**changes: object) -> Config:
    """The comparison's recipe, two epochs long."""
    return sm.recipe(
        "infonce", scene="easy", epochs=EPOCHS, pairs_per_epoch=PAIRS, val_queries=1, augment=(), **changes
    )


def ours(settings: Config, scene: sm.Scene) -> float:
    """Pairs per second of our loop between its reports, that of the first epoch left out."""
    times: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        train(settings, scene, Path(folder), report=lambda history: times.append(time.perf_counter()))
    return settings.pairs_per_epoch * (len(times) - 1) / (times[-1] - times[0])


def bare(settings: Config, scene: sm.Scene) -> float:
    """Pairs per second of the shortest loop that learns the same."""
    size = scene.patch_size
    regions = training_regions(scene, settings.protocols, guard_band(scene, size))
    count = settings.pairs_per_epoch
    pairs = TrainingPairs(scene, regions, size, settings.image_size, count, settings.offset, settings.seed)
    encoder = sm.create_encoder(settings.encoder, settings.image_size, **settings.encoder_options)
    fit_normalisation(encoder, pairs)
    loss = sm.create_loss(settings.loss)
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=settings.learning_rate)
    loader = torch.utils.data.DataLoader(pairs, settings.batch_size, drop_last=True)
    times = []
    for epoch in range(settings.epochs):
        pairs.draw(epoch)
        for batch in loader:
            embeddings = encoder(batch["query"], batch["reference"])
            value = loss(EmbeddedBatch(*embeddings, overlap=pair_overlap(batch["place"], size)))
            optimizer.zero_grad(set_to_none=True)
            value.backward()
            optimizer.step()
        times.append(time.perf_counter())
    return count * (settings.epochs - 1) / (times[-1] - times[0])


def main() -> None:
    """Print both tables."""
    scene = sm.load_scene("easy")
    rates = [(bare(config(), scene), ours(config(), scene)) for _ in range(REPEATS)]
    ratio = statistics.median(b / a for a, b in rates)
    print(f"{torch.get_num_threads()} threads, batches of {config().batch_size}; medians of {REPEATS}")
    print(f"bare loop {statistics.median(a for a, _ in rates):.0f} pairs/s, ours {ratio:.3f} of it\n")
    rows = {name: ours(config(alignment=name), scene) for name in sm.list_alignments()}
    table = pd.DataFrame({"pairs per second": rows, "share of none": {n: r / rows["none"] for n, r in rows.items()}})
    print(table.round(2).to_string())


if __name__ == "__main__":
    main()
