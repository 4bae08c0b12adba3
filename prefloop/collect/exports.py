"""Judgments out: a folder with the data, a manifest and a datasheet. The same judgments give the same bytes.

``kway`` is the canonical format, which training reads and everything else can be made from; the others are for other people's
programs. A split keeps a prompt, and everything that begins with the same first turn, on one side.
"""

import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import Field
from sqlalchemy import Connection

from prefloop import __version__
from prefloop.collect import audit, projects
from prefloop.collect.database import Database
from prefloop.collect.datasheet import Summary
from prefloop.collect.files import Columns, Lines, described
from prefloop.collect.judged import Json, Judged, Judgment, Wanted, group_of, judged_items, order_in, ranking_of
from prefloop.collect.room import NO_ROOM, is_full
from prefloop.config import Config
from prefloop.data.turns import split_key
from prefloop.data.write import place_of
from prefloop.errors import ConfigError, DataError, RunError
from prefloop.records import Prompt, Ranking
from prefloop.stats.agreement import between_annotators, ranking_agreement, total

TOLD = 500  # items between two words of how far an export is


class ExportConfig(Config):
    """What is exported, and how."""

    since: str = Field("", description="only judgments from this day on (UTC, 2026-01-31)")
    until: str = Field("", description="only judgments before this day (UTC)")
    annotators: list[str] = Field([], description="only these, by the names they have in exports; empty = all")
    versions: list[int] = Field([], description="only answers to these versions of the questions; empty = all")
    surplus: bool = Field(True, description="judgments beyond the number that was wanted, too")
    least: int = Field(1, ge=1, description="judgments an item must have")
    least_agreement: float = Field(
        0.0,
        ge=0,
        le=1,
        description="only items on which people agree about this share of the pairs that two of them ordered; 0 = all",
    )
    final: bool = Field(False, description="where a reviewer decided on an item, the decision in place of its judgments")
    held_out: float = Field(0.0, ge=0, lt=1, description="share of prompts in test.jsonl; 0 = everything in one file")
    seed: int = Field(0, description="of the split")
    threshold: int = Field(0, description="kto: an answer is good from this point of the first scale on; 0 = its middle")
    implicit: bool = Field(
        False,
        description="trl_preference: the prompt as the beginning of chosen and rejected, as TRL's reward trainer prefers it",
    )
    sft_from: Literal["edits", "best"] = Field("edits", description="sft: what people wrote, or the answers they put first")


# --- formats ----------------------------------------------------------------------------------------------------------------


def kway(judged: Judged, config: ExportConfig) -> Iterator[Json]:
    """prefloop's own lines."""
    yield group_of(judged)


def spoken(text: str) -> list[Json]:
    return [{"role": "assistant", "content": text}]


def turns_of(judged: Judged) -> list[Json]:
    return [{"role": message["role"], "content": message["content"]} for message in judged.prompt["messages"]]


def ordered_pairs(one: Judgment) -> list[tuple[str, str, float]]:
    """Every (better, worse, margin): the steps of strength where it was asked, else how many tiers lie between."""
    order = order_in(one)
    if order is None:
        return []
    tiers, unusable = order
    place = {completion: index for index, tier in enumerate(tiers) for completion in tier}
    place |= dict.fromkeys(unusable, len(tiers))
    strength = strength_of(one)
    pairs = [(a, b) for a in place for b in place if place[a] < place[b]]
    return [(a, b, float(strength or place[b] - place[a])) for a, b in pairs]


def strength_of(one: Judgment) -> int | None:
    for stage, question in one.schema.of_type("pair"):
        return (one.answers.get(stage.id, {}).get(question.id) or {}).get("strength")
    return None


def trl_preference(judged: Judged, config: ExportConfig) -> Iterator[Json]:
    """TRL's explicit conversational preferences, with a margin; the pairs of one judgment weigh one together."""
    for one in judged.judgments:
        pairs = ordered_pairs(one)
        for better, worse, margin in pairs:
            asked = turns_of(judged)
            before, prompt = (asked, {}) if config.implicit else ([], {"prompt": asked})
            yield {
                **prompt,
                "chosen": before + spoken(judged.text(better)),
                "rejected": before + spoken(judged.text(worse)),
                "margin": margin,
                "group_id": judged.group_id,
                "annotator": one.annotator,
                "weight": 1 / len(pairs),
            }


def openrlhf(judged: Judged, config: ExportConfig) -> Iterator[Json]:
    """For its reward and DPO trainers with --apply_chat_template and the keys prompt, chosen, rejected."""
    for line in trl_preference(judged, config.model_copy(update={"implicit": False})):
        yield {name: line[name] for name in ("prompt", "chosen", "rejected", "margin")}


def rm_group(judged: Judged, config: ExportConfig) -> Iterator[Json]:
    """All pairs of a prompt on one line, so that they stay in one batch (InstructGPT, section 3.5): places among its answers."""
    place = {one["id"]: number for number, one in enumerate(judged.completions)}
    pairs = []
    for one in judged.judgments:
        ordered = ordered_pairs(one)
        for better, worse, margin in ordered:
            pairs.append({
                "better": place[better], "worse": place[worse], "margin": margin, "weight": 1 / len(ordered),
                "annotator": one.annotator,
            })  # fmt: skip
    if pairs:
        texts = [content_text(one) for one in judged.completions]
        yield {"prompt": turns_of(judged), "completions": texts, "pairs": pairs, "group_id": judged.group_id}


def kto(judged: Judged, config: ExportConfig) -> Iterator[Json]:
    """TRL's unpaired preferences: a thumb where one was asked, else a point on the first scale, else the half of the order."""
    for one in judged.judgments:
        for completion, label in labels(one, config.threshold):
            yield {
                "prompt": turns_of(judged),
                "completion": spoken(judged.text(completion)),
                "label": label,
                "group_id": judged.group_id,
                "annotator": one.annotator,
            }


def labels(one: Judgment, threshold: int) -> list[tuple[str, bool]]:
    """Answers that were called good or bad; those in the middle say nothing."""
    for stage, question in one.schema.of_type("single"):
        if stage.per == "completion" and {option.id for option in question.options} == {"up", "down"}:
            given = one.answers.get(stage.id, {})
            return [(name, said[question.id] == "up") for name, said in given.items() if question.id in said]
    for stage, question in one.schema.of_type("likert"):
        if stage.per == "completion":
            given = one.answers.get(stage.id, {})
            middle = threshold - 0.5 if threshold else (question.min + question.max) / 2
            points = [(name, said[question.id]) for name, said in given.items() if question.id in said]
            return [(name, point > middle) for name, point in points if point != middle]
    order = order_in(one)
    if order is None:
        return []
    tiers, unusable = order
    middle = (len(tiers) + bool(unusable) - 1) / 2
    ranked = [(name, index < middle) for index, tier in enumerate(tiers) for name in tier if index != middle]
    return ranked + [(name, False) for name in unusable]


def sft(judged: Judged, config: ExportConfig) -> Iterator[Json]:
    """Answers to imitate: what annotators wrote, or what they put first."""
    for text in written(judged) if config.sft_from == "edits" else best(judged):
        yield {"prompt": turns_of(judged), "completion": spoken(text)}


def written(judged: Judged) -> Iterator[str]:
    for one in judged.judgments:
        for stage, question in one.schema.of_type("edit"):
            for said in one.answers.get(stage.id, {}).values():
                if text := said.get(question.id):
                    yield text


def best(judged: Judged) -> Iterator[str]:
    """The answer that was put first most often, alone or in a tie; none where two were as often."""
    first = Counter(name for one in judged.judgments if (order := order_in(one)) and order[0] for name in order[0][0])
    top = first.most_common(2)
    if top and (len(top) == 1 or top[0][1] > top[1][1]):
        yield judged.text(top[0][0])


STEPWISE = "first_bad_step"  # the number that says which step of an answer is the first wrong one, from 1; 0 = none is


def stepwise(judged: Judged, config: ExportConfig) -> Iterator[Json]:
    """TRL's stepwise supervision, from a number called ``first_bad_step``. What follows the first wrong step is left out, as
    nobody judged it (Lightman et al. 2023, arXiv 2305.20050)."""
    prompt = "\n\n".join(turn["content"] for turn in turns_of(judged))
    for one in judged.judgments:
        for completion, first in first_bad_steps(one):
            steps = steps_of(judged.text(completion))
            if first <= len(steps):
                labels = [True] * (first - 1) + [False] if first else [True] * len(steps)
                yield {
                    "prompt": prompt, "completions": steps[: len(labels)], "labels": labels, "group_id": judged.group_id,
                    "annotator": one.annotator,
                }  # fmt: skip


def first_bad_steps(one: Judgment) -> Iterator[tuple[str, int]]:
    for stage, question in one.schema.of_type("number"):
        if stage.per == "completion" and question.id == STEPWISE:
            for completion, said in one.answers.get(stage.id, {}).items():
                number = said.get(question.id)
                if number is not None and number >= 0 and number == int(number):
                    yield completion, int(number)


def steps_of(text: str) -> list[str]:
    """The paragraphs of an answer, or its lines where it is one paragraph."""
    paragraphs = [part.strip() for part in re.split(r"\n\s*\n", text) if part.strip()]
    return paragraphs if len(paragraphs) > 1 else [line.strip() for line in text.splitlines() if line.strip()]


def argilla(judged: Judged, config: ExportConfig) -> Iterator[Json]:
    """Records as Argilla 2's server takes them (POST …/records/bulk, under "items"); its users have ids of their own."""
    fields = {"prompt": "\n\n".join(turn["content"] for turn in turns_of(judged))}
    fields |= {f"answer_{number}": content_text(one) for number, one in enumerate(judged.completions, start=1)}
    name = {one["id"]: f"answer_{number}" for number, one in enumerate(judged.completions, start=1)}
    responses = []
    for one in judged.judgments:
        order = order_in(one)
        if order is not None:
            tiers = [*order[0], *([order[1]] if order[1] else [])]
            ranked = [{"value": name[completion], "rank": place} for place, tier in enumerate(tiers, 1) for completion in tier]
            responses.append({"user": one.annotator, "status": "submitted", "values": {"ranking": {"value": ranked}}})
    yield {
        "external_id": judged.group_id,
        "fields": fields,
        "metadata": {
            "prompt_id": judged.prompt["id"],
            "completion_ids": [one["id"] for one in judged.completions],
            "turns": len(judged.prompt["messages"]),
        },
        "responses": responses,
    }


def content_text(completion: Json) -> str:
    return completion["content"].get("text") or completion["content"].get("uri", "")


def labelstudio(judged: Judged, config: ExportConfig) -> Iterator[Json]:
    """Tasks with annotations for a List with a Ranker; tiers are buckets, because a plain list knows no ties."""
    prompt = "\n\n".join(turn["content"] for turn in turns_of(judged))
    listed = [
        {"id": one["id"], "title": f"{number}", "body": content_text(one)} for number, one in enumerate(judged.completions, 1)
    ]
    annotations = []
    for one in judged.judgments:
        order = order_in(one)
        if order is not None:
            buckets = {f"tier_{number}": tier for number, tier in enumerate(order[0], start=1)} | {"unusable": order[1]}
            result = {"from_name": "rank", "to_name": "answers", "type": "ranker", "value": {"ranker": buckets}}
            annotations.append({"completed_by": {"email": one.annotator}, "lead_time": one.seconds, "result": [result]})
    data = {"prompt": prompt, "answers": listed, "group_id": judged.group_id}
    more = {"prompt_id": judged.prompt["id"], "messages": turns_of(judged)}  # which no page shows, and an import reads
    yield {"data": {**data, **more}, "annotations": annotations}


def answers(judged: Judged, config: ExportConfig) -> Iterator[Json]:
    """Everything that was answered, one judgment a line: also what no other format has a place for."""
    for one in judged.judgments:
        yield {
            "judgment": one.id, "group_id": judged.group_id, "prompt_id": judged.prompt["id"], "annotator": one.annotator,
            "answers": one.answers, "shown": list(one.shown), "schema_version": one.version, "rev": one.rev,
            "is_surplus": one.is_surplus, "seconds": one.seconds, "at": one.at,
        }  # fmt: skip


COLUMNS = (
    "judgment",
    "group_id",
    "prompt_id",
    "annotator",
    "at",
    "seconds",
    "schema_version",
    "stage",
    "question",
    "completion",
    "value",
)
NUMBERS = {"seconds": "float64", "schema_version": "int64"}  # of the columns, those that are no text


def table(judged: Judged, config: ExportConfig) -> Iterator[Json]:
    """A row per answer, for spreadsheets."""
    for one in judged.judgments:
        for stage, question, completion, value in long(one):
            told = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            row = (one.id, judged.group_id, judged.prompt["id"], one.annotator, one.at, one.seconds, one.version)
            yield dict(zip(COLUMNS, (*row, stage, question, completion, told), strict=True))


def long(one: Judgment) -> Iterator[tuple[str, str, str, Any]]:
    for stage in one.schema.stages:
        given = one.answers.get(stage.id, {})
        for completion, said in given.items() if stage.per == "completion" else (("", given),):
            for question in stage.questions:
                if question.id in said:
                    yield stage.id, question.id, completion, said[question.id]


def no_lines(judged: Judged, config: ExportConfig) -> Iterator[Json]:
    """Of the log of a project (audit.py), which is not about items."""
    return iter(())


FORMATS: dict[str, Callable[[Judged, ExportConfig], Iterator[Json]]] = {
    "kway": kway,
    "trl_preference": trl_preference,
    "rm_group": rm_group,
    "kto": kto,
    "sft": sft,
    "openrlhf": openrlhf,
    "stepwise": stepwise,
    "argilla": argilla,
    "labelstudio": labelstudio,
    "answers": answers,
    "csv": table,
    "parquet": table,
    "audit": no_lines,
}

LABEL_CONFIG = """<View>
  <Text name="prompt" value="$prompt" />
  <List name="answers" value="$answers" title="Answers" />
  <Ranker name="rank" toName="answers">
{buckets}
    <Bucket name="unusable" title="Unusable" />
  </Ranker>
</View>
"""


# --- files ------------------------------------------------------------------------------------------------------------------


def export(
    database: Database,
    project: str,
    folder: str | Path,
    *,
    format: str = "kway",
    config: ExportConfig | None = None,
    progress: Callable[[int], None] = lambda n: None,
) -> Json:
    """Write a project's judgments into a new folder; what its manifest says."""
    if format not in FORMATS:
        raise ConfigError(f"there is no export format {format!r}\n  formats: {', '.join(FORMATS)}")
    config = config or ExportConfig.of()
    if format == "audit" and config.held_out:
        raise ConfigError("held_out splits by prompt, and the log of a project has none\n  leave held_out out")
    folder = Path(folder)
    if folder.exists() and any(folder.iterdir()):
        raise DataError(f"{folder} is there already and not empty\n  name another folder, or remove it")
    beside = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    try:
        with database.snapshot() as connection:
            manifest = write_all(connection, project, beside, format, config, progress)
        if folder.exists():
            folder.rmdir()
        beside.rename(folder)
    except OSError as error:
        if is_full(error):
            raise RunError(f"{NO_ROOM}; nothing was exported\n  make some in {folder.parent}, and export again") from None
        raise
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return manifest


def write_all(
    connection: Connection, project: str, folder: Path, format: str, config: ExportConfig, progress: Callable[[int], None]
) -> Json:
    found = projects.find(connection, project)
    summary = Summary(found)
    with ExitStack() as stack:
        files = {name: stack.enter_context(new_file(folder / name, format)) for name in file_names(format, config)}
        for judged in judged_items(connection, wanted(found, config)):
            if config.least_agreement and not agreed(judged, config.least_agreement):
                continue
            file = files[side(judged, files, config)]
            for line in FORMATS[format](judged, config):
                file.write(line)
            summary.add(judged)
            if summary.items % TOLD == 0:
                progress(summary.items)
        if format == "audit":
            (file,) = files.values()
            for line in audit.events_of(connection, found, since=day(config.since, "since"), until=day(config.until, "until")):
                file.write(line)
    if format == "labelstudio":
        (folder / "label_config.xml").write_text(label_config(summary.most_tiers), encoding="utf-8")
    (folder / "DATASHEET.md").write_text(summary.datasheet(format, config.model_dump()), encoding="utf-8")
    manifest = {
        "format_version": 1,
        "format": format,
        "prefloop": __version__,
        "project": found.slug,
        "settings": config.model_dump(),
        "snapshot": summary.last_judgment,
        **summary.counts(),
        "files": {path.name: described(path, files) for path in sorted(folder.iterdir())},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
    return manifest


def wanted(project: Any, config: ExportConfig) -> Wanted:
    return Wanted(
        project,
        since=day(config.since, "since"),
        until=day(config.until, "until"),
        annotators=frozenset(config.annotators),
        versions=frozenset(config.versions),
        surplus=config.surplus,
        least=config.least,
        final=config.final,
    )


def agreed(judged: Judged, least: float) -> bool:
    """Whether people agree often enough about an item; not where no two of them put the same pair in order."""
    rankings = [Ranking.model_validate(ranking) for one in judged.judgments if (ranking := ranking_of(judged, one))]
    found = total([ranking_agreement(a, b) for a, b in between_annotators(rankings)])
    return found.of_ordered >= least  # false where it is NaN


def day(text: str, key: str) -> int | None:
    if not text:
        return None
    try:
        return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)
    except ValueError:
        raise ConfigError(f"{key} is {text!r}\n  a day is written 2026-01-31") from None


def file_names(format: str, config: ExportConfig) -> list[str]:
    ending = format if format in ("csv", "parquet") else "jsonl"
    return [f"train.{ending}", f"test.{ending}"] if config.held_out else [f"{format}.{ending}"]


def new_file(path: Path, format: str) -> Lines | Columns:
    if format == "parquet":
        return Columns(path, COLUMNS, NUMBERS)
    return Lines(path, COLUMNS if format == "csv" else ())


def side(judged: Judged, files: dict[str, Lines | Columns], config: ExportConfig) -> str:
    """The file an item goes to: by its prompt's first turn, so that no prompt is on both sides."""
    names = list(files)
    if len(names) == 1:
        return names[0]
    is_held_out = place_of(split_key(Prompt.model_validate(judged.prompt)), config.seed) < config.held_out
    return names[1] if is_held_out else names[0]


def label_config(n_tiers: int) -> str:
    buckets = "\n".join(f'    <Bucket name="tier_{number}" title="{number}" />' for number in range(1, max(n_tiers, 2) + 1))
    return LABEL_CONFIG.format(buckets=buckets)
