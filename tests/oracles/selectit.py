"""SelectIT, slow and obvious: one prompt at a time, all logits, Python floats."""

import math

import torch


def rating(model, tokenizer, sentence: str, example, levels: int = 5, form: str = "normalised"):
    """S_tok of one rating prompt, for a tokenizer with a token for each digit behind a space."""

    def ids(text: str) -> list[int]:
        return tokenizer(text, add_special_tokens=False).input_ids

    bos = tokenizer("", add_special_tokens=True).input_ids[:1]
    text = f"{sentence}\nInstruction: {example.prompt}\nResponse: {example.output}\nThe answer is: "
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([[*bos, *ids(text)]])).logits[0, -1].double()
    probabilities = torch.softmax(logits, dim=-1)
    given = []
    for level in range(1, levels + 1):
        (digit,) = ids(str(level))
        given.append(probabilities[digit].item())
    shares = [p / sum(given) for p in given]
    if form == "reference":
        shares = [math.exp(p) / sum(math.exp(q) for q in shares) for p in shares]
    best = max(shares)
    base = shares.index(best) + 1
    return base * sum(best - p for p in shares) / (levels - 1)


def score(model, tokenizer, sentences, example, alpha: float = 0.2, **settings) -> float:
    """S_sent of one row."""
    ratings = [rating(model, tokenizer, sentence, example, **settings) for sentence in sentences]
    mean = sum(ratings) / len(ratings)
    spread = math.sqrt(sum((r - mean) ** 2 for r in ratings) / len(ratings))
    return mean / (1 + alpha * spread)
