"""The documents say what is true: commands in them work, names exist, links lead somewhere, generated pages are current.

A block of commands says in its fence what holds it true:

    ```sh run            executed here, in an empty folder beside the checkout's configs; all blocks of a page in turn
    ```sh parse          not executed, but commands, settings and files it names are checked as the command line would
    ```sh show REASON    not checked, and why: "needs a network"
    ```python run        executed, like sh
    ```python            must at least parse
"""

import ast
import re
import shlex
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import pytest
import typer
import yaml

import prefloop
from prefloop.config import Options, load_config
from prefloop.errors import PrefloopError
from prefloop.study import load_study, run_study
from tests.regenerate_docs import PAGES, SETTINGS, Command, commands, found, is_settings, root_command

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
CONFIGS = sorted([*(ROOT / "configs").rglob("*.yaml"), *(ROOT / "prefloop" / "studies").glob("*.yaml")])
SHELL = ("sh", "bash", "shell", "console", "zsh")
USAGE_ERROR = typer.BadParameter.__bases__[0]  # typer brings its own copy of click's, or uses the package, by version
REFUSALS = (AssertionError, PrefloopError, USAGE_ERROR)
LONGEST = 600  # seconds for all the executed blocks of a page


class Block(NamedTuple):
    line: int
    language: str
    tag: str  # run | parse | show | empty
    reason: str
    text: str


def blocks(markdown: str) -> list[Block]:
    """The fenced blocks of a page, those indented below a list item too."""
    found, opening = [], None
    for number, line in enumerate(markdown.splitlines(), start=1):
        fence = re.match(r"\s*(`{3,})\s*(.*)$", line)
        if opening is None and fence:
            opening, info, lines, indent = (number, fence[1]), fence[2].split(maxsplit=2), [], len(line) - len(line.lstrip())
        elif opening is not None and fence and fence[1] >= opening[1] and not fence[2]:
            language, tag, reason = [*info, "", "", ""][:3]
            found.append(Block(opening[0], language, tag, reason, "\n".join(lines) + "\n"))
            opening = None
        elif opening is not None:
            lines.append(line[indent:])
    return found


def tag_problem(block: Block) -> str:
    """What is wrong with how a block of commands is marked; empty where nothing is."""
    if block.language not in SHELL:
        typed = re.search(r"^\s*\$ |^\s*(prefloop|make|pip|python) [\w./-]", block.text, re.MULTILINE)
        return f"line {block.line}: commands without a tag: {typed[0].strip()}…" if not block.language and typed else ""
    if block.language != "sh" or block.tag not in ("run", "parse", "show"):
        return f"line {block.line}: write ```sh run, ```sh parse or ```sh show REASON, not ```{block.language} {block.tag}"
    if block.tag == "show" and not block.reason:
        return f"line {block.line}: ```sh show needs its reason"
    return ""


def command_lines(text: str) -> list[list[str]]:
    """The words of each command of a block: comments off, continued lines joined, `A=b prefix` and `&&` understood."""
    lines = []
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line.removeprefix("$ "), comments=True)
        while words:
            end = words.index("&&") if "&&" in words else len(words)
            command, words = words[:end], words[end + 1 :]
            while command and re.fullmatch(r"[A-Z_]+=.*", command[0]):
                command = command[1:]
            if command:
                lines.append(command)
    return lines


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def check_command(words: list[str]) -> None:
    """Raises where the command line would refuse; runs nothing. Paths are relative to the checkout."""
    program, *rest = words
    if program == "prefloop":
        check_prefloop(root_command(), rest)
    elif program == "make":
        targets = [word for word in rest if "=" not in word and not word.startswith("-")]
        unknown = set(targets) - make_targets()
        assert not unknown, f"no such target in the Makefile: {', '.join(sorted(unknown))}"
    else:
        raise AssertionError(f"{program!r} is neither prefloop nor make: mark the block ```sh show REASON, or ```sh run")


def check_prefloop(command: Command, words: list[str], path: tuple[str, ...] = ()) -> None:
    if hasattr(command, "commands"):
        if words and words[0].startswith("-"):
            command.make_context("prefloop", words, resilient_parsing=True)
            return
        assert words and words[0] in command.commands, f"no such command: prefloop {' '.join((*path, *words[:1]))}"
        check_prefloop(command.commands[words[0]], words[1:], (*path, words[0]))
        return
    if "--help" in words:
        return
    given = command.make_context(" ".join(path), list(words)).params
    if any(is_settings(parameter) for parameter in command.params) and given["settings"]:
        load_config(found(SETTINGS[" ".join(path)]), list(given["settings"]))
    if path == ("run",):
        check_study(Path(given["study"]))


def check_study(path: Path) -> None:
    """A study's stages, sweeps and settings, looked at as `--dry-run` does; no stage runs."""
    run_study(load_study(path), Options(out=Path("nowhere"), dry_run=True), announce=lambda line: None)


def identify(path: Path) -> str:
    return str(path.relative_to(ROOT))


def with_blocks(tag: str, *languages: str) -> list[Path]:
    is_wanted = lambda block: block.tag == tag and block.language in languages  # noqa: E731
    return [path for path in DOCUMENTS if any(map(is_wanted, blocks(path.read_text(encoding="utf-8"))))]


@pytest.mark.parametrize("path", DOCUMENTS, ids=identify)
def test_every_block_of_commands_says_what_holds_it_true(path):
    problems = [problem for block in blocks(path.read_text(encoding="utf-8")) if (problem := tag_problem(block))]
    assert not problems, f"{identify(path)}\n" + "\n".join(problems)


@pytest.mark.parametrize("path", with_blocks("parse", "sh"), ids=identify)
def test_commands_marked_parse_are_accepted_by_the_command_line(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    for block in blocks(path.read_text(encoding="utf-8")):
        if (block.language, block.tag) == ("sh", "parse"):
            for words in command_lines(block.text):
                try:
                    check_command(words)
                except REFUSALS as refusal:
                    pytest.fail(f"{identify(path)} line {block.line}: {shlex.join(words)}\n{refusal}", pytrace=False)


@pytest.mark.parametrize("path", with_blocks("run", "sh", "python"), ids=identify)
def test_commands_marked_run_run(path, tmp_path, monkeypatch):
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=":")
    for block in blocks(path.read_text(encoding="utf-8")):
        if block.tag == "run":
            program = ["bash", "-euo", "pipefail", "-c"] if block.language == "sh" else [sys.executable, "-c"]
            command = [*program, block.text]
            done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=LONGEST, check=False)
            assert done.returncode == 0, f"{identify(path)} line {block.line}\n{block.text}\n{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=identify)
def test_python_in_the_documents_is_python(path):
    for block in blocks(path.read_text(encoding="utf-8")):
        if block.language == "python" and path.name != "api.md":  # there they are signatures
            ast.parse(block.text)


@pytest.mark.parametrize("page", PAGES)
def test_a_generated_page_is_what_the_code_says_now(page):
    assert (ROOT / page).read_text(encoding="utf-8") == PAGES[page](), "make docs"


def test_every_command_that_takes_settings_has_its_keys_on_the_page():
    taking = {path for path, command in commands(root_command()) if any(is_settings(p) for p in command.params)}
    assert taking == set(SETTINGS)


@pytest.mark.parametrize("path", CONFIGS, ids=identify)
def test_a_config_says_what_it_asks_expects_and_costs_and_its_settings_are_known(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    text = path.read_text(encoding="utf-8")
    header = " ".join(line for line in text.splitlines() if line.startswith("#")).lower()
    assert [word for word in ("question", "expected", "time") if word not in header] == []
    if {"stages", "include"} & set(yaml.safe_load(text)):
        check_study(path)


@pytest.mark.parametrize("path", DOCUMENTS, ids=identify)
def test_links_to_files_lead_somewhere(path):
    text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    targets = [target.partition("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", text) if not re.match(r"\w+:|#", target)]
    assert [target for target in targets if not (path.parent / target).exists()] == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=identify)
def test_files_and_functions_named_in_the_text_exist(path):
    text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    files = re.findall(r"`((?:prefloop|tests|configs|docs|benchmarks)/[\w./-]+)`", text)
    assert [name for name in files if not (ROOT / name).exists()] == []
    names = re.findall(r"`(prefloop(?:\.\w+)+)(?:\(\))?`", text)
    assert [name for name in names if not resolves(name)] == []


def resolves(dotted: str) -> bool:
    """Whether prefloop.ops.ranking.ranking_loss, or prefloop.World.prompts, is there."""
    thing = prefloop
    for end, name in list(enumerate(dotted.split("."), start=1))[1:]:
        if not hasattr(thing, name):
            try:
                import_module(".".join(dotted.split(".")[:end]))
            except ModuleNotFoundError:
                return False
        thing = getattr(thing, name)
    return True


def test_every_method_has_a_page():
    methods = {path.stem for path in (ROOT / "prefloop" / "methods").glob("*.py")} - {
        "__init__",
        "sample",
    }  # sampling learns nothing
    assert methods - {path.stem for path in (ROOT / "docs" / "methods").glob("*.md")} == set()


@pytest.mark.parametrize("path", sorted((ROOT / "docs" / "decisions").glob("*.md")), ids=identify)
def test_a_decision_gives_its_context_the_choice_its_price_and_what_would_refute_it(path):
    text = path.read_text(encoding="utf-8")
    assert re.match(rf"# {path.name[:4]}\b", text), f"the title of {path.name} starts with its number"
    headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert headings == ["Context", "Choice", "What we gave up", "How we would know it was wrong"]


# --- the checks above can fail -----------------------------------------------------------------------------------------

PAGE = """
Text.

```sh run
prefloop doctor
```

1. An item:

   ```sh show needs a network
   pip install prefloop
   ```

```python
x = 1
```
"""


def test_blocks_are_read_with_their_tags_wherever_they_stand():
    assert [(b.line, b.language, b.tag, b.reason, b.text) for b in blocks(PAGE)] == [
        (4, "sh", "run", "", "prefloop doctor\n"),
        (10, "sh", "show", "needs a network", "pip install prefloop\n"),
        (14, "python", "", "", "x = 1\n"),
    ]


@pytest.mark.parametrize("fence", ["```sh", "```bash run", "```sh show", "```", "```sh later"])
def test_a_badly_marked_block_is_seen(fence):
    (block,) = blocks(f"{fence}\nprefloop doctor\n```\n")
    assert tag_problem(block)


def test_comments_prefixes_and_continued_lines_are_not_part_of_a_command():
    text = "# first\nA=1 prefloop sft \\\n  lr=1 # slow\n\n$ make test && make lint\n"
    assert command_lines(text) == [["prefloop", "sft", "lr=1"], ["make", "test"], ["make", "lint"]]


@pytest.mark.parametrize(
    "line",
    [
        "prefloop doctor",
        "prefloop --help",
        "prefloop demo --seed 3",
        "make test ARGS=-x",
        "prefloop world --help",
        "prefloop run demo.yaml",
    ],
)
def test_a_command_that_exists_is_accepted(line, monkeypatch):
    monkeypatch.chdir(ROOT / "prefloop" / "studies")
    check_command(line.split())


@pytest.mark.parametrize(
    "line",
    [
        "prefloop trian",
        "prefloop world",
        "prefloop demo --sed 3",
        "prefloop demo --seed three",
        "prefloop sft no_such_key=1",
        "prefloop sft nowhere.yaml",
        "prefloop run nowhere.yaml",
        "make coffee",
        "rm -rf runs",
    ],
)
def test_a_command_that_would_be_refused_is_refused_here(line):
    with pytest.raises(REFUSALS):
        check_command(line.split())


def test_names_that_do_not_exist_do_not_resolve():
    assert resolves("prefloop.ops.loss.Loss") and resolves("prefloop.Prompt.of") and resolves("prefloop.doctor")
    assert not resolves("prefloop.ops.loss.Lost") and not resolves("prefloop.nowhere.thing")
