"""What a finished study tells, from stage folders written by hand: nothing is trained here."""

import json
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

from rich.console import Console

from prefloop.demo import print_fluency, print_fresh, print_rewards, print_table
from prefloop.report.page import render
from prefloop.report.pages import read_study
from prefloop.study import Done, Stage, StudyConfig
from prefloop.study_report import curve, main_reward, study_data, summarised
from tests.helpers import assert_close
from tests.report.reading import Page

HALF = [0.5, 0.5, 0.5]


def finished(
    out: Path, label: str, command: str, settings: dict[str, Any], summary: dict[str, Any], *, seed: int = 0, **files: Any
) -> Done:
    """A stage that has run: its folder holds ``files`` (name without ending: content)."""
    folder = out / f"seed-{seed}" / label
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    stage = Stage(label.partition("@")[0], label, seed, command, settings, folder, key="0123456789abcdef")
    return Done(stage, 1.0, False, summary)


def reward(out: Path, label: str, right: list[float], *, seed: int = 0, pairs: int = 2, data: str = "") -> Done:
    """A reward model with its accuracy on each of up to three held-out prompts."""
    prompts = [f"p{seed}{i}" for i in range(len(right))]
    told = {
        "prompt": prompts,
        "pairs": [pairs] * len(right),
        "accuracy": right,
        "loss": HALF[: len(right)],
        "prefers_longer": HALF[: len(right)],
        "prefers_shorter": HALF[: len(right)],
    }
    accuracy = {"mean": sum(right) / len(right), "low": 0.0, "high": 1.0, "n": pairs * len(right), "n_prompts": len(right)}
    bins = {"calibration": [], "accuracy_by_gap": []}
    summary = {"prompts": 7, "rankings": 8, "pairs": 9, "pair_accuracy": accuracy, **bins}
    return finished(out, label, "reward", {"model": "m", "data": data or "pairs.jsonl"}, summary, seed=seed, per_prompt=told)


def evaluation(
    out: Path, policies: dict[str, str], worth: dict[str, list[float]], *, label: str = "evaluate", seed: int = 0, **settings: Any
) -> Done:
    """An evaluation of three prompts; what a policy's answers are worth is given, everything else is made up."""
    baseline = next(iter(policies))
    judged = {
        name: {
            "gold": values,
            "win": HALF,
            "length": [4.0, 5.0, 9.0],
            "finished": [1.0] * 3,
            "kl": [1.0, 2.0, 3.0],
            "fluency/nll": HALF,
        }
        for name, values in worth.items()
    }
    rows = [{"name": name, "fluency": {"nll": 0.5, "distinct_1_of_all": 0.25}} for name in worth]
    paired = [{"a": name, "b": baseline, "metric": "gold"} for name in worth if name != baseline]
    summary = {"baseline": baseline, "rows": rows, "paired": paired, "best_of_n": [], "proxy_trust": {}, "prompts": 3, "k": 1}
    given = {"policies": policies, "baseline": baseline, "prompts": "p.jsonl", "gold": "lexicon:x.csv", **settings}
    return finished(out, label, "evaluate", given, summary, seed=seed, per_prompt=judged, samples=[])


def told(done: list[Done], **study: Any) -> tuple[dict[str, Any], Page, str]:
    """The summary, the page and what is printed; the page in Chinese and the one from summary.json are made too."""
    config = StudyConfig(name="s", **study)
    summary = json.loads(json.dumps(summarised(config, done, 1.0)))
    data = study_data(config, done, summary, command="prefloop run s.yaml")
    assert render(data, lang="zh")
    out = done[0].stage.folder.parent.parent
    (out / "summary.json").write_text(json.dumps(summary))
    again = read_study(out)
    assert (again.rows, again.rewards == (), again.baseline or "sft") == (data.rows, data.rewards == (), data.baseline or "sft")
    console = Console(record=True, width=200, file=StringIO())
    if summary["rows"]:
        print_table(console, summary)
        print_fluency(console, summary)
    else:
        print_rewards(console, summary)
    print_fresh(console, summary["fresh"])
    assert (again.fresh, again.fresh_pairs, again.synthetic) == (data.fresh, data.fresh_pairs, data.synthetic)
    return summary, Page(render(data)), console.export_text()


def test_a_study_of_reward_models_of_any_name_ends_with_figures_and_a_page(tmp_path):
    done = [
        one
        for seed in (0, 1)
        for one in (reward(tmp_path, "kway", [1.0, 1.0, 0.9], seed=seed), reward(tmp_path, "shuffled", HALF, seed=seed))
    ]
    summary, page, printed = told(done, seeds=[0, 1])
    assert (summary["rows"], summary["paired"], summary["baseline"]) == ([], [], None)
    assert [row["name"] for row in summary["rewards"]["rows"]] == ["kway", "shuffled"]
    assert {(pair["a"], pair["b"]) for pair in summary["rewards"]["paired"]} >= {("kway", "prefers_longer"), ("kway", "shuffled")}
    assert "Partly: better than guessing, kway; not shown for shuffled." in page.text
    assert "kway 96.7%" in page.text and "This study compares no policies" in page.text
    assert "kway" in printed and "0.967" in printed


def test_the_accuracy_over_seeds_has_an_interval_over_seeds_and_prompts(tmp_path):
    done = [reward(tmp_path, "reward", right, seed=seed) for seed, right in enumerate([[1.0, 1.0, 0.5], [0.5, 0.5, 0.0]])]
    accuracy = told(done, seeds=[0, 1])[0]["reward_model"]["pair_accuracy"]
    assert_close(accuracy["mean"], (2.5 + 1.0) / 6)
    assert (accuracy["n"], accuracy["n_prompts"], accuracy["n_seeds"]) == (12, 3, 2)
    assert accuracy["low"] < 0.35 < 0.8 < accuracy["high"]  # two seeds half a point apart say little
    one = told([reward(tmp_path / "one", "reward", [1.0, 1.0, 0.5])])[0]["reward_model"]["pair_accuracy"]
    assert one == {"mean": 2.5 / 3, "low": 0.0, "high": 1.0, "n": 6, "n_prompts": 3}  # the run's own, of one seed


def test_everything_is_told_against_the_baseline_of_the_evaluation(tmp_path):
    gold = {"base": [0.0, 0.1, 0.2], "ppo_learned": [1.0, 1.2, 1.1]}
    trained = finished(tmp_path, "learn", "ppo", {"reward": "lexicon:x.csv"}, {"episodes": 64})
    log = {"step": 0, "episode": 32, "objective/scores": 0.5, "objective/kl": 0.0, "objective/length": 4.0}
    (trained.stage.folder / "metrics.jsonl").write_text(json.dumps(log) + "\n")
    policies = {"base": "hub/model", "ppo_learned": f"{trained.stage.folder}/model"}
    summary, page, printed = told([trained, evaluation(tmp_path, policies, gold)])
    assert summary["baseline"] == "base"
    assert all("win_vs_base" in row and "win_vs_sft" not in row for row in summary["rows"])
    assert "Yes: better answers than the base model, from ppo_learned." in page.text
    assert "Wins against base" in page.text and "wins against base" in printed and "KL to base" in printed
    assert "ppo_learned was trained on the score that is called gold here" in page.text
    assert "different words, over all answers" in page.text and "25.0%" in page.text
    row = summary["rows"][1]
    assert (row["kl"], row["length"], row["proxy"]) == (2.0, 6.0, None)
    assert row["kl_interval"]["low"] < 2.0 < row["kl_interval"]["high"] and row["kl_interval"]["n"] == 3
    curve = study_data(StudyConfig(name="s"), [trained, evaluation(tmp_path / "2", policies, gold)], summary, command="").curves
    assert list(curve) == ["ppo_learned"]  # as the table calls it, not as its stage is called


def test_the_points_of_a_sweep_are_rows_of_their_own_and_no_seeds(tmp_path):
    done = [
        evaluation(tmp_path, {"base": "hub/model", "ppo": f"ppo-{kl}/model"}, {"base": [0.0, 0.1, 0.2], "ppo": [kl, kl, kl + 0.1]}, label=f"evaluate@ppo.kl={kl}")
        for kl in (1.0, 2.0)
    ]  # fmt: skip
    summary, page, _ = told(done)
    assert [row["name"] for row in summary["rows"]] == ["base", "ppo", "ppo@ppo.kl=2.0"]
    assert {row["gold"]["n_seeds"] for row in summary["rows"]} == {1}
    assert [(pair["a"], pair["b"]) for pair in summary["paired"]] == [("ppo", "base"), ("ppo@ppo.kl=2.0", "base")]
    assert "from PPO and PPO (ppo.kl=2.0)" in page.text


def test_items_of_a_skill_and_prompts_that_seeds_share_are_counted_once(tmp_path):
    """Eight seeds that solve the same items: nested, 12 items would pass for 96."""
    solved, worth = [1.0, 0.0] * 6, [0.0, 1.0, 2.0]
    done = [evaluation(tmp_path, {"base": "m"}, {"base": worth}, seed=seed) for seed in range(8)]
    for one in done:
        path = one.stage.folder / "per_prompt.json"
        judged = json.loads(path.read_text())
        judged["base"]["skill/sums"] = solved
        path.write_text(json.dumps(judged))
    alone = summarised(StudyConfig(name="s"), done[:1], 1.0)["rows"][0]["skill_interval"]["sums"]
    (row,) = summarised(StudyConfig(name="s"), done, 1.0)["rows"]
    skill, gold = row["skill_interval"]["sums"], row["gold"]
    assert (skill["n_prompts"], skill["n_seeds"], skill["n"]) == (12, 8, 96)
    assert skill["high"] - skill["low"] >= alone["high"] - alone["low"]
    for one in done:
        (one.stage.folder / "prompts.json").write_text(json.dumps(["x", "y", "z"]))
    shared = summarised(StudyConfig(name="s"), done, 1.0)["rows"][0]["gold"]
    assert shared["high"] - shared["low"] > 1.2 * (gold["high"] - gold["low"])
    (tmp_path / "p.jsonl").write_text("".join(json.dumps({"prompt": text}) + "\n" for text in "xyz"))
    for one in done:  # a run from before its prompts were written down is asked for them by their file
        (one.stage.folder / "prompts.json").unlink()
        one.stage.settings["prompts"] = str(tmp_path / "p.jsonl")
    assert summarised(StudyConfig(name="s"), done, 1.0)["rows"][0]["gold"] == shared


def test_answers_per_prompt_and_annotators_are_what_was_asked_for(tmp_path):
    """Repeated answers are dropped: 7,591 of 1,900 prompts come from four each, not three."""
    answers = finished(
        tmp_path, "answers", "sample", {"model": "m", "prompts": "p.jsonl", "k": 4}, {"prompts": 1900, "completions": 7591}
    )
    rankings = finished(
        tmp_path, "ranks", "rank", {"data": f"{answers.stage.folder}/c.jsonl", "reward": "lexicon:x.csv"}, {"rankings": 6}
    )
    done = [answers, rankings, reward(tmp_path, "reward", HALF, data=f"{rankings.stage.folder}/rankings.jsonl")]
    counts = study_data(StudyConfig(name="s"), done, summarised(StudyConfig(name="s"), done, 1.0), command="").counts
    assert (counts.training_prompts, counts.answers_per_prompt, counts.annotators) == (1900, 4, 1)


def test_the_interval_of_a_curve_counts_prompts_and_not_their_answers(tmp_path):
    trained = finished(tmp_path, "ppo", "ppo", {"model": "m", "reward": "r", "prompts": "p.jsonl", "k": 4}, {"episodes": 96})
    log = [
        {"step": step, "episode": episode, "objective/scores": 0.5, "measure/gold": 2.0, "measure/gold_sd": 3.0}
        for step, episode in ((0, 64), (1, 96))  # rounds of 16 and of 8 prompts
    ]
    (trained.stage.folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log))
    points = curve(trained)
    assert_close([point["gold_high"] - 2.0 for point in points], [1.96 * 3 / 16**0.5, 1.96 * 3 / 8**0.5])
    assert_close([2.0 - point["gold_low"] for point in points], [1.96 * 3 / 16**0.5, 1.96 * 3 / 8**0.5])


def test_a_reward_model_judged_on_one_prompt_has_no_interval_and_is_told_all_the_same(tmp_path):
    done = [reward(tmp_path, "reward", [1.0])]
    done[0].summary["pair_accuracy"] |= {"low": None, "high": None}
    summary, page, printed = told(done)
    assert summary["reward_model"]["pair_accuracy"]["low"] is None
    assert (summary["rewards"]["rows"][0]["accuracy"]["low"], summary["rewards"]["paired"][0]["high"]) == (None, None)
    assert "100.0%" in page.text and "1.000" in printed and "not separated" in printed


def test_three_points_of_a_sweep_are_not_pooled(tmp_path):
    """One seed, three prices of distance with gold 0, 1 and 5: three rows of one seed each, not a mean of 2 over three."""
    done = [
        evaluation(tmp_path, {"sft": "m", "ppo": f"ppo-{kl}/model"}, {"sft": [0.0] * 3, "ppo": [gold] * 3}, label=f"evaluate@ppo.kl={kl}")
        for kl, gold in ((0.1, 0.0), (0.2, 1.0), (0.4, 5.0))
    ]  # fmt: skip
    rows = summarised(StudyConfig(name="s"), done, 1.0)["rows"]
    assert [row["gold"]["mean"] for row in rows] == [0.0, 0.0, 1.0, 5.0]
    assert {row["gold"]["n_seeds"] for row in rows} == {1}


def test_policies_are_judged_beside_the_reward_model_the_evaluation_names(tmp_path):
    rankings = finished(
        tmp_path,
        "labels",
        "rank",
        {"data": "c.jsonl", "reward": "lexicon:x.csv"},
        {"rankings": 6, "pairs": 36, "bayes_ceiling": 0.75},
    )
    own, other = (
        reward(tmp_path, "taste", [1.0] * 3, data=f"{rankings.stage.folder}/rankings.jsonl"),
        reward(tmp_path, "reward", HALF),
    )
    judged = evaluation(tmp_path, {"base": "m"}, {"base": HALF}, reward=f"{own.stage.folder}/model-0,{own.stage.folder}/model-1")
    summary, page, printed = told([rankings, other, own, judged])
    assert (summary["reward_model"]["name"], summary["reward_model"]["bayes_ceiling"]) == ("taste", 0.75)
    assert "Nothing was compared: only one policy was measured." in page.text
    assert "rankings: 6 ordered pairs: 36" in page.text and "the labels allow 0.750" in printed
    assert main_reward([own, other])[0] is other  # nobody asks: the one called reward
    human, _, printed = told([reward(tmp_path / "2", "taste", HALF), evaluation(tmp_path / "2", {"base": "m"}, {"base": HALF})])
    assert human["reward_model"]["bayes_ceiling"] is None and "the labels allow" not in printed


def test_a_study_that_measured_nothing_says_so(tmp_path):
    summary, page, _ = told([finished(tmp_path, "base", "pretrain", {"text": "x"}, {"steps": 3})])
    assert (summary["rows"], summary["reward_model"], summary["rewards"]) == ([], {}, {"rows": [], "paired": []})
    assert "Nothing was compared: this study has measured no policy and judged no reward model." in page.text


def test_an_evaluation_without_gold_is_told_without_it(tmp_path):
    judged = evaluation(tmp_path, {"base": "m", "dpo": "n"}, {"base": HALF, "dpo": HALF}, gold="")
    path = judged.stage.folder / "per_prompt.json"
    values = {
        name: {f: v for f, v in row.items() if f not in ("gold", "win")} for name, row in json.loads(path.read_text()).items()
    }
    path.write_text(json.dumps(values))
    judged.summary["paired"] = []
    summary, page, printed = told([judged])
    assert all(row["gold"] is None and row["win_vs_base"] is None for row in summary["rows"])
    assert "Not judged: gold reward was not measured" in page.text and "dpo" in printed


def trust(out: Path, accuracy: dict[str, list[float]], *, label: str = "trust", seed: int = 0, **settings: Any) -> Done:
    """Reward models on two prompts' fresh answers of one policy; and a relearn run with one pair by clusters for each prompt."""
    prompts = [f"p{seed}{i}" for i in range(2)]
    plain = {"prompt": prompts, "pairs": [3, 3], "loss": [0.5, 0.5], "overconfidence": [0.25, 0.0]}
    pairs = {"prompt": prompts, "confidence": [0.5, 0.4], "learned": [True, False], "accuracy": [1.0, 0.0], "gap": [2.0, -1.0]}
    told = {
        "answers": {"ppo": {name: {**plain, "accuracy": right} for name, right in accuracy.items()}},
        "synthetic": {"spg": pairs},
    }
    bins = [{"predicted": 0.75, "observed": 0.5, "n": 6}]
    rows = [{"policy": "ppo", "reward": name, "calibration": bins} for name in accuracy]
    given = {
        "rewards": dict.fromkeys(accuracy, "r"),
        "policies": {"ppo": "m"},
        "prompts": "p.jsonl",
        "gold": "world:en",
        **settings,
    }
    return finished(out, label, "trust", given, {"rows": rows}, seed=seed, per_prompt=told)


def test_reward_models_on_fresh_answers_are_told_over_seeds_against_the_baseline_that_was_named(tmp_path):
    right = [{"reward": [0.5, 0.5], "spg": [1.0, 0.5]}, {"reward": [0.5, 0.0], "spg": [1.0, 1.0]}]
    done = [trust(tmp_path, one, seed=seed, baseline="spg") for seed, one in enumerate(right)]
    summary, page, printed = told(done, seeds=[0, 1])
    fresh = summary["fresh"]
    assert [(row["reward"], row["accuracy"]["mean"], row["accuracy"]["n_seeds"]) for row in fresh["rows"]] == [
        ("reward", 0.375, 2), ("spg", 0.875, 2),
    ]  # fmt: skip
    assert fresh["rows"][0]["calibration"] == [{"predicted": 0.75, "observed": 0.5, "n": 6}]
    (pair,) = [pair for pair in fresh["paired"] if pair["metric"] == "accuracy"]
    assert (pair["a"], pair["b"], pair["mean"], pair["n_seeds"]) == ("reward", "spg", -0.5, 2)
    assert [(row["low"], row["n"]) for row in fresh["synthetic"]] == [(None, 2), (0.0, 2), (0.5, 2), (0.7, 0), (0.9, 0)]
    assert "Reward models on fresh answers" in page.text and "PPO reward − spg accuracy by gold" in page.text
    assert "reward models on fresh answers, against gold" in printed and "on answers of ppo:" in printed
    assert "learned from" in printed and "0.5 and more, below 0.7" in printed


def test_fresh_answers_at_the_points_of_a_sweep_are_rows_of_their_own(tmp_path):
    done = [trust(tmp_path, {"spg": [size, size]}, label=f"trust@spg.lam={size}") for size in (0.5, 1.0)]
    summary, _, _ = told(done)
    assert [(row["reward"], row["accuracy"]["mean"]) for row in summary["fresh"]["rows"]] == [
        ("spg@spg.lam=0.5", 0.5),
        ("spg@spg.lam=1.0", 1.0),
    ]
    assert {row["name"] for row in summary["fresh"]["synthetic"]} == {"spg@spg.lam=0.5", "spg@spg.lam=1.0"}


def test_what_ranks_by_a_likelihood_stands_among_the_reward_models_without_chances(tmp_path):
    one, other = reward(tmp_path, "reward", [1.0, 0.0]), reward(tmp_path, "rrhf", [1.0, 1.0])
    without = {key: value for key, value in other.summary.items() if key not in ("calibration", "accuracy_by_gap")}
    likelihood = replace(other, stage=replace(other.stage, command="rrhf"), summary=without)
    summary, page, _ = told([one, likelihood])
    assert [row["name"] for row in summary["rewards"]["rows"]] == ["reward", "rrhf"]
    assert "RRHF" in page.text
