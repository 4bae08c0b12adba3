import hashlib
import json
import subprocess
import sys

import pytest

from prefloop.errors import ConfigError, DataError
from prefloop.world import World
from prefloop.world.languages import LANGUAGES
from tests.world.helpers import groups_of

# What version 1 says, hashed. A change here makes every published figure incomparable: give the world a new version instead.
FROZEN = {
    "en": "9609bae3a8e26276",
    "zh": "34b1d0ac885b52f8",
}


def fingerprint(language: str) -> str:
    """A hash of a sample of everything the world produces."""
    world = World(version=1, language=language)
    groups = world.annotate(groups_of(world, 40, 3), seed=100)
    said = [
        [prompt.text for prompt in world.prompts(200, split="train", seed=100)],
        world.corpus(300, seed=100),
        [(one.prompt.text, one.completion.text) for one in world.demonstrations(100, seed=100)],
        [(item.prompt, item.answer) for name in World.SKILLS for item in world.skill_items(name, 20, seed=100)],
        [[round(world.gold(group.prompt, completion.text), 9) for completion in group.completions] for group in groups],
        [group.rankings[0].model_dump(mode="json") for group in groups],
    ]
    return hashlib.sha256(json.dumps(said, ensure_ascii=False).encode()).hexdigest()[:16]


@pytest.mark.parametrize("language", LANGUAGES)
def test_version_one_is_frozen(language):
    assert fingerprint(language) == FROZEN[language]


def test_another_process_with_another_hash_seed_says_the_same():
    code = "from tests.world.test_world import fingerprint; print(fingerprint('en'))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": "7"})
    assert run.stdout.strip() == fingerprint("en")


def test_the_world_needs_no_torch():
    code = "import sys, prefloop.world; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_unknown_versions_languages_and_skills_are_refused_with_what_there_is():
    with pytest.raises(ConfigError, match="no version 99; there is 1"):
        World(version=99)
    with pytest.raises(ConfigError, match="it speaks en, zh"):
        World(language="fr")
    with pytest.raises(DataError, match="sums, spelling, turning"):
        World().skill_items("juggling", 1, seed=0)
