"""The embedded world as files, for studies and for ``prefloop world``."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from prefloop.config import Config, Options
from prefloop.data.read import read_groups
from prefloop.data.write import write_demonstrations, write_groups, write_prompts
from prefloop.errors import DataError
from prefloop.records import Group
from prefloop.world import World
from prefloop.world.prompts import read_request


class WorldConfig(Config):
    """Everything a study of the world starts from."""

    version: int = Field(1, ge=1, description="version of the world; a frozen version never changes")
    language: Literal["en", "zh"] = Field("en", description="language of prompts and answers")
    corpus_lines: int = Field(40_000, ge=1, description="documents of pretraining text")
    demonstrations: int = Field(2_500, ge=1, description="answers of mixed quality to imitate")
    reward_prompts: int = Field(2_000, ge=1, description="prompts whose answers are ranked to learn the reward")
    policy_prompts: int = Field(4_000, ge=1, description="prompts the policy practises on")
    validation_prompts: int = Field(200, ge=1, description="prompts to choose an SFT epoch on")
    held_out_prompts: int = Field(400, ge=1, description="prompts nothing is trained or chosen on")
    seed: int = 0


class AnnotateConfig(Config):
    """Simulated people rank completions."""

    data: str = Field(description="kway lines, with or without rankings")
    version: int = Field(1, ge=1, description="version of the world")
    language: Literal["en", "zh"] = Field("en", description="language of prompts and answers")
    annotators: int = Field(13, ge=1, le=13, description="size of the pool")
    flip: float = Field(0.25, ge=0, lt=0.5, description="share of pairs whose order is flipped")
    n: int = Field(0, ge=0, description="use only the first n groups; 0 = all")
    seed: int = 0


class PromptsConfig(Config):
    """Prompts of the world."""

    n: int = Field(200, ge=1, description="how many")
    split: Literal["train", "validation", "held_out"] = Field("train", description="which of the three disjoint sets")
    version: int = Field(1, ge=1, description="version of the world")
    language: Literal["en", "zh"] = Field("en", description="language of prompts and answers")
    seed: int = 0


class CorpusConfig(Config):
    """Pretraining text of the world."""

    lines: int = Field(10_000, ge=1, description="documents, one a line")
    version: int = Field(1, ge=1, description="version of the world")
    language: Literal["en", "zh"] = Field("en", description="language of prompts and answers")
    seed: int = 0


def write_world(config: WorldConfig, options: Options) -> dict:
    """Corpus, demonstrations and four disjoint uses of prompts."""
    world = World(version=config.version, language=config.language)
    out = options.out
    out.mkdir(parents=True, exist_ok=True)
    (out / "corpus.txt").write_text("\n".join(world.corpus(config.corpus_lines, seed=config.seed)) + "\n", encoding="utf-8")
    write_demonstrations(out / "demonstrations.jsonl", world.demonstrations(config.demonstrations, seed=config.seed))
    train = world.prompts(config.reward_prompts + config.policy_prompts, split="train", seed=config.seed)
    write_prompts(out / "reward_prompts.jsonl", train[: config.reward_prompts])
    write_prompts(out / "policy_prompts.jsonl", train[config.reward_prompts :])
    write_prompts(
        out / "validation_prompts.jsonl", world.prompts(config.validation_prompts, split="validation", seed=config.seed)
    )
    write_prompts(out / "held_out_prompts.jsonl", world.prompts(config.held_out_prompts, split="held_out", seed=config.seed))
    return finish(
        out, {"version": config.version, "language": config.language, "corpus_lines": config.corpus_lines, "prompts": len(train)}
    )


def annotate(config: AnnotateConfig, options: Options) -> dict:
    """Rankings by simulated annotators, and the accuracy nobody can exceed on such noisy labels."""
    world = World(version=config.version, language=config.language)
    groups = read_groups(config.data, allow_unranked=True).records[: config.n or None]
    refuse_foreign(world, groups, config.data)
    ranked = world.annotate(groups, annotators=config.annotators, flip=config.flip, seed=config.seed)
    options.out.mkdir(parents=True, exist_ok=True)
    write_groups(options.out / "rankings.jsonl", ranked)
    summary = {
        "groups": len(ranked),
        "rankings": sum(len(group.rankings) for group in ranked),
        "pairs": sum(len(ranking.pairs()) for group in ranked for ranking in group.rankings),
        "bayes_ceiling": world.bayes_accuracy(ranked, annotators=config.annotators, flip=config.flip),
        "oracle_accuracy": world.oracle_accuracy(ranked),
    }
    return finish(options.out, summary)


def refuse_foreign(world: World, groups: Sequence[Group], source: str) -> None:
    """The simulated people know this world only; about anything else they would answer noise."""
    foreign = [group.prompt.text for group in groups if read_request(world.language, group.prompt.text).family == "other"]
    if foreign:
        raise DataError(
            f"{len(foreign)} of {len(groups)} prompts of {source} are not of this world, e.g. {foreign[0][:60]!r}\n"
            f"  simulated annotators judge prompts of prefloop world prompts only; rankings of other answers come from people"
        )


def main(config: WorldConfig | AnnotateConfig, options: Options) -> dict:
    """What a study's ``do: world`` and ``do: annotate`` call."""
    return write_world(config, options) if isinstance(config, WorldConfig) else annotate(config, options)


def write_prompt_file(config: PromptsConfig, path: Path) -> str:
    """For ``prefloop world prompts``; returns the line to print."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_prompts(
        path, World(version=config.version, language=config.language).prompts(config.n, split=config.split, seed=config.seed)
    )
    return f"wrote {config.n} {config.split} prompts to {path}"


def write_corpus_file(config: CorpusConfig, path: Path) -> str:
    """For ``prefloop world corpus``; returns the line to print."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = World(version=config.version, language=config.language).corpus(config.lines, seed=config.seed)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return f"wrote {len(lines)} documents to {path}"


def finish(folder: Path, summary: dict) -> dict:
    """The summary, also as a file."""
    (folder / "summary.json").write_text(json.dumps(summary, indent=2), encoding="utf-8")
    return summary
