"""A run: one folder, one seed, one story from its settings to its summary, that can be broken off anywhere and gone on with.

    config.yaml      every setting              metrics.jsonl    a line per step, figures under time/ aside the same in every run
    meta.json        inputs by hash, versions   samples.jsonl    what the model said
    data.json        the data report            checkpoints/     see checkpoint.py
    lock             who is writing             model/           what came out
                                                summary.json     written last: the run is finished

    with open_run("sft", config, options, parents={"model": folder}, seed=0) as run:
        if run.finished:
            return run.finished
        ...
        run.keep(learner=learner)
        for step in run.steps(1000, save_every=100, description="sft"):
            run.log(step, learner.step(...))
        return run.finish({...})

Only the main process writes; the others make the same calls and follow. Parts that are kept must be equal on all of them.
"""

import json
import os
import signal
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from io import FileIO
from pathlib import Path
from typing import IO, Any, Protocol, TypeVar

import torch

from prefloop.config import Config, Options
from prefloop.engine import checkpoint, randomness
from prefloop.engine.checkpoint import Checkpoint, replace_file, unwritten
from prefloop.engine.claim import (
    FORMAT_VERSION,
    begins_again,
    has_begun,
    read_meta,
    read_summary,
    refuse_other_settings,
    refuse_what_is_no_run,
    refuse_what_nobody_asked_to_go_on_with,
    with_resume,
)
from prefloop.engine.learner import Learner
from prefloop.engine.lineage import hash_of, origin
from prefloop.engine.lock import as_a_refusal, not_there, release_lock, remove_what_was_made, take_lock
from prefloop.engine.memory import keep_memory
from prefloop.engine.plainly import number, plain
from prefloop.engine.processes import choose_device, gathered, is_main, n_processes, on_main, rank
from prefloop.engine.progress import bar, brief, say, track
from prefloop.errors import DataError, Interrupted, PrefloopError, RunError

T = TypeVar("T")

KEPT_CHECKPOINTS = 2
LOGS = ("metrics.jsonl", "samples.jsonl")
FILES_OF_A_START = ("config.yaml", "meta.json", "data.json", *LOGS)  # taken back where a run is refused

__all__ = ["Run", "hash_of", "open_run", "read_summary"]


class Part(Protocol):
    """What a run can keep: anything with a state of tensors and plain values."""

    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any], /) -> Any: ...


def open_run(method: str, config: Config, options: Options, *, parents: dict[str, Path] | None = None, seed: int = 0) -> "Run":
    """Begin a run in ``options.out``, or with ``options.resume`` go on with the one that is there."""
    return Run(method, config, options, parents=parents or {}, seed=seed)


class Run:
    """A run folder open for writing. ``finished`` is the summary if there was nothing left to do, else None."""

    def __init__(self, method: str, config: Config, options: Options, *, parents: dict[str, Path], seed: int):
        self.device = choose_device(options.device)
        self.rank, self.processes = rank(), n_processes()
        keep_memory()
        self.method, self.run_seed = method, seed
        self.scratch = tempfile.TemporaryDirectory() if options.dry_run else None  # a dry run leaves nothing behind
        self.folder = Path(self.scratch.name) if self.scratch else options.out
        self.name = options.out.name
        self.parts: dict[str, Part] = {}
        self.data: dict[str, Any] = {}  # reports on the data sets it reads, by name
        self.lock: IO[str] | None = None
        self.files: dict[str, FileIO] = {}
        self.latest: dict[str, Any] = {}
        self.earlier_seconds, self.opened_at = 0.0, time.monotonic()
        self.saved_step: int | None = None
        self.made: list[Path] = []  # folders that this start makes
        self.is_new = False  # whether this start is the first in its folder
        self.wants_to_stop = False
        self.former_handler: Any = None
        resume = options.resume and not options.dry_run
        try:
            self.finished, self.checkpoint = on_main(partial(self.claim, config, parents, resume))
        except BaseException:
            self.close()
            raise

    # --- the folder ----------------------------------------------------------------------------------------------------

    def claim(self, config: Config, parents: dict[str, Path], resume: bool) -> tuple[dict[str, Any] | None, Checkpoint | None]:
        """Make the folder this run's own, or refuse; returns the summary of a finished run and the checkpoint to go on from."""
        with as_a_refusal(self.folder):
            refuse_what_is_no_run(self.folder)
            is_new = not self.folder.exists()
            self.made, self.is_new = not_there(self.folder), not (self.folder / "config.yaml").exists()
        self.lock = take_lock(self.folder)
        if not resume:
            refuse_what_nobody_asked_to_go_on_with(self.folder)
        now = origin(method=self.method, seed=self.run_seed, parents=parents, device=self.device, n_processes=self.processes)
        if has_begun(self.folder):
            before = read_meta(self.folder)
            refuse_other_settings(self.folder, config, before, now)
            if (self.folder / "summary.json").is_file():
                say(f"{self.folder} is finished, there is nothing left to do")
                return read_summary(self.folder), None
            self.write_json("meta.json", with_resume(before, now))
        else:
            if (self.folder / "config.yaml").is_file():
                say(begins_again(self.folder, config, self.run_seed, self.method))
            elif resume and not (self.folder / "stage.json").is_file():
                say(f"nothing to resume in {self.folder}{', which is new' if is_new else ''}: starting at the beginning")
            self.write_json("meta.json", {"format_version": FORMAT_VERSION, **now})
            replace_file(self.folder / "config.yaml", config.to_yaml())  # from now on there is a run here
        found = checkpoint.newest(self.folder / "checkpoints")
        self.files = {name: (self.folder / name).open("ab", buffering=0) for name in LOGS}
        if found is None:  # whatever was logged came from steps that will be made again
            self.cut_logs({})
        return None, found

    @property
    def model_folder(self) -> Path:
        """Where the model that came out is saved."""
        return self.folder / "model"

    def write_json(self, name: str, value: Any) -> None:
        """A JSON file in the run folder, whole or not there."""
        if is_main():
            replace_file(self.folder / name, json.dumps(plain(value), indent=1, ensure_ascii=False, allow_nan=False) + "\n")

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, PrefloopError) and error.is_refusal and self.is_new and is_main() and not has_begun(self.folder):
            remove_what_was_made(self.folder, FILES_OF_A_START, self.made)
        self.close()
        if kind is KeyboardInterrupt:
            raise Interrupted(f"stopped at once; {self.how_to_go_on()}") from None

    def close(self) -> None:
        self.hear_no_more()
        for file in self.files.values():
            file.close()
        if self.lock is not None:
            release_lock(self.lock)
        if self.scratch is not None:
            self.scratch.cleanup()
        self.files, self.lock, self.scratch = {}, None, None

    def how_to_go_on(self) -> str:
        step = self.saved_step if self.saved_step is not None else self.checkpoint.step if self.checkpoint else None
        again = "run the same command again" if self.is_a_stage else "run the same command with --resume"
        if step is None:
            return f"nothing was saved yet; {again} to begin again"
        return f"saved up to step {step}; {again} to go on"

    # --- figures -------------------------------------------------------------------------------------------------------

    def log(self, step: int, metrics: dict[str, Any]) -> None:
        """A line of metrics.jsonl; a figure that is not finite is written as null. Names are ``group/name``."""
        figures = {name: number(name, value) for name, value in metrics.items()}
        self.latest = figures
        self.append("metrics.jsonl", {"step": step, **figures, "time/seconds": round(self.seconds(), 3)})
        checkpoint.reach("metrics logged")

    def samples(self, step: int, rows: Iterable[dict[str, Any]]) -> None:
        """Lines of samples.jsonl, to be read by people."""
        for row in rows:
            self.append("samples.jsonl", {"step": step, **plain(row)})

    def append(self, name: str, row: dict[str, Any]) -> None:
        """A line to a log, handed to the system before this returns; what a full disk cuts short is cut off on resume."""
        if name not in self.files:  # not the main process
            return
        line = memoryview((json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n").encode())
        try:
            while line:
                line = line[self.files[name].write(line) :]
        except OSError as error:
            raise unwritten(self.folder / name, error) from error

    def history(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl so far, those from before a resume included."""
        return on_main(partial(lines_of, self.folder / "metrics.jsonl"))

    def seconds(self) -> float:
        """Time spent on this run, before it was resumed included."""
        return self.earlier_seconds + time.monotonic() - self.opened_at

    def track(self, iterable: Iterable[T], *, description: str, total: int | None = None) -> Iterator[T]:
        """The items of an iterable with a progress bar."""
        return track(iterable, description=description, total=total)

    def write_nan_rows(self, rows: list[dict[str, Any]]) -> Path:
        """The rows that spoiled a step, a line each."""
        path = self.folder / "nan_rows.jsonl"
        replace_file(path, "".join(json.dumps(plain(row, not_finite=str), ensure_ascii=False) + "\n" for row in rows))
        return path

    def finish(self, summary: dict[str, Any]) -> dict[str, Any]:
        """Write summary.json: from now on the run is finished. Returns what was written."""
        written = plain(
            {"format_version": FORMAT_VERSION, "method": self.method, **summary, "time/seconds": round(self.seconds(), 3)}
        )
        on_main(lambda: self.write_json("summary.json", written))
        self.finished = written
        if self.scratch is None and not self.is_a_stage:
            say(f"{self.method}: {self.what_came_out()}")
        return written

    @property
    def is_a_stage(self) -> bool:
        """Whether a study runs it, and says so itself."""
        return (self.folder / "stage.json").is_file()

    def what_came_out(self) -> str:
        """Where the result is, in the words of whoever asked for it."""
        models = [folder for folder in (self.folder / "model", self.folder / "model-0") if folder.is_dir()]
        figures = f"figures in {self.folder / 'summary.json'}"
        return f"the model is in {models[0]}, {figures}" if models else f"done; {figures}"

    # --- chance --------------------------------------------------------------------------------------------------------

    def seed(self, *key: int | str) -> int:
        """A seed for one purpose: the same for the same run seed and key, unrelated to any other."""
        return randomness.derived_seed(self.run_seed, *key)

    def rng(self, *key: int | str) -> torch.Generator:
        """A generator for one purpose."""
        return randomness.generator(self.run_seed, *key)

    def seed_everything(self, *key: int | str) -> None:
        """The global generators, for code that takes none."""
        randomness.seed_everything(self.run_seed, *key)

    # --- steps ---------------------------------------------------------------------------------------------------------

    def keep(self, **parts: Part) -> None:
        """What a checkpoint holds and a resume restores. A learner's rows that are not a number are written to this folder."""
        if twice := sorted(self.parts.keys() & parts.keys() | ({"rng"} & parts.keys())):
            raise ValueError(f"a part called {', '.join(twice)} is kept already")
        self.parts |= parts
        for part in parts.values():
            if isinstance(part, Learner):
                part.on_nan = self.write_nan_rows

    def steps(self, total: int, *, save_every: int, description: str) -> Iterator[int]:
        """The numbers of the steps that are left, with a bar. Restores what is kept, and saves it every ``save_every`` steps
        and at the end. On Ctrl-C the step is finished and saved first; on a second one nothing is."""
        if self.finished is not None:
            return
        start = self.restore(total)
        with self.interruptible(), bar(description, total, done=start) as advance:
            for step in range(start, total):
                yield step
                checkpoint.reach("step done")
                done = step + 1
                stops = any(gathered(self.wants_to_stop))
                if stops or done == total or (save_every and done % save_every == 0):
                    self.save(done)
                advance(1, brief(self.latest))
                if stops:
                    raise Interrupted(f"interrupted after step {done} of {total}; {self.how_to_go_on()}")

    def save(self, step: int) -> None:
        """A checkpoint after ``step`` steps, with the lengths the logs have at this moment."""
        chance = gathered(randomness.random_state(self.device))
        on_main(partial(self.write_checkpoint, step, chance))
        self.saved_step = step

    def write_checkpoint(self, step: int, chance: list[dict[str, Any]]) -> None:
        for name, file in self.files.items():
            try:
                os.fsync(file.fileno())
            except OSError as error:
                raise unwritten(self.folder / name, error) from error
        about = {"lengths": {name: file.tell() for name, file in self.files.items()}, "seconds": self.seconds()}
        parts = {name: part.state_dict() for name, part in self.parts.items()} | {"rng": {"processes": chance}}
        checkpoint.save(self.folder / "checkpoints", step, parts, about, keep=KEPT_CHECKPOINTS)

    def restore(self, total: int) -> int:
        """Put every part where the checkpoint has it and cut the logs to what they were; returns the steps already done."""
        if self.saved_step is not None:
            raise RuntimeError("a run has one loop over steps; put the phases of a method into one")
        if self.checkpoint is None:
            return 0
        states = checkpoint.load(self.checkpoint)
        chance = states.pop("rng")["processes"]
        if states.keys() != self.parts.keys():
            raise RunError(
                f"{self.checkpoint.folder} holds {', '.join(sorted(states))}; this run keeps {', '.join(sorted(self.parts))}\n"
                f"  resume with the version of prefloop that wrote it, or choose another --out"
            )
        for name, part in self.parts.items():
            part.load_state_dict(states[name])
        if len(chance) == self.processes:
            randomness.set_random_state(chance[self.rank], self.device)
        else:
            say(f"saved by {len(chance)} processes and resumed with {self.processes}: figures may differ in the last digits")
        on_main(partial(self.cut_logs, self.checkpoint.about["lengths"]))
        self.earlier_seconds = self.checkpoint.about["seconds"]
        say(f"resuming {self.name} after step {self.checkpoint.step} of {total}")
        return self.checkpoint.step

    def cut_logs(self, lengths: dict[str, int]) -> None:
        """Logs without the lines of steps that will be made again."""
        for name, file in self.files.items():
            known = os.fstat(file.fileno()).st_size
            if known < lengths.get(name, 0):
                say(f"{self.folder / name} is shorter than when the checkpoint was written: some of its lines are lost")
            file.truncate(min(known, lengths.get(name, 0)))

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """While inside, Ctrl-C asks for an end after the present step; only the main thread can listen for it."""
        if threading.current_thread() is threading.main_thread():
            self.former_handler = signal.signal(signal.SIGINT, self.hear) or signal.default_int_handler
        try:
            yield
        finally:
            self.hear_no_more()

    def hear(self, number: int, frame: Any) -> None:
        if self.wants_to_stop:
            raise KeyboardInterrupt
        self.wants_to_stop = True
        if is_main():  # not through say(): a handler may run in the middle of another write
            os.write(2, b"\nfinishing this step, then saving; Ctrl-C again stops at once\n")

    def hear_no_more(self) -> None:
        if self.former_handler is not None:
            signal.signal(signal.SIGINT, self.former_handler)
            self.former_handler = None


def lines_of(path: Path) -> list[dict[str, Any]]:
    """The lines of a log; DataError names one that is none."""
    rows = []
    for number_, line in enumerate(path.read_bytes().splitlines(), start=1):
        try:
            row = json.loads(line)
        except ValueError as error:
            raise DataError(
                f"{path}:{number_} is no line of figures: {error}\n  mend or remove that line, then go on with --resume"
            ) from None
        rows.append(row)
    return rows
