import json

import pytest

from prefloop.config import Options
from prefloop.data.prompts import PromptsConfig, beginnings, main
from prefloop.data.read import read_prompts
from prefloop.data.write import split_by_prompt
from prefloop.errors import DataError
from prefloop.records import Message, Prompt


def texts(path) -> list[str]:
    return [prompt.text for prompt in read_prompts(path).records]


@pytest.mark.parametrize(
    ("text", "words", "beginning"),
    [
        ("one two three four", 3, "one two three"),
        ("one two,  three\nfour", 3, "one two,  three"),  # spaces inside stay, those after the last word go
        (" one two", 1, " one"),
        ("one two three", 3, None),  # nothing is left to go on with
        ("one two three \n", 3, None),
        ("one two", 3, None),
    ],
)
def test_a_beginning_is_the_first_words_of_a_text_that_has_more(text, words, beginning):
    assert [prompt.text for prompt in beginnings([Prompt.of(text)], words)] == ([beginning] if beginning else [])


def test_only_the_last_turn_is_cut_and_the_id_is_that_of_the_new_words():
    whole = Prompt(
        messages=(Message(role="user", content="a b c"), Message(role="user", content="d e f")), origin="o", tags=("t",)
    )
    (cut,) = beginnings([whole], 2)
    assert [message.content for message in cut.messages] == ["a b c", "d e"]
    assert (cut.origin, cut.tags, cut.id != whole.id) == ("o", ("t",), True)


def test_the_two_files_share_no_prompt_and_equal_beginnings_are_one(tmp_path):
    stories = tmp_path / "stories.txt"
    stories.write_text("".join(f"Story {i % 50} begins and goes on {i}\n" for i in range(100)))
    summary = main(PromptsConfig.of(data=str(stories), words=3, held_out=0.3), Options(out=tmp_path / "run"))
    train, held_out = texts(tmp_path / "run" / "prompts.jsonl"), texts(tmp_path / "run" / "held_out.jsonl")
    assert sorted(train + held_out) == sorted(f"Story {i} begins" for i in range(50))
    assert (summary["read"], summary["prompts"], summary["held_out_prompts"]) == (100, len(train), len(held_out))
    assert json.loads((tmp_path / "run" / "summary.json").read_text()) == summary


def test_a_later_stage_with_the_same_seed_still_has_something_to_hold_out(tmp_path):
    stories = tmp_path / "stories.txt"
    stories.write_text("".join(f"Story {i} begins and goes on\n" for i in range(300)))
    main(PromptsConfig.of(data=str(stories), words=3, held_out=0.3), Options(out=tmp_path / "run"))
    train = read_prompts(tmp_path / "run" / "prompts.jsonl").records
    _, held_out = split_by_prompt(train, held_out=0.3, seed=0)
    assert 0.2 * len(train) < len(held_out) < 0.4 * len(train)


def test_too_few_prompts_to_split_are_refused(tmp_path):
    (tmp_path / "one.txt").write_text("One line only\n")
    with pytest.raises(DataError, match="gives 1 prompts, too few to hold out 10%"):
        main(PromptsConfig.of(data=str(tmp_path / "one.txt")), Options(out=tmp_path / "run"))
    assert not (tmp_path / "run").exists()
