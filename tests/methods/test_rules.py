"""Rules: a loss by hand, rules whose truth is known, chances that add up to the reward, what is refused."""

import json
import math

import numpy as np
import pytest
import torch
from torch import tensor

from prefloop.data.rules import Rule, chance, penalty, read_rules, under
from prefloop.data.write import write_groups
from prefloop.errors import ConfigError, DataError
from prefloop.methods.rules import auc, by_rule, encoded, verdicts
from prefloop.models.scorer import load_scorer
from prefloop.ops.rules import violation_loss
from prefloop.records import Completion, Group, Message, Prompt, Rating
from tests.helpers import assert_close
from tests.methods.toy import WORLD, breaks, history, rated, run_rules, toy, toy_encoder

DOUBLE = torch.float64


# ------------------------------------------------------------------------------------------------------------ the loss


def test_the_loss_is_cross_entropy_by_hand_with_its_slope():
    logit = tensor([0.0, 2.0, -1.0], dtype=DOUBLE, requires_grad=True)
    is_broken, weight = tensor([True, False, True]), tensor([0.5, 0.25, 0.25], dtype=DOUBLE)
    loss = violation_loss(logit, is_broken, weight)
    p = [1 / (1 + math.exp(-z)) for z in (0.0, 2.0, -1.0)]
    assert_close(loss.value, -(0.5 * math.log(p[0]) + 0.25 * math.log(1 - p[1]) + 0.25 * math.log(p[2])))
    (slope,) = torch.autograd.grad(loss.value, logit)
    assert_close(slope, [0.5 * (p[0] - 1), 0.25 * p[1], 0.25 * (p[2] - 1)])
    assert_close(loss.metrics["broken"], 0.75)
    assert_close(loss.metrics["predicted"], 0.25)
    assert_close(loss.metrics["accuracy"], 0.0)  # 0 is no alarm, 2 is a false one, -1 a missed one


def test_a_logit_of_any_size_costs_a_number():
    logit = tensor([1e4, -1e4], dtype=DOUBLE, requires_grad=True)
    loss = violation_loss(logit, tensor([False, True]), torch.ones(2, dtype=DOUBLE))
    assert_close(loss.value, 2e4)
    assert torch.autograd.grad(loss.value, logit)[0].tolist() == [1.0, -1.0]
    assert [chance(z) for z in (0.0, 1e4, -1e4)] == [0.5, 1.0, 0.0]


def test_the_penalty_is_the_weighted_sum_of_the_chances():
    rules = [Rule("a", "A", 1.0), Rule("b", "B", 2.5), Rule("c", "C", 0.0)]
    assert_close(penalty([0.2, 0.4, 1.0], rules), 0.2 + 2.5 * 0.4)


def test_auc_is_the_chance_that_a_broken_one_scores_above_a_kept_one():
    assert_close(auc(np.array([3.0, 1.0]), np.array([0.0, 2.0, 1.0])), (3 + 1 + 0.5) / 6)
    assert auc(np.array([]), np.array([1.0])) is None


# ------------------------------------------------------------------------------------------------------------ the data


PROMPT = Prompt.of("a b")
RULES = [Rule("bangs", "!", 1.0), Rule("sees", "c", 2.0)]


def rating(answer: Completion, value: float, *, question: str = "bangs", supersedes: str = "") -> Rating:
    return Rating(completion_id=answer.id, question=question, scale=(0, 1), value=value, annotator="ada", supersedes=supersedes)


def test_a_verdict_is_a_rating_of_a_rule_that_nobody_corrected_and_somebody_was_sure_of():
    answers = [Completion.of(PROMPT, text) for text in ("!", "a", "b")]
    wrong = rating(answers[0], 0.0)
    said = [
        wrong,
        rating(answers[0], 1.0, supersedes=wrong.id),
        rating(answers[1], 0.5),
        rating(answers[2], 1.0, question="good?"),
    ]
    (only,) = verdicts([Group(prompt=PROMPT, completions=tuple(answers), ratings=tuple(said))], RULES)
    assert (only.rule.id, only.completion.text, only.is_broken) == ("bangs", "!", True)


def test_the_rule_stands_before_the_conversation():
    asked = under(RULES[1], PROMPT)
    assert [(m.role, m.content) for m in asked.messages] == [("system", "c\n"), ("user", "a b")]
    assert PROMPT.messages == (Message(role="user", content="a b"),)


def test_balanced_broken_and_kept_weigh_the_same_within_each_rule():
    groups = rated(WORLD.groups(WORLD.demonstration_logprobs, 20, k=4, seed=0))
    said = verdicts(groups, RULES)
    weight = encoded(toy_encoder(), said, balance=True).weight.double().numpy()
    for rule in ("bangs", "sees"):
        sums = [
            sum(w for one, w in zip(said, weight, strict=True) if one.rule.id == rule and one.is_broken is side)
            for side in (True, False)
        ]
        assert_close(np.float32(sums), [1.0, 1.0])
    assert set(encoded(toy_encoder(), said, balance=False).weight.tolist()) == {1.0}


# ------------------------------------------------------------------------------------------------------------ a run


def test_rules_whose_truth_is_known_are_learned_and_their_chances_add_up_to_the_reward(tmp_path):
    summary = run_rules(tmp_path / "run", epochs=4, held_out=0.2, seed=1, optim={"lr": 3e-3})
    assert {name: told["auc"] > 0.97 for name, told in summary["rules"].items()} == {"bangs": True, "sees": True}
    assert all(told["log_loss"] < 0.25 for told in summary["rules"].values())
    assert history(tmp_path / "run")[-1]["loss"] < history(tmp_path / "run")[0]["loss"]

    folder = tmp_path / "run" / "model"
    prompts = [WORLD.prompts[0]] * 4
    answers = [Completion.of(prompts[0], text) for text in ("a b", "! b", "a c", "! c")]
    reward = load_scorer(f"rules:{folder}")(prompts, answers)
    assert reward[0] > reward[1] > reward[2] > reward[3]  # nothing broken, a rule of weight 1, one of 2, both
    assert_close(np.round(reward), [0.0, -1.0, -2.0, -3.0])
    rules = read_rules(folder / "rules.yaml")
    logit = {rule.id: load_scorer(str(folder))([under(rule, p) for p in prompts], answers) for rule in rules}
    assert_close(reward, [-penalty([chance(logit[rule.id][i]) for rule in rules], rules) for i in range(4)])
    alone = load_scorer("python:tests.methods.toy:gold")(prompts, answers)
    both = load_scorer(f"python:tests.methods.toy:gold + 0.5*rules:{folder}")(prompts, answers)
    assert_close(both, [x + 0.5 * y for x, y in zip(alone, reward, strict=True)])
    assert load_scorer(f"python:tests.methods.toy:gold + 0*rules:{folder}")(prompts, answers) == alone  # without a price, no rule
    assert load_scorer(f"rules:{folder}")([], []) == []


def test_the_truth_of_the_toys_rules():
    assert [breaks("bangs", text) for text in ("a !", "a b")] == [True, False]
    assert [breaks("sees", text) for text in ("a c", "a b a")] == [True, False]
    said = verdicts(rated(WORLD.groups(WORLD.demonstration_logprobs, 200, k=4, seed=0)), RULES)
    table = by_rule(said, np.array([1.0 if one.is_broken else -1.0 for one in said]))
    assert all((told["auc"], told["precision"], told["recall"]) == (1.0, 1.0, 1.0) for told in table.values())
    assert all(0.02 < told["broken"] < 0.98 for told in table.values())


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_ratings_of_one_side_alone_are_refused(tmp_path, value):
    groups = [Group(prompt=p, completions=(c := Completion.of(p, "a"),), ratings=(rating(c, value),)) for p in WORLD.prompts]
    write_groups(tmp_path / "ratings.jsonl", groups)
    with pytest.raises(DataError, match=f"8 times, {8 * int(value)} of them as broken: both sides are needed"):
        run_rules(tmp_path / "run", data=str(tmp_path / "ratings.jsonl"))


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("", "holds no rule"),
        ("digits: no digits\n", "the rule digits is 'no digits'"),
        ("a: {txt: x}\n", "txt"),
        ("a: {text: x, weight: -1}\n", "weight"),
    ],
)
def test_rules_that_are_none_are_refused(tmp_path, written, told):
    (tmp_path / "rules.yaml").write_text(written)
    with pytest.raises(ConfigError, match=told):
        read_rules(tmp_path / "rules.yaml")


def test_the_rules_go_with_the_model(tmp_path):
    run_rules(tmp_path / "run", epochs=1, batch=400)
    assert read_rules(tmp_path / "run" / "model" / "rules.yaml") == read_rules(toy() / "rules.yaml")
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["ratings"] == 1600
