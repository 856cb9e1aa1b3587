"""Settings of linear algebra libraries under which the same input gives the same bytes."""

from __future__ import annotations

from typing import Final

LINEAR_ALGEBRA: Final = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "OPENBLAS_CORETYPE": "Haswell",
}
"""Environment of every process that computes.

Threads add in another order each time, and on few cores they wait for each other (15 times slower
was measured). OpenBLAS chooses kernels by processor, and each kind rounds in its own way (gains
differed by 1e-7); those of Haswell run on any x86-64 processor with AVX2.
"""
