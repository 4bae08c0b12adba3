"""Real public sets, where they are at hand: recognised as what they are, and at least 95% of their rows kept."""

import pytest

from prefloop.data.read import check, read_groups
from prefloop.data.write import split_by_prompt

pytestmark = pytest.mark.data

SETS = {
    "hh_rlhf_harmless": "implicit-preference",
    "alpaca_eval_k8": "alpaca-eval",
    "sentiment_rank_zh/ranked4.jsonl.gz": "ranked-texts",
    "sentiment_rank_zh/pairs.jsonl.gz": "selected-rejected",
    "oasst_zh_ranked": "alpaca-ranked",
    "oasst1_en_validation/messages.jsonl.gz": "oasst-messages",
    "oasst1_en_validation/ranked_groups.jsonl.gz": "oasst-groups",
    "oasst2_filtered_trees/trees.jsonl.gz": "oasst-trees",
    "oasst2_filtered_trees/ranked_groups.jsonl.gz": "oasst-groups",
    "ultrafeedback_pairs": "preference",
    "dpo_demo_en_zh/dpo_en.jsonl.gz": "sharegpt-preference",
    "dpo_demo_en_zh/dpo_zh.jsonl.gz": "sharegpt-preference",
    "dpo_demo_en_zh/kto_en.jsonl.gz": "unpaired-messages",
    "dpo_zh_500": "sharegpt-preference",
    "hhh_alignment": "reward-bench",
    "alpaca_en/alpaca_gpt4_demo.jsonl.gz": "alpaca",
    "alpaca_zh/alpaca_gpt4_zh.jsonl.gz": "alpaca",
    "chat_bench_prompts/arena_hard_500.jsonl.gz": "prompts",
    "self_instruct/seed_tasks.jsonl.gz": "instructions",
    "tinystories/part_a.txt.gz": "text",
    "english_text/inaugural.jsonl.gz": "text",
}
MAPPED = {
    "stack_exchange_pairs": ({"prompt": "question", "chosen": "response_j", "rejected": "response_k"}, "preference"),
    "topical_chat_usr": ({"prompt": "dialogue", "completions": "responses[].text", "scores": "responses[].overall"}, "k-answers"),
}


@pytest.mark.parametrize("name", SETS)
def test_a_set_is_recognised_and_kept(data, name):
    report = check(data / name)
    assert report.format == SETS[name]
    assert report.n_dropped <= 0.05 * report.n_rows
    assert report.n_records > 0


@pytest.mark.parametrize("name", MAPPED)
def test_a_set_with_columns_of_its_own_is_read_through_a_mapping(data, name):
    mapping, format = MAPPED[name]
    report = check(data / name, mapping=mapping)
    assert report.format == format
    assert report.n_kept >= 0.95 * report.n_rows


def test_the_comparisons_of_the_messages_are_the_published_ones_but_for_deleted_replies(data):
    flat = read_groups(data / "oasst1_en_validation" / "messages.jsonl.gz", name="x").records
    cut = read_groups(data / "oasst1_en_validation" / "ranked_groups.jsonl.gz", name="x").records
    published = {group.prompt.id: {completion.text for completion in group.completions} for group in cut}
    assert len(flat) >= 0.99 * len(cut)
    assert all({completion.text for completion in group.completions} <= published[group.prompt.id] for group in flat)


@pytest.mark.parametrize("name", ["hh_rlhf_harmless", "oasst1_en_validation/ranked_groups.jsonl.gz"])
def test_no_prompt_and_no_first_turn_of_a_real_set_is_on_both_sides(data, name):
    groups = read_groups(data / name).records
    train, held_out = split_by_prompt(groups, held_out=0.2, seed=0)
    assert 0.1 * len(groups) < len(held_out) < 0.3 * len(groups)
    assert {group.prompt.id for group in train}.isdisjoint(group.prompt.id for group in held_out)
    first = [{group.prompt.messages[0].content for group in side} for side in (train, held_out)]
    assert first[0].isdisjoint(first[1])
