"""Reward models: members of an ensemble, and what held-out prompts are judged by."""

import json

import pytest
import torch

from prefloop.data.write import write_groups
from prefloop.engine.randomness import generator
from prefloop.methods import reward
from prefloop.models import load
from tests.helpers import assert_close
from tests.methods.test_reward import group
from tests.methods.toy import run_reward, saved


def test_the_first_member_learns_every_prompt_once_and_the_others_draw_with_replacement():
    assert reward.resampled(60, 0, generator(0, "member", 0)).tolist() == list(range(60))
    one, other = (reward.resampled(60, m, generator(0, "member", m)).tolist() for m in (1, 2))
    assert one != other
    for drawn in (one, other):
        assert len(drawn) == 60 and set(drawn) <= set(range(60))
        assert 25 < len(set(drawn)) < 50  # 60 (1 - 1/e) = 38


def test_members_that_learn_the_same_prompts_still_begin_with_heads_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setattr(reward, "resampled", lambda n, member, rng: torch.arange(n))
    run_reward(tmp_path, members=2, batch=200, demonstrations="")
    assert saved(tmp_path, "model-0") != saved(tmp_path, "model-1")


def test_members_with_the_same_head_still_learn_other_prompts(tmp_path, monkeypatch):
    monkeypatch.setattr(load, "new_reward", lambda folder, *, seed, plain=load.new_reward, **more: plain(folder, seed=0, **more))
    run_reward(tmp_path, members=2, batch=200, demonstrations="")
    assert saved(tmp_path, "model-0") != saved(tmp_path, "model-1")


def test_the_held_out_loss_is_the_mean_over_held_out_prompts_of_the_mean_over_their_pairs(tmp_path):
    write_groups(tmp_path / "data.jsonl", [group("a b", "ab", "ba"), group("c d", "cd", "dc")])
    write_groups(
        tmp_path / "validation.jsonl", [group("b a", "ab", "ba", "c"), group("d c", "cd", "dc"), group("b d", "c,d", "a")]
    )
    files = {"data": tmp_path / "data.jsonl", "validation": tmp_path / "validation.jsonl", "demonstrations": ""}
    summary = run_reward(tmp_path / "run", noise=0.3, **files)
    judged = json.loads((tmp_path / "run" / "per_prompt.json").read_text())
    assert judged["pairs"] == [3, 1, 2]
    assert_close(torch.tensor(summary["held_out_loss"]), sum(judged["loss"]) / 3)


@pytest.mark.parametrize("too_long", [False, True])
def test_a_held_out_prompt_too_long_to_learn_from_is_not_judged_either(tmp_path, too_long):
    write_groups(tmp_path / "data.jsonl", [group("a b", "ab", "ba"), group("c d", "cd", "dc")])
    write_groups(
        tmp_path / "validation.jsonl", [group("b a", "ab", "ba"), group("a b c d a b" if too_long else "c a", "cd", "dc")]
    )
    files = {"data": tmp_path / "data.jsonl", "validation": tmp_path / "validation.jsonl", "demonstrations": ""}
    summary = run_reward(tmp_path / "run", max_prompt=4, **files)
    assert summary["pair_accuracy"]["n_prompts"] == (1 if too_long else 2)
