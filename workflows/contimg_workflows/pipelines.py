"""The science: which stage follows which, and what it reads. What starts these pipelines is in `drivers`."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from hera.workflows import DAG, Parameter, Task, WorkflowTemplate
from hera.workflows.models import TemplateRef

from contimg_workflows.runs import exit_handler, once, pipeline_template, store_parameter
from contimg_workflows.stages import options_of, parameter

if TYPE_CHECKING:
    from collections.abc import Iterable

STORE = "{{inputs.parameters.store}}"
GROUP = "{{inputs.parameters.group}}"
PLACES = {"store": STORE, "tables": f"{STORE}/tables", "calibrations": STORE}
"""Options that say where things lie."""
GROUP_STAGES = ("convert", "flag", "calibrate", "image", "photometry", "report")


class Pipeline:
    """A DAG in the making: every option that nothing is wired to becomes a parameter, named STAGE-OPTION."""

    def __init__(self, products: str, own: Iterable[Parameter]) -> None:
        self._products = products
        self.parameters = list(own)

    def stage(self, stage: str, *, task: str = "", **wired: str) -> Task:
        """Add a task of a stage; what is wired to its options comes from other tasks or from the pipeline's own parameters."""
        name = task or stage
        fields = options_of(stage).model_fields
        given = {"out": f"{self._products}/{name}", **PLACES, **wired}
        free = {key: field for key, field in fields.items() if key not in given}
        self.parameters += [parameter(f"{name}-{key}", field) for key, field in free.items()]
        values = {key: given.get(key, f"{{{{inputs.parameters.{name}-{key}}}}}") for key in fields}
        return Task(
            name=name,
            template_ref=TemplateRef(name=f"contimg-{stage}", template="main"),
            arguments=values,
        )


def artifact(task: Task) -> str:
    """Refer to the artifact that a task makes."""
    return f"{{{{tasks.{task.name}.outputs.parameters.artifact}}}}"


def group_parameter() -> Parameter:
    """Return the parameter of everything that works on one group."""
    return Parameter(
        name="group",
        description="Id of the group: its first integration's UTC, such as 20260125t222605.",
    )


def attempt_parameter() -> Parameter:
    """Return which record of a group is read."""
    return Parameter(
        name="attempt",
        value="1",
        description="Number of the attempt: STORE/groups/ID-aN.json is read.",
    )


def process_group() -> WorkflowTemplate:
    """One group: from its record to an image, fluxes and a page."""
    own = [store_parameter(), group_parameter(), attempt_parameter()]
    with pipeline_template(
        "process-group", "Process a group", process_group.__doc__, of="group", alone="group"
    ) as template:
        pipeline = Pipeline(f"{STORE}/products/{GROUP}", own)
        with DAG(name="main", retry_strategy=once()) as dag:
            convert = pipeline.stage(
                "convert", group=f"{STORE}/groups/{GROUP}-a{{{{inputs.parameters.attempt}}}}.json"
            )
            flag = pipeline.stage("flag", ms=artifact(convert))
            # A plain Measurement Set has no group; that is for people.
            calibrate = pipeline.stage(
                "calibrate", ms=artifact(convert), flags=artifact(flag), plain_ms="", field="0"
            )
            image = pipeline.stage(
                "image", ms=artifact(convert), flags=artifact(flag), calibration=artifact(calibrate)
            )
            photometry = pipeline.stage("photometry", image=artifact(image))
            report = pipeline.stage(
                "report",
                artifacts=",".join(map(artifact, (convert, flag, calibrate, image, photometry))),
                groups="",
            )
            chain(convert, flag, calibrate, image, photometry, report)
        finish(template, dag, pipeline)
        exit_handler("process-group", group="{{workflow.parameters.group}}")
    return template


def epoch() -> WorkflowTemplate:
    """All fluxes of a Declination strip together: normalised light curves, their statistics, candidates and a page."""
    own = [
        store_parameter(),
        Parameter(name="strip", description="Pointing Declination of the strip, degrees."),
        Parameter(
            name="epoch",
            description="Name of this look at the strip; products go to STORE/products/epoch-NAME.",
        ),
    ]
    with pipeline_template(
        "epoch", "Light curves and candidates", epoch.__doc__, of="epoch", alone="epoch"
    ) as template:
        pipeline = Pipeline(f"{STORE}/products/epoch-{{{{inputs.parameters.epoch}}}}", own)
        with DAG(name="main", retry_strategy=once()) as dag:
            normalize = pipeline.stage("normalize", strip="{{inputs.parameters.strip}}")
            variability = pipeline.stage("variability", normalized=artifact(normalize))
            report = pipeline.stage(
                "report", artifacts=f"{artifact(normalize)},{artifact(variability)}"
            )
            chain(normalize, variability, report)
        finish(template, dag, pipeline)
        exit_handler("epoch")
    return template


def asked(template: WorkflowTemplate) -> dict[str, Parameter]:
    """Return the parameters of a template's form by name."""
    form = template.arguments if isinstance(template.arguments, list) else []
    return {str(one.name): one for one in form if isinstance(one, Parameter)}


def chain(*tasks: Task) -> None:
    """Let each task wait for the one before."""
    for before, after in pairwise(tasks):
        before.next(after)


def finish(template: WorkflowTemplate, dag: DAG, pipeline: Pipeline) -> None:
    """Give the DAG the parameters that its tasks turned out to need, and the form the same."""
    template.arguments = pipeline.parameters
    dag.inputs = [Parameter(name=one.name) for one in pipeline.parameters]
