"""Teachers beside plain Hugging Face loops: same weights, same rows, same process.

    python benchmarks/teachers.py --rows 24 --json benchmarks/results/teachers.json

"Plain" is what one writes first: one prompt at a time through `AutoModelForCausalLM`, all logits;
for LESS one example at a time through the model's own loss and autograd. Ours and plain run in
turns. `speedup` is plain / ours in CPU seconds, the median over repeats. Beside it stand

    bound       how much less work our way leaves to do: in tokens read, and in multiplications of
                the weights (every token through the layers; the LM head where it is computed)
    difference  the largest between the scores of both, and between them in float32 on a few rows,
                which tells a different formula from the rounding of bfloat16
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from safetensors import safe_open
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.provenance import ROOT, markdown_table, save
from engine.config import PACKAGED_LANGUAGE_MODEL, ModelConfig, TeacherConfig
from engine.example import Example, content_key, order_hash
from engine.kernels.adam import AdamStep
from engine.kernels.projection import SignProjection
from engine.kernels.rating import sentence_score, token_score
from engine.models.causal_model import load_causal_model
from engine.models.prompt_tokenizer import PromptTokenizer
from engine.teachers.less import PROJECTION_SEED, LessSettings, LessTeacher
from engine.teachers.selectit import SelectITSettings
from engine.teachers.teacher import Side, Teacher, load_teacher

SMALL_CORPUS = ROOT.parent / "shared" / "data" / "corpus_small.parquet"
DEMO_CORPUS = ROOT / "demo" / "corpus.jsonl"
MAX_CHARACTERS = 3000  # longer rows are left out, so that no prompt has to be cut to 2,048 tokens
SEED = 0
SPEED = (
    "teacher", "rows", "lora_rank", "plain", "num", "ours_per_cpu_s", "plain_per_cpu_s", "speedup",
    "speedup_range", "bound_tokens", "share_of_bound_tokens", "bound_flops", "share_of_bound_flops",
)  # fmt: skip
AGREEMENT = (
    "teacher", "rows", "plain", "ours_gflops", "plain_gflops", "matmul_gflops", "difference",
    "difference_float32", "score_std",
)  # fmt: skip

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Answer:
    """Scores, and the tokens that the model read; `scored` tokens needed the LM head."""

    scores: NDArray[np.floating]
    tokens: int
    scored: int | None = None


@dataclass(frozen=True, slots=True)
class Case:
    """One comparison: our way, and one or more plain ones by name."""

    num: int  # pairs or points
    ours: Callable[[], Answer]
    plain: Mapping[str, Callable[[], Answer]]
    flops: Callable[[int, int], float] | None = None  # of tokens read and positions with logits


class PlainModel:
    """A causal model as anyone would call it; counts what it is asked."""

    def __init__(self, config: ModelConfig) -> None:
        tokenizer, self.model = load_causal_model(config)
        self.tokenizer = PromptTokenizer(tokenizer, config.path)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model.to(self.device).eval()
        self.bos = [] if self.tokenizer.bos is None else [self.tokenizer.bos]
        self.head_size = self.model.get_output_embeddings().weight.numel()
        layers = sum(p.numel() for p in self.model.base_model.parameters())
        self.body_size = layers - self.model.get_input_embeddings().weight.numel()

    @torch.inference_mode()
    def logits(self, ids: list[int]) -> Tensor:
        """Logits (len(ids), V) of one prompt."""
        found: Tensor = self.model(torch.tensor([ids], device=self.device), use_cache=False).logits
        return found[0]

    def flops(self, tokens: int, positions: int) -> float:
        """Of the weights' matrix products; attention itself not counted."""
        return float(2 * (self.body_size * tokens + self.head_size * positions))


# --- DELIFT --------------------------------------------------------------------------------------


def delift_case(config: TeacherConfig, examples: Sequence[Example]) -> Case:
    """One fifth of the examples as candidates, the others as targets; every pair."""
    num_candidates = max(1, len(examples) // 5)
    sides = examples[:num_candidates], examples[num_candidates:]
    teacher, model = load_teacher(config, SEED), PlainModel(config.model)
    return Case(
        len(sides[0]) * len(sides[1]),
        partial(_delift_ours, teacher, *sides),
        {"prompt by prompt": partial(_delift_plain, model, config, *sides)},
        model.flops,
    )


def _delift_ours(
    teacher: Teacher, candidates: Sequence[Example], targets: Sequence[Example]
) -> Answer:
    without = teacher.features("target", targets)
    found = [teacher.score(c, None, targets, without.values) for c in candidates]
    tokens = without.usage.tokens + sum(scores.usage.tokens for scores in found)
    return Answer(np.stack([scores.values for scores in found]), tokens)


def _delift_plain(
    model: PlainModel,
    config: TeacherConfig,
    candidates: Sequence[Example],
    targets: Sequence[Example],
) -> Answer:
    """d_without - d_with, every prompt alone from its first token to its last."""
    ids = model.tokenizer.tokenize
    tokens = scored = 0

    def error(shown: list[int], target: Example) -> float:
        nonlocal tokens, scored
        query = [*ids("\n\nQuery:"), *ids(" " + target.prompt.strip()), *ids("\nAnswer:")]
        prompt = [*model.bos, *ids(config.instruction.strip()), *shown, *query]
        response = [*ids(" " + target.output.strip()), model.tokenizer.eos]
        logits = model.logits([*prompt, *response])[len(prompt) - 1 : -1].float()
        wanted = torch.tensor(response, device=model.device)[:, None]
        p = logits.softmax(-1).gather(1, wanted)[:, 0].double()
        tokens += len(prompt) + len(response)
        scored += len(response)
        return float((1 - p).square().mean().sqrt())

    without = [error([], target) for target in targets]
    scores = np.empty((len(candidates), len(targets)))
    for row, c in enumerate(candidates):
        prompt, response = ids(" " + c.prompt.strip()), ids(" " + c.output.strip())
        response = response[: config.max_example_tokens]
        room = config.max_example_tokens - len(response)
        shown = [*ids("\n\nExample:"), *prompt[max(0, len(prompt) - room) :], *response]
        scores[row] = [d - error(shown, t) for d, t in zip(without, targets, strict=True)]
    return Answer(scores, tokens, scored)


# --- SelectIT ------------------------------------------------------------------------------------


def selectit_case(config: TeacherConfig, examples: Sequence[Example]) -> Case:
    """All rating prompts of every example."""
    teacher, model = load_teacher(config, SEED), PlainModel(config.model)

    def ours() -> Answer:
        features = teacher.features("candidate", examples)
        return Answer(features.values[:, 0], features.usage.tokens)

    plain = {"prompt by prompt": partial(_selectit_plain, model, config, examples)}
    return Case(len(examples), ours, plain, model.flops)


def _selectit_plain(
    model: PlainModel, config: TeacherConfig, examples: Sequence[Example]
) -> Answer:
    settings, ids = config.own(SelectITSettings), model.tokenizer.tokenize
    closing, digits = _closing_and_digits(model, settings.levels)
    tokens, scores = 0, []
    for example in examples:
        text = [*ids("\nInstruction:"), *ids(" " + example.prompt.strip())]
        text += [*ids("\nResponse:"), *ids(" " + example.output.strip()), *closing]
        ratings = []
        for sentence in settings.rating_prompts:
            prompt = [*model.bos, *ids(sentence.strip()), *text]
            probabilities = model.logits(prompt)[-1].float().softmax(-1)[digits]
            ratings.append(token_score(probabilities.cpu().numpy(), settings.prob_form))
            tokens += len(prompt)
        scores.append(sentence_score(ratings, settings.alpha))
    return Answer(np.array(scores), tokens, len(examples) * len(settings.rating_prompts))


def _closing_and_digits(model: PlainModel, levels: int) -> tuple[list[int], list[int]]:
    """The last words of a prompt, and the ids of 1..levels behind them: " 1" if that is one."""
    ids, mark = model.tokenizer.tokenize, "\nThe answer is:"
    for ending, lead in (("", " "), (" ", "")):
        closing = ids(mark + ending)
        found = [ids(f"{mark}{ending}{lead}{n}")[len(closing) :] for n in range(1, levels + 1)]
        if all(len(rest) == 1 for rest in found):
            break
    return closing, [rest[-1] for rest in found]


# --- LESS ----------------------------------------------------------------------------------------


def less_case(config: TeacherConfig, examples: Sequence[Example], directory: Path) -> Case:
    """Half of the examples as candidates, half as targets; the warm-up on them is not timed."""
    middle = len(examples) // 2
    sides: dict[Side, Sequence[Example]] = {
        "candidate": examples[:middle],
        "target": examples[middle:],
    }
    prepared = directory / f"{content_key(config.model_dump_json(), '', '')}.safetensors"
    LessTeacher.prepare(config, SEED, examples, prepared)
    teacher = load_teacher(config, SEED, prepared)
    one_by_one = load_teacher(config.model_copy(update={"batch_size": 1}), SEED, prepared)
    plain = PlainGradients(config, prepared)
    return Case(
        len(examples),
        partial(_less_ours, teacher, sides),
        {
            "our own, batch 1": partial(_less_ours, one_by_one, sides),
            "backward by backward": partial(_less_plain, plain, sides),
        },
    )


def _less_ours(teacher: Teacher, sides: dict[Side, Sequence[Example]]) -> Answer:
    found = {side: teacher.features(side, examples) for side, examples in sides.items()}
    values = {side: features.values.astype(np.float32) for side, features in found.items()}
    scores = [
        teacher.score(candidate, feature, sides["target"], values["target"]).values
        for candidate, feature in zip(sides["candidate"], values["candidate"], strict=True)
    ]
    return Answer(np.stack(scores), sum(features.usage.tokens for features in found.values()))


def _less_plain(model: PlainGradients, sides: dict[Side, Sequence[Example]]) -> Answer:
    found = {side: model.directions(side, examples) for side, examples in sides.items()}
    rates = np.array([epoch["learning_rate"] for epoch in model.epochs])
    cosines = np.einsum("cef,tef->ect", found["candidate"], found["target"], optimize=True)
    return Answer(np.tensordot(rates / rates.sum(), cosines, 1), 0)


class PlainGradients:
    """One example at a time: the model's own loss, autograd, then our projection of the result."""

    def __init__(self, config: TeacherConfig, prepared: Path) -> None:
        less = config.own(LessSettings)
        self._plain = PlainModel(config.model)
        self._prepared = prepared
        self._adam_form = less.adam_form
        adapters = LoraConfig(
            r=less.lora_rank, lora_alpha=less.lora_alpha, target_modules=list(less.lora_targets)
        )
        inject_adapter_in_model(adapters, self._plain.model)
        self._matrices = {}
        for name, layer in self._plain.model.named_modules():
            if isinstance(layer, LoraLayer):
                for letter, part in (("A", layer.lora_A), ("B", layer.lora_B)):
                    self._matrices[f"{name}.{letter}"] = part["default"].float().weight
        self._projection = SignProjection(less.projection_dim, PROJECTION_SEED, self._plain.device)
        with safe_open(prepared, "pt") as file:
            self.epochs = json.loads(file.metadata()["epochs"])

    def directions(self, side: Side, examples: Sequence[Example]) -> NDArray[np.floating]:
        """Unit vectors (n, epochs, projection_dim): of Adam's steps, or of the gradients."""
        found = []
        for epoch, facts in enumerate(self.epochs):
            weights, m, v = (
                self._read(f"{epoch}/{kind}")
                for kind in ("weights", "first_moments", "second_moments")
            )
            with torch.no_grad():
                for name, matrix in self._matrices.items():
                    matrix.copy_(weights[name])
            steps = {
                name: AdamStep(
                    m[name].flatten(), v[name].flatten(), facts["num_steps"], self._adam_form
                )
                for name in self._matrices
            }
            rows = []
            for example in examples:
                self._backward(example)
                sums = self._projection.start(1)
                for part, (name, matrix) in enumerate(self._matrices.items()):
                    gradient = matrix.grad.flatten()[None]
                    values = steps[name].of(gradient) if side == "candidate" else gradient
                    self._projection.add(sums, part, values)
                vector = self._projection.finish(sums)[0]
                rows.append((vector / vector.norm()).cpu().numpy())
            found.append(np.stack(rows))
        return np.stack(found, axis=1)

    def _backward(self, example: Example) -> None:
        ids, plain = self._plain.tokenizer.tokenize, self._plain
        prompt = [*plain.bos, *ids(example.prompt.strip()), *ids("\n##Answer:")]
        response = [*ids(" " + example.output.strip()), plain.tokenizer.eos]
        for matrix in self._matrices.values():
            matrix.grad = None
        inputs = torch.tensor([prompt + response], device=plain.device)
        labels = torch.tensor([[-100] * len(prompt) + response], device=plain.device)
        plain.model(inputs, labels=labels, use_cache=False).loss.backward()

    def _read(self, kind: str) -> dict[str, Tensor]:
        with safe_open(self._prepared, "pt") as file:
            return {
                name: file.get_tensor(f"{kind}/{name}").to(self._plain.device)
                for name in self._matrices
            }


# --- measuring -----------------------------------------------------------------------------------


def measure(case: Case, repeats: int) -> list[Row]:
    """One row per plain way; all ways run in turns, in opposite order every other time."""
    ways = {"ours": case.ours, **case.plain}
    cpu: dict[str, list[float]] = {name: [] for name in ways}
    wall: dict[str, list[float]] = {name: [] for name in ways}
    answers: dict[str, Answer] = {}
    for repeat in range(repeats):
        for name in list(ways)[:: -1 if repeat % 2 else 1]:
            wall_start, cpu_start = time.perf_counter(), time.process_time()
            answers[name] = ways[name]()
            cpu[name].append(time.process_time() - cpu_start)
            wall[name].append(time.perf_counter() - wall_start)
    return [
        {
            "plain": name,
            "num": case.num,
            **_times("ours", case.num, cpu["ours"], wall["ours"]),
            **_times("plain", case.num, cpu[name], wall[name]),
            **_ratios("speedup", cpu[name], cpu["ours"]),
            **_ratios("speedup_wall", wall[name], wall["ours"]),
            "difference": _largest_difference(answers["ours"], answers[name]),
            "score_std": float(np.std(answers[name].scores)),
            **_bounds(case, answers["ours"], answers[name], cpu["ours"], cpu[name]),
        }
        for name in case.plain
    ]


def matmul_gflops(dtype: torch.dtype, size: int = 2048, repeats: int = 5) -> float:
    """Rate of one large square product per CPU second: about what this machine can do."""
    a, b = (torch.randn(size, size).to(dtype) for _ in range(2))
    a @ b
    start = time.process_time()
    for _ in range(repeats):
        a @ b
    return repeats * 2e-9 * size**3 / (time.process_time() - start)


def _times(who: str, num: int, cpu: list[float], wall: list[float]) -> Row:
    return {
        f"{who}_cpu_s": median(cpu),
        f"{who}_cpu_s_range": [min(cpu), max(cpu)],
        f"{who}_wall_s": median(wall),
        f"{who}_wall_s_range": [min(wall), max(wall)],
        f"{who}_per_cpu_s": num / median(cpu),
    }


def _ratios(name: str, plain: list[float], ours: list[float]) -> Row:
    ratios = [p / o for p, o in zip(plain, ours, strict=True)]
    return {name: median(ratios), f"{name}_range": [min(ratios), max(ratios)]}


def _bounds(
    case: Case, ours: Answer, plain: Answer, ours_cpu: list[float], plain_cpu: list[float]
) -> Row:
    if case.flops is None or plain.scored is None:
        return {}
    ours_flops = case.flops(ours.tokens, plain.scored)
    plain_flops = case.flops(plain.tokens, plain.tokens)
    speedup = median(p / o for p, o in zip(plain_cpu, ours_cpu, strict=True))
    return {
        "ours_tokens": ours.tokens,
        "plain_tokens": plain.tokens,
        "bound_tokens": plain.tokens / ours.tokens,
        "bound_flops": plain_flops / ours_flops,
        "share_of_bound_tokens": speedup * ours.tokens / plain.tokens,
        "share_of_bound_flops": speedup * ours_flops / plain_flops,
        "ours_gflops": 1e-9 * ours_flops / median(ours_cpu),
        "plain_gflops": 1e-9 * plain_flops / median(plain_cpu),
    }


def _largest_difference(ours: Answer, plain: Answer) -> float:
    return float(np.abs(ours.scores - plain.scores).max())


# --- the command ---------------------------------------------------------------------------------


def read_rows(path: Path, where: str) -> list[Example]:
    """Rows of a Parquet or JSON-lines file, shuffled by hash; `where` is COLUMN=VALUE or "all"."""
    if path.suffix == ".parquet":
        records = pq.read_table(path).to_pylist()
    else:
        records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    column, _, value = where.partition("=")
    examples = []
    for record in records:
        texts = record["instruction"], record.get("input") or "", record["output"]
        kept = where == "all" or str(record[column]) == value
        if kept and sum(map(len, texts)) <= MAX_CHARACTERS and texts[2].strip():
            key = content_key(*texts)
            examples.append(Example(str(record.get("id", key)), key, *texts))
    return sorted(examples, key=lambda example: order_hash(SEED, "benchmark", example.key))


def compare(
    name: str, settings: dict[str, Any], examples: Sequence[Example], repeats: int, directory: Path
) -> Iterator[Row]:
    """Rows of one teacher on some examples, the differences in float32 included."""
    cases = {"delift": delift_case, "selectit": selectit_case}
    cases["less"] = partial(less_case, directory=directory)
    config = TeacherConfig.model_validate({"name": name, **settings})
    rows = measure(cases[name](config, examples), repeats)
    gc.collect()
    exact = config.model_copy(
        update={"model": config.model.model_copy(update={"dtype": "float32"})}
    )
    few = cases[name](exact, examples[: max(4, len(examples) // 5)])
    ours = few.ours()
    for row in rows:
        difference = _largest_difference(ours, few.plain[row["plain"]]())
        yield {"teacher": name, **row, "difference_float32": difference}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what the flags ask for; print a table, write JSON."""
    flags = _parser().parse_args(arguments)
    torch.set_num_threads(flags.threads)
    corpus = flags.corpus or (SMALL_CORPUS if SMALL_CORPUS.exists() else DEMO_CORPUS)
    both = ["dataset=alpaca_like", "dataset=superni_like"]
    sets = flags.where or (both if corpus == SMALL_CORPUS else ["all"])
    model = {"path": flags.model, "dtype": flags.dtype, "threads": flags.threads}
    less = {
        "lora_rank": flags.lora_rank, "lora_alpha": 4.0 * flags.lora_rank,
        "projection_dim": flags.projection_dim, "warmup_epochs": flags.warmup_epochs,
    }  # fmt: skip
    settings: dict[str, Any] = {"model": model, "batch_size": flags.batch_size, "less": less}
    runs = [(name, where, flags.rows, settings) for where in sets for name in flags.teachers]
    if flags.full:
        published = {**less, "lora_rank": 128, "lora_alpha": 512, "projection_dim": 8192}
        few = max(4, flags.rows // 4)
        runs += [("less", where, few, {**settings, "less": published}) for where in sets]
    peak = matmul_gflops(getattr(torch, flags.dtype))
    print(f"one large {flags.dtype} matrix product: {peak:.0f} GFLOP per CPU second", flush=True)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as directory:
        for name, where, num_rows, chosen in runs:
            examples = read_rows(corpus, where)[:num_rows]
            for row in compare(name, chosen, examples, flags.repeats, Path(directory)):
                rank = chosen["less"]["lora_rank"] if name == "less" else None
                rows.append({**row, "rows": where, "lora_rank": rank, "matmul_gflops": peak})
            print(f"measured {name} on {len(examples)} rows, {where}", file=sys.stderr, flush=True)
    print(markdown_table(rows, SPEED), markdown_table(rows, AGREEMENT), sep="\n\n")
    if flags.json:
        # names, not places: where a file lay on one machine says nothing to the next reader
        facts = {**vars(flags), "corpus": corpus.name, "where": sets, "json": flags.json.name}
        save(flags.json, "teachers", facts, rows, flags.threads)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--model", default=PACKAGED_LANGUAGE_MODEL, help="as teacher.model.path in a config")
    add("--dtype", default="bfloat16", choices=["bfloat16", "float32"])
    add("--corpus", type=Path, help="Parquet or JSON lines; default: corpus_small, else the demo's")
    add("--where", nargs="+", help="COLUMN=VALUE: sets of rows that are measured apart")
    add("--rows", type=int, default=30, help="points of each set")
    add("--teachers", nargs="+", default=["delift", "selectit", "less"])
    add("--batch-size", type=int, default=16)
    add("--threads", type=int, default=1)
    add("--repeats", type=int, default=3)
    add("--lora-rank", type=int, default=16, help="of less")
    add("--projection-dim", type=int, default=2048, help="of less")
    add("--warmup-epochs", type=int, default=1, help="of less: its checkpoints")
    add("--full", action="store_true", help="less also at rank 128 and 8192, on fewer rows")
    add("--json", type=Path, help="where the result is written")
    return parser


if __name__ == "__main__":
    main()
