"""How often a score agrees with the people who ranked."""

import math

import numpy as np

from prefloop.records import Completion, Group, Prompt, Ranking
from prefloop.stats.intervals import small_sample_stretch
from prefloop.stats.pair_accuracy import (
    accuracy_by_gap,
    by_prompt,
    calibration,
    clustered_share,
    length_baselines,
    pair_accuracy,
    signed_gaps,
)
from tests.helpers import assert_close


def group(name: str, *tiers: tuple[str, ...], unusable: tuple[str, ...] = ()) -> Group:
    """One ranking of answers named by their texts, in the order of the tiers."""
    prompt = Prompt.of(name)
    named = {text: Completion.of(prompt, text) for tier in (*tiers, unusable) for text in tier}
    placed = tuple(tuple(named[text].id for text in tier) for tier in tiers)
    left = tuple(named[text].id for text in unusable)
    shown = tuple(completion.id for completion in named.values())
    ranking = Ranking(prompt_id=prompt.id, tiers=placed, unusable=left, shown=shown, annotator="ada")
    return Group(prompt=prompt, completions=tuple(named.values()), rankings=(ranking,))


THREE = group("three", ("a",), ("bb",), ("ccc",))
TIED = group("tied", ("a", "bb"), ("ccc",))


def test_gaps_are_the_better_ones_score_less_the_worse_ones_over_all_ordered_pairs():
    (strict, tied) = signed_gaps([THREE, TIED], [[5.0, 3.0, 2.0], [1.0, 2.0, 4.0]])
    assert sorted(strict.tolist()) == [1.0, 2.0, 3.0]
    assert sorted(tied.tolist()) == [-3.0, -2.0]


def test_accuracy_pools_pairs_and_an_equal_score_counts_half():
    figure = pair_accuracy([THREE, TIED], [[5.0, 3.0, 3.0], [1.0, 4.0, 4.0]])
    assert_close(figure["mean"], (1 + 1 + 0.5 + 0 + 0.5) / 5)
    assert (figure["n"], figure["n_prompts"]) == (5, 2)


def test_turning_the_scores_round_turns_the_accuracy_round():
    scores = [[5.0, 3.0, 3.0], [1.0, 4.0, 4.0]]
    there, back = pair_accuracy([THREE, TIED], scores), pair_accuracy([THREE, TIED], [[-s for s in row] for row in scores])
    assert_close(there["mean"], 1 - float(back["mean"] or 0))


def test_adding_a_constant_to_a_prompts_scores_changes_nothing():
    assert pair_accuracy([THREE], [[5.0, 3.0, 4.0]]) == pair_accuracy([THREE], [[15.0, 13.0, 14.0]])


def test_unusable_answers_are_below_the_others():
    assert_close(pair_accuracy([group("x", ("a",), unusable=("bb", "ccc"))], [[1.0, 0.0, 2.0]])["mean"], 0.5)


def test_unusable_answers_form_no_pair_where_training_left_them_out():
    one = group("x", ("a",), ("bb",), unusable=("ccc", "dddd"))
    scores = [[2.0, 1.0, 3.0, 4.0]]  # right about a and bb, wrong about all four pairs with an unusable answer
    (below,), (left_out,) = signed_gaps([one], scores), signed_gaps([one], scores, with_unusable=False)
    assert sorted(below.tolist()) == [-3.0, -2.0, -2.0, -1.0, 1.0]
    assert left_out.tolist() == [1.0]
    figure = pair_accuracy([one], scores, with_unusable=False)
    assert (figure["mean"], figure["n"]) == (1.0, 1)
    assert length_baselines([one], with_unusable=False)["prefers_shorter"]["n"] == 1
    assert by_prompt([one], scores, with_unusable=False)["pairs"] == [1]
    assert [row["n"] for row in calibration([one], scores, with_unusable=False)] == [1]
    assert sum(int(row["n"] or 0) for row in accuracy_by_gap([one], scores, with_unusable=False)) == 1
    nobody = group("y", ("a",), unusable=("bb",))
    assert pair_accuracy([nobody], [[1.0, 0.0]], with_unusable=False)["n"] == 0


def test_a_correction_of_a_correction_is_the_one_that_counts():
    first = THREE.rankings[0]
    turned = first.model_copy(update={"id": "second", "tiers": first.tiers[::-1], "supersedes": first.id})
    tied = first.model_copy(
        update={"id": "third", "tiers": (first.tiers[0] + first.tiers[1], first.tiers[2]), "supersedes": "second"}
    )
    corrected = THREE.model_copy(update={"rankings": (tied, first, turned)})  # in any order
    (gaps,) = signed_gaps([corrected], [[3.0, 2.0, 1.0]])
    assert sorted(gaps.tolist()) == [1.0, 2.0]


def test_groups_of_one_prompt_are_one_prompt():
    """Ten times the same prompt is no more certain than once: of one prompt the interval is unknown."""
    again = [group("same", ("a",), ("bb",)) for _ in range(10)]
    figure = pair_accuracy(again, [[1.0, 0.0]] * 5 + [[0.0, 1.0]] * 5)
    assert (figure["mean"], figure["low"], figure["high"], figure["n"], figure["n_prompts"]) == (0.5, None, None, 10, 1)
    told = by_prompt(again, [[1.0, 0.0]] * 10)
    assert (told["prompt"], told["pairs"], told["accuracy"]) == ([again[0].prompt.id], [10], [1.0])


def test_a_ranking_that_was_corrected_no_longer_counts():
    first = THREE.rankings[0]
    turned = first.model_copy(update={"id": "new", "tiers": first.tiers[::-1], "supersedes": first.id})
    corrected = THREE.model_copy(update={"rankings": (first, turned)})
    assert_close(pair_accuracy([corrected], [[3.0, 2.0, 1.0]])["mean"], 0.0)
    assert pair_accuracy([corrected], [[3.0, 2.0, 1.0]])["n"] == 3


def test_without_an_ordered_pair_there_is_no_figure():
    nothing = {"mean": None, "low": None, "high": None, "n": 0, "n_prompts": 0}
    assert pair_accuracy([group("x", ("a", "bb"))], [[1.0, 2.0]]) == nothing
    assert pair_accuracy([], []) == nothing


def test_the_interval_is_over_prompts_not_over_pairs():
    """Ten prompts of 100 equal pairs each say as much as ten prompts of one pair."""
    wide, narrow = ([np.full(n, float(i < 5)) for i in range(10)] for n in (100, 1))
    many, few = clustered_share(wide), clustered_share(narrow)
    assert (many["mean"], many["low"], many["high"]) == (few["mean"], few["low"], few["high"])
    assert many["n"] == 1000 and few["n"] == 10
    # the share of ones in ten draws with replacement is binomial: 2 of 10 and 8 of 10 are its 2.5% and 97.5% points
    assert_close(
        [many["low"], many["high"]], [0.5 - 0.3 * small_sample_stretch(10, 0.95), 0.5 + 0.3 * small_sample_stretch(10, 0.95)]
    )


def test_the_interval_of_a_few_prompts_covers_as_often_as_it_says_and_stays_a_share():
    """Four prompts of nine pairs, the score right 60% of the time: the plain percentiles hold that share in 81 of 100 trials."""
    source = np.random.default_rng(3)
    told = [clustered_share(list((source.random((4, 9)) < 0.6).astype(float)), n_boot=300, seed=i) for i in range(300)]
    assert sum(float(t["low"] or 0) <= 0.6 <= float(t["high"] or 0) for t in told) / 300 > 0.9
    assert all(float(t["low"] or 0) >= 0.0 and float(t["high"] or 0) <= 1.0 for t in told)


def test_the_length_baselines_mirror_each_other():
    longer, shorter = length_baselines([THREE, TIED]).values()
    assert_close(longer["mean"], 0.0)  # the better answer is the shorter one in all five pairs
    assert_close(shorter["mean"], 1.0)
    equal = length_baselines([group("x", ("a",), ("b",))])
    assert [figure["mean"] for figure in equal.values()] == [0.5, 0.5]


def test_figures_of_each_prompt_are_means_over_its_own_pairs():
    table = by_prompt([THREE, group("all tied", ("a", "b")), TIED], [[math.log(3), 0.0, 0.0], [1.0, 2.0], [1.0, 2.0, 1.0]])
    assert table["prompt"] == [THREE.prompt.id, TIED.prompt.id]
    assert_close(table["accuracy"], [(1 + 1 + 0.5) / 3, (0.5 + 1) / 2])
    assert_close(table["loss"][0], (2 * math.log(4 / 3) + math.log(2)) / 3)
    assert_close(table["prefers_longer"], [0.0, 0.0])
    assert_close(table["prefers_shorter"], [1.0, 1.0])


def test_a_score_that_tells_its_own_chances_is_calibrated():
    """Pairs a gap of log 3 apart that come out right three times in four lie in one bin, on the diagonal."""
    right, wrong = group("right", ("a",), ("b",)), group("wrong", ("b",), ("a",))
    gap = [math.log(3), 0.0]
    (bin_,) = calibration([right, right, right, wrong], [gap, gap, gap, [0.0, math.log(3)]])
    assert_close(bin_["predicted"], 0.75)
    assert_close(bin_["observed"], 0.75)
    assert bin_["n"] == 4


def test_a_score_that_cannot_tell_is_calibrated_too():
    (bin_,) = calibration([THREE], [[1.0, 1.0, 1.0]])
    assert (bin_["predicted"], bin_["observed"], bin_["n"]) == (0.5, 0.5, 3)


def test_calibration_of_huge_gaps_does_not_overflow():
    (bin_,) = calibration([group("x", ("a",), ("b",))], [[1e6, 0.0]])
    assert_close(bin_["predicted"], 1.0)


def test_bins_by_gap_are_equally_filled_and_every_pair_is_in_one():
    groups = [group(str(i), ("a",), ("b",)) for i in range(20)]
    scores = [[float(i if i >= 10 else -i), 0.0] for i in range(20)]  # wrong where the gap is small
    rows = accuracy_by_gap(groups, scores)
    assert [row["n"] for row in rows] == [4, 4, 4, 4, 4]
    assert [row["observed"] for row in rows] == [0.125, 0.0, 0.5, 1.0, 1.0]  # the gap of 0 counts half
    assert_close([float(row["predicted"] or 0) for row in rows], [1.5, 5.5, 9.5, 13.5, 17.5])
    assert accuracy_by_gap([], []) == []


def test_where_prompts_with_many_pairs_are_easier_the_interval_is_about_the_pooled_share():
    """Ten prompts of one wrong pair and ten of nine right ones: 90% of the pairs, and 50% of the prompts."""
    told = clustered_share([np.zeros(1)] * 10 + [np.ones(9)] * 10)
    assert_close(told["mean"], 0.9)
    assert 0.7 < told["low"] < 0.9 < told["high"] < 1.0
