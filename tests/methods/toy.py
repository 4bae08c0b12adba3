"""ToyWorld on disk: a tokenizer, a small policy as a Hugging Face folder, the exact table of its log-probabilities, and the
methods with settings that suit it. A whole chain takes about two seconds, so a test need not share its runs with others."""

import atexit
import json
import shutil
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from prefloop.config import Options
from prefloop.data.write import write_demonstrations, write_groups, write_prompts
from prefloop.methods import dpo, kto, ppo, reinforce, relearn, reward, rrhf, rules, sft
from prefloop.models.encode import Encoder
from prefloop.models.heads import policy_logprobs
from prefloop.models.load import load_policy, save_model
from prefloop.models.tokenizer import new_llama
from prefloop.records import Completion, Group, Prompt, Rating
from prefloop.world.toy import TOKENS, ToyAnnotator, ToyWorld

WORLD = ToyWorld()


def gold(prompts: Sequence[Prompt], completions: Sequence[Completion]) -> list[float]:
    """What ``python:tests.methods.toy:gold`` names in a config."""
    return [
        WORLD.gold(prompt, completion.text.replace("<pad>", "")) for prompt, completion in zip(prompts, completions, strict=True)
    ]


def against_gold(prompts: Sequence[Prompt], completions: Sequence[Completion]) -> list[float]:
    """A scorer that likes best what gold likes least."""
    return [-value for value in gold(prompts, completions)]


def drawing(prompts: Sequence[Prompt], completions: Sequence[Completion]) -> list[float]:
    """A scorer that draws from the global generators, as a careless one may."""
    return torch.rand(len(completions)).tolist()


# ------------------------------------------------------------------------------------------------------ files


def toy_tokenizer() -> PreTrainedTokenizerFast:
    """One token per word of the world, separated by spaces; without a decoder words are joined by them."""
    backend = Tokenizer(models.WordLevel({token: index for index, token in enumerate(TOKENS)}, unk_token="<pad>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", eos_token="<eos>", unk_token="<pad>", clean_up_tokenization_spaces=False
    )


def toy_encoder(**settings: Any) -> Encoder:
    return Encoder(toy_tokenizer(), template="plain", **settings)


def toy_policy(seed: int = 0) -> LlamaForCausalLM:
    """Random weights of a size that suits so narrow a model: with transformers' 0.02 it takes a thousand steps to wake up."""
    policy = new_llama(toy_tokenizer(), width=32, layers=2, heads=2, kv_heads=2, context=32, seed=seed)
    with torch.no_grad():
        for weight in policy.parameters():
            if weight.dim() > 1:
                weight.mul_(5)
    return policy


def write_toy(folder: Path, *, seed: int = 0, n: int = 400) -> Path:
    """base/ (a random policy), prompts, demonstrations, corpus and annotated rankings."""
    folder.mkdir(parents=True, exist_ok=True)
    save_model(toy_policy(seed), toy_tokenizer(), folder / "base", card={})
    write_prompts(folder / "prompts.jsonl", WORLD.prompts)
    write_demonstrations(folder / "demonstrations.jsonl", WORLD.demonstrations(n, seed=seed))
    (folder / "corpus.txt").write_text("\n".join(WORLD.corpus(n, seed=seed)) + "\n")
    groups = WORLD.groups(WORLD.demonstration_logprobs, n // 2, k=4, seed=seed)
    write_groups(folder / "rankings.jsonl", WORLD.annotated(groups, [ToyAnnotator()], seed=seed))
    write_groups(folder / "samples.jsonl", ten_answers_each(seed))
    (folder / "rules.yaml").write_text('bangs: {text: "!", weight: 1.0}\nsees: {text: c, weight: 2.0}\n')
    write_groups(folder / "ratings.jsonl", rated(groups))
    return folder


def breaks(rule: str, text: str) -> bool:
    """The truth of two rules: no "!" in an answer, and no c."""
    return {"bangs": "!", "sees": "c"}[rule] in text.split()


def rated(groups: Sequence[Group]) -> list[Group]:
    """Each answer rated by both rules, truly."""
    return [
        Group(
            prompt=group.prompt,
            completions=group.completions,
            ratings=tuple(
                Rating(completion_id=c.id, question=rule, scale=(0, 1), value=float(breaks(rule, c.text)), annotator="ada")
                for c in group.completions
                for rule in ("bangs", "sees")
            ),
        )
        for group in groups
    ]


def ten_answers_each(seed: int) -> list[Group]:
    """What ``prefloop sample k=10 repeats=true`` would write of a policy that answers like the demonstrations."""
    rng = np.random.default_rng([seed, 7])
    drawn = []
    for p, prompt in enumerate(WORLD.prompts):
        answers = WORLD.draw(WORLD.demonstration_logprobs, np.full(10, p), rng).tolist()
        completions = [WORLD.completion(p, n, source=f"policy:toy@0#{i}") for i, n in enumerate(answers)]
        drawn.append(Group(prompt=prompt, completions=tuple(completions)))
    return drawn


@cache
def toy() -> Path:
    """The files of the world with an SFT model and a reward model, made once for all tests of a process."""
    folder = Path(tempfile.mkdtemp(prefix="prefloop-toy-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return train_toy(folder)


def train_toy(folder: Path) -> Path:
    """The files of the world with sft/ and reward/."""
    write_toy(folder)
    run_sft(folder / "sft", folder=folder, epochs=3)
    run_reward(folder / "reward", folder=folder, model=folder / "sft" / "model")
    return folder


# ------------------------------------------------------------------------------------------------------ runs


def run_sft(out: Path, *, folder: Path | None = None, resume: bool = False, **settings: Any) -> dict[str, Any]:
    return sft.main(sft.SFTConfig.of(**sft_settings(folder or toy(), **settings)), options(out, resume))


def run_reward(out: Path, *, folder: Path | None = None, resume: bool = False, **settings: Any) -> dict[str, Any]:
    return reward.main(reward.RewardConfig.of(**reward_settings(folder or toy(), **settings)), options(out, resume))


def run_ppo(out: Path, *, folder: Path | None = None, resume: bool = False, **settings: Any) -> dict[str, Any]:
    return ppo.main(ppo.PPOConfig.of(**ppo_settings(folder or toy(), **settings)), options(out, resume))


def run_dpo(out: Path, *, folder: Path | None = None, resume: bool = False, **settings: Any) -> dict[str, Any]:
    return dpo.main(dpo.DPOConfig.of(**preference_settings(folder or toy(), **settings)), options(out, resume))


def run_kto(out: Path, *, folder: Path | None = None, resume: bool = False, **settings: Any) -> dict[str, Any]:
    return kto.main(kto.KTOConfig.of(**preference_settings(folder or toy(), **settings)), options(out, resume))


def run_rrhf(out: Path, *, folder: Path | None = None, resume: bool = False, **settings: Any) -> dict[str, Any]:
    return rrhf.main(rrhf.RRHFConfig.of(**preference_settings(folder or toy(), **settings)), options(out, resume))


def run_rules(out: Path, *, folder: Path | None = None, resume: bool = False, **settings: Any) -> dict[str, Any]:
    return rules.main(rules.RulesConfig.of(**rules_settings(folder or toy(), **settings)), options(out, resume))


def run_reinforce(out: Path, *, folder: Path | None = None, resume: bool = False, **settings: Any) -> dict[str, Any]:
    config = reinforce.ReinforceConfig.of(**reinforce_settings(folder or toy(), **settings))
    return reinforce.main(config, options(out, resume))


def run_relearn(out: Path, *, folder: Path | None = None, resume: bool = False, **settings: Any) -> dict[str, Any]:
    return relearn.main(relearn.RelearnConfig.of(**relearn_settings(folder or toy(), **settings)), options(out, resume))


def options(out: Path, resume: bool = False) -> Options:
    return Options(out=out, resume=resume, device="cpu")


def sft_settings(folder: Path, **settings: Any) -> dict[str, Any]:
    own = {"model": folder / "base", "data": folder / "demonstrations.jsonl", "epochs": 1, "held_out": 0}
    return plain({**own, **settings})


def reward_settings(folder: Path, **settings: Any) -> dict[str, Any]:
    data = {"data": folder / "rankings.jsonl", "demonstrations": folder / "demonstrations.jsonl"}
    return plain({"model": folder / "base", **data, "held_out": 0, **settings})


def ppo_settings(folder: Path, **settings: Any) -> dict[str, Any]:
    own = {"model": folder / "sft" / "model", "reward": folder / "reward" / "model", "prompts": folder / "prompts.jsonl"}
    sizes = {"rounds": 2, "prompts_per_round": 8, "k": 2, "max_new_tokens": WORLD.n_steps - 1, "minibatch": 8, "save_every": 1}
    return plain({**own, **sizes, **settings})


def preference_settings(folder: Path, **settings: Any) -> dict[str, Any]:
    own = {"model": folder / "sft" / "model", "data": folder / "rankings.jsonl", "held_out": 0}
    return plain({**own, **settings})


def rules_settings(folder: Path, **settings: Any) -> dict[str, Any]:
    own = {"model": folder / "sft" / "model", "rules": folder / "rules.yaml", "data": folder / "ratings.jsonl", "held_out": 0}
    return plain({**own, **settings})


def relearn_settings(folder: Path, **settings: Any) -> dict[str, Any]:
    data = {"data": folder / "rankings.jsonl", "samples": folder / "samples.jsonl", "reward": folder / "reward" / "model"}
    return plain({"model": folder / "sft" / "model", **data, "held_out": 0, "confidence": 0.2, **settings})


def reinforce_settings(folder: Path, **settings: Any) -> dict[str, Any]:
    own = {"model": folder / "sft" / "model", "reward": folder / "reward" / "model", "prompts": folder / "prompts.jsonl"}
    sizes = {"rounds": 2, "prompts_per_round": 8, "k": 4, "max_new_tokens": WORLD.n_steps - 1, "minibatch": 16, "save_every": 1}
    return plain({**own, **sizes, **settings})


def plain(settings: dict[str, Any]) -> dict[str, Any]:
    """Paths as text, in the template that the toy's models read."""
    return {"template": "plain"} | {key: str(value) if isinstance(value, Path) else value for key, value in settings.items()}


# ------------------------------------------------------------------------------------------------------ what came out


def history(run: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl without what tells the time."""
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [{key: value for key, value in json.loads(line).items() if not key.startswith("time/")} for line in lines]


def saved(run: Path, name: str = "model") -> bytes:
    """The weights a run saved, to the last bit."""
    return (run / name / "model.safetensors").read_bytes()


def shorter_than_the_last_step(groups: Sequence[Group]) -> list[Group]:
    """Groups with an order, of answers whose end was chosen: for those ``table`` and a plain sum over tokens agree."""
    fit = [g for g in groups if all(WORLD.lengths[WORLD.texts.index(c.text)] < WORLD.n_steps for c in g.completions)]
    return [group for group in fit if any(len(ranking.tiers) > 1 for ranking in group.rankings)]


@torch.no_grad()
def table(folder: Path | str) -> np.ndarray:
    """P N: the policy's exact log-probability of every answer to every prompt."""
    policy = load_policy(str(folder), device="cpu")
    n_prompt = WORLD.sequences(0)[0].shape[1] - WORLD.n_steps
    free = torch.from_numpy(np.pad(WORLD.is_free, ((0, 0), (n_prompt, 0))))  # N S+T, the last step can only be EOS
    rows = [
        policy_logprobs(policy, torch.from_numpy(WORLD.sequences(p)[0]), free, temperature=1.0) for p in range(len(WORLD.prompts))
    ]
    return torch.stack([row.double().sum(1) for row in rows]).numpy()
