import json
import math
import os
import threading
from pathlib import Path

import pytest
import torch
import yaml

from prefloop.config import Config, Options
from prefloop.engine import checkpoint, lock
from prefloop.engine.forecast import forecast
from prefloop.engine.learner import Learner, Term
from prefloop.engine.lineage import hash_of
from prefloop.engine.lock import release_lock, remove_folder, take_lock
from prefloop.engine.plan import Plan
from prefloop.engine.run import open_run, read_summary
from prefloop.errors import ConfigError, DataError, Interrupted, RunError
from tests.engine.test_checkpoint import a_full_disk
from tests.engine.toy import Toy, ToyConfig, main, of_text, text
from tests.helpers import assert_close


class Inner(Config):
    lr: float = 1e-5


class Outer(Config):
    steps: int = 4
    optim: Inner = Inner()


def opened(folder, *, resume: bool = False, dry_run: bool = False, config: Config | None = None, **more):
    options = Options(out=folder, resume=resume, device="cpu", dry_run=dry_run)
    return open_run("toy", config or Outer(), options, **{"seed": 5, **more})


def test_a_run_folder_tells_where_it_comes_from(tmp_path):
    data = tmp_path / "data.jsonl"
    data.write_text("{}\n")
    with opened(tmp_path / "run", parents={"data": data, "model": tmp_path / "org" / "hub-id"}) as run:
        pass
    meta = json.loads((run.folder / "meta.json").read_text())
    assert meta["method"] == "toy" and meta["seed"] == 5 and meta["format_version"] == 1
    assert meta["parents"]["data"] == {"path": str(data), "sha256": hash_of(data)}
    assert meta["parents"]["model"]["sha256"] is None
    assert meta["versions"]["torch"] and meta["machine"]["threads"] == torch.get_num_threads()
    assert yaml.safe_load((run.folder / "config.yaml").read_text()) == {"steps": 4, "optim": {"lr": 1e-05}}


def test_a_line_of_figures_is_strict_json_and_there_at_once(tmp_path):
    with opened(tmp_path) as run:
        run.log(3, {"loss": torch.tensor(0.5), "accuracy": 1, "kl": math.nan, "best": -math.inf})
        line = json.loads((tmp_path / "metrics.jsonl").read_text(), parse_constant=pytest.fail)
        assert line.pop("time/seconds") >= 0
        assert line == {"step": 3, "loss": 0.5, "accuracy": 1, "kl": None, "best": None}
        assert [row["step"] for row in run.history()] == [3]
        with pytest.raises(TypeError, match="the metric note is a str"):
            run.log(4, {"note": "high"})


def test_samples_are_lines_with_their_step(tmp_path):
    with opened(tmp_path) as run:
        run.samples(2, [{"text": "你好"}, {"text": "b", "score": torch.tensor(0.25)}])
    assert (tmp_path / "samples.jsonl").read_text() == '{"step": 2, "text": "你好"}\n{"step": 2, "text": "b", "score": 0.25}\n'


def test_the_summary_is_the_end_of_a_run(tmp_path):
    with pytest.raises(ConfigError, match="is not the folder of a run: it has no summary"):
        read_summary(tmp_path / "run")
    with opened(tmp_path / "run") as run:
        assert run.finished is None
        with pytest.raises(ConfigError, match="is not finished; go on with --resume"):
            read_summary(run.folder)
        returned = run.finish({"loss": 0.5, "table": [(1, math.nan)], "folder": run.model_folder})
    assert returned["table"] == [[1, None]] and returned["folder"] == str(tmp_path / "run" / "model")
    assert read_summary(run.folder) == returned
    with opened(tmp_path / "run", resume=True) as again:
        assert again.finished == returned
        assert list(again.steps(4, save_every=1, description="toy")) == []


def test_a_folder_with_a_run_is_refused_without_resume_and_stays_as_it_is(tmp_path):
    with opened(tmp_path) as run:
        run.log(0, {"loss": 1.0})
    before = (tmp_path / "metrics.jsonl").read_text()
    with pytest.raises(
        ConfigError, match=r"holds a run that can be gone on with\n  go on with --resume, or choose another --out"
    ):
        opened(tmp_path)
    assert (tmp_path / "metrics.jsonl").read_text() == before


def test_a_folder_of_something_else_is_refused_with_and_without_resume(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    for resume in (False, True):
        with pytest.raises(ConfigError, match=r"is not empty and holds no run: thesis\.tex"):
            opened(tmp_path, resume=resume)
    file = tmp_path / "thesis.tex"
    with pytest.raises(ConfigError, match=r"thesis\.tex is a file; --out names a folder"):
        opened(file)


def test_with_nothing_to_resume_a_run_begins_and_says_so(tmp_path, capsys):
    opened(tmp_path / "new", resume=True).close()
    assert "nothing to resume in" in capsys.readouterr().err
    (tmp_path / "stage").mkdir()
    (tmp_path / "stage" / "stage.json").write_text("{}")  # a study's stage always says resume
    opened(tmp_path / "stage", resume=True).close()
    assert capsys.readouterr().err == ""


def begun(folder) -> None:
    """A run with something to lose."""
    with opened(folder) as run:
        run.log(0, {"loss": 1.0})


def test_another_method_does_not_go_on_with_a_run(tmp_path):
    begun(tmp_path)
    with pytest.raises(ConfigError, match="holds a run of toy, not of other"):
        open_run("other", Outer(), Options(out=tmp_path, resume=True, device="cpu"), seed=5)


def test_nested_settings_and_the_seed_are_compared_too(tmp_path):
    begun(tmp_path)
    with pytest.raises(ConfigError) as refusal:
        opened(tmp_path, resume=True, config=Outer(optim=Inner(lr=1.0)), seed=6)
    assert str(refusal.value).splitlines()[1:3] == [
        "  optim.lr: 1e-05 when it was started, 1.0 now",
        "  seed: 5 when it was started, 6 now",
    ]


def test_a_second_writer_is_kept_out_and_told_who_is_writing(tmp_path):
    with opened(tmp_path), pytest.raises(ConfigError, match=f"is being written by process {os.getpid()} on "):
        opened(tmp_path, resume=True)
    opened(tmp_path, resume=True).close()


def test_the_lock_of_a_dead_process_does_not_block(tmp_path):
    (tmp_path / "lock").write_text('{"pid": 999999999, "host": "gone"}')
    file = take_lock(tmp_path)
    assert json.loads((tmp_path / "lock").read_text())["pid"] == os.getpid()
    file.close()


def test_a_worker_that_outlives_its_run_does_not_keep_its_lock(children):
    assert children.status["lock"] == [0], children.said


def test_a_refused_run_lets_go_of_its_lock(tmp_path):
    begun(tmp_path)
    with pytest.raises(ConfigError, match="other settings"):
        opened(tmp_path, resume=True, config=Outer(steps=9))
    opened(tmp_path, resume=True).close()


def test_seeds_depend_on_their_key_and_on_nothing_that_was_drawn(tmp_path):
    with opened(tmp_path / "a") as run, opened(tmp_path / "b", seed=6) as other:
        first = torch.rand(3, generator=run.rng("order", 1))
        run.rng("order", 2), run.seed("x")
        assert torch.equal(torch.rand(3, generator=run.rng("order", 1)), first)
        seeds = [run.seed("order", 1), run.seed("order", 2), run.seed("order1"), run.seed("order", "1"), other.seed("order", 1)]
        assert len(set(seeds)) == 5 and all(0 <= seed < 2**63 for seed in seeds)
        run.seed_everything("step", 1)
        drawn = torch.rand(2)
        torch.rand(9)
        run.seed_everything("step", 1)
        assert torch.equal(torch.rand(2), drawn)


def test_a_kept_learner_writes_its_bad_rows_into_the_folder_of_the_run(tmp_path):
    with pytest.raises(RunError) as stop:
        main(ToyConfig(broken_row=6), Options(out=tmp_path, device="cpu"))
    assert str(tmp_path / "nan_rows.jsonl") in str(stop.value)
    rows = [json.loads(line, parse_constant=pytest.fail) for line in (tmp_path / "nan_rows.jsonl").read_text().splitlines()]
    assert all(row["found"] == "loss nan" and row["token_weight"] == ["nan"] * row["length"] for row in rows)
    assert {row["term"]: row["length"] for row in rows}["square"] == 6  # row 6 has six tokens


def test_a_full_disk_stops_a_run_in_words_and_leaves_its_checkpoint(tmp_path, monkeypatch):
    with pytest.raises(RunError, match=r"metrics\.jsonl could not be written"), opened(tmp_path) as run:
        held = Learner(Toy(), lr=0.1, steps=4, device="cpu")
        run.keep(learner=held)
        for step in run.steps(4, save_every=1, description="toy"):
            held.step(Term(of_text, text([3, 4])))
            with a_full_disk(60 if step == 2 else 10**6):
                run.log(step, {"loss": 1.0})
    assert checkpoint.newest(tmp_path / "checkpoints").step == 2


def test_what_a_run_keeps_has_names_of_its_own(tmp_path):
    with opened(tmp_path) as run:
        run.keep(model=torch.nn.Linear(1, 1))
        for name in ("model", "rng"):
            with pytest.raises(ValueError, match=f"a part called {name} is kept already"):
                run.keep(**{name: torch.nn.Linear(1, 1)})


def test_a_checkpoint_of_other_parts_is_refused(tmp_path):
    with opened(tmp_path) as run:
        run.keep(model=torch.nn.Linear(1, 1))
        list(run.steps(1, save_every=1, description="toy"))
    with opened(tmp_path, resume=True) as run, pytest.raises(RunError, match=r"holds model; this run keeps other"):
        run.keep(other=torch.nn.Linear(1, 1))
        next(run.steps(2, save_every=1, description="toy"))


def test_interrupted_between_loops_a_run_says_how_to_go_on(tmp_path):
    with (
        pytest.raises(Interrupted, match="stopped at once; nothing was saved yet; run the same command with --resume"),
        opened(tmp_path),
    ):
        raise KeyboardInterrupt


def test_a_run_in_another_thread_works_without_hearing_ctrl_c(tmp_path):
    done = []
    thread = threading.Thread(target=lambda: done.append(main(ToyConfig(), Options(out=tmp_path, device="cpu"))))
    thread.start()
    thread.join()
    assert done == [read_summary(tmp_path)]


def test_a_dry_run_tells_its_sizes_and_leaves_nothing(tmp_path, capsys):
    with opened(tmp_path / "dry", dry_run=True) as run:
        (run.folder / "tokenizer").mkdir()
        figures = forecast(run, Plan(steps=10, rows=4, tokens=8, models=2, trained=1), n_rows=40, parameters=2**20)
    assert list(tmp_path.iterdir()) == [] and not run.folder.exists()
    assert figures["memory_bytes"] == {"weights": 8 * 2**20, "gradients": 4 * 2**20, "optimiser": 8 * 2**20}
    assert "10 steps of 4 rows" in capsys.readouterr().err


def test_a_hash_is_of_content_and_names_not_of_times_or_places(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder / "inner").mkdir(parents=True)
        (tmp_path / folder / "inner" / "x").write_text("1")
        (tmp_path / folder / "y").write_text("2")
    os.utime(tmp_path / "b" / "y", (0, 0))
    (tmp_path / "b" / "lock").write_text("who writes here is not content")
    same = hash_of(tmp_path / "a")
    assert hash_of(tmp_path / "b") == same
    (tmp_path / "b" / "y").rename(tmp_path / "b" / "z")
    assert hash_of(tmp_path / "b") != same
    assert hash_of(tmp_path / "a" / "y") == hash_of(tmp_path / "b" / "z")


def test_time_goes_on_where_it_stopped(tmp_path):
    with opened(tmp_path) as run:
        run.earlier_seconds = 1000.0
        run.keep(model=torch.nn.Linear(1, 1))
        list(run.steps(1, save_every=1, description="toy"))
    with opened(tmp_path, resume=True) as run:
        run.keep(model=torch.nn.Linear(1, 1))
        list(run.steps(1, save_every=1, description="toy"))
        assert 1000 <= run.seconds() < 1300


def test_the_toy_method_learns(tmp_path):
    main(ToyConfig(dropout=0.0, steps=30, save_every=0), Options(out=tmp_path, device="cpu"))
    losses = [json.loads(line).get("square/loss") for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert_close(min(loss for loss in losses if loss), losses[-2])
    assert losses[-2] < losses[1] / 2


# ------------------------------------------------------------------------------------------------------ starts that came to nothing


@pytest.mark.parametrize("resume", [False, True])
def test_a_start_that_came_to_nothing_gives_way_to_other_settings_and_the_run_says_so(tmp_path, capsys, resume):
    with pytest.raises(RunError), opened(tmp_path, config=Outer(steps=9)) as run:
        run.write_json("data.json", {})
        raise RunError("out of memory")
    capsys.readouterr()
    with opened(tmp_path, resume=resume, seed=6) as run:
        assert run.finished is None and run.checkpoint is None
    assert capsys.readouterr().err.splitlines() == [
        f"an earlier start in {tmp_path} came to nothing: starting at the beginning, with other settings",
        "  steps: 9 then, 4 now",
        "  seed: 5 then, 6 now",
    ]
    assert yaml.safe_load((tmp_path / "config.yaml").read_text())["steps"] == 4
    meta = json.loads((tmp_path / "meta.json").read_text())
    assert meta["seed"] == 6 and "resumed" not in meta


@pytest.mark.parametrize("refusal", [DataError, ConfigError])
def test_a_refused_start_takes_its_folders_back_and_nothing_else(tmp_path, refusal):
    with pytest.raises(refusal), opened(tmp_path / "new" / "run") as run:
        run.write_json("data.json", {})
        raise refusal("nowhere.jsonl")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "theirs").mkdir()
    with pytest.raises(refusal), opened(tmp_path / "theirs") as run:
        raise refusal("nowhere.jsonl")
    assert list(tmp_path.rglob("*")) == [tmp_path / "theirs"]  # which was there before
    with pytest.raises(refusal), opened(tmp_path / "begun") as run:
        run.log(0, {"loss": 1.0})
        raise refusal("nowhere.jsonl")
    assert (tmp_path / "begun" / "metrics.jsonl").stat().st_size > 0 and (tmp_path / "begun" / "config.yaml").is_file()


def test_with_the_same_settings_it_is_said_too_and_a_damaged_meta_json_of_such_a_start_does_not_matter(tmp_path, capsys):
    opened(tmp_path).close()
    opened(tmp_path).close()
    (tmp_path / "meta.json").write_text("{")
    opened(tmp_path).close()
    assert capsys.readouterr().err == f"an earlier start in {tmp_path} came to nothing: starting at the beginning\n" * 2


@pytest.mark.parametrize("left", ["metrics.jsonl", "samples.jsonl", "checkpoints/step-00000001/learner.pt", "summary.json"])
def test_what_has_something_to_lose_does_not_give_way(tmp_path, left):
    opened(tmp_path).close()
    (tmp_path / left).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / left).write_text("{}\n")
    with pytest.raises(ConfigError, match="other settings"):
        opened(tmp_path, resume=True, config=Outer(steps=9))
    with pytest.raises(ConfigError, match="choose another --out"):
        opened(tmp_path)
    assert (tmp_path / left).read_text() == "{}\n"


def test_a_file_that_a_broken_off_run_wrote_is_replaced_only_where_resume_says_so(tmp_path):
    opened(tmp_path).close()
    (tmp_path / "completions.jsonl").write_text("{}\n")
    with pytest.raises(ConfigError, match="holds a run that can be gone on with"):
        opened(tmp_path)
    opened(tmp_path, resume=True, config=Outer(steps=9)).close()
    assert yaml.safe_load((tmp_path / "config.yaml").read_text())["steps"] == 9


# ------------------------------------------------------------------------------------------------------ places and damaged files


def below_a_file(folder: Path) -> Path:
    (folder / "file").touch()
    return folder / "file" / "run"


def a_loop(folder: Path) -> Path:
    (folder / "loop").unlink(missing_ok=True)
    (folder / "loop").symlink_to(folder / "loop")
    return folder / "loop"


PLACES = {
    "below a file": (below_a_file, "Not a directory"),
    "in a loop": (lambda folder: a_loop(folder) / "run", "symbolic links"),
    "a loop": (a_loop, ""),
    "a long name": (lambda folder: folder / ("x" * 300), "File name too long"),
    "below a long name": (lambda folder: folder / ("x" * 300) / "run", "File name too long"),
}


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("case", PLACES)
def test_a_place_that_cannot_hold_a_run_is_refused_in_words(tmp_path, case, resume):
    place, why = PLACES[case]
    with pytest.raises(ConfigError, match=rf"cannot be written to: .*{why}.*\n  choose another --out"):
        opened(place(tmp_path), resume=resume)


def test_a_run_is_not_gone_on_with_when_nobody_can_tell_where_it_began(tmp_path):
    begun(tmp_path)
    whole = json.loads((tmp_path / "meta.json").read_text())
    kept = {"method": "toy", "seed": 5, "parents": {"data": 1}, "versions": {}, "machine": {}}
    for content, told in {
        "{": "missing or damaged",
        "[]": "missing or damaged",
        '{"format_version": "one"}': "missing or damaged",
        '{"format_version": 1}': r"does not say where it began \(method, seed, parents, versions, machine\)",
        json.dumps({**whole, "parents": []}): r"\(parents\)",
        json.dumps({"format_version": 1, **kept}): r"\(parents\)",
    }.items():
        (tmp_path / "meta.json").write_text(content)
        with pytest.raises(ConfigError, match=told):
            opened(tmp_path, resume=True)
        assert (tmp_path / "meta.json").read_text() == content


@pytest.mark.parametrize("content", ["{", "[]", ""])
def test_a_torn_summary_is_named_with_the_way_to_another(tmp_path, content):
    opened(tmp_path).close()
    (tmp_path / "summary.json").write_text(content)
    for look in (lambda: read_summary(tmp_path), lambda: opened(tmp_path, resume=True)):
        with pytest.raises(ConfigError, match=r"summary\.json is damaged: .*\n  remove that file and run .* with --resume"):
            look()


def test_a_line_of_figures_that_is_none_is_named(tmp_path):
    with opened(tmp_path) as run:
        run.log(0, {"loss": 1.0})
        for garbage in (b"{oops\n", b"\xff\xfe\n"):
            (tmp_path / "metrics.jsonl").write_bytes(b'{"step": 0}\n' + garbage)
            with pytest.raises(DataError, match=r"metrics\.jsonl:2 is no line of figures"):
                run.history()


# ------------------------------------------------------------------------------------------------------ removing a folder


def test_a_folder_that_is_being_written_is_not_removed(tmp_path):
    (tmp_path / "run").mkdir()
    held = take_lock(tmp_path / "run")
    (tmp_path / "run" / "model").touch()
    with pytest.raises(ConfigError, match="is being written by process"):
        remove_folder(tmp_path / "run")
    assert (tmp_path / "run" / "model").exists()
    release_lock(held)
    remove_folder(tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_who_waited_at_the_door_of_a_removed_folder_locks_the_one_that_is_there_now(tmp_path, monkeypatch):
    """It opened the file before the folder went, and gets its lock afterwards."""
    folder = tmp_path / "run"
    opens = []

    def flock(file, how, plain=lock.fcntl.flock):
        opens.append(file)
        if len(opens) == 1:
            folder.rename(tmp_path / "gone")
        plain(file, how)

    monkeypatch.setattr(lock.fcntl, "flock", flock)
    file = take_lock(folder)
    assert len(opens) == 2 and opens[0].closed
    assert os.fstat(file.fileno()).st_ino == (folder / "lock").stat().st_ino
    release_lock(file)
