"""DELIFT, slow and obvious: one full prompt at a time, no cache, no batch, all logits."""

import math

import torch


def response_error(model, prompt: list[int], response: list[int]) -> float:
    """d = sqrt(mean (1 - p_k)^2); the logits at position k - 1 predict token k."""
    ids = torch.tensor([[*prompt, *response]])
    with torch.inference_mode():
        logits = model(input_ids=ids, use_cache=False).logits[0].float()
    total = 0.0
    for k in range(len(prompt), len(prompt) + len(response)):
        p = torch.softmax(logits[k - 1], dim=-1)[ids[0, k]].item()
        total += (1.0 - p) ** 2
    return math.sqrt(total / len(response))


def prompt_ids(tokenizer, instruction: str, query: str, example: str | None) -> list[int]:
    """The template, piece by piece, nothing shortened."""

    def ids(text: str) -> list[int]:
        return tokenizer(text, add_special_tokens=False).input_ids

    bos = tokenizer("", add_special_tokens=True).input_ids[:1]
    shown = [] if example is None else [*ids("\n\nExample:"), *ids(" " + example)]
    asked = [*ids("\n\nQuery:"), *ids(" " + query), *ids("\nAnswer:")]
    return [*bos, *ids(instruction), *shown, *asked]


def utility(model, tokenizer, instruction, candidate, target) -> float:
    """u(c -> t) = d_without(t) - d_with(t | c); one instruction, or one for each prompt."""
    first, second = (instruction, instruction) if isinstance(instruction, str) else instruction
    response = tokenizer(" " + target.output, add_special_tokens=False).input_ids
    response = [*response, tokenizer.eos_token_id]
    example = f"{candidate.prompt} {candidate.output}"
    without = prompt_ids(tokenizer, first, target.prompt, None)
    shown = prompt_ids(tokenizer, second, target.prompt, example)
    return response_error(model, without, response) - response_error(model, shown, response)
