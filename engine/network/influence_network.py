"""The InfluenceNetwork: learns a teacher's scores from the embeddings of a pair.

Source: NN-CIFT (arXiv 2502.09969), section 3: one hidden layer of 100 units on [e_c ; 0 ; e_t],
205,101 parameters at D = 1024. The optional main effects add one linear term per side; they keep
the form of `engine.kernels.units` that makes all pairs cheap, deeper networks lose it.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn

from engine import storage
from engine.errors import ModelError
from engine.kernels.arrays import DoubleArray
from engine.kernels.units import PairwiseForm

__all__ = ["InfluenceNetwork"]


class InfluenceNetwork(nn.Module):
    """MLP from the embeddings of candidates and targets to influence in the teacher's units.

    Args:
        dim: D, size of one embedding.
        hidden: units per hidden layer; () is a linear model.
        pairwise: read [e_c ; 0 ; e_t] (2 D + 1 inputs); else e_c alone (D inputs).
        main_effects: add a_c . e_c + a_t . e_t to the output; starts at zero.
        generator: where the initial weights come from; default: torch's global one.
        outputs: V, to predict a vector in place of a number; a vector has a mean for each of its
            coordinates and one standard deviation for all of them.

    The label scaling (`label_mean`, `label_std`) is part of the state, so a loaded network
    predicts in the units of its training labels. Everything is float32.
    """

    label_mean: Tensor
    label_std: Tensor

    def __init__(
        self,
        dim: int,
        hidden: Sequence[int] = (100,),
        pairwise: bool = True,
        main_effects: bool = False,
        generator: torch.Generator | None = None,
        outputs: int | None = None,
    ) -> None:
        super().__init__()
        self.dim = dim
        self.hidden = tuple(hidden)
        self.pairwise = pairwise
        self.outputs = outputs
        sizes = (2 * dim + 1 if pairwise else dim, *self.hidden, outputs or 1)
        self.layers = nn.ModuleList(
            _linear(fan_in, fan_out, generator) for fan_in, fan_out in itertools.pairwise(sizes)
        )
        self.main: nn.Linear | None = None
        if main_effects:
            self.main = _empty_linear(2 * dim if pairwise else dim, outputs or 1, bias=False)
            nn.init.zeros_(self.main.weight)
        self.register_buffer("label_mean", torch.zeros(() if outputs is None else outputs))
        self.register_buffer("label_std", torch.ones(()))

    def forward(self, candidates: Tensor, targets: Tensor | None = None) -> Tensor:
        """Influence of each pair in label units: (B, D) and (B, D) -> (B,), or (B, V)."""
        return self.standardised(candidates, targets) * self.label_std + self.label_mean

    def standardised(self, candidates: Tensor, targets: Tensor | None = None) -> Tensor:
        """Influence in standard deviations of the training labels, what the loss is taken on."""
        if self.pairwise:
            assert targets is not None, "a pairwise network needs the targets"
            separator = candidates.new_zeros(len(candidates), 1)
            inputs = torch.cat((candidates, separator, targets), dim=1)
            main_inputs = torch.cat((candidates, targets), dim=1)
        else:
            inputs = main_inputs = candidates
        x = inputs
        for layer in self.layers[:-1]:
            x = torch.relu(layer(x))
        x = self.layers[-1](x)
        if self.main is not None:
            x = x + self.main(main_inputs)
        return cast(Tensor, x if self.outputs is not None else x.squeeze(1))

    @property
    def factorises(self) -> bool:
        """Whether `factorise` applies: at most one hidden layer."""
        return len(self.hidden) <= 1

    @torch.no_grad()
    def factorise(self) -> PairwiseForm:
        """The network as two affine maps, one a side, and a maximum per unit; in float64."""
        assert self.factorises, "only a network with at most one hidden layer factorises"
        assert self.outputs is None, "a vector is a factor itself"
        *hidden, last = (cast(nn.Linear, layer) for layer in self.layers)
        scale = float(self.label_std)
        constant = float(last.bias) * scale + float(self.label_mean)
        nothing = np.zeros((0, self.dim))
        on_candidates, on_targets = nothing, nothing
        hidden_bias, output_weight = np.zeros(0), np.zeros(0)
        main = [np.zeros(self.dim), np.zeros(self.dim)]
        if hidden:
            on_candidates, on_targets = self._by_side(hidden[0].weight, separator=True)
            hidden_bias = hidden[0].bias.double().numpy()
            output_weight = last.weight.double().squeeze(0).numpy() * scale
        else:
            linear = self._by_side(last.weight, separator=True)
            main = [total + part[0] * scale for total, part in zip(main, linear, strict=True)]
        if self.main is not None:
            linear = self._by_side(self.main.weight, separator=False)
            main = [total + part[0] * scale for total, part in zip(main, linear, strict=True)]
        return PairwiseForm.of_layers(
            on_candidates, on_targets, hidden_bias, output_weight, main[0], main[1], constant
        )

    def _by_side(self, weight: Tensor, separator: bool) -> tuple[DoubleArray, DoubleArray]:
        """Input weights (h, inputs) as those of the candidate and of the target, each (h, D)."""
        both = weight.double().numpy()
        if not self.pairwise:
            return both, np.zeros_like(both)
        return both[:, : self.dim], both[:, self.dim + (1 if separator else 0) :]

    @classmethod
    @torch.no_grad()
    def mean_of(cls, networks: Sequence[InfluenceNetwork]) -> InfluenceNetwork:
        """One network that predicts the mean of several, their hidden units side by side.

        Exact up to float32 rounding. A single network is returned as it is; several must have one
        hidden layer each and the same inputs.
        """
        if len(networks) == 1:
            return networks[0]
        assert all(len(network.hidden) == 1 for network in networks), "one hidden layer each"
        first = networks[0]
        mean = cls(
            first.dim,
            (sum(network.hidden[0] for network in networks),),
            pairwise=first.pairwise,
            main_effects=first.main is not None,
            outputs=first.outputs,
            generator=torch.Generator(),
        )
        scale = torch.stack([network.label_std for network in networks])
        mean.label_std.copy_(scale.mean())
        mean.label_mean.copy_(torch.stack([network.label_mean for network in networks]).mean(dim=0))
        # a member's share of the output, in standard deviations of the mean network
        shares = (scale / (scale.mean() * len(networks))).tolist()
        below, above = (cast(nn.Linear, layer) for layer in mean.layers)
        layers = [[cast(nn.Linear, layer) for layer in network.layers] for network in networks]
        below.weight.copy_(torch.cat([hidden.weight for hidden, _ in layers]))
        below.bias.copy_(torch.cat([hidden.bias for hidden, _ in layers]))
        weighed = list(zip(layers, shares, strict=True))
        above.weight.copy_(torch.cat([last.weight * s for (_, last), s in weighed], dim=1))
        above.bias.copy_(torch.stack([last.bias * s for (_, last), s in weighed]).sum(dim=0))
        if mean.main is not None:
            mains = [cast(nn.Linear, network.main).weight for network in networks]
            parts = [main * s for main, s in zip(mains, shares, strict=True)]
            mean.main.weight.copy_(torch.stack(parts).sum(dim=0))
        return mean.eval()

    def save(self, path: Path) -> None:
        """Write weights, label scaling and shape as safetensors; equal networks, equal bytes."""
        shape = {
            "dim": self.dim,
            "hidden": self.hidden,
            "pairwise": self.pairwise,
            "main_effects": self.main is not None,
            "outputs": self.outputs,
        }
        # One entry: safetensors writes several in an order that changes from process to process.
        metadata = {"influence_network": json.dumps(shape)}
        safetensors.torch.save_file(self.state_dict(), path, metadata=metadata)

    @classmethod
    def load(cls, path: Path) -> InfluenceNetwork:
        """Read what `save` wrote; raises ModelError for a file that is none of ours."""
        try:
            with safetensors.safe_open(storage.fetch(path), framework="pt") as file:
                shape = json.loads((file.metadata() or {})["influence_network"])
                state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            network = cls(
                dim=shape["dim"],
                hidden=shape["hidden"],
                pairwise=shape["pairwise"],
                main_effects=shape["main_effects"],
                outputs=shape.get("outputs"),
                generator=torch.Generator(),
            )
            network.load_state_dict(state)
        except (
            KeyError,
            OSError,
            RuntimeError,
            TypeError,
            ValueError,
            safetensors.SafetensorError,
        ) as error:
            raise ModelError(f"{path} is not a saved InfluenceNetwork: {error}") from None
        return network.eval()


def _linear(fan_in: int, fan_out: int, generator: torch.Generator | None) -> nn.Linear:
    """A layer with torch's own initial distribution, drawn from a given generator."""
    layer = _empty_linear(fan_in, fan_out, bias=True)
    bound = fan_in**-0.5
    nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
    nn.init.uniform_(layer.bias, -bound, bound, generator=generator)
    return layer


def _empty_linear(fan_in: int, fan_out: int, bias: bool) -> nn.Linear:
    """A layer without values: nn.Linear itself would draw from the global random state."""
    layer = nn.utils.skip_init(nn.Linear, fan_in, fan_out, bias=bias)  # type: ignore[no-untyped-call]
    return cast(nn.Linear, layer)
