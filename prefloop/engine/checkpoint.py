"""Checkpoints that are whole or not there.

    checkpoints/step-00000200/
        learner.pt, rng.pt   one file for each part that is kept: tensors and plain values, read with ``weights_only``
        about.json           what the run needs to know beside them: the step, lengths of its logs, versions
        COMPLETE             SHA-256 of every other file; written last

A checkpoint is written into a hidden folder beside the others, flushed to the disk, and renamed. Killed at any moment, a run
finds either the new one or the one before. Damage is recognised by the sums, said, and stepped over.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from prefloop.engine.progress import say
from prefloop.errors import RunError

FORMAT_VERSION = 1  # of a checkpoint; a newer one is refused, an older one is read for as long as prefloop can
MARKER = "COMPLETE"
ABOUT = "about.json"
UNFINISHED = ".unfinished"


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose sums were found right."""

    folder: Path
    about: dict[str, Any]

    @property
    def step(self) -> int:
        return self.about["step"]


def reach(point: str) -> None:
    """Does nothing. Tests replace it, to end the process where ``point`` is reached."""


def save(folder: Path, step: int, parts: dict[str, Any], about: dict[str, Any], *, keep: int) -> None:
    """Write a checkpoint of state dicts, then forget all but the newest ``keep``."""
    for name, state in parts.items():
        refuse_what_cannot_be_read_back(state, name)
    unfinished, target = folder / UNFINISHED, folder / f"step-{step:08d}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
        reach("checkpoint begun")
        sums = {f"{name}.pt": write_tensors(unfinished / f"{name}.pt", state) for name, state in parts.items()}
        reach("checkpoint parts written")
        sums[ABOUT] = write_json(unfinished / ABOUT, {"format_version": FORMAT_VERSION, "step": step, **about})
        write_json(unfinished / MARKER, sums)
        flush_folder(unfinished)
        reach("checkpoint complete")
        shutil.rmtree(target, ignore_errors=True)  # a damaged one of the same step, if any
        unfinished.rename(target)
        flush_folder(folder)
        reach("checkpoint in place")
    except OSError as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise RunError(
            f"the checkpoint of step {step} could not be written to {folder}: {error.strerror or error}\n"
            f"  {what_is_left(folder)}\n"
            f"  make room (a checkpoint takes {size_of(parts):,} bytes), then run the same command with --resume"
        ) from error
    abandoned = [old for old in saved(folder) if old.name > target.name]  # damaged ones, that this run went back behind
    forgotten = sorted(old for old in saved(folder) if old.name <= target.name)[:-keep]
    for old in abandoned + forgotten:
        shutil.rmtree(old, ignore_errors=True)


def newest(folder: Path) -> Checkpoint | None:
    """The newest whole checkpoint; None where nothing was saved. Damaged ones are named and stepped over."""
    found = sorted(saved(folder), reverse=True)
    damages = []
    for candidate in found:
        damage = damage_of(candidate)
        if damage is None:
            for line in damages:
                say(f"{line}; going back to {candidate.name}")
            return Checkpoint(candidate, json.loads((candidate / ABOUT).read_text(encoding="utf-8")))
        damages.append(f"checkpoint {candidate.name} is damaged ({damage})")
    if damages:
        raise RunError(
            f"no checkpoint in {folder} can be used:\n  " + "\n  ".join(damages) + "\n  to begin again, remove the run's folder"
        )
    return None


def load(checkpoint: Checkpoint) -> dict[str, Any]:
    """The state dicts by name, tensors in main memory."""
    return {file.stem: torch.load(file, map_location="cpu", weights_only=True) for file in sorted(checkpoint.folder.glob("*.pt"))}


def saved(folder: Path) -> list[Path]:
    return [path for path in folder.glob("step-*") if path.is_dir()]


def damage_of(folder: Path) -> str | None:
    """What is wrong with a checkpoint, or None. A file that the marker does not vouch for is as bad as one that has changed."""
    try:
        sums = json.loads((folder / MARKER).read_text(encoding="utf-8"))
        there = {path.name for path in folder.iterdir() if not path.name.startswith(".")} - {MARKER}
        if unlisted := sorted((there | {ABOUT}) - sums.keys()):
            return f"{MARKER} does not list {', '.join(unlisted)}"
        for name, expected in sums.items():
            if sum_of(folder / name) != expected:
                return f"{name} is not what was written"
        version = int(json.loads((folder / ABOUT).read_text(encoding="utf-8"))["format_version"])
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        return f"unreadable: {error}"
    if version > FORMAT_VERSION:
        raise RunError(f"{folder} has format_version {version}, this prefloop reads {FORMAT_VERSION} and older")
    return None


def what_is_left(folder: Path) -> str:
    """Which checkpoint a failed save leaves to resume from."""
    whole = [path for path in sorted(saved(folder), reverse=True) if damage_of(path) is None]
    return f"the one before it, {whole[0].name}, is whole" if whole else "there is none before it: a resumed run begins again"


class Summing:
    """A file that sums what is written to it. torch makes an error of its own of a failed write; ``failure`` keeps the cause."""

    def __init__(self, path: Path):
        self.file = path.open("wb")
        self.sum = hashlib.sha256()
        self.failure: OSError | None = None

    def write(self, data: bytes) -> int:
        try:
            written = self.file.write(data)
        except OSError as error:
            self.failure = self.failure or error
            raise
        self.sum.update(data)
        return written

    def flush(self) -> None:
        self.file.flush()

    def close_on_disk(self) -> str:
        """Everything written is on the disk when this returns the sum."""
        with self.file:
            self.file.flush()
            os.fsync(self.file.fileno())
        return self.sum.hexdigest()


def write_tensors(path: Path, state: Any) -> str:
    """A state dict to a file; returns its sum."""
    file = Summing(path)
    try:
        torch.save(compact(state), file)  # pyright: ignore[reportArgumentType] (write and flush are all it uses)
        return file.close_on_disk()
    except (OSError, RuntimeError) as error:
        if file.failure is not None:
            raise file.failure from None
        raise error
    finally:
        file.file.close()


def write_json(path: Path, value: Any) -> str:
    """A JSON file, on the disk when this returns its sum."""
    file = Summing(path)
    try:
        file.write((json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode())
        return file.close_on_disk()
    finally:
        file.file.close()


def replace_file(path: Path, text: str) -> None:
    """A small file that is either the old one or the new one."""
    temporary = path.with_name(f"{path.name}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        flush_folder(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise RunError(
            f"{path} could not be written: {error.strerror or error}\n  make room, then run again with --resume"
        ) from error


def unwritten(path: Path, error: OSError) -> RunError:
    """A write that failed, most often for want of room."""
    return RunError(
        f"{path} could not be written: {error.strerror or error}\n"
        f"  what was complete before is intact; make room, then run the same command with --resume"
    )


def flush_folder(folder: Path) -> None:
    """Make what was created or renamed in a folder outlast a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sum_of(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def compact(state: Any) -> Any:
    """The state with each view of a larger tensor as a tensor of its own: torch would save the whole of what it looks into."""
    if isinstance(state, Tensor):
        is_part = state.untyped_storage().nbytes() > state.numel() * state.element_size()
        return state.detach().clone() if is_part else state.detach()
    if isinstance(state, dict):
        return {key: compact(value) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(compact(value) for value in state)
    return state


def leaves(state: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Every value that is not a container, with the way to it."""
    if isinstance(state, dict):
        for key, value in state.items():
            yield from leaves(value, f"{path}[{key!r}]")
    elif isinstance(state, list | tuple):
        for index, value in enumerate(state):
            yield from leaves(value, f"{path}[{index}]")
    else:
        yield path, state


def refuse_what_cannot_be_read_back(state: Any, name: str) -> None:
    """Anything but tensors and plain values would be saved without complaint and refused when it is needed."""
    for path, value in leaves(state, name):
        if not isinstance(value, Tensor) and type(value) not in (int, float, bool, str, bytes, type(None)):
            raise TypeError(
                f"{path} is a {type(value).__name__}; a state dict holds tensors, numbers, text and containers of them"
            )


def size_of(parts: dict[str, Any]) -> int:
    """Bytes of the tensors of a checkpoint."""
    return sum(value.numel() * value.element_size() for _, value in leaves(parts, "") if isinstance(value, Tensor))
