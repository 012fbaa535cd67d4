"""What a query costs: vector search, exhaustive dense search and coarse to fine on maps of one size, in one run.

Usage: python benchmarks/search.py [--mpx 1 4 22 100] [--stride 2] [--query 128] [--build] [--tiles 1000000]

Maps are random features in half precision, 16 channels, with a coarse level four times coarser; queries are cut from
them, with noise, and counted as found where the first place is the right one. Vectors are random, one per tile of the
query's size at half its spacing. Each row is a process of its own: its peak of memory is the whole of it, GPU memory
where there is one. Times are medians for one query alone and for each of 64 at once, after one search to warm up, and
ratios are to the exhaustive search, `dense`. `--build` measures how long an untrained encoder takes for the maps.
`--tiles` compares faiss' indices with the exact search over so many vectors, which lie about a space of 24 dimensions
of the 128 as those of encoders do; queries are some with noise, and recall is counted against the exact search.
"""

import argparse
import math
import resource
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_all_start_methods, get_context

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F

import faiss  # isort: skip - after torch

import sarmatch as sm
from sarmatch.scenes import Area, Raster, Scene
from sarmatch.search import DenseGallery, FeatureMap
from sarmatch.search.coarse_to_fine import Levels

CHANNELS, RATIO, DIM, BATCH, K = 16, 4, 128, 64, 10
NOISE = 1.0  # of a query's features, in spreads of the map's
METHODS = ("dense", "coarse_to_fine", "vector")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def seconds(work: Callable[[], object], repeats: int) -> float:
    """Median duration after one call to warm up."""
    work()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def peak_gb() -> float:
    """Most memory that this process has held so far, or has held on the GPU."""
    if DEVICE == "cuda":
        return torch.cuda.max_memory_allocated() / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e9


def random_maps(side: int) -> DenseGallery:
    """Features of a map `side` cells wide, and their averages."""
    generator = torch.Generator().manual_seed(0)
    fine = torch.stack([torch.randn(side, side, generator=generator).half() for _ in range(CHANNELS)])
    coarse = torch.stack([F.avg_pool2d(channel[None].float(), RATIO)[0].half() for channel in fine])
    level = DenseGallery({"map": FeatureMap(coarse, None, (0.0, 0.0), float(RATIO), False)}, RATIO)
    return DenseGallery({"map": FeatureMap(fine, None, (0.0, 0.0), 1.0, False)}, 1, level)


def planted(maps: DenseGallery, size: int) -> tuple[Levels, np.ndarray]:
    """Queries of `size` cells cut from a map, with noise, and their centres."""
    fmap = maps.maps["map"]
    rng = np.random.default_rng(1)
    corners = rng.integers(0, fmap.features.shape[1] - size + 1, (BATCH, 2))
    fine = torch.stack([fmap.cut(row, col, size, size).float() for row, col in corners.tolist()])
    fine += NOISE * torch.randn(fine.shape, generator=torch.Generator().manual_seed(2))
    return Levels(fine, F.avg_pool2d(fine, RATIO)), fmap.metres_of(*(corners.T + size / 2))


def dense_row(method: str, side: int, size: int) -> dict[str, float]:
    """Dense search, exhaustive or from coarse to fine, on a map `side` cells wide."""
    maps = random_maps(side)
    queries, centres = planted(maps, size)
    search = sm.create_search(method, maps, device=DEVICE)
    one, all_of_them = Levels(*(level[:1] for level in queries)), queries
    if method == "dense":
        one, all_of_them = one.fine, queries.fine
    alone = seconds(lambda: search.search(one, K), 5)
    start = time.perf_counter()
    found = search.search(all_of_them, K)
    together = time.perf_counter() - start
    right = np.abs(found.xy[:, 0] - centres).max(1) < 1
    return {
        "one query, ms": 1000 * alone,
        f"of {BATCH}, ms": 1000 * together / BATCH,
        "found, %": 100 * float(right.mean()),
    }


def vector_row(side: int, size: int) -> dict[str, float]:
    """Vector search among the tiles of the same map."""
    tiles = max(1, 2 * side // size - 1)
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(tiles**2 + BATCH, DIM)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    search, queries = sm.VectorSearch(sm.Gallery.of_vectors(vectors[BATCH:])), vectors[:BATCH]
    k = min(K, tiles**2)
    return {
        "one query, ms": 1000 * seconds(lambda: search.search(queries[:1], k), 20),
        f"of {BATCH}, ms": 1000 * seconds(lambda: search.search(queries, k), 5) / BATCH,
    }


def index_row(index: str, tiles: int) -> dict[str, float | str]:
    """An index over many tiles: whether it finds what the exact search finds."""
    rng = np.random.default_rng(0)
    axes = rng.normal(size=(24, DIM)).astype(np.float32)
    vectors = rng.normal(size=(tiles, 24)).astype(np.float32) @ axes
    vectors += rng.normal(size=vectors.shape).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    asked = vectors[:: max(1, tiles // 256)][:256] + 0.3 / math.sqrt(DIM) * rng.normal(size=(256, DIM))
    asked = (asked / np.linalg.norm(asked, axis=1, keepdims=True)).astype(np.float32)
    true = np.concatenate([(part @ vectors.T).argmax(1) for part in np.array_split(asked, 16)])
    start = time.perf_counter()
    search = sm.VectorSearch(sm.Gallery.of_vectors(vectors), index=index)
    build = time.perf_counter() - start
    found = search.search(asked, K).tile
    return {
        "index": index,
        "built in, s": build,
        "one query, ms": 1000 * seconds(lambda: search.search(asked[:1], K), 5),
        "of 256, ms": 1000 * seconds(lambda: search.search(asked, K), 3) / 256,
        "exact first found, %": 100 * float((found[:, 0] == true).mean()),
        f"in the first {K}, %": 100 * float((found == true[:, None]).any(1).mean()),
        "index, MB": len(faiss.serialize_index(search.index)) / 1e6,
    }


def measured(method: str, mpx: float, stride: int, query: int) -> dict[str, float | str]:
    """A row of the table."""
    side, size = round(1000 * math.sqrt(mpx) / stride), query // stride
    row = vector_row(side, size) if method == "vector" else dense_row(method, side, size)
    return {"Mpx": mpx, "method": method, **row, "peak, GB": peak_gb()}


def build_seconds(mpx: float, stride: int) -> dict[str, float]:
    """How long both levels of a map take under an untrained encoder, and the memory for it."""
    side = round(1000 * math.sqrt(mpx))
    pixels = np.random.default_rng(0).random((3, side, side), dtype=np.float32)
    scene = Scene("random", (Area("map", Raster.from_array("map", pixels, "reflectance"), (), ()),), 1.0, 128)
    encoder = sm.create_encoder("dense", stride=stride, channels=CHANNELS, coarse=RATIO).to(DEVICE)
    start = time.perf_counter()
    sm.build_maps(encoder, scene)
    return {"Mpx": mpx, "maps, s": time.perf_counter() - start, "peak, GB": peak_gb()}


def apart(work: Callable, *given: object) -> dict:
    """What a function gives in a process of its own."""
    context = get_context("forkserver" if "forkserver" in get_all_start_methods() else "spawn")
    if context.get_start_method() == "forkserver":
        context.set_forkserver_preload(["pandas", "sarmatch.search"])  # imported once for all
    with ProcessPoolExecutor(1, context) as pool:
        row = pool.submit(work, *given).result()
    print(row, flush=True)
    return row


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mpx", type=float, nargs="+", default=[1, 4, 22], help="sizes of the map, millions of pixels")
    parser.add_argument("--stride", type=int, default=2, help="pixels along the side of a cell")
    parser.add_argument("--query", type=int, default=128, help="side of a query in pixels")
    parser.add_argument("--tiles", type=int, help="so many vectors in faiss' indices, instead of maps")
    parser.add_argument("--build", action="store_true", help="how long the maps take, too")
    options = parser.parse_args()
    if options.tiles:
        cells = 2 ** round(math.log2(4 * math.sqrt(options.tiles)))
        indices = ("Flat", f"IVF{cells},Flat", f"IVF{cells},PQ32")
        print(
            pd.DataFrame([apart(index_row, index, options.tiles) for index in indices]).round(3).to_string(index=False)
        )
        return
    given = options.stride, options.query
    rows = [apart(measured, method, mpx, *given) for mpx in options.mpx for method in METHODS]
    table = pd.DataFrame(rows)
    times = f"of {BATCH}, ms"
    baseline = table["Mpx"].map(table[table["method"] == "dense"].set_index("Mpx")[times])
    table["times dense"] = table[times] / baseline
    print(f"{torch.get_num_threads()} threads, {DEVICE}; queries of {options.query} px, cells of {options.stride} px")
    print(table.set_index(["Mpx", "method"]).round(3).to_string())
    if options.build:
        print(pd.DataFrame([apart(build_seconds, mpx, options.stride) for mpx in options.mpx]).round(2).to_string())


if __name__ == "__main__":
    main()
