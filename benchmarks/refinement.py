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
from sarmatch.refinement import METHODS, NETWORKS, Evidence, create_refiner
from sarmatch.refinement.networks import Batch, PublishedNetwork

QUERIES, SIDE, DIM, REPEATS = 1000, 50, 128, 3


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


def images(count: int) -> Callable[[int], tuple[torch.Tensor, torch.Tensor]]:
    """Random pixels for so many queries and all tiles."""
    return lambda r: (torch.rand(count, r, r), torch.rand(SIDE**2, 2 * r, 2 * r))


def main() -> None:
    """Print the table."""
    rng = np.random.default_rng(0)
    line = 100.0 * np.arange(SIDE)
    positions = np.stack(np.meshgrid(line, line), -1).reshape(-1, 2)
    reference, query = unit(rng, SIDE**2), unit(rng, QUERIES)
    index = sm.MapIndex(reference, positions)
    rows = []
    for k in (50, 200):
        search = seconds(lambda k=k: index.search(query, k))
        for name in [*METHODS, *NETWORKS]:
            pixels = name in ("correlation", "surface")
            evidence = Evidence(query, reference, 100.0, images(QUERIES) if pixels else None)
            found = index.search(query, k)
            refiner = create_refiner(name)
            if refiner.learns:
                refiner.network = refiner.build(DIM).eval()
            repeats = 1 if pixels or k == 200 else REPEATS
            spent = seconds(lambda r=refiner, f=found, e=evidence: r.refine(f, e), repeats) / QUERIES
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
    lists = Batch(torch.rand(1, 10), torch.rand(1, 2048), torch.rand(1, 10, 2048), torch.rand(1, 10, 2).double(), 1.0)
    with torch.no_grad():
        spent = seconds(lambda: network(lists))
    size = sum(p.numel() for p in network.parameters())
    print(f"\nthe published network at its own size: {size:,} parameters, {1000 * spent:.0f} ms per query at K = 10")


if __name__ == "__main__":
    main()
