"""Prompts to K answers each: what people, simulated people, or a reward model judge next."""

from functools import partial
from pathlib import Path
from typing import Literal

from pydantic import Field

from prefloop.config import Config, Options
from prefloop.data.read import read_prompts
from prefloop.data.write import write_groups
from prefloop.engine.data_report import report_data
from prefloop.engine.forecast import forecast
from prefloop.engine.plan import Plan
from prefloop.engine.run import open_run
from prefloop.errors import DataError
from prefloop.models.batch import Samples
from prefloop.models.encode import Encoder
from prefloop.models.load import count_parameters, load_policy, load_tokenizer
from prefloop.models.sampling import sample
from prefloop.records import Completion, Group


class SampleConfig(Config):
    """Draw K answers to each prompt."""

    model: str = Field(description="folder or hub id of a causal language model")
    prompts: str = Field(description="a file, folder or hub id of prompts in any accepted format")
    n: int = Field(0, ge=0, description="use only the first n prompts; 0 = all")
    k: int = Field(4, ge=1, le=1024, description="answers to each prompt")
    max_new_tokens: int = Field(64, ge=1, description="longest answer in tokens")
    temperature: float = Field(1.0, gt=0, description="of the distribution answers are drawn from")
    top_k: int = Field(0, ge=0, description="draw from the k likeliest tokens only; 0 = all")
    top_p: float = Field(1.0, gt=0, le=1, description="draw from the likeliest tokens of this total probability only")
    template: Literal["auto", "chat", "dialogue", "plain"] = Field("auto", description="how a conversation becomes text")
    max_prompt: int = Field(512, ge=1, description="longest prompt in tokens; longer ones are dropped and counted")
    max_dropped: float = Field(0.05, ge=0, le=1, description="largest share of prompts lost before the run refuses")
    repeats: bool = Field(
        False,
        description="keep an answer drawn twice as two completions: how often a policy says something is what relearn counts",
    )
    sample_rows: int = Field(256, ge=1, description="answers drawn side by side; changes memory, not results")
    seed: int = 0


def groups(samples: Samples, *, repeats: bool = False) -> list[Group]:
    """Answers of one prompt together. The very same answer drawn twice is kept once, because nobody can rank it against itself.

    With ``repeats`` it is kept as often as it was drawn, told apart by its source: "...#2" is the second.
    """
    by_prompt: dict[str, Group] = {}
    for prompt, completion in zip(samples.prompts, samples.completions, strict=True):
        group = by_prompt.get(prompt.id) or Group(prompt=prompt, completions=())
        before = sum(other.text == completion.text for other in group.completions)
        if before and not repeats:
            continue
        told_apart = Completion.of(prompt, completion.text, source=f"{completion.source}#{before + 1}") if before else completion
        by_prompt[prompt.id] = group.model_copy(update={"completions": (*group.completions, told_apart)})
    return list(by_prompt.values())


def main(config: SampleConfig, options: Options) -> dict:
    """Write ``completions.jsonl`` (kway lines without rankings); returns the summary."""
    parents = {"model": Path(config.model), "prompts": Path(config.prompts)}
    with open_run("sample", config, options, parents=parents, seed=config.seed) as run:
        if run.finished:
            return run.finished
        reading = read_prompts(config.prompts)
        encoder = Encoder(load_tokenizer(config.model), template=config.template, max_prompt=config.max_prompt)
        prompts = encoder.that_fit(reading.records[: config.n or None])
        report_data(run, "prompts", reading.report, encoder=encoder, max_dropped=config.max_dropped)
        if not prompts:
            raise DataError(
                f"no prompt of {config.prompts} is short enough to be answered\n  raise max_prompt= ({config.max_prompt})"
            )
        model = load_policy(config.model, device=run.device)
        if options.dry_run:
            return forecast(
                run,
                Plan(steps=0, rows=config.sample_rows, tokens=config.max_prompt + config.max_new_tokens),
                n_rows=len(prompts),
                parameters=count_parameters(model),
            )
        samples = sample(
            model, encoder, prompts, k=config.k, max_new_tokens=config.max_new_tokens, temperature=config.temperature,
            top_k=config.top_k, top_p=config.top_p, seed=run.seed("sample"), batch_rows=config.sample_rows,
            source=f"policy:{run.name}@0", progress=partial(run.track, description="sample"),
        )  # fmt: skip
        drawn = groups(samples, repeats=config.repeats)
        write_groups(run.folder / "completions.jsonl", drawn)
        kept = sum(len(group.completions) for group in drawn)
        summary = {
            "prompts": len(drawn),
            "completions": kept,
            "identical_answers_merged": len(samples.completions) - kept,
            "finished": float(samples.is_finished.float().mean()),
            "length": float((samples.length - samples.prompt_length).float().mean()),
        }
        return run.finish(summary)
