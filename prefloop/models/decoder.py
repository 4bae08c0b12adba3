"""A model's weights laid out for saying one token of many answers at a time.

A small model's forward pass for one token of a few dozen rows is mostly not arithmetic: modules, masks, copies of the cache,
several small products where one would do. Here a step is a fixed list of operations on buffers taken once:

- query, key and value are one product, and so are gate and up; a product is computed as weights [out, in] times columns, which
  for a few dozen rows is up to twice as fast as rows times weights, and fastest for whole eights of rows (docs/performance.md);
- what a norm multiplies by, what scales the scores and what an adapter adds are multiplied into the weights beforehand;
- the rotation of a pair of features is one multiplication of complex numbers, so a pair lies side by side;
- attention is plain batched products written into place (``decoder_group.py``).

Only architectures whose arithmetic is written down here are taken, in single and double precision, and each is compared with
the model's own logits before it is used. Everything else is read by the model itself (``sampling.OwnReading``).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, layer_norm, scaled_dot_product_attention
from transformers.pytorch_utils import Conv1D

from prefloop.errors import ConfigError
from prefloop.models import compiled
from prefloop.models.decoder_group import AnswerGroup, Heads
from prefloop.models.encode import padded
from prefloop.models.folder import first_line
from prefloop.models.heads import all_logits, at_rest

LARGEST = 2**31  # bytes; a larger model's weights are not copied, and its steps are long enough for what surrounds them
TOKENS_AT_ONCE = 2048  # of prompts: enough for the products to be fast, and what lies between them is not too large for the cache
EXACT = {torch.float32, torch.float64}  # in half precision a step would round at other places than the model does
DEVICES = {"cpu", "cuda"}
FIXED_ROTATIONS = {"default", "linear", "llama3", "yarn"}  # kinds whose angles do not depend on how long a text becomes
EIGHT = 8  # rows that the products take at a time
FEW = 256  # rows up to which a product is computed by columns
PROBED_TOKENS = 6
PROBED = 256  # roundings by which the two readings of a few tokens may differ, times the largest logit


class LinearMap(NamedTuple):
    weight: Tensor  # out in
    bias: Tensor | None  # out


class Layer(NamedTuple):
    mix: LinearMap  # D -> (Hq + 2 Hkv) C: queries, keys, values
    out: LinearMap  # Hq C -> D
    up: LinearMap  # D -> I, or 2 I where a gate stands before it
    down: LinearMap  # I -> D


@dataclass(frozen=True)
class Decoder:
    """D features, Hq heads of C features for queries and Hkv for keys, I features between the layers, V tokens."""

    embedding: Tensor  # V D
    place: Tensor | None  # T D  learned positions
    turn: Tensor | None  # T C/2  complex, for rotary positions
    layers: tuple[Layer, ...]
    head: LinearMap  # D -> V, behind the last norm
    heads: Heads
    norm: "RootMeanSquare | Standard"  # without the factors, which are in the weights
    act: Callable[[Tensor], Tensor]
    is_gated: bool
    is_fused: bool = False  # a step's products and what stands between them by torch.compile

    def embed(self, tokens: Tensor, position: Tensor) -> tuple[Tensor, Tensor | None]:
        """Tokens at their positions (N, N), and the turn of every one of them."""
        x = embedding(tokens, self.embedding)
        if len(x) <= FEW:
            x = x.t().contiguous().t()
        if self.place is not None:
            x += self.place[position]
        return x, None if self.turn is None else self.turn[position][:, None]

    def mix(self, layer: Layer, x: Tensor, turn: Tensor | None) -> Tensor:
        """Queries, keys and values of every token, turned to its position: N (Hq + 2 Hkv) C."""
        mixed = product(self.norm(x), layer.mix).contiguous()
        if turn is not None:
            pairs = torch.view_as_complex(mixed.view(len(mixed), -1, 2))
            n_turned = self.heads.n_query + self.heads.n_key
            pairs[:, : n_turned * turn.shape[-1]].view(len(mixed), n_turned, -1).mul_(turn)
        return mixed

    def rest(self, layer: Layer, x: Tensor, seen: Tensor) -> None:
        """What follows attention, added to x in place: N D, N (Hq C)."""
        add_product(x, seen, layer.out)
        up = product(self.norm(x), layer.up)
        if self.is_gated:
            half = up.shape[1] // 2
            up = self.act(up[:, :half]).mul_(up[:, half:])
        else:
            up = self.act(up)
        add_product(x, up, layer.down)

    def in_place(self, layer: Layer, x: Tensor, seen: Tensor) -> Tensor:
        self.rest(layer, x, seen)
        return x

    def behind(self, layer: Layer, x: Tensor, seen: Tensor) -> Tensor:
        """The same, and x as it was: a graph of a GPU's work must not write to what it was given."""
        x = x.clone()
        self.rest(layer, x, seen)
        return x

    def logits(self, x: Tensor) -> Tensor:
        return product(self.norm(x), self.head).contiguous()

    # ------------------------------------------------------------------------------------------- prompts

    def read_prompts(self, rows: Sequence[Sequence[int]], n_new: int) -> tuple[AnswerGroup, Tensor]:
        """Each distinct prompt once for all its rows; the logits after it for every row, R V.

        Prompts are padded on the right: no real token sees the padding, and the answers are kept from seeing it.
        """
        group = AnswerGroup(rows, self.heads, len(self.layers), n_new, self.embedding)
        prompts, at_once = group.prompts, max(1, TOKENS_AT_ONCE // group.n_before)
        starts = range(0, len(prompts), at_once)
        last = [self.read_some(group, start, prompts[start : start + at_once]) for start in starts]
        return group, self.logits(torch.cat(last))[group.asked]

    def read_some(self, group: AnswerGroup, start: int, prompts: Sequence[Sequence[int]]) -> Tensor:
        """Prompts from number ``start`` on, their keys and values into the group; what the last token of each becomes: P D."""
        tokens, length = (part.to(self.embedding.device) for part in padded(prompts, 0))
        n, width = tokens.shape
        x, turn = self.embed(tokens.flatten(), torch.arange(width, device=tokens.device).repeat(n))
        ends = torch.arange(n, device=tokens.device) * width + length - 1
        for place, layer in enumerate(self.layers):
            parts = self.mix(layer, x, turn).view(n, width, -1, self.heads.size).transpose(1, 2)  # P H S C
            query, rest = parts.split([self.heads.n_query, 2 * self.heads.n_key], 1)
            both = rest.unflatten(1, (2, -1)).transpose(0, 1)  # 2 P Hkv S C
            group.keep_prompts(place, start, both)
            keys, values = both.repeat_interleave(self.heads.n_query // self.heads.n_key, 2).unbind()
            seen = scaled_dot_product_attention(query, keys, values, is_causal=True, scale=1.0)  # P Hq S C
            seen = seen.transpose(1, 2).reshape(n * width, -1)
            if place == len(self.layers) - 1:
                x, seen = x[ends], seen[ends]  # nothing looks at the others any more
            self.rest(layer, x, seen)
        return x

    # ------------------------------------------------------------------------------------------- a token

    def read_tokens(self, groups: Sequence[AnswerGroup], tokens: Tensor, position: Tensor) -> Tensor:
        """One more token of every row of the groups, in their order; the logits after it: R V."""
        for group in groups:
            group.make_room()
        functions = None if self.is_fused else compiled.compiled_for(self.embedding, self.heads.size)
        if functions is None:
            logits = self.read_in_torch(groups, tokens, position)
        else:
            logits = compiled.read_tokens(functions, self, groups, tokens, position)
        for group in groups:
            group.grow_older()
        return logits

    def read_in_torch(self, groups: Sequence[AnswerGroup], tokens: Tensor, position: Tensor) -> Tensor:
        n_rows, n_more = len(tokens), padding(len(tokens))
        x, turn = self.embed(torch.constant_pad_nd(tokens, (0, n_more)), torch.constant_pad_nd(position, (0, n_more)))
        parts = torch.tensor([0, *(group.n_rows for group in groups)]).cumsum(0).tolist()
        filler = [x.new_zeros(n_more, self.heads.n_query * self.heads.size)] * (n_more > 0)
        behind, logits = fused(x.device.type) if self.is_fused else (Decoder.in_place, Decoder.logits)
        for place, layer in enumerate(self.layers):
            mixed = self.mix(layer, x, turn)
            seen = [group.attend(place, mixed[a:b]) for group, a, b in zip(groups, parts, parts[1:], strict=False)]
            x = behind(self, layer, x, seen[0] if len(seen) + len(filler) == 1 else torch.cat(seen + filler))
        return logits(self, x)[:n_rows]


@cache
def fused(kind: str) -> tuple[Callable[..., Tensor], Callable[..., Tensor]]:
    """``Decoder.behind`` and ``Decoder.logits`` compiled for any number of rows; replayed as CUDA graphs on a GPU."""
    mode = "reduce-overhead" if kind == "cuda" else None
    behind, logits = (torch.compile(part, dynamic=True, mode=mode) for part in (Decoder.behind, Decoder.logits))
    if mode is None:
        return behind, logits
    return lambda *given: behind(*given).clone(), lambda *given: logits(*given).clone()  # a graph writes over what it gave


def padding(n: int) -> int:
    """Rows that make whole eights of n, and two of them at least; one row alone needs none."""
    return max(2 * EIGHT, n + -n % EIGHT) - n if n > 1 else 0


def product(x: Tensor, by: LinearMap) -> Tensor:
    """W x + b of every row of x. For few rows the answer lies by columns, which nothing minds but a view."""
    if len(x) > FEW:
        return torch.nn.functional.linear(x, by.weight, by.bias)
    said = by.weight @ x.t()  # out N
    return (said if by.bias is None else said.add_(by.bias[:, None])).t()


def add_product(x: Tensor, y: Tensor, by: LinearMap) -> None:
    """x + W y + b in place of x."""
    x.t().addmm_(by.weight, y.t())
    if by.bias is not None:
        x += by.bias


# ------------------------------------------------------------------------------------------------ from a model


def decoder_of(model: Any, n_positions: int) -> Decoder | None:
    """The model as a decoder of texts of up to ``n_positions`` tokens, or None where only the model itself knows how it reads.

    Made anew for every use: the weights are copies, and an adapter may have come or gone.
    """
    with at_rest(model):
        decoder = written_down(model, n_positions)
        return decoder if decoder is not None and says_the_same(decoder, model) else None


def written_down(model: Any, n_positions: int) -> Decoder | None:
    """What ``decoder_of`` gives, not yet compared with the model."""
    make = FAMILIES.get(model.config.model_type)
    kinds = {(parameter.dtype, parameter.device) for parameter in model.parameters()}
    size = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    n_positions = max(n_positions, PROBED_TOKENS)
    if make is None or len(kinds) > 1 or size > LARGEST or n_positions > model.config.max_position_embeddings:
        return None
    if model.dtype not in EXACT or model.device.type not in DEVICES:
        return None
    return make(model, n_positions)


def fused_decoder_of(model: Any, n_positions: int) -> Decoder:
    """The same with its step compiled by torch.compile; ConfigError where that cannot be."""
    with at_rest(model):
        plain = written_down(model, n_positions)
        if plain is None:
            raise ConfigError(
                f"compile=true compiles the step that is written for {', '.join(FAMILIES)} in float32 up to {LARGEST // 2**30} GiB; "
                f"this model ({model.config.model_type}, {str(model.dtype).removeprefix('torch.')}) is read by itself\n  leave compile out"
            )
        decoder = replace(plain, is_fused=True)
        try:
            is_same = says_the_same(decoder, model)
        except RuntimeError as error:  # of torch.compile, which needs a C++ compiler, or Triton
            raise ConfigError(
                f"compile=true: torch.compile does not work here\n  {first_line(error)}\n  leave compile out"
            ) from None
    if not is_same:
        raise ConfigError("compile=true: the compiled step says something else than the model\n  leave compile out")
    return decoder


def says_the_same(decoder: Decoder, model: Any) -> bool:
    """Two prompts of unlike length and two more tokens of three answers, beside one full forward pass."""
    ids = torch.arange(3, 3 + 18, device=model.device) * 7 % model.config.vocab_size
    prompts = [ids[:4], ids[:4], ids[4:7]]
    said = ids[-6:].view(3, 2)
    group, logits = decoder.read_prompts([prompt.tolist() for prompt in prompts], 2)
    steps = [logits]
    for step in range(2):
        position = torch.tensor([len(prompt) + step for prompt in prompts], device=model.device)
        steps.append(decoder.read_tokens([group], said[:, step], position))
    texts, length = padded([[*prompt.tolist(), *row.tolist()] for prompt, row in zip(prompts, said, strict=True)], 0)
    behind = length[:, None] - torch.tensor([3, 2, 1])  # R 3  the places whose logits both gave
    expected = all_logits(model, texts.to(model.device))[torch.arange(3)[:, None], behind]
    gap = (torch.stack(steps, 1) - expected).abs()
    return bool((gap <= PROBED * torch.finfo(torch.float32).eps * expected.abs().max()).all())


def llama(model: Any, n_positions: int) -> Decoder | None:
    """Llama, Qwen2, Mistral: root-mean-square norms, rotary positions, grouped queries, a gate."""
    config, base = model.config, model.base_model
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    windowed = kinds != {"full_attention"} or (config.model_type == "mistral" and config.sliding_window is not None)
    if windowed or base.rotary_emb.rope_type not in FIXED_ROTATIONS or type(base.embed_tokens) is not nn.Embedding:
        return None
    attention = base.layers[0].self_attn
    heads = Heads(config.num_attention_heads, config.num_key_value_heads, attention.head_dim)
    layers = []
    for block in base.layers:
        parts, mlp, width = block.self_attn, block.mlp, config.hidden_size
        query, key, value = (linear_map(part, width) for part in (parts.q_proj, parts.k_proj, parts.v_proj))
        query, key = side_by_side(scaled(query, parts.scaling), heads.size), side_by_side(key, heads.size)
        gain = block.input_layernorm.weight, block.post_attention_layernorm.weight
        layers.append(
            Layer(
                after_norm(joined([query, key, value]), gain[0], None),
                linear_map(parts.o_proj, heads.n_query * heads.size),
                after_norm(joined([linear_map(mlp.gate_proj, width), linear_map(mlp.up_proj, width)]), gain[1], None),
                linear_map(mlp.down_proj, config.intermediate_size),
            )
        )
    return Decoder(
        embedding=base.embed_tokens.weight,
        place=None,
        turn=turns(base.rotary_emb, n_positions, heads.size, base.embed_tokens.weight),
        layers=tuple(layers),
        head=after_norm(linear_map(model.lm_head, config.hidden_size), base.norm.weight, None),
        heads=heads,
        norm=RootMeanSquare(config.rms_norm_eps),
        act=base.layers[0].mlp.act_fn,
        is_gated=True,
    )


def gpt2(model: Any, n_positions: int) -> Decoder | None:
    """GPT-2: layer norms, learned positions, weights already one product and already [in, out]."""
    config, base = model.config, model.base_model
    if config.add_cross_attention or type(base.wte) is not nn.Embedding or type(base.wpe) is not nn.Embedding:
        return None
    width = config.n_embd
    heads = Heads(config.n_head, config.n_head, width // config.n_head)
    layers = []
    for block in base.h:
        mix = linear_map(block.attn.c_attn, width)
        factor = torch.ones(3 * width, dtype=mix.weight.dtype, device=mix.weight.device)
        factor[:width] = block.attn.scaling
        up = linear_map(block.mlp.c_fc, width)
        layers.append(
            Layer(
                after_norm(scaled(mix, factor), block.ln_1.weight, block.ln_1.bias),
                linear_map(block.attn.c_proj, width),
                after_norm(up, block.ln_2.weight, block.ln_2.bias),
                linear_map(block.mlp.c_proj, len(up.weight)),
            )
        )
    return Decoder(
        embedding=base.wte.weight,
        place=base.wpe.weight[:n_positions],
        turn=None,
        layers=tuple(layers),
        head=after_norm(linear_map(model.lm_head, width), base.ln_f.weight, base.ln_f.bias),
        heads=heads,
        norm=Standard(config.layer_norm_epsilon),
        act=base.h[0].mlp.act,
        is_gated=False,
    )


FAMILIES = {"llama": llama, "qwen2": llama, "mistral": llama, "gpt2": gpt2}


def linear_map(module: nn.Module, width: int) -> LinearMap:
    """Weight [out, in] and bias of whatever maps ``width`` features linearly. What an adapter adds is read off its answers."""
    if type(module) is nn.Linear:
        return LinearMap(module.weight, module.bias)
    if type(module) is Conv1D:
        return LinearMap(module.weight.t().contiguous(), module.bias)
    like = next(module.parameters())
    none = module(like.new_zeros(1, width))
    weight = module(torch.eye(width, dtype=like.dtype, device=like.device)) - none
    return LinearMap(weight.t().contiguous(), none[0])


def joined(maps: Sequence[LinearMap]) -> LinearMap:
    """Maps of the same features as one."""
    biases = [m.weight.new_zeros(len(m.weight)) if m.bias is None else m.bias for m in maps]
    none = all(m.bias is None for m in maps)
    return LinearMap(torch.cat([m.weight for m in maps]), None if none else torch.cat(biases))


def scaled(by: LinearMap, factor: Tensor | float) -> LinearMap:
    weight = by.weight * (factor[:, None] if isinstance(factor, Tensor) else factor)
    return LinearMap(weight, None if by.bias is None else by.bias * factor)


def after_norm(by: LinearMap, gain: Tensor, shift: Tensor | None) -> LinearMap:
    """x -> W (x * gain + shift) + b as one map of x."""
    bias = by.bias if shift is None else by.weight @ shift + (0 if by.bias is None else by.bias)
    return LinearMap(by.weight * gain, bias)


def side_by_side(by: LinearMap, size: int) -> LinearMap:
    """Rotary positions turn feature i of a head with feature i + size / 2: they become neighbours. In keys and queries alike."""
    order = torch.arange(size, device=by.weight.device).view(2, -1).t().flatten()  # 0, size / 2, 1, size / 2 + 1, ...
    order = (torch.arange(0, len(by.weight), size, device=order.device)[:, None] + order).flatten()
    return LinearMap(by.weight[order], None if by.bias is None else by.bias[order])


def turns(rotary: Any, n: int, size: int, like: Tensor) -> Tensor:
    """cos + i sin of every pair at the first n positions: n C/2."""
    cos, sin = rotary(like, torch.arange(n, device=like.device)[None, :])
    return torch.complex(cos[0, :, : size // 2].contiguous(), sin[0, :, : size // 2].contiguous())


class RootMeanSquare(NamedTuple):
    eps: float
    is_centred: bool = False

    def __call__(self, x: Tensor) -> Tensor:
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        return x * length.mul_(length).div_(x.shape[-1]).add_(self.eps).rsqrt_()


class Standard(NamedTuple):
    eps: float
    is_centred: bool = True

    def __call__(self, x: Tensor) -> Tensor:
        return layer_norm(x, x.shape[-1:], None, None, self.eps)
