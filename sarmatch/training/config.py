"""One typed object that says all of an experiment, made from a recipe or from its fields."""

import difflib
import hashlib
import json
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from sarmatch.atomic_io import read_json
from sarmatch.checks import shortened
from sarmatch.training.recipes import RECIPES

Protocol = Literal["same_area", "cross_area"]
Kind = Literal["aligned", "arbitrary"]


SCHEMA = 2  # raised where a config of equal fields comes to mean something else; 1 hashed defaults as well

#: Fields that shape the evaluation alone, or only a name: a training does not know them.
NOT_OF_TRAINING = ("name", "kinds", "test_queries", "baseline", "baseline_options")

#: Old names of fields, which stand in recorded configs.
RENAMED = {"floor": "baseline", "floor_options": "baseline_options", "train_share": "train_fraction"}


def upgraded(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a config, recorded by whichever version, in the words of this one.

    Before there was the word "first", `bands` was null where the first band was meant.
    """
    fields = {RENAMED.get(name, name): value for name, value in fields.items()}
    return fields | ({"bands": "first"} if fields.get("bands", "first") is None else {})


def _upgraded_loudly(fields: Mapping[str, Any], stacklevel: int) -> dict[str, Any]:
    """`upgraded`, with a warning to whoever still writes the old words."""
    old = [f"{name} is now {RENAMED[name]}" for name in fields if name in RENAMED]
    old += ["bands=None is now bands='first'"] if fields.get("bands", "first") is None else []
    if old:
        warnings.warn(f"config: {'; '.join(old)}", DeprecationWarning, stacklevel=stacklevel + 1)
    return upgraded(fields)


class Config(BaseModel):
    """An experiment. Two configs that are equal give equal numbers on one machine.

    Unknown fields and values out of range are refused with the field's name. `Config.model_fields` lists the defaults.

    Raises
    ------
    ValueError
        Names the field, its value, and what it may be.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str = Field(
        "custom",
        pattern=r"^\w[\w.+-]*$",
        max_length=100,
        description="the recipe it started from; names the run folder",
    )
    scene: str = Field("easy", min_length=1, description="preset name, or the folder of a data set")
    bands: Annotated[tuple[str, ...], Field(min_length=1)] | Literal["first"] = Field(
        "first", description="SAR bands by name, or the first that the scene has"
    )
    profile: Literal["quick", "full"] = Field("quick", description="size of a simulated scene")
    reference_view: Literal["aerial", "polar"] = Field(
        "aerial", description="of a cross-view set: its tiles as they are, or unrolled about their centre as in SAFA"
    )
    patch_size: int | None = Field(None, ge=8, le=4096, description="side in pixels; the scene's own by default")
    stride: int | None = Field(None, ge=1, description="step of the reference grid in pixels; patch_size by default")
    protocols: tuple[Protocol, ...] = Field(
        ("cross_area",), min_length=1, description="splits to train for and test on; the first one validates"
    )

    search: Literal["vector", "dense"] = Field(
        "vector", description="what is learned and searched with: a vector per tile, or a map of features"
    )
    window: float = Field(
        1.5, gt=1, le=16, description="side of the map's windows that dense search learns from, in patches"
    )
    mined: int = Field(
        0,
        ge=0,
        le=10_000_000,
        description="queries of an epoch that are searched for on the whole training ground beforehand, from the "
        "second epoch on; windows around their highest false peaks join the batches as negatives; 0 for none",
    )

    encoder: str = "plain"
    encoder_options: dict[str, Any] = Field(default_factory=dict)
    image_size: int = Field(64, ge=16, le=4096, description="side in pixels of what the encoder sees")
    loss: str = "infonce"
    loss_options: dict[str, Any] = Field(default_factory=dict)
    auxiliary: dict[str, Annotated[float, Field(gt=0, le=1e6)]] = Field(
        default_factory=dict, description="further losses by name, with their weights"
    )
    auxiliary_from: float = Field(0.0, ge=0, lt=1, description="fraction of the epochs after which those losses join")
    neighbours: Literal["mask", "negatives"] = Field(
        "mask", description="pairs of a batch that overlap: left out of the loss, or pushed apart like any other"
    )

    alignment: str = Field("none", description="what brings the feature distributions of the modalities together")
    alignment_options: dict[str, Any] = Field(default_factory=dict)
    alignment_weight: float = Field(0.1, ge=0, le=1e6)
    alignment_warmup: float = Field(0.25, ge=0, le=1, description="fraction of the steps over which its weight rises")

    refiner: str = Field("none", description="trained along with the encoder, on the lists that a batch makes")
    refiner_options: dict[str, Any] = Field(default_factory=dict)
    refiner_weight: float = Field(1.0, ge=0, le=1e6, description="of its loss beside the encoder's")

    towns: int = Field(
        0,
        ge=0,
        le=1_000_000,
        description="sets of other towns of a simulated preset that training walks through, one an epoch, then anew; "
        "each is rendered once, in another season than the one before; 0 for the scene's own",
    )
    epochs: int = Field(10, ge=1, le=1_000_000)
    pairs_per_epoch: int = Field(4096, ge=1, le=10_000_000)
    batch_size: int = Field(128, ge=2, le=32_768)
    sampler: str = Field("random", description="which pairs meet in a batch: a name in patches.samplers")
    train_fraction: float = Field(1.0, gt=0, le=1, description="fraction of each training rectangle that is used")
    fold: tuple[int, int] | None = Field(
        None, description="(i, n): the i-th of n parts of the training areas is left out, for cross-fitting"
    )
    optimizer: Literal["adamw", "sgd"] = Field("adamw", description="sgd is with Nesterov's momentum of 0.9")
    sharpness: Literal["none", "sam", "asam"] = Field("none", description="see training.sharpness")
    rho: float = Field(0.05, gt=0, le=100, description="radius of sam or asam")
    learning_rate: float = Field(1e-3, gt=0, le=100)
    trunk_rate: float = Field(
        1.0, gt=0, le=100, description="the learning rate of a system's trunk over that of its head"
    )
    weight_decay: float = Field(0.03, ge=0, le=100)
    warmup: float = Field(0.05, ge=0, lt=1, description="fraction of the steps over which the learning rate rises")
    decay: Literal["cosine"] | tuple[Annotated[float, Field(gt=0, lt=1)], ...] = Field(
        "cosine", description="how the rate falls: by half a cosine, or to a tenth after each fraction of the steps"
    )
    clip_norm: float | None = Field(None, gt=0, le=1e6, description="largest norm of a gradient; none by default")
    clip_value: float | None = Field(None, gt=0, le=1e6, description="largest entry of a gradient; none by default")
    first_stage: dict[str, Any] = Field(
        default_factory=dict,
        description="fields in which a training that comes before this one differs from it; it begins with the weights "
        "that one keeps. Options join those of this one",
    )
    offset: float = Field(0.33, ge=0, le=0.5, description="largest training offset of query and reference, in patches")
    augment: tuple[str, ...] = Field(("dihedral", "radiometry"), description="names in patches.transforms")
    precision: Literal["no", "bf16", "fp16"] = "no"
    workers: int = Field(0, ge=0, le=256, description="processes that read images")
    control: Literal["none", "shuffled_pairs"] = Field("none", description="a negative control must score chance")

    select: Literal["recall@1", "recall@5", "recall@10"] = Field("recall@5", description="chooses the best epoch")
    kinds: tuple[Kind, ...] = Field(("arbitrary", "aligned"), min_length=1)
    val_queries: int = Field(400, ge=1, le=1_000_000)
    test_queries: int = Field(1500, ge=1, le=1_000_000)
    baseline: str = Field("hog", description="training-free encoder reported beside ours")
    baseline_options: dict[str, Any] = Field(default_factory=dict)
    seed: int = Field(0, ge=0, lt=2**31)

    def __init__(self, /, **fields: Any) -> None:
        try:
            super().__init__(**fields)
        except ValidationError as error:
            raise ValueError(_all_errors(error)) from None

    @model_validator(mode="before")
    @classmethod
    def _old_words(cls, fields: dict[str, Any]) -> Any:
        truths = [name for name, value in fields.items() if isinstance(value, bool)]
        if truths:
            raise ValueError(f"{truths[0]} is {fields[truths[0]]}: no field of a config is yes or no")
        return _upgraded_loudly(fields, stacklevel=4)

    @field_validator(
        "encoder_options", "loss_options", "auxiliary", "alignment_options", "refiner_options", "baseline_options"
    )
    @classmethod
    def _in_order(cls, options: dict[str, Any]) -> dict[str, Any]:
        return dict(sorted(options.items()))  # equal configs have equal keys, however their options were written

    @field_validator("protocols", "kinds", "augment")
    @classmethod
    def _each_once(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(names)) < len(names):
            raise ValueError("a name stands twice")
        return names

    @model_validator(mode="after")
    def _batch_fits(self) -> "Config":
        if self.batch_size > self.pairs_per_epoch:
            raise ValueError(f"batch_size is {self.batch_size}, more than pairs_per_epoch = {self.pairs_per_epoch}")
        if self.mined and self.search != "dense":
            raise ValueError(f"mined is {self.mined}, and search {self.search!r}: false peaks are those of 'dense'")
        if self.mined > self.pairs_per_epoch:
            raise ValueError(f"mined is {self.mined}, more than pairs_per_epoch = {self.pairs_per_epoch}")
        if self.fold is not None and not 0 <= self.fold[0] < self.fold[1] > 1:
            raise ValueError(f"fold is {self.fold}, expected (i, n) with 0 <= i < n and n of at least 2")
        return self

    @model_validator(mode="after")
    def _first_stage_fits(self) -> "Config":
        try:
            _ = self.before
        except ValueError as error:
            raise ValueError(f"first_stage: {error}") from None
        return self

    @property
    def before(self) -> "Config | None":
        """The training of the first stage; None where there is one stage."""
        if not self.first_stage:
            return None
        own, changed = self.model_dump(), {"first_stage": {}} | self.first_stage
        joined = {name: own.get(name, {}) | value for name, value in changed.items() if name.endswith("_options")}
        return Config(**own | changed | joined)

    @property
    def pairs(self) -> int:
        """Training pairs that it sees, those of a first stage included."""
        return self.epochs * self.pairs_per_epoch + (self.before.pairs if self.before else 0)

    @property
    def sar_bands(self) -> int:
        """How many SAR bands the encoder is given."""
        return 1 if self.bands == "first" else len(self.bands)

    @property
    def aligned(self) -> bool:
        """Whether an alignment with a weight stands beside the loss."""
        return self.alignment != "none" and self.alignment_weight > 0

    @property
    def unaligned(self) -> "Config":
        """The same without any alignment: what an alignment has to be compared with."""
        return Config(**self.model_dump(exclude={name for name in Config.model_fields if name.startswith("alignment")}))

    @property
    def key(self) -> str:
        """Eight letters that stand for everything that shapes the numbers: the fields that differ from the defaults."""
        return self._key_without(())

    @property
    def training_key(self) -> str:
        """Eight letters that stand for what shapes the training: the same whatever is evaluated, and how."""
        return self._key_without(NOT_OF_TRAINING)

    def _key_without(self, fields: tuple[str, ...]) -> str:
        defaults = Config().model_dump(mode="json") | {"workers": self.workers}  # how images are read shapes nothing
        said = self.model_dump(mode="json", exclude=set(fields))
        own = {name: value for name, value in said.items() if value != defaults[name]}
        return hashlib.sha256(json.dumps([SCHEMA, own], sort_keys=True).encode()).hexdigest()[:8]


def load_config(path: Path) -> Config:
    """A config from the JSON file that a run keeps it in, recorded by this version or an older one.

    Raises
    ------
    ValueError
        Where the file is damaged, with its name.
    """
    try:
        return Config(**upgraded(read_json(path, dict)))
    except ValueError as error:
        raise ValueError(f"{path}: {str(error).removeprefix(f'{path}: ')}") from error


def _all_errors(error: ValidationError) -> str:
    """What is wrong with a config: a line per field, without links."""
    lines = []
    for one in error.errors(include_url=False):
        field = ".".join(str(part) for part in one["loc"] if not str(part).startswith("tuple["))
        said = one["msg"].removeprefix("Value error, ")
        if one["type"] == "extra_forbidden":
            near = difflib.get_close_matches(field, Config.model_fields, 1)
            lines.append(f"no field is called {field!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
        elif field:
            lines.append(f"{field} is {shortened(one['input'])}: {said[0].lower()}{said[1:]}")
        else:
            lines.append(said)
    return "\n".join(lines)


def list_recipes() -> list[str]:
    """Names of all recipes."""
    return sorted(RECIPES)


def recipe(name: str, /, **changes: Any) -> Config:
    """The config of a recipe, with some fields changed; its own `name` is one of them.

    The profile is `changes["profile"]`, else the environment variable `SARMATCH_PROFILE`, else `quick`.

    Examples
    --------
    >>> recipe("demo", epochs=2).epochs
    2
    """
    if name not in RECIPES:
        raise ValueError(f"no recipe is called {name!r}; there are {list_recipes()}")
    changes = _upgraded_loudly(changes, stacklevel=2)
    profile = changes.pop("profile", os.environ.get("SARMATCH_PROFILE", "quick"))
    fields = RECIPES[name].quick | (RECIPES[name].full if profile == "full" else {})
    return Config(**{"name": name, "profile": profile, **fields, **changes})
