"""Policies side by side: distance by enumeration, wins, best-of-n, and the names of the table."""

import json
import math
from itertools import pairwise
from statistics import NormalDist

import numpy as np
import pytest
import torch
from transformers import GraniteConfig, GraniteForCausalLM

from prefloop.errors import ConfigError
from prefloop.evaluate import over_seeds
from prefloop.evaluate.policies import PoliciesConfig, best, distances, drawn, main, share_won
from prefloop.models.heads import head_is_plain, policy_logprobs
from prefloop.models.load import load_policy, save_model
from prefloop.models.sampling import sample
from prefloop.ops.logprobs import span_mask
from prefloop.stats.best_of_n import best_of_n_kl
from prefloop.stats.intervals import mean_interval
from prefloop.world.toy import kl
from tests.helpers import assert_close
from tests.methods.toy import WORLD, gold, options, plain, table, toy, toy_encoder
from tests.models import tiny

GOLD = "python:tests.methods.toy:gold"


def settings(**own) -> dict:
    policies = {"base": str(toy() / "base"), "sft": str(toy() / "sft" / "model")}
    common = {"policies": policies, "prompts": toy() / "prompts.jsonl", "gold": GOLD, "max_new_tokens": WORLD.n_steps - 1}
    return plain({**common, **own})


def evaluated(out, **own) -> dict:
    return main(PoliciesConfig.of(**settings(**own)), options(out))


def row(summary: dict, name: str) -> dict:
    return next(row for row in summary["rows"] if row["name"] == name)


# ------------------------------------------------------------------------------------------------------ distance


def test_the_distance_is_that_of_all_answers_written_down():
    """Within four standard errors, on each prompt and on all together; ToyWorld's answers are all there are."""
    exact = kl(table(toy() / "sft" / "model"), table(toy() / "base"))
    policy, base = load_policy(toy() / "sft" / "model"), load_policy(toy() / "base")
    config, k = PoliciesConfig.of(**settings(k=1)), 250
    samples = drawn(policy, toy_encoder(), list(WORLD.prompts), config, k=k, seed=11)
    by_answer = np.reshape(distances(policy, base, samples, config), (len(WORLD.prompts), k))
    error = by_answer.std(1, ddof=1) / math.sqrt(k)
    assert exact.min() > 0.1
    assert (np.abs(by_answer.mean(1) - exact) < 4 * error).all()
    assert abs(by_answer.mean() - exact.mean()) < 4 * math.sqrt((error**2).sum()) / len(exact)


def test_it_varies_less_than_the_log_ratio_that_has_the_same_mean():
    policy, base = load_policy(toy() / "sft" / "model"), load_policy(toy() / "base")
    config = PoliciesConfig.of(**settings(k=1))
    samples = drawn(policy, toy_encoder(), list(WORLD.prompts), config, k=100, seed=5)
    is_response = span_mask(samples.prompt_length, samples.length, samples.tokens.shape[1])
    with torch.no_grad():
        log_ratio = (samples.logprobs - policy_logprobs(base, samples.tokens, is_response, temperature=1.0)).sum(1).numpy()
    assert np.std(distances(policy, base, samples, config)) < np.std(log_ratio)


def token_kl_by_hand(model, baseline, samples, temperature: float) -> list[float]:
    """From the models' own logits, one row at a time, in float64."""
    totals = []
    for tokens, start, end in zip(samples.tokens, samples.prompt_length, samples.length, strict=True):
        with torch.no_grad():
            logits, under = (side(tokens[None, :end]).logits[0].double() / temperature for side in (model, baseline))
        p, q = logits[start - 1 : end - 1].log_softmax(-1), under[start - 1 : end - 1].log_softmax(-1)
        totals.append(float((p.exp() * (p - q)).sum()))
    return totals


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_the_distance_of_an_answer_is_the_sum_of_the_exact_distances_at_each_of_its_tokens(temperature):
    model, baseline = tiny.policy(seed=0), tiny.policy(seed=1)
    samples = sample(
        model, tiny.encoder(template="plain"), tiny.prompts(4), k=2, max_new_tokens=5, seed=1, temperature=temperature
    )
    config = PoliciesConfig.of(**settings(k=1, temperature=temperature))
    expected = token_kl_by_hand(model, baseline, samples, temperature)
    assert_close(torch.tensor(distances(model, baseline, samples, config)), torch.tensor(expected))


def scaled(seed: int) -> GraniteForCausalLM:
    """An architecture that divides what its head says, so that the head's logits are not the model's."""
    sizes = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
    }
    ids = tiny.tokenizer()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = GraniteConfig(
            vocab_size=len(ids), pad_token_id=ids.pad_token_id, bos_token_id=ids.bos_token_id, eos_token_id=ids.eos_token_id,
            logits_scaling=4.0, initializer_range=0.3, max_position_embeddings=64, **sizes,
        )  # fmt: skip
        return GraniteForCausalLM(config).eval()


def test_an_architecture_that_scales_its_logits_is_measured_by_those_it_speaks_with():
    model, baseline = scaled(0), scaled(1)
    assert not head_is_plain(model)
    samples = sample(model, tiny.encoder(template="plain"), tiny.prompts(3), k=1, max_new_tokens=5, seed=1)
    expected = token_kl_by_hand(model, baseline, samples, 1.0)
    assert_close(torch.tensor(distances(model, baseline, samples, PoliciesConfig.of(**settings(k=1)))), torch.tensor(expected))


def test_a_policy_with_other_tokens_has_no_distance(tmp_path):
    save_model(tiny.policy(), tiny.tokenizer(), tmp_path / "other", card={})
    policies = {"sft": str(toy() / "sft" / "model"), "other": str(tmp_path / "other")}
    with pytest.raises(ConfigError, match=r"the distance to the baseline needs .* to share a tokenizer, and they do not"):
        evaluated(tmp_path / "out", policies=policies)


# ------------------------------------------------------------------------------------------------------ wins


def test_wins_mirror_each_other_ties_count_half_and_against_itself_everyone_wins_half(tmp_path):
    against_sft, against_base = evaluated(tmp_path / "a", k=3), evaluated(tmp_path / "b", k=3, baseline="base")
    one, other = (json.loads((tmp_path / name / "per_prompt.json").read_text()) for name in "ab")
    assert_close(one["base"]["win"], [1 - share for share in other["sft"]["win"]])
    assert_close(one["sft"]["win"], [0.5] * 8)
    assert row(against_sft, "sft")["win_vs_sft"]["mean"] == row(against_base, "base")["win_vs_base"]["mean"] == 0.5
    assert (against_sft["baseline"], against_base["baseline"]) == ("sft", "base")
    assert "win_vs_sft" not in row(against_base, "base")
    assert row(against_sft, "base")["win_vs_sft"]["mean"] < 0.5  # demonstrations taught something
    assert row(against_sft, "sft")["kl"] < 1e-9 < row(against_sft, "base")["kl"]


def test_where_gold_cannot_tell_everyone_wins_half(tmp_path):
    summary = evaluated(tmp_path, gold="python:tests.evaluate.scorers:constant")
    assert row(summary, "base")["win_vs_sft"]["mean"] == 0.5


def test_a_win_is_counted_over_the_pairs_of_answers_that_share_no_random_numbers(tmp_path):
    evaluated(tmp_path, k=3)
    per_prompt = json.loads((tmp_path / "per_prompt.json").read_text())
    assert all(abs(share * 12 - round(share * 12)) < 1e-9 for share in per_prompt["base"]["win"])  # of six pairs, in halves
    a, b = np.array([[1.0, 5.0, 2.0]]), np.array([[1.0, 4.0, 2.0]])
    assert_close(share_won(a, b, without_diagonal=True), [(0 + 0 + 1 + 1 + 1 + 0) / 6])
    assert_close(share_won(a, b, without_diagonal=False), [(3 + 0.5 + 1 + 0.5) / 9])


def test_with_one_answer_each_the_baseline_answers_again_as_a_rival(tmp_path):
    """A policy that is the baseline by another name: with the baseline's own random numbers every comparison would be a tie."""
    sft = str(toy() / "sft" / "model")
    evaluated(tmp_path, policies={"sft": sft, "same": sft}, k=1)
    per_prompt = json.loads((tmp_path / "per_prompt.json").read_text())
    assert per_prompt["same"]["gold"] == per_prompt["sft"]["gold"]
    assert per_prompt["same"]["win"] != [0.5] * 8
    assert_close(per_prompt["sft"]["win"], [0.5] * 8)


def test_which_prompts_were_asked_is_written_down(tmp_path):
    evaluated(tmp_path, k=1, n=3)
    assert json.loads((tmp_path / "prompts.json").read_text()) == [prompt.id for prompt in WORLD.prompts[:3]]


# ------------------------------------------------------------------------------------------------------ best of n


@pytest.fixture(scope="module")
def with_best_of(tmp_path_factory):
    out = tmp_path_factory.mktemp("best")
    settings_ = {"k": 2, "reward": str(toy() / "reward" / "model"), "best_of": {"policy": "sft", "n": 6}}
    return evaluated(out, **settings_), json.loads((out / "per_prompt.json").read_text()), out


def test_the_row_of_best_of_n_is_the_last_point_of_its_curve(with_best_of):
    summary, _, _ = with_best_of
    points = summary["best_of_n"]
    assert [point["n"] for point in points] == [1, 2, 4, 6]
    own = row(summary, "best_of_n")
    assert_close(own["gold"]["mean"], points[-1]["gold"])
    assert_close([own["gold"]["low"], own["gold"]["high"]], [points[-1]["low"], points[-1]["high"]])
    assert_close(own["kl"], best_of_n_kl(6))


def test_its_learned_score_is_measured_and_its_bound_has_no_interval(with_best_of):
    summary, per_prompt, _ = with_best_of
    own = row(summary, "best_of_n")
    assert_close(own["proxy"], summary["best_of_n"][-1]["proxy"])
    assert own["kl_interval"] is None and own["proxy_interval"]["n"] == 8
    assert_close(own["kl"], per_prompt["best_of_n"]["kl"][0])


def test_of_another_policy_than_the_baseline_it_has_no_distance(tmp_path):
    reward = str(toy() / "reward" / "model")
    summary = evaluated(tmp_path, reward=reward, baseline="base", best_of={"policy": "sft", "n": 2})
    assert row(summary, "best_of_n")["kl"] is None  # the bound is on the distance from sft
    assert row(summary, "sft")["kl"] > 0


def test_the_proxy_climbs_with_n_and_the_distance_is_that_of_the_formula(with_best_of):
    points = with_best_of[0]["best_of_n"]
    assert all(a["proxy"] < b["proxy"] for a, b in pairwise(points))
    assert_close([point["kl"] for point in points], [math.log(n) - (n - 1) / n for n in (1, 2, 4, 6)])


def test_each_prompt_gets_the_answer_the_proxy_likes_best():
    encoder, policy = toy_encoder(), load_policy(toy() / "sft" / "model")
    config = PoliciesConfig.of(**settings(reward=GOLD, best_of={"policy": "sft", "n": 5, "prompts": 3}))

    class Seeds:
        device = "cpu"
        seed = staticmethod(lambda *key: 4)

    chosen, points, trust = best(policy, encoder, list(WORLD.prompts), gold, config, Seeds())  # type: ignore[arg-type]
    everything = drawn(policy, encoder, list(WORLD.prompts[:3]), config, k=5, seed=4)
    worth = np.reshape(gold(everything.prompts, everything.completions), (3, 5))
    assert_close(gold(chosen.prompts, chosen.completions), worth.max(1))
    assert_close([points[0]["gold"], points[-1]["gold"]], [worth.mean(), worth.max(1).mean()])
    assert trust["gold_accuracy"]["mean"] == 1.0  # gold agrees with itself


def test_a_best_of_n_over_fewer_prompts_is_compared_on_those(tmp_path):
    reward = str(toy() / "reward" / "model")
    summary = evaluated(tmp_path, reward=reward, best_of={"policy": "sft", "n": 2, "prompts": 3})
    pair = next(p for p in summary["paired"] if p["a"] == "best_of_n" and p["metric"] == "gold")
    assert pair["n_prompts"] == row(summary, "best_of_n")["gold"]["n"] == 3
    per_prompt = json.loads((tmp_path / "per_prompt.json").read_text())
    assert_close(pair["mean"], np.mean(per_prompt["best_of_n"]["gold"]) - np.mean(per_prompt["sft"]["gold"][:3]))


# ------------------------------------------------------------------------------------------------------ the table


def test_rows_stand_in_the_order_given_with_best_of_n_after_its_policy(with_best_of):
    summary, per_prompt, out = with_best_of
    assert [line["name"] for line in summary["rows"]] == ["base", "sft", "best_of_n"]
    for line in summary["rows"]:
        values = per_prompt[line["name"]]
        assert_close(line["gold"]["mean"], np.mean(values["gold"]))
        assert line["gold"]["n"] == 8
        for figure in ("kl", "length", "proxy"):
            assert_close(line[figure], np.mean(values[figure]))
    for line in summary["rows"][:2]:  # best-of-n has a bound
        for figure in ("kl", "length", "proxy"):
            expected = mean_interval(per_prompt[line["name"]][figure])
            told = line[f"{figure}_interval"]
            assert_close([told["mean"], told["low"], told["high"]], [expected.mean, expected.low, expected.high])
            assert told["n"] == 8
    shown = json.loads((out / "samples.json").read_text())
    assert [answer["policy"] for answer in shown[0]["answers"]] == ["base", "sft", "best_of_n"]
    assert len(shown) == 6 and shown[0]["prompt"] == WORLD.prompts[0].text


def test_a_policy_may_have_a_proxy_of_its_own(tmp_path):
    summary = evaluated(tmp_path, reward=GOLD, proxies={"base": "python:tests.methods.toy:against_gold"})
    assert_close(row(summary, "base")["proxy"], -row(summary, "base")["gold"]["mean"])
    assert_close(row(summary, "sft")["proxy"], row(summary, "sft")["gold"]["mean"])


def test_the_first_n_prompts_are_asked(tmp_path):
    assert evaluated(tmp_path, n=5)["prompts"] == 5


def test_a_skill_nobody_shows_is_not_known_to_be_zero():
    """Wilson's interval of 0 of 26 ends at z^2 / (26 + z^2) = 0.1287."""
    judged = {"base": {"finished": [1.0], "skill/sums": [0.0] * 26}}
    told = over_seeds.row("base", [judged], baseline="base")["skill_interval"]["sums"]
    assert (told["mean"], told["n"], told["n_prompts"], told["n_seeds"]) == (0.0, 26, 26, 1)
    z = NormalDist().inv_cdf(0.975)
    assert_close([told["low"], told["high"]], [0.0, z * z / (26 + z * z)])


def test_without_gold_what_can_be_measured_is_and_the_rest_is_null(tmp_path):
    reward = str(toy() / "reward" / "model")
    summary = evaluated(tmp_path, gold="", reward=reward, best_of={"policy": "sft", "n": 4})
    for line in summary["rows"]:
        assert line["gold"] is None and line["win_vs_sft"] is None
        assert line["length"] > 0 and line["proxy_interval"]["low"] <= line["proxy"] <= line["proxy_interval"]["high"]
    assert {(pair["a"], pair["metric"]) for pair in summary["paired"]} == {("base", "proxy"), ("best_of_n", "proxy")}
    assert all(point["gold"] is None for point in summary["best_of_n"])
    assert set(summary["proxy_trust"]) == {"length_correlation"}
    shown = json.loads((tmp_path / "samples.json").read_text())
    assert all("gold" not in answer for line in shown for answer in line["answers"])
    proxies = {"base": "python:tests.methods.toy:against_gold"}
    assert evaluated(tmp_path / "two", gold="", reward=reward, proxies=proxies)["paired"] == []  # two scores have no difference


@pytest.mark.parametrize(
    ("own", "told"),
    [
        ({"baseline": "stf"}, "the baseline 'stf' is not among the policies: base, sft"),
        ({"best_of": {"policy": "stf"}, "reward": GOLD}, "best_of.policy 'stf' is not among the policies: base, sft"),
        ({"best_of": {"policy": "sft"}}, "best_of chooses by the learned score: give reward"),
        ({"best_of": {"name": "base"}, "reward": GOLD}, "best_of.name 'base' is the name of a policy"),
        ({"pairs": [["ppo", "sft"]]}, "pairs or proxies name ppo; the rows are base, sft"),
        ({"proxies": {"ppo": GOLD}}, "pairs or proxies name ppo"),
        ({"skills": ["juggling"]}, "the world has no skill juggling; it has sums"),
    ],
)
def test_names_that_mean_nothing_are_refused_before_anything_is_drawn(own, told):
    with pytest.raises(ConfigError) as error:
        PoliciesConfig.of(**settings(**own))
    assert told in str(error.value)
