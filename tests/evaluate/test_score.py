"""Scores written beside the completions they judge, and how they agree with rankings."""

import json

import numpy as np
import pytest

from prefloop.data.read import read_groups
from prefloop.data.write import write_groups
from prefloop.errors import RunError
from prefloop.evaluate.score import ScoreConfig, main
from prefloop.models.scorer import load_scorer
from tests.helpers import assert_close
from tests.methods.toy import gold, options, plain, toy


def scored(out, **own) -> tuple[dict, list[dict]]:
    summary = main(ScoreConfig.of(**plain({"data": toy() / "rankings.jsonl", **own})), options(out))
    return summary, [json.loads(line) for line in (out / "scores.jsonl").read_text(encoding="utf-8").splitlines()]


def test_every_completion_gets_its_score_in_the_order_of_the_file(tmp_path):
    summary, lines = scored(tmp_path, reward=str(toy() / "reward" / "model"))
    groups = read_groups(toy() / "rankings.jsonl").records
    rows = [(group.prompt, completion) for group in groups for completion in group.completions]
    expected = load_scorer(str(toy() / "reward" / "model"))([prompt for prompt, _ in rows], [said for _, said in rows])
    assert [line["completion_id"] for line in lines] == [said.id for _, said in rows]
    assert [line["text"] for line in lines] == [said.text for _, said in rows]
    assert [line["score"] for line in lines] == expected
    assert (summary["completions"], summary["mean"], summary["sd"]) == (len(rows), np.mean(expected), np.std(expected))


def test_the_agreement_with_rankings_is_counted_over_ordered_pairs(tmp_path):
    """Annotators see gold with some noise, so gold agrees with most of them and its opposite with the rest."""
    summary, _ = scored(tmp_path / "gold", reward="python:tests.methods.toy:gold")
    against, _ = scored(tmp_path / "against", reward="python:tests.methods.toy:against_gold")
    hits = []
    for group in read_groups(toy() / "rankings.jsonl").records:
        worth = dict(zip((c.id for c in group.completions), gold([group.prompt] * 4, group.completions), strict=True))
        hits += [0.5 + 0.5 * np.sign(worth[a] - worth[b]) for a, b in group.rankings[0].pairs()]
    assert_close(summary["pair_accuracy"]["mean"], np.mean(hits))
    assert_close(summary["pair_accuracy"]["mean"] + against["pair_accuracy"]["mean"], 1.0)
    assert summary["pair_accuracy"]["n"] == len(hits)


def test_completions_nobody_ranked_are_scored_too(tmp_path):
    groups = [group.model_copy(update={"rankings": ()}) for group in read_groups(toy() / "rankings.jsonl").records[:3]]
    write_groups(tmp_path / "unranked.jsonl", groups)
    summary, lines = scored(tmp_path / "out", data=tmp_path / "unranked.jsonl", reward="python:tests.methods.toy:gold")
    assert len(lines) == summary["completions"] == 12
    assert "pair_accuracy" not in summary


def test_a_score_that_is_no_number_ends_the_run_before_anything_is_written(tmp_path):
    with pytest.raises(RunError, match="gave 800 of 800 completions no finite number"):
        scored(tmp_path, reward="python:tests.evaluate.scorers:nothing")
    assert not (tmp_path / "scores.jsonl").exists() and not (tmp_path / "summary.json").exists()
    summary, _ = scored(tmp_path, reward="python:tests.evaluate.scorers:words")  # mended, in the same folder
    assert summary["completions"] == 800
