"""Prompts from any text: the beginnings of documents, or prompts as they are, split into two files that share none.

What a language model that only continues text can be asked is how a text goes on.
"""

import json
import re
from pathlib import Path

from pydantic import Field

from prefloop.config import Config, Options
from prefloop.data.read import read_prompts
from prefloop.data.turns import split_key
from prefloop.data.write import split_by_prompt, write_prompts
from prefloop.errors import DataError
from prefloop.records import Message, Prompt


class PromptsConfig(Config):
    """Prompts to practise on and prompts to judge by."""

    data: str = Field(description="texts, prompts, demonstrations or rankings in any accepted format")
    words: int = Field(0, ge=0, description="cut each prompt after so many words; one with no more is left out; 0 keeps all")
    n: int = Field(0, ge=0, description="use only the first n; 0 = all")
    held_out: float = Field(0.1, gt=0, lt=1, description="share of the prompts kept to judge by")
    max_dropped: float = Field(0.05, ge=0, le=1, description="largest share of unreadable rows before the command refuses")
    seed: int = 0


def main(config: PromptsConfig, options: Options) -> dict:
    """Write ``prompts.jsonl`` and ``held_out.jsonl``; returns the summary."""
    reading = read_prompts(config.data).refuse_if_too_many_dropped(config.max_dropped)
    found = reading.records[: config.n or None]
    prompts = list({prompt.id: prompt for prompt in beginnings(found, config.words)}.values())
    train, held_out = split_by_prompt(prompts, held_out=config.held_out, seed=config.seed, key=own_key)
    if not train or not held_out:
        raise DataError(
            f"{config.data} gives {len(prompts)} prompts, too few to hold out {config.held_out:.0%} of them\n"
            f"  give more, or another share (held_out=)"
        )
    summary = {
        "read": len(found),
        "prompts": len(train),
        "held_out_prompts": len(held_out),
        "data": {"prompts": reading.report.lines()},
    }
    if options.dry_run:
        return summary
    write_prompts(options.out / "prompts.jsonl", train)
    write_prompts(options.out / "held_out.jsonl", held_out)
    (Path(options.out) / "summary.json").write_text(json.dumps(summary, indent=2), encoding="utf-8")
    return summary


def own_key(prompt: Prompt) -> str:
    """Unlike the key of other splits: what a later stage holds out of the training prompts, with the same seed, is drawn anew."""
    return f"prompts:{split_key(prompt)}"


def beginnings(prompts: list[Prompt], words: int) -> list[Prompt]:
    """Each prompt's last message cut after ``words`` words, without the space that follows; shorter ones are left out."""
    if words == 0:
        return prompts
    first_words = re.compile(rf"\s*\S+(?:\s+\S+){{{words - 1}}}(?=\s+\S)")
    cut = []
    for prompt in prompts:
        *before, last = prompt.messages
        if found := first_words.match(last.content):
            messages = (*before, Message(role=last.role, content=found[0]))
            cut.append(Prompt(messages=messages, origin=prompt.origin, tags=prompt.tags))
    return cut
