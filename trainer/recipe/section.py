"""The base class of all sections of a recipe, and types that their keys share."""

from typing import Annotated, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, Strict

T = TypeVar("T")

PositiveInt = Annotated[int, Field(gt=0, le=2**31 - 1)]
CountInt = Annotated[int, Field(ge=0, le=2**31 - 1)]
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]
"""The range that numpy's generators accept."""
Fraction = Annotated[float, Field(ge=0, lt=1)]
ListOf = Annotated[tuple[T, ...], Strict(False)]
"""A tuple, which YAML writes as a list. Its items are as strict as any other value."""


class Section(BaseModel):
    """Base of all sections: rejects unknown keys, does not convert values, and is immutable."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        serialize_by_alias=True,
    )


def _separator(value: str) -> str:
    if value == "":
        raise ValueError("an empty text cannot separate; use null for no separator")
    return value


PairSeparator = Annotated[str, AfterValidator(_separator)] | None
"""`auto`, null or a text."""
