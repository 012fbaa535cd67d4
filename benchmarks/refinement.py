"""What refining costs beside the coarse search: 1,000 queries at K = 50 and 200 for every refiner, in one run.

Usage: python benchmarks/refinement.py

Embeddings are random, of 128 numbers, in a gallery of 2,500 tiles; what a refiner finds does not matter here. Times are
medians, the search's own beside them. `correlation` and `surface` look at pixels, of random images. Last, the published
network at its own size (2,048 wide, K = 10), per query.
"""

import statistics
import time
from collections.abc import Callable

import numpy as np
import pandas as pd
import torch

import sarmatch as sm
from sarmatch.patches import GreyMap
from sarmatch.refinement import ListBatch, RefinementContext, create_refiner, list_refiners
from sarmatch.refinement.networks import PublishedNetwork

QUERIES, SIDE, DIM, REPEATS = 1000, 50, 128, 3
TILE = 100.0  # metres


def seconds(work: Callable[[], object], repeats: int = REPEATS) -> float:
    """Median duration."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def unit(rng: np.random.Generator, count: int) -> np.ndarray:
    """Random directions `(count, DIM)`."""
    rows = rng.normal(size=(count, DIM)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


class RandomPixels:
    """Random pixels for all queries and a map of all tiles."""

    def queries(self, resolution: int) -> torch.Tensor:
        """`(Q, resolution, resolution)`."""
        return torch.rand(QUERIES, resolution, resolution)

    def map(self, area: str, resolution: int) -> GreyMap:
        """A map whose first tile has its centre at 0, 0."""
        side = SIDE * resolution
        pixels = np.random.default_rng(0).random((side, side), dtype=np.float32)
        return GreyMap(pixels, None, (-TILE / 2, TILE * (SIDE - 0.5)), TILE / resolution)


def main() -> None:
    """Print the table."""
    rng = np.random.default_rng(0)
    line = TILE * np.arange(SIDE)
    positions = np.stack(np.meshgrid(line, line), -1).reshape(-1, 2)
    reference, query = unit(rng, SIDE**2), unit(rng, QUERIES)
    gallery = sm.Gallery.of_vectors(reference, positions, TILE)
    index = sm.VectorSearch(gallery)
    rows = []
    for k in (50, 200):
        search = seconds(lambda k=k: index.search(query, k))
        for name in list_refiners():
            refiner = create_refiner(name)
            pixels = "pixels" in refiner.requires
            context = RefinementContext(gallery, query, pixels=RandomPixels() if pixels else None)
            found = index.search(query, k)
            if refiner.learns:
                refiner.network = refiner.build(DIM).eval()
            repeats = 1 if pixels or k == 200 else REPEATS
            spent = seconds(lambda r=refiner, f=found, c=context: r.refine(f, c), repeats) / QUERIES
            size = sum(p.numel() for p in refiner.network.parameters()) if refiner.learns else 0
            rows.append(
                {
                    "refiner": name,
                    "K": k,
                    "parameters": size,
                    "ms per query": 1000 * spent,
                    "times the search": spent * QUERIES / search,
                }
            )
            print(rows[-1], flush=True)
    table = pd.DataFrame(rows).pivot(index=["refiner", "parameters"], columns="K")
    print(f"\n{torch.get_num_threads()} threads, gallery {SIDE**2}; the search takes {1000 * search / QUERIES:.3f} ms")
    print(table.round(2).to_string())

    network = PublishedNetwork(2048, width=2048).eval()
    embeddings = torch.rand(1, 10), torch.rand(1, 2048), torch.rand(1, 10, 2048)
    lists = ListBatch(*embeddings, torch.rand(1, 10, 2).double(), torch.zeros(1, 10, dtype=torch.int64), 1.0)
    with torch.no_grad():
        spent = seconds(lambda: network(lists))
    size = sum(p.numel() for p in network.parameters())
    print(f"\nthe published network at its own size: {size:,} parameters, {1000 * spent:.0f} ms per query at K = 10")


if __name__ == "__main__":
    main()
