"""Every method that trains says what memory it will need, by part, and refuses a run that would not fit, before a model is read."""

from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

from prefloop.config import Options
from prefloop.engine import needs
from prefloop.engine.learner import Learner, Term
from prefloop.engine.micro_batches import micro_batches
from prefloop.errors import ConfigError
from prefloop.methods.dpo import DPOConfig, ReferredBatch, of_preferences
from prefloop.methods.reward import of_rankings
from prefloop.models.batch import RankedBatch
from prefloop.models.load import new_reward
from prefloop.models.shapes import shape_of
from prefloop.study import config_class
from prefloop.world.toy import TOKENS
from tests.helpers import assert_close
from tests.methods.toy import (
    WORLD,
    ppo_settings,
    preference_settings,
    reinforce_settings,
    relearn_settings,
    reward_settings,
    rules_settings,
    sft_settings,
    toy,
    toy_policy,
)

ANSWER = WORLD.n_steps  # tokens of the longest answer, its end counted
PROMPT = max(len(prompt.text.split()) for prompt in WORLD.prompts)
N_PROMPTS = len(WORLD.prompts)
READERS = (  # whatever a method reads or makes a model with
    "policy_to_train", "rewards_to_train", "new_reward", "new_llama", "load_policy", "load_scorer", "load_roles",
    "load_roles_without_critic", "load_meaning", "synthesise",
)  # fmt: skip


def candidates(folder: Path, policy: str) -> dict[str, Any]:
    own = {"policy": policy, "prompts": str(folder / "prompts.jsonl"), "reward": str(folder / "reward" / "model")}
    answers = {"answers": str(folder / "rankings.jsonl")} if policy in ("P", "DP") else {}
    return {"data": "", "candidates": {**own, **answers, "max_new_tokens": 5}}


def settings_of(name: str) -> tuple[str, dict[str, Any]]:
    """A method and its settings on the toy's files."""
    folder = toy()
    of = {
        "sft": lambda: sft_settings(folder, batch=4),
        "reward": lambda: reward_settings(folder, batch=4),
        "ppo": lambda: ppo_settings(folder),
        "dpo": lambda: preference_settings(folder, batch=4),
        "kto": lambda: preference_settings(folder, batch=4),
        "rrhf": lambda: preference_settings(folder, batch=4),
        "rrhf, its own candidates": lambda: preference_settings(folder, batch=4) | candidates(folder, "D"),
        "rrhf, its own and given ones": lambda: preference_settings(folder, batch=4) | candidates(folder, "DP"),
        "rrhf, given candidates": lambda: preference_settings(folder, batch=4) | candidates(folder, "P"),
        "rules": lambda: rules_settings(folder, batch=4),
        "relearn": lambda: relearn_settings(folder, batch=4),
        "relearn, a bottleneck": lambda: relearn_settings(folder, batch=4, representation="mib", negatives=3, views_batch=6),
        "reinforce": lambda: reinforce_settings(folder),
        "pretrain": lambda: {"text": str(folder / "corpus.txt"), "width": 32, "layers": 2, "heads": 2, "block": 16, "batch": 4},
    }
    command = name.partition(",")[0]
    given = of[name]()
    if "candidates" in given:
        given.pop("held_out")
    return command, given


NAMES = (
    "sft", "reward", "ppo", "dpo", "kto", "rrhf", "rrhf, its own candidates", "rrhf, its own and given ones",
    "rrhf, given candidates", "rules", "relearn", "relearn, a bottleneck", "reinforce", "pretrain",
)  # fmt: skip


def refuse_to_read(monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    module = import_module(f"prefloop.methods.{command}")
    for reader in READERS:
        if hasattr(module, reader):
            monkeypatch.setattr(module, reader, lambda *given, **settings: pytest.fail("read"))


@pytest.mark.parametrize("name", NAMES)
def test_a_run_that_would_not_fit_is_refused_before_anything_is_loaded(tmp_path, monkeypatch, name):
    command, settings = settings_of(name)
    refuse_to_read(monkeypatch, command)
    cls, main = config_class(command)
    with pytest.raises(ConfigError, match=r"more memory than memory=1e-06 GiB(.|\n)*in MiB: weights 0(.|\n)*activations"):
        main(cls.of(**settings, memory=1e-6), Options(out=tmp_path / "run", device="cpu"))


@pytest.mark.parametrize("name", ["dpo", "kto", "rrhf", "rrhf, its own candidates", "rules", "relearn, a bottleneck", "pretrain"])
def test_the_nearest_setting_that_fits_is_named_and_let_in(tmp_path, monkeypatch, name):
    """On a machine with room for the run with an eighth of its tokens at once."""
    command, settings = settings_of(name)
    cls, main = config_class(command)
    seen: list[tuple[Any, ...]] = []
    monkeypatch.setattr(import_module(f"prefloop.methods.{command}"), "admit", lambda *given: seen.append(given) or {})
    main(cls.of(**settings), Options(out=tmp_path / "dry", device="cpu", dry_run=True))
    [(config, work, device, *shape)] = seen
    work = work._replace(rows=1 + 2048 // work.longest)  # so that tokens at once decide
    little = needs.with_settings(config, {"optim.micro_tokens": 256})
    room = needs.needs_of(little, work, *shape).total
    monkeypatch.setattr(needs, "free_memory", lambda device: room / needs.SLACK + 1)
    with pytest.raises(ConfigError, match=r"nearest settings that fit: optim\.micro_tokens=256\n"):
        needs.admit(config, work, device, *shape)
    assert sum(needs.admit(little, work, device, *shape).values()) >= room


WORK = {  # the longest row in tokens, and rows at once
    "sft": (PROMPT + ANSWER, 4),
    "ppo": (PROMPT + ANSWER - 1, 8),
    "reinforce": (PROMPT + 4 * (ANSWER - 1), 4),  # a prompt with its four answers
    "rrhf, its own candidates": (PROMPT + 4 * 5, 4),
    "rules": (PROMPT + 1 + ANSWER, 4),  # the rule stands before the prompt
    "pretrain": (16, 4),
}


@pytest.mark.parametrize("name", WORK)
def test_what_is_reckoned_with_is_the_largest_row_there_may_be(tmp_path, monkeypatch, name):
    command, settings = settings_of(name)
    cls, main = config_class(command)
    seen: list[Any] = []
    monkeypatch.setattr(import_module(f"prefloop.methods.{command}"), "admit", lambda *given: seen.append(given[1]) or {})
    main(cls.of(**settings), Options(out=tmp_path / "dry", device="cpu", dry_run=True))
    assert (seen[0].longest, seen[0].rows) == WORK[name]


def test_candidates_of_people_lengthen_a_row_and_their_scorer_is_held_all_along(tmp_path, monkeypatch):
    def told(name: str) -> tuple[Any, needs.Needs]:
        command, settings = settings_of(name)
        cls, main = config_class(command)
        seen: list[Any] = []
        monkeypatch.setattr(import_module("prefloop.methods.rrhf"), "admit", lambda *given: seen.append(given) or {})
        main(cls.of(**settings), Options(out=tmp_path / "dry", device="cpu", dry_run=True))
        return seen[0][1], needs.needs_of(*seen[0][:2])

    (own, mine), (both, ours), (given, theirs) = (
        told(f"rrhf, {kind}") for kind in ("its own candidates", "its own and given ones", "given candidates")
    )
    assert both.longest > own.longest and both.longest - given.longest == 4 * 5
    reward = 4 * shape_of(toy() / "reward" / "model").parameters
    assert [found.lasting["reward"] for found in (mine, ours, theirs)] == [reward] * 3
    assert mine.drawing["keys and values"] > 0 and theirs.drawing == {}


SKEWED = [[9, 2], [1, 3], [8, 7], [2, 2], [5, 9], [1, 1]]  # tokens of a pair's completions


def pairs(rng: torch.Generator) -> RankedBatch:
    completion = torch.randint(len(TOKENS), (len(SKEWED), 2, 9), generator=rng)
    return RankedBatch(
        prompt=torch.randint(len(TOKENS), (len(SKEWED), 12), generator=rng),
        prompt_length=torch.tensor([12, 3, 7, 12, 1, 5]),
        completion=completion,
        completion_length=torch.tensor(SKEWED),
        tier=torch.tensor([[0, 1]] * len(SKEWED)),
        is_candidate=torch.ones(len(SKEWED), 2, dtype=torch.bool),
        weight=torch.tensor([1, 5, 0.5, 2, 3, 1], dtype=torch.float64),
    )


@pytest.mark.parametrize("at_once", [1, 25, 60])
def test_tokens_at_once_do_not_move_the_gradient_of_skewed_pairs(at_once):
    """Of a reward model and of DPO, whatever the length of the parts; to the accuracy of transformers' norms, which is float32's."""
    batch = pairs(torch.Generator().manual_seed(0))
    referred = ReferredBatch(**vars(batch), ref_logprobs=torch.linspace(-9, -3, 12, dtype=torch.float64).view(6, 2))
    preferences = partial(of_preferences, config=DPOConfig(model="m", data="d"))
    reward = new_reward(toy() / "base", seed=0)
    for model, term in ((reward, Term(of_rankings, batch)), (toy_policy(), Term(preferences, referred))):
        gradients = []
        for limit in (0, at_once):
            learner = Learner(model.double(), lr=1e-3, steps=1, micro_tokens=limit, device="cpu")
            learner.accumulate(term, float(batch.weight.sum()), 0)
            gradients.append([p.grad for p in learner.trained.values()])
            learner.optimiser.zero_grad()
        assert len(list(micro_batches(batch, 1.0, tokens=at_once))) > 1
        for own, whole in zip(gradients[1], gradients[0], strict=True):
            assert_close(own.float(), whole.float())


def test_views_of_a_bottleneck_are_reckoned_as_whole_rows(tmp_path, monkeypatch):
    seen: list[Any] = []
    monkeypatch.setattr(import_module("prefloop.methods.relearn"), "admit", lambda *given: seen.append(given[1]) or {})
    for name in ("relearn", "relearn, a bottleneck"):
        command, settings = settings_of(name)
        cls, main = config_class(command)
        main(cls.of(**settings), Options(out=tmp_path / "dry", device="cpu", dry_run=True))
    plain, views = seen
    assert (plain.rows, views.rows) == (4, 6)
    assert views.longest == (2 + 3) * (PROMPT + ANSWER) > plain.longest
