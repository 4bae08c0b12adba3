"""What the page may claim, and what it must not."""

import math

from prefloop.report.data import CurvePoint, Paired
from prefloop.report.findings import direction, findings, headline, shape
from prefloop.report.texts import words_of
from tests.report.example import figure, pair, points, row, study

EN = words_of("en")


def difference(low: float, high: float) -> Paired:
    return Paired(a="ppo", b="sft", metric="gold", mean=(low + high) / 2, low=low, high=high, n_prompts=300)


def sentences(**changes) -> list[str]:
    return [finding.text for finding in findings(study(**changes), EN)]


def curve(gold: list[float], proxy: list[float], arm: float = 0.1) -> list[CurvePoint]:
    return [CurvePoint.model_validate(point) for point in points(gold, proxy, arm)]


def test_an_order_is_claimed_only_when_the_interval_excludes_zero():
    assert direction(difference(0.01, 0.5)) == "above"
    assert direction(difference(-0.5, -0.01)) == "below"
    assert direction(difference(-0.01, 0.5)) == "open"
    assert direction(difference(0.0, 0.5)) == "open"
    assert direction(difference(-0.5, 0.0)) == "open"
    assert direction(difference(math.nan, math.nan)) == "open"


def test_an_interval_without_bounds_claims_nothing():
    unbounded = Paired.model_validate(
        {"a": "ppo", "b": "sft", "metric": "gold", "mean": 9.0, "low": None, "high": None, "n_prompts": 1}
    )
    assert direction(unbounded) == "open"


def test_both_trained_policies_above_sft_is_a_yes():
    assert headline(study(), EN) == ("yes", "Yes: better answers than the SFT model, from PPO and PPO-ptx.")


def test_one_of_two_above_sft_is_a_partly():
    found = headline(study(paired=[pair("ppo", "sft", 1.0), pair("ppo_ptx", "sft", 0.1)]), EN)
    assert found == ("open", "Partly: better answers than the SFT model from PPO; not shown for PPO-ptx.")


def test_a_policy_without_a_comparison_is_never_counted_as_better():
    found = headline(study(paired=[pair("ppo", "sft", 1.0)]), EN)
    assert found.text == "Partly: better answers than the SFT model from PPO; not shown for PPO-ptx."


def test_intervals_that_hold_zero_show_nothing():
    found = headline(study(paired=[pair("ppo", "sft", 0.1), pair("ppo_ptx", "sft", -0.1)]), EN)
    assert found == ("open", "Not shown: PPO and PPO-ptx and the SFT model are not separated.")


def test_worse_answers_are_a_no():
    found = headline(study(paired=[pair("ppo", "sft", -1.0), pair("ppo_ptx", "sft", 0.1)]), EN)
    assert found == ("no", "No: worse answers than the SFT model, from PPO.")


def test_without_a_paired_comparison_the_headline_is_not_measured():
    found = headline(study(paired=[]), EN)
    assert found.verdict == "missing" and found.text.startswith("Not measured")


def test_the_run_that_is_meant_to_fail_does_not_decide_the_headline():
    data = study(paired=[pair("ppo", "sft", 1.0), pair("ppo_ptx", "sft", 1.0), pair("ppo_overoptimised", "sft", -3.0)])
    assert headline(data, EN).verdict == "yes"


def test_a_difference_counts_whichever_way_round_it_was_stored():
    reversed_pairs = [pair("sft", "ppo", -1.0), pair("sft", "ppo_ptx", -1.0)]
    assert headline(study(paired=reversed_pairs), EN).verdict == "yes"
    flipped = study(paired=[pair("sft", "ppo", -1.0, 0.25)]).difference("ppo", "sft", "gold")
    assert flipped is not None and (flipped.mean, flipped.low, flipped.high) == (1.0, 0.75, 1.25)


def test_a_separated_difference_is_told_with_interval_sample_distance_and_length():
    assert (
        "PPO is above SFT in gold reward: +1.66 [1.41,\u00a01.91], 300 prompts; "
        "KL 2.51 against 0.00 nats, length 20.4 against 21.2 tokens." in sentences()
    )


def test_a_difference_whose_interval_holds_zero_is_not_separated():
    assert any(
        text.startswith("PPO and Best of n are not separated in gold reward: +0.04 [−0.21,\u00a00.29]") for text in sentences()
    )


def test_a_skill_lost_to_ppo_is_told_from_the_side_of_ppo_ptx_in_points():
    assert "PPO-ptx is above PPO in skill “sums”: +25.0 [18.8,\u00a031.2] points, 300 items." in sentences()


def test_a_comparison_that_was_not_made_is_said_to_be_missing():
    assert "PPO-ptx against SFT in gold reward: not measured." in sentences(paired=[pair("ppo", "sft", 1.0)])


def test_a_new_method_in_the_table_is_judged_like_the_others():
    rows = [row("sft", 0.0, 0.0, 20.0), row("dpo", 1.0, 1.0, 20.0)]
    assert headline(study(rows=rows, paired=[pair("dpo", "sft", 1.0)]), EN).text.endswith("from DPO.")


def test_gold_that_peaks_and_falls_while_the_proxy_climbs_is_over_optimised():
    found = shape(curve([0.0, 1.0, 0.5, -1.0], [0.0, 1.0, 2.0, 3.0]))
    assert (found.kind, found.peak, found.last) == ("peaked", 1, 3)


def test_a_peak_within_the_intervals_of_the_end_is_not_a_fall():
    assert shape(curve([0.0, 1.0, 0.9], [0.0, 1.0, 2.0], arm=0.1)).kind == "no_fall"
    assert shape(curve([0.0, 1.0, 0.7], [0.0, 1.0, 2.0], arm=0.1)).kind == "peaked"


def test_gold_still_rising_at_the_end_is_not_over_optimised():
    assert shape(curve([0.0, 1.0, 2.0], [0.0, 1.0, 2.0])).kind == "no_fall"


def test_gold_that_only_falls_has_no_peak():
    assert shape(curve([1.0, 0.0, -1.0], [0.0, 1.0, 2.0])).kind == "fell"
    assert shape(curve([0.95, 1.0, -1.0], [0.0, 1.0, 2.0])).kind == "fell"


def test_a_proxy_that_falls_with_gold_is_no_over_optimisation():
    assert shape(curve([0.0, 1.0, -1.0], [0.0, 1.0, 0.5])).kind == "no_climb"


def test_without_intervals_or_with_two_points_the_shape_is_not_judged():
    bare = [CurvePoint(step=i, gold=g, proxy=float(i)) for i, g in enumerate((0.0, 1.0, -1.0))]
    assert shape(bare).kind == "no_interval"
    assert shape(curve([0.0, 1.0], [0.0, 1.0])).kind == "missing"
    assert shape([]).kind == "missing"


def test_points_that_are_not_numbers_are_passed_over():
    assert shape(curve([0.0, math.nan, 1.0, -1.0], [0.0, 1.0, 2.0, 3.0])).peak == 2


def test_over_optimisation_is_told_with_its_peak_its_end_and_both_distances():
    assert (
        "Over-optimisation, in PPO with few rankings, no KL price: gold reward peaks at 1.00 [0.90,\u00a01.10] (KL 1.00) and falls to "
        "−1.00 [−1.10,\u00a0−0.90] (KL 3.00), further than the intervals reach, while the proxy climbs from 1.00 to 3.00."
    ) in sentences()


def test_a_run_that_was_meant_to_over_optimise_and_did_not_is_told_too():
    told = sentences(curves={"ppo_overoptimised": points([0.0, 1.0, 2.0], [0.0, 1.0, 2.0])})
    assert any(text.startswith("No over-optimisation seen in PPO with few rankings, no KL price") for text in told)
    assert not any("peaks at" in text for text in told)


def test_a_missing_over_optimisation_run_is_not_measured():
    assert any(
        text.startswith("Over-optimisation in PPO with few rankings, no KL price: not measured") for text in sentences(curves={})
    )


def test_over_optimisation_where_nobody_meant_it_is_bad_news():
    found = findings(study(curves={"ppo": points([0.0, 1.0, -1.0], [0.0, 1.0, 2.0])}), EN)
    told = next(finding for finding in found if "Over-optimisation, in PPO:" in finding.text)
    assert told.verdict == "no"


def test_a_curve_is_read_in_the_order_of_its_steps_not_of_the_file():
    shuffled = list(reversed(points([0.0, 1.0, 0.5, -1.0], [0.0, 1.0, 2.0, 3.0])))
    assert any("peaks at 1.00" in text for text in sentences(curves={"ppo_overoptimised": shuffled}))


def trust(accuracy: float, arm: float) -> str:
    model = {"pair_accuracy": figure(accuracy, arm), "bayes_ceiling": 0.75}
    return next(text for text in sentences(reward_model=model) if text.startswith("The reward model"))


def test_the_reward_model_is_held_against_eight_points_below_its_ceiling():
    assert "is within the aim of 8 points" in trust(0.70, 0.02)  # all of [.68, .72] is above .67
    assert "falls short of the aim" in trust(0.60, 0.03)
    assert "holds both sides of the aim" in trust(0.68, 0.03)


def test_nor_is_an_aim_reached_by_a_figure_without_an_interval():
    told = sentences(reward_model={"pair_accuracy": 0.74, "bayes_ceiling": 0.75})
    assert any("Without an interval, whether it is within the aim of 8 points stays open" in text for text in told)


def test_a_reward_model_that_was_not_measured_is_said_to_be():
    assert "How far the reward model can be trusted: not measured." in sentences(reward_model=None)
    told = sentences(reward_model={"pair_accuracy": 0.7})
    assert any("70.0%" in text and "ceiling of those labels was not measured" in text for text in told)


def test_one_training_run_is_admitted_and_five_are_enough():
    one = [pair("ppo", "sft", 1.0, seeds=1)]
    three = [pair("ppo", "sft", 1.0, seeds=3)]
    five = [pair("ppo", "sft", 1.0, seeds=5)]
    assert any(text.startswith("One training run per method") for text in sentences(paired=one))
    assert any(text.startswith("3 training runs per method: fewer than the five") for text in sentences(paired=three))
    assert not any("training run" in text for text in sentences(paired=five))
    assert any("300 prompts, 5 seeds" in text for text in sentences(paired=five))
