"""LoRA adapters in a causal language model: adding them, naming their weights, files of them."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from engine.errors import ModelError

__all__ = [
    "ADAPTER",
    "AdapterShape",
    "add_adapters",
    "linear_layers",
    "load_adapter",
    "matrices_of",
    "reset_adapters",
    "save_adapter",
]

ADAPTER = "default"
_SHAPE = "shape"


@dataclass(frozen=True)
class AdapterShape:
    """What must be known to put saved adapters into a model.

    Attributes:
        rank, alpha: of LoRA.
        targets: names of the linear layers that have an adapter.
    """

    rank: int
    alpha: float
    targets: tuple[str, ...]


def linear_layers(model: Any) -> tuple[str, ...]:
    """Names of all kinds of linear layers of a model but its LM head, sorted, such as q_proj."""
    head = model.get_output_embeddings()
    found = {
        name.rpartition(".")[2]
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module is not head
    }
    return tuple(sorted(found))


def add_adapters(
    model: Any, rank: int, alpha: float, dropout: float, targets: Sequence[str]
) -> dict[str, Any]:
    """Put float32 adapters into a model; returns the layers that have one, in the model's order."""
    from peft import LoraConfig, inject_adapter_in_model

    settings = LoraConfig(
        r=rank,
        lora_alpha=alpha,  # a factor, whole or not
        lora_dropout=dropout,
        target_modules=list(targets),
    )
    inject_adapter_in_model(settings, model, adapter_name=ADAPTER)
    layers = _layers_in(model)
    for layer in layers.values():
        layer.lora_A.float()
        layer.lora_B.float()
    return layers


def reset_adapters(layers: Mapping[str, Any], seed: int) -> None:
    """First weights again: A drawn from the seed, B zero, so the model is as without adapters."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        for layer in layers.values():
            layer.reset_lora_parameters(ADAPTER, init_lora_weights=True)


def matrices_of(layers: Mapping[str, Any]) -> dict[str, nn.Parameter]:
    """The adapters' weights by name, A then B of each layer; their order numbers them."""
    found = {}
    for name, layer in layers.items():
        found[f"{name}.A"] = layer.lora_A[ADAPTER].weight
        found[f"{name}.B"] = layer.lora_B[ADAPTER].weight
    return found


def save_adapter(path: Path, weights: Mapping[str, Tensor], shape: AdapterShape) -> None:
    """Write adapters as safetensors, their shape in the header; not atomic."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    save_file(tensors, path, metadata={_SHAPE: json.dumps(asdict(shape))})


def load_adapter(model: Any, path: Path | None) -> None:
    """Put saved adapters into a model, in place of those that it has; None makes it plain again.

    Raises ModelError for adapters of another model, or of another shape than those in it.
    """
    if path is None:
        for name, matrix in matrices_of(_layers_in(model)).items():
            if name.endswith(".B"):
                matrix.data.zero_()
        return
    with safe_open(path, "pt") as file:
        values = json.loads(file.metadata()[_SHAPE])
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    shape = AdapterShape(values["rank"], values["alpha"], tuple(values["targets"]))
    layers = _layers_of(model, shape)
    matrices = matrices_of(layers)
    if {n: m.shape for n, m in matrices.items()} != {n: w.shape for n, w in weights.items()}:
        raise ModelError(f"{path} holds adapters of another model than this one")
    with torch.no_grad():
        for name, matrix in matrices.items():
            matrix.copy_(weights[name])


def _layers_in(model: Any) -> dict[str, Any]:
    from peft.tuners.lora import LoraLayer

    return {name: layer for name, layer in model.named_modules() if isinstance(layer, LoraLayer)}


def _layers_of(model: Any, shape: AdapterShape) -> dict[str, Any]:
    """The layers with adapters of a model, which get them now where there are none."""
    if layers := _layers_in(model):
        return layers
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft speaks of layouts that it handles itself
        device = next(model.parameters()).device
        layers = add_adapters(model, shape.rank, shape.alpha, 0.0, shape.targets)
    for layer in layers.values():
        layer.lora_A.to(device)
        layer.lora_B.to(device)
    model.eval()
    return layers
