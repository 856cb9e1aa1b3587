"""The pipelines: which stage follows which, and what each reads."""

from __future__ import annotations

from contimg.runtime.errors import UsageError
from contimg.runtime.pipeline import ALL_OTHERS, Parameter, Pipeline, Shortcut, Step

PROCESS_GROUP = Pipeline(
    name="process-group",
    title="Process a group",
    description="One group: from its record to an image, fluxes and a page.",
    subject="group",
    products="products/{group}",
    parameters=(
        Parameter(
            name="group",
            description="Id of the group: its first integration's UTC, such as 20260125t222605.",
        ),
        Parameter(
            name="attempt",
            description="Number of the attempt: STORE/groups/ID-aN.json is read.",
            default="1",
        ),
    ),
    shortcuts=(
        Shortcut(name="tier", sets=("image.tier",)),
        Shortcut(name="catalogue", sets=("image.catalogue", "photometry.catalogue")),
        Shortcut(name="beam", sets=("calibrate.beam", "image.beam")),
        Shortcut(name="calibrator", sets=("calibrate.calibrator",)),
        Shortcut(name="solve", sets=("calibrate.solve",)),
    ),
    steps=(
        Step("convert", fixed={"group": "{store}/groups/{group}-a{attempt}.json"}),
        Step("flag", inputs={"ms": "convert"}),
        Step("calibrate", inputs={"ms": "convert", "flags": "flag"}),
        Step("image", inputs={"ms": "convert", "flags": "flag", "calibration": "calibrate"}),
        Step("photometry", inputs={"image": "image"}),
        Step("report", inputs={"artifacts": ALL_OTHERS}),
    ),
)

EPOCH = Pipeline(
    name="epoch",
    title="Light curves and candidates",
    description=(
        "All fluxes of a Declination strip together: normalised light curves, their statistics, "
        "candidates and a page."
    ),
    subject="epoch",
    products="products/epoch-{epoch}",
    parameters=(
        Parameter(name="strip", description="Pointing Declination of the strip, degrees."),
        Parameter(
            name="epoch", description="Name of the products' folder, STORE/products/epoch-NAME."
        ),
    ),
    steps=(
        Step("normalize", fixed={"strip": "{strip}"}),
        Step("variability", inputs={"normalized": "normalize"}),
        Step("report", inputs={"artifacts": ALL_OTHERS}),
    ),
)

PIPELINES = {pipeline.name: pipeline for pipeline in (PROCESS_GROUP, EPOCH)}


def find_pipeline(name: str) -> Pipeline:
    """Return a pipeline; UsageError if the name is unknown."""
    if name not in PIPELINES:
        problem = f"There is no pipeline of this name; there are {', '.join(PIPELINES)}."
        raise UsageError(f"pipeline {name}", problem, "Correct the name.")
    return PIPELINES[name]
