"""A run that is broken off anywhere and resumed tells the story of the run that was not."""

import json
import signal
from pathlib import Path

import pytest

from prefloop.config import Options
from prefloop.engine import checkpoint
from prefloop.errors import ConfigError, Interrupted
from tests.engine.children import FAULTS, KILLED
from tests.engine.toy import ToyConfig, main


def story(folder: Path) -> tuple[list[str], str, dict]:
    """Everything a run tells, to the last bit, without the fields that tell the time."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    summary = json.loads((folder / "summary.json").read_text())
    untimed = [json.dumps({k: v for k, v in line.items() if not k.startswith("time/")}) for line in lines]
    return untimed, (folder / "samples.jsonl").read_text(), {k: v for k, v in summary.items() if not k.startswith("time/")}


def run(folder: Path, *, resume: bool = False, **settings) -> dict:
    return main(ToyConfig.of(**settings), Options(out=folder, resume=resume, device="cpu"))


@pytest.mark.parametrize("point", FAULTS)
def test_killed_at_a_fault_point_and_resumed_a_run_tells_the_same_story(children, point):
    out, status, said = children
    assert status["whole"] == [0], said
    assert status[point] == [KILLED, 0], said  # it did die there, and it did get to the end afterwards
    assert story(out / point) == story(out / "whole")


def test_the_story_has_a_line_for_every_step_once_and_those_around_the_steps(children):
    lines = [json.loads(line) for line in story(children.folder / "checkpoint complete")[0]]
    assert [line["step"] for line in lines] == [0, *range(10), 10]
    assert "before" in lines[0] and "after" in lines[-1]


def stopped_at(folder: Path, step: int, monkeypatch) -> None:
    """A run that fails in the middle of a step, after its figures were written."""

    def reach(point: str) -> None:
        lines = (folder / "metrics.jsonl").read_text().splitlines()
        if point == "metrics logged" and len(lines) == step + 2:
            raise ConnectionError("pulled the plug")

    with monkeypatch.context() as patch, pytest.raises(ConnectionError):
        patch.setattr(checkpoint, "reach", reach)
        run(folder)


def test_a_damaged_checkpoint_is_named_and_the_one_before_it_leads_to_the_same_story(tmp_path, monkeypatch, capsys):
    run(tmp_path / "whole")
    stopped_at(tmp_path / "hurt", 7, monkeypatch)
    newest = tmp_path / "hurt" / "checkpoints" / "step-00000006" / "learner.pt"
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    capsys.readouterr()
    run(tmp_path / "hurt", resume=True)
    said = capsys.readouterr().err
    assert "step-00000006 is damaged (learner.pt is not what was written); going back to step-00000003" in said
    assert "resuming hurt after step 3 of 10" in said
    assert story(tmp_path / "hurt") == story(tmp_path / "whole")


def test_a_torn_last_line_is_cut_off(tmp_path, monkeypatch):
    run(tmp_path / "whole")
    stopped_at(tmp_path / "torn", 7, monkeypatch)
    with (tmp_path / "torn" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 8, "lo')
    run(tmp_path / "torn", resume=True)
    assert story(tmp_path / "torn") == story(tmp_path / "whole")


def test_ctrl_c_finishes_the_step_saves_it_and_says_how_to_go_on(tmp_path, monkeypatch):
    run(tmp_path / "whole")
    before = signal.getsignal(signal.SIGINT)

    def reach(point: str) -> None:
        if point == "metrics logged" and len((tmp_path / "cut" / "metrics.jsonl").read_text().splitlines()) == 6:
            signal.raise_signal(signal.SIGINT)  # in step 4, of which there would be no checkpoint

    with monkeypatch.context() as patch, pytest.raises(Interrupted) as stop:
        patch.setattr(checkpoint, "reach", reach)
        run(tmp_path / "cut")
    assert "after step 5 of 10; saved up to step 5; run the same command with --resume" in str(stop.value)
    assert signal.getsignal(signal.SIGINT) is before
    run(tmp_path / "cut", resume=True)
    assert story(tmp_path / "cut") == story(tmp_path / "whole")


def test_a_second_ctrl_c_stops_at_once(tmp_path, monkeypatch):
    before = signal.getsignal(signal.SIGINT)

    def reach(point: str) -> None:
        if point == "metrics logged" and len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 6:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch, pytest.raises(Interrupted) as stop:
        patch.setattr(checkpoint, "reach", reach)
        run(tmp_path)
    assert "stopped at once; saved up to step 3" in str(stop.value)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_finished_run_is_not_run_again(tmp_path, capsys):
    summary = run(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.name != "lock"}
    capsys.readouterr()
    assert run(tmp_path, resume=True) == summary
    assert "is finished, there is nothing left to do" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.name != "lock"} == before


def test_a_run_is_not_resumed_with_other_settings_and_the_message_names_them(tmp_path, monkeypatch):
    stopped_at(tmp_path, 7, monkeypatch)
    with pytest.raises(ConfigError) as refusal:
        run(tmp_path, resume=True, lr=0.1, steps=20)
    lines = str(refusal.value).splitlines()
    assert lines[1:3] == ["  steps: 10 when it was started, 20 now", "  lr: 0.05 when it was started, 0.1 now"]


def test_a_run_is_not_resumed_on_inputs_that_have_changed(tmp_path, monkeypatch):
    data = tmp_path / "data.jsonl"
    data.write_text("one")
    monkeypatch.setattr(checkpoint, "reach", lambda point: 1 / 0 if point == "step done" else None)
    options = Options(out=tmp_path / "run", device="cpu")
    with pytest.raises(ZeroDivisionError):
        main(ToyConfig(), options, parents={"data": data})
    data.write_text("two")
    with pytest.raises(ConfigError, match=r"has changed since it was started: data \(.*data\.jsonl\)"):
        main(ToyConfig(), Options(out=tmp_path / "run", resume=True, device="cpu"), parents={"data": data})
