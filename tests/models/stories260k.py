"""llama2.c's stories260K as a plain Hugging Face folder: a language model that was really trained, and fits two cores.

    python -m tests.models.stories260k --out runs/stories260k

Weights and tokenizer are Karpathy's (github.com/karpathy/llama2.c, MIT). Three things are not as in other Llamas:

    rotary positions   turn neighbouring numbers of a head (0,1), (2,3), ...; Hugging Face turns the first half against the
                       second, so the rows of the query and key matrices change places
    end of a story     the model was trained on stories with <s> before each and nothing after, so what ends a story is <s>:
                       it stands for the beginning and the end alike; </s> was never seen
    tokenizer          merges by the score of the merged piece, leftmost first; a list of merges in that order does the same
"""

import argparse
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, processors
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from prefloop.models.load import save_model, verify_saved

SOURCE = Path("../shared/data/models/stories260k")
UNKNOWN, BEGIN, END = "<unk>", "<s>", "</s>"  # ids 0, 1, 2
FIRST_PIECE = 3 + 256  # after the bytes


class Shape(NamedTuple):
    """The header of the .bin file, in its order."""

    width: int
    inner: int
    layers: int
    heads: int
    kv_heads: int
    vocabulary: int
    context: int

    @property
    def head_width(self) -> int:
        return self.width // self.heads


def read_weights(path: Path) -> tuple[Shape, dict[str, np.ndarray]]:
    """The tensors of llama2.c's legacy export, named as its run.c names them; a positive vocabulary means tied embeddings."""
    data = path.read_bytes()
    shape = Shape(*struct.unpack("<7i", data[:28]))
    width, inner, layers = shape.width, shape.inner, shape.layers
    kv_width = shape.kv_heads * shape.head_width
    sizes = {
        "token_embedding": (shape.vocabulary, width),
        "rms_att": (layers, width),
        "wq": (layers, width, width),
        "wk": (layers, kv_width, width),
        "wv": (layers, kv_width, width),
        "wo": (layers, width, width),
        "rms_ffn": (layers, width),
        "w1": (layers, inner, width),
        "w2": (layers, width, inner),
        "w3": (layers, inner, width),
        "rms_final": (width,),
    }  # and the tables of sines, which are not weights
    numbers = np.frombuffer(data, dtype="<f4", offset=28)
    weights, start = {}, 0
    for name, size in sizes.items():
        weights[name] = numbers[start : start + np.prod(size)].reshape(size)
        start += int(np.prod(size))
    return shape, weights


def read_pieces(path: Path) -> list[tuple[str, float]]:
    """Every piece of tok512.bin with its score; a space is a space."""
    data = path.read_bytes()
    pieces, place = [], 4  # after the length of the longest piece
    while place < len(data):
        score, length = struct.unpack_from("<fi", data, place)
        pieces.append((data[place + 8 : place + 8 + length].decode(), score))
        place += 8 + length
    return [(UNKNOWN, 0.0), (BEGIN, 0.0), (END, 0.0), *pieces[3:]]


def halves_from_pairs(matrix: np.ndarray, heads: int) -> np.ndarray:
    """Rows 0, 1, 2, 3, ... of each head as 0, 2, ..., 1, 3, ...: queries and keys turn by the same change, so products stay."""
    rows, columns = matrix.shape
    return matrix.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)


def new_model(shape: Shape, weights: dict[str, np.ndarray]) -> LlamaForCausalLM:
    special: dict[str, Any] = {"bos_token_id": 1, "eos_token_id": 1, "pad_token_id": 0}
    config = LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.width,
        intermediate_size=shape.inner,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        max_position_embeddings=shape.context,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        **special,
    )
    model = LlamaForCausalLM(config)
    state = {name: torch.from_numpy(np.array(matrix)) for name, matrix in as_named_by_transformers(shape, weights)}  # copied
    model.load_state_dict({**state, "lm_head.weight": state["model.embed_tokens.weight"]}, strict=True)
    model.generation_config = GenerationConfig(do_sample=True, **special)
    return model.eval()


def as_named_by_transformers(shape: Shape, weights: dict[str, np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
    yield "model.embed_tokens.weight", weights["token_embedding"]
    yield "model.norm.weight", weights["rms_final"]
    for layer in range(shape.layers):
        own = {name: matrix[layer] for name, matrix in weights.items() if len(matrix) == shape.layers}
        yield from {
            f"model.layers.{layer}.input_layernorm.weight": own["rms_att"],
            f"model.layers.{layer}.self_attn.q_proj.weight": halves_from_pairs(own["wq"], shape.heads),
            f"model.layers.{layer}.self_attn.k_proj.weight": halves_from_pairs(own["wk"], shape.kv_heads),
            f"model.layers.{layer}.self_attn.v_proj.weight": own["wv"],
            f"model.layers.{layer}.self_attn.o_proj.weight": own["wo"],
            f"model.layers.{layer}.post_attention_layernorm.weight": own["rms_ffn"],
            f"model.layers.{layer}.mlp.gate_proj.weight": own["w1"],
            f"model.layers.{layer}.mlp.down_proj.weight": own["w2"],
            f"model.layers.{layer}.mlp.up_proj.weight": own["w3"],
        }.items()


def new_tokenizer(pieces: list[tuple[str, float]]) -> PreTrainedTokenizerFast:
    """Encodes as run.c does: a space before the text, characters (or their bytes), then the best-scored merge until none is left."""
    ids = {piece: place for place, (piece, _) in enumerate(pieces)}
    merges = [
        (piece[:cut], piece[cut:])
        for piece, _ in sorted(pieces[FIRST_PIECE:], key=lambda entry: -entry[1])
        for cut in range(1, len(piece))
        if ids.get(piece[:cut], 0) >= FIRST_PIECE and ids.get(piece[cut:], 0) >= FIRST_PIECE
    ]
    backend = Tokenizer(models.BPE(vocab=ids, merges=merges, unk_token=UNKNOWN, byte_fallback=True))
    backend.normalizer = normalizers.Prepend(" ")
    backend.post_processor = processors.TemplateProcessing(single=f"{BEGIN} $A", special_tokens=[(BEGIN, ids[BEGIN])])
    backend.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=BEGIN,
        eos_token=BEGIN,
        unk_token=UNKNOWN,
        pad_token=UNKNOWN,
        clean_up_tokenization_spaces=False,
        padding_side="right",
    )


def convert(source: Path, out: Path) -> Path:
    """The folder ``out``, read back and compared before this returns."""
    shape, weights = read_weights(source / "stories260K.bin")
    model, tokenizer = new_model(shape, weights), new_tokenizer(read_pieces(source / "tok512.bin"))
    card = {"what": "llama2.c stories260K, trained on TinyStories", "license": "MIT", "from": "karpathy/tinyllamas"}
    save_model(model, tokenizer, out, card=card)
    verify_saved(model, out, torch.arange(64).reshape(4, 16))
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description="llama2.c's stories260K as a Hugging Face folder")
    parser.add_argument("--source", type=Path, default=SOURCE, help="folder with stories260K.bin and tok512.bin")
    parser.add_argument("--out", type=Path, required=True, help="the model folder to write")
    given = parser.parse_args()
    sys.stdout.write(f"wrote {convert(given.source, given.out)}\n")


if __name__ == "__main__":
    main()
