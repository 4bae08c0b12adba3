"""Pretraining: a tokenizer and a small Llama from scratch on plain text, or on whole conversations.

Nobody needs this to align a model of their own; the embedded world and small real studies do, so that a first result
needs no download. Next-token cross-entropy over text packed into blocks, every token worth the same.
"""

import math
from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import Field, model_validator
from torch import Tensor, nn

from prefloop.config import Config, Optimiser, Options
from prefloop.data.doctor import DataReport
from prefloop.data.read import read_demonstrations, read_groups, read_text
from prefloop.data.write import split_by_prompt
from prefloop.engine.data_report import report_data
from prefloop.engine.forecast import forecast
from prefloop.engine.learner import Learner, Term
from prefloop.engine.needs import Work, admit
from prefloop.engine.order import share, steps_per_epoch, turn
from prefloop.engine.plan import Plan
from prefloop.engine.processes import on_main
from prefloop.engine.run import open_run
from prefloop.errors import DataError
from prefloop.models.batch import TokenBatch, take
from prefloop.models.encode import Encoder
from prefloop.models.evaluation import mean_loss
from prefloop.models.heads import policy_logprobs
from prefloop.models.load import count_parameters, load_tokenizer, save_model, verify_saved
from prefloop.models.shapes import shape_of_config
from prefloop.models.tokenizer import llama_config, new_llama, train_tokenizer
from prefloop.ops.likelihood import nll
from prefloop.ops.loss import Loss
from prefloop.records import Demonstration

WHOLE = 1_000_000  # tokens of an answer: it is cut into rows, never off


class PretrainOptimiser(Optimiser):
    """Small models from scratch like a high rate and a short warm-up."""

    lr: float = Field(default=3e-3, gt=0, description="peak learning rate")
    warmup: int = Field(default=40, ge=0, description="steps of linear warm-up")
    weight_decay: float = Field(default=0.01, ge=0, description="decoupled weight decay")


class PretrainConfig(Config):
    """A small language model from scratch."""

    text: str = Field(
        "", description="text to learn: a .txt file (one document a line), JSONL with a text field, or a folder of them"
    )
    data: str = Field(
        "", description="instead of text: demonstrations or rankings in any accepted format, learned as whole conversations"
    )
    answers: Literal["best", "all"] = Field("best", description="which of ranked answers are learned")
    template: Literal["auto", "chat", "dialogue", "plain"] = Field("auto", description="how a conversation becomes text")
    mapping: dict[str, str] = Field(default={}, description="our field: their column, e.g. text: chosen")
    control_tokens: bool = Field(
        False, description="the text marks turns with the tokenizer's own control tokens, such as <|user|>"
    )
    tokenizer: str = Field("", description="a tokenizer folder to use; empty trains a byte-level BPE on the text")
    vocabulary: int = Field(768, ge=300, description="tokens of a new tokenizer, specials included")
    width: int = Field(128, ge=8, description="hidden size")
    layers: int = Field(4, ge=1, description="decoder layers")
    heads: int = Field(4, ge=1, description="attention heads")
    kv_heads: int = Field(0, ge=0, description="key-value heads; 0 = as many as heads")
    context: int = Field(256, ge=16, description="longest sequence the model can read")
    block: int = Field(64, ge=8, description="tokens of a training row")
    batch: int = Field(12, ge=1, description="rows of a step")
    steps: int = Field(1200, ge=1, description="optimiser steps")
    held_out: float = Field(
        0.01,
        ge=0,
        lt=0.9,
        description="share kept for the validation loss: of lines, or of the prompts of data, the same ones as in sft and reward with this seed",
    )
    memory: float = Field(0.0, ge=0, description="GiB the run may need; 0 = what the device has free")
    max_dropped: float = Field(0.05, ge=0, le=1, description="largest share of unreadable rows before the run refuses")
    seed: int = 0
    save_every: int = Field(500, ge=1, description="steps between checkpoints")
    optim: PretrainOptimiser = PretrainOptimiser()

    @model_validator(mode="after")
    def there_is_one_thing_to_learn(self) -> "PretrainConfig":
        if bool(self.text) == bool(self.data):
            raise ValueError(f"give text or data, one of the two, got text = {self.text!r} and data = {self.data!r}")
        return self

    @model_validator(mode="after")
    def the_model_can_read_a_row(self) -> "PretrainConfig":
        if self.block > self.context:
            raise ValueError(f"a row must fit into the context, got block = {self.block} and context = {self.context}")
        return self

    def plan(self) -> Plan:
        return Plan(steps=self.steps, rows=self.batch, tokens=self.block)


def of_text(model: nn.Module, batch: TokenBatch) -> Loss:
    """Cross-entropy of every token after the first."""
    wanted = batch.token_weight > 0
    return nll(policy_logprobs(model, batch.tokens, wanted, temperature=1.0), batch.weight[:, None] * batch.token_weight)


class Documents(NamedTuple):
    """What there is to learn: lines of text, or conversations."""

    train: Sequence[str | Demonstration]
    held_out: Sequence[str | Demonstration]
    report: DataReport


def read_documents(config: PretrainConfig) -> Documents:
    """Lines are held out at regular distances, conversations by prompt. DataError where that leaves nothing to learn."""
    documents = read_split(config)
    if not documents.train:
        raise DataError(
            f"{config.text or config.data} has {len(documents.held_out)} {'lines' if config.text else 'conversations'}, "
            f"and held_out = {config.held_out} leaves none of them to learn from\n  give more, or lower held_out="
        )
    return documents


def read_split(config: PretrainConfig) -> Documents:
    mapping: Any = config.mapping or None
    if config.text:
        reading = read_text(config.text, mapping=mapping)
        return Documents(*split_lines(reading.records, config.held_out), reading.report)
    if config.answers == "best":
        reading = read_demonstrations(config.data, mapping=mapping)
        shown = reading.records
    else:
        reading = read_groups(config.data, mapping=mapping)
        shown = [Demonstration(prompt=group.prompt, completion=c) for group in reading.records for c in group.completions]
    return Documents(*split_by_prompt(shown, held_out=config.held_out, seed=config.seed), reading.report)


def texts(documents: Sequence[str | Demonstration]) -> Iterator[str]:
    """What a tokenizer learns from: every text, without the marks between turns."""
    for document in documents:
        if isinstance(document, str):
            yield document
        else:
            yield from (message.content for message in document.prompt.messages)
            yield document.completion.text


def packed(encoder: Encoder, documents: Sequence[str | Demonstration], config: PretrainConfig) -> TokenBatch:
    """Documents one after the other in rows of ``config.block`` tokens, EOS after each."""
    lines = [document for document in documents if isinstance(document, str)]
    if lines:
        return encoder.packed_text(lines, config.block, control_tokens=config.control_tokens)
    shown = [document for document in documents if not isinstance(document, str)]
    rows = encoder.conversations([one.prompt for one in shown], [one.completion.text for one in shown])
    eos = encoder.tokenizer.eos_token_id
    return encoder.packed([row[:-1] if row[-1] == eos else row for row in rows], config.block)


def split_lines(lines: list[str], held_out: float) -> tuple[list[str], list[str]]:
    """The stated share is held out, evenly spread, so that both parts have the text's mixture: of 0.4 lines 0, 3, 5, 8, 10, …"""
    share = Fraction(held_out).limit_denominator(1_000_000)
    is_out = [i * share.numerator % share.denominator < share.numerator for i in range(len(lines))]
    train = [line for line, out in zip(lines, is_out, strict=True) if not out]
    return train, [line for line, out in zip(lines, is_out, strict=True) if out]


def main(config: PretrainConfig, options: Options) -> dict:
    """Train and save the model; returns the summary."""
    source = config.text or config.data
    with open_run("pretrain", config, options, parents={"text": Path(source)}, seed=config.seed) as run:
        if run.finished:
            return run.finished
        documents = read_documents(config)
        report_data(run, "text", documents.report, max_dropped=config.max_dropped)
        if config.tokenizer:
            tokenizer = load_tokenizer(config.tokenizer)
        else:
            tokenizer = train_tokenizer(texts(documents.train), vocab_size=config.vocabulary, folder=run.folder / "tokenizer")
        encoder = Encoder(tokenizer, template=config.template, max_completion=WHOLE)
        text = packed(encoder, documents.train, config)
        if len(text.tokens) == 0:
            raise DataError(f"{source} holds less than one block of {config.block} tokens\n  give more text, or a smaller block=")
        sizes = {
            "width": config.width,
            "layers": config.layers,
            "heads": config.heads,
            "kv_heads": config.kv_heads or config.heads,
            "context": config.context,
        }
        work = Work(config.block, min(config.batch, len(text.tokens)))
        memory = admit(config, work, run.device, shape_of_config(llama_config(tokenizer, **sizes)))
        model = new_llama(tokenizer, **sizes, seed=run.seed("weights")).to(run.device)
        if options.dry_run:
            return forecast(run, config.plan(), n_rows=len(text.tokens), parameters=count_parameters(model), memory=memory)

        learner = Learner(model, steps=config.steps, device=run.device, **config.optim.model_dump())
        run.keep(learner=learner)
        model.train()
        for step in run.steps(config.steps, save_every=config.save_every, description="pretrain"):
            run.seed_everything("step", step)
            rows = turn(step, len(text.tokens), config.batch, run.rng).rows
            metrics = learner.step(Term(of_text, take(text, share(rows, run.rank, run.processes))))
            run.log(step, {"epoch": step / steps_per_epoch(len(text.tokens), config.batch), **metrics})

        model.eval()
        summary = {
            "steps": config.steps,
            "tokens_seen": config.steps * config.batch * config.block,
            "parameters": count_parameters(model),
        }
        rest = packed(encoder, documents.held_out, config)
        if len(rest.weight):
            loss = mean_loss(of_text, model, rest)
            summary |= {"validation_loss": loss, "validation_perplexity": math.exp(loss), "validation_blocks": len(rest.weight)}
        on_main(partial(save_model, model, tokenizer, run.model_folder, card={"method": "pretrain", **summary}))
        verify_saved(model, run.model_folder, probe(text))
        return run.finish(summary)


def probe(text: TokenBatch) -> Tensor:
    """A few rows to compare a saved model on."""
    return text.tokens[:4]
