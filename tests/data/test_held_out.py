"""What is judged on shares no prompt and no tree with what is learned from."""

import pytest

from prefloop.data.held_out import SHARED, read_split_groups, refuse_without_order
from prefloop.data.write import write_groups
from prefloop.errors import DataError
from prefloop.records import Completion, Group, Message, Prompt, Ranking


def group(*turns: str, tags: tuple[str, ...] = (), tied: bool = False, unusable: bool = False) -> Group:
    """A conversation that begins and ends with the user, and two answers: one over the other, equal, or one unusable."""
    roles = ("user", "assistant")
    prompt = Prompt(messages=tuple(Message(role=roles[i % 2], content=text) for i, text in enumerate(turns)), tags=tags)
    answers = tuple(Completion.of(prompt, text) for text in ("good", "bad"))
    good, bad = (answer.id for answer in answers)
    tiers = ((good, bad),) if tied else ((good,),) if unusable else ((good,), (bad,))
    out = (bad,) if unusable else ()
    said = Ranking(prompt_id=prompt.id, tiers=tiers, unusable=out, shown=(good, bad), annotator="x")
    return Group(prompt=prompt, completions=answers, rankings=(said,))


def split(folder, train: list[Group], judged: list[Group]):
    write_groups(folder / "train.jsonl", train)
    write_groups(folder / "judged.jsonl", judged)
    return read_split_groups(str(folder / "train.jsonl"), validation=str(folder / "judged.jsonl"), held_out=0.1, seed=0)


def test_prompts_of_both_files_are_learned_from_and_not_judged_on_and_the_report_says_so(tmp_path):
    train, held_out, reading, n_shared = split(tmp_path, [group("a"), group("b")], [group("b"), group("c"), group("a")])
    assert [one.prompt.text for one in train] == ["a", "b"]
    assert [one.prompt.text for one in held_out] == ["c"]
    assert n_shared == 2
    found = reading.report.remarks[SHARED]
    assert (found.n, found.where, found.snippet) == (2, str(tmp_path / "judged.jsonl"), group("b").prompt.text)
    assert any(SHARED in line for line in reading.report.lines())


def test_files_without_a_prompt_in_common_are_judged_whole_and_nothing_is_remarked(tmp_path):
    *_, held_out, reading, n_shared = split(tmp_path, [group("a")], [group("b"), group("c")])
    assert (len(held_out), n_shared) == (2, 0)
    assert SHARED not in reading.report.remarks


@pytest.mark.parametrize(
    "of_the_same_tree",
    [group("a", "and then", "what"), group("a", tags=("elsewhere",))],
    ids=["a later turn", "another tag"],
)
def test_what_a_split_would_keep_together_is_shared_too(tmp_path, of_the_same_tree):
    assert split(tmp_path, [group("a")], [of_the_same_tree, group("b")]).n_shared == 1


def test_a_tree_of_one_name_is_shared_whatever_its_first_turn_says(tmp_path):
    train = [group("a", tags=("tree:one",)), group("d")]
    found = split(tmp_path, train, [group("b", tags=("tree:one",)), group("c", tags=("tree:two",))])
    assert [one.prompt.text for one in found.held_out] == [group("c").prompt.text]


def test_one_prompt_under_two_trees_is_shared(tmp_path):
    assert split(tmp_path, [group("a", tags=("tree:one",))], [group("a", tags=("tree:two",)), group("b")]).n_shared == 1


def test_the_training_file_itself_is_no_validation(tmp_path):
    groups = [group("a"), group("b")]
    with pytest.raises(DataError, match=r"every prompt of validation = .*judged\.jsonl is in data = .*train\.jsonl too"):
        split(tmp_path, groups, groups)


def test_rankings_to_judge_by_must_order_something():
    refuse_without_order([group("a", tied=True), group("b")], "some.jsonl", unusable=True)
    with pytest.raises(DataError, match=r"none of the 1 rankings of some\.jsonl puts two answers in different places"):
        refuse_without_order([group("a", tied=True)], "some.jsonl", unusable=True)


def test_whether_unusable_answers_order_something_is_as_in_training():
    refuse_without_order([group("a", unusable=True)], "some.jsonl", unusable=True)
    with pytest.raises(DataError, match="none of the 1 rankings"):
        refuse_without_order([group("a", unusable=True)], "some.jsonl", unusable=False)
