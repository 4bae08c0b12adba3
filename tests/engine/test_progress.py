import io
import re

import pytest
from rich.console import Console

from prefloop.engine import progress
from prefloop.engine.progress import bar, brief, duration, say, set_quiet, track


@pytest.fixture
def clock(monkeypatch):
    """Time that passes only when it is told to."""

    class Clock:
        now = 0.0

        def monotonic(self) -> float:
            return self.now

    found = Clock()
    monkeypatch.setattr(progress, "time", found)
    return found


@pytest.fixture
def terminal(monkeypatch):
    """A terminal that can be read."""
    screen = progress.Screen()
    screen.console = Console(file=io.StringIO(), force_terminal=True, width=120, color_system=None)
    monkeypatch.setattr(progress, "SCREEN", screen)
    return screen


def shown(screen) -> str:
    """What was written to the terminal, without the codes that move the cursor."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.console.file.getvalue())


def test_without_a_terminal_a_slow_loop_says_a_line_at_each_tenth_with_the_time_left(clock, capsys):
    with bar("sft", 20) as advance:
        for _ in range(20):
            clock.now += 3
            advance(note="loss 0.5")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "sft: 2/20, 6.0 s, 54.0 s left, loss 0.5"
    assert lines[8] == "sft: 18/20, 54.0 s, 6.0 s left, loss 0.5"
    assert lines[9] == "sft: 20/20 in 1 min 00 s" and len(lines) == 10


def test_a_quick_loop_says_one_line(clock, capsys):
    assert list(track(range(5), description="score")) == [0, 1, 2, 3, 4]
    assert capsys.readouterr().err == "score: 5/5 in 0.0 s\n"


def test_a_very_slow_step_is_heard_of_every_half_minute(clock, capsys):
    with bar("ppo", 100) as advance:
        clock.now += 31
        advance()
    assert capsys.readouterr().err.splitlines()[0] == "ppo: 1/100, 31.0 s, 51 min 09 s left"


def test_a_resumed_loop_reckons_its_time_from_what_it_did_itself(clock, capsys):
    with bar("sft", 20, done=10) as advance:
        clock.now += 40
        advance(5)
    assert capsys.readouterr().err.splitlines()[0] == "sft: 15/20, 40.0 s, 40.0 s left"


def test_inner_loops_are_silent_and_leave_the_lines_of_the_outer_one_whole(clock, capsys):
    for _ in track(range(3), description="rounds"):
        for _ in track(range(50), description="sample"):
            clock.now += 0.01
        say("a line")
    assert capsys.readouterr().err.splitlines() == ["a line"] * 3 + ["rounds: 3/3 in 1.5 s"]


def test_what_is_said_is_printed_as_it_is(terminal):
    say("[bold] is no markup, ppo[1] neither, and a very long line stays one line " + "x" * 200)
    assert shown(terminal).splitlines() == [
        "[bold] is no markup, ppo[1] neither, and a very long line stays one line " + "x" * 200
    ]


def test_on_a_terminal_bars_nest_and_lines_come_out_whole_above_them(terminal):
    for n in track(range(2), description="rounds"):
        for _ in track(range(3), description="sample"):
            pass
        say(f"round {n} is done")
    lines = [line.strip() for line in re.split(r"[\r\n]", shown(terminal))]
    assert "round 0 is done" in lines and "round 1 is done" in lines
    last = [line for line in lines if line.startswith("rounds")][-1]
    assert "2/2" in last
    assert terminal.live is None and terminal.n_open == 0


def test_a_loop_that_fails_gives_the_terminal_back(terminal):
    with pytest.raises(ZeroDivisionError), bar("outer", 2), bar("inner", 2):
        raise ZeroDivisionError
    assert terminal.live is None and terminal.n_open == 0


def test_quiet_means_not_a_word(capsys):
    set_quiet(True)
    try:
        say("hello")
        assert list(track([1, 2], description="x")) == [1, 2]
    finally:
        set_quiet(False)
    assert capsys.readouterr().err == ""
    say("hello")
    assert capsys.readouterr().err == "hello\n"


def test_only_the_main_process_speaks(monkeypatch, capsys):
    monkeypatch.setenv("RANK", "1")
    say("hello")
    assert capsys.readouterr().err == ""


def test_durations_are_read_at_a_glance():
    assert [duration(s) for s in (0.04, 59.94, 60, 200, 3600, 7500)] == [
        "0.0 s",
        "59.9 s",
        "1 min 00 s",
        "3 min 20 s",
        "1 h 00 min",
        "2 h 05 min",
    ]


def test_the_first_few_figures_stand_beside_a_bar():
    assert brief({"epoch": 1, "loss": 0.123456, "none": None, "accuracy": 0.5, "lr": 1.0}) == "epoch 1, loss 0.1235, accuracy 0.5"
