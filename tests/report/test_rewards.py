"""The page of a study of reward models alone: better than guessing or not, and what the study does not have."""

import pytest

from prefloop.report.page import render
from prefloop.report.rewards import findings, headline, standing
from prefloop.report.texts import words_of
from tests.report.example import reward_pair, reward_row, study, study_of_rewards
from tests.report.reading import Page

EN = words_of("en")


@pytest.mark.parametrize(
    ("models", "told"),
    [
        ([("reward", 0.625)], ("yes", "Yes: better than guessing, reward.")),
        ([("kway", 0.625), ("shuffled", 0.5)], ("open", "Partly: better than guessing, kway; not shown for shuffled.")),
        ([("reward", 0.5)], ("open", "Not shown to be better than guessing: reward.")),
        ([("reward", 0.375), ("other", 0.5)], ("no", "No: worse than chance or than a rule of length, reward.")),
    ],
)
def test_the_headline_says_whether_a_model_is_better_than_guessing(models, told):
    assert headline(study_of_rewards(*models), EN) == told
    assert headline(study_of_rewards(*models), words_of("zh")).verdict == told[0]


def test_better_than_chance_but_not_than_a_rule_of_length_is_not_better_than_guessing():
    rows = [reward_row("reward", 0.625)]
    longer = [reward_pair("reward", "prefers_longer", -0.125), reward_pair("reward", "prefers_shorter", 0.25)]
    data = study(rows=[], paired=[], curves={}, rewards=rows, reward_pairs=longer)
    assert standing(data, data.rewards[0]) == {"chance": "above", "prefers_longer": "below", "prefers_shorter": "above"}
    assert headline(data, EN).verdict == "no"
    unsure = study(rows=[], paired=[], curves={}, rewards=rows, reward_pairs=longer[1:])  # one rule was not measured
    assert headline(unsure, EN).verdict == "open"


def test_an_accuracy_whose_interval_holds_a_half_is_not_above_chance_whatever_its_mean():
    rows = [reward_row("reward", 0.53125), reward_row("other", 0.46875)]
    data = study(rows=[], paired=[], curves={}, rewards=rows, reward_pairs=[])
    assert [standing(data, row)["chance"] for row in data.rewards] == ["open", "open"]


def test_a_model_is_told_with_its_accuracy_its_sample_and_all_three_guessers():
    told = findings(study_of_rewards(("reward", 0.625)), EN)[0]
    assert told.verdict == "yes"
    assert told.text == (
        "reward puts 62.5% [56.2,\u00a068.8] of held-out pairs in the order of their labels (300 prompts, 5 seeds): above chance; "
        "better than “prefers the longer” (+12.5 [6.2,\u00a018.8] points); better than “prefers the shorter” (+12.5 [6.2,\u00a018.8] points)."
    )


def test_two_models_are_compared_in_accuracy_and_log_loss_in_one_sentence():
    data = study_of_rewards(("kway", 0.625), ("shuffled", 0.5))
    between = (reward_pair("kway", "shuffled", 0.125), reward_pair("kway", "shuffled", -0.03125, 0.0625, "loss"))
    with_both = data.model_copy(update={"reward_pairs": (*data.reward_pairs, *study(reward_pairs=between).reward_pairs)})
    told = [finding for finding in findings(with_both, EN) if finding.text.startswith("kway against")]
    assert [finding.text for finding in told] == [
        "kway against shuffled, 300 prompts, 5 seeds: held-out accuracy +12.5 [6.2,\u00a018.8] points, above; "
        "log-loss (nats a pair) −0.031 [−0.094,\u00a00.031], not separated."
    ]


def test_the_page_has_the_figures_the_rules_and_says_once_what_the_study_has_not():
    page = Page(render(study_of_rewards(("reward", 0.625), reward_model=study().reward_model)))
    assert "62.5% [56.2, 68.8] · 300 prompts, 5 seeds 0.688 [0.656, 0.719] 43.8% 56.2%" in page.text
    assert "This study compares no policies, so these parts were not measured: The policies side by side, The loop" in page.text
    sections = [attributes["id"] for attributes in page.named("section")]
    assert sections == ["answer", "table", "findings", "reward", "paired", "data", "stages", "reproduce", "glossary"]
    assert all(link[1:] in page.all("id") for link in page.all("href"))
    assert "reward − “prefers the longer” held-out accuracy +12.5" in page.text
    assert EN["glossary.loss"] in page.text and EN["glossary.ppo"] not in page.text


def test_each_of_several_models_shows_its_own_chances():
    page = Page(render(study_of_rewards(("kway", 0.625), ("shuffled", 0.5))))
    assert page.text.count("65.0% 61.0% 403") == 2
    ids = page.all("id")
    assert len(ids) == len(set(ids))


def test_the_chinese_page_of_reward_models_has_no_english_sentence():
    chinese = Page(render(study_of_rewards(("reward", 0.625)), lang="zh")).text
    assert "是：reward 优于猜测。" in chinese
    assert [key for key, text in EN.items() if len(text) > 30 and text in chinese] == []


def test_a_model_without_a_held_out_pair_is_said_to_be_unjudged():
    data = study(rows=[], paired=[], curves={}, rewards=[{"name": "reward"}], reward_pairs=[])
    assert findings(data, EN)[0] == ("missing", "reward: not judged, it has no held-out pair.")
    assert headline(data, EN).verdict == "open"
    assert "not measured" in render(data)


def test_the_ceiling_is_drawn_and_explained_where_it_is_known_and_not_mentioned_where_not():
    known = study_of_rewards(("reward", 0.625), reward_model=study().reward_model)
    part = render(known).partition('id="reward"')[2].partition("</section>")[0]
    assert "the upright line is the ceiling" in part and "The ceiling: what the true reward itself would get" in part
    assert part.partition("the upright line")[0].count("tick") == 1
    unknown = render(
        study_of_rewards(("reward", 0.625), reward_model=study().reward_model.model_copy(update={"bayes_ceiling": None}))
    )
    part = unknown.partition('id="reward"')[2].partition("</section>")[0]
    assert "no ceiling is drawn" in part and "upright" not in part
