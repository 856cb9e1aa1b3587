"""The stages' images in the cluster: put there by the kit, or by whoever runs the tests."""

from __future__ import annotations

import json
import os

from chain import locked
from cluster.kube import KIT, ROOT, KubeError, environment, run

REGISTRY = "localhost"
STAMPS = ROOT / ".cache" / "cluster" / "loaded"
"""Which images each cluster has."""


def stages() -> list[str]:
    """Return the names of the stages."""
    return sorted(path.parent.name for path in ROOT.glob("stages/*/pyproject.toml"))


def version() -> str:
    """Return the version that the images are tagged with."""
    from importlib.metadata import version as of

    return of("contimg")


def names() -> list[str]:
    """Return the images as a manifest names them."""
    return [f"{REGISTRY}/contimg-{stage}:{version()}" for stage in stages()]


def kits_cluster() -> bool:
    """Say whether the cluster is one of the kit on this machine."""
    return (KIT / "load-image").is_file() and "contimg-cluster" in environment().get(
        "KUBECONFIG", ""
    )


def ids() -> dict[str, str]:
    """Return the id of each image in buildah's store, by the name that manifests use."""
    found = {}
    for name in names():
        said = run(
            "buildah",
            "inspect",
            "--type",
            "image",
            "--format",
            "{{.FromImageID}}",
            name,
            check=False,
        ).strip()
        if said:
            found[name] = said
    return found


def cluster_id() -> str:
    """Return what tells one cluster from the next."""
    answer: str = json.loads(run("kubectl", "get", "namespace", "kube-system", "-o", "json"))[
        "metadata"
    ]["uid"]
    return answer


def load() -> None:
    """Put the images into the kit's cluster, those that it has not yet; elsewhere they must be
    there already.

    Raises
    ------
    KubeError
        If one was not built.
    """
    if not kits_cluster() or "CONTIMG_E2E_LOADED" in os.environ:
        return
    with locked(
        STAMPS / "lock"
    ):  # what takes minutes is done by one of the processes of a test run
        _load()


def _load() -> None:
    built, stamp = ids(), STAMPS / f"{cluster_id()}.json"
    absent = set(names()) - built.keys()
    if absent:
        raise KubeError(f"not built: {', '.join(sorted(absent))}; run make images")
    loaded: dict[str, str] = json.loads(stamp.read_text()) if stamp.is_file() else {}
    for name, image in built.items():
        if loaded.get(name) != image:
            run(KIT / "load-image", name, timeout_s=600)
            loaded[name] = image
            stamp.write_text(json.dumps(loaded))
