"""Reading a whole set: its parts, its splits, its name, and what it refuses."""

import json

import pytest

from prefloop.data.read import check, read_demonstrations, read_groups, read_prompts, read_text
from prefloop.data.write import convert, write_groups
from prefloop.errors import DataError


def pair(n: int) -> dict:
    return {"prompt": f"q{n}", "chosen": "a", "rejected": "b"}


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def asked(reading) -> list[str]:
    return [group.prompt.text for group in reading.records]


def test_the_files_of_a_folder_are_one_set(tmp_path):
    write(tmp_path / "set" / "a.jsonl", [pair(1)])
    write(tmp_path / "set" / "b.jsonl", [pair(2), "{"])
    reading = read_groups(tmp_path / "set")
    assert asked(reading) == ["q1", "q2"]
    assert reading.report.dropped["not JSON"].where == "b.jsonl:2"
    assert reading.records[0].rankings[0].annotator == "dataset:set"


def test_files_of_several_formats_are_not_one_set(tmp_path):
    write(tmp_path / "a.jsonl", [pair(1)])
    write(tmp_path / "b.jsonl", [{"prompt": "q"}])
    with pytest.raises(DataError, match=r"several formats\n  a.jsonl: preference\n  b.jsonl: prompts\n  name one file"):
        check(tmp_path)


def three_splits(folder):
    write(folder / "train.jsonl", [pair(1), pair(2)])
    write(folder / "test.jsonl", [pair(2), pair(3)])
    write(folder / "notes.json", [json.dumps({"labels": "of nothing"})])
    return folder


def test_of_several_splits_train_is_read_unless_another_is_named(tmp_path):
    folder = three_splits(tmp_path)
    reading = read_groups(folder)
    assert asked(reading) == ["q1", "q2"]
    assert reading.report.not_read == ("notes.json", "test.jsonl")
    assert asked(read_groups(folder, split="test")) == ["q2", "q3"]
    with pytest.raises(DataError, match="no split 'dev'\n  its splits: test, train"):
        read_groups(folder, split="dev")
    with pytest.raises(DataError, match="no split 'test'\n  its splits: none"):
        read_groups(folder / "train.jsonl", split="test")


def test_a_set_without_train_is_not_guessed_at(tmp_path):
    write(tmp_path / "dev.jsonl", [pair(1)])
    assert asked(read_groups(tmp_path)) == ["q1"]
    write(tmp_path / "test.jsonl", [pair(2)])
    with pytest.raises(DataError, match="none called train: validation, test\n  say which: split=validation"):
        read_groups(tmp_path)


def test_checking_reads_every_split_and_finds_the_prompts_they_share(tmp_path):
    report = check(three_splits(tmp_path))
    assert report.by_split == {"test": 2, "train": 2}
    shared = report.remarks["a prompt in more than one split"]
    assert (shared.n, shared.where, shared.snippet) == (1, "test and train", "q2")
    assert report.not_read == ("notes.json",)


def test_a_name_of_ones_own_is_the_annotator_and_the_origin(tmp_path):
    (group,) = read_groups(write(tmp_path / "x.jsonl", [pair(1)]), name="mine").records
    assert group.rankings[0].annotator == group.completions[0].source == "dataset:mine"
    assert group.prompt.origin == "mine"


def test_the_name_of_a_file_is_its_name_without_endings(tmp_path):
    write_groups(tmp_path / "v1.pairs.jsonl.gz", read_groups(write(tmp_path / "x.jsonl", [pair(1)])).records)
    assert asked(read_groups(tmp_path / "v1.pairs.jsonl.gz")) == ["q1"]
    (demonstration,) = read_demonstrations(write(tmp_path / "V1.alpaca.JSONL", [{"instruction": "q", "output": "a"}])).records
    assert demonstration.prompt.origin == "V1.alpaca"


def test_a_prompt_that_occurs_twice_is_taken_once_and_said(tmp_path):
    reading = read_prompts(write(tmp_path / "x.jsonl", [{"prompt": q} for q in "bcbac"]))
    assert [prompt.text for prompt in reading.records] == ["b", "c", "a"]
    assert reading.report.remarks["a record that was there before"].n == 2
    assert (reading.report.n_rows, reading.report.n_kept, reading.report.n_records) == (5, 5, 3)


@pytest.mark.parametrize("content", ["", "\n\n", "\ufeff"])
def test_an_empty_file_is_refused(tmp_path, content):
    path = tmp_path / "x.jsonl"
    path.write_text(content, encoding="utf-8")
    for read in (check, read_groups, read_text):
        with pytest.raises(DataError, match="is empty: it holds no row"):
            read(path)


def test_a_file_without_a_readable_row_is_refused_with_the_first_fault(tmp_path):
    with pytest.raises(DataError, match=r"no row of .* can be read\n  x.jsonl:1, not JSON: not json"):
        read_groups(write(tmp_path / "x.jsonl", ["not json"] * 3))


def test_a_set_of_which_nothing_is_left_is_refused_with_every_reason(tmp_path):
    rows = [{**pair(1), "rejected": "a"}, {**pair(2), "rejected": 3}]
    with pytest.raises(DataError) as refused:
        read_groups(write(tmp_path / "x.jsonl", rows))
    message = str(refused.value)
    assert "gives no groups: none of its 2 rows can be used" in message
    assert "answers that are all the same text: 1, e.g. x.jsonl:1 a" in message
    assert "a value of the wrong type: 1, e.g. x.jsonl:2 rejected is a number" in message


def test_a_torn_last_line_loses_one_row_only(tmp_path):
    path = write(tmp_path / "x.jsonl", [pair(n) for n in range(20)])
    path.write_bytes(path.read_bytes()[:-10])
    reading = read_groups(path)
    assert len(reading.records) == 19
    assert reading.report.dropped["the last line is cut off"].where == "x.jsonl:20"
    assert reading.refuse_if_too_many_dropped(0.05) is reading  # 1 in 20 is not more than 5%


def test_more_than_the_allowed_share_is_refused_with_reasons_places_and_the_way_out(tmp_path):
    reading = read_groups(write(tmp_path / "x.jsonl", [pair(n) for n in range(18)] + ["{"]))
    with pytest.raises(DataError) as refused:
        reading.refuse_if_too_many_dropped()
    assert refused.value.exit_code == 2
    message = str(refused.value)
    assert "5.3% of the data cannot be used as it is, and at most 5.0% may be lost" in message
    assert "not JSON: 1, e.g. x.jsonl:19 {" in message
    assert "max_dropped" in message


def test_what_holds_nothing_asked_for_does_not_count_as_lost(tmp_path):
    rows = [{"messages": [{"role": "user", "content": "q"}]}] * 9
    rows.append({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]})
    reading = read_demonstrations(write(tmp_path / "x.jsonl", rows))
    assert reading.report.set_aside["a conversation that nobody answered"].n == 9
    assert reading.report.share_lost == 0
    reading.refuse_if_too_many_dropped(0.0)


CONVERSIONS = {"kway": read_groups, "trl": read_groups, "demonstrations": read_demonstrations, "prompts": read_prompts}


@pytest.mark.parametrize("to", CONVERSIONS)
def test_a_conversion_is_read_back_as_what_it_was(tmp_path, to):
    source, target = write(tmp_path / "x.jsonl", [pair(1), pair(2), "{"]), tmp_path / "out" / "y.jsonl.gz"
    report = convert(source, target, to=to)
    assert report.n_dropped == 1
    before, after = CONVERSIONS[to](source, name="n").records, CONVERSIONS[to](target, name="n").records
    words = [(record.prompt if hasattr(record, "prompt") else record).text for record in before]
    assert [(record.prompt if hasattr(record, "prompt") else record).text for record in after] == words
    if to == "trl":  # sources and origins are the reader's, so they are equal too
        assert after == before


def test_an_unknown_conversion_names_the_known_ones(tmp_path):
    with pytest.raises(DataError, match="no conversion to 'parquet'\n  known: kway, trl, demonstrations, prompts"):
        convert(write(tmp_path / "x.jsonl", [pair(1)]), tmp_path / "y.jsonl", to="parquet")
