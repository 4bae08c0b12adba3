"""Studies: a YAML of named stages, seeds and sweeps. A stage whose inputs (by hash) have not changed is skipped.

    name: demo
    seeds: [0]
    stages:
      base: {do: pretrain, text: "${world}/corpus.txt"}
      sft:  {do: sft, model: "${base}/model", data: "${world}/demonstrations.jsonl"}
    sweep:  {ppo.kl: [0.02, 0.1]}

``${name}`` is the folder of another stage, ``${seed}`` the seed. Stages run in the order of the file. The key of a stage is
the hash of its command, its settings, the keys of the stages it names, the content of the files it names (for a function,
python:MODULE:FUNCTION, of its module's file) and the version of prefloop. One process at a time runs a study in a folder.
Heavy imports happen when a stage runs; reading a study needs no torch.
"""

import hashlib
import itertools
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from prefloop import __version__
from prefloop.config import Config, Options, parse, read_yaml
from prefloop.data.reward_spec import files_of
from prefloop.engine.lock import not_there, only_writer, remove_folder, remove_what_was_made
from prefloop.errors import ConfigError, PrefloopError

COMMANDS: dict[
    str, str
] = {  # what `prefloop NAME` and a stage's `do:` may be: module, whose main(config, options) does it, and config class
    "pretrain": "prefloop.methods.pretrain:PretrainConfig",
    "sft": "prefloop.methods.sft:SFTConfig",
    "reward": "prefloop.methods.reward:RewardConfig",
    "ppo": "prefloop.methods.ppo:PPOConfig",
    "dpo": "prefloop.methods.dpo:DPOConfig",
    "kto": "prefloop.methods.kto:KTOConfig",
    "rrhf": "prefloop.methods.rrhf:RRHFConfig",
    "rules": "prefloop.methods.rules:RulesConfig",
    "relearn": "prefloop.methods.relearn:RelearnConfig",
    "reinforce": "prefloop.methods.reinforce:ReinforceConfig",
    "sample": "prefloop.methods.sample:SampleConfig",
    "prompts": "prefloop.data.prompts:PromptsConfig",
    "rank": "prefloop.evaluate.rank:RankConfig",
    "score": "prefloop.evaluate.score:ScoreConfig",
    "select": "prefloop.evaluate.select:SelectConfig",
    "evaluate": "prefloop.evaluate.policies:PoliciesConfig",
    "trust": "prefloop.evaluate.trust:TrustConfig",
    "benchmark": "prefloop.evaluate.benchmark:BenchmarkConfig",
    "world": "prefloop.world.stages:WorldConfig",
    "annotate": "prefloop.world.stages:AnnotateConfig",
}

REFERENCE = re.compile(r"\$\{([\w-]+)\}")
CODE = re.compile(r"python:([\w.]+):")
PLAN = "study.json"
LONGEST_NAME = 200  # bytes of a folder's name; file systems end at 255


class StudyConfig(Config):
    """Named stages, seeds, sweeps."""

    name: str = Field(description="what the study is called on its page")
    question: str = Field("", description="what it asks, in a sentence")
    include: str = Field(
        "", description="a study whose stages this one starts from: a file, or the name of one that comes with prefloop"
    )
    seeds: list[int] = Field(default=[0], min_length=1, description="every stage runs once per seed")
    stages: dict[str, dict[str, Any]] = Field(
        default={}, description="stages by name, each with do: and the settings of that command"
    )
    sweep: dict[str, list[Any]] = Field(
        default={}, description="stage.setting: values; only that stage and what follows from it is repeated"
    )

    @model_validator(mode="after")
    def each_of_several_is_another(self) -> "StudyConfig":
        for name, values in {"seeds": self.seeds, **{f"sweep {key}": values for key, values in self.sweep.items()}}.items():
            if not values:
                raise ValueError(f"{name} has no value, so nothing would run")
            written = [str(value) for value in values]
            if twice := sorted({value for value in written if written.count(value) > 1}):
                raise ValueError(f"{name} names {', '.join(twice)} more than once; the same run counted twice is no second one")
        return self

    @model_validator(mode="after")
    def a_stage_can_be_named(self) -> "StudyConfig":
        for name in self.stages:
            if not re.fullmatch(r"[\w-]+", name) or name == "seed":
                raise ValueError(
                    f"{name!r} cannot be the name of a stage: others say ${{name}}, of letters, digits, _ and -, and ${{seed}} is the seed"
                )
        return self


@dataclass(frozen=True)
class Stage:
    """One command with everything filled in."""

    name: str  # as in the file
    label: str  # with the point of the sweep
    seed: int
    command: str
    settings: dict[str, Any]
    folder: Path
    key: str
    parents: tuple[str, ...] = ()  # labels of the stages whose outputs it reads


@dataclass(frozen=True)
class Done:
    """A stage that has run, now or before."""

    stage: Stage
    seconds: float
    was_skipped: bool
    summary: dict[str, Any]


def load_study(path: Path, *, including: tuple[Path, ...] = ()) -> StudyConfig:
    """A study with its included stages; the including file's settings win."""
    if path.resolve() in including:
        raise ConfigError(f"studies include each other in a circle: {' -> '.join(p.name for p in (*including, path))}")
    own = read_yaml(path)
    study = parse(StudyConfig, own, where=str(path))
    if not study.include:
        return study
    base = load_study(included(study.include, path.parent), including=(*including, path.resolve()))
    stages = {name: {**settings, **study.stages.get(name, {})} for name, settings in base.stages.items()}
    stages |= {name: settings for name, settings in study.stages.items() if name not in stages}
    merged = {**base.model_dump(), **study.model_dump(exclude_unset=True), "stages": behind_what_they_name(stages), "include": ""}
    return parse(StudyConfig, merged, where=str(path))


def behind_what_they_name(stages: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The stages in their order, except that one which names a later one comes after it: an evaluation may be given new rows.

    Stages that name each other in a circle stay where they are; ``check`` tells of them.
    """
    ordered: dict[str, dict[str, Any]] = {}

    def place(name: str, waiting: tuple[str, ...]) -> None:
        for ref in references(stages[name]):
            if ref in stages and ref not in ordered and ref not in waiting:
                place(ref, (*waiting, ref))
        ordered.setdefault(name, stages[name])

    for name in stages:
        place(name, (name,))
    return ordered


def included(name: str, folder: Path) -> Path:
    """A study file beside the including one, or one that comes with the package."""
    shipped = Path(__file__).parent / "studies"
    for candidate in (folder / name, shipped / f"{name}.yaml"):
        if candidate.is_file():
            return candidate
    raise ConfigError(
        f"there is no study {name!r} to include, neither in {folder} nor with prefloop\n  with prefloop come: {', '.join(sorted(p.stem for p in shipped.glob('*.yaml')))}"
    )


def stages(study: StudyConfig, out: Path) -> Iterator[Stage]:
    """Every stage of every seed and sweep point, in an order in which each comes after those it names."""
    check(study)
    points = [dict(zip(study.sweep, values, strict=True)) for values in itertools.product(*study.sweep.values())]
    for seed in study.seeds:
        made: dict[str, Stage] = {}
        label_in: dict[str, str] = {}
        for point in points:
            names: dict[str, Stage] = {}
            touches: dict[str, dict[str, Any]] = {}  # of each stage, what it and those it follows from have of this point
            for name, written in study.stages.items():
                own = {key: value for key, value in point.items() if key.startswith(f"{name}.")}
                settings = at_point(name, written, own)
                touched = own | {key: value for ref in references(settings) for key, value in in_order(touches[ref], point)}
                touches[name] = touched
                label = name + "".join(f"@{key}={value}" for key, value in touched.items())
                stage = made.get(label) or filled(name, label, settings, seed, out, names)
                names[name] = stage
                if label not in made:
                    folder = str(stage.folder).casefold()  # some file systems do not tell A from a
                    if label_in.setdefault(folder, label) != label:
                        raise ConfigError(
                            f"{label_in[folder]} and {label} would both be {stage.folder}\n  give one of them another name or value"
                        )
                    made[label] = stage
                    yield stage


def in_order(touched: dict[str, Any], point: dict[str, Any]) -> list[tuple[str, Any]]:
    """What a stage has of a point of the sweep, in the order of the sweep."""
    return [(key, value) for key, value in point.items() if key in touched]


def at_point(name: str, written: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """The settings of a stage with its values of the sweep in their places."""
    settings = {**written}
    for key, value in own.items():
        put(settings, key.removeprefix(f"{name}.").split("."), value, key)
    return settings


def filled(name: str, label: str, settings: dict[str, Any], seed: int, out: Path, names: dict[str, Stage]) -> Stage:
    """A stage with references replaced, its seed set and its key computed."""
    command = settings.pop("do")
    if "seed" not in settings:
        settings["seed"] = seed
    keyed = replaced(settings, lambda ref: str(seed) if ref == "seed" else f"stage:{names[ref].key}")
    real = replaced(settings, lambda ref: str(seed) if ref == "seed" else str(names[ref].folder))
    content = {"do": command, "settings": keyed, "files": file_hashes(keyed) | code_hashes(keyed), "version": __version__}
    key = hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:16]
    parents = tuple(dict.fromkeys(names[ref].label for ref in references(settings)))
    return Stage(name, label, seed, command, real, out / f"seed-{seed}" / folder_name(label), key, parents)


def folder_name(label: str) -> str:
    """A label as the name of a folder; of one that is too long the beginning, and a hash of all of it."""
    name = label.replace("/", "_")
    if len(name.encode()) <= LONGEST_NAME:
        return name
    beginning = name.encode()[: LONGEST_NAME - 17].decode(errors="ignore")
    return f"{beginning}-{hashlib.sha256(label.encode()).hexdigest()[:16]}"


def put(settings: dict[str, Any], path: list[str], value: Any, key: str) -> None:
    for part in path[:-1]:
        inner = settings.get(part) or {}
        if not isinstance(inner, dict):
            raise ConfigError(f"sweep: {key}: {part} is {inner!r}, which has no settings of its own")
        settings[part] = dict(inner)
        settings = settings[part]
    settings[path[-1]] = value


def references(value: Any) -> list[str]:
    """The stages named in settings."""
    if isinstance(value, str):
        return [ref for ref in REFERENCE.findall(value) if ref != "seed"]
    if isinstance(value, dict):
        return [ref for inner in value.values() for ref in references(inner)]
    return [ref for inner in value for ref in references(inner)] if isinstance(value, list) else []


def replaced(value: Any, by: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return REFERENCE.sub(lambda match: by(match.group(1)), value)
    if isinstance(value, dict):
        return {key: replaced(inner, by) for key, inner in value.items()}
    return [replaced(inner, by) for inner in value] if isinstance(value, list) else value


def file_hashes(value: Any) -> dict[str, str]:
    """Content hashes of the files and folders that settings name, other stages aside: FOLDER, FOLDER,FOLDER or lexicon:FILE."""
    found: dict[str, str] = {}
    if isinstance(value, str):
        named = {value, *value.split(","), value.partition(":")[2], *files_of(value)} - {"", "."}
        for path in (Path(name) for name in sorted(named) if os.path.exists(name)):  # False too for what no file can be called
            files = sorted(p for p in path.rglob("*") if p.is_file() and p.name != "lock") if path.is_dir() else [path]
            digest = hashlib.sha256()
            for file in files:
                digest.update(
                    str(file.relative_to(path) if path.is_dir() else "").encode() + hashlib.sha256(file.read_bytes()).digest()
                )
            found[str(path)] = digest.hexdigest()
    elif isinstance(value, dict):
        for inner in value.values():
            found |= file_hashes(inner)
    elif isinstance(value, list):
        for inner in value:
            found |= file_hashes(inner)
    return found


def code_hashes(value: Any) -> dict[str, str]:
    """Content hashes of the modules whose functions settings name, python:MODULE:FUNCTION, as values or as keys."""
    if isinstance(value, str):
        found = {module: source_of(module) for module in CODE.findall(value)}
        return {
            f"python:{module}": hashlib.sha256(file.read_bytes()).hexdigest()
            for module, file in found.items()
            if file is not None
        }
    inside = [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else []
    return {name: digest for inner in inside for name, digest in code_hashes(inner).items()}


def source_of(module: str) -> Path | None:
    """The file of a module, found without importing it or what it lies in; None where there is none."""
    places, spec = None, None
    parts = module.split(".")
    for end in range(1, len(parts) + 1):
        name = ".".join(parts[:end])
        found = (finder.find_spec(name, places) for finder in sys.meta_path)
        spec = next((one for one in found if one is not None), None)
        if spec is None:
            return None
        places = spec.submodule_search_locations
    return Path(spec.origin) if spec and spec.origin and Path(spec.origin).is_file() else None


def check(study: StudyConfig) -> None:
    """Everything that can be wrong with a study is found before its first stage runs."""
    if not study.stages:
        raise ConfigError(f"the study {study.name!r} has no stages")
    seen: set[str] = set()
    for name, settings in study.stages.items():
        command = settings.get("do")
        if not isinstance(command, str) or command not in COMMANDS:
            raise ConfigError(f"stage {name}: do: {command!r} is not a command a study can run\n  known: {', '.join(COMMANDS)}")
        swept = {key: values for key, values in study.sweep.items() if key.startswith(f"{name}.")}
        for where, value in {
            f"stage {name}": settings,
            **{f"sweep {key}, of stage {name},": swept[key] for key in swept},
        }.items():
            if unknown := sorted(set(references(value)) - seen):
                raise ConfigError(
                    f"{where} names {', '.join(unknown)}, which does not come before it\n"
                    f"  before it: {', '.join(sorted(seen)) or 'nothing'}"
                )
        seen.add(name)
    for key in study.sweep:
        stage, *setting = key.split(".")
        if stage not in study.stages or not setting or not all(setting):
            raise ConfigError(f"sweep: {key!r} is not stage.setting; stages: {', '.join(study.stages)}")
        if setting == ["do"]:
            raise ConfigError(f"sweep: {key!r} is a command, no setting; write a stage for each")


def config_class(command: str) -> tuple[type[Config], Callable[[Any, Options], dict]]:
    """The config class of a command and the function that runs it."""
    module_name, _, class_name = COMMANDS[command].partition(":")
    module = import_module(module_name)
    return getattr(module, class_name), module.main


def run_study(
    study: StudyConfig,
    options: Options,
    *,
    announce: Callable[[str], None],
    report: Callable[[list[Done]], None] = lambda done: None,
    command: str = "",
) -> list[Done]:
    """Run what is not there yet; returns every stage with its summary. ``report`` writes while nobody else may.

    ``command`` is what a person typed, kept for whoever finds the study unfinished.
    """
    todo = list(stages(study, options.out))
    configs = [parse(config_class(stage.command)[0], known(stage), where=f"stage {stage.label}") for stage in todo]
    if options.dry_run:
        for line in foreseen(todo):
            announce(line)
        return []
    made = not_there(options.out)
    try:
        with only_writer(options.out):
            write_plan(todo, options.out, command)
            done = run_stages(todo, configs, options, announce)
            report(done)
    except PrefloopError as error:
        if error.is_refusal and not any(stage.folder.exists() for stage in todo):
            remove_what_was_made(options.out, {PLAN}, made)
        raise
    return done


def run_stages(todo: list[Stage], configs: list[Config], options: Options, announce: Callable[[str], None]) -> list[Done]:
    """One after the other, in a folder that is this process's own."""
    return [
        finished(stage) or run_stage(stage, config, options, announce, f"[{number}/{len(todo)}]")
        for number, (stage, config) in enumerate(zip(todo, configs, strict=True), start=1)
    ]


def write_plan(todo: list[Stage], out: Path, command: str) -> None:
    """study.json: every stage and its folder, and the command, so that an unfinished study can say what is missing."""
    listed = [{"label": stage.label, "seed": stage.seed, "folder": str(stage.folder.relative_to(out))} for stage in todo]
    write_marker(out / PLAN, {"command": command, "stages": listed})


def foreseen(todo: list[Stage]) -> Iterator[str]:
    """What a study would do, stage by stage: which are there, which would run, where they write, how long they took before."""
    took = {stage.label: seconds for stage in todo if (seconds := seconds_before(stage)) is not None}  # by any seed
    known = {stage.folder: seconds for stage in todo if (seconds := seconds_before(stage) or took.get(stage.label)) is not None}
    widths = [
        max((len(words) for words in column), default=0) for column in zip(*(columns_of(stage) for stage in todo), strict=True)
    ]
    waiting = []
    for number, stage in enumerate(todo, start=1):
        what = standing(stage)
        if what != THERE:
            waiting.append(stage)
        name, command = (word.ljust(width) for word, width in zip(columns_of(stage), widths, strict=True))
        time_before = f", {minutes(known[stage.folder])} before" if stage.folder in known else ""
        yield f"[{number:{len(str(len(todo)))}}/{len(todo)}] {name}  {command}  {stage.folder}: {what}{time_before}"
    yield f"{len(todo)} stages: {len(todo) - len(waiting)} there already, {len(waiting)} would run" + time_of(waiting, known)
    yield "nothing was run (--dry-run)"


def columns_of(stage: Stage) -> tuple[str, str]:
    return stage.label + (f", seed {stage.seed}" if stage.seed else ""), f"prefloop {stage.command}"


THERE = "there already"


def standing(stage: Stage) -> str:
    """What running the study would do with a stage."""
    if finished(stage):
        return THERE
    marker = stage.folder / "stage.json"
    if not marker.is_file():
        is_strange = stage.folder.is_file() or (stage.folder.is_dir() and any(stage.folder.iterdir()))
        return "would be refused: no study made what is there" if is_strange else "would run"
    return "would go on" if read_json(marker).get("key") == stage.key else "would run again, its settings or inputs have changed"


def seconds_before(stage: Stage) -> float | None:
    """How long a stage took when it was last done, whatever its inputs then."""
    marker = stage.folder / "stage.json"
    state = read_json(marker) if marker.is_file() else {}
    return float(state["seconds"]) if state.get("done") and "seconds" in state else None


def time_of(waiting: list[Stage], known: dict[Path, float]) -> str:
    """An estimate for what would run, from what the same stages took before."""
    timed = [known[stage.folder] for stage in waiting if stage.folder in known]
    if not timed:
        return "; how long is not known before a first run" if waiting else ""
    rest = f"; {len(waiting) - len(timed)} never ran, their time is not known" if len(timed) < len(waiting) else ""
    return f", in about {minutes(sum(timed))}{rest}"


def minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 60 else f"{int(seconds // 60)} min {int(seconds % 60):02d} s"


def known(stage: Stage) -> dict[str, Any]:
    """The stage's settings; the study's seed only where the command has one."""
    has_seed = "seed" in config_class(stage.command)[0].model_fields
    return {key: value for key, value in stage.settings.items() if key != "seed" or has_seed}


def finished(stage: Stage) -> Done | None:
    """The stage's earlier result, if it had the same key."""
    marker = stage.folder / "stage.json"
    if not marker.is_file() or not (stage.folder / "summary.json").is_file():
        return None
    state = read_json(marker)
    if state.get("key") != stage.key or not state.get("done"):
        return None
    return Done(stage, float(state.get("seconds", 0.0)), True, read_json(stage.folder / "summary.json"))


def read_json(path: Path) -> dict[str, Any]:
    """What a study left in the folder of a stage; ConfigError where it can no longer be read."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise ValueError(f"it holds a {type(found).__name__}")
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{path} is damaged: {error}\n  to run that stage again remove {path.parent}, or choose another --out"
        ) from None
    return found


def run_stage(stage: Stage, config: Config, options: Options, announce: Callable[[str], None], where: str) -> Done:
    """Run one stage, going on with an interrupted one and replacing one with other inputs."""
    marker = stage.folder / "stage.json"
    before = read_json(marker) if marker.is_file() else {}
    is_same = before.get("key") == stage.key
    earlier = float(before.get("seconds", 0.0)) if is_same else 0.0  # of starts that were broken off
    if stage.folder.exists() and not is_same:
        if not stage.folder.is_dir() or (not marker.is_file() and any(stage.folder.iterdir())):
            raise ConfigError(f"{stage.folder} exists and no study made it; move it away or choose another --out")
        remove_folder(stage.folder)
    made = not_there(stage.folder)
    stage.folder.mkdir(parents=True, exist_ok=True)
    write_marker(marker, {"key": stage.key, "done": False, "seconds": earlier})
    announce(f"{where} {stage.label}" + (f", seed {stage.seed}" if stage.seed else ""))
    start = time.perf_counter()
    main = config_class(stage.command)[1]
    try:
        summary = main(config, Options(out=stage.folder, resume=True, device=options.device))
    except BaseException as error:
        if (
            isinstance(error, PrefloopError)
            and error.is_refusal
            and {p.name for p in stage.folder.iterdir()} <= {"stage.json", "lock"}
        ):
            remove_what_was_made(stage.folder, {"stage.json", "lock"}, made)
            raise
        with suppress(Exception):  # a full disk has been told of already
            write_marker(marker, {"key": stage.key, "done": False, "seconds": earlier + time.perf_counter() - start})
        raise
    seconds = earlier + time.perf_counter() - start
    write_marker(marker, {"key": stage.key, "done": True, "seconds": seconds})
    return Done(stage, seconds, False, summary)


def write_marker(path: Path, state: dict[str, Any]) -> None:
    from prefloop.engine.checkpoint import replace_file

    replace_file(path, json.dumps(state))
