"""The converted model against llama2.c's own arithmetic, written out here as run.c has it, and against what it should know."""

import gzip
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from prefloop.models.encode import Encoder
from prefloop.models.heads import policy_logprobs
from prefloop.models.load import count_parameters, load_policy, load_tokenizer, new_reward
from prefloop.models.sampling import sample
from prefloop.records import Prompt
from tests.conftest import data_folder
from tests.helpers import assert_close
from tests.models.stories260k import BEGIN, Shape, convert, read_pieces, read_weights

pytestmark = pytest.mark.data

SOURCE = data_folder() / "models" / "stories260k"


class Converted(NamedTuple):
    folder: Path
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    encoder: Encoder


@pytest.fixture(scope="module")
def stories(tmp_path_factory) -> Converted:
    folder = convert(SOURCE, tmp_path_factory.mktemp("models") / "stories260k")
    tokenizer = load_tokenizer(folder)
    return Converted(folder, load_policy(folder), tokenizer, Encoder(tokenizer, template="plain"))  # type: ignore[arg-type]


@cache
def told() -> list[list[str]]:
    """The stories of part_a, each a list of paragraphs."""
    with gzip.open(data_folder() / "tinystories" / "part_a.txt.gz", "rt", encoding="utf-8") as file:
        return [story.strip().splitlines() for story in file.read().split("<|endoftext|>")]


def paragraphs() -> list[str]:
    return [paragraph for story in told() for paragraph in story]


# --- run.c ----------------------------------------------------------------------------------------------------------------


def ids_of_run_c(text: str, pieces: list[tuple[str, float]]) -> list[int]:
    """encode() of run.c without <s>: a space in front, characters or their bytes, and the best merge as long as there is one."""
    place = {piece: i for i, (piece, _) in reversed(list(enumerate(pieces)))}
    ids = []
    for character in " " + text if text else "":
        ids += [place[character]] if character in place else [byte + 3 for byte in character.encode()]
    while True:
        merged = [place.get(pieces[a][0] + pieces[b][0]) for a, b in pairwise(ids)]
        found = [(pieces[piece][1], -i) for i, piece in enumerate(merged) if piece is not None]
        if not found:
            return ids
        i = -max(found)[1]  # the best score, and of equals the leftmost
        ids[i : i + 2] = [merged[i]]


def normal(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    return x / np.sqrt((x * x).mean() + 1e-5) * weight


def turned(x: np.ndarray, position: int) -> np.ndarray:
    """H D, each pair of neighbours by an angle that falls with its number."""
    width = x.shape[1]
    angle = position / 10000 ** (np.arange(0, width, 2) / width)
    even, odd = x[:, 0::2], x[:, 1::2]
    result = np.empty_like(x)
    result[:, 0::2], result[:, 1::2] = even * np.cos(angle) - odd * np.sin(angle), even * np.sin(angle) + odd * np.cos(angle)
    return result


def logits_of_run_c(shape: Shape, weights: dict[str, np.ndarray], tokens: list[int]) -> np.ndarray:
    """forward() of run.c, a token at a time, in double precision: T V."""
    w = {name: matrix.astype(np.float64) for name, matrix in weights.items()}
    keys, values = ([[] for _ in range(shape.layers)] for _ in range(2))
    logits = []
    for position, token in enumerate(tokens):
        x = w["token_embedding"][token]
        for layer in range(shape.layers):
            h = normal(x, w["rms_att"][layer])
            query = turned((w["wq"][layer] @ h).reshape(shape.heads, -1), position)
            keys[layer].append(turned((w["wk"][layer] @ h).reshape(shape.kv_heads, -1), position))
            values[layer].append((w["wv"][layer] @ h).reshape(shape.kv_heads, -1))
            heads = []
            for head in range(shape.heads):
                shared = head * shape.kv_heads // shape.heads
                score = np.array([query[head] @ key[shared] for key in keys[layer]]) / np.sqrt(shape.head_width)
                share = np.exp(score - score.max()) / np.exp(score - score.max()).sum()
                heads.append(share @ np.array([value[shared] for value in values[layer]]))
            x = x + w["wo"][layer] @ np.concatenate(heads)
            h = normal(x, w["rms_ffn"][layer])
            gate, up = w["w1"][layer] @ h, w["w3"][layer] @ h
            x = x + w["w2"][layer] @ (gate / (1 + np.exp(-gate)) * up)
        logits.append(w["token_embedding"] @ normal(x, w["rms_final"]))  # tied
    return np.array(logits)


# --- the model --------------------------------------------------------------------------------------------------------------


def test_the_logits_are_those_of_llama2_c(stories):
    tokens = stories.encoder.prompt_ids(Prompt.of("Once upon a time, there was a little girl named Lily."))
    assert len(tokens) == 16  # several positions, so that a wrong turn of queries and keys shows
    expected = logits_of_run_c(*read_weights(SOURCE / "stories260K.bin"), tokens)
    double = load_policy(stories.folder, dtype="float64")
    with torch.no_grad():
        said = double(input_ids=torch.tensor([tokens])).logits[0]
    assert_close(said.float(), expected)


def test_the_embedding_is_the_output_layer_too_and_is_counted_once(stories):
    assert stories.model.lm_head.weight is stories.model.model.embed_tokens.weight
    attention, inner = 64 * (64 + 32 + 32 + 64), 3 * 64 * 172
    assert count_parameters(stories.model) == 512 * 64 + 5 * (attention + inner + 2 * 64) + 64 == 260_032


def test_a_paragraph_from_within_a_story_costs_less_than_two_nats_a_token_and_one_a_character(stories):
    shown = [story[1] for story in told() if len(story) > 2 and len(story[1]) > 100][:20]
    tokens, length = stories.encoder.text_batch([stories.encoder.prompt_ids(Prompt.of(text)) for text in shown])
    wanted = (torch.arange(tokens.shape[1])[None, :] < length[:, None]) & (torch.arange(tokens.shape[1]) > 0)
    with torch.no_grad():
        nats = -policy_logprobs(stories.model, tokens, wanted, temperature=1.0).sum()
    assert 1.4 < float(nats / wanted.sum()) < 1.9  # untrained: log 512 = 6.2
    assert 0.7 < float(nats) / sum(map(len, shown)) < 1.0


def test_the_likeliest_story_reads_like_one(stories):
    samples = sample(stories.model, stories.encoder, [Prompt.of("Once upon a time")], k=1, max_new_tokens=60, greedy=True, seed=0)
    said = samples.completions[0].text
    words = said.split()
    known = {word for text in paragraphs() for word in text.split()}
    assert said.startswith(", there was a little ")
    assert len(words) > 25 and sum(word in known for word in words[:-1]) >= 0.95 * (len(words) - 1)


def test_a_story_ends_with_the_token_that_begins_one(stories):
    ends = []
    for story in told()[:10]:
        tokens = stories.encoder.prompt_ids(Prompt.of("\n".join(story)))
        with torch.no_grad():
            ends.append(stories.model(input_ids=torch.tensor([tokens])).logits[0].softmax(-1))
    assert stories.encoder.end == stories.tokenizer.eos_token_id == 1
    assert sum(chance[-1, 1] for chance in ends) / len(ends) > 0.5
    assert sum(chance[: len(chance) // 2, 1].mean() for chance in ends) / len(ends) < 0.01
    assert max(chance[:, 2].max() for chance in ends) < 1e-6  # </s>, which nothing was trained with


def test_a_reward_model_can_start_from_it(stories):
    assert new_reward(stories.folder, seed=0).config.pad_token_id == 0 != stories.tokenizer.eos_token_id


# --- the tokenizer ------------------------------------------------------------------------------------------------------------


@cache
def pieces() -> list[tuple[str, float]]:
    return read_pieces(SOURCE / "tok512.bin")


def plain_ids(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]


def test_real_stories_are_cut_as_llama2_c_cuts_them(stories):
    for text in paragraphs()[::300]:
        assert plain_ids(stories.tokenizer, text) == ids_of_run_c(text, pieces())
        assert stories.tokenizer(text)["input_ids"] == [1, *ids_of_run_c(text, pieces())]


FAMILIAR = st.text(st.sampled_from("aehilnorstdwLT ,.!\n\"'é™狗"), max_size=40)


@given(text=st.one_of(FAMILIAR, st.text(st.characters(exclude_categories=["Cs"]), max_size=20)))
def test_any_text_is_cut_as_llama2_c_cuts_it(text, stories):
    assert plain_ids(stories.tokenizer, text) == ids_of_run_c(text, pieces())


@given(first=FAMILIAR, second=FAMILIAR)
def test_text_survives_the_way_there_and_back(first, second, stories):
    assert stories.tokenizer.decode(plain_ids(stories.tokenizer, first), clean_up_tokenization_spaces=False) == first
    answer = stories.encoder.completion_ids(second)
    assert answer[-1] == 1 and stories.encoder.decode(answer) == second
    goes_on = stories.encoder.prompt_ids(Prompt.of(first or "x")) + answer[:-1]
    assert stories.tokenizer.decode(goes_on[1:], clean_up_tokenization_spaces=False) == (first or "x") + second


def test_a_control_token_written_out_is_text(stories):
    ids = plain_ids(stories.tokenizer, f"a{BEGIN}")
    assert 1 not in ids and stories.tokenizer.decode(ids) == f"a{BEGIN}"
