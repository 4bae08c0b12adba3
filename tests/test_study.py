"""Studies: what has not changed is not run again, what follows from a change is; and the demo, very small, from end to end."""

import json
from pathlib import Path
from typing import Any

import pytest

from prefloop import study
from prefloop.config import Options
from prefloop.engine.lock import release_lock, take_lock
from prefloop.errors import ConfigError
from prefloop.study import StudyConfig, load_study, run_study, stages
from tests import study_commands
from tests.command_line import prefloop


@pytest.fixture(autouse=True)
def note(monkeypatch):
    monkeypatch.setitem(study.COMMANDS, "note", "tests.study_commands:NoteConfig")
    study_commands.CALLS.clear()


CHAIN = {
    "first": {"do": "note", "size": 1},
    "second": {"do": "note", "text": "${first}/notes.txt", "inner": {"depth": 1}},
    "third": {"do": "note", "text": "${second}/notes.txt"},
    "aside": {"do": "note", "size": 9},
}


def ran(out: Path, chain: dict[str, Any] = CHAIN, **settings: Any) -> list[str]:
    """The labels of the stages that a study really ran, with their seeds where there are several."""
    study_commands.CALLS.clear()
    done = run_study(StudyConfig.of(name="s", stages=chain, **settings), Options(out=out), announce=lambda text: None)
    seeds = settings.get("seeds", [0])
    labels = [
        one.stage.label if len(seeds) == 1 else f"{one.stage.label} {one.stage.seed}" for one in done if not one.was_skipped
    ]
    assert len(labels) == len(study_commands.CALLS)
    return labels


def with_(name: str, **settings: Any) -> dict[str, Any]:
    return {**CHAIN, name: {**CHAIN[name], **settings}}


def test_stages_run_in_their_order_each_in_a_folder_and_names_become_folders(tmp_path):
    assert ran(tmp_path) == ["first", "second", "third", "aside"]
    assert study_commands.CALLS[1]["text"] == str(tmp_path / "seed-0" / "first" / "notes.txt")
    assert (tmp_path / "seed-0" / "third" / "notes.txt").read_text() == str(tmp_path / "seed-0" / "second" / "notes.txt")


def test_nothing_is_run_twice_and_a_skipped_stage_still_has_its_summary(tmp_path):
    ran(tmp_path)
    assert ran(tmp_path) == []
    config = StudyConfig.of(name="s", stages=CHAIN)
    done = run_study(config, Options(out=tmp_path), announce=lambda text: None)
    assert [one.summary["size"] for one in done] == [1, 1, 1, 9]
    assert all(one.was_skipped and one.seconds > 0 for one in done)


@pytest.mark.parametrize(
    ("changed", "again"),
    [
        (with_("first", size=2), ["first", "second", "third"]),
        (with_("second", inner={"depth": 2}), ["second", "third"]),
        (with_("third", size=2), ["third"]),
        (with_("aside", size=2), ["aside"]),
        ({**CHAIN, "fourth": {"do": "note"}}, ["fourth"]),
        ({name: CHAIN[name] for name in ("aside", "first", "second", "third")}, []),
    ],
    ids=["the first", "a nested setting", "the last", "one nobody needs", "a new one", "the order alone"],
)
def test_a_change_repeats_what_follows_from_it_and_nothing_else(tmp_path, changed, again):
    ran(tmp_path)
    assert ran(tmp_path, changed) == again


def test_what_a_changed_stage_had_made_is_gone_and_going_back_runs_it_again(tmp_path):
    ran(tmp_path)
    left = tmp_path / "seed-0" / "first" / "left"
    left.touch()
    ran(tmp_path, with_("first", size=2))
    assert not left.exists()
    assert ran(tmp_path) == ["first", "second", "third"]


@pytest.mark.parametrize("spelling", ["{}", "lexicon:{}", "other,{}"])
def test_a_changed_file_counts_as_a_change_and_a_touched_one_does_not(tmp_path, spelling):
    file = tmp_path / "notes"
    file.write_text("one")
    chain = {"only": {"do": "note", "text": spelling.format(file)}}
    assert ran(tmp_path / "out", chain) == ["only"]
    file.write_text("one")
    assert ran(tmp_path / "out", chain) == []
    file.write_text("two")
    assert ran(tmp_path / "out", chain) == ["only"]


def test_so_does_a_file_in_a_folder_and_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "things").mkdir()
    (tmp_path / "things" / "a").write_text("one")
    chain = {"only": {"do": "note", "text": "things"}}
    assert ran(tmp_path / "out", chain) == ["only"]
    (tmp_path / "things" / "a").rename(tmp_path / "things" / "b")
    assert ran(tmp_path / "out", chain) == ["only"]
    assert ran(tmp_path / "out", chain) == []


@pytest.mark.parametrize("settings", [{"text": "python:tastes.words:count"}, {"inner": {"python:tastes.words:count": 1}}])
def test_a_changed_function_counts_as_a_change_wherever_it_is_named(tmp_path, monkeypatch, settings):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "tastes").mkdir()
    (tmp_path / "tastes" / "__init__.py").write_text("raise RuntimeError('reading a study imports nobody')")
    file = tmp_path / "tastes" / "words.py"
    file.write_text("def count(prompts, completions): ...\n")
    chain = {"only": {"do": "note", **settings}}
    assert ran(tmp_path / "out", chain) == ["only"]
    file.write_text("def count(prompts, completions): ...\n")
    assert ran(tmp_path / "out", chain) == []
    file.write_text("def count(prompts, completions): return 1\n")
    assert ran(tmp_path / "out", chain) == ["only"]
    (tmp_path / "tastes" / "other.py").write_text("")
    assert ran(tmp_path / "out", chain) == []


def test_a_function_that_is_nowhere_is_left_to_the_stage_that_wants_it(tmp_path):
    assert ran(tmp_path, {"only": {"do": "note", "text": "python:no.such.module:f"}}) == ["only"]


def test_who_wrote_in_a_folder_last_is_no_change_of_it(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "model").write_text("weights")
    chain = {"only": {"do": "note", "text": str(tmp_path / "run")}}
    assert ran(tmp_path / "out", chain) == ["only"]
    (tmp_path / "run" / "lock").write_text("another process")
    assert ran(tmp_path / "out", chain) == []


def test_another_version_of_prefloop_runs_everything_again(tmp_path, monkeypatch):
    ran(tmp_path)
    monkeypatch.setattr(study, "__version__", "99")
    assert ran(tmp_path) == ["first", "second", "third", "aside"]


def test_a_stage_whose_summary_is_gone_is_run_again(tmp_path):
    ran(tmp_path)
    (tmp_path / "seed-0" / "aside" / "summary.json").unlink()
    assert ran(tmp_path) == ["aside"]


# ------------------------------------------------------------------------------------------------------ seeds and sweeps


def test_every_stage_runs_once_a_seed_and_a_new_seed_runs_alone(tmp_path):
    chain = {"only": {"do": "note", "text": "seed ${seed}"}}
    assert ran(tmp_path, chain, seeds=[3, 5]) == ["only 3", "only 5"]
    assert [(call["seed"], call["text"]) for call in study_commands.CALLS] == [(3, "seed 3"), (5, "seed 5")]
    assert ran(tmp_path, chain, seeds=[3, 5, 8]) == ["only 8"]


def test_a_stage_with_a_seed_of_its_own_keeps_it(tmp_path):
    ran(tmp_path, {"only": {"do": "note", "seed": 7}}, seeds=[3])
    assert study_commands.CALLS[0]["seed"] == 7


def test_a_sweep_repeats_its_stage_and_what_follows_from_it(tmp_path):
    labels = ran(tmp_path, sweep={"second.inner.depth": [1, 2]})
    assert labels == [
        "first", "second@second.inner.depth=1", "third@second.inner.depth=1", "aside",
        "second@second.inner.depth=2", "third@second.inner.depth=2",
    ]  # fmt: skip
    depths = [call["inner"] for call in study_commands.CALLS if call["inner"]]
    assert depths == [{"depth": 1}, {"depth": 2}]
    third = next(call for call in study_commands.CALLS if "third@second.inner.depth=2" in str(call["out"]))
    assert "second@second.inner.depth=2" in third["text"]
    assert ran(tmp_path, sweep={"second.inner.depth": [1, 2, 3]}) == ["second@second.inner.depth=3", "third@second.inner.depth=3"]


def test_two_sweeps_make_a_grid_and_what_depends_on_one_is_not_repeated_for_the_other(tmp_path):
    labels = ran(tmp_path, sweep={"second.size": [1, 2], "aside.size": [1, 10]})
    assert len([label for label in labels if label.startswith("second")]) == 2
    assert len([label for label in labels if label.startswith("third")]) == 2
    assert len([label for label in labels if label.startswith("aside")]) == 2
    assert labels.count("first") == 1


def test_a_stage_knows_the_stages_whose_outputs_it_reads_at_its_own_point_of_a_sweep(tmp_path):
    chain = {
        "one": {"do": "note", "text": "x"},
        "two": {"do": "note", "text": "${one}/notes.txt", "inner": {}},
        "three": {"do": "note", "text": "${two}/notes.txt ${one} ${seed} ${two}"},
    }
    study_ = StudyConfig(name="s", stages=chain, sweep={"two.size": [1, 2]})
    assert [(stage.label, stage.parents) for stage in stages(study_, tmp_path)] == [
        ("one", ()),
        ("two@two.size=1", ("one",)),
        ("three@two.size=1", ("two@two.size=1", "one")),
        ("two@two.size=2", ("one",)),
        ("three@two.size=2", ("two@two.size=2", "one")),
    ]


def test_a_value_that_begins_like_another_is_not_taken_for_it():
    config = StudyConfig.of(name="s", stages={**CHAIN, "rd": {"do": "note"}, "after": {"do": "note", "text": "${third}"}},
                            sweep={"third.size": [1], "rd.size": [1, 2]})  # fmt: skip
    labels = [stage.label for stage in stages(config, Path("out"))]
    assert [label for label in labels if label.startswith("after")] == ["after@third.size=1"]


def test_a_swept_value_that_names_a_swept_stage_is_repeated_with_it(tmp_path):
    chain = {"first": {"do": "note"}, "after": {"do": "note"}}
    labels = ran(tmp_path, chain, sweep={"first.size": [1, 2], "after.text": ["${first}/notes.txt", "plain"]})
    named = "after.text=${first}/notes.txt"
    assert [label for label in labels if label.startswith("after")] == [
        f"after@{named}@first.size=1", "after@after.text=plain", f"after@{named}@first.size=2",
    ]  # fmt: skip
    for call in study_commands.CALLS:
        if call["text"].endswith("notes.txt"):
            assert call["text"] == str(tmp_path / "seed-0" / f"first@{call['out'].name.rpartition('@')[2]}" / "notes.txt")


def test_a_value_with_the_sign_between_labels_in_it_is_followed_too(tmp_path):
    labels = ran(tmp_path, sweep={"second.text": ["ada@x", "bob@x"]})
    assert [label for label in labels if label.startswith("third")] == ["third@second.text=ada@x", "third@second.text=bob@x"]


def test_a_label_too_long_for_a_folder_is_cut_and_told_apart_by_a_hash(tmp_path):
    long = "页" * 300
    ran(tmp_path, sweep={"aside.text": [f"{long}a", f"{long}b"]})
    names = [call["out"].name for call in study_commands.CALLS if call["size"] == 9]
    assert len(set(names)) == 2 and all(len(name.encode()) <= 200 and name.startswith("aside@aside.text=页") for name in names)


# ------------------------------------------------------------------------------------------------------ several at once


def test_a_study_that_is_being_run_is_not_run_by_somebody_else_too(tmp_path):
    ran(tmp_path)
    held = take_lock(tmp_path)
    with pytest.raises(ConfigError, match=r"is being written by process .*\n  wait for it, stop it, or choose another --out"):
        ran(tmp_path, with_("first", size=2))
    assert not study_commands.CALLS
    release_lock(held)
    assert ran(tmp_path, with_("first", size=2)) == ["first", "second", "third"]


def test_nor_is_its_report_written_beside_somebody_elses(tmp_path):
    def report(done):
        with pytest.raises(ConfigError, match="is being written by process"):
            take_lock(tmp_path)
        reported.extend(d.stage.label for d in done)

    reported: list[str] = []
    run_study(StudyConfig.of(name="s", stages=CHAIN), Options(out=tmp_path), announce=lambda text: None, report=report)
    assert reported == list(CHAIN)


def test_nor_is_a_stage_removed_that_somebody_runs_by_itself(tmp_path):
    ran(tmp_path)
    folder = tmp_path / "seed-0" / "first"
    held = take_lock(folder)
    with pytest.raises(ConfigError, match="first is being written by process"):
        ran(tmp_path, with_("first", size=2))
    assert (folder / "notes.txt").exists() and not study_commands.CALLS
    release_lock(held)
    assert ran(tmp_path, with_("first", size=2)) == ["first", "second", "third"]


def test_a_study_that_failed_or_is_only_looked_at_holds_nothing(tmp_path):
    with pytest.raises(ConnectionError):
        ran(tmp_path, with_("second", breaks=True))
    held = take_lock(tmp_path)
    run_study(StudyConfig.of(name="s", stages=CHAIN), Options(out=tmp_path, dry_run=True), announce=lambda text: None)
    release_lock(held)


# ------------------------------------------------------------------------------------------------------ broken off


def test_a_stage_that_was_broken_off_goes_on_where_it_was_and_those_before_are_not_repeated(tmp_path):
    chain = with_("second", breaks=True)
    with pytest.raises(ConnectionError):
        ran(tmp_path, chain)
    assert not (tmp_path / "seed-0" / "third").exists()
    assert ran(tmp_path, chain) == ["second", "third", "aside"]
    assert study_commands.CALLS[0]["goes_on"] and study_commands.CALLS[0]["resume"]


def test_a_broken_off_stage_with_other_settings_begins_anew(tmp_path):
    with pytest.raises(ConnectionError):
        ran(tmp_path, with_("second", breaks=True))
    assert ran(tmp_path, with_("second", size=4)) == ["second", "third", "aside"]
    assert not study_commands.CALLS[0]["goes_on"]


@pytest.mark.parametrize("name", ["stage.json", "summary.json"])
@pytest.mark.parametrize("content", ['{"key": "1', "[]", ""])
def test_what_a_study_left_and_cannot_read_any_more_is_named_and_stays(tmp_path, name, content):
    ran(tmp_path)
    torn = tmp_path / "seed-0" / "second" / name
    torn.write_text(content)
    with pytest.raises(ConfigError, match=rf"{name} is damaged: (.|\n)* remove {torn.parent}, or choose another --out"):
        ran(tmp_path)
    assert torn.read_text() == content and (torn.parent / "notes.txt").exists()


def test_a_folder_that_no_study_made_is_left_alone(tmp_path):
    (tmp_path / "seed-0" / "first").mkdir(parents=True)
    (tmp_path / "seed-0" / "first" / "thesis.txt").write_text("years of work")
    with pytest.raises(ConfigError, match="exists and no study made it"):
        ran(tmp_path)
    assert (tmp_path / "seed-0" / "first" / "thesis.txt").read_text() == "years of work"


def test_a_refused_study_leaves_nothing_and_a_later_refusal_keeps_what_was_done(tmp_path, monkeypatch):
    def refused(config: Any, options: Options) -> dict[str, Any]:
        if config.size == 7:
            raise ConfigError("seven is too many")
        return study_commands.main(config, options)

    kept = study.config_class
    monkeypatch.setattr(study, "config_class", lambda command: (kept(command)[0], refused))
    with pytest.raises(ConfigError, match="seven"):
        ran(tmp_path / "new" / "study", with_("first", size=7))
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ConfigError, match="seven"):
        ran(tmp_path / "study", with_("second", size=7))
    assert {path.name for path in (tmp_path / "study" / "seed-0").iterdir()} == {"first"}
    plan = json.loads((tmp_path / "study" / "study.json").read_text())
    assert [stage["folder"] for stage in plan["stages"]] == [f"seed-0/{name}" for name in CHAIN]


def test_a_dry_run_before_anything_ran_knows_the_folders_and_no_times(tmp_path):
    said: list[str] = []
    run_study(StudyConfig.of(name="s", stages=CHAIN), Options(out=tmp_path / "out", dry_run=True), announce=said.append)
    assert [
        line.endswith(f"{tmp_path / 'out' / 'seed-0' / name}: would run") for line, name in zip(said, CHAIN, strict=False)
    ] == [True] * 4
    assert said[4] == "4 stages: 0 there already, 4 would run; how long is not known before a first run"
    assert not (tmp_path / "out").exists()


def test_a_dry_run_tells_what_was_broken_off_and_takes_times_from_another_seed(tmp_path):
    ran(tmp_path)
    marker = tmp_path / "seed-0" / "second" / "stage.json"
    marker.write_text(json.dumps({**json.loads(marker.read_text()), "done": False}))
    third = tmp_path / "seed-0" / "third" / "stage.json"
    third.write_text(json.dumps({**json.loads(third.read_text()), "seconds": 75.0}))
    said: list[str] = []
    run_study(StudyConfig.of(name="s", stages=CHAIN, seeds=[0, 1]), Options(out=tmp_path, dry_run=True), announce=said.append)
    assert said[1].endswith(": would go on")
    assert said[6].endswith(": would run, 1 min 15 s before")
    assert said[8] == "8 stages: 3 there already, 5 would run, in about 1 min 15 s; 2 never ran, their time is not known"


def test_a_dry_run_says_what_would_run_and_runs_nothing(tmp_path):
    ran(tmp_path)
    study_commands.CALLS.clear()
    said: list[str] = []
    config = StudyConfig.of(name="s", stages=with_("second", size=2))
    assert run_study(config, Options(out=tmp_path, dry_run=True), announce=said.append) == []
    what = [line.rpartition(": ")[2] for line in said[:4]]
    changed = "would run again, its settings or inputs have changed, 0 s before"
    assert what == ["there already, 0 s before", changed, changed, "there already, 0 s before"]
    assert said[1].split(": ")[0].split() == ["[2/4]", "second", "prefloop", "note", str(tmp_path / "seed-0" / "second")]
    assert said[4:] == ["4 stages: 2 there already, 2 would run, in about 0 s", "nothing was run (--dry-run)"]
    assert not study_commands.CALLS


# ------------------------------------------------------------------------------------------------------ files


def write(path: Path, content: str) -> Path:
    path.write_text(content, encoding="utf-8")
    return path


def test_an_included_study_lends_its_stages_and_the_including_one_wins(tmp_path):
    write(
        tmp_path / "base.yaml",
        "name: base\nquestion: why\nseeds: [1, 2]\nstages:\n  a: {do: note, size: 1, text: x}\n  b: {do: note}\n",
    )
    path = write(tmp_path / "own.yaml", "name: own\ninclude: base.yaml\nstages:\n  a: {size: 2}\n  c: {do: note, text: '${a}'}\n")
    config = load_study(path)
    assert list(config.stages) == ["a", "b", "c"]
    assert config.stages["a"] == {"do": "note", "size": 2, "text": "x"}
    assert (config.name, config.question, config.seeds, config.include) == ("own", "why", [1, 2], "")


def test_an_included_stage_that_is_given_a_later_stage_to_read_comes_after_it_and_others_stay(tmp_path):
    write(
        tmp_path / "base.yaml",
        "name: base\nstages:\n  a: {do: note}\n  b: {do: note, text: '${a}'}\n  end: {do: note, text: '${b}'}\n  aside: {do: note}\n",
    )
    own = "name: own\ninclude: base.yaml\nstages:\n  c: {do: note, text: '${b}'}\n  d: {do: note, text: '${c}'}\n  end: {text: '${b} ${d}'}\n"
    config = load_study(write(tmp_path / "own.yaml", own))
    assert list(config.stages) == ["a", "b", "c", "d", "end", "aside"]
    assert [stage.name for stage in stages(config, tmp_path)] == list(config.stages)


@pytest.mark.parametrize("text", ["${b}", "${a}"])
def test_stages_that_need_each_other_or_themselves_are_refused_as_ever(tmp_path, text):
    write(tmp_path / "base.yaml", "name: base\nstages:\n  a: {do: note}\n")
    own = f"name: own\ninclude: base.yaml\nstages:\n  a: {{text: '{text}'}}\n  b: {{do: note, text: '${{a}}'}}\n"
    with pytest.raises(ConfigError, match="which does not come before it"):
        list(stages(load_study(write(tmp_path / "own.yaml", own)), tmp_path))


def test_studies_that_come_with_prefloop_are_included_by_name(tmp_path):
    config = load_study(write(tmp_path / "own.yaml", "name: own\ninclude: demo\nseeds: [0, 1, 2, 3, 4]\n"))
    assert {"base", "sft", "reward", "ppo", "ppo_ptx", "evaluate"} <= set(config.stages)
    assert len(list(stages(config, tmp_path))) == 5 * len(config.stages)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("name: x\n", "the study 'x' has no stages"),
        ("name: x\nstages: {a: {do: fly}}\n", "stage a: do: 'fly' is not a command a study can run\n  known: pretrain, "),
        ("name: x\nstages: {a: {size: 1}}\n", "stage a: do: None is not a command"),
        ("name: x\nstages: {a: {do: note, text: '${b}/x'}, b: {do: note}}\n", "stage a names b, which does not come before it"),
        ("name: x\nstages: {a: {do: note, text: '${zebra}'}}\n", "stage a names zebra, which does not come before it"),
        ("name: x\nstages: {a: {do: note, siez: 1}}\n", "stage a cannot be used as written:\n  unknown key 'siez'; did you mean 'size'?"),
        ("name: x\nstages: {a: {do: note}}\nsweep: {b.size: [1]}\n", "sweep: 'b.size' is not stage.setting; stages: a"),
        ("name: x\nstages: {a: {do: note}}\nsweep: {a: [1]}\n", "sweep: 'a' is not stage.setting"),
        ("name: x\nstages: {a: {do: note}}\nsweep: {a.siez: [1]}\n", "unknown key 'siez'"),
        ("name: x\nstages: {a: {do: note}}\nseeds: []\n", "seeds: list should have at least 1 item"),
        ("name: x\nstages: [a]\n", "stages: input should be a valid dictionary"),
        ("name: x\nstage: {}\n", "unknown key 'stage'; did you mean 'stages'?"),
        ("name: x\nstages: {a: {do: note}}\nseeds: [0, 1, 0]\n", "seeds names 0 more than once"),
        ("name: x\nstages: {a: {do: note}}\nsweep: {a.size: []}\n", "sweep a.size has no value, so nothing would run"),
        ("name: x\nstages: {a: {do: note}}\nsweep: {a.size: [1, 2, 1]}\n", "sweep a.size names 1 more than once"),
        ("name: x\nstages: {a: {do: note}}\nsweep: {a.text: ['1', 1]}\n", "sweep a.text names 1 more than once"),
        ("name: x\nstages: {a: {do: note}}\nsweep: {a..size: [1]}\n", "sweep: 'a..size' is not stage.setting"),
        ("name: x\nstages: {a: {do: note}}\nsweep: {a.do: [note]}\n", "sweep: 'a.do' is a command, no setting"),
        ("name: x\nstages: {a: {do: note, size: 1}}\nsweep: {a.size.deep: [1]}\n", "sweep: a.size.deep: size is 1, which has no settings of its own"),
        ("name: x\nstages: {a: {do: note}}\nsweep: {a.siez: [1]}\n", "stage a@a.siez=1 cannot be used as written"),
        ("name: x\nstages: {a: {do: note}}\nsweep: {a.text: ['${zebra}']}\n", "sweep a.text, of stage a, names zebra, which does not come before it"),
        ("name: x\nstages: {a: {do: note}, b: {do: note}}\nsweep: {a.text: [x, '${b}']}\n", "sweep a.text, of stage a, names b, which does not come before it"),
        ("name: x\nstages: {a: {do: note}}\nsweep: {a.text: [x/y, x_y]}\n", "a@a.text=x/y and a@a.text=x_y would both be"),
        ("name: x\nstages: {a: {do: note}}\nsweep: {a.text: [x, X]}\n", "a@a.text=x and a@a.text=X would both be"),
        ("name: x\nstages: {a/b: {do: note}, a_b: {do: note}}\n", "'a/b' cannot be the name of a stage"),
        ("name: x\nstages: {..: {do: note}}\n", "'..' cannot be the name of a stage"),
        ("name: x\nstages: {seed: {do: note}}\n", "'seed' cannot be the name of a stage"),
        ("name: x\nstages: {a: {do: [note]}}\n", "stage a: do: ['note'] is not a command"),
        ("name: x\nstages:\n  a: {do: note}\n  a: {do: note, size: 2}\n", "line 4: 'a' has a value already, in line 3"),
        ("name: x\ninclude: nowhere\n", "there is no study 'nowhere' to include"),
        ("name: x\ninclude: wrong.yaml\n", "studies include each other in a circle: wrong.yaml -> wrong.yaml"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_study_is_said_before_anything_runs(tmp_path, content, told):
    path = write(tmp_path / "wrong.yaml", content)
    with pytest.raises(ConfigError) as error:
        run_study(load_study(path), Options(out=tmp_path / "out"), announce=lambda text: None)
    assert told in str(error.value)
    assert not study_commands.CALLS and not (tmp_path / "out").exists()


# ------------------------------------------------------------------------------------------------------ the demo

POLICY = "{rounds: 2, prompts_per_round: 12, max_new_tokens: 12, minibatch: 12, epochs: 1}"
TINY = f"""
name: tiny
include: demo
stages:
  world:
    {{corpus_lines: 300, demonstrations: 60, reward_prompts: 60, policy_prompts: 60, validation_prompts: 10, held_out_prompts: 16}}
  base: {{width: 32, layers: 2, heads: 2, vocabulary: 320, steps: 20, block: 64, batch: 8}}
  sft: {{epochs: 2}}
  answers: {{k: 3, max_new_tokens: 12}}
  select: {{n: 10, max_new_tokens: 12}}
  ppo: {POLICY}
  ppo_ptx: {POLICY}
  few_rankings: {{n: 40}}
  few_reward: {{held_out: 0.4}}
  ppo_overoptimised: {POLICY}
  evaluate: {{n: 16, k: 1, max_new_tokens: 12, skill_items: 3, best_of: {{policy: sft, n: 4, prompts: 12}}}}
"""
ROWS = ["base", "sft", "best_of_n", "ppo", "ppo_ptx", "ppo_overoptimised"]
INTERVAL = {"mean", "low", "high", "n"}


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """The demo's study with a model of two layers, through the command line."""
    folder = tmp_path_factory.mktemp("demo")
    outcome = prefloop("run", str(write(folder / "tiny.yaml", TINY)), "--out", str(folder / "out"), "--device", "cpu")
    assert outcome.code == 0, outcome.err
    return folder, outcome


def summary_of(demo) -> dict[str, Any]:
    return json.loads((demo[0] / "out" / "summary.json").read_text(encoding="utf-8"))


def test_the_demo_writes_the_table_that_others_read(demo):
    summary = summary_of(demo)
    assert {"seconds", "baseline", "rows", "paired", "reward_model", "rewards"} <= set(summary)
    assert summary["baseline"] == "sft"
    assert summary["seconds"] > 0
    assert [row["name"] for row in summary["rows"]] == ROWS
    for row in summary["rows"]:
        assert {"name", "gold", "win_vs_sft", "kl", "length", "skill"} <= set(row)
        for figure in (row["gold"], row["win_vs_sft"]):
            assert set(figure) >= INTERVAL
            assert figure["low"] <= figure["mean"] <= figure["high"]
            assert figure["n"] == (12 if row["name"] == "best_of_n" else 16)
        assert 1 <= row["length"] <= 12
        for figure in ("kl", "length", "proxy"):  # numbers, with their intervals beside them
            interval = row[f"{figure}_interval"]
            if (row["name"], figure) == ("best_of_n", "kl"):
                assert interval is None and row["kl"] > 0
            else:
                assert interval["low"] <= row[figure] <= interval["high"] and interval["mean"] == row[figure]
        assert set(row["skill_interval"]) == set(row["skill"])
        assert all(0 <= share <= 1 for share in row["skill"].values())


def test_differences_are_paired_and_say_of_how_many(demo):
    paired = summary_of(demo)["paired"]
    assert paired
    for pair in paired:
        assert set(pair) == {"a", "b", "metric", "mean", "low", "high", "n_prompts", "n_seeds"}
        assert pair["n_seeds"] == 1
    gold = {(pair["a"], pair["b"]) for pair in paired if pair["metric"] == "gold"}
    assert {("ppo", "sft"), ("ppo_ptx", "sft"), ("best_of_n", "sft")} <= gold
    assert any(pair["a"] == "ppo" and pair["b"] == "ppo_ptx" and pair["metric"].startswith("skill/") for pair in paired)


def test_a_difference_is_that_of_the_rows_on_the_same_prompts(demo):
    summary = summary_of(demo)
    gold = {row["name"]: row["gold"]["mean"] for row in summary["rows"]}
    pair = next(p for p in summary["paired"] if (p["a"], p["b"], p["metric"]) == ("ppo", "sft", "gold"))
    assert abs(pair["mean"] - (gold["ppo"] - gold["sft"])) < 1e-9
    assert pair["n_prompts"] == 16


def test_the_reward_model_stands_beside_the_ceiling_of_its_labels(demo):
    reward = summary_of(demo)["reward_model"]
    assert set(reward["pair_accuracy"]) >= INTERVAL
    assert 0.5 <= reward["bayes_ceiling"] <= 1
    assert reward["name"] == "reward"
    assert [row["name"] for row in summary_of(demo)["rewards"]["rows"]] == ["reward", "few_reward"]


def test_the_baseline_is_no_distance_from_itself_and_wins_half(demo):
    sft = next(row for row in summary_of(demo)["rows"] if row["name"] == "sft")
    assert abs(sft["kl"]) < 1e-5
    assert sft["win_vs_sft"]["mean"] == 0.5


def test_the_demo_ends_with_the_table_and_the_page(demo):
    folder, outcome = demo
    assert str(folder / "out" / "report.html") in outcome.out.splitlines()[-1]
    assert all(name in outcome.out for name in ROWS)
    page = (folder / "out" / "report.html").read_text(encoding="utf-8")
    assert all(name in page for name in ROWS)
    lineage = {entry["name"]: entry["parents"] for entry in json.loads((folder / "out" / "report.json").read_text())["lineage"]}
    assert lineage["world"] == [] and lineage["reward"] == ["sft", "rankings", "world"]
    assert set(lineage["evaluate"]) == {"base", "select", "ppo", "ppo_ptx", "ppo_overoptimised", "world", "reward", "few_reward"}


def test_a_second_run_of_the_demo_finds_everything_there(demo):
    folder, _ = demo
    before = {path: path.read_bytes() for path in folder.rglob("model.safetensors")}
    outcome = prefloop("run", str(folder / "tiny.yaml"), "--out", str(folder / "out"), "--device", "cpu", "--dry-run")
    assert outcome.code == 0
    n = len(load_study(folder / "tiny.yaml").stages)
    assert outcome.out.count(": there already") == n and f"{n} stages: {n} there already, 0 would run\n" in outcome.out
    assert ": would run" not in outcome.out
    assert {path: path.read_bytes() for path in folder.rglob("model.safetensors")} == before


# ------------------------------------------------------------------------------------------------------ the demo with every method

ROWS_OF_ALL = [*ROWS, "rlp_uml", "rlp_spg", "rrhf", "dpo", "rloo"]
TINY_ALL = f"""{TINY.replace("include: demo", "include: demo-all")}
  policy_answers: {{n: 30, max_new_tokens: 12}}
  uml_reward: {{views_batch: 8, epochs: 1}}
  spg_reward: {{same: words, confidence: 0.0, epochs: 1}}
  rlp_uml: {POLICY}
  rlp_spg: {POLICY}
  rrhf: {{epochs: 1}}
  rloo: {{rounds: 2, prompts_per_round: 6, k: 2, max_new_tokens: 12, minibatch: 12}}
  trust:
    do: trust
    rewards: {{reward: "${{reward}}/model", spg_reward: "${{spg_reward}}/model"}}
    policies: {{sft: "${{select}}/model", ppo: "${{ppo}}/model"}}
    synthetic: {{spg_reward: "${{spg_reward}}"}}
    prompts: "${{world}}/held_out_prompts.jsonl"
    gold: "world:en"
    max_new_tokens: 12
"""


@pytest.fixture(scope="module")
def demo_all(demo):
    """In the folder of the demo, whose stages are not run again."""
    folder, _ = demo
    study_file = write(folder / "all.yaml", TINY_ALL)
    outcome = prefloop("run", str(study_file), "--out", str(folder / "out"), "--device", "cpu")
    assert outcome.code == 0, outcome.err
    return folder, outcome


def test_after_a_demo_the_demo_with_every_method_runs_its_own_stages_only(demo_all):
    folder, outcome = demo_all
    again = [line.split()[0] for line in outcome.out.splitlines() if line.endswith("there already")]
    assert again == [name for name in load_study(folder / "tiny.yaml").stages if name != "evaluate"]


def test_its_rows_stand_in_the_same_table_and_on_the_same_page(demo_all):
    folder, outcome = demo_all
    summary = summary_of(demo_all)
    assert {row["name"] for row in summary["rows"]} == set(ROWS_OF_ALL)
    compared = {(pair["a"], pair["b"]) for pair in summary["paired"] if pair["metric"] == "gold"}
    assert {(name, against) for name in ROWS_OF_ALL[6:] for against in ("sft", "ppo")} <= compared
    assert [row["name"] for row in summary["rewards"]["rows"]] == [
        "reward", "few_reward", "uml_reward", "spg_reward", "rrhf",
    ]  # fmt: skip
    page = (folder / "out" / "report.html").read_text(encoding="utf-8")
    in_order = [page.index(f">{name}</small>") for name in ROWS_OF_ALL]  # below the name that people read
    assert in_order == sorted(in_order)
    assert all(name in outcome.out for name in ROWS_OF_ALL)


def test_reward_models_on_fresh_answers_are_in_its_summary_its_output_and_its_page(demo_all):
    folder, outcome = demo_all
    fresh = summary_of(demo_all)["fresh"]
    assert [(row["policy"], row["reward"]) for row in fresh["rows"]] == [
        (policy, reward) for policy in ("sft", "ppo") for reward in ("reward", "spg_reward")
    ]
    assert all(set(row["accuracy"]) >= {"mean", "low", "high", "n_prompts"} and row["calibration"] for row in fresh["rows"])
    assert fresh["synthetic"][0]["n"] == sum(row["n"] for row in fresh["synthetic"][1:]) > 0  # confidence = 0 learns from all
    assert "reward models on fresh answers" in outcome.out and "by the confidence of the policy" in outcome.out
    assert 'id="fresh"' in (folder / "out" / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(("flags", "last"), [([], "demo"), (["--all"], "demo-all")])
def test_the_demo_runs_every_method_only_when_asked(monkeypatch, flags, last):
    ran_with = []
    monkeypatch.setattr("prefloop.demo.run_and_report", lambda study, out, **options: ran_with.append((study, options)))
    assert prefloop("demo", *flags, "--seed", "7", "--out", "nowhere").code == 0
    ((config, options),) = ran_with
    assert (config.name, config.seeds) == (last, [7])
    assert options["command"] == f"prefloop demo{' --all' if flags else ''} --out nowhere --seed 7"
    assert ("rlp_spg" in config.stages) == bool(flags)


def test_the_study_of_relearning_starts_as_the_demo_does_and_its_arms_differ_in_what_they_are_named_for():
    configs = Path(__file__).parent.parent / "configs"
    demo_stages, rlp = load_study(study.included("demo", Path())).stages, load_study(configs / "rlp.yaml").stages
    assert {name for name in rlp if demo_stages.get(name) == rlp[name]} == {
        "world", "base", "sft", "answers", "rankings", "reward", "select", "ppo",
    }  # fmt: skip
    arms = load_study(configs / "rlp-study.yaml").stages
    assert {name: arms[name] for name in ("few_rankings", "few_reward", "ppo_overoptimised")} == {
        name: demo_stages[name] for name in ("few_rankings", "few_reward", "ppo_overoptimised")
    }

    def changed(name: str, other: str) -> set[str]:
        return {key for key in arms[name] | arms[other] if arms[name].get(key) != arms[other].get(key)}

    assert changed("ppo_again", "ppo") == {"seed"}
    assert all(
        changed(name, "ppo") == {"reward"}
        for name in ("rlp_uml", "rlp_spg", "rlp_both", "rlp_spg_random", "ppo_few", "rlp_spg_wrong")
    )
    assert changed("spg_random_reward", "spg_reward") == {"winner"}
    assert changed("both_reward", "spg_reward") == {"representation"}
    assert changed("uml_reward", "spg_reward") == {"representation", "pairs", "same"}


def test_the_time_of_a_start_that_was_broken_off_counts(tmp_path, monkeypatch):
    clock = iter([0.0, 5.0, 100.0, 102.0])
    monkeypatch.setattr("prefloop.study.time.perf_counter", lambda: next(clock))
    chain, marker = {"first": {**CHAIN["first"], "breaks": True}}, tmp_path / "seed-0" / "first" / "stage.json"
    with pytest.raises(ConnectionError):
        ran(tmp_path, chain)
    assert json.loads(marker.read_text())["seconds"] == 5.0
    ran(tmp_path, chain)
    assert json.loads(marker.read_text())["seconds"] == 7.0
