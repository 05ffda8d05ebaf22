"""The starter model's shape, and the optimiser it is trained with."""

import torch
from transformers import LlamaConfig, LlamaForCausalLM


def build(vocab: int, seed: int, layers: int = 4, inner: int = 256) -> LlamaForCausalLM:
    """Makes an untrained Llama of a few million parameters with tied embeddings.

    Args:
        vocab: Number of tokens.
        seed: Seed of the initial weights.
        layers: Number of layers.
        inner: Width of the feed-forward part; a multiple of 256 so that k-quants fit.

    Returns:
        The model in float32.
    """
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocab,
        hidden_size=256,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=64,
        max_position_embeddings=2048,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=2,
        pad_token_id=0,
        attention_bias=False,
        mlp_bias=False,
        initializer_range=0.02,
    )
    return LlamaForCausalLM(config)


@torch.no_grad()
def start_from_copying(net: LlamaForCausalLM, seed: int) -> None:
    """Starts attention from a rough copying circuit, as mimetic initialisation does (Trockman & Kolter 2023).

    Two heads of the first layer look one token back and pass that token on, rotated; two heads of the next two layers
    look for places whose preceding token is like the present one, and pass on what stands there. Without this start
    copying did not appear within the tokens that a CPU run can afford. Everything is trained after that.
    """
    gen = torch.Generator().manual_seed(seed)
    own, before = (torch.linalg.qr(torch.randn(256, 256, generator=gen))[0] for _ in range(2))
    common = torch.nn.functional.normalize(torch.randn(256, generator=gen), dim=0)
    table = net.model.embed_tokens.weight
    table.copy_(torch.randn(table.shape, generator=gen) / 16 + 0.5 * common)
    angles = 10000.0 ** (-torch.arange(32) / 32)
    used = (torch.arange(32) < 8).float()
    look_back = torch.cat([angles.cos() * used, -angles.sin() * used])
    stay = torch.cat([used, torch.zeros(32)])
    first = net.model.layers[0].self_attn
    for head in (0, 1):
        rows = slice(64 * head, 64 * head + 64)
        first.q_proj.weight[rows] = 0.7 * torch.outer(look_back, common)
        first.k_proj.weight[rows] = 0.7 * torch.outer(stay, common)
        first.v_proj.weight[rows] = 0.32 * own[rows]
        first.o_proj.weight[:, rows] = 0.32 * before[rows].T
    for layer in net.model.layers[1:3]:
        attention = layer.self_attn
        attention.q_proj.weight[:128] = 1.6 * own[:128]
        attention.k_proj.weight[:128] = 1.6 * before[:128]
        attention.v_proj.weight[:128] = 0.45 * own[:128]
        attention.o_proj.weight[:, :128] = 0.45 * own[:128].T


@torch.no_grad()
def pair_spaced_tokens(net: LlamaForCausalLM, vocab: dict[str, int]) -> int:
    """Starts the embedding of a word near that of the same word with a leading space; returns the number of pairs."""
    table = net.model.embed_tokens.weight
    pairs = [(vocab[t[1:]], i) for t, i in vocab.items() if len(t) > 1 and t[0] == "\u0120" and t[1:] in vocab]
    bare, spaced = (torch.tensor(side) for side in zip(*pairs, strict=True))
    table[bare] = 0.6 * table[bare] + 0.8 * table[spaced]
    return len(pairs)


def optimiser(net: LlamaForCausalLM, lr: float) -> torch.optim.AdamW:
    """AdamW over all weights, with a little decay on the matrices of the layers."""
    matrices = [p for n, p in net.named_parameters() if p.ndim == 2 and "embed" not in n]
    others = [p for n, p in net.named_parameters() if p.ndim != 2 or "embed" in n]
    groups = [{"params": matrices, "weight_decay": 0.05}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.98))
