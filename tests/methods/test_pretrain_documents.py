"""Whole conversations as pretraining text: which of them, and as which tokens."""

import pytest

from prefloop.config import Options
from prefloop.data.read import read_groups
from prefloop.data.write import split_by_prompt, write_groups
from prefloop.errors import ConfigError
from prefloop.methods.pretrain import PretrainConfig, main, packed, read_documents, texts
from prefloop.records import Completion, Group, Message, Prompt, Ranking
from tests.models.tiny import encoder


def ranked(i: int) -> Group:
    prompt = Prompt(messages=(Message(role="user", content=f"question {i}"),))
    completions = tuple(Completion.of(prompt, f"{word} answer {i}") for word in ("good", "bad"))
    ids = tuple(completion.id for completion in completions)
    said = Ranking(prompt_id=prompt.id, tiers=((ids[0],), (ids[1],)), shown=ids, annotator="x")
    return Group(prompt=prompt, completions=completions, rankings=(said,))


@pytest.fixture
def rankings(tmp_path) -> str:
    write_groups(tmp_path / "rankings.jsonl", [ranked(i) for i in range(60)])
    return str(tmp_path / "rankings.jsonl")


def config(rankings: str, **settings) -> PretrainConfig:
    return PretrainConfig.of(data=rankings, held_out=0.3, seed=5, **settings)


def test_the_prompts_held_out_are_those_that_a_reward_model_with_this_seed_holds_out(rankings):
    documents = read_documents(config(rankings))
    train, held_out = split_by_prompt(read_groups(rankings).records, held_out=0.3, seed=5)
    assert [one.prompt.id for one in documents.train] == [group.prompt.id for group in train]  # type: ignore[union-attr]
    assert [one.prompt.id for one in documents.held_out] == [group.prompt.id for group in held_out]  # type: ignore[union-attr]


def test_the_best_answer_is_learned_or_all_of_them(rankings):
    best, every = (list(texts(read_documents(config(rankings, answers=which)).train)) for which in ("best", "all"))
    assert not any("bad" in text for text in best) and any("good" in text for text in best)
    assert sorted(text for text in every if "bad" in text) == sorted(
        text.replace("good", "bad") for text in best if "good" in text
    )


def test_a_conversation_becomes_the_tokens_that_a_reward_model_reads(rankings):
    for template in ("chat", "dialogue", "plain"):
        read = encoder(template=template)
        (first, *_) = documents = read_documents(config(rankings)).train
        batch = packed(read, documents, config(rankings, block=200))
        expected = read.conversations([first.prompt], [first.completion.text])[0]  # type: ignore[union-attr]
        row = batch.tokens[0].tolist()
        start = 0 if read.begin else 1  # a text without BOS is led in by EOS
        assert row[start : start + len(expected)] == expected
        assert row[: start + len(expected) + 1].count(read.tokenizer.eos_token_id) == start + 1  # one end, not two


def test_text_and_conversations_exclude_each_other():
    with pytest.raises(ConfigError, match="give text or data, one of the two"):
        PretrainConfig.of(text="a.txt", data="b.jsonl")
    with pytest.raises(ConfigError, match="give text or data, one of the two"):
        PretrainConfig.of()


def test_a_model_is_trained_on_conversations(rankings, tmp_path):
    small = {"vocabulary": 300, "width": 16, "heads": 2, "layers": 1, "steps": 2, "batch": 2, "block": 16, "context": 32}
    summary = main(config(rankings, **small), Options(out=tmp_path / "run", device="cpu"))
    assert summary["validation_blocks"] > 0 and (tmp_path / "run" / "model" / "model.safetensors").is_file()
