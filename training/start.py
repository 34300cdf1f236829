"""Before anything is loaded: the processes, and the settings that depend on them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from accelerate import Accelerator
from accelerate.tracking import get_available_trackers
from accelerate.utils import ProjectConfiguration

from hb_tta.device import default_dtype, is_out_of_memory
from hb_tta.errors import HbTtaWarning, UserError
from hb_tta.families import get_family
from hb_tta.training.settings import AnySettings, Common

PROJECT = "hb-tta"  # what trackers call it


def start(settings: AnySettings, out: Path) -> tuple[Accelerator, AnySettings]:
    """This process among those that share the run, and the settings with nothing left open.

    Raises:
        UserError: the batch cannot be shared, or a tracker is not installed.
    """
    folders = ProjectConfiguration(str(out), logging_dir=str(out / "tensorboard"))
    accelerator = Accelerator(log_with=_trackers(settings) or None, project_config=folders)
    family, guidance = get_family(settings.family), settings.guidance_scale
    settings = replace(
        settings,
        dtype=settings.dtype or default_dtype(accelerator.device.type),
        guidance_scale=family.defaults["guidance_scale"] if guidance is None else guidance,
    )
    _check_batch(settings, accelerator.num_processes)
    return accelerator, settings


def start_trackers(accelerator: Accelerator, step: int) -> None:
    """Opens the trackers; what TensorBoard has of later steps is dropped."""
    purge = {"tensorboard": {"purge_step": step + 1}}
    accelerator.init_trackers(PROJECT, init_kwargs=purge)


@contextmanager
def memory_advice(settings: Common) -> Iterator[None]:
    """Turns "out of memory" into what to try."""
    try:
        yield
    except (MemoryError, RuntimeError, OSError) as error:
        if not is_out_of_memory(error):
            raise
        raise UserError(
            f"memory does not suffice with micro_batch_size={settings.micro_batch_size}: try "
            f"{settings.less_memory()}; the checkpoint is intact"
        ) from error


def _check_batch(settings: Common, processes: int) -> None:
    if settings.batch_size % processes:
        raise UserError(
            f"batch_size={settings.batch_size} cannot be shared by {processes} processes: use a "
            "multiple of their number"
        )


def _trackers(settings: Common) -> list[str]:
    """Those that are named and installed. accelerate would leave others out without a word.

    Raises:
        UserError: one that was asked for is not installed.
    """
    installed = {str(tracker) for tracker in get_available_trackers()}
    missing = [name for name in settings.trackers or () if name not in installed]
    if missing == ["tensorboard"]:  # the default: nobody need have asked for it
        warnings.warn(
            "no TensorBoard: pip install 'hb-tta[train]' for it", HbTtaWarning, stacklevel=2
        )
    elif missing:
        raise UserError(
            f"trackers={','.join(missing)} is not installed: pip install {' '.join(missing)}, or "
            "leave it out"
        )
    return [name for name in settings.trackers or () if name in installed]
