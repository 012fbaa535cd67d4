"""Lines that a user may mistype: fields, options and names of a run, and what the other commands are given."""

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tests.campaign.case import Case, Outcome, judge_command
from tests.campaign.samples import SMALL, copied_run, pairs

DOOR = "command line"
HUGE = "9" * 5000

#: Values that a field must not take, as they are typed.
FIELDS: dict[str, Sequence[str]] = {
    "epochs": ("0", "-1", "1.5", "many", "null", "true", "1e12", "NaN", "Infinity", "[]", "{}", HUGE, "[" * 9000, ""),
    "batch_size": ("1", "0", "64", "x", "99999999"),
    "pairs_per_epoch": ("0", "1000000000000"),
    "image_size": ("8", "10000000", "-5", "33.5"),
    "learning_rate": ("0", "-1", "1e30", "NaN", "fast", "Infinity", "true"),
    "weight_decay": ("-1", "NaN", "1e30"),
    "warmup": ("1", "-0.1", "x"),
    "offset": ("0.6", "-1"),
    "test_queries": ("0", "1000000000000", "-3"),
    "val_queries": ("0", "1000000000000"),
    "patch_size": ("4", "100000", "x"),
    "stride": ("0", "-1", "x"),
    "seed": ("-1", "1.5", "99999999999999999999", "x"),
    "workers": ("-1", "100000"),
    "encoder": ("nope", "hog", "cfog", "3"),
    "encoder_options": (
        '{"junk": 1}',
        '{"widths": [0]}',
        '{"widths": "x"}',
        '{"feature_dim": 0}',
        '{"feature_dim": -3}',
        '{"feature_dim": 1e300}',
        '{"shared": "perhaps"}',
        '{"groups": 7}',
        '{"strides": [1]}',
        '{"pretrained": true}',
        "3",
        "[1]",
    ),
    "loss": ("nope", "null"),
    "loss_options": (
        '{"junk": 1}',
        '{"temperature": 0}',
        '{"temperature": "hot"}',
        '{"temperature": NaN}',
        '{"label_smoothing": 2}',
        '{"learnable_temperature": 7}',
        "x",
    ),
    "auxiliary": ('{"nope": 1}', '{"infonce": NaN}', '{"infonce": -1}', '["infonce"]'),
    "alignment": ("nope", "5"),
    "alignment_options": ('{"junk": 1}', "x"),
    "alignment_weight": ("-1", "NaN", "1e30"),
    "alignment_warmup": ("2", "-1"),
    "refiner": ("nope", "geographic_vote", "graph"),
    "refiner_weight": ("-1", "NaN"),
    "sampler": ("nope", "3"),
    "augment": ('["nope"]', "dihedral", '["dihedral", "dihedral"]'),
    "precision": ("fp8", "null"),
    "sharpness": ("x",),
    "rho": ("0", "NaN"),
    "control": ("x",),
    "select": ("recall@3",),
    "kinds": ("[]", "aligned", '["sideways"]', '["aligned", "aligned"]', "null"),
    "protocols": ("[]", '["same_area"]', '["nope"]', "cross_area"),
    "baseline": ("nope", "plain", "cfog", "3"),
    "baseline_options": (
        '{"cells": 0}',
        '{"cells": 1000}',
        '{"cells": "many"}',
        '{"junk": 1}',
        '{"sigma": -1}',
        '{"orientations": 0}',
        '{"image_size": 3}',
    ),
    "name": ("../up", "", "a/b", "a b", "3", "\0"),
    "bands": ("[]", '["XX"]', "3", '["HH", "HH"]'),
    "fold": ("[0, 1]", "[2, 2]", "x", "[0]"),
    "profile": ("huge", "null"),
    "optimizer": ("adam", "3"),
    "train_fraction": ("0", "2", "NaN"),
    "neighbours": ("x",),
    "search": ("sideways", "dense"),
    "window": ("1", "NaN", "100"),
    "mined": ("3",),
    "towns": ("-1", "1.5", "NaN", "many"),
    "epocks": ("3",),
}
#: What else has to be said for a value to be wrong.
BESIDE = {
    ("alignment_options", '{"critic_steps": 0}'): {"alignment": "wasserstein"},
    ("alignment_options", '{"critic_rate": -1}'): {"alignment": "wasserstein"},
    ("alignment_options", '{"widths": [0]}'): {"alignment": "class_adversary"},
    ("alignment_options", '{"penalty": NaN}'): {"alignment": "wasserstein"},
    ("alignment_options", '{"blur": 0}'): {"alignment": "sinkhorn"},
    ("alignment_options", '{"projections": 1.5}'): {"alignment": "sliced"},
    ("refiner_options", '{"junk": 1}'): {"refiner": "graph"},
    ("refiner_options", '{"width": 0}'): {"refiner": "graph"},
}
#: Whole lines, and what their error must say.
LINES: dict[str, tuple[Sequence[str], Sequence[str]]] = {
    "unknown recipe": (["run", "nonsense"], ["nonsense", "demo"]),
    "no recipe": (["run"], ["recipe"]),
    "recipe with a line break": (["run", "de\nmo"], ["no recipe"]),
    "no value": (["run", "demo", "--set", "epochs"], ["FIELD=VALUE"]),
    "no field": (["run", "demo", "--set", "=3"], ["FIELD=VALUE"]),
    "field twice": (["run", "demo", "--set", "epochs=1", "--set", "epochs=2"], ["epochs", "twice"]),
    "scene twice": (["run", "demo", "--scene", "easy", "--set", "scene=hard"], ["scene", "twice"]),
    "empty scene": (["run", "own", "--scene", ""], ["scene"]),
    "no such folder": (["run", "demo", "--scene", "no/such/folder"], ["no/such/folder"]),
    "scene is a file": (["run", "own", "--scene", __file__], [Path(__file__).name]),
    "scene is a number": (["run", "own", "--set", "scene=3"], ["scene is 3"]),
    "scene with a zero byte": (["run", "own", "--set", "scene=a\0b"], ["scene"]),
    "scene is not UTF-8": (["run", "own", "--scene", "\udcff"], ["\\udcff"]),
    "unknown option": (["run", "demo", "--scnee", "easy"], ["--scnee"]),
    "unknown command": (["rnu", "demo"], ["rnu"]),
    "record of nothing": (["record", "/nope", "x"], ["/nope"]),
    "record of an empty folder": (["record", ".", "x"], ["no finished run"]),
    "unknown comparison": (["sweep", "nonsense"], ["nonsense", "alignment"]),
    "comparison without its data": (["sweep", "alignment_sentinel"], ["alignment_sentinel", "scene"]),
    "comparison on no folder": (["sweep", "alignment_sentinel", "--scene", "no/such"], ["no/such"]),
    "unknown study": (["refine", "nonsense"], ["nonsense"]),
    "check of nothing": (["check", "/no/such"], ["/no/such"]),
    "too much": (["recipes", "demo"], ["demo"]),
}


def cases() -> list[Case]:
    """A case per value and per line."""
    values = [(field, value) for field, values in FIELDS.items() for value in values]
    found = [Case(DOOR, f"{field}={value[:40]}", partial(_field, field, value, {})) for field, value in values]
    found += [Case(DOOR, f"{f}={v} with {beside}", partial(_field, f, v, beside)) for (f, v), beside in BESIDE.items()]
    found += [Case(DOOR, name, partial(_line, words, said)) for name, (words, said) in LINES.items()]
    return [*found, *(Case(DOOR, name, run) for name, run in SITUATIONS.items())]


def words_of(fields: dict[str, Any]) -> list[str]:
    """A line `run own` with fields set; text is typed as it is."""
    typed = {name: value if isinstance(value, str) else json.dumps(value) for name, value in fields.items()}
    return ["run", "own", *(word for name, value in typed.items() for word in ("--set", f"{name}={value}"))]


def _field(field: str, value: str, beside: dict[str, str], folder: Path) -> Outcome:
    outcome = judge_command(
        words_of({"scene": str(pairs()), **SMALL, **beside, field: value}), field.split("_options")[0]
    )
    left = [path for path in (folder / "runs").glob("*/*.safetensors")]
    return "silent" if left else outcome  # it has trained before it saw the mistake


def _line(words: Sequence[str], said: Sequence[str], folder: Path) -> Outcome:
    return judge_command(words, *said)


def _runs_under_a_file(folder: Path) -> Outcome:
    (folder / "runs").write_text("in the way")
    return judge_command(words_of({"scene": str(pairs()), **SMALL}), str(folder / "runs"))


def _record_under_a_file(folder: Path) -> Outcome:
    (folder / "kept").write_text("in the way")
    return judge_command(["record", str(copied_run(folder)), str(folder / "kept")], str(folder / "kept"))


def _study_without_coordinates(folder: Path) -> Outcome:
    return judge_command(["refine", str(copied_run(folder))], "coordinates")


def _corrected_baseline(folder: Path) -> Outcome:
    """Not a mistake, but its mending: the second line trains nothing."""
    first, fields = {}, {"scene": str(pairs()), **SMALL}
    if judge_command(words_of({**fields, **first}), right=lambda said: "epoch 1" in said) != "good":
        return "unclear"
    again = {**fields, "test_queries": 15, "baseline_options": {"cells": 2}}
    return judge_command(words_of(again), right=lambda said: "epoch 1" not in said and "arbitrary 15" in said)


SITUATIONS = {
    "run folders under a file": _runs_under_a_file,
    "record under a file": _record_under_a_file,
    "refiners on pairs without coordinates": _study_without_coordinates,
    "a corrected baseline": _corrected_baseline,
}
