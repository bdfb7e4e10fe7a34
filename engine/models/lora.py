"""A causal language model with LoRA adapters: fine-tuned a little, then asked for gradients.

The loss of a row is the mean cross-entropy of its response tokens; the prompt is read, not
learned. `fit` trains the adapters, `example_gradients` gives the gradient of each row alone from
one pass over a batch: a weight's gradient is a sum over tokens of (gradient of the layer's output)
x (its input), and summing over one row's tokens only is one small matrix product per row.

Rows are padded on the right, where causal attention never looks, and a padded position has no
loss: its gradient is exactly zero, so batch mates matter through rounding only.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from engine.config import ModelConfig
from engine.errors import ModelError
from engine.kernels.adam import BETAS, EPSILON
from engine.models.adapters import (
    ADAPTER,
    AdapterShape,
    add_adapters,
    linear_layers,
    matrices_of,
    reset_adapters,
)
from engine.models.causal_model import (
    HEAD_ROWS,
    MAX_PADDED,
    context_size,
    load_causal_model,
    logits_finisher,
)
from engine.models.prompt_tokenizer import PromptTokenizer, TrainingRow
from engine.models.resolve import loading

__all__ = ["LoraCheckpoint", "LoraModel", "learning_rates"]

Receiver = Callable[[int, Tensor], None]


@dataclass(frozen=True, slots=True)
class LoraCheckpoint:
    """The adapters after an epoch, on the CPU, by matrix name, float32.

    Attributes:
        weights: of each matrix.
        first_moments: Adam's m of each matrix.
        second_moments: Adam's v.
        num_steps: optimiser steps taken so far.
        learning_rate: mean over the steps of this epoch.
    """

    weights: dict[str, Tensor]
    first_moments: dict[str, Tensor]
    second_moments: dict[str, Tensor]
    num_steps: int
    learning_rate: float


class LoraModel:
    """A causal LM with adapters, on the GPU when there is one; the model itself stays frozen.

    Args:
        config: the model. Adapters are float32 whatever its dtype; beside a bfloat16 model they
            compute in bfloat16, which is 4 times as fast and moves features less than its own
            rounding does.
        rank, alpha, dropout: of LoRA; dropout acts in `fit` only.
        targets: names of the linear layers that get an adapter; None is all but the LM head.
        seed: of the adapters' first weights.

    Raises ModelError when the model cannot be loaded, lacks a target, or has a loss that is not
    the one computed here.
    """

    def __init__(
        self,
        config: ModelConfig,
        rank: int,
        alpha: float,
        dropout: float,
        targets: Sequence[str] | None,
        seed: int,
    ) -> None:
        torch.set_num_threads(config.threads)
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        with loading(config):
            tokenizer, self._model = load_causal_model(config)
        self._tokenizer = PromptTokenizer(tokenizer, config.path)
        targets = linear_layers(self._model) if targets is None else targets
        self.shape = AdapterShape(rank, alpha, tuple(targets))
        self._check_targets(config, targets)
        with loading(config), torch.random.fork_rng(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # peft speaks of layouts that it handles itself
            torch.manual_seed(seed)
            self._layers = add_adapters(self._model, rank, alpha, dropout, targets)
        if not config.quantization:
            self._model.to(self._device)
        self._model.eval()
        self._in_bfloat16 = config.dtype == "bfloat16"
        self._head = self._model.get_output_embeddings()
        self._finish_logits = logits_finisher(self._model.config)
        self._check_loss(config)

    @property
    def matrices(self) -> dict[str, nn.Parameter]:
        """The adapters' weights by name, A then B of each layer; their order numbers them."""
        return matrices_of(self._layers)

    @property
    def device(self) -> torch.device:
        """Where the model runs."""
        return self._device

    @property
    def tokenizer(self) -> PromptTokenizer:
        """Makes the ids of rows."""
        return self._tokenizer

    @property
    def context_size(self) -> int:
        """Most tokens that one row may have."""
        return context_size(self._model)

    def batches(
        self, rows: Sequence[TrainingRow], batch_size: int, max_positions: int
    ) -> Iterator[list[int]]:
        """Positions of rows that go through the model together, by length, then position.

        A batch ends early where one more row would make it mostly padding, or larger than
        `max_positions`; a longer row goes alone.
        """
        batch: list[int] = []
        tokens = 0
        for i in sorted(range(len(rows)), key=lambda i: (rows[i].size, i)):
            size = rows[i].size
            padded = (len(batch) + 1) * size
            full = len(batch) == batch_size or padded > max_positions
            if batch and (full or padded > MAX_PADDED * (tokens + size)):
                yield batch
                batch, tokens = [], 0
            batch.append(i)
            tokens += size
        if batch:
            yield batch

    def fit(
        self,
        rows: Sequence[TrainingRow],
        orders: Sequence[Sequence[int]],
        rows_per_step: int,
        rates: Sequence[float],
        batch_size: int,
        max_positions: int,
        seed: int,
    ) -> list[LoraCheckpoint]:
        """Train the adapters with Adam; one checkpoint per epoch.

        Args:
            rows: what to learn; a step minimises the mean loss of its rows.
            orders: for each epoch, the positions of the rows in the order to learn them.
            rows_per_step: rows of an optimiser step, the last of an epoch may have fewer.
            rates: the learning rate of each step of all epochs.
            batch_size, max_positions: of one pass, see `batches`: a step may take several.
            seed: of the dropout.
        """
        matrices, optimizer = self.matrices, self.optimizer()
        checkpoints = []
        step = 0
        with self.training(seed):
            for order in orders:
                first_step = step
                for start in range(0, len(order), rows_per_step):
                    group = [rows[i] for i in order[start : start + rows_per_step]]
                    self.train_step(optimizer, group, rates[step], batch_size, max_positions)
                    step += 1
                rate = sum(rates[first_step:step]) / (step - first_step)
                checkpoints.append(_checkpoint(matrices, optimizer, step, rate))
        return checkpoints

    def optimizer(self) -> torch.optim.Adam:
        """A fresh Adam over the adapters, for `train_step`."""
        return torch.optim.Adam(self.matrices.values(), lr=0.0, betas=BETAS, eps=EPSILON)

    @contextmanager
    def training(self, seed: int) -> Iterator[None]:
        """Dropout is on inside the block, drawn from the seed; no other random state is touched."""
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self._model.train()
            try:
                yield
            finally:
                self._model.eval()

    def train_step(
        self,
        optimizer: torch.optim.Adam,
        rows: Sequence[TrainingRow],
        rate: float,
        batch_size: int,
        max_positions: int,
        mean_over: Literal["rows", "tokens"] = "rows",
    ) -> float:
        """One step on the mean loss of the rows, each row or each token alike; returns the loss.

        `batch_size` and `max_positions` are of one pass, see `batches`: a step may take several.
        """
        optimizer.param_groups[0]["lr"] = rate
        optimizer.zero_grad()
        tokens = sum(len(row.response) for row in rows)
        loss = 0.0
        for batch in self.batches(rows, batch_size, max_positions):
            part = [rows[i] for i in batch]
            if mean_over == "rows":
                loss += self._backward(part, [1.0 / len(rows)] * len(part))
            else:
                loss += self._backward(part, [len(row.response) / tokens for row in part])
        optimizer.step()
        return loss

    def reset(self, seed: int) -> None:
        """First weights again, drawn from the seed, for another training of the same model."""
        reset_adapters(self._layers, seed)

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Put a checkpoint's weights into the adapters."""
        with torch.no_grad():
            for name, matrix in self.matrices.items():
                matrix.copy_(weights[name])

    @torch.inference_mode()
    def read_answers(
        self, rows: Sequence[TrainingRow], batch_size: int, max_positions: int
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """How likely each row's response is: mean log-probability of its tokens, in nats, (n,).

        Beside it (n,) whether greedy decoding gives just that response: each of its tokens is the
        likeliest behind those before it. One forward pass a row, no dropout.
        """
        values, exact = np.zeros(len(rows), np.float32), np.ones(len(rows), bool)
        for batch in self.batches(rows, batch_size, max_positions):
            hidden = self._hidden_states([rows[i] for i in batch])
            for states, i in zip(hidden, batch, strict=True):
                response, first = rows[i].response, len(rows[i].prompt) - 1
                for start in range(0, len(response), HEAD_ROWS):
                    some = response[start : start + HEAD_ROWS]
                    wanted = torch.tensor(some, device=self._device)
                    behind = states[first + start : first + start + len(some)]
                    logits = self._finish_logits(self._head(behind)).float()
                    loss = cross_entropy(logits, wanted, reduction="sum")
                    values[i] -= float(loss) / len(response)
                    exact[i] &= bool((logits.argmax(dim=1) == wanted).all())
        return values, exact

    def example_gradients(self, rows: Sequence[TrainingRow], receive: Receiver) -> None:
        """Gradient of each row's loss over the adapters, from one pass over the batch.

        Calls `receive(number, gradients)` once per matrix, last layer first: its number in
        `matrices` and (b, entries) float32, in row-major order of the matrix. They are never all
        held at once. No dropout. Costs a forward and a backward pass, and per token
        one multiplication per adapter weight. Raises ModelError for a layer that is not called
        once per pass on (batch, tokens, size), such as an expert of a mixture.
        """
        received: list[int] = []

        def receive_once(number: int, gradients: Tensor) -> None:
            received.append(number)
            receive(number, gradients)

        with self._watched(receive_once):
            self._backward(rows, [1.0] * len(rows))
        if sorted(received) != list(range(2 * len(self._layers))):
            raise ModelError(
                f"{type(self._model).__name__}: some layers of teacher.less.lora_targets are not "
                "called exactly once per pass; leave out layers of experts and shared layers"
            )

    def _backward(self, rows: Sequence[TrainingRow], weights: Sequence[float]) -> float:
        """Backpropagate the weighted sum of the rows' losses, and return it."""
        hidden = self._hidden_states(rows)
        sizes = [len(row.response) for row in rows]
        row_numbers = [i for i, size in enumerate(sizes) for _ in range(size)]
        columns = [len(row.prompt) - 1 + k for row in rows for k in range(len(row.response))]
        wanted = torch.tensor([t for row in rows for t in row.response], device=self._device)
        shares = [w / size for w, size in zip(weights, sizes, strict=True) for _ in range(size)]
        token_weights = torch.tensor(shares, device=self._device)
        chosen = hidden[row_numbers, columns]
        # The head, some rows at a time: the logits of all would be the largest tensor by far.
        leaf = chosen.detach().requires_grad_()
        total = 0.0
        for start in range(0, len(wanted), HEAD_ROWS):
            part = slice(start, start + HEAD_ROWS)
            logits = self._finish_logits(self._head(leaf[part])).float()
            loss = cross_entropy(logits, wanted[part], reduction="none") @ token_weights[part]
            torch.autograd.backward(loss)
            total += float(loss.detach())
        torch.autograd.backward(chosen, leaf.grad)
        return total

    def _hidden_states(self, rows: Sequence[TrainingRow]) -> Tensor:
        """Last hidden states (b, L, H) of right-padded rows; the logits at k - 1 predict k."""
        ids = torch.zeros((len(rows), max(row.size for row in rows)), dtype=torch.long)
        mask = torch.zeros_like(ids)
        for i, row in enumerate(rows):
            ids[i, : row.size] = torch.tensor([*row.prompt, *row.response[:-1]])
            mask[i, : row.size] = 1
        moved = {"input_ids": ids.to(self._device), "attention_mask": mask.to(self._device)}
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._in_bfloat16):
            output = self._model.base_model(**moved, use_cache=False)
        states: Tensor = output[0]
        return states

    @contextmanager
    def _watched(self, receive: Receiver) -> Iterator[None]:
        """Hand each row's gradients to `receive` in the backward passes inside the block.

        The adapters are frozen meanwhile, which saves their summed gradients; so that a graph is
        built all the same, the token embeddings ask for a gradient.
        """
        matrices = list(self.matrices.values())
        with ExitStack() as stack:
            for matrix in matrices:
                matrix.requires_grad_(False)
                stack.callback(matrix.requires_grad_, True)
            embeddings = self._model.get_input_embeddings()
            handles = [embeddings.register_forward_hook(_require_gradient)]
            for number, layer in enumerate(self._layers.values()):
                handles += _watch(layer, 2 * number, receive)
            for handle in handles:
                stack.callback(handle.remove)
            yield

    def _check_targets(self, config: ModelConfig, targets: Sequence[str]) -> None:
        names = [name for name, _ in self._model.named_modules()]
        for target in targets:
            if not any(name == target or name.endswith(f".{target}") for name in names):
                linear = {
                    name.rpartition(".")[2]
                    for name, module in self._model.named_modules()
                    if hasattr(module, "weight") and module.weight.dim() == 2
                }
                raise ModelError(
                    f"model {config.path} has no layer {target!r}, which "
                    f"teacher.less.lora_targets names; it has {', '.join(sorted(linear))}"
                )

    def _check_loss(self, config: ModelConfig) -> None:
        """Compare the loss of a short row with the model's own."""
        ids = self._tokenizer.tokenize("Question: what comes after one, two, three? Answer: four.")
        row = TrainingRow(ids[:4], ids[4:])
        labels = torch.tensor([[-100] * 4 + ids[4:]], device=self._device)
        with torch.inference_mode():
            whole = torch.tensor([ids], device=self._device)
            plain = float(self._model(input_ids=whole, labels=labels, use_cache=False).loss)
        ours = self._backward([row], [1.0])
        self._model.zero_grad()
        exact = config.dtype == "float32" and config.quantization != "int8"
        tolerance = 1e-3 if exact else 0.05
        if abs(ours - plain) > tolerance * max(1.0, abs(plain)):
            raise ModelError(
                f"model {config.path} ({type(self._model).__name__}) computes its loss in a way "
                "that is not known here; use another model for this teacher"
            )


def learning_rates(peak: float, warmup_ratio: float, num_steps: int) -> list[float]:
    """The rate of each step: rising linearly for a share of the steps, then falling to 0.

    Never 0 itself, so that no step is lost: W = ceil(share * S) steps at peak * (s + 1) / (W + 1),
    then peak * (S - s) / (S - W).
    """
    rising = min(num_steps - 1, -int(-warmup_ratio * num_steps // 1))
    return [
        peak * ((s + 1) / (rising + 1) if s < rising else (num_steps - s) / (num_steps - rising))
        for s in range(num_steps)
    ]


def _checkpoint(
    matrices: Mapping[str, nn.Parameter], optimizer: torch.optim.Adam, step: int, rate: float
) -> LoraCheckpoint:
    def copied(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}

    state = {name: optimizer.state[matrix] for name, matrix in matrices.items()}
    return LoraCheckpoint(
        copied(matrices),
        copied({name: moments["exp_avg"] for name, moments in state.items()}),
        copied({name: moments["exp_avg_sq"] for name, moments in state.items()}),
        step,
        rate,
    )


def _require_gradient(module: nn.Module, inputs: Any, output: Tensor) -> None:
    output.requires_grad_()


def _watch(layer: Any, number: int, receive: Receiver) -> list[Any]:
    """Hooks that take both gradients of one layer; A is `number`, B the next."""
    seen: list[Tensor] = []

    # The layer's own input, not the float32 copy that its adapter gets: neighbours share it.
    def note(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen[:] = [inputs[0].detach()]

    def after_a(_: nn.Module, __: tuple[Tensor, ...], output: Any) -> None:
        output.register_hook(partial(_collect, receive, number, seen[0]))

    def after_b(_: nn.Module, inputs: tuple[Tensor, ...], output: Any) -> None:
        output.register_hook(partial(_collect, receive, number + 1, inputs[0].detach()))

    return [
        layer.register_forward_pre_hook(note),
        layer.lora_A[ADAPTER].register_forward_hook(after_a),
        layer.lora_B[ADAPTER].register_forward_hook(after_b),
    ]


def _collect(receive: Receiver, number: int, inputs: Tensor, gradient: Tensor) -> None:
    """A matrix's gradient in each row: sum over tokens of output gradient x input."""
    receive(number, torch.bmm(gradient.mT, inputs.to(gradient.dtype)).flatten(1).float())
