import re
import statistics

import pytest

from prefloop.world import World
from prefloop.world.corpus import SHARES
from prefloop.world.draws import generator
from prefloop.world.prompts import read_request, split_of
from prefloop.world.skills import SKILLS, SkillItem, is_held_out, skill_line

WORLDS = [World(language="en"), World(language="zh")]
languages = pytest.mark.parametrize("world", WORLDS, ids=["en", "zh"])
CHAT = re.compile(r"<\|user\|>(.*)<\|assistant\|>(.*)")
ITEM = re.compile(r"((?:sum|spell|turn): [^=]+ =) ([^.]+)\.")


@languages
def test_the_corpus_holds_training_prompts_only(world):
    asked = [found[1] for line in world.corpus(2000, seed=100) if (found := CHAT.fullmatch(line))]
    assert len(asked) > 700
    assert {split_of(text) for text in asked} == {"train"}
    assert all(read_request(world.language, text).family != "other" for text in asked)


@languages
def test_the_corpus_mixes_conversations_sentences_and_skills_in_the_stated_shares(world):
    lines = world.corpus(2000, seed=100)
    counted = {
        "chat": sum(bool(CHAT.fullmatch(line)) for line in lines),
        "skills": sum(bool(ITEM.match(line)) for line in lines),
    }
    for kind, count in counted.items():
        share = SHARES[kind]
        assert abs(count - 2000 * share) < 4 * (2000 * share * (1 - share)) ** 0.5


def test_no_held_out_skill_item_is_in_the_corpus():
    items = [SkillItem(*found) for line in WORLDS[0].corpus(3000, seed=100) for found in ITEM.findall(line)]
    assert len(items) > 1200
    assert not any(is_held_out(item) for item in items)


def test_a_longer_corpus_begins_with_the_shorter_one_and_seeds_differ():
    world = WORLDS[0]
    assert world.corpus(50, seed=100) == world.corpus(200, seed=100)[:50]
    assert len(set(world.corpus(200, seed=100)) & set(world.corpus(200, seed=101))) < 40


def test_a_document_is_one_line():
    assert all(line and line == line.strip() and "\n" not in line for line in WORLDS[0].corpus(1000, seed=100))


def test_facts_outside_of_conversations_are_true_and_all_there():
    language = WORLDS[0].language
    told = {(creature, name): set() for creature in language.facts for name in language.attributes}
    for line in WORLDS[0].corpus(3000, seed=100):
        if "<|user|>" in line:
            continue
        for creature, first, second in re.findall(
            r"(?:The|A) (\w+) (eats \w+|lives in the \w+|looks \w+|loves \w+) and (?:it )?(.*?)\.", line
        ):
            for statement in (first, second):
                name = next(name for name, template in language.statements.items() if statement.startswith(template.split()[0]))
                told[creature, name].add(statement.split()[-1])
    assert told == {(creature, name): {language.facts[creature][name]} for creature, name in told}


def test_no_two_creatures_share_two_facts():
    for world in WORLDS:
        facts = list(world.language.facts.values())
        for row, one in enumerate(facts):
            assert all(sum(one[name] == other[name] for name in one) <= 1 for other in facts[:row])


@languages
def test_no_prompt_asks_for_a_skill(world):
    for prompt in world.prompts(800, split="train", seed=100):
        assert not re.search(r"sum|spell|turn|\d|[+=]", prompt.text)


@languages
def test_demonstrations_are_of_mixed_quality(world):
    demonstrations = world.demonstrations(400, seed=100)
    values = [world.gold(one.prompt, one.completion.text) for one in demonstrations]
    assert 0.9 < statistics.mean(values) < 1.6
    assert statistics.pstdev(values) > 1
    assert sum(value < 0.5 for value in values) > 40


@languages
def test_three_markers_of_warmth_are_rare_in_demonstrations(world):
    terms = [world.gold_terms(one.prompt, one.completion.text)["warmth"] for one in world.demonstrations(1000, seed=100)]
    assert 0 < sum(term < 0 for term in terms) < 0.03 * 1000


def test_demonstrations_follow_their_split_and_name_their_source():
    for one in WORLDS[0].demonstrations(50, seed=100, split="validation"):
        assert split_of(one.prompt.text) == "validation"
        assert one.completion.prompt_id == one.prompt.id
        assert one.completion.source == "dataset:world"


@pytest.mark.parametrize("name", SKILLS)
def test_skill_items_are_held_out_right_and_distinct(name):
    items = WORLDS[0].skill_items(name, 200, seed=100)
    assert len({item.prompt for item in items}) == len(items) >= 20
    for item in items:
        assert is_held_out(item)
        asked = item.prompt.partition(": ")[2].removesuffix(" =")
        right = {
            "sums": lambda text: str(sum(map(int, text.split(" + ")))),
            "spelling": lambda text: " ".join(text),
            "turning": lambda text: " ".join(text.split()[::-1]),
        }
        assert item.answer == right[name](asked)


def test_about_one_skill_item_in_six_is_held_out():
    sums = {f"sum: {a} + {b} =" for a in range(11) for b in range(11)}
    n = sum(is_held_out(SkillItem(prompt, "")) for prompt in sums)
    assert abs(n - len(sums) / 6) < 4 * (len(sums) * 5 / 36) ** 0.5


def test_an_item_is_solved_by_its_answer_and_a_full_stop_whatever_follows():
    item = SkillItem("sum: 3 + 4 =", "7")
    assert item.is_solved_by(" 7. sum: 1 + 1 = 2.")
    assert item.is_solved_by(" 7")
    assert not item.is_solved_by(" 70.")
    assert not item.is_solved_by("")


def test_a_line_of_a_skill_holds_whole_items():
    for name in SKILLS:
        line = skill_line(name, generator("test", name))
        assert ITEM.sub("", line).strip() == ""
