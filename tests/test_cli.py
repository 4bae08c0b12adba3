"""The command line: every command says what it does, does it, and fails in one line."""

import json
import re
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import prefloop as package
from prefloop import study
from prefloop.cli import app
from prefloop.config import Config
from prefloop.data.read import read_groups, read_prompts
from prefloop.engine import checkpoint
from tests.command_line import prefloop
from tests.methods.toy import ppo_settings, reward_settings, saved, sft_settings, toy

ROOT = Path(__file__).parents[1]
PLAIN = "template=plain"
COMMANDS = [command.name or command.callback.__name__ for command in app.registered_commands if command.callback]


def items(settings: dict) -> list[str]:
    return [f"{key}={json.dumps(value)}" for key, value in settings.items()]


# ------------------------------------------------------------------------------------------------------ help


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command):
    outcome = prefloop(command, "--help")
    assert outcome.code == 0
    assert f"Usage: root {command}" in outcome.out
    described = " ".join(outcome.out.split("\n\n")[1].split())  # the paragraph after the usage, however wide the terminal
    assert described[0].isupper() and described.endswith((".", "; ends with a table and report.html.")), described


def test_help_lists_every_command_and_a_study_can_run_what_trains():
    listed = prefloop("--help").out
    assert all(re.search(rf"^  {command} ", listed, re.MULTILINE) for command in [*COMMANDS, "world", "data"])
    assert {"pretrain", "sft", "reward", "select", "ppo", "sample", "score", "evaluate"} <= set(study.COMMANDS) & set(COMMANDS)


@pytest.mark.parametrize("group", [(), ("data",), ("world",), ("collect",)])
def test_the_list_of_commands_is_cut_nowhere(group):
    listed = prefloop(*group, "--help").out
    assert "..." not in listed.partition("Commands:")[2]
    assert bool(group) or "GRPO, Dr. GRPO, DAPO," in listed


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        (["sft", "--model", "x", "--data", "y"], "settings are written key=value, without dashes: model=x\n"),
        (["sft", "data=y", "--optim.lr=1e-5"], "settings are written key=value, without dashes: optim.lr=1e-5\n"),
        (
            ["ppo", "--prompts-per-round", "--dry-run"],
            "settings are written key=value, without dashes: prompts_per_round=VALUE\n",
        ),
        (["data", "check", "f.jsonl", "--format", "text"], "settings are written key=value, without dashes: format=text\n"),
    ],
)
def test_a_setting_typed_as_an_option_is_answered_with_how_it_is_written(typed, told):
    outcome = prefloop(*typed)
    assert outcome.code == 2 and told in outcome.err and "No such option" in outcome.err


def test_a_command_without_settings_gives_no_such_advice():
    outcome = prefloop("run", "--outt", "x", "study.yaml")
    assert outcome.code == 2 and "key=value" not in outcome.err and "--out" in outcome.err


def test_a_misspelt_path_is_answered_with_the_nearest_one_through_misspelt_folders(tmp_path):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "five-seeds.yaml").write_text("name: x\n")
    (tmp_path / "configs" / "pairs.jsonl").write_text("")
    (tmp_path / "judged").mkdir()
    for typed, near in (
        (["run", tmp_path / "confgs" / "five-sedes.yaml"], tmp_path / "configs" / "five-seeds.yaml"),
        (["data", "check", tmp_path / "confgs" / "pair.jsonl"], tmp_path / "configs" / "pairs.jsonl"),
        (["report", tmp_path / "juged"], tmp_path / "judged"),
    ):
        outcome = prefloop(*typed)
        assert outcome.code == 2 and f"nearest: {near}\n" in outcome.err
    outcome = prefloop("run", tmp_path / "configs" / "nothing.yaml")
    assert outcome.code == 2 and f"in {tmp_path / 'configs'} there are: five-seeds.yaml\n" in outcome.err


def test_misspelt_columns_are_no_success(tmp_path):
    (tmp_path / "pairs.jsonl").write_text(json.dumps({"prompt": "q", "chosn": "a", "rejectd": "b"}) + "\n")
    outcome = prefloop("data", "check", tmp_path / "pairs.jsonl")
    assert outcome.code == 2 and outcome.out == ""
    assert "found    prompt (text), chosn (text), rejectd (text)\n" in outcome.err
    assert "needed   prompt (text or list), chosen" in outcome.err and "chosen is missing, chosn is there" in outcome.err
    assert prefloop("data", "check", tmp_path / "pairs.jsonl", "format=prompts").code == 0


def test_help_brings_nothing_heavy():
    program = (
        "import sys\nfrom prefloop.cli import app\n"
        "try:\n    app(['--help'])\nexcept SystemExit as end:\n    assert not end.code\n"
        "heavy = sorted({'torch', 'transformers', 'numpy', 'matplotlib', 'datasets', 'pyarrow', 'accelerate'} & set(sys.modules))\n"
        "sys.exit(f'brought {heavy}' if heavy else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "pretrain" in done.stdout


def test_the_version_is_the_packages():
    assert prefloop("--version").out.strip() == package.__version__


# ------------------------------------------------------------------------------------------------------ commands


def test_a_run_typed_is_the_run_called_from_python(tmp_path):
    settings = sft_settings(toy(), batch=200)
    outcome = prefloop("sft", *items(settings), "--out", tmp_path / "typed", "--device", "cpu")
    assert outcome.code == 0, outcome.err
    called = package.sft(out=tmp_path / "called", device="cpu", **settings)
    assert saved(tmp_path / "typed") == saved(tmp_path / "called")
    assert called.model == str(tmp_path / "called" / "model")
    assert called.summary == json.loads((tmp_path / "called" / "summary.json").read_text())
    assert "sft: 2/2" in outcome.err and outcome.out == ""


def test_settings_come_from_a_file_and_items_win(tmp_path):
    lines = "".join(f"{key}: {json.dumps(value)}\n" for key, value in sft_settings(toy(), batch=100).items())
    (tmp_path / "sft.yaml").write_text(lines)
    outcome = prefloop("sft", tmp_path / "sft.yaml", "batch=400", "--out", tmp_path / "out", "--device", "cpu")
    assert outcome.code == 0, outcome.err
    assert "sft: 1/1" in outcome.err
    assert "batch: 400" in (tmp_path / "out" / "config.yaml").read_text()


def dry(command: str, tmp_path: Path) -> list[str]:
    folder = toy()
    sft, reward = folder / "sft", folder / "reward" / "model"
    prompts, model = f"prompts={folder / 'prompts.jsonl'}", f"model={folder / 'sft' / 'model'}"
    gold = "gold=python:tests.methods.toy:gold"
    return {
        "pretrain": [f"text={folder / 'corpus.txt'}", "width=32", "layers=1", "heads=2", "vocabulary=300", "block=16"],
        "sft": items(sft_settings(folder)),
        "reward": items(reward_settings(folder)),
        "ppo": items(ppo_settings(folder)),
        "select": [PLAIN, f"run={sft}", f"reward={reward}", prompts],
        "sample": [PLAIN, model, prompts],
        "score": [PLAIN, f"reward={reward}", f"data={folder / 'rankings.jsonl'}"],
        "evaluate": [PLAIN, f"policies.sft={sft / 'model'}", prompts, gold],
    }[command]


@pytest.mark.parametrize("command", ["pretrain", "sft", "reward", "ppo", "select", "sample", "score", "evaluate"])
def test_a_dry_run_counts_and_estimates_and_leaves_nothing_behind(tmp_path, command):
    outcome = prefloop(command, *dry(command, tmp_path), "--dry-run", "--device", "cpu", "--out", tmp_path / "out")
    assert outcome.code == 0, outcome.err
    assert "nothing was trained (--dry-run)" in outcome.err
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_of_ppo_counts_its_updates_and_both_networks(tmp_path):
    words = [*dry("ppo", tmp_path), "rounds=3", "epochs=2", "k=5", "minibatch=16", "--dry-run", "--out", tmp_path / "out"]
    said = prefloop("ppo", *words, "--device", "cpu").err
    assert f"{3 * 2 * 3} steps of 16 rows" in said  # 40 answers a round
    shared = prefloop("ppo", *words, "critic=trunk", "--device", "cpu").err
    own, without = (float(re.search(r"gradients +([\d.]+) MiB", text)[1]) for text in (said, shared))  # type: ignore[index]
    assert 1.8 * without < own < 2.2 * without  # the critic has a value head in place of the language model's


def test_sampled_answers_can_be_ranked_scored_and_learned_from(tmp_path):
    folder, cpu = toy(), ("--device", "cpu")
    words = [PLAIN, f"model={folder / 'sft' / 'model'}", f"prompts={folder / 'prompts.jsonl'}", "k=3", "max_new_tokens=4"]
    assert prefloop("sample", *words, "--out", tmp_path / "answers", *cpu).code == 0
    answers = tmp_path / "answers" / "completions.jsonl"
    assert all(len(group.completions) <= 3 for group in read_groups(answers, allow_unranked=True).records)

    taste = "reward=python:tests.methods.toy:gold"
    outcome = prefloop("rank", taste, f"data={answers}", "noise=0", "--out", tmp_path / "ranked", *cpu)
    assert outcome.code == 0, outcome.err
    outcome = prefloop("score", taste, f"data={tmp_path / 'ranked' / 'rankings.jsonl'}", "--out", tmp_path / "scores", *cpu)
    assert outcome.code == 0, outcome.err
    assert json.loads((tmp_path / "scores" / "summary.json").read_text())["pair_accuracy"]["mean"] == 1.0


def test_world_and_data_commands_write_what_they_say(tmp_path):
    made = prefloop("world", "prompts", "n=4", "split=held_out", "--out", tmp_path / "p.jsonl")
    assert made.out == f"wrote 4 held_out prompts to {tmp_path / 'p.jsonl'}\n"
    assert len(read_prompts(tmp_path / "p.jsonl").records) == 4
    assert prefloop("world", "corpus", "lines=5", "--out", tmp_path / "c.txt").out.startswith("wrote 5 documents to")

    checked = prefloop("data", "check", toy() / "rankings.jsonl")
    assert checked.code == 0 and "200 rows read as kway, giving 200 groups" in checked.out
    outcome = prefloop("data", "convert", toy() / "rankings.jsonl", tmp_path / "pairs.jsonl", "--to", "trl")
    assert outcome.code == 0, outcome.err
    pairs = read_groups(tmp_path / "pairs.jsonl").records
    assert len(pairs) == sum(len(g.rankings[0].pairs()) for g in read_groups(toy() / "rankings.jsonl").records)


def test_the_world_is_annotated_from_the_command_line(tmp_path):
    answers = tmp_path / "a.jsonl"
    prompt = read_prompts_of_the_world(tmp_path)[0]
    answers.write_text(json.dumps({"prompt": prompt, "completions": ["A dog ran.", "no", "The cat sat."]}) + "\n")
    outcome = prefloop("world", "annotate", f"data={answers}", "--out", tmp_path / "out")
    assert outcome.code == 0, outcome.err
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["groups"] == 1


def read_prompts_of_the_world(tmp_path: Path) -> list[str]:
    prefloop("world", "prompts", "n=2", "--out", tmp_path / "p.jsonl")
    return [prompt.text for prompt in read_prompts(tmp_path / "p.jsonl").records]


def test_a_report_is_made_of_finished_runs(tmp_path):
    outcome = prefloop("report", toy() / "sft", toy() / "reward", "--out", tmp_path / "page.html")
    assert outcome.code == 0, outcome.err
    assert outcome.out == f"wrote {tmp_path / 'page.html'}\n"
    assert "<html" in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_a_report_makes_the_folder_it_is_put_into(tmp_path):
    outcome = prefloop("report", toy() / "sft", "--out", tmp_path / "no" / "such" / "page.html")
    assert outcome.code == 0, outcome.err
    assert (tmp_path / "no" / "such" / "page.html").is_file()


def test_a_report_on_a_run_that_is_not_finished_says_so(tmp_path):
    (tmp_path / "run").mkdir()
    for name in ("config.yaml", "meta.json", "metrics.jsonl"):
        (tmp_path / "run" / name).write_bytes((toy() / "sft" / name).read_bytes())
    outcome = prefloop("report", tmp_path / "run", "--out", tmp_path / "page.html")
    assert outcome.code == 0, outcome.err
    assert "not finished" in (tmp_path / "page.html").read_text(encoding="utf-8")


# ------------------------------------------------------------------------------------------------------ how it ends


class Trouble(Config):
    """Settings of a command that fails."""

    seed: int = 0


@pytest.fixture
def failing(monkeypatch):
    """Makes ``prefloop sft`` fail in a way of one's choice."""

    def fail_with(error: BaseException) -> None:
        def main(config, options):
            raise error

        monkeypatch.setattr(study, "config_class", lambda command: (Trouble, main))

    return fail_with


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (OSError(28, "No space left on device", "runs/x/scores.jsonl"), 1, "the disk is full (runs/x/scores.jsonl)"),
        (
            NotADirectoryError(20, "Not a directory", "notes/run"),
            2,
            "notes/run cannot be used: Not a directory\n  give another place",
        ),
        (ConnectionRefusedError(111, "Connection refused"), 1, "this is not a failure prefloop knows"),
        (ModuleNotFoundError("No module named 'peft'", name="peft"), 2, "the package 'peft' is not installed\n  pip install"),
        (ZeroDivisionError("division by zero"), 1, "ZeroDivisionError: division by zero\n  this is not a failure prefloop knows"),
    ],
)
def test_other_failures_are_one_message_too(failing, error, code, told):
    failing(error)
    outcome = prefloop("sft", "seed=1")
    assert outcome.code == code
    assert told in outcome.err
    assert "Traceback" not in outcome.err and outcome.out == ""


@pytest.mark.parametrize("module", ["typer", "pydantic_core", "yaml", "torch"])
def test_ctrl_c_while_it_is_still_being_imported_is_no_traceback(module):
    program = (
        "import signal, sys\n"
        "class Meanwhile:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name == {module!r}:\n"
        "            signal.raise_signal(signal.SIGINT)\n"
        "sys.meta_path.insert(0, Meanwhile())\n"
        "from prefloop.__main__ import main\n"
        "sys.argv[1:] = ['sft', 'model=x', 'data=y']\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr, done.stdout) == (130, "interrupted\n", "")


def test_the_command_begins_where_an_interruption_is_heard():
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts == {"prefloop": "prefloop.__main__:main"}
    done = subprocess.run([sys.executable, "-m", "prefloop", "--version"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, f"{package.__version__}\n")


def test_debug_shows_where_it_happened(failing, monkeypatch):
    failing(ZeroDivisionError("division by zero"))
    assert "Traceback" in prefloop("sft", "seed=1", "--debug").err
    monkeypatch.setenv("PREFLOOP_DEBUG", "1")
    assert "Traceback" in prefloop("sft", "seed=1").err


def test_ctrl_c_in_a_run_saves_and_exits_130_and_resume_goes_on(tmp_path, monkeypatch):
    settings = items(sft_settings(toy(), batch=100))
    whole = prefloop("sft", *settings, "--out", tmp_path / "whole", "--device", "cpu")
    assert whole.code == 0, whole.err

    def reach(point: str) -> None:
        if point == "metrics logged" and len((tmp_path / "cut" / "metrics.jsonl").read_text().splitlines()) == 2:
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "reach", reach)
        outcome = prefloop("sft", *settings, "--out", tmp_path / "cut", "--device", "cpu")
    assert outcome.code == 130
    assert "interrupted after step 2 of 4; saved up to step 2; run the same command with --resume to go on" in outcome.err
    assert prefloop("sft", *settings, "--out", tmp_path / "cut", "--device", "cpu", "--resume").code == 0
    assert saved(tmp_path / "cut") == saved(tmp_path / "whole")


def test_a_finished_run_says_so_and_stays_as_it_is(tmp_path):
    settings = items(sft_settings(toy(), batch=400))
    for resume in ([], ["--resume"]):
        outcome = prefloop("sft", *settings, "--out", tmp_path / "out", "--device", "cpu", *resume)
        assert outcome.code == 0, outcome.err
    assert "is finished, there is nothing left to do" in outcome.err


def test_a_file_is_converted_with_its_columns_renamed_and_never_over_another(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    row = {"question": "why?", "good": "because", "bad": "no"}
    Path("theirs.jsonl").write_text(json.dumps(row) + "\n")
    renamed = ("mapping.prompt=question", "mapping.chosen=good", "mapping.rejected=bad")
    outcome = prefloop("data", "convert", "theirs.jsonl", "ours.jsonl", *renamed)
    assert outcome.code == 0 and "written to ours.jsonl" in outcome.out
    (group,) = read_groups("ours.jsonl").records
    assert [completion.text for completion in group.completions] == ["because", "no"]
    written = Path("ours.jsonl").read_bytes()
    again = prefloop("data", "convert", "theirs.jsonl", "ours.jsonl", *renamed, "--to", "prompts")
    assert again.code == 2 and "ours.jsonl is there already" in again.err
    assert Path("ours.jsonl").read_bytes() == written
    assert prefloop("data", "convert", "theirs.jsonl", "ours.jsonl", *renamed, "--to", "prompts", "--force").code == 0
    assert Path("ours.jsonl").read_bytes() != written
