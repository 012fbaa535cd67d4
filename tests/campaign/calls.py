"""Public functions, called with what a notebook may hand them by mistake."""

import math
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

import sarmatch as sm
from sarmatch.evaluation.calibration import conformal_threshold, fit_temperature, reliability, risk_coverage
from sarmatch.losses import EmbeddedBatch
from tests.campaign.case import Case, Outcome, judge_call
from tests.campaign.samples import copied_run, small_config
from tests.fake_data import tiny_scene

DOOR = "call"
NAN, INFINITE = math.nan, math.inf
SCORES, POSITIVE = np.eye(4), np.arange(4)
XY = np.array([[0.0, 0.0], [100.0, 0.0], [0.0, 100.0], [100.0, 100.0]])
Call = tuple[str, Callable[[], Any], Sequence[str]]


@cache
def scene() -> sm.Scene:
    """Three small areas in memory."""
    return tiny_scene()


@cache
def gallery() -> sm.Gallery:
    """Four tiles with one vector each."""
    return sm.Gallery.of_vectors(np.eye(4, dtype=np.float32), XY, 100.0)


def found(k: int = 3) -> sm.Candidates:
    """What a vector search finds in it."""
    return sm.create_search("vector", gallery()).search(np.eye(4, dtype=np.float32), k)


def _measures() -> list[Call]:
    """Ranks, recall, metres."""
    calls: list[Call] = [
        (f"ranks, tolerance {t}", partial(sm.ranks, SCORES, POSITIVE, t), ["tolerance"]) for t in (NAN, -1.0, INFINITE)
    ]
    calls += [(f"recall_at_k, k={k!r}", partial(sm.recall_at_k, POSITIVE, k), ["k "]) for k in (0, -1, 1.5, NAN, "1")]
    wrong_ranks = ([-1, 0], [0.5, 1], [NAN, 1], [], [[0]], ["a"])
    calls += [(f"recall_at_k of {r}", partial(sm.recall_at_k, np.array(r), 1), ["ranks"]) for r in wrong_ranks]
    wrong_positives = ([0, 1, 2, 4], [-1, 0, 1, 2], [0.0, 1.0, 2.0, 3.0], [0, 1], [[0, 1, 2, 3]])
    calls += [(f"ranks, positive {p}", partial(sm.ranks, SCORES, np.array(p)), ["positive"]) for p in wrong_positives]
    calls += [(f"ranks of {s}", partial(sm.ranks, np.zeros(s), POSITIVE), ["scores"]) for s in ((4,), (0, 4), (4, 0))]
    hit = partial(sm.hit_rate, SCORES, POSITIVE)
    calls += [
        ("hit_rate, semi-positive outside", partial(hit, np.array([[9]] * 4)), ["semi_positives"]),
        ("hit_rate, too few rows", partial(hit, [[1]]), ["semi_positives"]),
        ("hit_rate, tolerance NaN", partial(hit, None, NAN), ["tolerance"]),
        ("errors without positions", partial(sm.localization_errors, None, XY), ["found_xy"]),
        ("errors of another shape", partial(sm.localization_errors, XY[:2], XY), ["found_xy"]),
        ("errors with NaN", partial(sm.localization_errors, XY * NAN, XY), ["found_xy"]),
        ("error_summary of nothing", partial(sm.evaluation.error_summary, []), ["errors"]),
        ("error_summary of NaN", partial(sm.evaluation.error_summary, [NAN]), ["errors"]),
        ("error_summary of negative", partial(sm.evaluation.error_summary, [-1.0]), ["errors"]),
        ("report with one set of positions", lambda: sm.retrieval_report(SCORES, POSITIVE, query_xy=XY), ["_xy"]),
        ("report, k of 0", lambda: sm.retrieval_report(SCORES, POSITIVE, ks=(0,)), ["k "]),
        (
            "report, tile of NaN",
            lambda: sm.retrieval_report(SCORES, POSITIVE, query_xy=XY, reference_xy=XY, tile_m=NAN),
            ["tile_m"],
        ),
    ]
    stride = sm.evaluation.grid_ceiling
    calls += [(f"grid_ceiling({s})", partial(stride, s), ["stride_m"]) for s in (0, -1, NAN, INFINITE)]
    return calls


def _statistics() -> list[Call]:
    """Intervals, distances between distributions, calibration."""
    mean, difference, features = sm.evaluation.bootstrap_mean, sm.bootstrap_difference, np.ones((8, 2))
    return [
        ("bootstrap of NaN", partial(mean, np.array([0, NAN]), np.arange(2)), ["values"]),
        ("bootstrap of one block", partial(mean, np.zeros(3), np.zeros(3)), ["2 blocks"]),
        ("bootstrap, no draws", partial(mean, np.zeros(3), np.arange(3), 0), ["draws"]),
        ("bootstrap, 1.5 draws", partial(mean, np.zeros(3), np.arange(3), 1.5), ["draws"]),
        ("bootstrap, level 2", partial(mean, np.zeros(3), np.arange(3), level=2), ["level"]),
        ("bootstrap, level NaN", partial(mean, np.zeros(3), np.arange(3), level=NAN), ["level"]),
        ("difference of two lengths", partial(difference, np.zeros(3), np.zeros(2), np.arange(3)), ["(3,)"]),
        ("block_ids of NaN", partial(sm.evaluation.block_ids, XY * NAN, 100), ["xy"]),
        ("block_ids, size NaN", partial(sm.evaluation.block_ids, XY, NAN), ["size_m"]),
        ("block_ids, size infinite", partial(sm.evaluation.block_ids, XY, INFINITE), ["size_m"]),
        ("discrepancy, no such metric", partial(sm.discrepancy, features, features, "nope"), ["nope"]),
        ("discrepancy, no such null", partial(sm.discrepancy, features, features, null="x"), ["null"]),
        ("discrepancy of two widths", partial(sm.discrepancy, features, np.ones((8, 3))), ["(8, 3)"]),
        ("discrepancy of NaN", partial(sm.discrepancy, features * NAN, features), ["finite"]),
        ("discrepancy, -1 repeats", partial(sm.discrepancy, features, features, repeats=-1), ["repeats"]),
        ("discrepancy of one point", partial(sm.discrepancy, features[:1], features), ["(1, 2)"]),
        ("temperature of NaN", partial(fit_temperature, features * NAN, features), ["logits"]),
        ("temperature of two shapes", partial(fit_temperature, features, features[:3]), ["(3, 2)"]),
        ("reliability of nothing", partial(reliability, [], []), ["confidence"]),
        ("reliability beyond 1", partial(reliability, [2.0, 0.5], [1, 0]), ["confidence"]),
        ("reliability, no bins", partial(reliability, [0.5], [1], 0), ["bins"]),
        ("risk of NaN", partial(risk_coverage, [NAN], [1]), ["confidence"]),
        ("conformal, coverage 1", partial(conformal_threshold, features, features, 1.0), ["coverage"]),
        ("conformal, coverage NaN", partial(conformal_threshold, features, features, NAN), ["coverage"]),
    ]


def _parts() -> list[Call]:
    """Encoders, losses, alignments, refiners and searches by name."""
    calls: list[Call] = []
    for size in (-5, 0, 1.5, "big", NAN, None, True):
        calls.append((f"encoder, image_size {size!r}", partial(sm.create_encoder, "plain", size), ["image_size"]))
    for name, options in (
        ("plain", {"sar_bands": 0}),
        ("plain", {"junk": 1}),
        ("plain", {"widths": ()}),
        ("plain", {"widths": (8, 8)}),
        ("plain", {"pretrained": True}),
        ("plain", {"shared": True, "sar_bands": 2}),
        ("hog", {"cells": 0}),
        ("hog", {"cells": NAN}),
        ("hog", {"sigma": -1}),
        ("hog", {"orientations": 0}),
        ("hog", {"cells": 999}),
        ("cfog", {"stride": 0}),
        ("cfog", {"sigma": NAN}),
        ("dense", {"junk": 1}),
        ("resnet18", {"junk": 1}),
        ("nope", {}),
    ):
        said = list(options)[-1] if options else name
        calls.append((f"encoder {name} {options}", partial(sm.create_encoder, name, **options), [name, said]))
    for name, options in (
        ("nope", {}),
        ("infonce", {"junk": 1}),
        ("infonce", {"temperature": 0}),
        ("infonce", {"temperature": NAN}),
        ("infonce", {"temperature": INFINITE}),
        ("infonce", {"temperature": None}),
        ("infonce", {"label_smoothing": 1.0}),
        ("infonce", {"label_smoothing": NAN}),
        ("soft_margin_triplet", {"alpha": -1}),
        ("batch_hard_triplet", {"margin": "wide"}),
        ("iou_semi_positive", {"least": -1}),
        ("offset_regression", {}),
        ("shift_cross_entropy", {"temperature": NAN}),
    ):
        said = list(options)[-1] if options else name
        calls.append((f"loss {name} {options}", partial(sm.create_loss, name, **options), [name, said]))
    for name, options in (
        ("nope", {}),
        ("wasserstein", {"junk": 1}),
        ("wasserstein", {"critic_steps": 0}),
        ("wasserstein", {"critic_steps": 1.5}),
        ("wasserstein", {"critic_rate": -1}),
        ("wasserstein", {"penalty": NAN}),
        ("wasserstein", {"widths": (-1,)}),
        ("wasserstein_clipped", {"clip": 0}),
        ("class_adversary", {"critic_rate": "fast"}),
        ("sliced", {"projections": 0}),
        ("sinkhorn", {"blur": NAN}),
        ("mmd", {"widths": ()}),
    ):
        said = list(options)[-1] if options else name
        calls.append((f"alignment {name} {options}", partial(sm.create_alignment, name, 8, **options), [name, said]))
    for name, options in (
        ("nope", {}),
        ("geographic_vote", {"junk": 1}),
        ("geographic_vote", {"temperature": 0}),
        ("geographic_vote", {"weight": NAN}),
        ("query_expansion", {"best": 0}),
        ("diffusion", {"alpha": 1.5}),
        ("gnn", {"junk": 1}),
        ("gnn", {"width": -8}),
        ("gnn", {"edges": "nope"}),
        ("gnn", {"dropout": 2}),
        ("mlp", {"resolution": 0}),
    ):
        said = list(options)[-1] if options else name
        call = partial(_built_refiner, name, options)
        calls.append((f"refiner {name} {options}", call, [name, said]))
    return calls


def _built_refiner(name: str, options: dict[str, Any]) -> object:
    refiner = sm.create_refiner(name, **options)
    return refiner.build(8) if refiner.learns else refiner


def _search() -> list[Call]:
    """Galleries, searches, candidates and their refinement."""
    eye = np.eye(4, dtype=np.float32)
    calls: list[Call] = [(f"search, k={k!r}", partial(found, k), ["k "]) for k in (0, -1, 1.5, NAN, 5)]
    batch = EmbeddedBatch(torch.ones(2, 3), torch.ones(3, 3))
    graphs = partial(sm.candidate_graphs, torch.zeros(1, 3, 2), torch.zeros(1, 3, 4), 100.0)
    calls += [
        ("gallery of NaN", lambda: sm.Gallery.of_vectors(eye * NAN), ["vectors"]),
        ("gallery not normalised", lambda: sm.Gallery.of_vectors(3 * eye), ["vectors"]),
        ("gallery of nothing", lambda: sm.Gallery.of_vectors(eye[:0]), ["vectors"]),
        ("gallery, too few places", lambda: sm.Gallery.of_vectors(eye, XY[:2]), ["positions"]),
        ("gallery, places of NaN", lambda: sm.Gallery.of_vectors(eye, XY * NAN), ["positions"]),
        ("gallery, tile of 0 m", lambda: sm.Gallery.of_vectors(eye, XY, 0.0), ["tile_m"]),
        ("gallery, tile of NaN", lambda: sm.Gallery.of_vectors(eye, XY, NAN), ["tile_m"]),
        ("gallery, tile infinite", lambda: sm.Gallery.of_vectors(eye, XY, INFINITE), ["tile_m"]),
        ("search of another width", lambda: sm.VectorSearch(gallery()).search(np.eye(3), 1), ["3"]),
        ("search of NaN", lambda: sm.VectorSearch(gallery()).search(eye * NAN, 1), ["quer"]),
        ("search by no such name", lambda: sm.create_search("nope", gallery()), ["nope"]),
        ("search, unknown option", lambda: sm.create_search("vector", gallery(), junk=1), ["junk"]),
        ("dense search, radius 0", lambda: sm.create_search("dense", None, radius=0), ["radius"]),
        ("candidates of doubles", lambda: sm.Candidates(SCORES), ["scores"]),
        ("candidates, area unknown", lambda: sm.Candidates(eye, area=np.ones((4, 4), int)), ["area"]),
        ("candidates, tile negative", lambda: sm.Candidates(eye, tile=-np.ones((4, 4), int)), ["tile"]),
        ("candidates without places", lambda: sm.Candidates(eye).xy, ["coordinates"]),
        ("reorder by too few scores", lambda: found().reorder(np.zeros((4, 2))), ["scores"]),
        ("context of another gallery", lambda: sm.RefinementContext(gallery(), np.eye(3, dtype=np.float32)), ["3"]),
        ("loss of two sizes of batch", lambda: sm.create_loss("infonce")(batch), ["query"]),
        ("graphs, no such edges", lambda: graphs("nope"), ["nope"]),
        ("graphs, k of 0", lambda: graphs("metres", 0), ["k "]),
        ("graphs, reach of NaN", lambda: graphs("metres", 2, NAN), ["reach"]),
        (
            "refiner without what it requires",
            lambda: sm.create_refiner("correlation").refine(found(), sm.RefinementContext(gallery(), eye)),
            ["correlation", "pixels"],
        ),
    ]
    return calls


def _tasks() -> list[Call]:
    """Scenes and patch tables."""
    task = partial(sm.search_task, split="test", protocol="cross_area")
    calls: list[Call] = [
        ("no such kind", lambda: task(scene(), "sideways", None), ["sideways"]),
        ("no such split", lambda: sm.search_task(scene(), "aligned", None, "tset", protocol="cross_area"), ["tset"]),
        ("no such protocol", lambda: sm.search_task(scene(), "aligned", None, "test", protocol="x"), ["'x'"]),
        ("patch of -5 px", lambda: task(scene(), "aligned", -5), ["-5"]),
        ("patch of 7 px", lambda: task(scene(), "aligned", 7), ["7"]),
        ("patch of 10000 px", lambda: task(scene(), "aligned", 10_000), ["10000"]),
        ("patch of 32.5 px", lambda: task(scene(), "aligned", 32.5), ["32.5"]),
        ("stride of 0", lambda: task(scene(), "aligned", 32, stride=0), ["stride"]),
        ("stride of 1.5", lambda: task(scene(), "aligned", 32, stride=1.5), ["stride"]),
        ("no queries", lambda: task(scene(), "arbitrary", 32, count=0), ["count"]),
        ("-3 queries", lambda: task(scene(), "arbitrary", 32, count=-3), ["count"]),
        ("1.5 queries", lambda: task(scene(), "arbitrary", 32, count=1.5), ["count"]),
        ("seed of -1", lambda: task(scene(), "arbitrary", 32, seed=-1), ["seed"]),
        ("patch of an unknown area", lambda: sm.read_patch(scene(), _patch(area="nope")), ["nope"]),
        ("patch of an unknown strip", lambda: sm.read_patch(scene(), _patch(strip="nope")), ["nope"]),
        ("patch outside", lambda: sm.read_patch(scene(), _patch(row=10**6)), ["1000000"]),
        ("scene by no name", lambda: sm.load_scene("nope"), ["nope"]),
        ("scene by an empty name", lambda: sm.load_scene(""), ["scene"]),
        ("scene of a huge profile", lambda: sm.load_scene("easy", "huge"), ["huge"]),
        ("scene of unknown bands", lambda: sm.load_scene("easy", bands=["XX"]), ["XX"]),
    ]
    return calls


def _patch(**changes: Any) -> Any:
    table = sm.queries(scene(), "arbitrary", 32, count=1).assign(**changes)
    return next(table.itertuples())


def _configs() -> list[Call]:
    """Recipes, configs and runs."""
    calls: list[Call] = [
        (f"recipe, {name}={value!r}", partial(sm.recipe, "demo", **{name: value}), [name])
        for name, value in (
            ("epochs", 0),
            ("epochs", True),
            ("learning_rate", 1e30),
            ("auxiliary", {"infonce": NAN}),
            ("kinds", []),
            ("test_queries", 10**12),
            ("image_size", 10**7),
            ("name", "../up"),
            ("scene", ""),
            ("loss_options", None),
            ("seed", 2**40),
            ("junk", 1),
        )
    ]
    calls += [
        ("recipe by no name", lambda: sm.recipe("nope"), ["nope"]),
        ("config, no field", lambda: sm.Config(epcohs=1), ["epcohs"]),
        ("grid of a bad value", lambda: sm.grid(sm.recipe("demo"), seed=[-1]), ["seed"]),
        ("grid of no field", lambda: sm.grid(sm.recipe("demo"), seeed=[1]), ["seeed"]),
        ("run of a missing folder", lambda: sm.run(sm.recipe("own", scene="no/such")), ["no/such"]),
        ("run with a shared branch of two bands", lambda: _run(bands=("XX", "YY")), ["sar_bands"]),
        ("load_run of nothing", lambda: sm.load_run("no/such"), ["no/such"]),
        ("load_sweep of nothing", lambda: sm.load_sweep("nope"), ["nope"]),
        ("compare of nothing", lambda: sm.compare([]), ["run"]),
        ("sweep of nothing", lambda: sm.sweep([]), ["config"]),
    ]
    return calls


def _run(**changes: Any) -> object:
    return sm.run(small_config(**changes), report=lambda history: None)


def cases() -> list[Case]:
    """A case per call, and a few that need a folder."""
    groups = (_measures, _statistics, _parts, _search, _tasks, _configs)
    calls = [call for group in groups for call in group()]
    found = [Case(DOOR, name, partial(_judged, call, said)) for name, call, said in calls]
    return [*found, *(Case(DOOR, name, run) for name, run in SITUATIONS.items())]


def _judged(call: Callable[[], Any], said: Sequence[str], folder: Path) -> Outcome:
    return judge_call(call, *said)


def _precisions(folder: Path) -> Outcome:
    """Not a mistake: two precisions in one process."""

    def both() -> object:
        _run(seed=1)
        return _run(seed=1, precision="bf16")

    return judge_call(both, right=lambda run: run.config.precision == "bf16" and len(run.metrics) > 0)


def _too_fast(folder: Path) -> Outcome:
    return judge_call(partial(_run, learning_rate=100.0, optimizer="sgd", seed=3), "learning_rate", right=_is_recall)


def _is_recall(run: sm.Run) -> bool:
    return bool(run.metrics["recall@1"].between(0, 1).all())


def _other_config(folder: Path) -> Outcome:
    path = copied_run(folder)
    return judge_call(lambda: sm.run(small_config(seed=5), path), str(path))


def _no_refiner(folder: Path) -> Outcome:
    path = copied_run(folder)
    return judge_call(lambda: sm.load_run(path).refiner, "refiner")


def _no_such_task(folder: Path) -> Outcome:
    path = copied_run(folder)
    return judge_call(lambda: sm.load_run(path).results("same_area", "aligned"), "results_same_area_aligned.json")


def _lists_without_coordinates(folder: Path) -> Outcome:
    path = copied_run(folder)
    return judge_call(lambda: sm.load_run(path).lists("cross_area", "arbitrary"), "coordinates")


def _check_of_nothing(folder: Path) -> Outcome:
    return judge_call(lambda: sm.check_data("no/such"), right=lambda said: not said.usable and "no/such" in str(said))


SITUATIONS = {
    "check of nothing": _check_of_nothing,
    "two precisions in one process": _precisions,
    "a learning rate of 100": _too_fast,
    "a folder of another config": _other_config,
    "a refiner that was not trained": _no_refiner,
    "results of a task that was not run": _no_such_task,
    "lists without coordinates": _lists_without_coordinates,
}
