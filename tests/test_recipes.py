"""Recipes that are studies of several commands: expert iteration and Wombat's, as their files say, at a size a test can hold."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from prefloop.data.read import read_demonstrations, read_groups
from prefloop.study import load_study
from tests.command_line import prefloop
from tests.methods.toy import WORLD, toy
from tests.models.test_judge import served, settings, shown

ROOT = Path(__file__).parent.parent
NEW = WORLD.n_steps - 1


def tiny(folder: Path, name: str, changes: dict[str, dict[str, Any]], dropped: tuple[str, ...] = ()) -> Path:
    """The study of a config with other settings in its stages, and without some of them."""
    study = load_study(ROOT / "configs" / f"{name}.yaml").model_dump(mode="json")
    stages = {key: {**value, **changes.get(key, {})} for key, value in study["stages"].items() if key not in dropped}
    written = json.dumps({"name": name, "stages": stages})
    for stage, replacement in (("world", toy()), ("base", toy()), ("sft", toy() / "sft"), ("reward", toy() / "reward")):
        if stage in dropped:
            written = written.replace(f"${{{stage}}}", str(replacement))
    (folder / "tiny.yaml").write_text(yaml.safe_dump(json.loads(written), sort_keys=False))
    return folder / "tiny.yaml"


def test_expert_iteration_imitates_the_best_of_its_own_answers_round_after_round(tmp_path):
    drawn = {"prompts": str(toy() / "prompts.jsonl"), "k": 6, "max_new_tokens": NEW, "template": "plain"}
    gold = {"reward": "python:tests.methods.toy:gold", "template": "plain"}
    learned = {"template": "plain", "held_out": 0, "epochs": 6, "batch": 4, "optim": {"lr": 3e-3}}
    judged = {"prompts": str(toy() / "prompts.jsonl"), "n": 8, "max_new_tokens": NEW, "template": "plain", "k": 8, **gold}
    judged |= {"gold": "python:tests.methods.toy:gold", "best_of": {"policy": "sft", "n": 6}}
    changes = {f"{kind}_{r}": own for r in (1, 2, 3) for kind, own in (("drawn", drawn), ("best", gold), ("round", learned))}
    study = tiny(
        tmp_path, "expert-iteration", {**changes, "evaluate": judged}, ("world", "base", "sft", "answers", "rankings", "reward")
    )
    outcome = prefloop("run", study, "--out", tmp_path / "out", "--device", "cpu")
    assert outcome.code == 0, outcome.err
    made = tmp_path / "out" / "seed-0"
    for r in (1, 2, 3):
        best = {d.prompt.id: d.completion.text for d in read_demonstrations(made / f"best_{r}" / "rankings.jsonl").records}
        for group in read_groups(made / f"best_{r}" / "rankings.jsonl").records:
            worth = {c.text: WORLD.gold(group.prompt, c.text.replace("<pad>", "")) for c in group.completions}
            if group.prompt.id in best:
                assert worth[best[group.prompt.id]] == max(worth.values())
    rows = {row["name"]: row for row in json.loads((tmp_path / "out" / "summary.json").read_text())["rows"]}
    assert rows["round_3"]["gold"]["mean"] > rows["sft"]["gold"]["mean"] + 0.3


def test_wombat_learns_from_the_answers_of_several_models_in_the_order_of_a_judge(tmp_path, monkeypatch):
    """Two servers answer, a third judges, and says nonsense of one answer every time it is asked."""

    def good(body: dict[str, Any]) -> str:
        return body["messages"][-1]["content"]

    def judge(body: dict[str, Any]) -> str:
        seen = shown(body)
        if seen["answer"] == "d d":
            return "this one is 5 out of 5"
        marks = WORLD.gold(
            next(p for p in WORLD.prompts if p.text == seen["conversation"][-1]["content"]), seen["answer"].replace("<pad>", "")
        )
        return "\n".join(
            f"{name}: {min(5.0, max(1.0, 2.5 + marks)):.2f}" for name in ("relevance", "correctness", "coherence", "safety")
        )

    (tmp_path / "servers").mkdir()
    monkeypatch.chdir(tmp_path)
    asked = {"prompts": str(toy() / "prompts.jsonl"), "max_new_tokens": NEW, "template": "plain"}
    own = {
        "base": {**asked, "model": str(toy() / "base"), "k": 2},
        "five": {**asked, "model": str(toy() / "sft" / "model"), "k": 2},
    }
    train = {
        "model": str(toy() / "sft" / "model"),
        "template": "plain",
        "held_out": 0,
        "epochs": 4,
        "batch": 4,
        "optim": {"lr": 2e-3},
    }
    study = tiny(tmp_path, "wombat", {"strong": asked, "other": asked, **own, "wombat": train, "judged": {"template": "plain"}})
    with served(good) as (strong, _), served(lambda body: "d d") as (other, _), served(judge) as (marks, judged):
        for name, url in (("strong", strong), ("other", other)):
            settings(tmp_path / "servers" / f"{name}.yaml", url)
        settings(tmp_path / "servers" / "judge.yaml", marks, max_unread=0.5)
        outcome = prefloop("run", study, "--out", tmp_path / "out", "--device", "cpu")
    assert outcome.code == 0, outcome.err
    made = tmp_path / "out" / "seed-0"
    groups = read_groups(made / "judged" / "rankings.jsonl").records
    assert len(groups) == len(WORLD.prompts) and judged
    for group in groups:
        text = {c.id: c.text for c in group.completions}
        (ranking,) = group.rankings
        assert {"d d", group.prompt.text} <= set(text.values())
        place = {text[c]: tier for c, tier in ranking.places().items()}
        assert (
            place["d d"] == max(place.values()) and place[group.prompt.text] < place["d d"]
        )  # nothing is gained by confusing it
    told = json.loads((made / "judged" / "summary.json").read_text())
    assert told["judge"] == {"judged": sum(len(g.completions) for g in groups), "unread": len(groups)}
    summary = json.loads((made / "wombat" / "summary.json").read_text())
    assert summary["rankings"] == len(groups)


@pytest.mark.parametrize("name", ["expert-iteration", "wombat", "wombat-world", "simulated-benchmark", "real-preferences"])
def test_a_recipe_says_what_it_asks_what_is_expected_and_how_long_it_takes(name):
    header = (ROOT / "configs" / f"{name}.yaml").read_text().split("\nname:")[0]
    for word in ("Question", "Expected", "Time", "Run"):
        assert f"# {word} " in header
