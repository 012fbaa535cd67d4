"""The one training loop: whatever the loss, the encoder and the data."""

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pandas as pd
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DataLoaderConfiguration, set_seed

from sarmatch.atomic_io import write
from sarmatch.encoders import Encoder, create_encoder
from sarmatch.encoders.pretrained import read_weights
from sarmatch.patches import BatchSampler, create_sampler
from sarmatch.progress import progress
from sarmatch.scenes.scene import Scene
from sarmatch.training.checkpoints import (
    HISTORY,
    OFFSET_HEAD,
    REFINER,
    STATE,
    WEIGHTS,
    load_training_state,
    load_weights,
    save_training_state,
    save_weights,
)
from sarmatch.training.config import Config
from sarmatch.training.data import epoch_pairs, fit_normalisation
from sarmatch.training.objectives import objective_of
from sarmatch.training.schedule import joined
from sarmatch.training.step import Step
from sarmatch.training.views import Views

History = list[dict[str, float]]
Report = Callable[[pd.DataFrame], None]


def print_epoch(history: pd.DataFrame) -> None:
    """One line on the epoch that has just ended."""
    last = history.iloc[-1]
    numbers = "  ".join(f"{name} {last[name]:.3f}" for name in history.columns.drop("epoch"))
    print(f"epoch {last['epoch']:.0f}  {numbers}", flush=True)


def train(
    config: Config, scene: Scene | Views, folder: Path, report: Report = print_epoch, begin: Path | None = None
) -> Encoder:
    """Train an encoder, choosing the epoch on validation areas.

    An interrupted training goes on after its last whole epoch and gives the numbers it would have given. Every epoch
    draws its chance from the seed and its own number alone, which is what makes that true.

    Parameters
    ----------
    config
        The experiment.
    scene
        Where the patches come from, or a cross-view set.
    folder
        Run folder: `training.safetensors` (to go on), `model.safetensors` (best epoch), `history.csv`, and
        `refiner.safetensors` or `offset_head.safetensors` where one learns along.
    report
        Called after every epoch with the history so far: one row per epoch with `loss`, the critic's `estimate`, the
        exact `wasserstein_1` and `recall@k` on validation areas.
    begin
        Weights to begin with, those that a first stage has kept.

    Returns
    -------
    The encoder with the weights of the best epoch.

    Raises
    ------
    ValueError
        Where the encoder has no head, or a part of the config has an unknown name.
    FloatingPointError
        Where a loss is not finite or the encoder has collapsed; names the loss, the step and the epoch.
    """
    AcceleratorState._reset_state()  # one process may run configs of several precisions
    # a batch is divided among processes, so that one and several train on the same batches
    accelerator = Accelerator(
        mixed_precision=config.precision, dataloader_config=DataLoaderConfiguration(split_batches=True)
    )
    set_seed(config.seed)
    size = config.patch_size or scene.patch_size
    encoder = create_encoder(config.encoder, config.image_size, config.sar_bands, **config.encoder_options)
    if begin is not None:
        encoder.begin_with(read_weights(begin, config.encoder), str(begin))
    objective = objective_of(config, scene)
    pairs, validation = objective.pairs(config, scene, size, encoder), objective.validation(config, scene, encoder)
    fit_normalisation(encoder, pairs)
    step = Step(config, accelerator, encoder, size)
    sampler = create_sampler(config.sampler, config.batch_size, config.seed)
    history = resume(folder, step, sampler)
    loader = step.prepare(torch.utils.data.DataLoader(pairs, batch_sampler=sampler, num_workers=config.workers))
    for epoch in range(len(history), config.epochs):
        objective.draw(config, pairs, encoder, epoch)
        set_seed(config.seed + 1000 * (epoch + 1))
        generator = torch.Generator().manual_seed(torch.initial_seed())
        sampler.start(epoch, epoch_pairs(config, pairs, encoder))
        row = run_epoch(config, step, loader, epoch, len(sampler), generator, folder)
        history.append(row | validation.measure(encoder, config.batch_size))
        if accelerator.is_main_process:
            keep(config, folder, encoder, step, sampler, history)
            report(pd.DataFrame(history))
    accelerator.wait_for_everyone()
    load_weights(encoder, folder / WEIGHTS)
    return encoder


def run_epoch(
    config: Config,
    step: Step,
    loader: torch.utils.data.DataLoader,
    epoch: int,
    steps: int,
    generator: torch.Generator,
    folder: Path,
) -> dict[str, float]:
    """One pass over the pairs of an epoch: its number, and the means of what the steps give."""
    step.start(epoch, steps)
    sums = {"loss": 0.0, "estimate": 0.0}
    bar = progress(total=steps * config.batch_size, desc=f"epoch {epoch + 1}/{config.epochs}", unit="pair")
    for number, batch in enumerate(loader):
        where = f"at step {number} of epoch {epoch + 1}"
        where += f"; the last whole epoch is kept in {folder.name}/{STATE}" if epoch else ""
        for name, value in step(batch, generator, where).items():
            sums[name] += value
        bar.update(config.batch_size)
        bar.set_postfix(loss=f"{sums['loss'] / (number + 1):.3f}", refresh=False)
    bar.close()
    if config.alignment == "none":
        del sums["estimate"]
    return {"epoch": epoch + 1, **{name: value / steps for name, value in sums.items()}}


def resume(folder: Path, step: Step, sampler: BatchSampler) -> History:
    """Put everything where an interrupted training left it; the history so far, empty where there was none."""
    if not (folder / STATE).is_file():
        return []
    progress = load_training_state(folder / STATE, step.parts)
    try:
        step.schedule.load_state_dict(progress["schedule"])
        sampler.load_state_dict(progress["sampler"])
        return progress["history"]
    except (KeyError, ValueError, TypeError) as error:
        raise ValueError(f"{folder / STATE}: a damaged training state ({error}); delete it to train anew") from error


def is_best(config: Config, history: History) -> bool:
    """Whether the last epoch is the best so far; once auxiliary losses have joined, only of those that know them."""
    *before, last = (joined(config, epoch) for epoch in range(len(history)))
    rivals = (row[config.select] for row, known in zip(history, before, strict=False) if known == last)
    return history[-1][config.select] > max(rivals, default=-math.inf)


def keep(config: Config, folder: Path, encoder: Encoder, step: Step, sampler: BatchSampler, history: History) -> None:
    """Write what an epoch has changed: weights where it is the best so far, history, and the state to go on from."""
    if is_best(config, history):
        write(folder / WEIGHTS, lambda path: save_weights(encoder, path))
        if step.refining is not None:
            step.refining.save(folder / REFINER)
        if step.offset_head is not None:
            write(folder / OFFSET_HEAD, partial(save_weights, step.offset_head))
    write(folder / HISTORY, lambda path: pd.DataFrame(history).to_csv(path, index=False))
    state = {"history": history, "sampler": sampler.state_dict(), "schedule": step.schedule.state_dict()}
    save_training_state(folder / STATE, step.parts, **state)
