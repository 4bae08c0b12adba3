"""A command for studies that costs nothing and remembers how often it ran: tests put it into the table of commands."""

import json
from typing import Any

from pydantic import Field

from prefloop.config import Config, Options

CALLS: list[dict[str, Any]] = []


class NoteConfig(Config):
    """Write a note."""

    text: str = Field("", description="what to note, or the file of an earlier note")
    size: int = 1
    inner: dict[str, int] = Field(default={})
    breaks: bool = False
    seed: int = 0


def main(config: NoteConfig, options: Options) -> dict:
    """Leaves notes.txt; with ``breaks`` it fails before the end, but only where no earlier attempt has left anything."""
    began_before = (options.out / "begun").exists()
    CALLS.append({**config.model_dump(), "out": options.out, "resume": options.resume, "goes_on": began_before})
    (options.out / "begun").write_text("yes")
    if config.breaks and not began_before:
        raise ConnectionError("pulled the plug")
    (options.out / "notes.txt").write_text(config.text)
    summary = {"size": config.size}
    (options.out / "summary.json").write_text(json.dumps(summary))
    return summary
