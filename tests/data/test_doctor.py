"""The report: what it counts, what it says, and that every row is accounted for."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefloop.data.doctor import DataReport, distribution
from prefloop.data.read import check, read_groups
from prefloop.errors import DataError
from prefloop.records import Group
from tests.helpers import assert_close


def pair(prompt="q", chosen="a", rejected="b") -> dict:
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected}


def write(folder, rows):
    path = folder / "x.jsonl"
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def remarks(folder, rows) -> dict[str, tuple[int, str]]:
    return {reason: (finding.n, finding.where) for reason, finding in check(write(folder, rows)).remarks.items()}


def test_a_clean_set_has_no_remarks(tmp_path):
    assert remarks(tmp_path, [pair("p"), pair("q"), pair("q", "c")]) == {}


def test_records_that_say_the_same_are_duplicates_whatever_else_their_rows_say(tmp_path):
    rows = [pair() | {"id": 1}, pair("other"), pair() | {"id": 2}, pair() | {"id": 3}]
    assert remarks(tmp_path, rows) == {"a record that was there before": (2, "x.jsonl:3")}


def test_a_pair_ordered_both_ways_is_a_contradiction(tmp_path):
    rows = [pair("q", "a", "b"), pair("q", "b", "c"), pair("r", "b", "a"), pair("q", "b", "a")]
    assert remarks(tmp_path, rows) == {"a pair ordered both ways by one annotator": (1, "x.jsonl:4")}


def test_contradictions_are_found_inside_rankings_of_many(tmp_path):
    rows = [
        {"prompt": "q", "completions": ["a", "b", "c"], "ranks": [1, 2, 3]},
        {"prompt": "q", "completions": ["a", "b", "c"], "ranks": [3, 2, 1]},
    ]
    assert remarks(tmp_path, rows) == {"a pair ordered both ways by one annotator": (3, "x.jsonl:2")}


def test_two_people_who_disagree_contradict_nobody(tmp_path):
    group = read_groups(write(tmp_path, [pair("q", "a", "b")])).records[0]
    better, worse = group.completions
    fields = {"prompt_id": group.prompt.id, "shown": (better.id, worse.id)}
    ada = {**fields, "tiers": ((better.id,), (worse.id,)), "annotator": "human:ada"}
    bob = {**fields, "tiers": ((worse.id,), (better.id,)), "annotator": "human:bob"}
    both = Group.model_validate({**group.model_dump(), "rankings": [ada, bob]})
    assert remarks(tmp_path, [both.model_dump(mode="json")]) == {}
    twice = Group.model_validate({**group.model_dump(), "rankings": [ada, {**bob, "annotator": "human:ada"}]})
    assert list(remarks(tmp_path, [twice.model_dump(mode="json")])) == ["a pair ordered both ways by one annotator"]


def test_a_ranking_that_was_replaced_contradicts_nothing(tmp_path):
    group = read_groups(write(tmp_path, [pair("q", "a", "b")])).records[0]
    old = group.rankings[0]
    new = {**old.model_dump(exclude={"id"}), "tiers": old.tiers[::-1], "supersedes": old.id}
    corrected = Group.model_validate({**group.model_dump(), "rankings": [old.model_dump(), new]})
    assert remarks(tmp_path, [corrected.model_dump(mode="json")]) == {}


def test_all_tied_groups_and_empty_answers_are_kept_and_counted(tmp_path):
    rows = [
        {"prompt": "q", "completions": ["a", "b"], "scores": [1, 1]},
        {"prompt": "r", "completions": ["a", " "], "scores": [1, 0]},
    ]
    assert remarks(tmp_path, rows) == {
        "a group whose answers are all tied: it teaches nothing": (1, "x.jsonl:1"),
        "an empty answer": (1, "x.jsonl:2"),
    }


def test_a_choice_against_its_own_scores_is_kept_and_counted(tmp_path):
    rows = [pair() | {"score_chosen": 1, "score_rejected": 2}]
    assert remarks(tmp_path, rows) == {"chosen has the lower score; the choice counts": (1, "x.jsonl:1")}


def test_k_and_the_number_of_units_a_split_can_part_are_counted(tmp_path):
    rows = [
        {"prompt": "p", "completions": ["a", "b", "c"], "ranks": [1, 2, 3]},
        {"prompt": [{"role": "user", "content": "p"}, {"role": "assistant", "content": "a"}, {"role": "user", "content": "q"}]}
        | {"completions": ["a", "b"], "ranks": [1, 2]},
        {"prompt": "r", "completions": ["a", "b", "c"], "ranks": [1, 2, 3]},
    ]
    report = check(write(tmp_path, rows))
    assert report.completions_per_group == {2: 1, 3: 2}
    assert (report.n_prompts, report.n_units) == (3, 2)
    assert "  prompts    3 different; a split by prompt has only 2 parts to share out" in report.lines()
    assert "  K          2: 1, 3: 2" in report.lines()


def test_lengths_are_in_characters_and_in_tokens_where_they_can_be_counted(tmp_path):
    path = write(tmp_path, [pair("one two", "x" * 20, "a b c")])
    report = check(path, count_tokens=lambda text: len(text.split()))
    assert report.lengths["answer characters"].bins == {"0-15": 1, "16-31": 1}
    assert report.lengths["answer tokens"].maximum == 3
    assert report.lengths["prompt tokens"].median == 2
    assert "answer tokens" not in check(path).lengths


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=50))
def test_every_length_is_in_the_bin_that_bounds_it(values):
    lengths = distribution(values)
    for bounds, n in lengths.bins.items():
        low, high = map(int, bounds.split("-"))
        assert n == sum(low <= value <= high for value in values)
    assert sum(lengths.bins.values()) == lengths.n == len(values)
    assert sum(value <= lengths.median for value in values) * 2 >= len(values)
    assert sum(value <= lengths.p90 for value in values) * 10 >= 9 * len(values)
    assert lengths.median <= lengths.p90 <= lengths.maximum == max(values)


ROWS = st.sampled_from(
    [
        pair(),
        pair("p", "c"),
        pair(chosen=1),
        pair(rejected="a"),
        {"prompt": "q"},
        {"prompt": "q", "chosen": "a", "rejected": None},
        "{",
        "[]",
        "",
    ]
)


@given(rows=st.lists(ROWS, max_size=12))
def test_every_row_is_kept_set_aside_or_dropped(tmp_path_factory, rows):
    report = check(write(tmp_path_factory.mktemp("rows"), [pair("first"), *rows]))
    n_aside = sum(finding.n for finding in report.set_aside.values())
    assert report.n_rows == 1 + sum(row != "" for row in rows) == report.n_kept + report.n_dropped + n_aside


def test_what_encoding_lost_counts_against_the_limit(tmp_path):
    report = check(write(tmp_path, [pair(str(n)) for n in range(10)]))  # 10 groups, 20 answers
    encoded = report.after_encoding(truncated_answers=1, prompts_too_long=2, example="a long answer")
    assert_close(encoded.share_lost, 1 / 20 + 2 / 10)
    assert "  encoding   1  an answer cut short" in encoded.lines()
    encoded.refuse_if_too_many_dropped(0.25)
    with pytest.raises(DataError, match=r"25\.0% of the data .* at most 24\.0%"):
        encoded.refuse_if_too_many_dropped(0.24)
    assert report.after_encoding() == report


def test_answers_cut_are_a_share_of_the_answers_encoded_not_of_rows_or_of_what_is_held_out(tmp_path):
    """Ten rows of K = 4 and a torn one; six groups are trained on: 3 of their 24 answers were cut, 1 of 6 prompts is too long."""
    rows = [{"prompt": f"p{n}", "completions": list("abcd"), "ranks": [1, 2, 3, 4]} for n in range(10)]
    report = check(write(tmp_path, [*rows, "{"]))
    assert (report.n_answers, report.n_rows) == (40, 11)
    encoded = report.after_encoding(truncated_answers=3, prompts_too_long=1, answers=24, prompts=6)
    assert_close(encoded.share_lost, 1 / 11 + 3 / 24 + 1 / 6)
    assert_close(report.after_encoding(truncated_answers=3).share_lost, 1 / 11 + 3 / 40)  # all were encoded
    one_of_nineteen = check(write(tmp_path, rows)).after_encoding(truncated_answers=1, answers=19)
    one_of_twenty = check(write(tmp_path, rows)).after_encoding(truncated_answers=1, answers=20)
    one_of_twenty.refuse_if_too_many_dropped()
    with pytest.raises(DataError, match=r"5\.3% of the data .* at most 5\.0%"):
        one_of_nineteen.refuse_if_too_many_dropped()


def test_whoever_allows_everything_to_be_lost_is_not_refused_where_every_answer_is_cut_and_prompts_are_too_long(tmp_path):
    report = check(write(tmp_path, [pair(str(n)) for n in range(4)])).after_encoding(truncated_answers=8, prompts_too_long=2)
    assert report.share_lost == 1.0  # 8 of 8 and 2 of 4
    report.refuse_if_too_many_dropped(1.0)
    with pytest.raises(DataError, match=r"100\.0% of the data .* at most 99\.0%"):
        report.refuse_if_too_many_dropped(0.99)


def test_prompts_in_both_sides_of_a_split_are_counted_once_each(tmp_path):
    reading = read_groups(write(tmp_path, [pair("p"), pair("q"), pair("q", "c"), pair("r")]))
    p, q, q2, r = reading.records
    report = reading.report.with_splits({"train": [p, q, q2], "held_out": [q, r]})
    assert report.by_split == {"train": 3, "held_out": 2}
    assert report.remarks["a prompt in more than one split"].n == 1
    assert "a prompt in more than one split" not in reading.report.with_splits({"train": [p, q], "held_out": [r]}).remarks


def test_the_report_is_json(tmp_path):
    report = check(write(tmp_path, [pair(), pair("p") | {"extra": 1}, "{"]), count_tokens=len)
    told = json.loads(json.dumps(report.as_dict()))
    assert told["dropped"] == {"not JSON": {"n": 1, "where": "x.jsonl:3", "snippet": "{"}}
    assert told["completions_per_group"] == {"2": 2}
    assert told["unused_columns"] == ["extra"]
    assert (told["n_rows"], told["n_kept"], told["n_dropped"]) == (3, 2, 1)


def test_the_report_reads_from_top_to_bottom(tmp_path):
    report = check(write(tmp_path, [pair("p", "long answer " * 3), pair("p", "x"), "{"]))
    lines = str(report).splitlines()
    assert lines[0].endswith("x.jsonl: 3 rows read as preference, giving 2 groups")
    assert lines[1:] == [
        "  kept       2 rows (66.7%)",
        "  dropped    1  not JSON",
        "               x.jsonl:3  {",
        "  prompts    1 different; a split by prompt has only 1 parts to share out",
        "  K          2: 2",
        "  prompt characters: median 1, 90% up to 1, longest 1",
        "  answer characters: median 1, 90% up to 36, longest 36",
        f"             0-15        3 {'#' * 32}",
        f"            32-63        1 {'#' * 11}",
    ]


def test_a_report_on_nothing_divides_by_nothing():
    assert DataReport("x", "text", "text").share_lost == 0
    assert DataReport("x", "text", "text").lines()
