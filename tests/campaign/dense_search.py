"""Dense search: fields and options of its recipes, its calls, what it keeps, and its table's command."""

import json
import os
import shutil
import warnings
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

import sarmatch as sm
from sarmatch.encoders import Encoder
from sarmatch.experiments.report import write_report
from sarmatch.search import CoarseToFine, DenseGallery, DenseSearch, build_maps
from sarmatch.search.correlate import FeatureMap
from tests.campaign.case import Case, Outcome, judge_call, judge_command
from tests.campaign.command_lines import words_of
from tests.campaign.samples import finished_run, pairs
from tests.fake_data import tiny_scene
from tests.fake_mosaics import write_own

DOOR = "dense search"
SMALL = {
    "search": "dense",
    "encoder": "dense",
    "encoder_options": {"width": 4, "channels": 4, "dilations": [1], "coarse": 2},
    "loss": "shift_cross_entropy",
    "baseline": "cfog",
    "kinds": ["arbitrary"],
    "epochs": 1,
    "pairs_per_epoch": 16,
    "batch_size": 8,
    "test_queries": 20,
    "val_queries": 10,
}
NAN, INFINITE = float("nan"), float("inf")

#: Values that a field must not take, as they are typed, and what else has to be said for it.
FIELDS: dict[str, Sequence[str]] = {
    "window": ("1", "0", "-2", "NaN", "Infinity", "17", "1.01", "wide", "true", "[2]"),
    "search": ("vector", "nope", "null"),
    "towns": ("-1", "2", "NaN", "true"),
    "mined": ("-1", "17", "1.5", "NaN", "many", "true"),
    "encoder": ("plain", "cfog", "hog", "nope"),
    "encoder_options": (
        *(f'{{"stride": {value}}}' for value in ("0", "1", "3", "-2", "1.5", "16", "4096", "100000", "true", "null")),
        *(f'{{"channels": {value}}}' for value in ("0", "-1", "100000", "NaN", "1.5")),
        *(f'{{"width": {value}}}' for value in ("0", "100000", '"wide"', "true")),
        *(f'{{"dilations": {value}}}' for value in ("[0]", "[-1]", "[100]", "[1.5]", '"x"', "3", "[[1]]")),
        *(f'{{"coarse": {value}}}' for value in ("0", "-1", "64", "1.5", "1e300")),
        '{"junk": 1}',
    ),
    "loss": ("infonce", "offset_regression", "nope"),
    "loss_options": (
        *(f'{{"radius": {value}}}' for value in ("0", "0.1", "-1", "NaN", "1e9", '"near"')),
        *(f'{{"temperature": {value}}}' for value in ("0", "-1", "NaN", "Infinity")),
        *(f'{{"queries": {value}}}' for value in ("-1", "NaN", "1e300")),
        '{"hardest": 3}',
    ),
    "auxiliary": ('{"infonce": 1}', '{"shift_circle": -1}', '{"shift_circle": NaN}'),
    "refiner": ("gnn", "mlp"),
    "baseline": ("dense", "nope"),
    "baseline_options": (
        *(f'{{"stride": {value}}}' for value in ("0", "-1", "1.5", "64", "5000", "true")),
        *(f'{{"sigma": {value}}}' for value in ("0", "NaN", '"x"')),
        '{"cells": 4}',
    ),
    "patch_size": ("8000", "4096", "4"),
    "alignment_options": ('{"junk": 1}',),
}
BESIDE = [
    ("loss_options", '{"margin": 9}', {"loss": "shift_circle"}),
    ("loss_options", '{"gamma": 0}', {"loss": "shift_circle"}),
    ("loss_options", '{"hardest": 0}', {"loss": "disc_hinge"}),
    ("loss_options", '{"hardest": 1e9}', {"loss": "disc_hinge"}),
    ("loss_options", '{"margin": NaN}', {"loss": "disc_hinge"}),
    ("encoder_options", '{"coarse": 8}', {"augment": ["crop"]}),
    ("alignment_options", '{"critic_steps": 0}', {"alignment": "wasserstein"}),
]


def cases() -> list[Case]:
    """A case per value, call, damage and line."""
    values = [(field, value, {}) for field, values in FIELDS.items() for value in values] + BESIDE
    found = [Case(DOOR, f"{f}={v}{beside or ''}", partial(_field, f, v, beside)) for f, v, beside in values]
    found += [Case(DOOR, name, partial(_called, call, said)) for name, call, said in _calls()]
    found += [Case(DOOR, f"kept maps {name}", partial(_damaged, damage)) for name, damage in DAMAGES.items()]
    found += [Case(DOOR, f"sarmatch dense, {name}", partial(_line, *line)) for name, line in LINES.items()]
    return [*found, *(Case(DOOR, name, run) for name, run in SITUATIONS.items())]


def _folder() -> Path:
    return Path(os.environ["SARMATCH_CAMPAIGN"])


@cache
def own() -> Path:
    """A folder with a map and strips; not to be changed."""
    folder = _folder() / "own"
    write_own(folder, size=256)
    (folder / "scene.json").write_text(json.dumps({"patch_size": 20}))
    return folder


@cache
def finished() -> Path:
    """A finished run of dense search on it; not to be changed."""
    config = sm.recipe("own", scene=str(own()), **SMALL)
    return sm.run(config, _folder() / "dense_run", report=lambda history: None).path


@cache
def scene() -> sm.Scene:
    """Three small areas in memory."""
    return tiny_scene()


@cache
def cfog() -> Encoder:
    """Needs no training."""
    return sm.create_encoder("cfog")


@cache
def gallery() -> DenseGallery:
    """Its maps of one area."""
    return build_maps(cfog(), scene(), ["one"])


def _field(field: str, value: str, beside: dict[str, Any], folder: Path) -> Outcome:
    fields = {"scene": str(own()), **SMALL, **beside, field: value}
    outcome = judge_command(words_of(fields), field.split("_options")[0].split("_size")[0])
    return "silent" if list((folder / "runs").glob("*/*.safetensors")) else outcome


def _called(call: Callable[[], Any], said: Sequence[str], folder: Path) -> Outcome:
    return judge_call(call, *said)


def _searched(queries: Any, k: Any = 3, masks: Any = None, **options: Any) -> object:
    return DenseSearch(gallery(), **options).search(queries, k, masks)


@cache
def dense() -> Encoder:
    """Two levels, as they are before the first step."""
    return sm.create_encoder("dense", width=4, channels=4, dilations=(1,)).eval()


def _coarse_to_fine(images: Any = (), k: Any = 3, **options: Any) -> object:
    search = CoarseToFine(build_maps(dense(), scene(), ["one"]), dense(), **options)
    return search.search(images, k)


def _of_map(features: torch.Tensor, valid: torch.Tensor | None = None, **more: torch.Tensor) -> DenseGallery:
    maps = {"a": FeatureMap(features, valid, (0.0, 0.0), 1.0)}
    return DenseGallery(maps | {k: FeatureMap(v, None, (0.0, 0.0), 1.0) for k, v in more.items()}, 2)


def _calls() -> list[tuple[str, Callable[[], Any], Sequence[str]]]:
    """Searches, maps of features and runs of them, called as a notebook may by mistake."""
    query, features = torch.randn(2, 9, 8, 8, generator=torch.Generator().manual_seed(0)), torch.zeros(9, 20, 20)
    calls = [
        (f"{name} of {value!r}", partial(_searched, query, **{name: value}), [name])
        for name, values in {"radius": (0, -1, 1.5, NAN, True, "x"), "budget": (-1, NAN, 0.5, "x")}.items()
        for value in values
    ]
    calls += [(f"k of {k!r}", partial(_searched, query, k), ["k "]) for k in (0, -1, 1.5, NAN, "1", True)]
    for name, wrong in {
        "of three channels": query[:, :3],
        "of one image": query[0],
        "of NaN": query * NAN,
        "of infinity": query.clone().fill_(INFINITE),
    }.items():
        calls.append((f"queries {name}", partial(_searched, wrong), ["quer"]))
    for name, mask in {
        "of another size": torch.ones(2, 4, 4),
        "of one query": torch.ones(8, 8),
        "above 1": 2 * torch.ones(2, 8, 8),
        "of NaN": torch.full((2, 8, 8), NAN),
    }.items():
        calls.append((f"masks {name}", partial(_searched, query, 3, mask), ["masks"]))
    for name, option in {"junk": {"junk": 1}, "radius": {"radius": 10**6}}.items():
        calls.append((f"by name, {name}", lambda o=option: sm.create_search("dense", gallery(), **o), [name]))
    calls += [
        ("images without an encoder", lambda: _searched([torch.zeros(1, 1, 32, 32)]), ["encoder"]),
        (
            "images of two bands",
            lambda: _searched([torch.zeros(1, 2, 32, 32)], encoder=cfog()),
            ["(B, 1, H, W)", "(1, 2, 32, 32)"],
        ),
        (
            "images smaller than a cell",
            lambda: _searched([torch.zeros(1, 1, 1, 1)], encoder=cfog()),
            ["2 px", "(1, 1, 1, 1)"],
        ),
        ("maps of no area", lambda: DenseGallery({}, 2), ["no area"]),
        ("maps of NaN", lambda: _of_map(features * NAN), ["'a'", "finite"]),
        ("maps of two widths", lambda: _of_map(features, b=features[:4]), ["'b'", "(9, H, W)"]),
        ("maps with a mask of another size", lambda: _of_map(features, torch.ones(3, 3)), ["'a'", "(3, 3)"]),
        ("maps without cells", lambda: _of_map(features[:, :0]), ["'a'", "(9, 0, 20)"]),
        ("maps under HOG", lambda: build_maps(sm.create_encoder("hog", 32), scene()), ["HOGEncoder", "stride"]),
        ("maps under a network with a head", lambda: build_maps(sm.create_encoder("plain", 32), scene()), ["stride"]),
        ("maps of an unknown area", lambda: build_maps(cfog(), scene(), ["nope"]), ["nope"]),
        ("maps of an empty list", lambda: build_maps(cfog(), scene(), []), ["no area"]),
        ("maps of a text", lambda: build_maps(cfog(), scene(), "one"), ["'o'"]),
        ("maps in unknown numbers", lambda: build_maps(cfog(), scene(), precision="int4"), ["precision", "int4"]),
        ("maps under wide cells", lambda: build_maps(sm.create_encoder("cfog", stride=512), scene()), ["512 px"]),
        ("load of nothing", lambda: DenseGallery.load(Path("no/such")), ["no/such"]),
        ("lists of a run", lambda: sm.load_run(finished()).lists("cross_area", "arbitrary"), ["search is 'dense'"]),
        ("pairs without coordinates", lambda: sm.run(_config(scene=str(pairs()))), ["coordinates"]),
    ]
    calls += [
        (f"coarse to fine, {name} of {value!r}", partial(_coarse_to_fine, **{name: value}), [name])
        for name in ("keep", "reach", "radius", "budget")
        for value in (-1, 1.5, NAN, "x")
    ]
    calls += [
        ("coarse to fine without a coarse map", lambda: CoarseToFine(_of_map(features)), ["coarse level"]),
        ("coarse to fine, images of two bands", lambda: _coarse_to_fine([torch.zeros(1, 2, 32, 32)]), ["(1, 2, 32"]),
        ("coarse to fine, k of 1.5", lambda: _coarse_to_fine([torch.zeros(1, 1, 32, 32)], 1.5), ["k "]),
        ("coarse to fine, images of NaN", lambda: _coarse_to_fine([torch.full((1, 1, 32, 32), NAN)]), ["finite"]),
    ]
    for bounds in ((0, 0, 10**6, 10), (10, 10, 10, 20), (-5, 0, 10, 10), (0, 0, NAN, 10), (0, 0, 10)):
        calls.append((f"maps of pixels {bounds}", lambda b=bounds: build_maps(cfog(), scene(), {"one": b}), ["one"]))
    return calls


def _config(**changes: Any) -> sm.Config:
    return sm.recipe("own", **{**SMALL, "scene": str(own()), **changes})


# Maps that are kept
def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def _replaced(make: Callable[[Path], object], path: Path) -> None:
    path.unlink()
    make(path)


def _other(path: Path) -> None:
    _of_map(torch.zeros(9, 20, 20)).save(path)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "of text": lambda path: path.write_text("nothing"),
    "cut": _cut,
    "with a header of 2**60 bytes": lambda path: path.write_bytes(b"\xff" * 7 + b"\x0f" + path.read_bytes()[8:]),
    "of another area": _other,
    "that are a folder": partial(_replaced, lambda path: path.mkdir()),
    "that are a pipe": partial(_replaced, os.mkfifo),
    "that are a dead link": partial(_replaced, lambda path: path.symlink_to("nowhere")),
}


def _damaged(damage: Callable[[Path], object], folder: Path) -> Outcome:
    """Maps that are damaged are built anew, and a warning names the file, where there is one."""
    first = build_maps(cfog(), scene(), ["one"], folder)
    (path,) = folder.glob("*.safetensors")
    damage(path)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            again = build_maps(cfog(), scene(), ["one"], folder)
        except Exception:
            return "traceback"
    same = again.areas == first.areas and torch.equal(again.maps["one"].features, first.maps["one"].features)
    said = any(path.name in str(w.message) for w in caught) or damage is DAMAGES["that are a dead link"]
    return "good" if same and said else "silent"


# The command line
LINES: dict[str, tuple[Callable[[Path], Sequence[str]], Sequence[str]]] = {
    "no run": (lambda folder: ["no/such", str(folder / "kept")], ["no/such"]),
    "an empty folder": (lambda folder: [str(folder), str(folder / "kept")], ["metrics.json"]),
    "no folder": (lambda folder: [str(finished())], ["folder"]),
    "a folder under a file": (lambda folder: [str(finished()), str(own() / "scene.json" / "kept")], ["scene.json"]),
    "no such scene": (lambda folder: [str(finished()), str(folder / "kept"), "--scene", "nope"], ["nope"]),
    "an empty scene": (lambda folder: [str(finished()), str(folder / "kept"), "--scene", ""], ["scene"]),
    "pairs": (lambda folder: [str(finished()), str(folder / "kept"), "--scene", str(pairs())], ["coordinates"]),
    **{
        f"size of {size}": (lambda folder, s=size: [str(finished()), str(folder / "kept"), "--size", s], ["size", size])
        for size in ("0", "-5", "7", "2", "13", "10000", "1.5", "x")
    },
}


def _line(words: Callable[[Path], Sequence[str]], said: Sequence[str], folder: Path) -> Outcome:
    return judge_command(["dense", *words(folder)], *said)


def _of_vectors(folder: Path) -> Outcome:
    return judge_command(["dense", str(finished_run()), str(folder / "kept")], "search is 'vector'")


def _refiners(folder: Path) -> Outcome:
    return judge_command(["refine", str(finished())], "search is 'dense'")


def _cut_weights(folder: Path) -> Outcome:
    path = Path(shutil.copytree(finished(), folder / "run"))
    _cut(path / "model.safetensors")
    return judge_command(["dense", str(path), str(folder / "kept")], "model.safetensors")


def _table(folder: Path) -> Outcome:
    """Not a mistake: the table itself."""
    words = ["dense", str(finished()), str(folder / "kept"), "--size", "16"]
    return judge_command(words, right=lambda said: "cfog" in said and (folder / "kept/table.csv").is_file())


def _untrained(folder: Path) -> Outcome:
    """Not a mistake: the encoder before its first step, with the normalisation that was measured."""
    run = sm.load_run(finished())
    name = next(k for k in run.encoder.state_dict() if k.startswith("normalise"))
    same = lambda encoder: torch.equal(encoder.state_dict()[name], run.encoder.state_dict()[name])  # noqa: E731
    return judge_call(run.untrained, right=same)


def _report(folder: Path) -> Outcome:
    return judge_call(lambda: write_report(sm.load_run(finished())), right=lambda path: path.stat().st_size > 1000)


def _full_cache(folder: Path) -> Outcome:
    """Maps that cannot be kept are used all the same."""
    (folder / "cache").write_bytes(b"")
    with mock.patch.dict(os.environ, {"SARMATCH_CACHE": str(folder / "cache")}), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run = partial(sm.run, _config(seed=1), folder / "run", report=lambda history: None)
        return judge_call(run, right=lambda run: bool(np.isfinite(run.metrics["recall@1"]).all()))


SITUATIONS = {
    "sarmatch dense of a run of vectors": _of_vectors,
    "refiners on a run of dense search": _refiners,
    "sarmatch dense, weights cut off": _cut_weights,
    "sarmatch dense": _table,
    "an encoder before its first step": _untrained,
    "a report": _report,
    "a cache that cannot be written to": _full_cache,
}
