"""Whose folder it is: what a run may begin in, and what it may go on with."""

import json
from pathlib import Path
from typing import Any

import yaml

from prefloop.config import Config, read_yaml
from prefloop.engine.progress import say
from prefloop.errors import ConfigError, RunError

FORMAT_VERSION = 1  # of a run folder; a newer one is refused
NOT_A_RUN_YET = {"lock", "stage.json", "meta.json"}  # what lies in a folder before its run has begun: ours, or a study's marker


def refuse_what_is_not_this_run(folder: Path, resume: bool) -> None:
    """A folder somebody else made, or a run that nobody asked to go on with, stays as it is."""
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file; --out names a folder")
    found = sorted(p.name for p in folder.iterdir() if not p.name.endswith(".tmp")) if folder.exists() else []
    strangers = [name for name in found if name not in NOT_A_RUN_YET]
    if "config.yaml" in found and not resume:
        state = "a finished run" if "summary.json" in found else "a run that can be gone on with"
        raise ConfigError(f"{folder} holds {state}\n  go on with --resume, or choose another --out")
    if "config.yaml" not in found and strangers:
        some = ", ".join(strangers[:5]) + (", ..." if len(strangers) > 5 else "")
        raise ConfigError(f"{folder} is not empty and holds no run: {some}\n  choose another --out")


def read_meta(folder: Path) -> dict[str, Any]:
    """meta.json of a run that has begun."""
    try:
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        version = meta["format_version"]
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(f"{folder} cannot be gone on with: its meta.json is missing or damaged ({error})") from None
    if version > FORMAT_VERSION:
        raise RunError(f"{folder} has format_version {version}, this prefloop reads {FORMAT_VERSION} and older")
    return meta


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
    content = {name: parent["sha256"] for name, parent in before["parents"].items()}
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
