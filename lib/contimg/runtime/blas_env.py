"""What libraries of linear algebra are told, so that the same input gives the same bytes."""

from __future__ import annotations

from typing import Final

LINEAR_ALGEBRA: Final = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "OPENBLAS_CORETYPE": "Haswell",
}
"""Environment of every process that computes.

Threads share a sum in another order each time, and on few cores they wait for each other: 15 times slower was measured. By itself
OpenBLAS takes the kernels of the processor that it finds, and each kind rounds in its own way (gains differed by 1e-7); those of
Haswell run on any x86-64 processor with AVX2.
"""
