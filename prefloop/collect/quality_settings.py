"""How a project looks after what it collects: settings of its own, which may change at any time and go to no annotator."""

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from pydantic import Field
from sqlalchemy import Connection, select, update

from prefloop.collect.identity import as_json
from prefloop.collect.refusals import Refused
from prefloop.collect.tables import project
from prefloop.config import Config, parse
from prefloop.errors import ConfigError

MOST_OVERLAP = 50


class QualityConfig(Config):
    """What is done beyond handing out the judgments that are wanted."""

    overlap_max: int = Field(0, ge=0, le=MOST_OVERLAP, description="judgments of an item at most; 0 = never more than wanted")
    confidence: float = Field(0.5, ge=0, le=1, description="more are wanted while the consensus is less sure than this")
    gold_rate: float = Field(0.0, ge=0, le=0.5, description="share of turns at items whose right answer is known")
    repeat_rate: float = Field(0.0, ge=0, le=0.2, description="share of turns at items one has judged before")
    gold_pass: float = Field(1.0, gt=0, le=1, description="share of what is expected of a gold item that passes")
    review_below: float = Field(0.34, ge=0, le=1, description="items less sure than this go to the reviewer")
    seconds: float = Field(3.0, ge=0, le=600, description="a judgment that took less is too fast, whatever the length")
    seconds_per_100: float = Field(0.6, ge=0, le=60, description="and so much more for every hundred characters shown")


@lru_cache(maxsize=256)
def quality_of(settings_json: str) -> QualityConfig:
    """What a project's settings say of quality."""
    return QualityConfig(**json.loads(settings_json).get("quality", {}))


def set_quality(connection: Connection, *, project_id: str, change: Mapping[str, Any], now: int) -> QualityConfig:
    """Change some of them; how they are now."""
    here = select(project.c.settings_json).where(project.c.id == project_id).with_for_update()
    settings = json.loads(str(connection.scalar(here)))
    try:
        changed = parse(QualityConfig, {**settings.get("quality", {}), **change}, where="quality")
    except ConfigError as error:
        raise Refused(422, "bad_quality", str(error)) from None
    settings["quality"] = changed.model_dump()
    connection.execute(update(project).where(project.c.id == project_id).values(settings_json=as_json(settings)))
    return changed


def floor_ms(settings: QualityConfig, n_characters: int) -> float:
    """Milliseconds below which nobody has read what was shown."""
    return 1000 * (settings.seconds + settings.seconds_per_100 * n_characters / 100)
