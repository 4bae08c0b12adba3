"""What survives a power cut: everything is on the disk before the rename that makes it count, and the rename before it is relied on."""

import os
from pathlib import Path

import pytest
import torch

from prefloop.engine import checkpoint
from tests.engine.test_checkpoint import save
from tests.engine.test_run import opened


@pytest.fixture
def events(monkeypatch) -> list[int | str]:
    """Inodes in the order in which they were flushed, and the names that were given in between."""
    seen: list[int | str] = []

    def fsync(handle: int, plain=os.fsync) -> None:
        seen.append(os.fstat(handle).st_ino)
        plain(handle)

    def naming(plain):
        def named(path: Path, target: Path) -> Path:
            seen.append(Path(target).name)
            return plain(path, target)

        return named

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "rename", naming(Path.rename))
    monkeypatch.setattr(Path, "replace", naming(Path.replace))
    return seen


def before_and_after(events: list[int | str], name: str) -> tuple[set, set]:
    at = events.index(name)
    return set(events[:at]), set(events[at + 1 :])


def test_a_checkpoint_is_on_the_disk_before_it_has_its_name_and_its_name_before_save_returns(tmp_path, events):
    save(tmp_path / "checkpoints", 3)
    folder = tmp_path / "checkpoints" / "step-00000003"
    before, after = before_and_after(events, folder.name)
    assert {path.stat().st_ino for path in (folder, *folder.iterdir())} <= before
    assert len(list(folder.iterdir())) == 4
    assert (tmp_path / "checkpoints").stat().st_ino in after


def test_a_small_file_is_on_the_disk_before_it_takes_the_place_of_the_old_one(tmp_path, events):
    checkpoint.replace_file(tmp_path / "summary.json", "new")
    before, after = before_and_after(events, "summary.json")
    assert (tmp_path / "summary.json").stat().st_ino in before
    assert tmp_path.stat().st_ino in after


def test_the_logs_that_a_checkpoint_counts_on_are_on_the_disk_before_it_is_there(tmp_path, events):
    with opened(tmp_path) as run:
        run.keep(model=torch.nn.Linear(1, 1))
        for step in run.steps(1, save_every=1, description="toy"):
            run.log(step, {"loss": 1.0})
            run.samples(step, [{"text": "a"}])
    before, _ = before_and_after(events, "step-00000001")
    assert {(tmp_path / name).stat().st_ino for name in ("metrics.jsonl", "samples.jsonl")} <= before
