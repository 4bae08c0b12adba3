"""Reward models on fresh answers and synthetic pairs by confidence: shown where a study asked, in both languages."""

from typing import Any

import pytest

from prefloop.report.page import render
from tests.report.example import NO_PLOTS, figure, pair, study
from tests.report.reading import Page


def row(policy: str, reward: str, accuracy: float) -> dict[str, Any]:
    figures = {"accuracy": figure(accuracy, 0.0625), "loss": figure(0.65625, 0.03125), "overconfidence": figure(0.125, 0.0625)}
    return {"policy": policy, "reward": reward, **figures}


ASKED: dict[str, Any] = {
    "fresh": [row("sft", "reward", 0.75), row("ppo", "reward", 0.5), row("ppo", "spg_reward", 0.625)],
    "fresh_pairs": [
        {**pair("spg_reward", "reward", 0.125, 0.0625, "accuracy"), "policy": "ppo"},
        {**pair("spg_reward", "reward", 0.0, 0.0625, "accuracy"), "policy": "sft"},
        {**pair("spg_reward", "reward", -0.25, 0.125, "overconfidence"), "policy": "ppo"},
    ],
    "synthetic": [
        {"name": "spg_reward", "low": None, "high": None, "n": 40, "accuracy": figure(0.75), "gap": figure(0.5)},
        {"name": "spg_reward", "low": 0.5, "high": 0.7, "n": 30, "accuracy": figure(0.6875, 0.125), "gap": figure(0.25)},
        {"name": "spg_reward", "low": 0.9, "high": None, "n": 0, "accuracy": None, "gap": None},
    ],
}


@pytest.fixture(scope="module")
def text() -> str:
    return Page(render(study(**ASKED, **NO_PLOTS))).text


def test_every_reward_model_stands_beside_every_policy_whose_answers_it_judged(text: str):
    assert "SFT reward 75.0% [68.8, 81.2] · n 300 0.656 [0.625, 0.688] 12.5% [6.2, 18.8]" in text
    assert "PPO spg_reward 62.5% [56.2, 68.8] · n 300" in text


def test_an_order_is_claimed_on_the_answers_of_a_policy_only_where_the_interval_excludes_0(text: str):
    assert "On answers of PPO: spg_reward is above reward in accuracy by gold: +12.5 [6.2, 18.8] points, 300 prompts." in text
    assert "On answers of SFT: spg_reward and reward are not separated in accuracy by gold: +0.0 [−6.2, 6.2] points" in text
    assert "PPO spg_reward − reward overconfidence −25.0 [−37.5, −12.5] points 300 prompts below" in text


def test_synthetic_pairs_are_counted_by_confidence(text: str):
    assert "spg_reward learned from 40 75.0% [65.0, 85.0] 0.50 [0.40, 0.60]" in text
    assert "spg_reward 0.5 – < 0.7 30 68.8% [56.2, 81.2] 0.25 [0.15, 0.35]" in text
    assert "spg_reward ≥ 0.9 0 not measured not measured" in text


def test_a_study_that_did_not_ask_has_no_such_section_and_one_that_did_says_it_in_chinese_too():
    without = render(study(**NO_PLOTS))
    assert 'id="fresh"' not in without and "Reward models on fresh answers" not in without
    chinese = Page(render(study(**ASKED, **NO_PLOTS), lang="zh")).text
    assert "新回答上的奖励模型" in chinese and "在 PPO 的回答上：" in chinese and "用于学习的" in chinese
    halves = render(study(synthetic=ASKED["synthetic"], **NO_PLOTS))
    assert 'id="fresh"' in halves and "Synthetic preferences by confidence" in Page(halves).text
