"""PPO, piece by piece, and whole runs of two rounds: what is earned, who is credited, what is trained, what is exported."""

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from prefloop.engine.learner import Learner, Term
from prefloop.errors import ConfigError, RunError
from prefloop.methods import ppo
from prefloop.methods.ppo import Controls, PPOConfig, credit, earned, logprobs_at, of_both, of_returns, of_rollouts
from prefloop.models.batch import RolloutBatch, Samples
from prefloop.models.critic import Critic, load_critic
from prefloop.models.heads import policy_logprobs, sequence_rewards, without_dropout
from prefloop.models.load import load_policy, load_reward, save_model
from prefloop.models.on_policy import refuse_if_off_policy
from prefloop.models.sampling import sample
from prefloop.ops.logprobs import span_mask
from tests.helpers import assert_close
from tests.methods.toy import WORLD, history, ppo_settings, run_ppo, saved, toy, toy_encoder
from tests.models import tiny

PTX = {"ptx": 0.3, "ptx_rows": 4, "ptx_block": 8}


def config(**settings) -> PPOConfig:
    return PPOConfig.of(**ppo_settings(toy(), **settings))


def two_answers() -> Samples:
    """Prompts of two tokens; an answer of three tokens and one of one, beside it padding."""
    prompts = WORLD.prompts[:2]
    return Samples(
        prompts=prompts,
        completions=(WORLD.completion(0, 1), WORLD.completion(1, 0)),
        tokens=torch.tensor([[2, 3, 2, 3, 1], [3, 4, 1, 0, 0]]),
        prompt_length=torch.tensor([2, 2]),
        length=torch.tensor([5, 3]),
        logprobs=torch.tensor([[0, 0, -1.0, -2.0, -0.5], [0, 0, -0.25, 0, 0]]),
        is_finished=torch.tensor([True, True]),
    )


REFERENCE = torch.tensor([[9.0, 9.0, -1.5, -1.0, -0.5], [9.0, 9.0, -2.25, 9.0, 9.0]])  # what is no answer is never read
LOG_RATIOS = torch.tensor([[0, 0, 0.5, -1.0, 0.0], [0, 0, 2.0, 0, 0]])
NOTHING = torch.zeros(2, 5)


# ------------------------------------------------------------------------------------------------------ what is earned


def test_the_three_rules_for_answers_without_an_end():
    score, is_finished, controls = torch.tensor([2.0, 4.0]), torch.tensor([True, False]), Controls(kl=0.0, gain=2.0, bias=1.0)

    def by_rule(rule: str) -> torch.Tensor:
        return earned(score, is_finished, controls, config(missing_eos=rule, missing_eos_score=3.0))

    assert_close(by_rule("keep"), [5.0, 9.0])
    assert_close(by_rule("replace"), [5.0, -3.0])
    assert_close(by_rule("subtract"), [5.0, 6.0])


def test_scores_are_scaled_to_mean_0_and_variance_1_once():
    controls, score = Controls(kl=0.0), torch.tensor([1.0, 2.0, 3.0, 6.0])
    controls.scale_to(score)
    scaled = earned(score, torch.ones(4, dtype=torch.bool), controls, config())
    assert_close(scaled.mean(), 0.0)
    assert_close((scaled**2).mean(), 1.0)
    assert controls.is_scaled


def test_equal_scores_are_only_centred():
    controls = Controls(kl=0.0)
    controls.scale_to(torch.full((3,), 7.0))
    assert (controls.gain, controls.bias) == (1.0, -7.0)


# ------------------------------------------------------------------------------------------------------ who is credited


def test_each_token_pays_for_its_distance_and_the_last_one_earns_the_score():
    """With lambda 0, no discount and a critic that says 0, the advantage of a token is its own reward."""
    rollouts = credit(two_answers(), torch.tensor([10.0, -4.0]), REFERENCE, NOTHING, kl=0.1, config=config(lam=0.0, whiten=False))
    assert_close(rollouts.advantages, [[0, 0, -0.05, 0.1, 10.0], [0, 0, -4.2, 0, 0]])


def test_the_prices_of_an_answer_add_up_to_beta_times_its_log_ratio():
    """With lambda 1 the first token's advantage is everything that follows."""
    free = credit(two_answers(), torch.zeros(2), REFERENCE, NOTHING, kl=0.1, config=config(lam=1.0, whiten=False))
    assert_close(free.advantages[:, 2], -0.1 * LOG_RATIOS.sum(1))
    with_score = credit(
        two_answers(), torch.tensor([10.0, -4.0]), REFERENCE, NOTHING, kl=0.1, config=config(lam=1.0, whiten=False)
    )
    assert_close(with_score.advantages[:, 2], torch.tensor([10.0, -4.0]) - 0.1 * LOG_RATIOS.sum(1))


def test_returns_are_what_the_critic_should_have_said():
    """lambda 1: rewards from a token on, whatever the critic said; the advantage is the rest."""
    values = torch.tensor([[0, 0, 3.0, 1.0, -1.0], [0, 0, 5.0, 0, 0]])
    rollouts = credit(
        two_answers(), torch.tensor([10.0, -4.0]), REFERENCE, values, kl=0.1, config=config(lam=1.0, gamma=1.0, whiten=False)
    )
    expected = torch.tensor([[0, 0, 10.05, 10.1, 10.0], [0, 0, -4.2, 0, 0]])
    assert_close(rollouts.returns, expected)
    assert_close(rollouts.advantages, expected - values)


def test_whitened_advantages_have_mean_0_and_variance_1_over_the_tokens_of_all_answers():
    rollouts = credit(two_answers(), torch.tensor([10.0, -4.0]), REFERENCE, NOTHING, kl=0.1, config=config())
    of_tokens = rollouts.advantages[rollouts.is_response]
    assert len(of_tokens) == 4
    assert_close(of_tokens.mean(), 0.0)
    assert_close(of_tokens.var(correction=0), 1.0)
    assert_close(rollouts.advantages[~rollouts.is_response], [0.0] * 6)


@pytest.mark.parametrize(
    ("weights", "shares"),
    [("token_mean", [3 / 4, 1 / 4]), ("sequence_mean", [1 / 2, 1 / 2]), ("constant", [3 / 4, 1 / 4])],
)
def test_how_answers_of_three_tokens_and_of_one_share_the_loss(weights, shares):
    rollouts = credit(two_answers(), torch.zeros(2), REFERENCE, NOTHING, kl=0.1, config=config(weights=weights))
    of_rows = rollouts.weight * rollouts.token_weight.sum(1)
    assert_close(of_rows / of_rows.sum(), shares)


# ------------------------------------------------------------------------------------------------------ the first minibatch


def drawn(model, encoder, **settings) -> Samples:
    return sample(model, encoder, tiny.prompts(4), k=2, max_new_tokens=6, seed=3, **settings)


def as_minibatch(samples: Samples) -> RolloutBatch:
    nothing = torch.zeros_like(samples.logprobs)
    is_response = span_mask(samples.prompt_length, samples.length, samples.tokens.shape[1])
    return RolloutBatch(
        tokens=samples.tokens, length=samples.length, is_response=is_response, old_logprobs=samples.logprobs, old_values=nothing,
        advantages=nothing, returns=nothing, token_weight=is_response.float(), weight=torch.ones(len(samples.length)),
    )  # fmt: skip


def look_at(policy: nn.Module, minibatch: RolloutBatch, temperature: float = 1.0) -> None:
    """As a run does before its first update."""
    refuse_if_off_policy(policy, partial(logprobs_at, policy, minibatch), minibatch.old_logprobs, temperature=temperature)


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_answers_a_policy_drew_are_its_own(architecture):
    policy = without_dropout(tiny.policy(architecture))
    minibatch = as_minibatch(drawn(policy, tiny.encoder(template="plain"), temperature=0.7))
    look_at(policy.train(), minibatch, temperature=0.7)


def test_dropout_is_named_as_the_cause():
    policy = tiny.policy("gpt2")
    minibatch = as_minibatch(drawn(policy, tiny.encoder(template="plain")))
    look_at(policy.eval(), minibatch)
    with pytest.raises(RunError, match=r"must be 1 within 0\.0001(.|\n)*likely cause: dropout is on"):
        look_at(policy.train(), minibatch)


def test_low_precision_is_named_as_the_cause():
    minibatch = as_minibatch(drawn(tiny.policy(), tiny.encoder(template="plain")))
    policy: nn.Module = tiny.policy()
    with pytest.raises(RunError, match="likely cause: the weights are not float32"):
        look_at(policy.to(torch.bfloat16), minibatch)


def test_a_sampler_that_ignores_the_temperature_is_found_out_by_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr(ppo, "sample", lambda *given, temperature, **settings: sample(*given, temperature=1.0, **settings))
    with pytest.raises(RunError, match="likely cause: the sampler ignored the temperature"):
        run_ppo(tmp_path / "run", temperature=0.5)
    assert not (tmp_path / "run" / "metrics.jsonl").read_text()


def test_a_sampler_that_filters_is_found_out_by_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr(ppo, "sample", partial(sample, top_k=2))
    with pytest.raises(RunError, match=r"off by up to (.|\n)*filtered distribution \(top-k, top-p\)"):
        run_ppo(tmp_path)


def test_before_the_first_update_the_ratio_is_1_nothing_is_clipped_and_the_loss_is_0(tmp_path):
    """The loss is minus the mean of whitened advantages."""
    run_ppo(tmp_path, rounds=1, epochs=1, minibatch=64, temperature=0.7, normalise=False)
    line = history(tmp_path)[0]
    assert_close(torch.tensor([line["val/ratio"], line["policy/clipfrac_avg"]]), [1.0, 0.0])
    assert_close(torch.tensor([line["policy/approxkl_avg"], line["loss/policy_avg"]]), [0.0, 0.0])
    distances = [line["objective/kl"], line["objective/kl_k3"]]  # the reference has the temperature too
    assert_close(torch.tensor(distances), [0.0, 0.0])


@pytest.mark.parametrize("critic", ["reward", "trunk"])
def test_figures_of_tokens_are_means_over_tokens_under_a_constant_divisor_too(tmp_path, critic):
    """Both weigh all tokens alike; the constant's weights do not sum to one. Figures of an only update are from before it."""
    once = {"rounds": 1, "epochs": 1, "minibatch": 64, "critic": critic}
    for weights in ("token_mean", "constant"):
        run_ppo(tmp_path / weights, weights=weights, **once)
    expected, found = (history(tmp_path / weights)[0] for weights in ("token_mean", "constant"))
    names = ("val/ratio", "ratio_gap", "policy/approxkl_avg", "policy/clipfrac_avg")
    names += ("critic/error", "critic/value", "val/clipfrac_avg")
    assert_close(torch.tensor([found[name] for name in names]), [expected[name] for name in names])
    assert_close(torch.tensor(found["val/ratio"]), 1.0)
    assert found["critic/error"] > 0.01 and abs(found["loss/value_avg"] - expected["loss/value_avg"]) > 1e-3
    assert "counted" not in found


# ------------------------------------------------------------------------------------------------------ the pretraining term


def test_without_ptx_text_is_neither_read_nor_allowed(tmp_path, monkeypatch):
    monkeypatch.setattr(ppo, "pretraining_rows", lambda *given: pytest.fail("read"))
    run_ppo(tmp_path)
    assert not [name for name in history(tmp_path)[0] if "of_text" in name or "ptx" in name]
    with pytest.raises(ConfigError, match="ptx and text go together"):
        config(text=toy() / "corpus.txt")


def test_a_pretraining_term_without_gradient_is_ppo_to_the_last_bit(tmp_path, monkeypatch):
    """So nothing but its gradient reaches the run: no draw, no order, no normalisation."""
    run_ppo(tmp_path / "ppo")
    run_ppo(tmp_path / "ptx", text=toy() / "corpus.txt", **PTX)
    assert saved(tmp_path / "ptx") != saved(tmp_path / "ppo")

    def silent(model, batch, plain=ppo.of_text):
        loss = plain(model, batch)
        return loss._replace(value=0.0 * loss.value)

    monkeypatch.setattr(ppo, "of_text", silent)
    run_ppo(tmp_path / "silent", text=toy() / "corpus.txt", **PTX)
    assert saved(tmp_path / "silent") == saved(tmp_path / "ppo")
    for with_text, without in zip(history(tmp_path / "silent"), history(tmp_path / "ppo"), strict=True):
        assert {name: with_text[name] for name in without} == without


def gradient_of(learner: Learner, term: Term) -> list[torch.Tensor]:
    """The gradient of one term alone, its rows' weights summing to one."""
    batch = replace(term.batch, weight=term.batch.weight / term.batch.weight.sum())
    value = term.loss(learner.model, batch).value
    return list(torch.autograd.grad(value, list(learner.trained.values()), materialize_grads=True))


@pytest.mark.parametrize("critic", ["policy", "trunk"])
def test_a_step_follows_the_ppo_gradient_plus_ptx_times_that_of_the_text_and_there_is_one_step_a_minibatch(
    tmp_path, monkeypatch, critic
):
    seen = []

    def watched(learner, *terms, plain=Learner.step, **settings):
        if len(terms) == 1:  # the critic's
            return plain(learner, *terms, **settings)
        expected = [a + 0.3 * b for a, b in zip(*(gradient_of(learner, term) for term in terms), strict=True)]
        before, followed = learner.n_steps, []
        update = learner.update

        def noting() -> float:
            followed.extend(p.grad.clone() for p in learner.trained.values())
            return update()

        monkeypatch.setattr(learner, "update", noting)
        metrics = plain(learner, *terms, **settings)
        monkeypatch.setattr(learner, "update", update)
        seen.append((expected, followed, learner.n_steps - before, [term.scale for term in terms], metrics))
        return metrics

    monkeypatch.setattr(Learner, "step", watched)
    run_ppo(tmp_path, rounds=1, epochs=2, critic=critic, text=toy() / "corpus.txt", optim={"grad_clip": 0.0}, **PTX)
    assert len(seen) == 2 * 16 / 8  # epochs, answers, minibatch
    for expected, followed, steps, scales, _ in seen:
        assert (steps, scales) == (1, [1.0, 0.3])
        for own, other in zip(followed, expected, strict=True):
            assert_close(own, other)
    own, other = (seen[0][4][f"grad_norm/{index}"] for index in (0, 1))
    assert_close(history(tmp_path)[0]["grad_norm/ptx_over_ppo"], other / own)


# ------------------------------------------------------------------------------------------------------ the price of distance


def test_the_price_follows_the_distance_as_ziegler_has_it(tmp_path):
    run_ppo(tmp_path, rounds=4, kl=0.2, kl_target=0.05, kl_horizon=40.0, optim={"lr": 5e-3})
    lines = history(tmp_path)
    price = 0.2
    for line in lines:
        assert_close(line["kl_price"], price)
        error = max(-0.2, min(0.2, line["objective/kl"] / 0.05 - 1))
        price *= 1 + error * 16 / 40
    assert lines[-1]["kl_price"] != 0.2


def test_without_a_target_it_stays(tmp_path):
    run_ppo(tmp_path, kl=0.2)
    assert [line["kl_price"] for line in history(tmp_path)] == [0.2, 0.2]


# ------------------------------------------------------------------------------------------------------ the critic


def whole() -> tuple[torch.Tensor, torch.Tensor]:
    """Conversations as tokens, with a column to spare after each."""
    encoder = toy_encoder()
    shown = WORLD.demonstrations(6, seed=8)
    tokens, length = encoder.text_batch(encoder.conversations([d.prompt for d in shown], [d.completion.text for d in shown]))
    return torch.cat([tokens, torch.zeros_like(tokens[:, :1])], 1), length


def critic_of(kind: Any, policy: nn.Module | None = None) -> Critic:
    policy = policy or load_policy(toy() / "sft" / "model")
    return load_critic(kind, policy, str(toy() / "sft" / "model"), str(toy() / "reward" / "model"), seed=0, device="cpu")


@torch.no_grad()
def test_a_critic_from_the_reward_model_gives_a_whole_answer_its_score():
    tokens, length = whole()
    model = load_reward(toy() / "reward" / "model")
    score = sequence_rewards(model, tokens, length) - model.config.prefloop_reward_shift
    critic = critic_of("reward")
    rows = torch.arange(len(length))
    assert_close(critic(tokens)[rows, length], score)
    critic.rescale(3.0, -0.5)
    assert_close(critic(tokens)[rows, length], 3.0 * score - 0.5)


@torch.no_grad()
def test_rescaling_moves_every_value_exactly():
    tokens, _ = whole()
    critic = critic_of("reward")
    before = critic(tokens)
    critic.rescale(0.25, 2.0)
    assert_close(critic(tokens)[:, 1:], 0.25 * before[:, 1:] + 2.0)
    assert_close(critic(tokens)[:, 0], [0.0] * len(tokens))


@pytest.mark.parametrize("kind", ["policy", "trunk"])
@torch.no_grad()
def test_a_critic_without_a_reward_model_says_0_at_the_start(kind):
    tokens, _ = whole()
    assert_close(critic_of(kind)(tokens), torch.zeros(tokens.shape))


def minibatch_for_critics() -> RolloutBatch:
    tokens, length = whole()
    is_response = span_mask(torch.full_like(length, 2), length, tokens.shape[1])
    draw = partial(torch.randn, tokens.shape, generator=torch.Generator().manual_seed(2))
    return RolloutBatch(
        tokens=tokens, length=length, is_response=is_response, old_logprobs=-draw().abs(), old_values=draw(), advantages=draw(),
        returns=draw(), token_weight=is_response / length[:, None], weight=torch.ones(len(length)),
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["reward", "policy"])
def test_a_critic_of_its_own_shares_nothing_with_the_policy(kind):
    policy = load_policy(toy() / "sft" / "model")
    critic = critic_of(kind, policy)
    assert not {p.data_ptr() for p in critic.parameters()} & {p.data_ptr() for p in policy.parameters()}
    with torch.no_grad():
        critic.value_head.weight.fill_(0.1)  # a head of zeros sends nothing down
    of_returns(critic, minibatch_for_critics(), config=config()).value.backward()
    assert all(p.grad is None for p in policy.parameters())
    assert all(p.grad is not None and bool(p.grad.any()) for p in critic.trunk.parameters() if p.dim() > 1 and p.shape[0] != 7)


def test_on_a_shared_trunk_the_value_loss_reaches_the_policy():
    policy = load_policy(toy() / "sft" / "model")
    critic, batch = critic_of("trunk", policy), minibatch_for_critics()
    with torch.no_grad():
        critic.value_head.weight.fill_(0.1)
    trunk = [p for name, p in policy.named_parameters() if "layers" in name]
    together = torch.autograd.grad(of_both(critic, batch, config=config(value_weight=0.1)).value, trunk)
    alone = torch.autograd.grad(of_rollouts(policy, batch, config=config()).value, trunk)
    of_values = torch.autograd.grad(of_returns(critic, batch, config=config()).value, trunk)
    for whole_gradient, of_policy, of_value in zip(together, alone, of_values, strict=True):
        assert bool(of_value.any())
        assert_close(whole_gradient, of_policy + 0.1 * of_value)


def test_the_critics_of_a_run_learn(tmp_path):
    for kind in ("reward", "policy"):
        rates = {"optim": {"lr": 1e-6}, "critic_optim": {"lr": 5e-3}}
        run_ppo(tmp_path / kind, critic=kind, rounds=3, k=8, minibatch=32, epochs=4, **rates)
        lines = history(tmp_path / kind)
        assert lines[-1]["val/explained_variance"] > lines[0]["val/explained_variance"]


# ------------------------------------------------------------------------------------------------------ what is exported


def test_the_average_is_exported_where_there_is_one_and_the_last_weights_where_there_is_none(tmp_path):
    """After a single update the average is decay * start + (1 - decay) * updated."""
    single = {"rounds": 1, "epochs": 1, "minibatch": 64, "optim": {"lr": 1e-2, "warmup": 0}}
    last = run_ppo(tmp_path / "last", **single)
    average = run_ppo(tmp_path / "average", ema=0.75, **single)
    assert (last["weights"], average["weights"]) == ("last round", "exponential moving average")
    said = "figures: of the last round's answers, drawn before its updates"  # those of other weights than the exported
    assert last["figures"] == said.removeprefix("figures: ") and said in (tmp_path / "last" / "model" / "README.md").read_text()
    start, updated, averaged = (
        load_file(folder / "model.safetensors")
        for folder in (toy() / "sft" / "model", tmp_path / "last" / "model", tmp_path / "average" / "model")
    )
    for name in start:
        assert_close(averaged[name], 0.75 * start[name] + 0.25 * updated[name])
    assert any(bool((updated[name] != start[name]).any()) for name in start)


def test_training_goes_on_from_the_raw_weights(tmp_path):
    """The average follows; it is never what answers are drawn from."""
    run_ppo(tmp_path / "last", rounds=3)
    run_ppo(tmp_path / "average", rounds=3, ema=0.9)
    assert history(tmp_path / "last") == history(tmp_path / "average")
    assert saved(tmp_path / "last") != saved(tmp_path / "average")


def test_what_is_measured_never_reaches_the_policy(tmp_path):
    run_ppo(tmp_path / "alone")
    run_ppo(tmp_path / "gold", measure={"gold": "python:tests.methods.toy:gold"})
    run_ppo(
        tmp_path / "other", measure={"gold": "python:tests.methods.toy:drawing", "more": "python:tests.methods.toy:against_gold"}
    )
    assert saved(tmp_path / "alone") == saved(tmp_path / "gold") == saved(tmp_path / "other")
    for alone, gold, other in zip(*(history(tmp_path / name) for name in ("alone", "gold", "other")), strict=True):
        assert alone == without_measures(gold) == without_measures(other)
        assert_close(gold["measure/gold"], -other["measure/more"])
    run_ppo(tmp_path / "rewarded", reward="python:tests.methods.toy:gold", critic="policy")
    assert saved(tmp_path / "rewarded") != saved(tmp_path / "alone")


def without_measures(line: dict) -> dict:
    return {name: value for name, value in line.items() if not name.startswith("measure/")}


def test_gold_of_the_world_is_no_reward():
    with pytest.raises(ConfigError, match=r"the world's gold, which no training may see; .* measure\.gold=world:en"):
        config(reward="world:en")


# ------------------------------------------------------------------------------------------------------ the round


def test_rounds_that_do_not_come_out_even_are_counted_as_they_are(tmp_path):
    """Eight prompts in rounds of three: 3, 3, 2, and again."""
    summary = run_ppo(
        tmp_path, rounds=5, prompts_per_round=3, k=2, minibatch=4, epochs=1, optim={"schedule": "linear", "warmup": 0}
    )
    lines = history(tmp_path)
    assert [line["episode"] for line in lines] == [6, 12, 16, 22, 28]
    assert summary["episodes"] == 28
    assert config(rounds=5, prompts_per_round=3, k=2, minibatch=4, epochs=1).plan(8).steps == 2 + 2 + 1 + 2 + 2
    assert lines[-1]["lr"] < lines[0]["lr"] / 2


def test_the_split_of_the_reward_adds_up(tmp_path):
    run_ppo(tmp_path, normalise=False, missing_eos="keep", kl=0.3, optim={"lr": 5e-3})
    line = history(tmp_path)[-1]
    assert_close(torch.tensor(line["objective/rlhf_reward"]), line["objective/scores"] + line["objective/non_score_reward"])
    assert_close(torch.tensor(line["objective/non_score_reward"]), -0.3 * line["objective/kl"])
    assert line["objective/kl_k3"] > 0


def test_a_reference_with_other_tokens_is_refused(tmp_path):
    other = tmp_path / "other"
    save_model(tiny.policy(), tiny.tokenizer(), other, card={})
    with pytest.raises(ConfigError, match=r"reference= needs .* to share a tokenizer, and they do not"):
        run_ppo(tmp_path / "run", reference=other)


def test_the_distance_is_measured_from_the_reference_at_the_temperature_of_the_answers(tmp_path, monkeypatch):
    seen = []

    def watched(samples, score, ref_logprobs, values, **settings):
        seen.append((samples, ref_logprobs))
        return credit(samples, score, ref_logprobs, values, **settings)

    monkeypatch.setattr(ppo, "credit", watched)
    run_ppo(tmp_path, rounds=1, reference=toy() / "base", temperature=0.6)
    samples, ref_logprobs = seen[0]
    is_response = span_mask(samples.prompt_length, samples.length, samples.tokens.shape[1])
    with torch.no_grad():
        expected = policy_logprobs(load_policy(toy() / "base"), samples.tokens, is_response, temperature=0.6)
    assert_close(ref_logprobs, expected)
    assert_close(torch.tensor(history(tmp_path)[0]["objective/kl"]), (samples.logprobs - expected).sum(1).mean())
    assert history(tmp_path)[0]["objective/kl_k3"] > 0.1
