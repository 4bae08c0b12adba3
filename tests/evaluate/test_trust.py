"""Reward models on fresh answers: what each figure is, that everybody judges the same answers, and synthetic pairs by confidence."""

import json
import math
from itertools import combinations
from typing import Any

import numpy as np
import pytest

from prefloop.errors import ConfigError, DataError
from prefloop.evaluate.trust import TrustConfig, in_gold_order, main, synthetic_pairs, trusted
from prefloop.evaluate.trust_over_seeds import by_confidence, over_runs
from prefloop.records import Completion, Group, Prompt
from tests.evaluate import scorers
from tests.helpers import assert_close
from tests.methods.toy import WORLD, gold, options, plain, run_relearn, toy

GOLD, AGAINST = "python:tests.methods.toy:gold", "python:tests.methods.toy:against_gold"


def settings(**own) -> dict:
    policies = {"sft": str(toy() / "sft" / "model"), "base": str(toy() / "base")}
    rewards = {"gold": GOLD, "against": AGAINST, "reward": str(toy() / "reward" / "model")}
    sizes = {"prompts": toy() / "prompts.jsonl", "max_new_tokens": WORLD.n_steps - 1, "k": 6}
    return plain({"policies": policies, "rewards": rewards, "gold": GOLD, **sizes, **own})


def group(*texts: str, prompt: str = "x") -> Group:
    asked = Prompt.of(prompt)
    return Group(prompt=asked, completions=tuple(Completion.of(asked, text) for text in texts))


def of_run(accuracy: list[float], *, reward: str = "reward", prompts: list[str] | None = None) -> dict[str, Any]:
    n = len(accuracy)
    told = {"prompt": prompts or [f"p{i}" for i in range(n)], "pairs": [1] * n, "loss": [0.5] * n, "overconfidence": [0.0] * n}
    return {reward: {**told, "accuracy": accuracy}}


# ------------------------------------------------------------------------------------------------ figures


def test_answers_are_put_in_the_order_of_gold_and_equal_ones_make_no_pair():
    (ranked,) = in_gold_order([group("a", "b b", "c c", "d d d")], scorers.words)
    text = {c.id: c.text for c in ranked.completions}
    (ranking,) = ranked.rankings
    assert [{text[c] for c in tier} for tier in ranking.tiers] == [{"d d d"}, {"b b", "c c"}, {"a"}]
    assert len(ranking.pairs()) == 5
    assert in_gold_order([group("a", "b"), group("a")], scorers.words)[0].rankings == ()


def test_gold_that_differs_beyond_its_last_decimal_only_is_equal():
    (ranked,) = in_gold_order([group("a", "b")], lambda prompts, completions: [0.1 + 0.2, 0.3])
    assert ranked.rankings == ()


def test_accuracy_loss_and_overconfidence_of_a_prompt_are_means_over_its_pairs():
    """Gold orders four answers strictly; the model swaps the best two and is 2 away from everything else."""
    judged = in_gold_order([group("a", "a a", "a a a", "a a a a"), group("a", "b", prompt="y")], scorers.words)
    score = [0.0, 2.0, 5.0, 4.0]
    gaps = [score[j] - score[i] for i, j in combinations(range(4), 2)]  # j is the better one
    expected = {
        "accuracy": np.mean([gap > 0 for gap in gaps]),
        "loss": np.mean([math.log(1 + math.exp(-gap)) for gap in gaps]),
        "overconfidence": np.mean([1 / (1 + math.exp(-abs(gap))) - (gap > 0) for gap in gaps]),
    }
    told = trusted(judged, [score, [0.0, 1.0]])
    assert told["prompt"] == [judged[0].prompt.id] and told["pairs"] == [6]
    for figure, value in expected.items():
        assert_close(told[figure], [float(value)])


# ------------------------------------------------------------------------------------------------ a run


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trust")
    run_relearn(folder / "spg")
    summary = main(TrustConfig.of(**settings(synthetic={"spg": str(folder / "spg")})), options(folder / "run"))
    return folder, summary


def test_whoever_knows_gold_is_always_right_and_whoever_denies_it_never(asked):
    folder, summary = asked
    shown = {(row["policy"], row["reward"]): row for row in summary["rows"]}
    assert set(shown) == {(policy, reward) for policy in ("sft", "base") for reward in ("gold", "against", "reward")}
    for policy in ("sft", "base"):
        assert shown[policy, "gold"]["accuracy"]["mean"] == 1.0 and shown[policy, "against"]["accuracy"]["mean"] == 0.0
        assert 0 < shown[policy, "reward"]["accuracy"]["mean"] < 1
        assert shown[policy, "gold"]["overconfidence"]["mean"] < 0 < shown[policy, "against"]["overconfidence"]["mean"]
        assert sum(b["n"] for b in shown[policy, "reward"]["calibration"]) == sum(
            json.loads((folder / "run" / "per_prompt.json").read_text())["answers"][policy]["reward"]["pairs"]
        )


def test_all_judge_the_same_answers_and_are_compared_with_the_first(asked):
    folder, summary = asked
    told = json.loads((folder / "run" / "per_prompt.json").read_text())["answers"]
    assert told["sft"]["gold"]["prompt"] == told["sft"]["reward"]["prompt"]
    assert told["sft"]["gold"]["pairs"] == told["sft"]["reward"]["pairs"]
    pair = next(p for p in summary["paired"] if (p["policy"], p["a"], p["metric"]) == ("base", "against", "accuracy"))
    assert (pair["b"], pair["mean"], pair["low"], pair["high"]) == ("gold", -1.0, -1.0, -1.0)


def test_synthetic_pairs_of_a_run_are_judged_by_gold(asked):
    folder, summary = asked
    lines = [json.loads(line) for line in (folder / "spg" / "pairs.jsonl").read_text().splitlines()]
    lines = [line for line in lines if line["winner"] is not None]
    prompts = [Prompt.of(line["prompt"]) for line in lines]
    sides = [[Completion.of(p, line[side]) for p, line in zip(prompts, lines, strict=True)] for side in ("winner", "loser")]
    won, lost = (gold(prompts, side) for side in sides)
    expected = [0.5 if w == lo else float(w > lo) for w, lo in zip(won, lost, strict=True)]
    told = synthetic_pairs(folder / "spg", gold)
    assert told["accuracy"] == expected
    assert_close(np.array(told["gap"]), np.subtract(won, lost))
    learned = [value for value, line in zip(expected, lines, strict=True) if not line["reason"]]
    row = summary["synthetic"][0]
    assert (row["name"], row["low"], row["n"]) == ("spg", None, len(learned))
    assert_close(row["accuracy"]["mean"], float(np.mean(learned)))
    assert sum(one["n"] for one in summary["synthetic"][1:]) == len(lines)


def test_what_cannot_be_judged_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"gold orders no two answers of sft .*\n  draw more answers"):
        main(TrustConfig.of(**settings(gold="python:tests.evaluate.scorers:constant")), options(tmp_path / "run"))
    with pytest.raises(DataError, match=r"pairs\.jsonl is not there\n  synthetic names folders of prefloop relearn runs"):
        synthetic_pairs(tmp_path, gold)
    with pytest.raises(ConfigError, match="the baseline 'best' is not among the rewards: gold, against, reward"):
        TrustConfig.of(**settings(baseline="best"))


# ------------------------------------------------------------------------------------------------ over seeds


def test_over_seeds_the_table_is_of_all_of_them_and_differences_are_paired():
    runs = []
    for seed, (first, second) in enumerate((([1.0, 0.5, 0.0], [1.0, 1.0, 1.0]), ([1.0, 1.0, 0.5], [1.0, 1.0, 1.0]))):
        prompts = [f"p{seed}{i}" for i in range(3)]
        answers = of_run(first, prompts=prompts) | of_run(second, reward="again", prompts=prompts)
        runs.append({"answers": {"sft": answers}, "synthetic": {}})
    told = over_runs(runs)
    row = told["rows"][0]["accuracy"]
    assert_close(row["mean"], (0.5 + 2.5 / 3) / 2)
    assert (row["n_seeds"], row["n_prompts"]) == (2, 3)
    (pair,) = [p for p in told["paired"] if p["metric"] == "accuracy"]
    assert (pair["a"], pair["b"], pair["policy"]) == ("again", "reward", "sft")
    assert_close(pair["mean"], (0.5 + 0.5 / 3) / 2)
    (turned,) = [p for p in over_runs(runs, baseline="again")["paired"] if p["metric"] == "accuracy"]
    assert (turned["a"], turned["b"]) == ("reward", "again")
    assert_close(turned["mean"], -pair["mean"])


def pairs(confidence: list[float | None], accuracy: list[float], learned: list[bool]) -> dict[str, Any]:
    n = len(confidence)
    return {
        "prompt": [f"p{i}" for i in range(n)],
        "confidence": confidence,
        "accuracy": accuracy,
        "gap": accuracy,
        "learned": learned,
    }


def test_every_pair_falls_in_one_bin_whose_lower_end_belongs_to_it():
    confidence = [tenth / 10 for tenth in range(1, 10)] + [0.1 * 7, 1.0]  # 0.1 * 7 is a little more than 0.7
    accuracy = [1.0] * 4 + [0.0] * 2 + [1.0, 0.0, 1.0, 1.0, 0.0]
    learned = [c >= 0.5 for c in confidence]
    told = by_confidence([{"synthetic": {"spg": pairs(confidence, accuracy, learned)}}])
    assert [(row["low"], row["high"], row["n"]) for row in told] == [
        (None, None, 7), (0.0, 0.5, 4), (0.5, 0.7, 2), (0.7, 0.9, 3), (0.9, None, 2),
    ]  # fmt: skip
    assert_close([row["accuracy"]["mean"] for row in told], [3 / 7, 1.0, 0.0, 2 / 3, 0.5])


def test_a_seed_without_a_pair_in_a_bin_does_not_count_there_and_an_empty_bin_says_nothing():
    one, two = pairs([0.2, 0.6], [1.0, 1.0], [False, True]), pairs([0.2, 0.3], [0.0, 0.0], [False, False])
    told = {row["low"]: row for row in by_confidence([{"synthetic": {"spg": one}}, {"synthetic": {"spg": two}}])}
    assert_close([told[0.0]["accuracy"]["mean"], told[0.5]["accuracy"]["mean"]], [0.5, 1.0])
    assert (told[0.0]["n"], told[0.5]["n"], told[None]["n"]) == (3, 1, 1)
    assert told[0.9] == {"name": "spg", "low": 0.9, "high": None, "n": 0, "accuracy": None, "gap": None}


def test_pairs_without_clusters_have_no_bins():
    told = by_confidence([{"synthetic": {"reward": pairs([None, None], [1.0, 0.5], [True, False])}}])
    assert [(row["low"], row["n"]) for row in told] == [(None, 1)]
