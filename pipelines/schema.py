"""What a recipe may say."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field


class Resources(BaseModel):
    """Where and how long a step may run; never part of its key."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    timeout_seconds: float | None = Field(None, gt=0)
    """The worker is ended after this time, and the step tried again."""
    retries: int = Field(2, ge=0, le=10)
    """How often a lost worker is replaced."""
    share_machine: bool = False
    """Do not wait for other runs' heavy steps on this machine."""
    expect_seconds: float | None = Field(None, gt=0)
    """What to show as the expected time before there is a measured one; forgotten by who extends it for other data."""


class Step(BaseModel):
    """One node of a recipe."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, populate_by_name=True)

    uses: str
    """The method, for example `train.stage`."""
    settings: dict[str, Any] = Field(default_factory=dict, alias="with")
    """The method's settings."""
    inputs: dict[str, str | list[str]] = Field(default_factory=dict)
    """Slot to step name (or a list of them), or `registry:NAME@ALIAS[/STEP]`, `registry:NAME/VERSION[/STEP]`; without
    NAME it is the recipe's own registered name."""
    seed: int | None = Field(None, ge=0, lt=2**31)
    """Own seed; the recipe's otherwise."""
    resources: Resources = Field(default_factory=lambda: Resources.model_validate({}))
    """Placement and limits."""
    skip: bool = False
    """Leave this step out: dependents read its `model` input instead."""


StepName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,49}$")]


class Recipe(BaseModel):
    """A named graph of steps."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")
    """Name of the recipe, and of the registered model unless `model` says another."""
    description: str = ""
    """One line for `stillhouse recipes`."""
    model: str | None = Field(None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")
    """Name under which the model is registered."""
    seed: int = Field(42, ge=0, lt=2**31)
    """Seed of every step that has none of its own."""
    steps: dict[StepName, Step] = Field(min_length=1)
    """The graph."""
    retrain: dict[StepName, dict[str, Any] | None] | None = None
    """What is different when the model is trained again on new data: merged over `steps`, null removes a step."""

    @property
    def registered_name(self) -> str:
        return self.model or self.name
