"""The page of a method explains every figure its runs write down: short runs on ToyWorld, and a look for each name."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from prefloop.config import Options
from prefloop.study import config_class
from tests.methods.toy import write_toy

PAGES = Path(__file__).parent.parent / "docs" / "methods"
BY_NAME = {  # names of the user's own
    "measure/gold": "measure/NAME",
    "measure/gold_sd": "measure/NAME_sd",
    "rewards/runs/reward/model": "rewards/SPEC",
    "rewards/python:tests.methods.toy:gold": "rewards/SPEC",
}

START = {
    "sft": "base",
    "reward": "base",
    "ppo": "base",
    "sample": "base",
    "dpo": "base",
    "kto": "base",
    "rrhf": "base",
    "rules": "base",
    "reinforce": "base",
    "relearn": "base",
}
HELD_OUT = {"held_out": 0.4, "seed": 1}  # of eight prompts some on each side
SHORT: dict[str, dict[str, Any]] = {
    "pretrain": {
        "text": "corpus.txt",
        "width": 16,
        "layers": 1,
        "heads": 1,
        "block": 16,
        "steps": 1,
        "vocabulary": 300,
        "held_out": 0.2,
    },
    "sft": {"data": "demonstrations.jsonl", "epochs": 1, "batch": 64, "held_out": 0.4},
    "sample": {"prompts": "prompts.jsonl", "k": 2, "max_new_tokens": 5},
    "reward": {"data": "rankings.jsonl", "demonstrations": "demonstrations.jsonl", "batch": 64, **HELD_OUT},
    "ppo": {
        "reward": "runs/reward/model",
        "prompts": "prompts.jsonl",
        "measure": {"gold": "python:tests.methods.toy:gold"},
        "rounds": 1,
        "prompts_per_round": 8,
        "k": 2,
        "max_new_tokens": 5,
        "ptx": 0.3,
        "text": "corpus.txt",
        "ptx_block": 8,
    },
    "dpo": {"data": "rankings.jsonl", "batch": 64, **HELD_OUT},
    "kto": {"data": "rankings.jsonl", "batch": 64, **HELD_OUT},
    "rrhf": {"data": "rankings.jsonl", "batch": 64, "epochs": 1, **HELD_OUT},
    "rules": {"data": "ratings.jsonl", "rules": "rules.yaml", "batch": 200, "epochs": 1, **HELD_OUT},
    "relearn": {
        "data": "rankings.jsonl",
        "samples": "samples.jsonl",
        "reward": "runs/reward/model",
        "confidence": 0.2,
        "representation": "mib",
        "batch": 64,
        "held_out": 0.3,
    },
    "reinforce": {
        "reward": "runs/reward/model",
        "prompts": "prompts.jsonl",
        "measure": {"gold": "python:tests.methods.toy:gold"},
        "rounds": 1,
        "prompts_per_round": 8,
        "k": 2,
        "max_new_tokens": 5,
        "minibatch": 16,
    },
}
VARIANTS = {
    "ppo with a shared trunk": ("ppo", {"critic": "trunk", "ptx": 0.0, "text": ""}),
    "orpo": ("dpo", {"loss": "orpo"}),
    "candidates of several sources": ("sample", {"answers": "rankings.jsonl", "decoding": "beam"}),
    "rrhf with candidates of its own": (
        "rrhf",
        {
            "data": "",
            "held_out": 0.0,
            "validation": "",
            "candidates": {
                "policy": "OP-2",
                "prompts": "prompts.jsonl",
                "reward": "python:tests.methods.toy:gold",
                "max_new_tokens": 5,
            },
        },
    ),
    "relearn with a contrastive loss": ("relearn", {"representation": "contrastive", "pairs": "none"}),
    "grpo": ("reinforce", {"method": "grpo", "reward": {"runs/reward/model": 1.0, "python:tests.methods.toy:gold": 0.5}}),
}


def names(command: str, settings: dict[str, Any], folder: Path, name: str) -> set[str]:
    """Every name a short run leaves in metrics.jsonl and at the top of summary.json."""
    cls, main = config_class(command)
    start = {"model": START[command], "template": "plain"} if command in START else {}
    summary = main(cls.of(**start, **settings), Options(out=folder / "runs" / name, device="cpu"))
    lines = (folder / "runs" / name / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return {key for line in lines for key in json.loads(line)} | set(summary)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """The names by run; settings name files below the folder the runs are made in."""
    folder = write_toy(tmp_path_factory.mktemp("toy"), n=100)
    with pytest.MonkeyPatch.context() as inside:
        inside.chdir(folder)
        found = {command: names(command, settings, folder, command) for command, settings in SHORT.items()}
        for name, (command, changes) in VARIANTS.items():
            found[name] = names(command, SHORT[command] | changes, folder, name)
    return found


def in_code_marks(markdown: str) -> set[str]:
    """What stands between backticks in a page or a part of it, fenced blocks aside."""
    return set(re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```$", "", markdown, flags=re.DOTALL | re.MULTILINE)))


@pytest.mark.parametrize("run", [*SHORT, *VARIANTS])
def test_every_figure_of_a_run_is_explained_on_its_page(run, written):
    command = VARIANTS[run][0] if run in VARIANTS else run
    explained = in_code_marks((PAGES / f"{command}.md").read_text(encoding="utf-8"))
    assert {BY_NAME.get(name, name) for name in written[run]} - explained == set()


def test_every_metric_in_the_table_of_ppo_is_written_by_some_run(written):
    page = (PAGES / "ppo.md").read_text(encoding="utf-8")
    table = page.partition("## What it logs")[2].partition("`samples.jsonl`")[0]
    named = in_code_marks("\n".join(line.split(" | ")[0] for line in table.splitlines() if line.startswith("| `")))
    found = {BY_NAME.get(name, name) for name in written["ppo"] | written["ppo with a shared trunk"]}
    assert named and named - found == set()


def test_names_are_read_outside_fenced_blocks():
    assert in_code_marks("a `b` c\n\n```text\nd `e`\n```\n\n| `f`, `g/h` |\n") == {"b", "f", "g/h"}


METHODS = ("benchmark", "best-of-n", "dpo", "kto", "ppo", "pretrain", "reinforce", "relearn", "reward", "rrhf", "rules", "sft")


@pytest.mark.parametrize("method", METHODS)
def test_a_page_says_what_a_method_does_by_which_equation_with_which_settings_and_when_to_use_it(method):
    page = (PAGES / f"{method}.md").read_text(encoding="utf-8")
    parts = re.split(r"^## ", page, flags=re.MULTILINE)
    names = [part.partition("\n")[0] for part in parts[1:]]
    wanted = ("What it does", "Settings that matter", "What it (logs|reports)", "When to use it, what it gives up")
    found = [next((place for place, name in enumerate(names) if re.match(pattern, name)), None) for pattern in wanted]
    assert None not in found and found == sorted(found), names
    assert "```text" in parts[1 + found[0]], "the equation stands in a block"
    assert "```sh parse" in parts[1 + found[0]], "and below it how it is run"
    assert re.search(r"All keys:\n?\s*\[prefloop [\w-]+\]\(\.\./cli\.md#", parts[1 + found[1]])
    assert re.match(r"# [\w-]+: .+\n\n`prefloop/", page), "the file it lives in comes first"
