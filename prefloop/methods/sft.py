"""Supervised fine-tuning on demonstrations (InstructGPT, arXiv 2203.02155, section 3.5 and C.1).

Next-token cross-entropy on the answer; the prompt is masked (the paper does not say: our default, ``learn_prompt`` to
change it). One model folder per epoch is kept, because the epoch with the lowest validation loss is not the best one:
``prefloop select`` chooses by the mean reward of generated answers once there is a reward model.
"""

from functools import partial
from pathlib import Path
from typing import Any, Literal

from pydantic import Field
from torch import nn

from prefloop.config import Adapter, Config, Optimiser, Options
from prefloop.data.read import read_demonstrations
from prefloop.data.write import split_by_prompt
from prefloop.engine.data_report import report_data
from prefloop.engine.forecast import forecast
from prefloop.engine.learner import Learner, Term
from prefloop.engine.needs import Work, admit
from prefloop.engine.order import share, steps_per_epoch, turn
from prefloop.engine.plan import Plan
from prefloop.engine.processes import on_main
from prefloop.engine.progress import say
from prefloop.engine.run import open_run
from prefloop.errors import DataError
from prefloop.models.batch import TokenBatch, take
from prefloop.models.context import refuse_longer_than_context
from prefloop.models.encode import Encoder
from prefloop.models.evaluation import mean_loss
from prefloop.models.heads import policy_logprobs
from prefloop.models.load import count_parameters, load_tokenizer, policy_to_train, save_model, verify_saved
from prefloop.ops.likelihood import nll
from prefloop.ops.loss import Loss


class SFTConfig(Config):
    """Imitate demonstrations."""

    model: str = Field(description="folder or hub id of a causal language model")
    data: str = Field(description="demonstrations: a file, folder or hub id in any accepted format")
    epochs: int = Field(3, ge=1, description="passes over the demonstrations; each leaves a model folder")
    batch: int = Field(32, ge=1, description="demonstrations of a step")
    weights: Literal["token_mean", "sequence_mean"] = Field(
        "token_mean", description="what counts the same: every token or every answer"
    )
    learn_prompt: bool = Field(False, description="learn the prompt's tokens too")
    adapter: Adapter = Adapter()
    memory: float = Field(0.0, ge=0, description="GiB the run may need; 0 = what the device has free")
    template: Literal["auto", "chat", "dialogue", "plain"] = Field("auto", description="how a conversation becomes text")
    max_prompt: int = Field(512, ge=1, description="longest prompt in tokens; longer ones are dropped and counted")
    max_completion: int = Field(512, ge=1, description="longest answer in tokens; longer ones are cut and counted")
    held_out: float = Field(0.05, ge=0, lt=0.9, description="share of the prompts kept for the validation loss")
    max_dropped: float = Field(0.05, ge=0, le=1, description="largest share of rows lost or cut before the run refuses")
    seed: int = 0
    save_every: int = Field(200, ge=1, description="steps between checkpoints")
    optim: Optimiser = Optimiser()

    def plan(self, n_rows: int = 0) -> Plan:
        return Plan(
            steps=self.epochs * steps_per_epoch(n_rows, self.batch), rows=self.batch, tokens=self.max_prompt + self.max_completion
        )


def of_demonstrations(model: nn.Module, batch: TokenBatch) -> Loss:
    """Masked cross-entropy: only tokens with a weight are predicted."""
    wanted = batch.token_weight > 0
    return nll(policy_logprobs(model, batch.tokens, wanted, temperature=1.0), batch.weight[:, None] * batch.token_weight)


def main(config: SFTConfig, options: Options) -> dict:
    """Train, save a model per epoch and the last as ``model/``; returns the summary."""
    parents = {"model": Path(config.model), "data": Path(config.data)}
    with open_run("sft", config, options, parents=parents, seed=config.seed) as run:
        if run.finished:
            return run.finished
        reading = read_demonstrations(config.data)
        tokenizer = load_tokenizer(config.model)
        encoder = Encoder(tokenizer, template=config.template, max_prompt=config.max_prompt, max_completion=config.max_completion)
        train, held_out = split_by_prompt(reading.records, held_out=config.held_out, seed=config.seed)
        rows = encoder.demonstrations(train, weights=config.weights, learn_prompt=config.learn_prompt)
        validation = encoder.demonstrations(held_out, weights=config.weights)
        report_data(run, "demonstrations", reading.report, encoder=encoder, max_dropped=config.max_dropped)
        if len(rows.tokens) == 0:
            raise DataError(f"no demonstration of {config.data} is left to learn from\n  lower held_out=, or raise max_prompt=")
        if config.held_out > 0 and len(validation.weight) == 0:
            say(f"{config.data} has too few prompts to hold out {config.held_out:.0%} of them: there will be no validation loss")
        memory = admit(config, Work(int(rows.length.max()), min(config.batch, len(rows.weight))), run.device)
        model = policy_to_train(config.model, config.adapter, seed=run.seed("adapter"), device=run.device)
        refuse_longer_than_context(model, rows.length, config.data)
        plan = config.plan(len(rows.tokens))
        if options.dry_run:
            return forecast(run, plan, n_rows=len(rows.tokens), parameters=count_parameters(model), memory=memory)

        learner = Learner(model, steps=plan.steps, device=run.device, **config.optim.model_dump())
        run.keep(learner=learner)
        model.train()
        for step in run.steps(plan.steps, save_every=config.save_every, description="sft"):
            run.seed_everything("step", step)
            epoch, batch_rows, ends_epoch = turn(step, len(rows.tokens), config.batch, run.rng)
            metrics = learner.step(Term(of_demonstrations, take(rows, share(batch_rows, run.rank, run.processes))))
            if ends_epoch:
                if len(validation.weight):
                    metrics["validation/loss"] = mean_loss(of_demonstrations, model, validation)
                card = {"method": "sft", "epoch": epoch + 1}
                on_main(partial(save_model, model, tokenizer, run.folder / "epochs" / str(epoch + 1), card=card, encoder=encoder))
            run.log(step, {"epoch": epoch + 1, **metrics})

        model.eval()
        summary = {"steps": plan.steps, "demonstrations": len(rows.tokens), "epochs": epochs(run.history())}
        card = {"method": "sft", **summary}
        on_main(partial(save_model, model, tokenizer, run.model_folder, card=card, encoder=encoder))
        verify_saved(model, run.model_folder, rows.tokens[:4])
        return run.finish(summary)


def epochs(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A line per epoch: the mean loss of its steps, and the validation loss at its end where some prompts were held out."""
    rows: dict[int, list[dict[str, Any]]] = {}
    for row in history:
        rows.setdefault(row["epoch"], []).append(row)
    return [
        {
            "epoch": epoch,
            "train_loss": sum(row["loss"] for row in of_epoch) / len(of_epoch),
            "validation_loss": of_epoch[-1].get("validation/loss"),
        }
        for epoch, of_epoch in rows.items()
    ]
