import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from prefloop.engine import checkpoint
from prefloop.errors import RunError


def state(n: int) -> dict:
    return {
        "learner": {"weights": torch.full((1000,), float(n)), "n": n},
        "controls": {"kl": 0.1, "names": ["a", None], "pair": (1, 2.5)},
    }


def save(folder, step: int, *, keep: int = 2, parts: dict | None = None) -> None:
    checkpoint.save(folder, step, parts or state(step), {"seconds": 1.5}, keep=keep)


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@contextmanager
def a_full_disk(room: int) -> Iterator[None]:
    """No file of this process may grow beyond ``room`` bytes: the system itself fails the write, wherever it happens."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_what_was_saved_comes_back_with_its_types(tmp_path):
    save(tmp_path, 7)
    found = checkpoint.newest(tmp_path)
    assert found is not None and found.step == 7 and found.about["seconds"] == 1.5
    loaded = checkpoint.load(found)
    assert torch.equal(loaded["learner"]["weights"], state(7)["learner"]["weights"])
    assert loaded["controls"] == state(7)["controls"]


def test_the_newest_is_found_and_only_the_last_two_are_kept(tmp_path):
    assert checkpoint.newest(tmp_path) is None
    for step in (8, 9, 10, 11):
        save(tmp_path, step)
    assert names(tmp_path) == ["step-00000010", "step-00000011"]
    assert checkpoint.newest(tmp_path).step == 11


@pytest.mark.parametrize(
    "damage",
    ["cut", "flipped", "missing", "no marker", "torn marker", "empty marker", "marker without a part", "marker of nothing"],
)
def test_damage_of_any_kind_is_said_and_the_one_before_is_used(tmp_path, damage, capsys):
    save(tmp_path, 1)
    save(tmp_path, 2)
    hurt = tmp_path / "step-00000002"
    part = hurt / "learner.pt"
    content = part.read_bytes()
    sums = json.loads((hurt / "COMPLETE").read_text())
    {
        "cut": lambda: part.write_bytes(content[:-1]),
        "flipped": lambda: part.write_bytes(content[:99] + bytes([content[99] ^ 1]) + content[100:]),
        "missing": lambda: part.unlink(),
        "no marker": lambda: (hurt / "COMPLETE").unlink(),
        "torn marker": lambda: (hurt / "COMPLETE").write_text('{"learner.pt": "12'),
        "empty marker": lambda: (hurt / "COMPLETE").write_text("{}"),
        "marker without a part": lambda: (hurt / "COMPLETE").write_text(
            json.dumps({name: value for name, value in sums.items() if name != "learner.pt"})
        ),
        "marker of nothing": lambda: (hurt / "COMPLETE").write_text("null"),
    }[damage]()
    assert checkpoint.newest(tmp_path).step == 1
    assert "checkpoint step-00000002 is damaged (" in capsys.readouterr().err


def test_with_every_checkpoint_damaged_nothing_is_started_over_in_silence(tmp_path):
    save(tmp_path, 1)
    (tmp_path / "step-00000001" / "learner.pt").write_bytes(b"")
    with pytest.raises(RunError, match=r"no checkpoint .* can be used:\n  checkpoint step-00000001 is damaged"):
        checkpoint.newest(tmp_path)


def test_a_damaged_one_that_the_run_went_back_behind_is_forgotten_by_the_next_save(tmp_path):
    for step in (1, 2):
        save(tmp_path, step)
    (tmp_path / "step-00000002" / "COMPLETE").unlink()
    save(tmp_path, 1)
    assert names(tmp_path) == ["step-00000001"]


@pytest.mark.parametrize("room", [0, 100, 3000])
def test_a_full_disk_leaves_the_last_good_one_and_says_so(tmp_path, room):
    save(tmp_path, 1)
    with pytest.raises(RunError) as stop, a_full_disk(room):
        save(tmp_path, 2)
    assert "the checkpoint of step 2 could not be written" in str(stop.value)
    assert "the one before it, step-00000001, is whole" in str(stop.value)
    assert "--resume" in str(stop.value)
    assert names(tmp_path) == ["step-00000001"]
    assert checkpoint.newest(tmp_path).step == 1
    save(tmp_path, 2)  # and with room again it goes on
    assert checkpoint.newest(tmp_path).step == 2


def test_a_full_disk_at_the_first_save_says_that_there_is_nothing_before_it(tmp_path):
    with pytest.raises(RunError, match="there is none before it"), a_full_disk(100):
        save(tmp_path, 2)


def test_a_small_file_is_the_old_one_when_the_new_one_does_not_fit(tmp_path):
    path = tmp_path / "summary.json"
    checkpoint.replace_file(path, "old")
    with pytest.raises(RunError, match=r"summary\.json could not be written"), a_full_disk(100):
        checkpoint.replace_file(path, "new" * 1000)
    assert path.read_text() == "old" and names(tmp_path) == ["summary.json"]


def test_a_view_is_saved_without_what_it_looks_into(tmp_path):
    save(tmp_path, 1, parts={"view": {"row": torch.zeros(1000, 1000)[3]}})
    assert (tmp_path / "step-00000001" / "view.pt").stat().st_size < 10_000


def test_what_could_not_be_read_back_is_refused_before_it_is_written(tmp_path):
    with pytest.raises(TypeError, match=r"part\['inner'\]\[1\] is a set"):
        save(tmp_path, 1, parts={"part": {"inner": [1, {2}]}})
    assert names(tmp_path) == []


def test_a_checkpoint_of_a_newer_format_is_not_guessed_at(tmp_path):
    save(tmp_path, 1)
    folder = tmp_path / "step-00000001"
    about = {**json.loads((folder / "about.json").read_text()), "format_version": 2}
    (folder / "about.json").write_text(json.dumps(about))
    sums = json.loads((folder / "COMPLETE").read_text())
    (folder / "COMPLETE").write_text(json.dumps({**sums, "about.json": checkpoint.sum_of(folder / "about.json")}))
    with pytest.raises(RunError, match="has format_version 2, this prefloop reads 1 and older"):
        checkpoint.newest(tmp_path)


def test_a_marker_that_does_not_vouch_for_every_file_makes_none_of_them_count(tmp_path):
    save(tmp_path, 1)
    (tmp_path / "step-00000001" / "COMPLETE").write_text("{}")
    with pytest.raises(RunError, match=r"COMPLETE does not list about\.json, controls\.pt, learner\.pt"):
        checkpoint.newest(tmp_path)
