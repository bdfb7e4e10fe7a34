"""What a student is: it learns what a teacher says of some rows, and predicts the rest.

A student is fitted to a `TrainingSet` and predicts in one of two forms:

    product   S[c, t] = <A[c], B[t]>, factors of both sides (`engine.kernels.product`); a teacher
              that scores rows alone has one target, whose factor is 1
    network   an InfluenceNetwork (`engine.kernels.units`, or pair by pair)

To add one: a module of engine/students/ with a `Student` subclass whose `name` it is, and the name
in `StudentName` (docs/extending.md). Students see arrays, know nothing of files of a run, and are
the same bytes for the same data and seed.
"""

from __future__ import annotations

import importlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, get_args

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from engine import storage
from engine.config import NetworkConfig, StudentConfig, StudentName
from engine.errors import ModelError, SettingsError
from engine.kernels.arrays import FloatArray, IndexArray
from engine.kernels.product import Factors
from engine.network.training_set import TrainingSet
from engine.spelling import meant

__all__ = ["ProductStudent", "Student", "load_student", "student_class"]

_METADATA = "student"


class Student(ABC):
    """A fitted student; made by `learn` or `load_student`.

    Attributes:
        name: as in the settings.
        label: what a reader of the report sees.
        pairwise: whether targets matter.
        reads_target_vectors: whether the target side of a prediction is the teacher's vectors,
            (n, V), and not the features, (n, F).
    """

    name: ClassVar[str]
    label: ClassVar[str]
    pairwise: bool = True
    reads_target_vectors: bool = False

    @classmethod
    @abstractmethod
    def learns_from(cls, data: TrainingSet) -> bool:
        """Whether these answers are of a kind that it can learn from."""

    @classmethod
    @abstractmethod
    def learn(
        cls, data: TrainingSet, settings: StudentConfig, network: NetworkConfig, seed: int
    ) -> Student:
        """Fit to the answers of a teacher, in this process; `data.check()` has been called."""

    @property
    @abstractmethod
    def num_parameters(self) -> int:
        """Numbers that the fit found."""

    @abstractmethod
    def predict_pairs(
        self, candidates: FloatArray, targets: FloatArray | None, pairs: IndexArray
    ) -> FloatArray:
        """Influence (n,) of pairs (n, 2) of rows of two sides; for an audit, not for millions."""

    @abstractmethod
    def save(self, path: Path) -> None:
        """Write one safetensors file; equal students, equal bytes."""

    @property
    def left_out_factors(self) -> FloatArray | None:
        """Right after `learn`: the factors (C, R) of the candidates that it learned from as they
        would be without their own answers, in the order of the training set; None if not known.

        Predictions shrink towards the mean and answers do not, so rows that were asked about win
        the extremes (docs/negative_results.md). With these they compete like all others.
        """
        return None

    def facts(self) -> dict[str, Any]:
        """What the manifest and the report say of the fit, JSON-able."""
        return {}


class ProductStudent(Student):
    """A student whose influence is an inner product of factors."""

    @abstractmethod
    def candidate_factors(self, features: Any, *, threads: int | None = None) -> Factors:
        """(m, F) -> A, (m, R) float32; a function of each block of rows, see `kernel_ridge`."""

    @abstractmethod
    def target_factors(self, targets: Any, *, threads: int | None = None) -> Factors:
        """Features (n, F), or the teacher's vectors (n, V) -> B, (n, R) float32."""

    def predict_pairs(
        self, candidates: FloatArray, targets: FloatArray | None, pairs: IndexArray
    ) -> FloatArray:
        """As `Student.predict_pairs`; in float64, rounded once."""
        left = np.asarray(self.candidate_factors(candidates), np.float64)
        if targets is None or not self.pairwise:
            return np.asarray(left[pairs[:, 0], 0], np.float32)
        right = np.asarray(self.target_factors(targets), np.float64)
        found = np.empty(len(pairs), np.float32)
        for start in range(0, len(pairs), 4096):
            c, t = pairs[start : start + 4096].T
            found[start : start + 4096] = np.einsum("nr,nr->n", left[c], right[t])
        return found

    @abstractmethod
    def arrays(self) -> dict[str, NDArray[Any]]:
        """What a file holds of it."""

    @abstractmethod
    def numbers(self) -> dict[str, Any]:
        """What else a file holds of it, JSON-able."""

    @classmethod
    @abstractmethod
    def of_file(
        cls, arrays: Mapping[str, NDArray[Any]], numbers: Mapping[str, Any]
    ) -> ProductStudent:
        """Read what `arrays` and `numbers` gave; raises KeyError for what is missing."""

    def save(self, path: Path) -> None:
        # One entry: safetensors writes several in an order that changes from process to process.
        told = json.dumps({"name": self.name, **self.numbers()}, sort_keys=True)
        arrays = {name: np.ascontiguousarray(array) for name, array in self.arrays().items()}
        safetensors.numpy.save_file(arrays, path, metadata={_METADATA: told})


def student_class(name: str) -> type[Student]:
    """The class of a student, by the name in the settings."""
    known = [known for known in get_args(StudentName) if known != "auto"]
    if name not in known:
        listed = ", ".join(known)
        raise SettingsError(f"unknown student {name!r}; known: {listed}{meant(name, known)}")
    defined = vars(importlib.import_module(f"engine.students.{name}")).values()
    classes = [value for value in defined if isinstance(value, type) and issubclass(value, Student)]
    found = [class_ for class_ in classes if class_.__dict__.get("name") == name]
    assert len(found) == 1, f"engine/students/{name}.py has no one Student whose name is {name!r}"
    return found[0]


def students_for(data: TrainingSet, names: Sequence[str]) -> list[type[Student]]:
    """Those of some students that can learn from these answers, in the order named."""
    return [kind for kind in map(student_class, names) if kind.learns_from(data)]


def load_student(path: Path) -> Student:
    """Read what `save` wrote, of whatever student; raises ModelError for a file that is none."""
    from engine.students.network import NetworkStudent

    try:
        with safetensors.safe_open(storage.fetch(path), framework="np") as file:
            metadata = file.metadata() or {}
            if _METADATA not in metadata:
                return NetworkStudent.load(path)
            numbers = json.loads(metadata[_METADATA])
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        kind = student_class(numbers.pop("name"))
        assert issubclass(kind, ProductStudent), "others have no such file"
        return kind.of_file(arrays, numbers)
    except (KeyError, OSError, ValueError, TypeError, safetensors.SafetensorError) as error:
        raise ModelError(f"{path} is not a saved student: {error}") from None
