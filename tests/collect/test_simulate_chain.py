"""The whole way: prompts of the world, answers of a model, people who answer over HTTP, a reward trained on what they said."""

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from prefloop.data.read import read_groups
from prefloop.models.load import save_model
from prefloop.models.tokenizer import new_llama
from prefloop.world import World
from tests.collect.server import Running
from tests.command_line import prefloop


def random_model(folder) -> None:
    """Random weights over the words of the world: it says nothing, in words."""
    words = sorted({word for line in World().corpus(60, seed=0) for word in line.split()})
    vocabulary = {word: index for index, word in enumerate(["<pad>", "<eos>", *words])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = {"pad_token": "<pad>", "eos_token": "<eos>", "unk_token": "<pad>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, **special, clean_up_tokenization_spaces=False)
    save_model(new_llama(tokenizer, width=16, layers=1, heads=2, kv_heads=2, context=128, seed=0), tokenizer, folder, card={})


def typed(*words) -> str:
    outcome = prefloop(*words)
    assert outcome.code == 0, outcome.err
    return outcome.out


def test_from_prompts_to_a_reward_by_people_who_answer_over_http(tmp_path):
    random_model(tmp_path / "model")
    typed("world", "prompts", "n=12", "--out", tmp_path / "prompts.jsonl")
    settings = (f"prompts={tmp_path}/prompts.jsonl", f"model={tmp_path}/model", "template=plain")
    typed("sample", *settings, "k=4", "max_new_tokens=8", "--out", tmp_path / "answers", "--device", "cpu")
    answers, data = tmp_path / "answers" / "completions.jsonl", ("--data", tmp_path / "service")
    typed("collect", "import", "first", answers, "--template", "instructgpt", "--overlap", "2", *data)
    running = Running(tmp_path / "service", f"sqlite:///{tmp_path}/service/collect.sqlite").start()
    try:
        said = typed("collect", "simulate", "first", "--annotators", "3", "--address", running.address, *data)
        again = typed("collect", "simulate", "first", "--annotators", "3", "--address", running.address, *data)
    finally:
        running.stop()
    assert said.splitlines()[-1] == "24 judgments" and said.startswith("sim:0: ")  # 12 prompts, two judgments of each
    assert again.splitlines()[-1] == "0 judgments"
    assert "sim:2: annotator of first" in typed("collect", "user", "list", *data)
    exported = typed("collect", "export", "first", "--out", tmp_path / "rankings", *data)
    assert exported.startswith("wrote 24 judgments of 12 items")
    judged = read_groups(tmp_path / "rankings" / "kway.jsonl").records
    assert {ranking.annotator for group in judged for ranking in group.rankings} <= {"sim:0", "sim:1", "sim:2"}
    assert all(len({ranking.annotator for ranking in group.rankings}) == 2 for group in judged)
    assert {completion.source.partition(":")[0] for group in judged for completion in group.completions} == {"policy"}
    asked = ("epochs=1", "held_out=0.2", "template=plain")
    typed("reward", f"data={tmp_path}/rankings/kway.jsonl", f"model={tmp_path}/model", *asked, "--out", tmp_path / "reward", "--device", "cpu")  # fmt: skip
    assert (tmp_path / "reward" / "model").is_dir()
