"""Files as rows: every kind of file, and every way a file can be broken."""

import gzip
import io
import json
import sys
from types import ModuleType, SimpleNamespace

import pytest

from prefloop.data import rows
from prefloop.data.rows import Bad, Row, snippet, sources
from prefloop.errors import DataError, NotInstalled

ONE, TWO = {"prompt": "a", "n": 1}, {"prompt": "b", "n": 2}
LINES = b'{"prompt": "a", "n": 1}\n{"prompt": "b", "n": 2}\n'


def read(path) -> list[Row | Bad]:
    return [row for source in sources(path) for row in source.rows()]


def written(folder, name: str, data: bytes):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return path


WHOLE = {
    # name: (bytes, the rows in it, their places)
    "a.jsonl": (LINES, [ONE, TWO], ["1", "2"]),
    "a.ndjson": (LINES, [ONE, TWO], ["1", "2"]),
    "crlf.jsonl": (LINES.replace(b"\n", b"\r\n"), [ONE, TWO], ["1", "2"]),
    "bom.jsonl": (b"\xef\xbb\xbf" + LINES, [ONE, TWO], ["1", "2"]),
    "no_newline.jsonl": (LINES[:-1], [ONE, TWO], ["1", "2"]),
    "blank_lines.jsonl": (b"\n" + LINES.replace(b"\n", b"\n \n"), [ONE, TWO], ["2", "4"]),
    "separators.jsonl": ('{"prompt": "a\u2028b\x85c"}\n'.encode(), [{"prompt": "a\u2028b\x85c"}], ["1"]),
    "list.json": (b"[" + LINES.replace(b"}\n{", b"},\n{").strip() + b"]", [ONE, TWO], ["1", "2"]),
    "indented.json": (json.dumps([ONE, TWO], indent=1).encode(), [ONE, TWO], ["2", "6"]),
    "empty_list.json": (b" [ ] ", [], []),
    "really_lines.json": (LINES, [ONE, TWO], ["1", "2"]),
    "one_row.json": (b'{"prompt": "a", "n": 1}', [ONE], ["1"]),
    "one_conversation.json": (b'{"messages": [{"role": "user"}]}', [{"messages": [{"role": "user"}]}], ["1"]),
    "a.csv": (b"prompt,n\na,1\nb,2\n", [{"prompt": "a", "n": "1"}, {"prompt": "b", "n": "2"}], ["2", "3"]),
    "bom.csv": (b"\xef\xbb\xbfprompt\r\na\r\n", [{"prompt": "a"}], ["2"]),
    "line_in_cell.csv": (b'prompt,n\n"a\nb",1\n\nc,2\n', [{"prompt": "a\nb", "n": "1"}, {"prompt": "c", "n": "2"}], ["2", "5"]),
    "json_cell.csv": (b'prompt,ranks\n"[1]","[1, 2]"\n', [{"prompt": "[1]", "ranks": [1, 2]}], ["2"]),
    "a.tsv": (b"prompt\tn\na, b\t1\n", [{"prompt": "a, b", "n": "1"}], ["2"]),
    "lines.txt": (b"\xef\xbb\xbfa\r\n\r\nb", [{"text": "a"}, {"text": "b"}], ["1", "3"]),
    "documents.txt": (b"a\nb\n<|endoftext|>\n\nc\n<|endoftext|>\n", [{"text": "a\nb"}, {"text": "c"}], ["1", "4"]),
    "open_document.txt": (b"a\n<|endoftext|>\nb", [{"text": "a"}, {"text": "b"}], ["1", "3"]),
}


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("name", WHOLE)
def test_every_kind_of_file_gives_its_rows_and_their_places(tmp_path, name, suffix):
    data, values, places = WHOLE[name]
    found = read(written(tmp_path, name + suffix, data))
    assert [row.value for row in found if isinstance(row, Row)] == values
    assert [row.where for row in found] == [f"{name}{suffix}:{place}" for place in places]


def test_a_list_inside_an_object_is_the_set(tmp_path):
    path = written(tmp_path, "a.json", json.dumps({"version": 1, "data": [ONE, TWO]}).encode())
    assert read(path) == [Row("a.json, data[0]", ONE), Row("a.json, data[1]", TWO)]


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_parquet_keeps_lists_and_nulls(tmp_path, suffix):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    values = [{"prompt": "a", "ranks": [1, 2]}, {"prompt": None, "ranks": []}]
    buffer = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(values), buffer)
    path = written(tmp_path, f"a.parquet{suffix}", buffer.getvalue())
    assert read(path) == [Row(f"a.parquet{suffix}:1", values[0]), Row(f"a.parquet{suffix}:2", values[1])]


BROKEN_ROWS = {
    # name: (bytes, the reason of the one bad row, its place)
    "torn.jsonl": (LINES + b'{"prompt": "c", "n', "the last line is cut off", "3"),
    "middle.jsonl": (b'{"prompt": \n' + LINES, "not JSON", "1"),
    "utf8.jsonl": (b'{"prompt": "caf\xe9"}\n' + LINES, "not UTF-8", "1"),
    "list.jsonl": (b"[1, 2]\n" + LINES, "not an object with columns", "1"),
    "string.jsonl": (b'"a"\n' + LINES, "not an object with columns", "1"),
    "null.jsonl": (b"null\n" + LINES, "not an object with columns", "1"),
    "deep.jsonl": (b"[" * 100_000 + b"\n" + LINES, "not JSON", "1"),
    "digits.jsonl": (b'{"n": ' + b"1" * 5_000 + b"}\n" + LINES, "not JSON", "1"),
    "numbers.json": (b'[1, {"prompt": "a", "n": 1}, {"prompt": "b", "n": 2}]', "not an object with columns", "1"),
    "short.csv": (b"prompt,n\na\na,1\nb,2\n", "more or fewer cells than the header", "2"),
    "long.csv": (b"prompt,n\na,1,2\na,1\nb,2\n", "more or fewer cells than the header", "2"),
    "utf8.csv": (b"prompt,n\ncaf\xe9,1\na,1\nb,2\n", "not UTF-8", "2"),
    "utf8.txt": (b"caf\xe9\na\nb\n", "not UTF-8", "1"),
}


@pytest.mark.parametrize("name", BROKEN_ROWS)
def test_a_broken_row_is_named_and_the_others_are_read(tmp_path, name):
    data, reason, place = BROKEN_ROWS[name]
    found = read(written(tmp_path, name, data))
    bad = [row for row in found if isinstance(row, Bad)]
    assert [(row.reason, row.where) for row in bad] == [(reason, f"{name}:{place}")]
    assert len(found) - len(bad) == 2


def test_a_line_without_end_is_passed_over_and_the_next_one_read(tmp_path, monkeypatch):
    monkeypatch.setattr(rows, "MAX_LINE", 1 << 20)
    path = written(tmp_path, "a.jsonl", b'{"prompt": "' + b"x" * (3 << 20) + b'"}\n' + LINES)
    found = read(path)
    assert isinstance(found[0], Bad) and found[0].reason == "a line of more than 1 MiB"
    assert [row.where for row in found] == ["a.jsonl:1", "a.jsonl:2", "a.jsonl:3"]


REFUSED_FILES = {
    "cut.json": (b'[{"prompt": "a"},\n {"pro', "stops being a JSON list at line 2"),
    "comma.json": (b'[{"prompt": "a"},]', "found ']'"),
    "no_comma.json": (b'[{"prompt": "a"}\n {"prompt": "b"}]', 'at line 2: found \'{"prompt"'),
    "open.json": (b'[{"prompt": "a"}', "the file ends there"),
    "garbage.json": (b'[{"prompt": "a"}] x', "found 'x'"),
    "utf8.json": (b'[{"prompt": "caf\xe9"}]', "not UTF-8"),
    "utf16.jsonl": ('{"prompt": "a"}\n'.encode("utf-16"), "is UTF-16"),
    "utf16.json": ('[{"prompt": "a"}]'.encode("utf-16"), "is UTF-16"),
    "utf16.csv": ("prompt\na\n".encode("utf-16"), "is UTF-16"),
    "utf16.txt": ("a\n".encode("utf-16"), "is UTF-16"),
    "twice.csv": (b"prompt,prompt\na,b\n", "names the column 'prompt' twice"),
    "quote.csv": (b'prompt,n\n"a,1\nb,2\n', "a quote that is never closed"),
    "a.parquet": (b"PAR1 and then nothing", "not a whole parquet file"),
    "a.xlsx": (b"PK", "no known kind of file"),
    "README": (b"hello", "no known kind of file"),
}


@pytest.mark.parametrize("name", REFUSED_FILES)
def test_a_file_that_hides_how_much_is_missing_is_refused(tmp_path, name):
    data, message = REFUSED_FILES[name]
    if name.endswith(".parquet"):
        pytest.importorskip("pyarrow")
    with pytest.raises(DataError, match=r"(?s)\n  ") as refused:
        read(written(tmp_path, name, data))
    assert message in str(refused.value)


@pytest.mark.parametrize("spoil", [lambda data: data[:-9], lambda data: data[: len(data) // 2], lambda data: b"not gzip at all"])
def test_a_damaged_archive_is_refused(tmp_path, spoil):
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(spoil(gzip.compress(LINES * 500)))
    with pytest.raises(DataError, match="not a whole gzip file"):
        read(path)


def test_a_folder_is_read_file_by_file_in_the_order_of_names(tmp_path):
    written(tmp_path, "b.jsonl", LINES)
    written(tmp_path, "deep/a.jsonl.gz", LINES)
    for name in ("README.md", ".hidden.jsonl", "_work/x.jsonl", "dataset_info.json"):
        written(tmp_path, name, b"not data")
    assert [(source.name, source.split) for source in sources(tmp_path)] == [("b.jsonl", ""), ("deep/a.jsonl.gz", "")]


SPLIT_NAMES = {
    "train-00000-of-00002.parquet": "train",
    "eval_clean.jsonl": "test",
    "dev.csv": "validation",
    "test/part_a.txt": "test",
    "train/test_prompts.jsonl": "test",
    "part_a.txt": "",
    "trainer_notes.txt": "",
}


def test_a_file_name_gives_away_its_split(tmp_path):
    for name in SPLIT_NAMES:
        written(tmp_path, name, b"")
    assert {source.name: source.split for source in sources(tmp_path)} == SPLIT_NAMES


def test_a_missing_file_is_answered_with_the_nearest(tmp_path):
    written(tmp_path, "pairs.jsonl", LINES)
    with pytest.raises(DataError, match=r"nearest: .*pairs\.jsonl"):
        sources(tmp_path / "pair.jsonl")
    with pytest.raises(DataError, match="hub id like owner/name"):
        sources(tmp_path / "nowhere" / "x.jsonl")
    with pytest.raises(DataError, match="holds no file that can be read"):
        sources((tmp_path / "empty").mkdir() or tmp_path / "empty")


def hub(splits: dict, asked: list) -> ModuleType:
    def load_dataset(repository, subset):
        asked.append((repository, subset))
        if not splits:
            raise ConnectionError("Couldn't reach the Hub\nat all")
        return splits

    return SimpleNamespace(load_dataset=load_dataset)  # type: ignore[return-value]


def test_a_hub_id_gives_the_rows_of_every_split(monkeypatch):
    asked: list = []
    monkeypatch.setitem(sys.modules, "datasets", hub({"train": [ONE], "test": [TWO]}, asked))
    found = sources("owner/name:subset")
    assert asked == [("owner/name", "subset")]
    assert [(source.name, source.split, list(source.rows())) for source in found] == [
        ("owner/name/train", "train", [Row("owner/name/train:1", ONE)]),
        ("owner/name/test", "test", [Row("owner/name/test:1", TWO)]),
    ]


def test_a_hub_that_cannot_be_reached_is_an_error_a_user_can_act_on(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", hub({}, []))
    with pytest.raises(DataError, match="Couldn't reach the Hub\n  check the name and HF_HUB_OFFLINE"):
        sources("owner/name")


@pytest.mark.parametrize(("package", "source"), [("datasets", "owner/name"), ("pyarrow", "a.parquet")])
def test_what_is_not_installed_is_named_with_the_line_that_installs_it(tmp_path, monkeypatch, package, source):
    monkeypatch.setitem(sys.modules, package, None)  # what importing a package that is not there looks like
    path = written(tmp_path, source, b"PAR1") if "." in source else source
    with pytest.raises(NotInstalled, match=rf"needs the package '{package}'.*\n  pip install 'prefloop\[train\]'"):
        read(path)


def test_a_snippet_is_one_line_that_a_terminal_does_not_obey():
    assert snippet("a\nb\x1b[31m\ud800" + "x" * 200, 10) == "a b [31m …"
