"""What a GPU does with the code as it is: models of published shapes, and the kernels.

    python benchmarks/gpu.py --json benchmarks/results/gpu.json
    python benchmarks/gpu.py --quick                  # tiny shapes; runs without a GPU too

Time does not depend on what the weights say, so the models have random ones, in bfloat16, and the
shapes of the publication's: BAAI/bge-large-en-v1.5 as the encoder, and as the teacher a Llama of
Phi-3-mini's shape with the packaged model's vocabulary (its layers are not fused, so LESS finds
those that it adapts). Rows and tokens are those of a real corpus. All wall seconds.

    models   units per second of the encoder and of each teacher, alone in one process. Of teachers
             beside the loop that one would write first (see teachers.py), in turns. `tflops` are
             of the weights' matrix products, forward (of LESS none are given); `share_of_matmul`
             is of one large product in the same run
    kernels  pairs per second from embeddings on the device to the result on the host, beside the
             numba kernels on all CPUs; `same` says that every value has the same bytes where the
             units have, else which share of them
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numba
import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.pairwise import random_embeddings
from benchmarks.provenance import markdown_table, save
from benchmarks.teachers import (
    DEMO_CORPUS,
    SMALL_CORPUS,
    Case,
    delift_case,
    less_case,
    measure,
    read_rows,
    selectit_case,
)
from engine.config import PACKAGED_ENCODER, PACKAGED_LANGUAGE_MODEL, ModelConfig, TeacherConfig
from engine.example import Example
from engine.influence.predict import mean_influence, predict_influence, top_candidates
from engine.models.encoder import Encoder
from engine.models.resolve import resolve
from engine.network.influence_network import InfluenceNetwork

MODELS = (
    "model", "parameters", "batch", "units", "unit", "seconds", "seconds_range", "units_per_s",
    "tokens_per_unit", "tokens_per_s", "tflops", "share_of_matmul", "speedup_wall", "plain",
    "difference", "score_std", "memory_gib",
)  # fmt: skip
KERNELS = (
    "kernel", "rows", "targets", "gpu_s", "cpu_s", "cpus", "gpu_pairs_per_s", "speedup", "same",
    "memory_gib",
)  # fmt: skip
PUBLISHED: dict[str, dict[str, int]] = {
    "encoder": {
        "hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16,
        "intermediate_size": 4096,
    },
    "teacher": {
        "hidden_size": 3072, "num_hidden_layers": 32, "num_attention_heads": 32,
        "num_key_value_heads": 32, "intermediate_size": 8192,
    },
}  # fmt: skip
TINY: dict[str, dict[str, int]] = {
    "encoder": {
        "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "intermediate_size": 128,
    },
    "teacher": {
        "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 4, "intermediate_size": 128,
    },
}  # fmt: skip

Row = dict[str, Any]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the tables, write JSON; without a GPU only say so."""
    flags = _parser().parse_args(arguments)
    if not flags.quick and not torch.cuda.is_available():
        print("no GPU here, nothing measured; --quick runs on tiny shapes", file=sys.stderr)
        return
    corpus = flags.corpus or (SMALL_CORPUS if SMALL_CORPUS.exists() else DEMO_CORPUS)
    examples = read_rows(corpus, "all")
    shapes = TINY if flags.quick else PUBLISHED
    peak = matmul_tflops(256 if flags.quick else 8192)
    print(f"{_device_name()}; one large bfloat16 matrix product: {peak:.3g} TFLOP/s", flush=True)
    facts = {**vars(flags), "corpus": corpus.name, "json": flags.json and flags.json.name}
    facts |= {"device": _device_name(), "matmul_tflops": peak, "shapes": shapes}
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as directory:
        measured = measured_models(flags, shapes, examples, Path(directory))
        for row in itertools.chain(measured_kernels(flags.quick), measured):
            rows.append(row | {"share_of_matmul": row["tflops"] / peak} if "tflops" in row else row)
            print(f"measured {row.get('kernel', row.get('model'))}", file=sys.stderr, flush=True)
            if flags.json:  # after each, since a loan of a GPU may end
                save(flags.json, "gpu", facts, rows, torch.get_num_threads())
    print(markdown_table([r for r in rows if "kernel" in r], KERNELS))
    print(markdown_table([r for r in rows if "model" in r], MODELS))


# --- models --------------------------------------------------------------------------------------


def measured_models(
    flags: argparse.Namespace,
    shapes: dict[str, dict[str, int]],
    examples: Sequence[Example],
    directory: Path,
) -> Iterator[Row]:
    """One row for each model, loaded as the stages load it."""
    if "encoder" in flags.models:
        path = write_encoder(directory / "encoder", shapes["encoder"])
        for batch in flags.encoder_batch_sizes:
            yield encoder_row(path, examples, flags, batch)
    teachers = [name for name in flags.models if name != "encoder"]
    if not teachers:
        return
    path = write_language_model(directory / "teacher", shapes["teacher"])
    for name in teachers:
        few = examples[: flags.pair_rows if name == "delift" else flags.point_rows]
        config = TeacherConfig.model_validate(
            {"name": name, "batch_size": flags.batch_size}
            | {"model": {"path": str(path), "dtype": "bfloat16"}}
            | {"less": {"warmup_epochs": 1}}
        )
        yield teacher_row(config, few, flags, directory)
        torch.cuda.empty_cache()


def encoder_row(
    path: Path, examples: Sequence[Example], flags: argparse.Namespace, batch: int
) -> Row:
    """Rows of the corpus through `Encoder.encode`."""
    encoder = Encoder(ModelConfig(path=str(path), dtype="bfloat16"))
    texts = [example.text for example in examples[: flags.encoder_rows]]
    found = encoder.encode(texts[:batch], batch)
    _reset_memory()
    seconds = []
    for _ in range(flags.repeats):
        started = time.perf_counter()
        found = encoder.encode(texts, batch)
        seconds.append(time.perf_counter() - started)
    weights = sum(p.numel() for p in encoder._model.parameters() if p.ndim == 2)
    embeddings = encoder._model.tokenizer.vocab_size * encoder.dim
    return {
        "model": "encoder",
        "parameters": sum(p.numel() for p in encoder._model.parameters()),
        "batch": batch,
        **_rates(len(texts), "row", seconds, found.num_tokens, 2.0 * (weights - embeddings)),
        "memory_gib": _memory(),
    }


def teacher_row(
    config: TeacherConfig, examples: Sequence[Example], flags: argparse.Namespace, directory: Path
) -> Row:
    """A teacher beside the plain loop, on the same rows."""
    make: dict[str, Callable[..., Case]] = {"delift": delift_case, "selectit": selectit_case}
    make["less"] = partial(less_case, directory=directory)
    case = make[config.name](config, examples)
    answer = case.ours()  # kernels are chosen and compiled at the first call
    _reset_memory()
    row = measure(case, flags.repeats)[-1]
    flops = None
    if case.flops is not None:
        flops = case.flops(answer.tokens, answer.scored or 0) / max(1, answer.tokens)
    unit = "pair" if config.name == "delift" else "row"
    seconds = [row["ours_wall_s"], *row["ours_wall_s_range"]]
    return {
        "model": config.name,
        "batch": config.batch_size,
        **_rates(case.num, unit, seconds, answer.tokens, flops),
        **{key: row[key] for key in ("speedup_wall", "plain", "difference", "score_std")},
        "memory_gib": _memory(),
    }


def _rates(
    units: int, unit: str, seconds: Sequence[float], tokens: int, flops_per_token: float | None
) -> Row:
    middle = median(seconds)
    row: Row = {
        "units": units,
        "unit": unit,
        "seconds": middle,
        "seconds_range": [min(seconds), max(seconds)],
        "units_per_s": units / middle,
        "tokens_per_unit": tokens / units,
        "tokens_per_s": tokens / middle,
    }
    if flops_per_token is not None:
        row["tflops"] = 1e-12 * flops_per_token * tokens / middle
    return row


def write_encoder(folder: Path, shape: dict[str, int]) -> Path:
    """A BERT of this shape with random weights, mean pooling, and the packaged tokenizer."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
    from transformers import AutoTokenizer, BertConfig, BertModel

    source = resolve(ModelConfig(path=PACKAGED_ENCODER)).source
    tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    config = BertConfig(vocab_size=len(tokenizer), max_position_embeddings=512, **shape)
    plain = folder / "plain"
    _with_random_weights(BertModel, config).save_pretrained(plain)
    tokenizer.save_pretrained(plain)
    transformer = Transformer(str(plain), max_seq_length=512)
    pooling = Pooling(shape["hidden_size"], "mean")
    model = SentenceTransformer(
        modules=[transformer, pooling, Normalize()], trust_remote_code=False
    )
    model.save(str(folder / "model"))
    return folder / "model"


def write_language_model(folder: Path, shape: dict[str, int]) -> Path:
    """A Llama of this shape with random weights and the packaged model's tokenizer."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    source = resolve(ModelConfig(path=PACKAGED_LANGUAGE_MODEL)).source
    tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    special = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id")}
    special["pad_token_id"] = tokenizer.eos_token_id
    config = LlamaConfig(vocab_size=len(tokenizer), **special, **shape)
    _with_random_weights(LlamaForCausalLM, config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _with_random_weights(kind: Any, config: Any) -> Any:
    torch.manual_seed(0)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        return kind(config).to(torch.bfloat16)


# --- kernels -------------------------------------------------------------------------------------


def measured_kernels(quick: bool) -> Iterator[Row]:
    """The three ways from embeddings to influence, on the device and on the CPUs."""
    num_rows, num_targets, dim = (2_000, 500, 64) if quick else (200_000, 10_000, 1024)
    network = InfluenceNetwork(dim, (100,), main_effects=True)
    candidates = random_embeddings(num_rows, dim, [0])
    targets = random_embeddings(num_targets, dim, [1])
    some = candidates[: num_rows // 10]
    work: dict[str, tuple[Any, Callable[[Any, Any], Any]]] = {
        "predict_influence": (some, lambda c, t: predict_influence(network, c, t)),
        "mean_influence": (candidates, lambda c, t: mean_influence(network, c, t)),
        "top_candidates": (some, lambda c, t: top_candidates(network, c, t, 100)),
    }
    device = "cuda" if torch.cuda.is_available() else "cpu"
    cpus = len(os.sched_getaffinity(0))
    torch.set_num_threads(cpus)  # the models above have set it to theirs
    numba.set_num_threads(cpus)
    for name, (rows, run) in work.items():
        sides = torch.from_numpy(rows).to(device), torch.from_numpy(targets).to(device)
        _reset_memory()
        ours, gpu_s = _timed(partial(run, *sides), repeats=3)
        memory = _memory()
        theirs, cpu_s = _timed(partial(run, rows, targets), repeats=1)
        pairs = len(rows) * num_targets
        yield {
            "kernel": name,
            "rows": len(rows),
            "targets": num_targets,
            "gpu_s": gpu_s,
            "cpu_s": cpu_s,
            "cpus": cpus,
            "gpu_pairs_per_s": pairs / gpu_s,
            "speedup": cpu_s / gpu_s,
            "same": _share_of_same(ours, theirs),
            "memory_gib": memory,
        }


def _timed(run: Callable[[], Any], repeats: int) -> tuple[Any, float]:
    """What it gives, and the median seconds after a first call that compiles."""
    found, seconds = run(), []
    for _ in range(repeats):
        started = time.perf_counter()
        found = run()
        seconds.append(time.perf_counter() - started)
    return found, median(seconds)


def _share_of_same(ours: Any, theirs: Any) -> float:
    """Which share of the values have the same bytes; units differ between processors by a step."""
    ours, theirs = (x.influence if hasattr(x, "influence") else x for x in (ours, theirs))
    return float(np.mean(np.asarray(ours) == np.asarray(theirs)))


# --- the device ----------------------------------------------------------------------------------


def matmul_tflops(size: int, repeats: int = 10) -> float:
    """Rate of one large square bfloat16 product: about what the device can do."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    a, b = (torch.randn(size, size, device=device).to(torch.bfloat16) for _ in range(2))
    for _ in range(3):
        a @ b
    _synchronise()
    started = time.perf_counter()
    for _ in range(repeats):
        a @ b
    _synchronise()
    return repeats * 2e-12 * size**3 / (time.perf_counter() - started)


def _synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _reset_memory() -> None:
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def _memory() -> float | None:
    """Most GiB of the device's memory that tensors held since `_reset_memory`."""
    if not torch.cuda.is_available():
        return None
    return torch.cuda.max_memory_allocated() / 2**30


def _device_name() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--quick", action="store_true", help="tiny shapes, also without a GPU")
    add("--corpus", type=Path, help="Parquet or JSON lines; default: corpus_small, else the demo's")
    add("--models", nargs="+", default=["encoder", "delift", "selectit", "less"])
    add("--encoder-batch-sizes", nargs="+", type=int, default=[64, 256])
    add("--batch-size", type=int, default=16, help="of teachers")
    add("--encoder-rows", type=int, default=4096)
    add("--pair-rows", type=int, default=40, help="of delift: a fifth are examples, all pairs")
    add("--point-rows", type=int, default=48, help="of selectit and less")
    add("--repeats", type=int, default=2)
    add("--json", type=Path, help="where the result is written")
    return parser


if __name__ == "__main__":
    main()
