"""What PPO draws anew in every round, what it credits in which scale, and what it tells of a round."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from prefloop.errors import RunError
from prefloop.methods import ppo
from prefloop.methods.ppo import Controls, credit, objective, of_both, of_returns
from prefloop.models.batch import RolloutBatch, TokenBatch, take
from prefloop.models.critic import Critic
from prefloop.models.heads import without_dropout
from prefloop.models.sampling import sample
from prefloop.models.scorer import load_scorer
from prefloop.ops.policy import value_loss
from tests.helpers import assert_close
from tests.methods.test_ppo import (
    PTX,
    REFERENCE,
    as_minibatch,
    config,
    critic_of,
    drawn,
    look_at,
    minibatch_for_critics,
    two_answers,
)
from tests.methods.toy import WORLD, gold, history, run_ppo, toy
from tests.models import tiny


def test_every_round_has_prompts_chances_orders_and_text_of_its_own(tmp_path, monkeypatch):
    """Eight prompts in rounds of four; eight answers a round in minibatches of four, twice over."""
    asked, seeds, orders, text = [], [], [], []

    def watched_sample(policy, encoder, prompts, *, seed, **settings):
        asked.append([prompt.id for prompt in prompts])
        seeds.append(seed)
        return sample(policy, encoder, prompts, seed=seed, **settings)

    def watched_take(batch, rows):
        {RolloutBatch: orders, TokenBatch: text}[type(batch)].append(rows.tolist())
        return take(batch, rows)

    monkeypatch.setattr(ppo, "sample", watched_sample)
    monkeypatch.setattr(ppo, "take", watched_take)
    run_ppo(tmp_path, prompts_per_round=4, epochs=2, minibatch=4, text=toy() / "corpus.txt", **PTX)
    assert sorted(asked[0] + asked[1]) == sorted(prompt.id for prompt in WORLD.prompts)
    assert seeds[0] != seeds[1]
    of_updates = orders[1:]  # before them the first minibatch is looked at
    passes = [first + second for first, second in zip(of_updates[::2], of_updates[1::2], strict=True)]
    assert len(passes) == 4 and all(sorted(order) == list(range(8)) for order in passes)
    assert len({tuple(order) for order in [*passes, list(range(8))]}) == 5
    assert len(text) == 8 and len(set(map(tuple, text))) == 8


@pytest.mark.parametrize(("kind", "times"), [("reward", 1), ("policy", 0), ("trunk", 0)])
def test_a_critic_from_the_reward_model_is_scaled_with_the_scores_once_and_the_others_keep_their_zero(
    tmp_path, monkeypatch, kind, times
):
    seen = []

    def watched(critic, gain, bias, plain=Critic.rescale):
        seen.append((gain, bias))
        plain(critic, gain, bias)

    monkeypatch.setattr(Critic, "rescale", watched)
    run_ppo(tmp_path, critic=kind, rounds=3)
    mean, spread = (history(tmp_path)[0][f"objective/{name}"] for name in ("scores", "scores_sd"))
    assert len(seen) == times
    assert_close(torch.tensor(seen), torch.tensor([(1 / spread, -mean / spread)] * times))


def test_credit_goes_to_the_scaled_score_under_the_rule_for_missing_ends_at_the_price_of_the_moment(tmp_path, monkeypatch):
    seen = []

    def watched(samples, score, ref_logprobs, values, *, kl, config):
        seen.append((samples, score, ref_logprobs, kl))
        return credit(samples, score, ref_logprobs, values, kl=kl, config=config)

    monkeypatch.setattr(ppo, "credit", watched)
    settings = {"max_new_tokens": 2, "missing_eos": "replace", "missing_eos_score": 2.5}
    settings |= {"kl": 0.2, "kl_target": 0.05, "kl_horizon": 40.0, "measure": {"gold": "python:tests.methods.toy:gold"}}
    run_ppo(tmp_path, rounds=3, **settings)
    scorer, lines = load_scorer(str(toy() / "reward" / "model")), history(tmp_path)
    raw = [torch.tensor(scorer(samples.prompts, samples.completions)) for samples, *_ in seen]
    gain = 1 / raw[0].std(correction=0)
    assert len({line["kl_price"] for line in lines}) == 3
    for (samples, score, ref_logprobs, kl), own, line in zip(seen, raw, lines, strict=True):
        assert 0 < int(samples.is_finished.sum()) < len(own)
        assert_close(score, torch.where(samples.is_finished, gain * (own - raw[0].mean()), -2.5))
        assert kl == line["kl_price"]
        distance = ((samples.logprobs - ref_logprobs) * (samples.logprobs != 0)).sum(1)
        assert_close(torch.tensor(line["objective/rlhf_reward"]), (score - kl * distance).mean())
        assert_close(line["measure/gold_sd"], float(np.std(gold(samples.prompts, samples.completions))))


@pytest.mark.parametrize("kind", ["reward", "trunk"])
def test_values_are_held_by_the_clip_for_values(kind):
    batch, critic = minibatch_for_critics(), critic_of(kind)
    own = config(clip=0.2, value_clip=0.01)
    weight = batch.weight[:, None] * batch.token_weight
    with torch.no_grad():
        expected, other = (
            value_loss(critic(batch.tokens), batch.old_values, batch.returns, weight, clip=clip).value for clip in (0.01, 0.2)
        )
        found = (
            of_both(critic, batch, config=own).metrics["critic/loss"]
            if kind == "trunk"
            else of_returns(critic, batch, config=own).value
        )
        assert_close(found, expected)
    assert abs(float(expected - other)) > 1e-3


def test_what_is_told_of_a_round_by_hand():
    """Answers of 3 tokens (3.5 nats, log-ratio -0.5) and of 1 (0.25 nats, log-ratio 2); the second has no end."""
    samples = replace(two_answers(), is_finished=torch.tensor([True, False]))
    is_response = torch.tensor([[0, 0, 1, 1, 1], [0, 0, 1, 0, 0]]).bool()
    score = torch.tensor([10.0, -4.0])
    told = objective(samples, score, score, REFERENCE, is_response, Controls(kl=0.1))
    assert_close(told["objective/entropy"], (3.5 + 0.25) / 2)
    assert_close(told["objective/length"], 2.0)
    assert_close(told["val/num_eos_tokens"], 0.5)
    assert_close(torch.tensor(told["objective/kl"]), (-0.5 + 2.0) / 2)
    third = [math.exp(-x) - 1 + x for x in (0.5, -1.0, 0.0, 2.0)]
    assert_close(torch.tensor(told["objective/kl_k3"]), sum(third) / 2)


@pytest.mark.parametrize(("gap", "is_refused"), [(5e-5, False), (2e-4, True)])
def test_a_ratio_may_be_off_by_a_ten_thousandth_and_no_more(gap, is_refused):
    policy = without_dropout(tiny.policy())
    minibatch = as_minibatch(drawn(policy, tiny.encoder(template="plain")))
    shifted = replace(minibatch, old_logprobs=minibatch.old_logprobs - gap * minibatch.is_response)
    if not is_refused:
        look_at(policy, shifted)
        return
    with pytest.raises(RunError, match=r"it must be 1 within 0\.0001"):
        look_at(policy, shifted)
