import json
import math
from itertools import combinations

import numpy as np
import pytest

from prefloop.config import Options
from prefloop.data.read import read_demonstrations, read_groups
from prefloop.data.write import write_groups
from prefloop.errors import DataError, RunError
from prefloop.evaluate.rank import RankConfig, ceilings, main, name_of, rank, spread
from prefloop.records import Completion, Group, Prompt
from tests.helpers import assert_close


def group(name: str, *answers: str) -> Group:
    prompt = Prompt.of(name)
    return Group(prompt=prompt, completions=tuple(Completion.of(prompt, answer) for answer in answers))


def length(prompts, completions) -> list[float]:
    return [float(len(completion.text)) for completion in completions]


def test_without_noise_the_order_is_the_score_and_equal_scores_tie():
    asked = group("p", "one", "four", "two", "three")
    by_text = {completion.id: completion.text for completion in asked.completions}
    said = rank(asked, [3.0, 4.0, 3.0, 5.0], 0.0, "sim:length", 0)
    assert [sorted(by_text[c] for c in tier) for tier in said.tiers] == [["three"], ["four"], ["one", "two"]]
    assert (said.annotator, said.shown) == ("sim:length", tuple(by_text))


def test_a_pair_is_ordered_as_often_as_bradley_terry_says_whatever_else_is_shown():
    scores, temperature, n = [0.0, 1.0, 0.4], 0.8, 1500
    above = np.zeros((3, 3))
    for i in range(n):
        asked = group(f"prompt {i}", "a", "b", "c")
        place = {c: place for place, (c,) in enumerate(rank(asked, scores, temperature, "sim", 0).tiers)}
        places = [place[completion.id] for completion in asked.completions]
        above += np.less.outer(places, places)
    for i, j in combinations(range(3), 2):
        expected = 1 / (1 + math.exp(-(scores[i] - scores[j]) / temperature))
        assert abs(above[i, j] / n - expected) < 4 * math.sqrt(expected * (1 - expected) / n)  # four standard errors


def test_the_order_depends_on_the_texts_and_the_annotator_and_on_nothing_else():
    scores = {"a": 0.0, "b": 0.1, "c": 0.2, "d": 0.3}

    def order(answers: str, annotator: str = "sim", seed: int = 0) -> str:
        asked = group("p", *answers)
        by_text = {completion.id: completion.text for completion in asked.completions}
        return "".join(by_text[c] for (c,) in rank(asked, [scores[a] for a in answers], 1.0, annotator, seed).tiers)

    assert order("abcd") == order("dcba")
    assert order("abc") == order("abcd").replace("d", "")
    assert len({order("abcd", annotator=f"sim:{i}") for i in range(9)}) > 1 < len({order("abcd", seed=i) for i in range(9)})


def test_spread_is_around_the_mean_of_each_prompt():
    assert_close(spread([[1.0, 3.0], [101.0, 103.0]]), 1.0)


def test_ceilings_are_the_sigmoid_of_the_gaps_and_the_agreement_with_the_labels():
    asked = group("p", "a", "b", "c")
    scores, labels = [0.0, 1.0, 3.0], rank(asked, [0.0, 3.0, 1.0], 0.0, "sim", 0)  # they call b better than c
    told = ceilings([asked.model_copy(update={"rankings": (labels,)})], [scores], 2.0)
    assert_close(told["oracle_accuracy"], 2 / 3)
    assert_close(told["bayes_ceiling"], np.mean([1 / (1 + math.exp(-gap / 2)) for gap in (1, 2, 3)]))
    assert ceilings([asked], [scores], 2.0)["bayes_ceiling"] is None
    assert ceilings([asked.model_copy(update={"rankings": (labels,)})], [scores], 0.0)["bayes_ceiling"] == 1


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        ("lexicon:../data/vader.csv.gz", "lexicon:vader.csv.gz"),
        ("runs/reward/model", "model"),
        ("runs/a/m,runs/b/n", "m,n"),
        ("python:taste:length", "python:taste:length"),
    ],
)
def test_an_annotator_is_named_after_its_taste_without_folders(spec, name):
    assert name_of(spec) == name


def test_the_command_writes_rankings_that_are_read_back(tmp_path):
    groups = [group(f"p{i}", "a" * (i + 1), "b" * (i + 3), "c" * (i + 6)) for i in range(5)] + [group("alone", "x")]
    write_groups(tmp_path / "completions.jsonl", groups)
    config = RankConfig.of(
        reward="python:tests.evaluate.test_rank:length", data=str(tmp_path / "completions.jsonl"), noise=0.3, annotators=2
    )
    summary = main(config, Options(out=tmp_path / "run"))
    written = read_groups(tmp_path / "run" / "rankings.jsonl").records
    names = ["sim:python:tests.evaluate.test_rank:length", "sim:python:tests.evaluate.test_rank:length:1"]
    assert [[said.annotator for said in one.rankings] for one in written] == [names] * 5
    assert (summary["groups"], summary["rankings"], summary["pairs"]) == (5, 10, 30)
    deviations = [-7 / 3, -1 / 3, 8 / 3]  # of i + 1, i + 3, i + 6 from their mean
    assert_close(summary["temperature"], 0.3 * math.sqrt(sum(d * d for d in deviations) / 3))
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["bayes_ceiling"] == summary["bayes_ceiling"]


def test_a_taste_to_which_all_are_the_same_ties_them_all_and_nobody_can_learn_from_it(tmp_path):
    write_groups(tmp_path / "completions.jsonl", [group(f"p{i}", "a", "b", "c") for i in range(4)])
    data = str(tmp_path / "completions.jsonl")
    summary = main(
        RankConfig.of(reward="python:tests.evaluate.scorers:constant", data=data, noise=0.0), Options(out=tmp_path / "run")
    )
    assert (summary["rankings"], summary["pairs"], summary["bayes_ceiling"]) == (4, 0, None)
    written = read_groups(tmp_path / "run" / "rankings.jsonl").records
    assert [len(said.tiers) for one in written for said in one.rankings] == [1] * 4
    with pytest.raises(DataError, match="no answer that stands above another: 4"):
        read_demonstrations(tmp_path / "run" / "rankings.jsonl")


def test_a_taste_that_is_no_number_ends_the_run_before_anything_is_written(tmp_path):
    write_groups(tmp_path / "completions.jsonl", [group("p", "a", "b")])
    config = RankConfig.of(reward="python:tests.evaluate.scorers:nothing", data=str(tmp_path / "completions.jsonl"))
    with pytest.raises(RunError, match="gave 2 of 2 completions no finite number"):
        main(config, Options(out=tmp_path / "run"))
    assert not (tmp_path / "run" / "rankings.jsonl").exists()
