"""What a run does before it trains: it looks at all that it will need, and for a training that is done already."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pandas as pd
import torch

from sarmatch.alignment import create_alignment
from sarmatch.atomic_io import read_json, write
from sarmatch.encoders import Encoder, create_encoder
from sarmatch.encoders.base import height_and_width
from sarmatch.losses import LOSSES
from sarmatch.patches import create_sampler
from sarmatch.patches.transforms import CROPS, TRANSFORMS
from sarmatch.scenes import NoCoordinatesError, Scene
from sarmatch.training.checkpoints import ENVIRONMENT, LEARNED, STATE
from sarmatch.training.config import NOT_OF_TRAINING, Config, load_config
from sarmatch.training.data import other_towns
from sarmatch.training.objectives import OBJECTIVES

ANY_SIZE = 64  # pixels of a trial image, for encoders that take any
LARGEST = 4096  # pixels of a patch, see `Config.patch_size`


def check_parts(config: Config) -> None:
    """Make each part of a config that has a name and options, so that a mistake is known before anything is read.

    Raises
    ------
    ValueError
        Names the field, the option, and what is wrong with it.
    """
    if config.towns:
        other_towns(config, 0)
    with _naming("encoder"):
        encoder = create_encoder(config.encoder, config.image_size, config.sar_bands, **config.encoder_options)
        if not encoder.trainable:
            raise ValueError(f"encoder {config.encoder!r} has nothing to train; name it as the baseline")
        _try_on_images(encoder)
    if config.before is not None:
        with _naming("first_stage"):
            check_parts(config.before)
            options = config.before.encoder_options
            first = create_encoder(config.before.encoder, config.before.image_size, config.sar_bands, **options)
            encoder.begin_with(first.state_dict(), "weights of the first stage")
    with _naming("baseline"):
        if config.baseline == config.encoder:
            raise ValueError(f"{config.baseline!r} is the encoder itself; take another, e.g. 'hog'")
        _try_on_images(baseline_of(config))
    with _naming("auxiliary"):
        for name in config.auxiliary:
            LOSSES[name]
    with _naming("loss"):
        LOSSES[config.loss]
    learner = OBJECTIVES[config.search].learner(encoder, config, config.image_size)  # it names what does not fit
    with _naming("alignment"):
        create_alignment(config.alignment, learner.feature_dim, **config.alignment_options)
    with _naming("sampler"):
        create_sampler(config.sampler, config.batch_size, config.seed)
    with _naming("augment"):
        for name in config.augment:
            TRANSFORMS[name]


def check_ground(config: Config, scene: Scene) -> None:
    """Whether the patches of a scene, and the ground that they lie on, are enough for what is searched with.

    Raises
    ------
    NoCoordinatesError
        Where a map is to be searched that is none.
    ValueError
        Names the field, and the sides in pixels that do not fit.
    """
    size = config.patch_size or scene.patch_size
    encoder = create_encoder(config.encoder, config.image_size, config.sar_bands, **config.encoder_options)
    whole, smallest = size, int(min(CROPS) * size) if "crop" in config.augment else size
    for field, one, side in (("encoder", encoder, smallest), ("baseline", baseline_of(config), whole)):
        if searched_with(config, one) == "vector":
            continue
        name = getattr(config, field)
        if not scene.has_coordinates:
            raise NoCoordinatesError(
                f"scene {scene.name!r} has no coordinates, and {field} {name!r} is searched densely: it needs a map"
            )
        if max(one.levels) > side:
            raise ValueError(
                f"{field}: the cells of {name!r} are up to {max(one.levels)} px wide, and queries as small as {side} px"
            )
    OBJECTIVES[config.search].pairs(config, scene, size, encoder)  # it names what does not hold a pair


def searched_with(config: Config, encoder: Encoder) -> str:
    """What an encoder, or the baseline, of a config is searched with: `dense` or `vector`; some could do both."""
    by_vector = hasattr(encoder, "feature_dim") and not (config.search == "dense" and hasattr(encoder, "channels"))
    return "vector" if by_vector else "dense"


def baseline_of(config: Config) -> Encoder:
    """The training-free encoder of a config."""
    return create_encoder(config.baseline, config.image_size, config.sar_bands, **config.baseline_options)


def check_names(asked: pd.DataFrame) -> None:
    """Whether the names in a table of queries can be written to a file.

    Raises
    ------
    ValueError
        With the name, where it is not UTF-8.
    """
    for column in ("area", "strip"):
        for name in asked[column].unique() if column in asked else ():
            try:
                str(name).encode("utf-8")
            except UnicodeEncodeError as error:
                raise ValueError(f"{column} {ascii(name)}: this name is not UTF-8; rename the file") from error


def take_over_training(config: Config, folder: Path) -> Path | None:
    """Copy the training that another run folder beside this one holds, where it is the one that this config asks for.

    Configs of one `training_key` differ in what is evaluated alone: to correct a baseline trains nothing again.

    Returns
    -------
    The other folder; nothing where there is none, or the training here has begun.
    """
    if (folder / STATE).is_file():
        return None
    for other in sorted(p.parent for p in folder.parent.glob(f"*/{STATE}")):
        if other == folder or not _same_training(config, other / "config.json"):
            continue
        state = (other / STATE).read_bytes()  # first: what else is kept is never older, should it train on meanwhile
        for name in LEARNED:
            if (other / name).is_file():
                write(folder / name, partial(Path.write_bytes, data=(other / name).read_bytes()))
        write(folder / STATE, partial(Path.write_bytes, data=state))
        return other
    return None


def use_training(config: Config, folder: Path, trained: Path) -> None:
    """Copy the weights that another run has learned, one that differs from this config in what is evaluated alone.

    Some of its protocols will do: what the others are tested on it has not seen either.

    Raises
    ------
    ValueError
        With the fields that shape the training and differ.
    """
    held = load_config(trained / "config.json")
    if set(config.protocols) <= set(held.protocols):
        held = held.model_copy(update={"protocols": config.protocols})
    if held.training_key != config.training_key:
        own, other = (c.model_dump(mode="json", exclude=set(NOT_OF_TRAINING)) for c in (config, held))
        differing = ", ".join(f"{k}: {other[k]!r}, not {v!r}" for k, v in own.items() if v != other[k])
        raise ValueError(f"{trained}: trained by another config ({differing})")
    for name in LEARNED:
        if (trained / name).is_file():
            write(folder / name, partial(Path.write_bytes, data=(trained / name).read_bytes()))


def trained_by(folder: Path, environment: dict[str, str]) -> dict[str, str]:
    """The environment, with the commit `trained_at` where a training taken over from `folder` was of another one."""
    path = folder / ENVIRONMENT
    old = read_json(path, dict) if path.is_file() else {}
    commit = old.get("trained_at", old.get("commit", "unknown"))
    return environment if commit == environment["commit"] else {**environment, "trained_at": commit}


def _same_training(config: Config, path: Path) -> bool:
    try:
        return load_config(path).training_key == config.training_key
    except (OSError, ValueError):
        return False  # a folder that is damaged or half made is not ours to complain of


@torch.no_grad()
def _try_on_images(encoder: Encoder) -> None:
    """Let an encoder look at two empty images of either modality, where a size or an option does not fit."""
    widest = max(encoder.levels, default=1)
    if widest > LARGEST:
        raise ValueError(f"cells of {widest} px are wider than any patch; lower stride")
    was_training = encoder.training
    encoder.eval()
    for modality, inputs in encoder.inputs.items():
        height, width = height_and_width(inputs.image_size or max(ANY_SIZE, 2 * widest))
        images = torch.zeros(2, inputs.channels, height, width)
        try:
            features = encoder.forward_features(images, modality)
            if hasattr(encoder, "feature_dim"):
                encoder.forward_head(features, modality)
        except Exception as error:
            shape = f"{inputs.channels} x {height} x {width}"
            raise ValueError(f"{type(encoder).__name__} fails on {modality} images of {shape}: {error}") from error
    encoder.train(was_training)


@contextmanager
def _naming(field: str) -> Iterator[None]:
    """Begin the message of an error with the field of the config that is to be mended."""
    try:
        yield
    except (ValueError, TypeError) as error:
        raise ValueError(f"{field}: {error}") from error
