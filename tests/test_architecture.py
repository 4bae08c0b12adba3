"""The shape of the house, read off the source with ast: see docs/decisions/0001-the-line-between-method-and-plumbing.md.

Every rule is a function from a module (its dotted name, its source) to complaints, and every rule is first shown a module
that breaks it: a rule that cannot fail is no rule.
"""

import ast
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent

# Left may import right, never back; names on one line do not see each other.
LAYERS = (
    ("__main__",),
    ("cli",),
    ("demo", "doctor"),
    ("api", "study_report"),
    ("apps",),
    ("loop",),
    ("study",),
    ("serve", "report"),
    ("evaluate",),
    ("methods",),
    ("decoding", "engine"),
    ("models",),
    ("ops", "collect", "world"),
    ("data",),
    ("stats",),
    ("config", "records"),
    ("errors",),
)
DEPTH = {name: depth for depth, layer in enumerate(LAYERS) for name in layer}
ISLANDS = ("methods", "apps")  # whose members never import each other
TORCH_FREE = ("cli", "collect", "world", "data", "stats", "config", "records", "errors")
BRINGS_TORCH = ("torch", "transformers", "peft", "accelerate")
PURE = "ops"  # tensors in, tensors out: no model, file, config, device, log
NOT_FOR_OPS = ("transformers", "peft", "accelerate", "datasets", "pathlib", "os", "logging")
BACKWARD = "prefloop.engine.learner"
VAGUE = {"utils", "util", "common", "helpers", "core", "base", "misc"}
BY_NAME = ("prefloop", "cli", "doctor", "study", "loop")  # may import a module named by a string, from a table in that file
WIDENED = {"allclose", "approx", "isclose", "assert_allclose", "assert_almost_equal"}


class Import(NamedTuple):
    target: str  # dotted, the name asked for included: `from a.b import c` is a.b.c
    line: int
    is_lazy: bool  # inside a function


def imports(module: str, source: str) -> list[Import]:
    """Every import of a module, those inside functions and under TYPE_CHECKING included."""
    return list(imports_below(ast.parse(source), module, is_lazy=False))


def imports_below(node: ast.AST, module: str, *, is_lazy: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (Import(alias.name, child.lineno, is_lazy) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            origin = absolute(module, child.module or "", child.level)
            yield from (Import(f"{origin}.{alias.name}", child.lineno, is_lazy) for alias in child.names)
        else:
            is_function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from imports_below(child, module, is_lazy=is_lazy or is_function)


def absolute(module: str, target: str, level: int) -> str:
    """``from ..ops import x`` in prefloop.models.heads asks prefloop.ops. A package is written prefloop.models.__init__."""
    if level == 0:
        return target
    return ".".join([*module.split(".")[:-level], *([target] if target else [])])


def part_of(target: str) -> str | None:
    """The part of prefloop that a dotted name belongs to; None for other people's packages and for the facade."""
    head, _, rest = target.partition(".")
    part = rest.partition(".")[0]
    return part if head == "prefloop" and part in DEPTH else None


def calls(source: str) -> Iterator[tuple[str, ast.Call]]:
    """Every call with the dotted name it is called by."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def asks_for(call: ast.Call, keyword: str) -> bool:
    """Whether the call says ``keyword=True``."""
    return any(k.arg == keyword and isinstance(k.value, ast.Constant) and k.value.value is True for k in call.keywords)


# --- the rules: (module, source) -> complaints -------------------------------------------------------------------------


def imports_run_one_way(module: str, source: str) -> list[str]:
    here = part_of(module)
    if here is None:
        return []
    complaints = []
    for target, line, _ in imports(module, source):
        there = part_of(target)
        if there is not None and there != here and DEPTH[there] <= DEPTH[here]:
            complaints.append(f"{module}:{line} {here} may not import {there} ({target})")
    return complaints


def nothing_inside_imports_the_facade(module: str, source: str) -> list[str]:
    return [
        f"{module}:{line} {target} is the public name; inside, import the module that defines it"
        for target, line, _ in imports(module, source)
        if target.startswith("prefloop.") and part_of(target) is None and target != "prefloop.__version__"
    ]


def members_of_an_island_do_not_meet(module: str, source: str) -> list[str]:
    here = module.split(".")[1:3]
    if len(here) < 2 or here[0] not in ISLANDS or here[1] == "__init__":
        return []
    meets = [(found.target.split("."), found.line) for found in imports(module, source)]
    return [
        f"{module}:{line} imports its neighbour {'.'.join(there)}"
        for there, line in meets
        if there[:2] == ["prefloop", here[0]] and there[2:3] != [here[1]]
    ]


def the_human_side_never_names_torch(module: str, source: str) -> list[str]:
    if part_of(module) not in TORCH_FREE:
        return []
    return [
        f"{module}:{found.line} imports {found.target}, which brings torch"
        for found in imports(module, source)
        if found.target.split(".")[0] in BRINGS_TORCH
    ]


def ops_know_tensors_only(module: str, source: str) -> list[str]:
    if part_of(module) != PURE:
        return []
    return [
        f"{module}:{line} ops may not import {target}"
        for target, line, _ in imports(module, source)
        if part_of(target) not in (None, PURE, "errors") or target.split(".")[0] in NOT_FOR_OPS
    ]


def only_the_learner_calls_backward(module: str, source: str) -> list[str]:
    if module == BACKWARD:
        return []
    return [
        f"{module}:{call.lineno} {name}() is the learner's" for name, call in calls(source) if name.split(".")[-1] == "backward"
    ]


def only_the_learner_has_an_optimiser(module: str, source: str) -> list[str]:
    if module == BACKWARD:
        return []
    asked = [
        f"{module}:{found.line} {found.target}" for found in imports(module, source) if found.target.startswith("torch.optim")
    ]
    made = [f"{module}:{call.lineno} {name}" for name, call in calls(source) if "torch.optim." in name]
    return [f"{where}: optimisers live in {BACKWARD}" for where in asked + made]


def no_package_has_a_vague_name(module: str, source: str) -> list[str]:
    return [f"{module} is named {name!r}, which says nothing" for name in module.split(".") if name in VAGUE]


def nothing_prints(module: str, source: str) -> list[str]:
    return [
        f"{module}:{call.lineno} print(): say it through engine.progress or the console"
        for name, call in calls(source)
        if name == "print"
    ]


def no_code_comes_with_a_model(module: str, source: str) -> list[str]:
    trusting = [(name, call) for name, call in calls(source) if asks_for(call, "trust_remote_code")]
    return [f"{module}:{call.lineno} {name}(trust_remote_code=True)" for name, call in trusting]


def loading_a_file_runs_no_code(module: str, source: str) -> list[str]:
    unsafe = {"pickle.load", "pickle.loads", "dill.load", "dill.loads", "yaml.load", "yaml.unsafe_load", "marshal.loads"}
    return [
        f"{module}:{call.lineno} {name}() may run code out of the file"
        for name, call in calls(source)
        if name in unsafe or (name.split(".")[-2:] == ["torch", "load"] and not asks_for(call, "weights_only"))
    ]


def modules_are_imported_by_name_only_from_a_table(module: str, source: str) -> list[str]:
    if (part_of(module) or "prefloop") in BY_NAME:
        return []
    dynamic = ("import_module", "__import__")
    return [f"{module}:{call.lineno} {name}() hides an import" for name, call in calls(source) if name.split(".")[-1] in dynamic]


RULES: dict[Callable[[str, str], list[str]], tuple[list[tuple[str, str]], list[tuple[str, str]]]] = {
    # rule: (modules that break it, modules that keep it)
    imports_run_one_way: (
        [
            ("prefloop.ops.kl", "from prefloop.models.batch import TokenBatch"),
            ("prefloop.ops.kl", "def f():\n    import prefloop.engine.run"),
            ("prefloop.engine.run", "from prefloop.decoding import best_of"),
            ("prefloop.records", "from prefloop import config"),
            ("prefloop.models.heads", "from ..engine import learner"),
            ("prefloop.models.__init__", "from ..engine import learner"),
            (
                "prefloop.world.toy",
                "if TYPE_CHECKING:\n    from prefloop.collect.page import Page",
            ),
            ("prefloop.study", "def f():\n    from prefloop import cli"),
        ],
        [
            ("prefloop.methods.ppo", "from prefloop.ops.kl import k1\nfrom prefloop.engine.run import Run\nimport torch"),
            ("prefloop.cli", "def f():\n    from prefloop.methods.ppo import train"),
            ("prefloop.models.heads", "from prefloop.models.batch import TokenBatch\nfrom ..ops import loss"),
        ],
    ),
    nothing_inside_imports_the_facade: (
        [
            ("prefloop.study", "from prefloop import sample"),
            ("prefloop.cli", "def f():\n    from prefloop import Prompt, records"),
        ],
        [("prefloop.study", "from prefloop import __version__, records\nfrom prefloop.records import Prompt")],
    ),
    members_of_an_island_do_not_meet: (
        [
            ("prefloop.methods.ppo", "from prefloop.methods.sft import train"),
            ("prefloop.methods.ppo", "def f():\n    from prefloop.methods import sft"),
            ("prefloop.methods.ppo", "from . import sft"),
            ("prefloop.apps.memory.run", "from prefloop.apps.control.run import main"),
        ],
        [
            ("prefloop.apps.memory.run", "from prefloop.apps.memory.store import Store"),
            ("prefloop.study", "from prefloop.methods import ppo, sft"),
        ],
    ),
    the_human_side_never_names_torch: (
        [
            ("prefloop.data.read", "import torch"),
            ("prefloop.stats.intervals", "def f():\n    from torch import Tensor"),
            ("prefloop.world.grammar", "from transformers import AutoTokenizer"),
        ],
        [("prefloop.data.read", "def f():\n    import pyarrow.parquet"), ("prefloop.models.load", "import torch")],
    ),
    ops_know_tensors_only: (
        [
            ("prefloop.ops.kl", "from prefloop.config import Config"),
            ("prefloop.ops.kl", "from pathlib import Path"),
            ("prefloop.ops.kl", "from transformers import PreTrainedModel"),
        ],
        [
            ("prefloop.ops.kl", "import math\nfrom torch import Tensor\nfrom prefloop.ops.loss import Loss"),
            ("prefloop.models.load", "import os"),
        ],
    ),
    only_the_learner_calls_backward: (
        [
            ("prefloop.methods.ppo", "loss.value.backward()"),
            ("prefloop.methods.ppo", "torch.autograd.backward([loss])"),
            ("prefloop.engine.run", "accelerator.backward(loss)"),
        ],
        [
            ("prefloop.engine.learner", "accelerator.backward(loss)"),
            ("prefloop.methods.ppo", "'''calls backward()'''\nbackward = 1"),
        ],
    ),
    only_the_learner_has_an_optimiser: (
        [
            ("prefloop.methods.ppo", "from torch.optim import AdamW"),
            ("prefloop.methods.ppo", "import torch\noptimiser = torch.optim.AdamW(parameters)"),
        ],
        [("prefloop.engine.learner", "from torch.optim import AdamW"), ("prefloop.methods.ppo", "import torch")],
    ),
    no_package_has_a_vague_name: (
        [("prefloop.utils", ""), ("prefloop.models.helpers", ""), ("prefloop.core.__init__", "")],
        [("prefloop.models.heads", ""), ("prefloop.methods.sft", "")],
    ),
    nothing_prints: (
        [("prefloop.doctor", "def f():\n    print('hello')")],
        [("prefloop.doctor", "console.print('hello')\nwrite('print()')")],
    ),
    no_code_comes_with_a_model: (
        [("prefloop.models.load", "AutoModel.from_pretrained(folder, trust_remote_code=True)")],
        [("prefloop.models.load", "AutoModel.from_pretrained(folder, trust_remote_code=False)")],
    ),
    loading_a_file_runs_no_code: (
        [
            ("prefloop.engine.checkpoint", "torch.load(path)"),
            ("prefloop.engine.checkpoint", "torch.load(path, weights_only=False)"),
            ("prefloop.engine.checkpoint", "pickle.load(file)"),
            ("prefloop.config", "yaml.load(text, Loader=yaml.Loader)"),
        ],
        [
            (
                "prefloop.engine.checkpoint",
                "torch.load(path, weights_only=True)\nsafetensors.torch.load(data, weights_only=True)\nyaml.safe_load(text)",
            )
        ],
    ),
    modules_are_imported_by_name_only_from_a_table: (
        [
            ("prefloop.models.load", "import importlib\nimportlib.import_module(name)"),
            ("prefloop.ops.kl", "__import__('prefloop.cli')"),
        ],
        [("prefloop.__init__", "import_module(module)"), ("prefloop.cli", "importlib.import_module(name)")],
    ),
}


def modules(folder: Path) -> list[tuple[str, str]]:
    """Every module under a folder of the checkout: (dotted name, source)."""
    return [
        (".".join(path.relative_to(ROOT).with_suffix("").parts), path.read_text(encoding="utf-8"))
        for path in sorted(folder.rglob("*.py"))
        if not hidden(path)
    ]


def hidden(path: Path) -> bool:
    """Below a folder whose name begins with a dot: nothing the project keeps."""
    return any(part.startswith(".") for part in path.relative_to(ROOT).parts)


def title(rule: Callable[..., object]) -> str:
    return rule.__name__


@pytest.mark.parametrize("rule", RULES, ids=title)
def test_a_rule_sees_what_breaks_it_and_nothing_else(rule):
    breaks, keeps = RULES[rule]
    assert [module for module, source in breaks if not rule(module, source)] == []
    assert [complaint for module, source in keeps for complaint in rule(module, source)] == []


@pytest.mark.parametrize("rule", RULES, ids=title)
def test_the_package_keeps_the_rule(rule):
    complaints = [complaint for module, source in modules(ROOT / "prefloop") for complaint in rule(module, source)]
    assert not complaints, "\n".join(complaints)


def test_every_part_of_the_package_has_its_place_in_the_order():
    parts = {module.split(".")[1] for module, _ in modules(ROOT / "prefloop")} - {"__init__"}
    assert parts - set(DEPTH) == set(), "give it a place in LAYERS, in docs/decisions/0001-*.md too"


def test_the_order_in_the_decision_is_the_order_that_is_held():
    (page,) = (ROOT / "docs" / "decisions").glob("0001-*.md")
    written = " > ".join(" | ".join(layer) for layer in LAYERS[1:])
    assert written in page.read_text(encoding="utf-8").replace("\n", " "), f"the page should say: {written}"


def test_a_lazy_import_is_told_from_an_eager_one():
    source = (
        "import os\ndef f():\n    import sys\nclass C:\n    import json\n    def g(self):\n        if 1:\n            import re\n"
    )
    lazy = {found.target: found.is_lazy for found in imports("m", source)}
    assert lazy == {"os": False, "sys": True, "json": False, "re": True}


def torch_free_modules() -> list[str]:
    names = [module.removesuffix(".__init__") for module, _ in modules(ROOT / "prefloop") if part_of(module) in TORCH_FREE]
    return ["prefloop", "prefloop.doctor", *names]


def brought_by(names: list[str], **environment: str) -> str:
    """What is said of the first of the modules whose import leaves torch or a follower in memory; nothing if none does."""
    program = (
        "import importlib, sys\n"
        f"for name in {names!r}:\n"
        "    importlib.import_module(name)\n"
        f"    brought = sorted(set({BRINGS_TORCH!r}) & set(sys.modules))\n"
        "    if brought:\n"
        "        sys.exit(f'{name} brings {brought}')\n"
    )
    command = [sys.executable, "-c", program]
    return subprocess.run(
        command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    ).stderr


def test_the_human_side_starts_without_torch():
    assert brought_by(torch_free_modules()) == ""


def test_a_module_that_brings_torch_would_be_seen(tmp_path):
    (tmp_path / "torch.py").write_text("")  # an empty one that shadows the real one, which takes seconds
    (tmp_path / "reader.py").write_text("import torch\n")
    assert brought_by(["prefloop.errors", "reader", "prefloop.config"], PYTHONPATH=str(tmp_path)) == "reader brings ['torch']\n"


def widened_comparisons(module: str, source: str) -> list[str]:
    """Comparisons with a tolerance that the test chooses itself."""
    named = [(node.attr, node.lineno) for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Attribute)]
    named += [(found.target.split(".")[-1], found.line) for found in imports(module, source)]
    return [f"{module}:{line} {name}: use tests.helpers.assert_close" for name, line in named if name in WIDENED]


def test_the_tests_compare_numbers_in_one_way_only():
    assert widened_comparisons("tests.test_x", "assert torch.allclose(a, b, rtol=1e6)")
    assert widened_comparisons("tests.test_x", "from pytest import approx")
    complaints = [complaint for module, source in modules(ROOT / "tests") for complaint in widened_comparisons(module, source)]
    assert not complaints, "\n".join(complaints)


MACHINE = re.compile(r"(?<![\w.:/])/(?:home|root|mnt|opt|work)/\w")


def test_no_file_of_the_checkout_names_a_folder_of_one_machine():
    assert MACHINE.search("open('" + "/home" + "/ada/x')")
    assert not MACHINE.search("https://example.org/home/x, data/work/x and runs/home/x")
    folders = [ROOT / folder for folder in ("prefloop", "tests", "configs", "docs", "benchmarks")]
    found = [path for folder in folders for path in folder.rglob("*") if path.suffix in {".py", ".md", ".yaml"}]
    files = [path for path in found if not hidden(path)]  # benchmarks keep their peers' environments in a hidden folder
    hits = [
        f"{path.relative_to(ROOT)}: {hit[0]}…" for path in files for hit in MACHINE.finditer(path.read_text(encoding="utf-8"))
    ]
    assert not hits, "\n".join(hits)
