import math
from itertools import combinations, permutations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, tensor

from prefloop.errors import DataError
from prefloop.ops.ranking import (
    best_of_k_loss,
    n_comparisons,
    n_pairs,
    plackett_luce_loss,
    ranking_loss,
    ranking_loss_with_label_noise,
    ranking_loss_with_ties,
    tiers_of,
)
from tests.helpers import assert_close

quick = settings(deadline=None, max_examples=40)


def one_prompt(score: list[float], tier: list[int]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return (
        tensor([score], dtype=torch.float64),
        tensor([tier]),
        torch.ones(1, len(score), dtype=torch.bool),
        torch.ones(1, dtype=torch.float64),
    )


def slope(loss, score: Tensor, *rest: Tensor, **options: float) -> Tensor:
    score = score.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(score, *rest, **options).value, score)
    return gradient


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


scores_and_tiers = st.integers(2, 6).flatmap(
    lambda k: st.tuples(
        st.lists(st.floats(-5, 5), min_size=k, max_size=k), st.lists(st.integers(0, k - 1), min_size=k, max_size=k)
    )
)

# ---------------------------------------------------------------------------------------------- Bradley-Terry, K-way


def test_equal_scores_cost_log_two_however_many_completions():
    for k in (2, 4, 9):
        assert_close(ranking_loss(*one_prompt([0.0] * k, list(range(k)))).value, math.log(2))


def test_a_margin_of_log_three_gives_the_winner_three_chances_in_four():
    loss = ranking_loss(*one_prompt([math.log(3), 0.0], [0, 1]))
    assert_close(loss.value, -math.log(3 / 4))
    assert_close(loss.metrics["margin"], math.log(3))
    assert_close(loss.metrics["accuracy"], 1.0)


def test_gradient_at_equality_is_half_towards_the_preferred():
    assert_close(slope(ranking_loss, *one_prompt([0.0, 0.0], [0, 1])), [[-0.5, 0.5]])


def test_ties_teach_nothing():
    loss = ranking_loss(*one_prompt([5.0, -5.0], [0, 0]))
    assert_close(loss.value, 0.0)
    assert_close(slope(ranking_loss, *one_prompt([5.0, -5.0], [0, 0])), [[0.0, 0.0]])


def test_a_tied_pair_adds_nothing_to_the_other_pairs_of_its_prompt():
    tied = ranking_loss(*one_prompt([1.0, 3.0, 0.0], [0, 0, 1]))
    assert_close(tied.value, (-math.log(sigmoid(1.0)) - math.log(sigmoid(3.0))) / 2)


@quick
@given(scores_and_tiers)
def test_the_loss_is_the_mean_over_ordered_pairs_taken_one_by_one(drawn: tuple[list[float], list[int]]):
    score, tier = drawn
    costs = [
        -math.log(sigmoid(score[i] - score[j])) if tier[i] < tier[j] else -math.log(sigmoid(score[j] - score[i]))
        for i, j in combinations(range(len(score)), 2)
        if tier[i] != tier[j]
    ]
    assert_close(ranking_loss(*one_prompt(score, tier)).value, sum(costs) / max(1, len(costs)))


@quick
@given(scores_and_tiers, st.floats(-100, 100))
def test_adding_a_constant_to_all_scores_of_a_prompt_changes_neither_loss_nor_gradient(drawn: tuple, constant: float):
    prompt = one_prompt(*drawn)
    shifted = (prompt[0] + constant, *prompt[1:])
    for loss, options in ((ranking_loss, {}), (best_of_k_loss, {}), (ranking_loss_with_label_noise, {"noise": 0.2})):
        assert_close(loss(*shifted, **options).value, loss(*prompt, **options).value)
        assert_close(slope(loss, *shifted, **options), slope(loss, *prompt, **options))


@quick
@given(scores_and_tiers)
def test_the_gradient_of_a_prompt_sums_to_zero_over_its_completions(drawn: tuple):
    for loss, options in ((ranking_loss, {}), (best_of_k_loss, {}), (ranking_loss_with_ties, {"noise": 0.2})):
        assert_close(slope(loss, *one_prompt(*drawn), **options).sum(), 0.0)


def test_the_order_in_which_completions_are_listed_does_not_matter():
    score, tier = [0.3, -1.0, 2.0, 0.5], [2, 0, 1, 1]
    for loss, options in ((ranking_loss, {}), (best_of_k_loss, {}), (ranking_loss_with_ties, {"noise": 0.2})):
        expected = loss(*one_prompt(score, tier), **options)
        gradient = slope(loss, *one_prompt(score, tier), **options)
        for order in map(list, permutations(range(4))):
            listed = one_prompt([score[i] for i in order], [tier[i] for i in order])
            assert_close(loss(*listed, **options).value, expected.value)
            assert_close(slope(loss, *listed, **options), gradient[:, order])


def test_a_prompt_pulls_as_hard_with_nine_completions_as_with_two():
    """One answer above equal others wins K - 1 pairs, each half wrong at equal scores: half a unit up, whatever K."""
    for k in (2, 4, 9):
        pull = slope(ranking_loss, *one_prompt([0.0] * k, [0] + [1] * (k - 1)))
        assert_close(pull, [[-0.5] + [0.5 / (k - 1)] * (k - 1)])


def test_the_loss_of_a_batch_is_the_weighted_sum_of_its_prompts():
    first, second = one_prompt([0.2, 0.9, -1.0], [0, 1, 2]), one_prompt([1.5, 0.0, 0.0], [1, 0, 0])
    both = [torch.cat(parts) for parts in zip(first, second, strict=True)]
    both[3] = tensor([0.25, 0.75], dtype=torch.float64)
    assert_close(ranking_loss(*both).value, 0.25 * ranking_loss(*first).value + 0.75 * ranking_loss(*second).value)


def test_accuracy_is_the_share_of_ordered_pairs_that_the_scores_order_alike():
    loss = ranking_loss(*one_prompt([3.0, 1.0, 2.0], [0, 1, 2]))
    assert_close(loss.metrics["accuracy"], 2 / 3)
    assert_close(loss.metrics["margin"], ((3 - 1) + (3 - 2) + (1 - 2)) / 3)


def test_equal_scores_agree_with_nobody():
    assert_close(ranking_loss(*one_prompt([1.0, 1.0], [0, 1])).metrics["accuracy"], 0.0)


def test_a_margin_beyond_the_range_of_the_exponential_costs_its_own_size():
    loss = ranking_loss(*one_prompt([-1e4, 0.0], [0, 1]))
    assert_close(loss.value, 1e4)
    assert_close(slope(ranking_loss, *one_prompt([-1e4, 0.0], [0, 1])), [[-1.0, 1.0]])


def test_pairs_are_counted_with_and_without_ties():
    tier = tensor([[0, 1, 2, 3], [0, 0, 1, 1], [0, 0, 0, 0], [0, 1, 9, 9]])
    is_candidate = tensor([[True] * 4, [True] * 4, [True] * 4, [True, True, False, False]])
    assert n_pairs(tier, is_candidate).tolist() == [6, 4, 0, 1]
    assert n_comparisons(is_candidate).tolist() == [6, 6, 6, 1]


def test_weights_times_the_share_of_ordered_pairs_divide_by_all_comparisons_instead():
    score, tier, is_candidate, weight = one_prompt([1.0, 3.0, 0.0], [0, 0, 1])
    share = n_pairs(tier, is_candidate) / n_comparisons(is_candidate)
    loss = ranking_loss(score, tier, is_candidate, weight * share)
    assert_close(loss.value.float(), tensor((-math.log(sigmoid(1.0)) - math.log(sigmoid(3.0))) / 3))


# --------------------------------------------------------------------------------------------------- the best of K


@quick
@given(st.floats(-20, 20), st.floats(-20, 20), st.booleans())
def test_for_two_completions_the_choice_of_the_best_is_the_pairwise_loss(a: float, b: float, is_first_best: bool):
    prompt = one_prompt([a, b], [0, 1] if is_first_best else [1, 0])
    pairwise, choice = ranking_loss(*prompt), best_of_k_loss(*prompt)
    assert_close(choice.value, pairwise.value)
    assert_close(slope(best_of_k_loss, *prompt), slope(ranking_loss, *prompt))
    assert_close(choice.metrics["margin"], pairwise.metrics["margin"])
    assert_close(choice.metrics["accuracy"], pairwise.metrics["accuracy"])


def test_scores_of_log_four_log_two_and_zero_choose_with_chances_four_two_and_one_in_seven():
    score = [math.log(4), math.log(2), 0.0]
    for best, chance in enumerate((4 / 7, 2 / 7, 1 / 7)):
        tier = [1 - (i == best) for i in range(3)]
        assert_close(best_of_k_loss(*one_prompt(score, tier)).value, -math.log(chance))


def test_the_order_below_the_best_is_not_used():
    first, second = one_prompt([0.4, 0.1, -2.0], [0, 1, 2]), one_prompt([0.4, 0.1, -2.0], [0, 2, 1])
    assert_close(best_of_k_loss(*first).value, best_of_k_loss(*second).value)


def test_of_several_best_answers_any_may_have_been_the_choice():
    assert_close(best_of_k_loss(*one_prompt([math.log(4), math.log(2), 0.0], [0, 0, 1])).value, -math.log(6 / 7))


def test_where_all_share_one_place_nothing_was_chosen():
    for loss, options in ((ranking_loss, {}), (best_of_k_loss, {}), (ranking_loss_with_label_noise, {"noise": 0.1})):
        prompt = one_prompt([5.0, -5.0, 1.0], [2, 2, 2])
        assert {name: float(metric) for name, metric in loss(*prompt, **options).metrics.items()} == {
            "loss": 0.0, "accuracy": 0.0, "margin": 0.0,
        }  # fmt: skip
        assert_close(slope(loss, *prompt, **options), torch.zeros(1, 3, dtype=torch.float64))


# --------------------------------------------------------------------------------------------- a sequence of choices


@quick
@given(st.floats(-20, 20), st.floats(-20, 20), st.booleans())
def test_for_two_completions_a_sequence_of_choices_is_the_pairwise_loss(a: float, b: float, is_first_best: bool):
    prompt = one_prompt([a, b], [0, 1] if is_first_best else [1, 0])
    pairwise, sequence = ranking_loss(*prompt), plackett_luce_loss(*prompt)
    assert_close(slope(plackett_luce_loss, *prompt), slope(ranking_loss, *prompt))
    for name in pairwise.metrics:
        assert_close(sequence.metrics[name], pairwise.metrics[name])


def test_scores_of_log_four_log_two_and_zero_are_ordered_so_with_chance_four_sevenths_times_two_thirds():
    loss = plackett_luce_loss(*one_prompt([math.log(4), math.log(2), 0.0], [0, 1, 2]))
    assert_close(loss.value, -(math.log(4 / 7) + math.log(2 / 3)) / 2)
    assert_close(loss.metrics["margin"], (math.log(4 / 2) + math.log(2)) / 2)
    assert_close(loss.metrics["accuracy"], 1.0)


@quick
@given(st.integers(2, 5).flatmap(lambda k: st.lists(st.floats(-5, 5), min_size=k, max_size=k)))
def test_the_chances_of_all_orders_sum_to_one(score: list[float]):
    k = len(score)
    chances = [
        math.exp(-(k - 1) * float(plackett_luce_loss(*one_prompt(score, list(order))).value)) for order in permutations(range(k))
    ]
    assert_close(sum(chances), 1.0)


@quick
@given(st.integers(3, 5).flatmap(lambda k: st.lists(st.floats(-3, 3), min_size=k, max_size=k)))
def test_the_chance_that_one_comes_before_another_in_any_order_is_bradley_terry(score: list[float]):
    k, before = len(score), 0.0
    for order in permutations(range(k)):
        if order[0] < order[1]:
            before += math.exp(-(k - 1) * float(plackett_luce_loss(*one_prompt(score, list(order))).value))
    assert_close(before, sigmoid(score[0] - score[1]))


def test_tied_completions_are_each_chosen_from_below_and_never_against_each_other():
    """4 and 2 above 1: chances 4 / 5 and 2 / 3. The second's score does not enter the first's chance."""
    prompt = one_prompt([math.log(4), math.log(2), 0.0], [0, 0, 1])
    assert_close(plackett_luce_loss(*prompt).value, -(math.log(4 / 5) + math.log(2 / 3)) / 2)
    assert_close(slope(plackett_luce_loss, *prompt), [[-(1 / 5) / 2, -(1 / 3) / 2, (1 / 5 + 1 / 3) / 2]])


def test_a_tie_at_the_end_is_not_a_choice():
    """One choice, among all four; its gradient falls on the chosen and, by their chances, on the rest."""
    prompt = one_prompt([math.log(3), 0.0, 0.0, 0.0], [0, 1, 1, 1])
    assert_close(plackett_luce_loss(*prompt).value, -math.log(3 / 6))
    assert_close(slope(plackett_luce_loss, *prompt), [[-1 / 2, 1 / 6, 1 / 6, 1 / 6]])


def test_without_any_order_a_sequence_of_choices_has_no_choice():
    prompt = one_prompt([5.0, -5.0, 1.0], [2, 2, 2])
    assert {float(metric) for metric in plackett_luce_loss(*prompt).metrics.values()} == {0.0}
    assert_close(slope(plackett_luce_loss, *prompt), torch.zeros(1, 3, dtype=torch.float64))


def test_scores_become_places_equal_ones_the_same():
    is_candidate = tensor([[True, True, True, True], [True, True, False, True]])
    score = tensor([[0.5, 2.0, 0.5, -1.0], [1.0, math.inf, math.nan, 3.0]])
    place = tiers_of(score, is_candidate)
    assert place[0].tolist() == [1, 0, 1, 3]
    assert [place[1, k].item() for k in (0, 1, 3)] == [2, 0, 1]


@quick
@given(st.lists(st.integers(-3, 3), min_size=1, max_size=7))
def test_one_place_is_better_than_another_where_and_only_where_the_score_is_higher(score: list[int]):
    place = tiers_of(tensor([score], dtype=torch.float64), torch.ones(1, len(score), dtype=torch.bool))[0].tolist()
    assert all((score[i] > score[j]) == (place[i] < place[j]) for i in range(len(score)) for j in range(len(score)))


def test_a_score_that_is_no_number_has_no_place():
    """Every comparison with it is false: it would be the best of all."""
    with pytest.raises(DataError, match="score of completion 2 of prompt 1"):
        tiers_of(tensor([[0.0, 1.0, 2.0], [0.0, 1.0, math.nan]]), torch.ones(2, 3, dtype=torch.bool))


# -------------------------------------------------------------------------------------------------- noise and ties


@quick
@given(scores_and_tiers)
def test_without_noise_the_noise_model_is_bradley_terry(drawn: tuple):
    prompt = one_prompt(*drawn)
    assert_close(ranking_loss_with_label_noise(*prompt, noise=0.0).value, ranking_loss(*prompt).value)
    assert_close(slope(ranking_loss_with_label_noise, *prompt, noise=0.0), slope(ranking_loss, *prompt))


def test_without_noise_the_noise_model_is_bradley_terry_at_margins_where_a_chance_underflows():
    prompt = one_prompt([-1e4, 0.0], [0, 1])
    assert_close(ranking_loss_with_label_noise(*prompt, noise=0.0).value, 1e4)


def test_a_tenth_of_noise_takes_a_chance_of_three_in_four_to_nine_tenths_of_it_and_a_twentieth():
    loss = ranking_loss_with_label_noise(*one_prompt([math.log(3), 0.0], [0, 1]), noise=0.1)
    assert_close(loss.value, -math.log(0.9 * 3 / 4 + 0.05))


def test_with_noise_no_margin_makes_a_label_certain():
    sure = ranking_loss_with_label_noise(*one_prompt([1e3, 0.0], [0, 1]), noise=0.1)
    assert_close(sure.value, -math.log(1 - 0.1 / 2))


def test_with_noise_a_contradicted_label_costs_three_nats_at_most_and_pulls_no_more():
    prompt = one_prompt([0.0, 1e3], [0, 1])
    assert_close(ranking_loss_with_label_noise(*prompt, noise=0.1).value, -math.log(0.05))
    assert_close(slope(ranking_loss_with_label_noise, *prompt, noise=0.1), [[0.0, 0.0]])


def test_a_tie_taken_as_half_a_win_each_leaves_equal_scores_where_they_are():
    prompt = one_prompt([0.7, 0.7], [0, 0])
    for noise in (0.0, 0.1):
        assert_close(ranking_loss_with_ties(*prompt, noise=noise).value, math.log(2))
        assert_close(slope(ranking_loss_with_ties, *prompt, noise=noise), [[0.0, 0.0]])


def test_a_tie_taken_as_half_a_win_each_pulls_unequal_scores_together():
    """mu = (1/2, 1/2): the gradient is sigmoid(margin) - 1/2, to the higher score."""
    pull = slope(ranking_loss_with_ties, *one_prompt([math.log(3), 0.0], [0, 0]), noise=0.0)
    assert_close(pull, [[3 / 4 - 1 / 2, 1 / 2 - 3 / 4]])


def test_without_ties_counting_ties_changes_nothing():
    prompt = one_prompt([0.3, -1.0, 2.0], [2, 0, 1])
    with_ties, without = ranking_loss_with_ties(*prompt, noise=0.1), ranking_loss_with_label_noise(*prompt, noise=0.1)
    for name in without.metrics:
        assert_close(with_ties.metrics[name], without.metrics[name])


def test_a_tie_among_the_comparisons_shares_their_mean_but_not_their_accuracy():
    loss = ranking_loss_with_ties(*one_prompt([0.0, 0.0, -math.log(3)], [0, 0, 1]), noise=0.0)
    assert_close(loss.value, (math.log(2) - 2 * math.log(3 / 4)) / 3)
    assert_close(loss.metrics["accuracy"], 1.0)
    assert_close(loss.metrics["margin"], math.log(3))


def labelled(margin: float, chance: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The same pair labelled both ways, as often as it is: first over second with the given chance."""
    score = tensor([[margin, 0.0], [margin, 0.0]], dtype=torch.float64)
    weight = tensor([chance, 1 - chance], dtype=torch.float64)
    return score, tensor([[0, 1], [1, 0]]), torch.ones(2, 2, dtype=torch.bool), weight


@pytest.mark.parametrize("flipped", [0.05, 0.25, 0.4])
def test_under_flipped_labels_bradley_terry_settles_at_log_odds_of_the_flips_however_large_the_true_gap(flipped: float):
    """A gap so large that the better answer loses only by a flip: the margin goes to log((1 - e) / e) and no further."""
    settled = math.log((1 - flipped) / flipped)
    assert_close(slope(ranking_loss, *labelled(settled, 1 - flipped)).sum(0), [0.0, 0.0])
    best = float(ranking_loss(*labelled(settled, 1 - flipped)).value)
    for elsewhere in (settled - 0.1, settled + 0.1, settled + 5):
        assert float(ranking_loss(*labelled(elsewhere, 1 - flipped)).value) > best


@quick
@given(st.floats(0.1, 6), st.floats(0.01, 0.45))
def test_under_flipped_labels_the_noise_model_settles_at_the_true_gap_where_bradley_terry_shrinks_it(gap: float, flipped: float):
    chance = (1 - flipped) * sigmoid(gap) + flipped * (1 - sigmoid(gap))
    assert_close(slope(ranking_loss_with_label_noise, *labelled(gap, chance), noise=2 * flipped).sum(0), [0.0, 0.0])
    assert slope(ranking_loss, *labelled(gap, chance)).sum(0)[0] > 0  # down from the true gap
