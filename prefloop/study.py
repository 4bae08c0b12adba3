"""Studies: a YAML of named stages, seeds and sweeps. A stage whose inputs (by hash) have not changed is skipped.

    name: demo
    seeds: [0]
    stages:
      base: {do: pretrain, text: "${world}/corpus.txt"}
      sft:  {do: sft, model: "${base}/model", data: "${world}/demonstrations.jsonl"}
    sweep:  {ppo.kl: [0.02, 0.1]}

``${name}`` is the folder of another stage, ``${seed}`` the seed. Stages run in the order of the file. The key of a stage is
the hash of its command, its settings, the keys of the stages it names, the content of the files it names and the version
of prefloop. Heavy imports happen when a stage runs; reading a study needs no torch.
"""

import hashlib
import itertools
import json
import re
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from pydantic import Field

from prefloop import __version__
from prefloop.config import Config, Options, parse, read_yaml
from prefloop.errors import ConfigError

COMMANDS: dict[
    str, str
] = {  # what `prefloop NAME` and a stage's `do:` may be: module, whose main(config, options) does it, and config class
    "pretrain": "prefloop.methods.pretrain:PretrainConfig",
    "sft": "prefloop.methods.sft:SFTConfig",
    "reward": "prefloop.methods.reward:RewardConfig",
    "ppo": "prefloop.methods.ppo:PPOConfig",
    "sample": "prefloop.methods.sample:SampleConfig",
    "prompts": "prefloop.data.prompts:PromptsConfig",
    "rank": "prefloop.evaluate.rank:RankConfig",
    "score": "prefloop.evaluate.score:ScoreConfig",
    "select": "prefloop.evaluate.select:SelectConfig",
    "evaluate": "prefloop.evaluate.policies:PoliciesConfig",
    "world": "prefloop.world.stages:WorldConfig",
    "annotate": "prefloop.world.stages:AnnotateConfig",
}

REFERENCE = re.compile(r"\$\{([\w-]+)\}")


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
    merged = {**base.model_dump(), **study.model_dump(exclude_unset=True), "stages": stages, "include": ""}
    return parse(StudyConfig, merged, where=str(path))


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
        for point in points:
            names: dict[str, Stage] = {}
            for name, settings in study.stages.items():
                touched = {key: value for key, value in point.items() if key == name or key.startswith(f"{name}.")}
                touched |= {
                    key: value
                    for ref in references(settings)
                    if ref in names
                    for key, value in point.items()
                    if f"{key}={value}" in names[ref].label.split("@")
                }
                label = name + "".join(f"@{key}={value}" for key, value in touched.items())
                stage = made.get(label) or filled(name, label, {**settings}, touched, seed, out, names)
                names[name] = stage
                if label not in made:
                    made[label] = stage
                    yield stage


def filled(
    name: str, label: str, settings: dict[str, Any], touched: dict[str, Any], seed: int, out: Path, names: dict[str, Stage]
) -> Stage:
    """A stage with references replaced, its seed set and its key computed."""
    command = settings.pop("do")
    for key, value in touched.items():
        if key.startswith(f"{name}."):
            put(settings, key.removeprefix(f"{name}.").split("."), value)
    if "seed" not in settings:
        settings["seed"] = seed
    keyed = replaced(settings, lambda ref: str(seed) if ref == "seed" else f"stage:{names[ref].key}")
    real = replaced(settings, lambda ref: str(seed) if ref == "seed" else str(names[ref].folder))
    content = {"do": command, "settings": keyed, "files": file_hashes(keyed), "version": __version__}
    key = hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:16]
    return Stage(name, label, seed, command, real, out / f"seed-{seed}" / label.replace("/", "_"), key)


def put(settings: dict[str, Any], path: list[str], value: Any) -> None:
    for part in path[:-1]:
        settings[part] = dict(settings.get(part, {}))
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
        named = {value, *value.split(","), value.partition(":")[2]} - {"", "."}
        for path in (Path(name) for name in sorted(named) if len(name) < 1000 and Path(name).exists()):
            files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
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


def check(study: StudyConfig) -> None:
    """Everything that can be wrong with a study is found before its first stage runs."""
    if not study.stages:
        raise ConfigError(f"the study {study.name!r} has no stages")
    seen: set[str] = set()
    for name, settings in study.stages.items():
        command = settings.get("do")
        if command not in COMMANDS:
            raise ConfigError(f"stage {name}: do: {command!r} is not a command a study can run\n  known: {', '.join(COMMANDS)}")
        if unknown := sorted(set(references(settings)) - seen):
            raise ConfigError(
                f"stage {name} names {', '.join(unknown)}, which does not come before it\n  before it: {', '.join(sorted(seen)) or 'nothing'}"
            )
        seen.add(name)
    for key in study.sweep:
        stage, _, setting = key.partition(".")
        if stage not in study.stages or not setting:
            raise ConfigError(f"sweep: {key!r} is not stage.setting; stages: {', '.join(study.stages)}")


def config_class(command: str) -> tuple[type[Config], Callable[[Any, Options], dict]]:
    """The config class of a command and the function that runs it."""
    module_name, _, class_name = COMMANDS[command].partition(":")
    module = import_module(module_name)
    return getattr(module, class_name), module.main


def run_study(study: StudyConfig, options: Options, *, announce: Callable[[str], None]) -> list[Done]:
    """Run what is not there yet; returns every stage with its summary."""
    todo = list(stages(study, options.out))
    configs = [parse(config_class(stage.command)[0], known(stage), where=f"stage {stage.name}") for stage in todo]
    done = []
    for number, (stage, config) in enumerate(zip(todo, configs, strict=True), start=1):
        if options.dry_run:
            announce(
                f"[{number}/{len(todo)}] {stage.label} (seed {stage.seed}): {'there already' if finished(stage) else 'would run'}"
            )
            continue
        done.append(finished(stage) or run_stage(stage, config, options, announce, f"[{number}/{len(todo)}]"))
    return done


def known(stage: Stage) -> dict[str, Any]:
    """The stage's settings; the study's seed only where the command has one."""
    has_seed = "seed" in config_class(stage.command)[0].model_fields
    return {key: value for key, value in stage.settings.items() if key != "seed" or has_seed}


def finished(stage: Stage) -> Done | None:
    """The stage's earlier result, if it had the same key."""
    marker = stage.folder / "stage.json"
    if not marker.is_file() or not (stage.folder / "summary.json").is_file():
        return None
    state = json.loads(marker.read_text(encoding="utf-8"))
    if state.get("key") != stage.key or not state.get("done"):
        return None
    return Done(stage, state["seconds"], True, json.loads((stage.folder / "summary.json").read_text(encoding="utf-8")))


def run_stage(stage: Stage, config: Config, options: Options, announce: Callable[[str], None], where: str) -> Done:
    """Run one stage, going on with an interrupted one and replacing one with other inputs."""
    marker = stage.folder / "stage.json"
    is_same = marker.is_file() and json.loads(marker.read_text(encoding="utf-8")).get("key") == stage.key
    if stage.folder.exists() and not is_same:
        if not marker.is_file() and any(stage.folder.iterdir()):
            raise ConfigError(f"{stage.folder} exists and no study made it; move it away or choose another --out")
        shutil.rmtree(stage.folder)
    stage.folder.mkdir(parents=True, exist_ok=True)
    write_marker(marker, {"key": stage.key, "done": False})
    announce(f"{where} {stage.label}" + (f", seed {stage.seed}" if stage.seed else ""))
    start = time.perf_counter()
    main = config_class(stage.command)[1]
    summary = main(config, Options(out=stage.folder, resume=True, device=options.device))
    seconds = time.perf_counter() - start
    write_marker(marker, {"key": stage.key, "done": True, "seconds": seconds})
    return Done(stage, seconds, False, summary)


def write_marker(path: Path, state: dict[str, Any]) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(state), encoding="utf-8")
    temporary.replace(path)
