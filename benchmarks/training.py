"""What our training loop costs: its pairs per second as a share of a bare PyTorch loop's, in one run.

Usage: python benchmarks/training.py

The bare loop has the same encoder, loss, optimiser, data and batches, and nothing else: no record, no check, no
alignment, no accelerate. Steps of both are timed in turn, so that whatever else the machine does is in both, and the
median of the ratios is given. Then what each alignment costs, by whole epochs.
"""

import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from unittest.mock import patch

os.environ["TQDM_DISABLE"] = "1"

import pandas as pd
import torch

import sarmatch as sm
from sarmatch.encoders import Encoder
from sarmatch.losses import DenseBatch, EmbeddedBatch
from sarmatch.patches import pair_overlap
from sarmatch.search.windows import window_scores
from sarmatch.training.config import Config
from sarmatch.training.data import fit_normalisation
from sarmatch.training.dense import SHOWN
from sarmatch.training.loop import train
from sarmatch.training.objectives import objective_of
from sarmatch.training.step import Step

EPOCHS, PAIRS = 2, 2048
WARM = 4  # steps that are not counted


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


def in_turn(settings: Config, scene: sm.Scene) -> list[tuple[float, float]]:
    """Seconds of every step of our loop, and of the step of a bare one that follows it."""
    other, seconds = bare(settings, scene), []

    class Batches:
        """What our loop learns from; between two batches the bare loop makes its step."""

        def __init__(self, loader: torch.utils.data.DataLoader) -> None:
            self.loader = loader

        def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
            begin = time.perf_counter()
            for batch in self.loader:
                yield batch
                end = time.perf_counter()
                next(other)
                begin, took = time.perf_counter(), end - begin
                seconds.append((took, begin - end))

    class Timed(Step):
        def prepare(self, loader: torch.utils.data.DataLoader) -> Batches:
            return Batches(super().prepare(loader))

    with patch("sarmatch.training.loop.Step", Timed), tempfile.TemporaryDirectory() as folder:
        train(settings, scene, Path(folder), report=lambda history: None)
    return seconds[WARM:]


def bare(settings: Config, scene: sm.Scene) -> Iterator[None]:
    """The shortest loop that learns the same, a step at a time."""
    size = settings.patch_size or scene.patch_size
    encoder = sm.create_encoder(settings.encoder, settings.image_size, settings.sar_bands, **settings.encoder_options)
    pairs = objective_of(settings, scene).pairs(settings, scene, size, encoder)
    fit_normalisation(encoder, pairs)
    encoder.train()
    loss = sm.create_loss(settings.loss, **settings.loss_options)
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=settings.learning_rate)
    loader = torch.utils.data.DataLoader(pairs, settings.batch_size, drop_last=True)
    compared = {"vector": vectors, "dense": surfaces}[settings.search]
    for epoch in count():
        pairs.draw(epoch)
        for batch in loader:
            value = torch.stack([loss(level) for level in compared(encoder, batch, size)]).sum()
            optimizer.zero_grad(set_to_none=True)
            value.backward()
            optimizer.step()
            yield


def vectors(encoder: Encoder, batch: dict[str, torch.Tensor], size: int) -> list[EmbeddedBatch]:
    """What a loss of vectors is given of a batch."""
    embeddings = encoder(batch["query"], batch["reference"])
    return [EmbeddedBatch(*embeddings, overlap=pair_overlap(batch["place"], size))]


def surfaces(encoder: Encoder, batch: dict[str, torch.Tensor], size: int) -> list[DenseBatch]:
    """What a loss of dense search is given of a batch, at every level of the encoder."""
    query, window = batch["query"], batch["reference"]
    corner = (window.shape[-1] - query.shape[-1]) / 2 - batch["offset"]
    allowed = pair_overlap(batch["place"], size, window.shape[-1]) < SHOWN
    maps = zip(encoder.forward_levels(query, "query"), encoder.forward_levels(window, "reference"), strict=True)
    return [
        DenseBatch(window_scores(*pair, encoder.centred), corner / stride, allowed)
        for pair, stride in zip(maps, encoder.levels, strict=True)
    ]


def main() -> None:
    """Print both tables."""
    scene = sm.load_scene("easy")
    steps, batch = in_turn(config(), scene), config().batch_size
    own, plain = (statistics.median(seconds) for seconds in zip(*steps, strict=True))
    ratio = statistics.median(b / a for a, b in steps)
    print(f"{torch.get_num_threads()} threads, batches of {batch}; medians of {len(steps)} steps")
    print(f"bare loop {batch / plain:.0f} pairs/s, ours {batch / own:.0f}, {ratio:.3f} of it\n")
    rows = {name: ours(config(alignment=name), scene) for name in sm.list_alignments()}
    table = pd.DataFrame({"pairs per second": rows, "share of none": {n: r / rows["none"] for n, r in rows.items()}})
    print(table.round(2).to_string())


if __name__ == "__main__":
    main()
