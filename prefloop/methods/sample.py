"""Prompts to K answers each: what people, simulated people, a reward model or a judge put in order next.

Answers come from a policy (drawn, or found by beam search), from somebody else's model behind a server (``model=server:FILE``),
from files (``answers=``), or from several of these side by side; ``recipe`` names RRHF's mixtures (``models/candidates.py``).
"""

from functools import partial
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from prefloop.config import Config, Options
from prefloop.data.read import read_prompts
from prefloop.data.write import write_groups
from prefloop.engine.data_report import report_data
from prefloop.engine.forecast import forecast
from prefloop.engine.plan import Plan
from prefloop.engine.run import Run, open_run
from prefloop.errors import DataError
from prefloop.models.candidates import (
    USUAL,
    WITH_ANSWERS,
    Drawn,
    by_prompt,
    draw_candidates,
    read_answers,
    refuse_without_answers,
    side_by_side,
)
from prefloop.models.encode import Encoder
from prefloop.models.load import count_parameters, load_policy, load_tokenizer
from prefloop.models.server import ServerConfig, read_server, server_answers
from prefloop.records import Prompt

SERVER = "server:"


class SampleConfig(Config):
    """Draw K answers to each prompt."""

    model: str = Field("", description="folder or hub id of a causal language model, or server:FILE.yaml; unused where k is 0")
    prompts: str = Field(description="a file, folder or hub id of prompts in any accepted format")
    n: int = Field(0, ge=0, description="use only the first n prompts; 0 = all")
    recipe: Literal["", "BP", "DP", "D", "P"] = Field("", description="RRHF's mixtures of candidates by name, see above")
    answers: str = Field("", description="answers of people or other models to put beside: files in any format, with commas")
    k: int = Field(4, ge=0, le=1024, description="answers to each prompt; 0 takes those of answers alone")
    decoding: Literal["draw", "beam", "diverse_beam"] = Field(
        "draw", description="draw at random, or find the k likeliest, or k that differ from the first token on"
    )
    diversity: float = Field(1.0, ge=0, description="diverse_beam: what a token costs that another beam takes at the same step")
    max_new_tokens: int = Field(64, ge=1, description="longest answer in tokens")
    temperature: float = Field(1.0, gt=0, description="of the distribution answers are drawn from, or searched in")
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
    dtype: Literal["float32", "bfloat16"] = Field(
        "float32", description="numbers the model computes with; rounded to bfloat16 it draws from a distribution nearby"
    )
    compile: bool = Field(
        False,
        description="draw with a step made by torch.compile (CUDA graphs on a GPU) instead of the one in C; slower on a CPU",
    )
    seed: int = 0

    @model_validator(mode="before")
    @classmethod
    def usual_settings(cls, given: Any) -> Any:
        """What the recipe says, where nothing else is stated: the resolved configuration shows the numbers that are used."""
        return {**USUAL.get(str(given.get("recipe", "")), {}), **given} if isinstance(given, dict) else given

    @model_validator(mode="after")
    def every_answer_has_a_source(self) -> "SampleConfig":
        if self.k and not self.model.strip():
            raise ValueError(f"model is empty, and k = {self.k} answers are asked of it; name one, or set k = 0 and answers=")
        if not self.k and not self.answers:
            raise ValueError("k = 0 and no answers= leave nothing to write down")
        if self.recipe in WITH_ANSWERS and not self.answers:
            raise ValueError(
                f"recipe = {self.recipe} has the data set's answers among its candidates: name their file with answers="
            )
        return self

    @model_validator(mode="after")
    def settings_belong_to_the_decoding(self) -> "SampleConfig":
        if self.decoding != "draw" and (self.top_k, self.top_p) != (0, 1.0):
            raise ValueError(f"top_k and top_p are for drawing; decoding = {self.decoding} would ignore them")
        if self.decoding != "draw" and self.repeats:
            raise ValueError(f"repeats counts how often an answer is drawn; decoding = {self.decoding} finds each once")
        if self.model.startswith(SERVER) and (self.decoding != "draw" or self.top_k):
            raise ValueError("a server draws; decoding and top_k are not asked of it")
        if self.model.startswith(SERVER) and (self.dtype != "float32" or self.compile):
            raise ValueError("a server computes as it does; dtype and compile are not asked of it")
        if self.compile and (self.decoding != "draw" or self.dtype != "float32"):
            raise ValueError("compile is for drawing in float32; beams and bfloat16 are computed by the model's own forward pass")
        return self


def main(config: SampleConfig, options: Options) -> dict:
    """Write ``completions.jsonl`` (kway lines without rankings); returns the summary."""
    is_own = bool(config.k) and not config.model.startswith(SERVER)
    named = {"model": config.model.removeprefix(SERVER), "prompts": config.prompts, "answers": config.answers}
    parents = {name: Path(path) for name, path in named.items() if path}
    with open_run("sample", config, options, parents=parents, seed=config.seed) as run:
        if run.finished:
            return run.finished
        reading = read_prompts(config.prompts)
        prompts, encoder = reading.records[: config.n or None], None
        if is_own:
            encoder = Encoder(load_tokenizer(config.model), template=config.template, max_prompt=config.max_prompt)
            prompts = encoder.that_fit(prompts)
        report_data(run, "prompts", reading.report, encoder=encoder, max_dropped=config.max_dropped)
        if not prompts:
            raise DataError(
                f"no prompt of {config.prompts} is short enough to be answered\n  raise max_prompt= ({config.max_prompt})"
            )
        said = read_answers(config.answers)
        if config.answers:
            refuse_without_answers(prompts, said, config.answers)
        model = load_policy(config.model, device=run.device, dtype=config.dtype) if is_own else None
        if options.dry_run:
            plan = Plan(steps=0, rows=config.sample_rows, tokens=config.max_prompt + config.max_new_tokens)
            return forecast(run, plan, n_rows=len(prompts), parameters=count_parameters(model) if model else 0)
        drawn = Drawn((), (), ())
        if model is not None and encoder is not None:
            drawn = draw_candidates(
                model, encoder, prompts, decoding=config.decoding, k=config.k, max_new_tokens=config.max_new_tokens,
                seed=run.seed("sample"), temperature=config.temperature, diversity=config.diversity, top_k=config.top_k,
                top_p=config.top_p, batch_rows=config.sample_rows, source=f"policy:{run.name}@0",
                progress=partial(run.track, description="sample"), compile=config.compile,
            )  # fmt: skip
        elif config.k:
            drawn = of_server(config, prompts, run)
        groups = side_by_side(prompts, said, by_prompt(drawn.completions), repeats=config.repeats)
        write_groups(run.folder / "completions.jsonl", groups)
        kept = sum(len(group.completions) for group in groups)
        n_said = sum(len(said.get(prompt.id, ())) for prompt in prompts)
        summary: dict[str, Any] = {
            "prompts": len(groups),
            "completions": kept,
            "identical_answers_merged": len(drawn.completions) + n_said - kept,
        }
        if drawn.n_tokens:
            summary["finished"] = sum(drawn.is_finished) / len(drawn.is_finished)
            summary["length"] = sum(drawn.n_tokens) / len(drawn.n_tokens)
        if config.answers:
            summary["given_answers"] = n_said
        return run.finish(summary)


def of_server(config: SampleConfig, prompts: list[Prompt], run: Run) -> Drawn:
    """Answers of somebody else's model; how long they are in tokens is not known."""
    server = read_server(ServerConfig, config.model.removeprefix(SERVER))
    how = {"max_new_tokens": config.max_new_tokens, "temperature": config.temperature, "top_p": config.top_p}
    said = server_answers(server, prompts, k=config.k, seed=run.seed("sample"), **how)
    return Drawn(tuple(said), (), ())
