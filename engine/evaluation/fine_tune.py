"""Fine-tune: QLoRA adapters of the evaluated model, one for each subset and seed, on Ray Train.

Source: Dettmers et al. 2023 (QLoRA), with the publication's settings as defaults. A row's prompt is
read and its response learned; the loss of a step is the mean over all response tokens of its rows,
as cross-entropy with label -100 on prompt and padding gives it. Each worker trains adapters of its
own, one after the other beside the same frozen model, so neither the number of workers nor a kill
changes a byte: an adapter that is finished is never trained again, and one that is not goes on from
its last checkpoint.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from engine import storage
from engine.artifacts.files import atomic_path, digest, read_json, write_json
from engine.artifacts.parts import finish_part, finished_part, total_usage
from engine.artifacts.rows import TableParts
from engine.artifacts.run_directory import Artifact
from engine.config import Config, EvaluationConfig, ModelConfig
from engine.config.evaluation import FineTuningConfig
from engine.errors import EngineError, InputError
from engine.evaluation.cells import Cell, subset_rows
from engine.evaluation.prompts import TEMPLATE_VERSION, PromptBuilder
from engine.example import Example, order_hash
from engine.models.adapters import save_adapter
from engine.models.lora import LoraModel, learning_rates
from engine.models.prompt_tokenizer import TrainingRow
from engine.models.resolve import model_identity
from engine.runtime.executor import Executor, Team, Training
from engine.runtime.stage import StageContext, StageResult
from engine.runtime.stopwatch import Stopwatch

__all__ = ["TrainingJob", "fine_tune", "fit_adapter", "run", "train_adapters", "trained_model"]

STEPS_PER_CHECKPOINT = 50
_STEP = "step"


@dataclass(frozen=True)
class TrainingJob:
    """One adapter to train.

    Attributes:
        path: of the adapter, relative to the stage's folder.
        subset: name of the input artifact that lists its rows.
        seed: of first weights, dropout and the order of the rows.
        rows: how many there are.
    """

    path: str
    subset: str
    seed: int
    rows: int


def run(context: StageContext, cells: Sequence[Cell]) -> StageResult:
    """Train what is missing; `cells.json` says which adapter belongs to which cell."""
    config, root = context.config, context.directory
    assert config.evaluation is not None
    trained = [cell for cell in cells if cell.method == "qlora" and cell.subset is not None]
    jobs = context.executor.call(_plan, config, dict(context.inputs), trained)
    pending = {job.path: job for job in jobs.values() if finished_part(root / job.path) is None}
    if pending:
        fine_tune(
            context.executor,
            list(pending.values()),
            config.evaluation,
            dict(context.inputs),
            root,
            _name(pending),
        )
    paths = sorted({job.path for job in jobs.values()})
    parts = [part for path in paths if (part := finished_part(root / path)) is not None]
    assert len(parts) == len(paths), "an adapter was not trained"
    write_json(root / "cells.json", {name: job.path for name, job in sorted(jobs.items())})
    usage = total_usage(parts)
    return StageResult(
        parts={
            "adapters": parts,
            "cells": [finish_part(root, root / "cells.json", len(jobs))],
        },
        counts={"adapters": len(parts), "left_out": int(usage.get("left_out", 0))},
        usage=usage,
        columns={"adapters/*.safetensors": "LoRA A and B of each layer, float32"},
        models={"model": model_identity(config.evaluation.model)},
    )


def trained_model(settings: EvaluationConfig) -> ModelConfig:
    """The evaluated model as it is trained and then asked: quantised."""
    return settings.model.model_copy(update={"quantization": settings.qlora.quantization})


def _plan(
    config: Config, inputs: Mapping[str, Artifact], cells: Sequence[Cell]
) -> dict[str, TrainingJob]:
    """The job of each cell by its name; cells with the same rows and seed share one."""
    settings = config.evaluation
    assert settings is not None
    qlora = settings.qlora.model_dump(mode="json", exclude={"max_seeds", "execution"})
    model = settings.model
    recipe = [TEMPLATE_VERSION, settings.prompt_style, qlora, model_identity(model)]
    recipe += [model.dtype, model.threads, inputs["ingest"].fingerprint]
    jobs = {}
    for cell in cells:
        assert cell.subset is not None
        rows = subset_rows(inputs, cell.subset)
        path = f"adapters/{digest(recipe, rows.tolist(), cell.seed)}.safetensors"
        jobs[cell.name] = TrainingJob(path, cell.subset, cell.seed, len(rows))
    return jobs


def _name(pending: Mapping[str, TrainingJob]) -> str:
    return f"fine-tune-{digest(sorted(pending))}"


# --- training, in a worker -----------------------------------------------------------------------


def train_adapters(
    jobs: Sequence[TrainingJob],
    settings: EvaluationConfig,
    inputs: Mapping[str, Artifact],
    root: Path,
) -> None:
    """Train some adapters one after the other with one model.

    Raises ModelError for a model that cannot be trained, InputError for a subset no row of which
    fits.
    """
    qlora = settings.qlora
    model = LoraModel(
        trained_model(settings),
        qlora.lora_rank,
        qlora.lora_alpha,
        qlora.lora_dropout,
        qlora.lora_targets,
        seed=0,
    )
    prompts = PromptBuilder(model.tokenizer, settings.prompt_style, settings.instruction)
    corpus = TableParts(inputs["ingest"], "candidates")
    for job in jobs:
        if finished_part(root / job.path) is None:
            examples = corpus.examples(subset_rows(inputs, job.subset))
            _train_adapter(model, prompts, settings, job, examples, root)


def _train_adapter(
    model: LoraModel,
    prompts: PromptBuilder,
    settings: EvaluationConfig,
    job: TrainingJob,
    examples: Sequence[Example],
    root: Path,
) -> None:
    watch, qlora = Stopwatch(), settings.qlora
    longest = min(qlora.max_tokens, model.context_size)
    rows: dict[str, TrainingRow] = {}
    for example in examples:
        row = prompts.training_row(example, longest)
        if row is not None:
            rows[example.id] = row
    if not rows:
        raise InputError(
            f"no answer of the subset {job.subset} fits into evaluation.qlora.max_tokens {longest}"
        )
    checkpoint = root / f"{job.path}.checkpoint"
    losses = fit_adapter(model, rows, qlora, job.seed, longest, checkpoint)
    path = root / job.path
    with atomic_path(path) as temporary:
        save_adapter(temporary, model.matrices, model.shape)
    storage.remove(checkpoint)
    usage = {
        "tokens": float(sum(row.size for row in rows.values()) * qlora.epochs),
        "rows": float(len(rows)),
        "left_out": float(len(examples) - len(rows)),
        "last_loss": float(np.mean(losses[-math.ceil(len(rows) / qlora.batch_size) :])),
    }
    finish_part(root, path, len(rows), {**usage, **watch.usage()})


def fit_adapter(
    model: LoraModel,
    rows: Mapping[str, TrainingRow],
    settings: FineTuningConfig,
    seed: int,
    max_positions: int,
    checkpoint: Path | None = None,
) -> list[float]:
    """Train the model's adapters from their first weights; returns the loss of each step.

    Args:
        rows: what to learn, by id: a hash of id and epoch orders them.
        settings: of which rate, epochs and batch size count here.
        seed: of first weights, dropout and order.
        max_positions: of one pass, see `LoraModel.batches`.
        checkpoint: a file for every STEPS_PER_CHECKPOINT steps, where a killed training goes on;
            the losses before it are then missing.
    """
    steps_per_epoch = math.ceil(len(rows) / settings.batch_size)
    rates = learning_rates(settings.learning_rate, 0.0, steps_per_epoch * settings.epochs)
    model.reset(seed)
    optimizer = model.optimizer()
    first = 0 if checkpoint is None else _restore(checkpoint, model, optimizer)
    losses: list[float] = []
    order: list[str] = []
    for step in range(first, len(rates)):
        epoch, place = divmod(step, steps_per_epoch)
        if not order or place == 0:
            order = _order(rows, seed, epoch)
        group = order[place * settings.batch_size : (place + 1) * settings.batch_size]
        # dropout of a step is drawn from its number, so that a restored training goes on alike
        with model.training(order_hash(seed, "dropout", str(step)) >> 1):
            loss = model.train_step(
                optimizer,
                [rows[name] for name in group],
                rates[step],
                settings.batch_size,
                max_positions=max_positions,
                mean_over="tokens",
            )
        losses.append(loss)
        is_last = step + 1 == len(rates)
        if checkpoint is not None and (step + 1) % STEPS_PER_CHECKPOINT == 0 and not is_last:
            _save(checkpoint, model, optimizer, step + 1)
    return losses


def _order(names: Iterable[str], seed: int, epoch: int) -> list[str]:
    return sorted(names, key=lambda name: order_hash(seed, f"epoch {epoch}", name))


def _save(path: Path, model: LoraModel, optimizer: torch.optim.Adam, step: int) -> None:
    tensors: dict[str, Tensor] = {}
    for name, matrix in model.matrices.items():
        state = optimizer.state[matrix]
        tensors[f"{name}.weight"] = matrix.detach().cpu().clone()
        tensors[f"{name}.m"] = state["exp_avg"].cpu().clone()
        tensors[f"{name}.v"] = state["exp_avg_sq"].cpu().clone()
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata={_STEP: str(step)})


def _restore(path: Path, model: LoraModel, optimizer: torch.optim.Adam) -> int:
    """Put a checkpoint back, if there is one; returns the steps that it holds."""
    if not storage.exists(path):
        return 0
    with safe_open(storage.fetch(path), "pt") as file, torch.no_grad():
        step = int(file.metadata()[_STEP])
        for name, matrix in model.matrices.items():
            matrix.copy_(file.get_tensor(f"{name}.weight"))
            optimizer.state[matrix] = {
                "step": torch.tensor(float(step)),
                "exp_avg": file.get_tensor(f"{name}.m").to(matrix.device),
                "exp_avg_sq": file.get_tensor(f"{name}.v").to(matrix.device),
            }
    return step


# --- by workers -----------------------------------------------------------------------------------


def fine_tune(
    executor: Executor,
    jobs: Sequence[TrainingJob],
    settings: EvaluationConfig,
    inputs: Mapping[str, Artifact],
    root: Path,
    name: str,
) -> None:
    """Train the adapters by workers; files say what is finished, also after a crash.

    A worker group that dies is restarted up to 3 times and goes on from the files. Raises what
    `train_adapters` raises.
    """
    execution = settings.qlora.execution
    executor.train(
        Training(
            "a training",
            _train_loop,
            {
                "jobs": [asdict(job) for job in jobs],
                "evaluation": settings.model_dump(mode="json"),
                "inputs": {
                    name: [str(artifact.directory), artifact.manifest]
                    for name, artifact in inputs.items()
                },
                "root": str(root),
            },
            num_workers=min(execution.max_actors or 1, len(jobs)),
            num_gpus=execution.num_gpus,
            together=False,
            storage_path=root / "ray-train",
            name=name,
        )
    )
    failures = [path for path in storage.files_in(root) if path.match("failed-*.json")]
    if failures:
        sentence = read_json(failures[0])
        for path in failures:
            storage.remove(path)
        raise EngineError(sentence)


def _share(jobs: Sequence[TrainingJob], num_workers: int) -> list[list[TrainingJob]]:
    """Jobs of each worker: the longest first, each to the worker that has least to do."""
    shares: list[list[TrainingJob]] = [[] for _ in range(num_workers)]
    for job in sorted(jobs, key=lambda job: (-job.rows, job.path)):
        min(shares, key=lambda share: sum(other.rows for other in share)).append(job)
    return shares


def _train_loop(config: dict[str, Any], team: Team) -> dict[str, Any]:
    """What every worker runs: its share of the adapters."""
    settings = EvaluationConfig.model_validate(config["evaluation"])
    jobs = [TrainingJob(**job) for job in config["jobs"]]
    jobs = _share(jobs, team.size)[team.rank]
    inputs = {
        name: Artifact(Path(path), manifest) for name, (path, manifest) in config["inputs"].items()
    }
    root = Path(config["root"])
    try:
        train_adapters(jobs, settings, inputs, root)
    except EngineError as error:
        # raised, it would only be tried three times more
        write_json(root / f"failed-{team.rank}.json", str(error))
    return {}
