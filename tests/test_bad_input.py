"""What people get wrong, and what they are told: one message that names the thing, what was found and what to do next; exit 2 for
what they can mend, 1 for what failed; no traceback; nothing lost that was written before."""

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from io import FileIO
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from prefloop.engine import checkpoint
from prefloop.engine.lock import release_lock, take_lock
from prefloop.engine.run import Run
from prefloop.models import load
from prefloop.models.load import new_reward, save_model
from prefloop.models.tokenizer import new_llama
from tests.command_line import prefloop
from tests.methods.toy import (
    history,
    ppo_settings,
    preference_settings,
    reinforce_settings,
    reward_settings,
    run_sft,
    saved,
    sft_settings,
    toy,
)
from tests.models import tiny

ROOT = Path(__file__).parents[1]
CPU = ("--device", "cpu")


class Case(NamedTuple):
    """A mistake: the words somebody typed, after the files were made; how it ends and what has to be in the message."""

    name: str
    typed: Callable[[Path], list[str]]
    code: int
    told: tuple[str, ...]


def words(command: str, folder: Path, settings: dict[str, Any]) -> list[str]:
    given = [f"{key}={json.dumps(str(value) if isinstance(value, Path) else value)}" for key, value in settings.items()]
    return [command, *given, "--out", str(folder / "out"), *CPU]


FILL: dict[str, Callable[..., dict[str, Any]]] = {
    "sft": sft_settings,
    "reward": reward_settings,
    "ppo": ppo_settings,
    **dict.fromkeys(("dpo", "kto", "rrhf"), preference_settings),
}


def method(command: str, **settings: Any) -> Callable[[Path], list[str]]:
    """A run that would go well, but for these settings; a name in angle brackets is a folder of the toy."""

    def make(folder: Path) -> list[str]:
        named = {key: toy() / value[1:-1] if str(value).startswith("<") else value for key, value in settings.items()}
        return words(command, folder, FILL[command](toy(), **named))

    return make


def sft(**settings: Any) -> Callable[[Path], list[str]]:
    return method("sft", **settings)


def reward(**settings: Any) -> Callable[[Path], list[str]]:
    return method("reward", **settings)


def ppo(**settings: Any) -> Callable[[Path], list[str]]:
    return method("ppo", **settings)


def typed(*given: str) -> Callable[[Path], list[str]]:
    return lambda folder: [*given, "--out", str(folder / "out")]


# ------------------------------------------------------------------------------------------------------ broken files


def with_data(command: str, *lines: str, name: str = "data.jsonl", **settings: Any) -> Callable[[Path], list[str]]:
    """A file of these lines as the data of a command (the prompts of ppo)."""

    def make(folder: Path) -> list[str]:
        (folder / name).write_text("".join(line + "\n" for line in lines), encoding="utf-8")
        return words(
            command, folder, FILL[command](toy(), **{"prompts" if command == "ppo" else "data": folder / name}, **settings)
        )

    return make


GOOD = json.dumps({"prompt": "a b", "completion": "a b"})


def kway(tiers: list[list[str]], shown: str = "xyz") -> str:
    """A line as the labelling page exports it, with answers called x, y and z."""
    prompt = {"id": "p", "messages": [{"role": "user", "content": "a b"}]}
    said = [
        {"id": name, "prompt_id": "p", "content": {"type": "text", "text": text}}
        for name, text in zip("xyz", ("a b", "b", "c"), strict=True)
    ]
    ranking = {"prompt_id": "p", "tiers": tiers, "shown": list(shown), "annotator": "ada"}
    return json.dumps({"format_version": 1, "prompt": prompt, "completions": said, "rankings": [ranking]})


def with_model(change: Callable[[Path], Any]) -> Callable[[Path], list[str]]:
    """A copy of a good model folder, spoiled."""

    def make(folder: Path) -> list[str]:
        shutil.copytree(toy() / "base", folder / "model")
        change(folder / "model")
        return words("sft", folder, sft_settings(toy(), model=folder / "model"))

    return make


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:1000])


def without_end(model: Path) -> None:
    settings = json.loads((model / "tokenizer_config.json").read_text())
    del settings["eos_token"]
    (model / "tokenizer_config.json").write_text(json.dumps(settings))


def only_words(folder: Path) -> list[str]:
    """A model whose vocabulary has no token to spare for padding."""
    backend = Tokenizer(
        WordLevel({token: index for index, token in enumerate(("<eos>", "a", "b", "c", "d", "!"))}, unk_token="d")
    )
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<eos>", clean_up_tokenization_spaces=False)
    model = new_llama(tokenizer, width=16, layers=1, heads=2, kv_heads=2, context=32, seed=0)
    save_model(model, tokenizer, folder / "model", card={})
    return words("reward", folder, reward_settings(toy(), model=folder / "model"))


def another_reward(folder: Path) -> list[str]:
    save_model(tiny.policy(), tiny.tokenizer(), folder / "policy", card={})
    save_model(new_reward(folder / "policy", seed=0), tiny.tokenizer(), folder / "other", card={})
    return words("ppo", folder, ppo_settings(toy(), reward=folder / "other"))


def a_study(content: str) -> Callable[[Path], list[str]]:
    def make(folder: Path) -> list[str]:
        (folder / "study.yaml").write_text(content)
        return ["run", str(folder / "study.yaml"), "--out", str(folder / "out")]

    return make


def a_finished_run(folder: Path, **settings: Any) -> list[str]:
    run_sft(folder / "out", batch=400)
    return words("sft", folder, sft_settings(toy(), batch=400, **settings))


def with_files(*names: str, command: Callable[[Path], list[str]]) -> Callable[[Path], list[str]]:
    def make(folder: Path) -> list[str]:
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text("seeds: 1\n")
        return [word.replace("HERE", str(folder)) for word in command(folder)]

    return make


def twice(folder: Path) -> list[str]:
    (folder / "twice.yaml").write_text("model: x\ndata: y\nmodel: z\n")
    return ["sft", str(folder / "twice.yaml"), "--out", str(folder / "out")]


def a_run_that_began_nowhere(folder: Path) -> list[str]:
    given = a_finished_run(folder)
    (folder / "out" / "meta.json").write_text('{"format_version": 1}')
    return [*given, "--resume"]


def one_answer_each(of: Callable[[Path], tuple[str, dict[str, Any]]]) -> Callable[[Path], list[str]]:
    """A command on prompts that have an answer each."""

    def make(folder: Path) -> list[str]:
        groups = [
            {
                "format_version": 1,
                "prompt": {"id": name, "messages": [{"role": "user", "content": name}]},
                "completions": [{"id": f"{name}1", "prompt_id": name, "content": {"type": "text", "text": "a"}}],
            }
            for name in ("a b", "c d")
        ]
        (folder / "single.jsonl").write_text("".join(json.dumps(group) + "\n" for group in groups), encoding="utf-8")
        command, settings = of(folder / "single.jsonl")
        return words(command, folder, settings)

    return make


def judged_by(folder: Path, judge: str) -> list[str]:
    """Scores of a judge of which this is the file."""
    (folder / "judge.yaml").write_text(judge, encoding="utf-8")
    return words("score", folder, {"reward": f"judge:{folder / 'judge.yaml'}", "data": toy() / "rankings.jsonl"})


def scoring(name: str) -> Callable[[Path], list[str]]:
    return lambda folder: words(
        "score", folder, {"reward": f"python:tests.evaluate.scorers:{name}", "data": toy() / "rankings.jsonl"}
    )


CASES = [
    # settings
    Case("unknown key", sft(modle="x"), 2, ("unknown key 'modle'; did you mean 'model'?",)),
    Case("unknown nested key", sft(optim={"lrr": 1}), 2, ("unknown key 'optim.lrr'; did you mean 'optim.lr'?",)),
    Case("wrong type", sft(epochs="three"), 2, ("epochs: input should be a valid integer", "got 'three'")),
    Case("out of range", ppo(clip=1.5), 2, ("clip: input should be less than 1, got 1.5",)),
    Case("no such choice", ppo(critic="judge"), 2, ("critic: input should be 'reward' or 'policy', got 'judge'",)),
    Case("a setting that is needed", typed("sft", "epochs=1"), 2, ("model is needed: folder or hub id", "data is needed: ")),
    Case("no settings", typed("sft"), 2, ("prefloop sft needs a YAML file or key=value settings", "docs/cli.md")),
    Case("ptx without text", ppo(ptx=0.5), 2, ("ptx and text go together, got ptx = 0.5 and text = ''",)),
    Case("gold as reward", ppo(reward="world:en"), 2, ("reward = 'world:en' is the world's gold", "measure.gold=world:en")),
    Case("no such device", typed("sft", "model=x", "data=y", "--device", "tpu"), 2, ("this machine has no device 'tpu'", "it has: auto, cpu", "prefloop doctor")),
    Case("no such configuration file", with_files("train.yaml", command=typed("sft", "HERE/trian.yaml")), 2, ("there is no configuration file", "nearest: ", "train.yaml")),
    Case("two configuration files", with_files("a.yaml", "b.yaml", command=typed("sft", "HERE/a.yaml", "HERE/b.yaml")), 2, ("one configuration file at a time, got 2", "overrides are written key=value")),
    Case("a file that is no YAML", with_files("x/a.yaml", command=typed("sft", "HERE/x")), 2, ("cannot be read as a configuration file",)),
    Case("gold to choose by", lambda folder: words("select", folder, {"run": toy() / "sft", "reward": "world:zh", "prompts": toy() / "prompts.jsonl"}), 2, ("reward = 'world:zh' is the world's gold", "choose by a reward model")),
    Case("an empty name", sft(model=""), 2, ("model: must not be empty",)),
    Case("true for a number", typed("sft", "model=x", "data=y", "epochs=true"), 2, ("epochs: true and false are no numbers, got True",)),
    Case("an infinite rate", typed("sft", "model=x", "data=y", "optim.lr=.inf"), 2, ("optim.lr: input should be a finite number, got inf",)),
    Case("a decay beyond one", typed("sft", "model=x", "data=y", "optim.betas=[0.9, 2]"), 2, ("optim.betas: each decay has to be at least 0 and less than 1",)),
    Case("a key given twice", twice, 2, ("twice.yaml is not valid YAML", "line 3: 'model' has a value already, in line 1")),
    # data
    Case("missing file", sft(data="nowhere.jsonl"), 2, ("nowhere.jsonl",)),
    Case("empty set", with_data("sft"), 2, ("data.jsonl is empty: it holds no row", "give a file with one record a line")),
    Case("wrong columns", with_data("sft", '{"question": 1, "colour": 2}'), 2, ("data.jsonl has columns of no known format: question (a number), colour (a number)", "prompt-completion")),
    Case("no JSON at all", with_data("sft", "hello", "there"), 2, ("no row of", "data.jsonl:1")),
    Case("a torn line", with_data("sft", *[GOOD] * 5, GOOD[:20]), 2, ("data.jsonl:6", "max_dropped")),
    Case("too many dropped", with_data("sft", *[GOOD] * 9, '{"prompt": "a b", "completion": 7}'), 2, ("10.0% of the data cannot be used as it is, and at most 5.0% may be lost", "data.jsonl:10", "max_dropped")),
    Case("placed twice", with_data("reward", kway([["x"], ["y", "x"]])), 2, ("places x twice",)),
    Case("placed but never shown", with_data("reward", kway([["x"], ["z"]], shown="xy")), 2, ("places z, never shown",)),
    Case("nothing but ties", with_data("reward", kway([["x", "y", "z"]])), 2, ("has two answers in different places, so there is nothing to learn", "see prefloop data check")),
    Case("too few prompts to hold any out", reward(held_out=0.001), 2, ("has 8 different prompts, too few to hold out", "validation=")),
    Case("longer than the context", with_data("sft", json.dumps({"prompt": "a b", "completion": "a " * 40})), 2, ("1 of 1 rows of", "has 43 tokens, the model reads 32", "max_completion=")),
    Case("a prompt longer than the context", with_data("ppo", json.dumps({"prompt": "a " * 30})), 2, ("1 of 1 prompts are too long: the model reads 32 tokens, 4 of them for the answer", "max_prompt=28 or less")),
    Case("a prompt longer than allowed", with_data("ppo", json.dumps({"prompt": "a " * 30}), max_prompt=10), 2, ("max_dropped",)),
    Case("no prompt left", with_data("ppo", json.dumps({"prompt": "a " * 30}), max_prompt=10, max_dropped=1.0), 2, ("no prompt of", "is short enough to practise on", "raise max_prompt= (10)")),
    Case("no demonstration left", with_data("sft", json.dumps({"prompt": "a " * 30, "completion": "a"}), max_prompt=10, max_dropped=1.0), 2, ("no demonstration of", "is left to learn from")),
    Case("pretraining text longer than the context", ppo(ptx=0.1, ptx_block=64, text="<corpus.txt>"), 2, ("ptx_block = 64", "the model reads 32")),
    Case("no such text", ppo(ptx=0.1, text="nowhere.txt"), 2, ("nowhere.txt",)),
    # models
    Case("no such model", with_files("modle/x", command=lambda folder: words("sft", folder, sft_settings(toy(), model=folder / "model"))), 2, ("there is no model folder", "nearest: ", "modle")),
    Case("no such model on the hub", sft(model="nobody/nothing"), 2, ("there is no model nobody/nothing", "an id the hub knows")),
    Case("a model without weights", with_model(lambda model: (model / "model.safetensors").unlink()), 2, ("has no weights (*.safetensors)", "found: README.md, config.json", "copy model.safetensors beside config.json")),
    Case("weights that could hold code", with_model(lambda model: (model / "model.safetensors").rename(model / "pytorch_model.bin")), 2, ("pytorch_model.bin cannot be read safely", "save_pretrained, which writes safetensors")),
    Case("damaged weights", with_model(lambda model: cut(model / "model.safetensors")), 2, ("cannot be read", "a damaged copy has to be made again")),
    Case("a model without config", with_model(lambda model: (model / "config.json").unlink()), 2, ("it has no config.json", "found: ")),
    Case("a model without tokenizer", with_model(lambda model: (model / "tokenizer.json").unlink()), 2, ("has no tokenizer", "tokenizer.json")),
    Case("a tokenizer without end", with_model(without_end), 2, ("has no end-of-sequence token", "set eos_token in tokenizer_config.json")),
    Case("a tokenizer that cannot pad", only_words, 2, ("no token that could pad but EOS", "add_special_tokens")),
    Case("a reward model with another tokenizer", another_reward, 2, ("critic=reward needs", "to share a tokenizer, and they do not", "use critic=policy or share=trunk")),
    Case("a policy for a reward model", ppo(reward="<base>"), 2, ("lacks weights a reward model needs: score.weight", "train a reward model from it with prefloop reward")),
    Case("a reward model for a policy", ppo(model="<reward/model>"), 2, ("is a reward model (LlamaForSequenceClassification), a language model is needed here",)),
    Case("no chat template", sft(template="chat"), 2, ("has no chat template", "use template=dialogue or plain")),
    Case("no such lexicon", ppo(reward="lexicon:nowhere.csv", critic="policy"), 2, ("the lexicon nowhere.csv cannot be read", "columns token and mean")),
    Case("no such function", ppo(reward="python:tests.methods.toy:silver", critic="policy"), 2, ("python:tests.methods.toy:silver cannot be found", "PYTHONPATH")),
    Case("a reward without weights for a critic", ppo(reward="python:tests.methods.toy:gold"), 2, ("critic=reward starts from a reward model", "use critic=policy or share=trunk")),
    # folders
    Case("a folder with a run", a_finished_run, 2, ("holds a finished run", "to run again, with these settings or others, choose another --out")),
    Case("other settings", lambda folder: [*a_finished_run(folder, seed=5), "--resume"], 2, ("was started with other settings", "seed: 0 when it was started, 5 now", "choose another --out")),
    Case("another method", lambda folder: a_finished_run(folder) and [*reward()(folder), "--resume"], 2, ("holds a run of sft, not of reward", "choose another --out")),
    Case("somebody's folder", with_files("out/thesis.txt", command=sft()), 2, ("is not empty and holds no run: thesis.txt", "choose another --out")),
    Case("a file for a folder", with_files("out", command=sft()), 2, ("is a file; --out names a folder",)),
    Case("a folder below a file", with_files("out", command=lambda folder: [*sft()(folder)[:-4], "--out", str(folder / "out" / "run"), *CPU]), 2, ("cannot be written to: Not a directory", "choose another --out")),
    Case("a folder with a long name", lambda folder: [*sft()(folder)[:-4], "--out", str(folder / ("x" * 300)), *CPU], 2, ("cannot be written to: File name too long", "choose another --out")),
    Case("prompts below a file", with_files("out", command=lambda folder: ["prompts", f"data={toy() / 'prompts.jsonl'}", "--out", str(folder / "out" / "run")]), 2, ("prompts.jsonl cannot be written: Not a directory",)),
    Case("a study below a file", with_files("out", command=lambda folder: [*a_study("name: x\nstages: {a: {do: world}}\n")(folder)[:-1], str(folder / "out" / "run")]), 2, ("cannot be written to: Not a directory",)),
    Case("a run that began nowhere", a_run_that_began_nowhere, 2, ("meta.json does not say where it began",)),
    Case("no SFT run to select from", lambda folder: words("select", folder, {"run": str(folder), "reward": "x", "prompts": str(toy() / "prompts.jsonl")}), 2, ("holds no epochs/ folder",)),
    Case("no run to report", typed("report", "nowhere"), 2, ("nowhere",)),
    Case("no adapter to merge", lambda folder: ["merge", str(toy() / "base"), "--out", str(folder / "out")], 2, ("holds a whole model, no adapter", "use the folder as it is")),
    Case("no such data to check", lambda folder: ["data", "check", str(folder / "nowhere.jsonl")], 2, ("nowhere.jsonl",)),
    # studies
    Case("a stage that is not there", a_study("name: x\nstages: {a: {do: sft, model: '${base}/model'}}\n"), 2, ("stage a names base, which does not come before it",)),
    Case("a command that is not there", a_study("name: x\nstages: {a: {do: fly}}\n"), 2, ("do: 'fly' is not a command", "known: pretrain")),
    Case("a seed counted twice", a_study("name: x\nstages: {a: {do: world}}\nseeds: [0, 0]\n"), 2, ("seeds names 0 more than once",)),
    # answers, labels and scores that teach nothing
    Case("one answer to each prompt", one_answer_each(lambda file: ("rank", {"reward": "python:tests.evaluate.scorers:words", "data": file})), 2, ("has two different answers, so there is nothing to put in order", "prefloop sample k=4")),
    Case("one answer to each prompt, for rrhf", one_answer_each(lambda file: ("rrhf", preference_settings(toy(), data=file))), 2, ("gives no groups", "answers that nobody ranked: 2")),
    Case("one answer to each prompt, for dpo", one_answer_each(lambda file: ("dpo", preference_settings(toy(), data=file))), 2, ("gives no groups", "answers that nobody ranked: 2")),
    Case("one answer to each prompt, for a reward", one_answer_each(lambda file: ("reward", reward_settings(toy(), data=file))), 2, ("gives no groups", "answers that nobody ranked: 2")),
    Case("two answers of the same words", with_data("dpo", json.dumps({"prompt": "a b", "chosen": "a", "rejected": "a"})), 2, ("gives no groups", "answers that are all the same text: 1")),
    Case("answers that are all worth the same, for rrhf", with_data("rrhf", kway([["x", "y", "z"]]), held_out=0), 2, ("has two answers in different places, so there is nothing to learn",)),
    Case("answers that are all worth the same, for dpo", with_data("dpo", kway([["x", "y", "z"]]), held_out=0), 2, ("has two answers in different places, so there is nothing to learn",)),
    Case("answers that are all worth the same, for kto", with_data("kto", kway([["x", "y", "z"]]), held_out=0), 2, ("0 good and 0 bad answers, and needs both",)),
    Case("thumbs that all point up", with_data("kto", *[json.dumps({"prompt": p, "completion": "a", "label": True}) for p in ("a b", "c d")]), 2, ("2 good and 0 bad answers, and needs both", "prefloop sft")),
    Case("a thumb that points nowhere", with_data("kto", json.dumps({"prompt": "a b", "completion": "a", "label": "maybe"}), json.dumps({"prompt": "a b", "completion": "b", "label": True})), 2, ("a label other than true or false",)),
    Case("a group of one", lambda folder: words("reinforce", folder, reinforce_settings(toy(), k=1)), 2, ("k = 1: one answer has nothing to be compared with",)),
    Case("gold in a sum", lambda folder: words("reinforce", folder, reinforce_settings(toy(), reward="python:tests.methods.toy:gold + 0.1*world:en")), 2, ("is the world's gold, which no training may see",)),
    Case("gold in a sum, for ppo", ppo(reward="python:tests.methods.toy:gold + 0.1*world:en"), 2, ("is the world's gold, which no training may see",)),
    Case("a reward that is no number", lambda folder: words("reinforce", folder, reinforce_settings(toy(), reward="0.5*python:tests.methods.toy:gold + python:tests.evaluate.scorers:nothing")), 1, ("python:tests.evaluate.scorers:nothing gave 32 of 32 completions no finite number",)),
    Case("candidates scored by no number", lambda folder: words("rrhf", folder, {**preference_settings(toy()), "data": "", "candidates": {"policy": "D", "prompts": str(toy() / "prompts.jsonl"), "reward": "python:tests.evaluate.scorers:nothing", "max_new_tokens": 3}}), 1, ("completions no finite number",)),
    Case("a judge that is not there", lambda folder: judged_by(folder, "url: http://127.0.0.1:9/v1\nmodel: m\nattempts: 1\n"), 1, ("http://127.0.0.1:9/v1 does not answer",)),
    Case("a judge without an address", lambda folder: judged_by(folder, "model: m\n"), 2, ("url", "judge.yaml")),
    Case("a term without a scorer", lambda folder: words("score", folder, {"reward": "0.5* + a", "data": toy() / "rankings.jsonl"}), 2, ("has a term without a scorer", "WEIGHT*SCORER")),
    # what failed although it was well meant
    Case("a score that is no number", scoring("nothing"), 1, ("python:tests.evaluate.scorers:nothing gave 800 of 800 completions no finite number", "prompt ", "one finite number per completion")),
    Case("a scorer that fails", scoring("fails"), 1, ("python:tests.evaluate.scorers:fails failed on 800 completions, LookupError: no such word", "--debug shows where it happened")),
    Case("a rate that breaks the model", sft(batch=50, optim={"lr": 1e30, "grad_clip": 0.0}), 1, ("is not a finite number", "lower lr")),
]  # fmt: skip


def assert_told(outcome, code: int, told: tuple[str, ...]) -> None:
    assert "Traceback" not in outcome.err, outcome.err
    assert outcome.code == code, outcome.err
    assert outcome.err.count("prefloop: ") == 1, outcome.err
    message = outcome.err[outcome.err.index("prefloop: ") :]
    for words in told:
        assert words in message, message


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_a_mistake_is_told_in_one_message(tmp_path, case):
    before = snapshot(tmp_path)
    given = case.typed(tmp_path)
    made = snapshot(tmp_path)
    outcome = prefloop(*given)
    assert_told(outcome, case.code, case.told)
    assert {path: content for path, content in snapshot(tmp_path).items() if path in made} == made  # nothing was touched
    assert before == {}


def snapshot(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != "lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


# ------------------------------------------------------------------------------------------------------ with and without a traceback


def test_with_debug_a_mistake_has_its_traceback():
    outcome = prefloop("sft", "modle=x", "--debug")
    assert outcome.code == 1
    assert "Traceback" in outcome.err and "ConfigError: the command line cannot be used as written" in outcome.err


def as_typed(*given: str) -> subprocess.CompletedProcess[str]:
    """What a shell would see."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-m", "prefloop.cli", *given], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("given", "code", "told"),
    [
        (["run", "nowhere.yaml"], 2, "there is no configuration file nowhere.yaml"),
        (["world", "prompts", "n=0"], 2, "n: input should be greater than or equal to 1, got 0"),
        (["data", "check", "nowhere.jsonl"], 2, "nowhere.jsonl"),
    ],
)
def test_a_shell_sees_the_message_the_code_and_nothing_else(given, code, told):
    done = as_typed(*given)
    assert done.returncode == code
    assert done.stderr.startswith("prefloop: ") and told in done.stderr
    assert "Traceback" not in done.stderr and done.stdout == ""


# ------------------------------------------------------------------------------------------------------ broken off in the middle

FULL = OSError(errno.ENOSPC, "No space left on device")


def full_at_metrics(monkeypatch) -> None:
    """The third line of metrics.jsonl no longer fits, and half of it is written."""
    lines = []

    class Filling(FileIO):
        def write(self, data, plain=FileIO.write):
            lines.append(data)
            if len(lines) == 3:
                plain(self, bytes(data)[:20])
                raise FULL
            return plain(self, data)

    monkeypatch.setattr(
        Path,
        "open",
        lambda path, mode="r", *rest, plain=Path.open, **more: (
            Filling(path, "ab") if path.name == "metrics.jsonl" and mode == "ab" else plain(path, mode, *rest, **more)
        ),
    )


def full_at_checkpoint(monkeypatch) -> None:
    """The second checkpoint no longer fits."""
    reached = []

    def reach(point: str) -> None:
        reached.append(point)
        if point == "checkpoint parts written" and reached.count(point) == 2:
            raise FULL

    monkeypatch.setattr(checkpoint, "reach", reach)


def full_at_model(monkeypatch) -> None:
    """The model of the last epoch no longer fits."""

    def write(model, tokenizer, folder, *rest, plain=load.write_folder):
        plain(model, tokenizer, folder, *rest)
        if folder.name == ".model.partial":
            raise FULL

    monkeypatch.setattr(load, "write_folder", write)


def full_at_summary(monkeypatch) -> None:
    def write(run, name, value, plain=Run.write_json):
        if name == "summary.json":
            raise FULL
        plain(run, name, value)

    monkeypatch.setattr(Run, "write_json", write)


@pytest.mark.parametrize(
    ("fills", "told"),
    [
        (full_at_metrics, ("metrics.jsonl could not be written: No space left on device", "with --resume")),
        (full_at_checkpoint, ("the checkpoint of step 4 could not be written", "step-00000002, is whole", "a checkpoint takes")),
        (full_at_model, ("the model could not be written to", "No space left on device")),
        (full_at_summary, ("the disk is full", "what was complete before is intact")),
    ],
    ids=["metrics", "checkpoint", "model", "summary"],
)
def test_a_full_disk_ends_the_run_with_what_is_left_and_resuming_finishes_it(tmp_path, monkeypatch, fills, told):
    settings = sft_settings(toy(), batch=100, epochs=2, save_every=2)
    run_sft(tmp_path / "whole", **{key: settings[key] for key in ("batch", "epochs", "save_every")})
    with monkeypatch.context() as patch:
        fills(patch)
        outcome = prefloop(*words("sft", tmp_path, settings))
    assert_told(outcome, 1, told)
    resumed = prefloop(*words("sft", tmp_path, settings), "--resume")
    assert resumed.code == 0, resumed.err
    assert history(tmp_path / "out") == history(tmp_path / "whole")
    assert saved(tmp_path / "out") == saved(tmp_path / "whole")


def test_a_run_that_somebody_else_is_writing_is_left_alone(tmp_path, monkeypatch):
    settings = sft_settings(toy(), batch=100)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "reach", lambda point: 1 / 0 if point == "step done" else None)
        assert prefloop(*words("sft", tmp_path, settings)).code == 1
    held = take_lock(tmp_path / "out")
    outcome = prefloop(*words("sft", tmp_path, settings), "--resume")
    release_lock(held)
    assert_told(outcome, 2, ("is being written by process", "choose another --out"))
    assert prefloop(*words("sft", tmp_path, settings), "--resume").code == 0


def test_when_every_checkpoint_is_damaged_the_run_says_so(tmp_path, monkeypatch):
    settings = sft_settings(toy(), batch=100, save_every=1)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "reach", lambda point: 1 / 0 if point == "checkpoint in place" else None)
        prefloop(*words("sft", tmp_path, settings))
    for part in (tmp_path / "out" / "checkpoints").rglob("learner.pt"):
        cut(part)
    outcome = prefloop(*words("sft", tmp_path, settings), "--resume")
    assert_told(outcome, 1, ("no checkpoint in", "step-00000001 is damaged", "to begin again, remove the run's folder"))


def test_few_bad_rows_are_counted_and_left_out_when_they_are_allowed(tmp_path):
    given = with_data("sft", *[GOOD] * 9, GOOD[:20], max_dropped=0.2)(tmp_path)
    outcome = prefloop(*given)
    assert outcome.code == 0, outcome.err
    assert "dropped" in outcome.err and "data.jsonl:10" in outcome.err
    report = json.loads((tmp_path / "out" / "data.json").read_text())["demonstrations"]
    assert (report["n_rows"], report["n_kept"]) == (10, 9)


def test_a_refused_start_leaves_no_folder_and_the_mended_command_begins_anew(tmp_path):
    settings = sft_settings(toy(), batch=400)
    assert_told(prefloop(*words("sft", tmp_path, {**settings, "data": "nowhere.jsonl"})), 2, ("nowhere.jsonl",))
    assert list(tmp_path.iterdir()) == []
    outcome = prefloop(*words("sft", tmp_path, settings))
    assert outcome.code == 0, outcome.err
    assert "came to nothing" not in outcome.err


@pytest.mark.parametrize("command", ["sample", "score", "rank", "select", "evaluate"])
def test_what_keeps_no_checkpoints_begins_again_with_resume_and_a_finished_one_stays(tmp_path, monkeypatch, command):
    model, prompts = toy() / "sft" / "model", toy() / "prompts.jsonl"
    reward, data = "python:tests.evaluate.scorers:words", toy() / "rankings.jsonl"
    settings = {
        "sample": {"model": model, "prompts": prompts, "max_new_tokens": 2, "k": 1, "template": "plain"},
        "score": {"reward": reward, "data": data},
        "rank": {"reward": reward, "data": data, "n": 3},
        "select": {"run": toy() / "sft", "reward": reward, "prompts": prompts, "n": 2, "max_new_tokens": 2, "template": "plain"},
        "evaluate": {"policies.sft": model, "prompts": prompts, "n": 2, "k": 1, "max_new_tokens": 2, "template": "plain"},
    }[command]
    given = words(command, tmp_path, settings)
    with monkeypatch.context() as patch:
        full_at_summary(patch)
        outcome = prefloop(*given)
    assert_told(outcome, 1, ("the disk is full", "run the same command again, with --resume"))
    assert_told(prefloop(*given), 2, ("holds a run that can be gone on with\n  go on with --resume",))
    begun_again = prefloop(*given, "--resume")
    assert begun_again.code == 0, begun_again.err
    finished = snapshot(tmp_path)
    repeated = prefloop(*given, "--resume")
    assert repeated.code == 0 and "is finished, there is nothing left to do" in repeated.err
    assert snapshot(tmp_path) == finished


def test_the_message_of_a_scorer_that_fails_has_its_traceback_with_debug(tmp_path):
    assert 'raise LookupError("no such word")' in prefloop(*scoring("fails")(tmp_path), "--debug").err
