"""The stages' images in the cluster: put there by the kit, or by whoever runs the tests."""

from __future__ import annotations

import json
import os
from importlib.metadata import version

from chain import locked
from cluster.kube import KIT, ROOT, KubeError, environment, run

STAMPS = ROOT / ".cache" / "cluster" / "loaded"
"""Which images each cluster has."""


def load() -> None:
    """Load the images that the kit's cluster lacks; any other cluster must have them already.

    Raises
    ------
    KubeError
        If one was not built.
    """
    kit_runs = "contimg-cluster" in environment().get("KUBECONFIG", "")
    if not (KIT / "load-image").is_file() or not kit_runs or "CONTIMG_E2E_LOADED" in os.environ:
        return
    query = ["get", "namespace", "kube-system", "-o", "jsonpath={.metadata.uid}"]
    stamp = STAMPS / f"{run('kubectl', *query)}.json"
    inspect = ["buildah", "inspect", "--type", "image", "--format", "{{.FromImageID}}"]
    with locked(STAMPS / "lock"):  # it takes minutes: one process of a test run does it
        loaded: dict[str, str] = json.loads(stamp.read_text()) if stamp.is_file() else {}
        for stage in sorted(path.parent.name for path in ROOT.glob("stages/*/pyproject.toml")):
            name = f"localhost/contimg-{stage}:{version('contimg')}"
            image = run(*inspect, name, check=False).strip()
            if not image:
                raise KubeError(f"{name} is not built; run make images")
            if loaded.get(name) != image:
                run(KIT / "load-image", name, timeout_s=600)
                loaded[name] = image
                stamp.write_text(json.dumps(loaded))
