import json
import math

from prefloop.evaluate.rewards import pooled_accuracy, read_per_prompt, side_by_side
from prefloop.records import Completion, Group, Prompt, Ranking
from prefloop.stats.pair_accuracy import by_prompt
from tests.helpers import assert_close


def ranked(name: str, *answers: str) -> Group:
    """Answers in the order somebody put them, best first."""
    prompt = Prompt.of(name)
    completions = tuple(Completion.of(prompt, answer) for answer in answers)
    ids = tuple(completion.id for completion in completions)
    said = Ranking(prompt_id=prompt.id, tiers=tuple((c,) for c in ids), shown=ids, annotator="x")
    return Group(prompt=prompt, completions=completions, rankings=(said,))


def table(prompts: list[str], accuracy: list[float], loss: list[float]) -> dict:
    half = [0.5] * len(prompts)
    return {"prompt": prompts, "accuracy": accuracy, "loss": loss, "prefers_longer": half, "prefers_shorter": half}


def test_figures_of_a_prompt_are_means_over_its_pairs():
    groups = [ranked("p", "long one", "mid", "short"), ranked("q", "b", "a"), ranked("r", "z")]
    told = by_prompt(groups, [[2.0, 2.0, 1.0], [0.0, 1.0], [5.0]])
    assert told["prompt"] == [groups[0].prompt.id, groups[1].prompt.id]  # r has no pair
    assert told["pairs"] == [3, 1]
    assert_close(told["accuracy"], [(0.5 + 1 + 1) / 3, 0.0])
    per_pair = [math.log(2), math.log(1 + math.exp(-1)), math.log(1 + math.exp(-1))]
    assert_close(told["loss"], [sum(per_pair) / 3, math.log(1 + math.e)])
    assert_close(told["prefers_longer"], [2 / 3, 0.5])  # "long one" over both, "mid" is shorter than "short"; equal is half
    assert_close(told["prefers_shorter"], [1 / 3, 0.5])


def test_models_that_judged_the_same_prompts_are_compared_prompt_by_prompt():
    prompts = [f"p{i}" for i in range(20)]
    noise = [0.3 * (-1) ** i for i in range(20)]
    better = table(prompts, [0.6 + n for n in noise], [0.6 + n for n in noise])
    worse = table(prompts, [0.5 + n for n in noise], [0.7 + n for n in noise])
    told = side_by_side({"one": [better], "other": [worse]})
    assert [row["name"] for row in told["rows"]] == ["one", "other"]
    accuracy, loss = [pair for pair in told["paired"] if pair["b"] == "other"]
    assert (accuracy["metric"], loss["metric"]) == ("accuracy", "loss")
    for pair, expected in ((accuracy, 0.1), (loss, -0.1)):  # a constant difference has no spread, though each side has
        assert_close([pair["mean"], pair["low"], pair["high"]], [expected] * 3)
    rows = {row["name"]: row["accuracy"] for row in told["rows"]}
    assert rows["one"]["low"] < 0.5 < rows["one"]["high"]  # apart they would not be separated


def test_models_that_judged_other_prompts_are_not_compared():
    told = side_by_side({"one": [table(["a", "b"], [1, 0], [1, 1])], "other": [table(["a", "c"], [1, 0], [1, 1])]})
    assert {(pair["a"], pair["b"]) for pair in told["paired"]} == {
        (name, baseline) for name in ("one", "other") for baseline in ("prefers_longer", "prefers_shorter")
    }


def test_seeds_count_the_same_and_all_must_share_their_prompts():
    first, second = table(["a", "b"], [1, 1], [0, 0]), table(["c", "d", "e", "f"], [0, 0, 0, 0], [1, 1, 1, 1])
    told = side_by_side({"one": [first, second], "other": [first, table(["c", "d", "e", "x"], [0, 0, 0, 0], [1, 1, 1, 1])]})
    assert_close(told["rows"][0]["accuracy"]["mean"], 0.5)
    assert (told["rows"][0]["accuracy"]["n_prompts"], told["rows"][0]["accuracy"]["n_seeds"]) == (2, 2)
    assert all(pair["b"] != "other" for pair in told["paired"])


def test_prompts_that_several_seeds_held_out_are_one_prompt_each():
    """Five seeds that find the same prompts hard: the interval is over the 30 different prompts, not over five times twenty."""
    hard = [float(i % 3 == 0) for i in range(30)]
    held_out = [list(range(2 * seed, 2 * seed + 20)) for seed in range(5)]  # 0..19, 2..21, .. 8..27
    shared = [table([f"p{i}" for i in some], [hard[i] for i in some], [hard[i] for i in some]) for some in held_out]
    apart = [run | {"prompt": [f"{seed}{name}" for name in run["prompt"]]} for seed, run in enumerate(shared)]
    for pick in (
        lambda runs: side_by_side({"one": runs})["rows"][0]["loss"],
        lambda runs: side_by_side({"one": runs})["paired"][0],
        pooled_accuracy,
    ):
        narrow, wide = pick(apart), pick(shared)
        assert_close(narrow["mean"], wide["mean"])
        assert wide["high"] - wide["low"] > 1.2 * (narrow["high"] - narrow["low"])
        assert (wide["n_prompts"], wide["n_seeds"], narrow["n_prompts"]) == (28, 5, 20)


def test_a_run_that_held_nothing_out_has_nothing_to_show(tmp_path):
    assert read_per_prompt(tmp_path) is None
    (tmp_path / "per_prompt.json").write_text(json.dumps(table(["a"], [1.0], [0.1])))
    assert read_per_prompt(tmp_path) == table(["a"], [1.0], [0.1])


def test_pooled_over_pairs_a_long_ranking_weighs_more_and_seeds_weigh_the_same():
    one = table(["a", "b"], [1.0, 0.0], [0, 0]) | {"pairs": [6, 2]}  # 6 of 8 pairs
    other = table(["c", "d", "e"], [0.5, 0.5, 0.5], [0, 0, 0]) | {"pairs": [2, 4, 6]}  # 6 of 12
    told = pooled_accuracy([one, other])
    assert_close(told["mean"], (6 / 8 + 6 / 12) / 2)
    assert (told["n"], told["n_prompts"], told["n_seeds"]) == (20, 2, 2)
    assert told["low"] < told["mean"] < told["high"]
    steady = pooled_accuracy([other, other | {"prompt": ["f", "g", "h"]}])  # every prompt has the same share, however many pairs
    assert_close([steady["low"], steady["high"]], [0.5, 0.5])
