"""Names of the array types that kernels take and return."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["DoubleArray", "FloatArray", "IndexArray"]

FloatArray = NDArray[np.float32]
DoubleArray = NDArray[np.float64]
IndexArray = NDArray[np.int64]
