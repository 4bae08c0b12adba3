"""Relations of two answers behind one callable. The models are tiny and random: what is tested is who is asked what, and how."""

import json
from collections.abc import Iterator
from itertools import permutations

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertForSequenceClassification, BertModel, PreTrainedTokenizerFast

from prefloop.errors import ConfigError, DataError
from prefloop.models.meaning import embeddings, label_of_pairs, load_meaning, loaded
from prefloop.records import Prompt
from prefloop.stats.clusters import clusters
from tests.helpers import assert_close

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "cat", "dog", "sat", "ran", "home", "yes", "no", "why", "?"]
TEXTS = ["the cat sat", "the dog ran home", "yes", "no", "the cat ran home", "why", "cat", "dog dog dog sat"]
LABELS = ("contradiction", "neutral", "ENTAILMENT")
PROMPT = Prompt.of("why ?")


def write_bert(folder, labels=LABELS, *, seed=9, head=True, context=32):
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = [("[CLS]", 2), ("[SEP]", 3)]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=special
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    ).save_pretrained(folder)
    settings = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    names = {"id2label": dict(enumerate(labels)), "label2id": {label: i for i, label in enumerate(labels)}}
    config = BertConfig(
        vocab_size=len(WORDS), max_position_embeddings=context, initializer_range=1.0, num_labels=len(labels), **settings, **names
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        (BertForSequenceClassification if head else BertModel)(config).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def nli(tmp_path_factory) -> str:
    return write_bert(tmp_path_factory.mktemp("models") / "nli")


@pytest.fixture(scope="module")
def asked_alone(nli) -> Iterator[dict[tuple[str, str], str]]:
    """What the model says of every pair, one at a time and without padding, the prompt before each text."""
    model, tokenizer = loaded(BertForSequenceClassification, nli, "cpu")
    told = {}
    with torch.no_grad():
        for first, second in permutations(TEXTS, 2):
            row = tokenizer(f"why ? {first}", f"why ? {second}", return_tensors="pt")
            told[first, second] = LABELS[int(model(**row).logits.argmax())]
    yield told


def test_the_random_model_says_every_label_so_that_the_tests_below_can_fail(asked_alone):
    assert set(asked_alone.values()) == set(LABELS)
    both_ways = [asked_alone[pair] == asked_alone[pair[::-1]] == "ENTAILMENT" for pair in asked_alone]
    one_way = [(asked_alone[pair] == "ENTAILMENT") != (asked_alone[pair[::-1]] == "ENTAILMENT") for pair in asked_alone]
    assert any(both_ways) and any(one_way)


@pytest.mark.parametrize("batch_rows", [64, 5])
def test_two_answers_mean_the_same_where_each_entails_the_other(nli, asked_alone, batch_rows):
    same = load_meaning(f"nli:{nli}", batch_rows=batch_rows)(PROMPT, TEXTS)
    for pair, label in asked_alone.items():
        assert same(*pair) == (label == "ENTAILMENT" and asked_alone[pair[::-1]] == "ENTAILMENT"), pair
    assert clusters(TEXTS, same).n == len(TEXTS)


def test_looser_they_are_the_same_where_neither_way_is_a_contradiction(nli, asked_alone):
    same = load_meaning(f"uncontradicted:{nli}")(PROMPT, TEXTS)
    for pair in asked_alone:
        assert same(*pair) == ("contradiction" not in (asked_alone[pair], asked_alone[pair[::-1]])), pair


def test_the_prompt_is_read_before_each_answer_or_left_out(nli):
    model, tokenizer = loaded(BertForSequenceClassification, nli, "cpu")
    pairs = list(permutations(TEXTS, 2))
    alone = dict(zip(pairs, label_of_pairs(model, tokenizer, pairs, 64), strict=True))
    without = load_meaning(f"nli:{nli}", with_prompt=False)(PROMPT, TEXTS)
    assert all(without(*pair) == (alone[pair] == alone[pair[::-1]] == 2) for pair in pairs)
    with_it = load_meaning(f"nli:{nli}")(PROMPT, TEXTS)
    assert [with_it(*pair) for pair in pairs] != [without(*pair) for pair in pairs]


def test_embeddings_are_means_over_the_tokens_of_a_text_whatever_stands_beside_it(tmp_path):
    folder = write_bert(tmp_path / "bert", head=False)
    model, tokenizer = loaded(BertModel, folder, "cpu")
    with torch.no_grad():
        expected = [model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(0) for text in TEXTS]
    assert_close(embeddings(model, tokenizer, TEXTS, 3), torch.stack(expected))

    unit = torch.nn.functional.normalize(torch.stack(expected).double(), dim=-1)
    cosine = unit @ unit.T
    threshold = float(cosine[~torch.eye(len(TEXTS), dtype=torch.bool)].median()) + 1e-3
    same = load_meaning(f"embedding:{folder}", threshold=threshold, with_prompt=False)(PROMPT, TEXTS)
    told = [same(first, second) for first, second in permutations(TEXTS, 2)]
    assert told == [bool(cosine[i, j] >= threshold) for i, j in permutations(range(len(TEXTS)), 2)]
    assert set(told) == {True, False}


def test_words_and_the_world_need_no_model():
    assert load_meaning("words")(PROMPT, ["Yes.", "yes"])("Yes.", "yes")
    same = load_meaning("world:en")(PROMPT, [])
    assert same("We are sorry. We will mend it.", "I am sorry. Gladly! We can send one.") and not same(
        "We are sorry.", "Three fruits."
    )


@pytest.mark.parametrize("spec", ["nli", "nli:", "embedding:", "meaning:x", "cosine"])
def test_what_names_no_relation_is_refused(spec):
    with pytest.raises(ConfigError, match="is no equivalence of two texts\n  use words, world:LANGUAGE, embedding:MODEL"):
        load_meaning(spec)


@pytest.mark.parametrize(
    "labels", [("LABEL_0", "LABEL_1", "LABEL_2"), ("neutral", "not_entailment"), ("entailment", "entailment?")]
)
def test_a_classifier_that_does_not_call_one_label_entailment_is_refused(tmp_path, labels):
    folder = write_bert(tmp_path / "other", labels)
    with pytest.raises(DataError, match=r"same = nli needs one label that is called entailment\n  name a model of natural"):
        load_meaning(f"nli:{folder}")


def test_two_labels_are_enough_for_entailment(tmp_path):
    folder = write_bert(tmp_path / "two", ("entailment", "not_entailment"))
    same = load_meaning(f"nli:{folder}")(PROMPT, TEXTS)
    assert {same(*pair) for pair in permutations(TEXTS, 2)} == {True, False}
    with pytest.raises(DataError, match="called contradiction"):
        load_meaning(f"uncontradicted:{folder}")


def test_models_that_cannot_judge_are_refused_by_name(tmp_path):
    headless = write_bert(tmp_path / "headless", head=False)
    with pytest.raises(DataError, match=r"lacks weights that are needed here: classifier\.bias, classifier\.weight"):
        load_meaning(f"nli:{headless}")
    with pytest.raises(DataError, match="there is no model folder"):
        load_meaning(f"nli:{tmp_path / 'nowhere' / 'model'}")
    (tmp_path / "headless" / "tokenizer.json").unlink()
    with pytest.raises(DataError, match="has no tokenizer"):
        load_meaning(f"embedding:{headless}")
    short = write_bert(tmp_path / "short", context=8)
    with pytest.raises(DataError, match=r"two answers together are 15 tokens long, and .* reads 8"):
        load_meaning(f"nli:{short}")(PROMPT, ["the dog ran home", "the cat ran home"])


def test_a_tokenizer_that_cannot_pad_is_refused(tmp_path):
    folder = write_bert(tmp_path / "bert")
    file = tmp_path / "bert" / "tokenizer_config.json"
    file.write_text(json.dumps({key: value for key, value in json.loads(file.read_text()).items() if key != "pad_token"}))
    with pytest.raises(DataError, match="has no padding token"):
        load_meaning(f"nli:{folder}")
