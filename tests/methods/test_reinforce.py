"""Policy gradients without a critic: every method climbs, rules for groups that teach nothing, weights, rewards, what is refused."""

import numpy as np
import pytest
import torch

from prefloop.errors import ConfigError, RunError
from prefloop.methods import reinforce
from prefloop.methods.reinforce import ReinforceConfig, credit, grouped, lengths_by_sign
from prefloop.models.load import load_policy
from prefloop.models.sampling import sample
from tests.helpers import assert_close
from tests.methods.toy import WORLD, history, run_reinforce, table, toy, toy_encoder

GOLD = "python:tests.methods.toy:gold"
METHODS = ["rloo", "grpo", "dr_grpo", "dapo", "reinforce++"]


def config(**settings) -> ReinforceConfig:
    return ReinforceConfig.of(**{"model": "m", "reward": GOLD, "prompts": "p", **settings})


@pytest.mark.parametrize("method", METHODS)
def test_every_method_climbs(tmp_path, method):
    run_reinforce(tmp_path, method=method, reward=GOLD, rounds=10, k=16, minibatch=64, missing_eos="keep", optim={"lr": 3e-3})
    start, learned = table(toy() / "sft" / "model"), table(tmp_path / "model")
    before, after = (float((np.exp(policy) * WORLD.rewards).sum(1).mean()) for policy in (start, learned))
    assert after > before + 0.3
    assert history(tmp_path)[-1]["objective/kl_k3"] > 0.01


@pytest.mark.parametrize("method", METHODS)
def test_on_the_first_update_of_a_round_the_ratio_is_one_and_nothing_is_clipped(tmp_path, method):
    run_reinforce(tmp_path, method=method, rounds=1, minibatch=32)
    first = history(tmp_path)[0]
    assert_close(np.float32(first["val/ratio"]), 1.0)
    assert first["policy/clipfrac_avg"] == 0


def equal(prompts, completions) -> list[float]:
    return [0.5] * len(completions)


def test_equal_scores_move_nothing(tmp_path):
    run_reinforce(tmp_path, reward="python:tests.methods.test_reinforce:equal", method="grpo", kl=0.0, rounds=1)
    line = history(tmp_path)[0]
    assert line["groups/equal"] == 8 and line["groups/informative"] == 0
    assert line["grad_norm"] == 0


def test_lengths_are_told_apart_by_what_was_rewarded():
    """By hand: of the first prompt 3 and 5 tokens are above the mean of 2, 7 below; the second has equal scores and says nothing."""
    length = torch.tensor([[3.0, 5.0, 7.0], [100.0, 200.0, 300.0]])
    score = torch.tensor([[2.5, 3.0, 0.5], [0.1, 0.1, 0.1]])
    told = lengths_by_sign(length, score)
    assert told == {"objective/length_of_better": 4.0, "objective/length_of_worse": 7.0}
    assert lengths_by_sign(length[1:], score[1:]) == {}


def test_a_reward_of_length_shows_in_the_lengths_and_equal_scores_in_neither(tmp_path):
    run_reinforce(tmp_path / "long", reward="python:tests.evaluate.scorers:words", rounds=1)
    line = history(tmp_path / "long")[0]
    assert line["objective/length_of_better"] > line["objective/length"] > line["objective/length_of_worse"]
    assert line["objective/advantage_sd"] > 0
    run_reinforce(tmp_path / "equal", reward="python:tests.methods.test_reinforce:equal", rounds=1)
    assert "objective/length_of_better" not in history(tmp_path / "equal")[0]


def test_dapo_leaves_prompts_with_equal_scores_out_and_counts_them(tmp_path):
    run_reinforce(tmp_path, reward="python:tests.methods.test_reinforce:equal", method="dapo", rounds=1)
    line = history(tmp_path)[0]
    assert line["groups/equal"] == 8
    assert "loss/policy_avg" not in line, "there was nothing to update on"


def test_several_rewards_are_summed_with_their_weights(tmp_path):
    both = {GOLD: 1.0, "python:tests.methods.toy:against_gold": 0.25}
    run_reinforce(tmp_path / "both", reward=both, rounds=1)
    run_reinforce(tmp_path / "one", reward=GOLD, rounds=1)
    line, alone = history(tmp_path / "both")[0], history(tmp_path / "one")[0]
    assert_close(np.float32(line["objective/scores"]), 0.75 * alone["objective/scores"])
    assert_close(np.float32(line[f"rewards/{GOLD}"]), alone["objective/scores"])


def drawn(k: int = 3):
    policy, encoder = load_policy(toy() / "sft" / "model"), toy_encoder()
    return sample(policy, encoder, WORLD.prompts[:4], k=k, max_new_tokens=WORLD.n_steps - 1, seed=5)


def test_answers_side_by_side_keep_their_tokens_and_log_probabilities():
    samples = drawn()
    ranked, old = grouped(samples, 3)
    for row in range(12):
        p, k = divmod(row, 3)
        start, end = int(samples.prompt_length[row]), int(samples.length[row])
        assert ranked.prompt[p, : ranked.prompt_length[p]].tolist() == samples.tokens[row, :start].tolist()
        assert ranked.completion[p, k, : end - start].tolist() == samples.tokens[row, start:end].tolist()
        assert_close(old[p, k, : end - start], samples.logprobs[row, start:end])
        assert float(old[p, k, end - start :].abs().sum()) == 0


def some_scores():
    return torch.randn(4, 3, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("weights", ["sequence_mean", "token_mean", "constant"])
def test_how_tokens_share_the_loss(weights):
    ranked, old = grouped(drawn(), 3)
    made = credit(ranked, some_scores(), old, old, config(method="grpo", weights=weights, max_new_tokens=9))
    share = made.weight[:, None, None] * made.token_weight  # P K T
    share = share / made.weight.sum()
    lengths = ranked.completion_length.float()
    expected = {
        "sequence_mean": (1 / 12 / lengths)[:, :, None],
        "token_mean": torch.full((1, 1, 1), 1 / float(lengths.sum())),
        "constant": torch.full((1, 1, 1), 1 / 12 / 9),
    }[weights]
    is_token = torch.arange(share.shape[2]) < lengths[:, :, None]
    assert_close(share, expected * is_token)


def test_the_price_of_distance_is_taken_off_rloos_reward():
    ranked, old = grouped(drawn(), 3)
    score, shifted = some_scores(), old - 0.5 * (old != 0)
    made = credit(ranked, score, old, shifted, config(method="rloo", kl=0.2))
    distance = 0.5 * (old != 0).sum(2)
    earned = score - 0.2 * distance
    others = (earned.sum(1, keepdim=True) - earned) / 2
    assert_close(made.advantages[:, :, 0], earned - others)


def test_names_set_their_usual_numbers_and_what_is_stated_wins():
    assert (config(method="dapo").clip_high, config(method="dapo").weights, config(method="dapo").kl) == (0.28, "token_mean", 0.0)
    assert config(method="dr_grpo").weights == "constant"
    assert config(method="grpo").kl == 0.04
    assert config(method="grpo", kl=0.5, weights="token_mean").kl == 0.5


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"k": 1}, "one answer has nothing to be compared with"),
        ({"k": 8, "minibatch": 4}, "the answers of a prompt stay together"),
        ({"method": "grpo", "baseline": True}, r"baseline belongs to reinforce\+\+"),
        ({"method": "rloo", "weights": "token_mean"}, "does nothing in rloo"),
        ({"reward": "world:en"}, "which no training may see"),
        ({"reward": {"r": 1.0, "world:en": 1.0}}, "which no training may see"),
    ],
)
def test_what_would_learn_nothing_or_be_ignored_is_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        config(**settings)


def test_answers_the_policy_would_not_give_are_refused_with_the_cause(tmp_path, monkeypatch):
    honest = reinforce.sample
    monkeypatch.setattr(reinforce, "sample", lambda *args, **settings: honest(*args, **{**settings, "temperature": 1.0}))
    with pytest.raises(RunError, match="the sampler ignored the temperature"):
        run_reinforce(tmp_path, temperature=0.5)
