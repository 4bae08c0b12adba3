"""Plain text: which lines are held out, and that neither the tokenizer nor the model has seen them."""

import pytest

from prefloop.config import Options
from prefloop.errors import DataError
from prefloop.methods import pretrain
from prefloop.methods.pretrain import PretrainConfig, main, read_documents, split_lines

SMALL = {"vocabulary": 300, "width": 16, "heads": 2, "layers": 1, "steps": 1, "batch": 2, "block": 16, "context": 32}


@pytest.mark.parametrize("share", [0.01, 0.1, 0.25, 0.4, 0.5, 0.7, 0.89])
def test_held_out_lines_are_the_share_asked_for_spread_evenly_and_none_of_them_is_learned(share):
    lines = [f"line {i}" for i in range(1000)]
    train, held_out = split_lines(lines, share)
    assert not set(train) & set(held_out)
    assert sorted(train + held_out) == sorted(lines)
    assert len(held_out) == round(share * 1000)
    for first in range(0, 1000, 100):
        assert len(set(lines[first : first + 100]) & set(held_out)) == round(share * 100)


def test_with_nothing_held_out_every_line_is_learned():
    assert split_lines(["a", "b"], 0) == (["a", "b"], [])


def test_a_text_of_which_nothing_would_be_left_is_refused(tmp_path):
    (tmp_path / "text.txt").write_text("only one line\n")
    config = PretrainConfig.of(text=str(tmp_path / "text.txt"), held_out=0.3)
    with pytest.raises(DataError, match=r"has 1 lines, and held_out = 0\.3 leaves none of them to learn from"):
        read_documents(config)


def test_tokenizer_and_model_learn_from_the_other_lines_alone(tmp_path, monkeypatch):
    lines = [f"this is line number {i} of them" for i in range(200)]
    (tmp_path / "text.txt").write_text("".join(line + "\n" for line in lines))
    seen, in_rows = [], []

    def watched(texts, plain=pretrain.train_tokenizer, **settings):
        seen.extend(texts)
        return plain(list(seen), **settings)

    def watched_rows(encoder, documents, config, plain=pretrain.packed):
        in_rows.append(list(documents))
        return plain(encoder, documents, config)

    monkeypatch.setattr(pretrain, "train_tokenizer", watched)
    monkeypatch.setattr(pretrain, "packed", watched_rows)
    config = PretrainConfig.of(text=str(tmp_path / "text.txt"), held_out=0.25, **SMALL)
    main(config, Options(out=tmp_path / "run", device="cpu"))
    learned = [line for i, line in enumerate(lines) if i % 4]
    assert seen == learned
    assert in_rows == [learned, lines[::4]]
