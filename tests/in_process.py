"""Stages without Ray: the same partitions, tasks and fit, one after the other in this process."""

import importlib
import pkgutil
from contextlib import nullcontext

from engine.evaluation.fine_tune import train_adapters
from engine.network.fit import fit_network
from engine.network.training_set import TrainingSet
from engine.run_directory import finish_part, finished_part
from engine.stage import Stopwatch

PACKAGES = (
    "audit",
    "stages",
    "corpus",
    "embedding",
    "teachers",
    "network",
    "influence",
    "selection",
    "report",
    "evaluation",
    "planning",
    "study",
)


def run_partitions(partitions, root, worker, worker_args, **rest):
    made, parts = None, []
    for partition in partitions:
        path = root / partition.path
        part = finished_part(path)
        if part is None:
            made = made or worker(**worker_args)
            watch = Stopwatch()
            rows, usage = made.write(partition.payload, path)
            part = finish_part(root, path, rows, {**usage, **watch.usage()})
        parts.append(part)
    return parts


def run_task(function, *args, threads=1):
    return function(*args)


class _Fitted:
    def __init__(self, network):
        parameters = sum(parameter.numel() for parameter in network.parameters())
        self.values = {"epochs": 1, "num_parameters": parameters, "histories": []}

    def to_dict(self):
        return self.values


def fit_on_ray(data_dir, output_path, settings, seed, storage_path, name):
    data = TrainingSet.open(data_dir)
    network = fit_network(data.candidates, data.targets, data.pairs, data.labels, settings, seed)
    network.save(output_path)
    return _Fitted(network)


def fine_tune_on_ray(jobs, settings, inputs, root, name):
    train_adapters(jobs, settings, inputs, root)


REPLACEMENTS = {
    "fine_tune_on_ray": fine_tune_on_ray,
    "run_partitions": run_partitions,
    "run_task": run_task,
    "fit_on_ray": fit_on_ray,
    "node_cpus": lambda: 2,
    "refuse_unseen": lambda paths: None,
    "connected": lambda config: nullcontext(),
}


def replace_ray(monkeypatch):
    """Have the stages and the pipeline call the functions above."""
    names = ("pipeline", "named_columns", "additions", "arms")
    modules = [importlib.import_module(f"engine.{name}") for name in names]
    for package in PACKAGES:
        folder = importlib.import_module(f"engine.{package}")
        for module in pkgutil.iter_modules(folder.__path__):
            modules.append(importlib.import_module(f"engine.{package}.{module.name}"))
    for module in modules:
        for name, replacement in REPLACEMENTS.items():
            if hasattr(module, name):
                monkeypatch.setattr(module, name, replacement)
