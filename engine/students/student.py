"""What a student is: it learns what a teacher says of some rows, and predicts the rest.

A student is fitted to a `TrainingSet` and predicts in one of two forms:

    product   S[c, t] = <A[c], B[t]>, factors of both sides (`engine.kernels.product`); a teacher
              that scores rows alone has one target, whose factor is 1
    network   an InfluenceNetwork (`engine.kernels.units`, or pair by pair)

To add one: a `Student` subclass with a `name`, in a module here or as an entry point of another
package (docs/extending.md). Students see arrays, know nothing of files of a run, and are the same
bytes for the same data and seed.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from engine import storage
from engine.components import component
from engine.config import NetworkConfig, StudentConfig
from engine.config.facts import STUDENTS, StudentFacts
from engine.errors import ModelError
from engine.kernels.arrays import FloatArray, IndexArray
from engine.kernels.product import Factors
from engine.network.training_set import TrainingSet

__all__ = ["ProductStudent", "Student", "load_student", "student_class"]

_METADATA = "student"


class Student(StudentFacts, ABC):
    """A fitted student; made by `learn` or `load_student`.

    Attributes, beside those of `StudentFacts`:
        pairwise: whether targets matter.
        reads_target_vectors: whether the target side of a prediction is the teacher's vectors,
            (n, V), and not the features, (n, F).
    """

    pairwise: bool = True
    reads_target_vectors: bool = False

    @classmethod
    @abstractmethod
    def learns_from(cls, data: TrainingSet) -> bool:
        """Whether these answers are of a kind that it can learn from."""

    @classmethod
    def contends(cls, data: TrainingSet) -> bool:
        """Whether `auto` should try it on such answers, where the settings name no contenders."""
        return True

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
    found = component(STUDENTS, name)
    assert issubclass(found, Student), f"student {name} has facts and learns nothing"
    return found


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
