import math
from collections import Counter
from itertools import combinations

import numpy as np
import pytest

from prefloop.errors import ConfigError
from prefloop.stats.agreement import ranking_agreement, total
from prefloop.stats.best_of_n import best_of_n_kl, win_rate_bound
from prefloop.world.toy import (
    ASKED,
    CAREFUL,
    EOS,
    LETTERS,
    PAD,
    TOKENS,
    ToyAnnotator,
    ToyWorld,
    attained,
    best_of_n,
    encode,
    expected,
    kl,
    objective,
    optimal_value,
    optimum,
    win_rate,
)
from tests.helpers import assert_close

WORLD = ToyWorld()
SMALL = ToyWorld(n_steps=3)  # 43 answers, where brute force is quick
REFERENCE = WORLD.demonstration_logprobs


def any_policy(world: ToyWorld, *, seed: int = 0) -> np.ndarray:
    """A policy with a softmax over the vocabulary at each step: log-probabilities of whole answers."""
    rng = np.random.default_rng(seed)
    table = np.zeros((len(ASKED), len(world.contents)))
    logits = rng.normal(size=(len(ASKED), len(world.contents), len(TOKENS)))  # of the token after each node
    steps = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    for n, content in enumerate(world.contents):
        for t, token in enumerate(content):
            table[:, n] += steps[:, world.index[content[:t]], token]
        if len(content) < world.n_steps - 1:
            table[:, n] += steps[:, n, EOS]
    return table


def gold(answer: str, *, asked: str = "a b", world: ToyWorld = WORLD) -> float:
    prompt = next(prompt for prompt in world.prompts if prompt.text == asked)
    return world.gold(prompt, answer)


# The world


def test_the_answers_are_all_strings_over_the_vocabulary_and_few_enough():
    branches = len(TOKENS) - 1
    assert len(WORLD.contents) == sum(branches**length for length in range(WORLD.n_steps)) == 1555
    assert len(set(WORLD.contents)) == len(WORLD.contents)


def test_any_softmax_over_the_vocabulary_sums_to_one_over_the_answers():
    for world in (WORLD, SMALL):
        assert_close(expected(any_policy(world), np.ones_like(world.rewards)), np.ones(len(ASKED)))


def test_rows_hold_the_answer_then_one_eos_then_padding():
    for row, length, content in zip(WORLD.answers, WORLD.lengths, WORLD.contents, strict=True):
        assert tuple(row[: length - 1]) == content
        assert row[length - 1] == EOS
        assert (row[length:] == PAD).all()


def test_a_sequence_is_the_prompt_followed_by_the_answer():
    tokens, lengths = WORLD.sequences(3)
    start = encode(WORLD.prompts[3].text)
    assert (tokens[:, : len(start)] == start).all()
    assert (tokens[:, len(start) :] == WORLD.answers).all()
    assert (lengths == WORLD.lengths + len(start)).all()
    assert PAD != EOS


def test_only_an_eos_at_the_last_step_is_not_chosen():
    assert (WORLD.is_free.sum(1) == np.minimum(WORLD.lengths, WORLD.n_steps - 1)).all()


def test_texts_read_back_as_the_tokens_they_were_made_of():
    clean = np.flatnonzero(WORLD.is_clean)
    assert all(tuple(encode(WORLD.texts[n])) == WORLD.contents[n] for n in clean)
    assert len({WORLD.texts[n] for n in clean}) == len(clean) == sum(5**length for length in range(5))


def test_padding_inside_an_answer_changes_neither_its_text_nor_its_worth():
    a, b = TOKENS.index("a"), TOKENS.index("b")
    padded, plain = WORLD.index[(PAD, a, PAD, b)], WORLD.index[(a, b)]
    assert WORLD.texts[padded] == WORLD.texts[plain] == "a b"
    assert (WORLD.rewards[:, padded] == WORLD.rewards[:, plain]).all()
    assert gold("a <pad> b <eos>") == gold("a b")


def test_the_world_cannot_be_made_too_large_to_write_down():
    with pytest.raises(ConfigError, match="n_steps is 6"):
        ToyWorld(n_steps=6)


def test_what_everybody_shares_cannot_be_written_to():
    with pytest.raises(ValueError, match="read-only"):
        WORLD.rewards[0, 0] = 1.0


# Gold


def test_gold_adds_up_term_by_term():
    assert_close(gold(""), 0.0)
    assert_close(gold("a"), 1.0)
    assert_close(gold("a b"), 1 + 1 + 0.5)
    assert_close(gold("b a"), 1 + 1)
    assert_close(gold("a a"), 1 - 0.5)
    assert_close(gold("c"), -0.5)
    assert_close(gold("!"), 1.2 - 0.6)
    assert_close(gold("a b c d"), 2.5 - 2 * 0.5 - 0.25)


def test_gold_is_relative_to_the_prompt():
    assert gold("a b", asked="a b") > gold("a b", asked="b a") > gold("a b", asked="c d")


def test_enthusiasm_is_good_only_in_moderation():
    marks = [gold("a" + " !" * k, world=ToyWorld(length_cost=0)) + 0.5 * max(0, k - 1) for k in range(4)]  # less the repeats
    assert marks[1] > marks[0] == marks[2] > marks[3]


def test_the_effect_of_length_can_be_switched_off():
    free = ToyWorld(length_cost=0)
    priced, unpriced = gold("a b c d"), gold("a b c d", world=free)
    assert_close(unpriced - priced, 0.25)
    assert (free.rewards[:, WORLD.lengths <= 4] == WORLD.rewards[:, WORLD.lengths <= 4]).all()


def test_the_best_answer_has_both_letters_in_order_and_one_mark():
    for p, asked in enumerate(ASKED):
        best = {WORLD.texts[n] for n in np.flatnonzero(WORLD.rewards[p] == WORLD.rewards[p].max())}
        first, second = asked
        assert best == {f"{first} {second} !", f"{first} ! {second}", f"! {first} {second}"}


def test_a_proxy_linear_in_what_gold_counts_is_over_optimised():
    features = np.concatenate([WORLD.features, np.ones((*WORLD.rewards.shape, 1))], axis=-1)
    root = np.sqrt(np.exp(REFERENCE))[..., None]  # least squares over what the reference says
    weights, *_ = np.linalg.lstsq((features * root).reshape(-1, 7), (WORLD.rewards * root[..., 0]).ravel(), rcond=None)
    proxy = features @ weights
    policies = [best_of_n(REFERENCE, proxy, n) for n in (1, 16, 4096)]
    by_proxy = [expected(policy, proxy).mean() for policy in policies]
    by_gold = [expected(policy, WORLD.rewards).mean() for policy in policies]
    assert by_proxy[0] < by_proxy[1] < by_proxy[2]
    assert by_gold[1] > by_gold[0] + 0.5
    assert by_gold[2] < by_gold[1] - 0.5


# Grammars


def test_grammars_are_distributions_over_answers():
    for table in (WORLD.corpus_logprobs, WORLD.demonstration_logprobs, SMALL.grammar_logprobs(CAREFUL)):
        assert_close(np.exp(table).sum(1), np.ones(len(ASKED)))


def test_demonstrations_are_better_than_the_corpus_and_worse_than_the_best():
    corpus, careful = expected(WORLD.corpus_logprobs, WORLD.rewards), expected(REFERENCE, WORLD.rewards)
    assert (careful > corpus + 1).all()
    assert (careful < WORLD.rewards.max(1) - 0.5).all()


def test_demonstrations_come_as_often_as_their_table_says():
    drawn = WORLD.demonstrations(8000, seed=0)
    assert all(one.completion.text and one.completion.prompt_id == one.prompt.id for one in drawn)
    seen = Counter(one.completion.text for one in drawn if one.prompt == WORLD.prompts[0])
    for n in np.argsort(REFERENCE[0])[-5:]:
        chance = math.exp(REFERENCE[0, n])
        assert abs(seen[WORLD.texts[n]] / 1000 - chance) < 4 * math.sqrt(chance * (1 - chance) / 1000)


def test_the_corpus_teaches_a_skill_that_no_prompt_asks_for():
    lines = WORLD.corpus(3000, seed=0)
    known = {f"{prompt} {answer}" for prompt, answer in WORLD.skill_items}
    share = sum(line in known for line in lines) / len(lines)
    assert abs(share - 0.3) < 4 * math.sqrt(0.3 * 0.7 / len(lines))
    assert {prompt for prompt, _ in WORLD.skill_items}.isdisjoint(prompt.text for prompt in WORLD.prompts)
    assert all(set(line.split()) <= {*LETTERS, "!"} for line in lines)


def test_the_same_seed_draws_the_same_and_another_seed_does_not():
    assert WORLD.corpus(50, seed=1) == WORLD.corpus(50, seed=1) != WORLD.corpus(50, seed=2)
    assert WORLD.demonstrations(50, seed=1) == WORLD.demonstrations(50, seed=1) != WORLD.demonstrations(50, seed=2)


# Closed forms


@pytest.mark.parametrize("beta", [0.05, 0.3, 2.0])
def test_the_highest_objective_is_beta_log_z(beta):
    best = optimum(REFERENCE, WORLD.rewards, beta)
    assert_close(np.exp(best).sum(1), np.ones(len(ASKED)))
    assert_close(objective(best, REFERENCE, WORLD.rewards, beta), optimal_value(REFERENCE, WORLD.rewards, beta))


def test_no_other_policy_reaches_the_optimum():
    reference, beta = any_policy(WORLD), 0.3
    best = optimal_value(reference, WORLD.rewards, beta)
    others = [any_policy(WORLD, seed=seed) for seed in (1, 2)] + [optimum(reference, WORLD.rewards, b) for b in (0.2, 0.4)]
    for policy in others:
        assert (objective(policy, reference, WORLD.rewards, beta) < best - 1e-3).all()


def test_the_gap_to_the_optimum_is_beta_times_the_distance_to_it():
    reference, policy, beta = any_policy(WORLD), any_policy(WORLD, seed=1), 0.3
    gap = optimal_value(reference, WORLD.rewards, beta) - objective(policy, reference, WORLD.rewards, beta)
    assert_close(gap, beta * kl(policy, optimum(reference, WORLD.rewards, beta)))


def test_the_reference_has_come_no_way_and_the_optimum_all_of_it():
    assert_close(attained(REFERENCE, REFERENCE, WORLD.rewards, 0.3), 0.0)
    assert_close(attained(optimum(REFERENCE, WORLD.rewards, 0.3), REFERENCE, WORLD.rewards, 0.3), 1.0)


def test_distance_is_zero_to_oneself_and_infinite_where_the_reference_never_goes():
    policy = any_policy(WORLD)
    assert_close(kl(policy, policy), np.zeros(len(ASKED)))
    assert np.isinf(kl(policy, REFERENCE)).all()  # the grammar never says PAD
    assert np.isfinite(kl(REFERENCE, policy)).all()


def test_expectation_and_distance_agree_with_a_plain_loop():
    policy, reference = any_policy(SMALL), any_policy(SMALL, seed=1)
    p, n = 2, range(len(SMALL.contents))
    assert_close(expected(policy, SMALL.rewards)[p], sum(math.exp(policy[p, i]) * SMALL.rewards[p, i] for i in n))
    assert_close(kl(policy, reference)[p], sum(math.exp(policy[p, i]) * (policy[p, i] - reference[p, i]) for i in n))


def test_token_logprobs_are_those_the_policy_was_made_of_and_sum_to_the_answer():
    policy = any_policy(WORLD)
    tokens = WORLD.token_logprobs(policy)
    assert_close(tokens.sum(-1), policy)
    assert_close(tokens[:, ~WORLD.is_free], np.zeros((len(ASKED), int((~WORLD.is_free).sum()))))
    first = [WORLD.index[(token,)] for token in range(len(TOKENS)) if token != EOS]
    stop = np.exp(tokens[:, 0, 0])  # EOS at once
    assert_close(stop + np.exp(tokens[:, first, 0]).sum(1), np.ones(len(ASKED)))


def test_values_are_conditional_expectations_and_obey_the_backup():
    policy, reward = any_policy(SMALL), SMALL.rewards
    values, tokens = SMALL.values(policy, reward), SMALL.token_logprobs(policy)
    assert_close(values[:, 0], expected(policy, reward))
    for node, content in enumerate(SMALL.contents):
        through = [n for n, other in enumerate(SMALL.contents) if other[: len(content)] == content]
        weight = np.exp(policy[:, through])
        assert_close(values[:, node], (weight * reward[:, through]).sum(1) / weight.sum(1))
        t = len(content)
        backup = np.exp(tokens[:, node, t]) * reward[:, node]
        for child in np.flatnonzero(SMALL.parent == node):
            backup = backup + np.exp(tokens[:, child, t]) * values[:, child]
        assert_close(values[:, node], backup)


def test_soft_values_begin_at_beta_log_z_and_end_at_the_reward():
    beta = 0.3
    soft = WORLD.soft_values(REFERENCE, WORLD.rewards, beta)
    assert_close(soft[:, 0], optimal_value(REFERENCE, WORLD.rewards, beta))
    full = np.flatnonzero((WORLD.lengths == WORLD.n_steps) & WORLD.is_clean)
    assert_close(soft[:, full], WORLD.rewards[:, full])


def test_soft_values_exceed_values_and_meet_them_when_beta_is_large():
    reference = any_policy(WORLD)
    values = WORLD.values(reference, WORLD.rewards)
    assert (WORLD.soft_values(reference, WORLD.rewards, 0.3) >= values - 1e-12).all()
    gap = [np.abs(WORLD.soft_values(reference, WORLD.rewards, beta) - values).max() for beta in (100.0, 200.0)]
    assert 1.9 < gap[0] / gap[1] < 2.1  # the second-order term is Var[r] / (2 beta)


def test_beginnings_the_reference_never_makes_have_no_value():
    padded = WORLD.index[(PAD,)]
    assert np.isnan(WORLD.values(REFERENCE, WORLD.rewards)[:, padded]).all()
    assert np.isnan(WORLD.soft_values(REFERENCE, WORLD.rewards, 1.0)[:, padded]).all()


@pytest.mark.parametrize("reference", [REFERENCE, any_policy(WORLD)], ids=["grammar", "softmax"])
def test_decoding_with_soft_values_is_the_optimum_and_with_plain_values_falls_short(reference):
    beta, reward = 0.3, WORLD.rewards
    soft = WORLD.controlled(reference, reward, WORLD.soft_values(reference, reward, beta), beta)
    assert_close(np.exp(soft), np.exp(optimum(reference, reward, beta)))
    plain = WORLD.controlled(reference, reward, WORLD.values(reference, reward), beta)
    assert_close(np.exp(plain).sum(1), np.ones(len(ASKED)))
    ours, best = objective(plain, reference, reward, beta), optimal_value(reference, reward, beta)
    assert (expected(reference, reward) < ours).all()
    assert (ours < best - 1e-4).all()


def test_best_of_n_keeps_its_bounds():
    for n in (2, 8):
        policy = best_of_n(REFERENCE, WORLD.rewards, n)
        assert_close(np.exp(policy).sum(1), np.ones(len(ASKED)))
        assert (kl(policy, REFERENCE) < best_of_n_kl(n)).all()
        assert (win_rate(policy, REFERENCE, WORLD.rewards) < win_rate_bound(n)).all()


def test_best_of_n_reaches_its_bounds_when_answers_are_many_and_never_tie():
    even = np.full((1, 1555), -math.log(1555))
    score = np.random.default_rng(0).normal(size=(1, 1555))
    policy = best_of_n(even, score, 4)
    assert abs(kl(policy, even)[0] - best_of_n_kl(4)) < 1e-4
    assert abs(win_rate(policy, even, score)[0] - win_rate_bound(4)) < 1e-4


def test_win_rates_are_antisymmetric_and_half_against_oneself():
    policy, other = any_policy(WORLD), any_policy(WORLD, seed=1)
    assert_close(win_rate(policy, policy, WORLD.rewards), np.full(len(ASKED), 0.5))
    assert_close(win_rate(policy, other, WORLD.rewards) + win_rate(other, policy, WORLD.rewards), np.ones(len(ASKED)))


def test_win_rate_agrees_with_all_pairs():
    policy, other = any_policy(SMALL), any_policy(SMALL, seed=1)
    gap = SMALL.rewards[0][:, None] - SMALL.rewards[0][None, :]
    chance = np.exp(policy[0])[:, None] * np.exp(other[0])[None, :]
    assert_close(win_rate(policy, other, SMALL.rewards)[0], (chance * ((gap > 0) + 0.5 * (gap == 0))).sum())


# Annotators


def test_the_answers_of_a_group_differ_in_what_people_see():
    for group in WORLD.groups(any_policy(WORLD), 80, k=8, seed=0):
        assert len({completion.text for completion in group.completions}) == 8


def test_a_perfect_eye_ranks_by_gold_and_ties_what_is_worth_the_same():
    annotator = ToyAnnotator(kappa=math.inf)
    for group in WORLD.annotated(WORLD.groups(REFERENCE, 16, k=6, seed=0), [annotator], seed=0):
        worth = dict(zip((completion.id for completion in group.completions), WORLD.group_gold(group), strict=True))
        (ranking,) = group.rankings
        assert [len({worth[c] for c in tier}) for tier in ranking.tiers] == [1] * len(ranking.tiers)
        assert all(worth[better] > worth[worse] for better, worse in ranking.pairs())
        assert len(ranking.pairs()) == sum(worth[a] != worth[b] for a, b in combinations(worth, 2))


def observed(annotator: ToyAnnotator, gap: float, *, k: int, repeats: int = 4000) -> np.ndarray:
    """How often the first of k answers is placed above, level with and below the second, which is worth ``gap`` less."""
    group = WORLD.groups(REFERENCE, 1, k=k, seed=0)[0]
    first, second = group.completions[:2]
    worth = [gap, 0.0] + [0.3 * i for i in range(k - 2)]
    seen = np.zeros(3)
    for repeat in range(repeats):
        place = annotator.ranking(group, worth, seed=(repeat,)).places()
        seen[1 + (place[first.id] > place[second.id]) - (place[first.id] < place[second.id])] += 1
    return seen / repeats


@pytest.mark.parametrize("k", [2, 4])
@pytest.mark.parametrize(
    "annotator",
    [
        ToyAnnotator(),
        ToyAnnotator(flip=0.25),
        ToyAnnotator(kappa=3.0, flip=0.1, tie_band=0.8),
        ToyAnnotator(kappa=math.inf, tie_band=0.8),
    ],
    ids=["bradley-terry", "flips", "ties", "ties-alone"],
)
def test_every_pair_is_judged_as_often_as_the_closed_form_says_whatever_else_is_shown(annotator, k):
    chance = np.array(annotator.probabilities(0.5))
    assert_close(chance.sum(), 1.0)
    assert (np.abs(observed(annotator, 0.5, k=k, repeats=2000) - chance) < 4 * np.sqrt(chance * (1 - chance) / 2000) + 1e-9).all()


def test_without_slips_or_ties_the_odds_are_exponential_in_the_gap():
    above, level, below = ToyAnnotator(kappa=2.0).probabilities(0.7)
    assert_close(math.log(above / below), 2.0 * 0.7)
    assert level < 1e-12


def test_flips_bound_the_log_odds():
    above, _, below = ToyAnnotator(flip=0.25).probabilities(100.0)
    assert_close(math.log(above / below), math.log(0.75 / 0.25))


def test_a_narrow_tie_band_is_no_band_and_a_sharp_eye_sees_the_gap_over_the_band():
    assert abs(ToyAnnotator(tie_band=1e-6).prefers(0.4) - ToyAnnotator().prefers(0.4)) < 1e-6
    sharp = ToyAnnotator(kappa=math.inf, tie_band=0.8)
    assert sharp.probabilities(0.2) == (0.25, 0.75, 0.0)
    assert_close(ToyAnnotator(kappa=5000.0, tie_band=0.8).prefers(0.2), 0.25)


def test_annotators_are_reproducible_and_differ_by_name_and_seed():
    groups = WORLD.groups(REFERENCE, 12, k=4, seed=0)
    ada, bob = ToyAnnotator(name="sim:ada"), ToyAnnotator(name="sim:bob")
    first, again, other = (WORLD.annotated(groups, [ada, bob], seed=seed) for seed in (0, 0, 1))
    assert first == again != other
    between = total([ranking_agreement(*group.rankings) for group in first])
    assert 0 < between.disagreed < between.agreed
