"""Data that never changes, is checked whenever it is made, and tells all that is wrong with it."""

from __future__ import annotations

from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError


class Frozen(BaseModel):
    """Named, typed fields: none other, none of another type, no NaN or infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=True)

    def model_copy(self, *, update: dict[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy with changes, checked like anything new. Raises ValidationError."""
        return type(self).model_validate(
            {**{name: getattr(self, name) for name in type(self).model_fields}, **(update or {})}
        )


def with_more(error: ValidationError, sentences: list[str]) -> ValidationError:
    """The same error, which says these sentences as well."""
    found = [{key: e[key] for key in ("type", "loc", "input", "ctx") if key in e} for e in error.errors()]
    if sentences:
        found.append({"type": "value_error", "input": None, "ctx": {"error": ValueError("\n".join(sentences))}})
    return ValidationError.from_exception_data(error.title, found)
