"""Tokenizers and models from scratch, and the tokenizers of others."""

import math

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from prefloop.errors import ConfigError, DataError
from prefloop.models.tokenizer import EOS, PAD, load_tokenizer, new_llama, train_tokenizer
from tests.helpers import assert_close
from tests.models.tiny import LINES


def byte_level(folder, **special) -> None:
    """A tokenizer in GPT-2's manner: bytes, one special token, no padding token unless given."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=280, special_tokens=["<|end|>"], initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator(LINES, trainer)
    PreTrainedTokenizerFast(tokenizer_object=backend, clean_up_tokenization_spaces=False, **special).save_pretrained(str(folder))


def test_the_same_lines_give_the_same_tokenizer(tmp_path):
    for name in ("a", "b"):
        train_tokenizer(LINES, vocab_size=290, folder=tmp_path / name)
    files = [(tmp_path / name / "tokenizer.json").read_bytes() for name in ("a", "b")]
    assert files[0] == files[1]


def test_a_saved_tokenizer_is_read_back_by_transformers_as_it_was(tmp_path):
    made = train_tokenizer(LINES, vocab_size=290, folder=tmp_path)
    new_llama(made, width=16, layers=1, heads=2, kv_heads=1, context=32, seed=0).save_pretrained(tmp_path)
    text = "once upon a time: 12 + 34 = 46, ĉ 東京 <|user|>"
    for read in (AutoTokenizer.from_pretrained(str(tmp_path)), load_tokenizer(tmp_path)):
        assert read(text)["input_ids"] == made(text)["input_ids"]
        assert (read.pad_token, read.eos_token) == (PAD, EOS)
        assert read.apply_chat_template(TURNS, tokenize=False) == made.apply_chat_template(TURNS, tokenize=False)


TURNS = [{"role": "user", "content": "why?"}, {"role": "assistant", "content": "so."}]


def test_the_template_is_roles_contents_and_an_end_after_each_answer():
    tokenizer = train_tokenizer(LINES, vocab_size=290)
    assert tokenizer.apply_chat_template(TURNS, tokenize=False) == "<|user|>why?<|assistant|>so.<|eos|>"
    asked = [{"role": "system", "content": "be kind"}, *TURNS, TURNS[0]]
    rendered = tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
    assert rendered == "<|system|>be kind<|user|>why?<|assistant|>so.<|eos|><|user|>why?<|assistant|>"


def test_digits_are_tokens_of_their_own():
    tokenizer = train_tokenizer(["12 + 34 = 46"] * 50, vocab_size=280)
    tokens = tokenizer.convert_ids_to_tokens(tokenizer("12 + 34 = 46")["input_ids"])
    assert [token for token in tokens if any(letter.isdigit() for letter in token)] == list("123446")


def test_a_vocabulary_smaller_than_its_bytes_is_refused():
    with pytest.raises(ConfigError, match="give 262 or more"):
        train_tokenizer(LINES, vocab_size=200)


# ------------------------------------------------------------------------------------------------ padding and ends


def test_a_tokenizer_without_padding_pads_with_a_byte_that_no_text_holds(tmp_path):
    byte_level(tmp_path, eos_token="<|end|>")
    before = PreTrainedTokenizerFast.from_pretrained(str(tmp_path))
    tokenizer = load_tokenizer(tmp_path)
    assert len(tokenizer) == len(before)
    assert tokenizer.pad_token_id == before.convert_tokens_to_ids(chr(0xFF))
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    assert tokenizer.pad_token_id not in tokenizer("".join(map(chr, range(1, 0x250))).replace(chr(0xFF), ""))["input_ids"]


def test_padding_that_is_the_end_is_replaced_too(tmp_path):
    byte_level(tmp_path, eos_token="<|end|>", pad_token="<|end|>")
    assert load_tokenizer(tmp_path).pad_token_id != load_tokenizer(tmp_path).eos_token_id


@pytest.mark.parametrize(
    ("vocabulary", "pad"),
    [(["<s>", "</s>", "<unk>", "a"], "<unk>"), (["</s>", "a", "[PAD]", "<unk>"], "[PAD]"), (["</s>", "a"], "</s>")],
)
def test_a_reserved_token_or_the_unknown_one_pads_before_the_end_does(tmp_path, vocabulary, pad):
    unknown = "<unk>" if "<unk>" in vocabulary else None
    backend = Tokenizer(models.WordLevel({token: index for index, token in enumerate(vocabulary)}, unk_token=unknown or "a"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>", unk_token=unknown).save_pretrained(str(tmp_path))
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.pad_token == pad
    assert len(tokenizer) == len(vocabulary)


def test_a_tokenizer_without_an_end_is_refused_with_the_line_that_mends_it(tmp_path):
    byte_level(tmp_path)
    with pytest.raises(DataError, match="no end-of-sequence token") as refusal:
        load_tokenizer(tmp_path)
    assert "set eos_token in tokenizer_config.json" in str(refusal.value)


def test_a_folder_without_a_tokenizer_is_named_with_what_it_holds(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(DataError, match=r"has no tokenizer\n  found: config.json"):
        load_tokenizer(tmp_path)


def test_a_torn_tokenizer_is_explained(tmp_path):
    train_tokenizer(LINES, vocab_size=290, folder=tmp_path)
    torn = (tmp_path / "tokenizer.json").read_text()[:500]
    (tmp_path / "tokenizer.json").write_text(torn)
    with pytest.raises(DataError, match="cannot be read"):
        load_tokenizer(tmp_path)


# ------------------------------------------------------------------------------------------------ new models


def test_a_new_model_is_a_function_of_its_seed_and_leaves_the_global_stream_alone():
    tokenizer = train_tokenizer(LINES, vocab_size=290)
    make = lambda seed: new_llama(tokenizer, width=16, layers=1, heads=2, kv_heads=1, context=32, seed=seed)  # noqa: E731
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = make(1)
    assert torch.equal(torch.rand(3), expected)
    torch.rand(100)
    again, other = make(1), make(2)
    pairs = list(zip(first.parameters(), again.parameters(), other.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b, _ in pairs)
    assert any(not torch.equal(a, c) for a, _, c in pairs)


def test_a_new_model_is_untrained_and_tied_and_an_ordinary_folder(tmp_path):
    tokenizer = train_tokenizer(LINES, vocab_size=290, folder=tmp_path)
    model = new_llama(tokenizer, width=32, layers=2, heads=4, kv_heads=2, context=64, seed=0)
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    tokens = torch.randint(0, len(tokenizer), (4, 20), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        said = model(tokens).logits.log_softmax(-1)
    assert abs(float(said.mean()) + math.log(len(tokenizer))) < 0.05
    model.save_pretrained(tmp_path)
    with torch.no_grad():
        assert_close(AutoModelForCausalLM.from_pretrained(tmp_path)(tokens).logits.log_softmax(-1), said)


@pytest.mark.parametrize(("width", "heads", "kv_heads"), [(30, 4, 4), (12, 4, 4), (32, 4, 3)])
def test_a_shape_no_llama_has_is_refused(width, heads, kv_heads):
    tokenizer = train_tokenizer(LINES, vocab_size=290)
    with pytest.raises(ConfigError, match=f"no Llama has width {width}, {heads} heads and {kv_heads} key-value heads"):
        new_llama(tokenizer, width=width, layers=1, heads=heads, kv_heads=kv_heads, context=32, seed=0)
