"""Whose folder it is: what a run may begin in, and what it may go on with."""

import json
from pathlib import Path
from typing import Any

import yaml

from prefloop.config import Config, read_yaml
from prefloop.engine.lock import as_a_refusal
from prefloop.engine.progress import say
from prefloop.errors import ConfigError, RunError

FORMAT_VERSION = 1  # of a run folder; a newer one is refused
NOT_A_RUN_YET = {"lock", "stage.json", "meta.json"}  # what lies in a folder before its run has begun: ours, or a study's marker
OF_EVERY_START = NOT_A_RUN_YET | {"config.yaml", "data.json", "metrics.jsonl", "samples.jsonl", "checkpoints"}
WHERE_IT_BEGAN = {"method": str, "seed": int, "parents": dict, "versions": dict, "machine": dict}  # of meta.json


def refuse_what_is_no_run(folder: Path) -> None:
    """A folder somebody else made stays as it is."""
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file; --out names a folder")
    found = inside(folder)
    strangers = sorted(found - NOT_A_RUN_YET)
    if "config.yaml" not in found and strangers:
        some = ", ".join(strangers[:5]) + (", ..." if len(strangers) > 5 else "")
        raise ConfigError(f"{folder} is not empty and holds no run: {some}\n  choose another --out")


def refuse_what_nobody_asked_to_go_on_with(folder: Path) -> None:
    """Without --resume a run stays as it is, unless it failed before it had done anything."""
    found = inside(folder)
    if "config.yaml" in found and (has_begun(folder) or found - OF_EVERY_START):
        if "summary.json" in found:
            model = f"; its model is in {folder / 'model'}" if "model" in found else ""
            raise ConfigError(
                f"{folder} holds a finished run{model}\n  to run again, with these settings or others, choose another --out"
            )
        raise ConfigError(f"{folder} holds a run that can be gone on with\n  go on with --resume, or choose another --out")


def has_begun(folder: Path) -> bool:
    """Whether a run has anything that going on would go on from: a checkpoint, a line in its logs, its summary."""
    logs = (folder / "metrics.jsonl", folder / "samples.jsonl")
    has_lines = any(log.is_file() and log.stat().st_size > 0 for log in logs)
    return has_lines or any((folder / "checkpoints").glob("step-*")) or (folder / "summary.json").exists()


def inside(folder: Path) -> set[str]:
    """Names in a folder, those of half-written files aside."""
    with as_a_refusal(folder):
        return {path.name for path in folder.iterdir() if not path.name.endswith(".tmp")} if folder.exists() else set()


def read_meta(folder: Path) -> dict[str, Any]:
    """meta.json of a run that has begun."""
    try:
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        version = int(meta["format_version"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{folder} cannot be gone on with: its meta.json is missing or damaged ({error})") from None
    if version > FORMAT_VERSION:
        raise RunError(f"{folder} has format_version {version}, this prefloop reads {FORMAT_VERSION} and older")
    lacking = [name for name, kind in WHERE_IT_BEGAN.items() if not isinstance(meta.get(name), kind)]
    if lacking or not all(isinstance(parent, dict) for parent in meta["parents"].values()):
        raise ConfigError(
            f"{folder} cannot be gone on with: its meta.json does not say where it began ({', '.join(lacking or ['parents'])})\n"
            f"  put a whole one back, or choose another --out"
        )
    return meta


def read_summary(folder: Path) -> dict[str, Any]:
    """The summary of a finished run."""
    path = folder / "summary.json"
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        state = "is not finished; go on with --resume" if (folder / "config.yaml").is_file() else "is not the folder of a run"
        raise ConfigError(f"{folder} {state}: it has no summary.json") from None
    except (OSError, ValueError) as error:
        raise damaged(path, str(error)) from None
    if not isinstance(summary, dict):
        raise damaged(path, f"it holds a {type(summary).__name__}")
    return summary


def damaged(path: Path, why: str) -> ConfigError:
    """A summary that cannot be read, and how a run comes by another."""
    return ConfigError(
        f"{path} is damaged: {why}\n  remove that file and run the same command with --resume: it is made again from the last checkpoint"
    )


def begins_again(folder: Path, config: Config, seed: int, method: str) -> str:
    """What is said where an earlier start came to nothing: begun again, with what has changed since."""
    try:
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        before = {**read_yaml(folder / "config.yaml"), "seed": meta["seed"], "method": meta["method"]}
    except (OSError, ValueError, KeyError, TypeError, ConfigError):
        return f"an earlier start in {folder} came to nothing: starting at the beginning"
    now = {**yaml.safe_load(config.to_yaml()), "seed": seed, "method": method}
    changed = [f"\n  {key}: {old} then, {new} now" for key, old, new in differences(before, now)]
    return (
        f"an earlier start in {folder} came to nothing: starting at the beginning{', with other settings' * bool(changed)}"
        + "".join(changed)
    )


def refuse_other_settings(folder: Path, config: Config, before: dict[str, Any], now: dict[str, Any]) -> None:
    """A run is gone on with under the settings and inputs it was started with, all of them, or not at all.

    ``before`` and ``now`` are meta.json as it was written and as it would be written now.
    """
    if before["method"] != now["method"]:
        raise ConfigError(f"{folder} holds a run of {before['method']}, not of {now['method']}\n  choose another --out")
    saved = {**read_yaml(folder / "config.yaml"), "seed": before["seed"]}
    given = {**yaml.safe_load(config.to_yaml()), "seed": now["seed"]}
    if differing := differences(saved, given):
        lines = "\n".join(f"  {key}: {old} when it was started, {new} now" for key, old, new in differing)
        raise ConfigError(
            f"{folder} was started with other settings, so it cannot be resumed with these:\n{lines}\n"
            f"  resume with the settings of {folder / 'config.yaml'}, or choose another --out"
        )
    content = {name: parent.get("sha256") for name, parent in before["parents"].items()}
    changed = [f"{name} ({parent['path']})" for name, parent in now["parents"].items() if content.get(name) != parent["sha256"]]
    if changed:
        raise ConfigError(
            f"what {folder} was made from has changed since it was started: {', '.join(changed)}\n"
            f"  put it back to go on, or choose another --out to begin again"
        )


def differences(before: Any, after: Any, path: str = "") -> list[tuple[str, Any, Any]]:
    """Dotted keys whose values differ, with both values."""
    if not isinstance(before, dict) or not isinstance(after, dict):
        return [] if before == after else [(path, before, after)]
    found = []
    for key in dict.fromkeys([*before, *after]):
        inner = f"{path}.{key}" if path else str(key)
        found += differences(before.get(key, "not set"), after.get(key, "not set"), inner)
    return found


def with_resume(before: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """meta.json with a line about being resumed; says so where the figures can no longer be the same to the bit."""
    moved = [name for name in ("versions", "machine") if before[name] != now[name]]
    if moved:
        say(f"not the {' and '.join(moved)} the run was started with (see meta.json): figures may differ in the last digits")
    resumed = {name: now[name] for name in ("command", "commit", *moved)}
    return {**before, "resumed": [*before.get("resumed", []), resumed]}
