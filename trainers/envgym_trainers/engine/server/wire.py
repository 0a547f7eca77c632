"""What is read from a server, checked before it is used."""

from __future__ import annotations

from typing import Any, TypeVar

import pydantic

from envgym.web.service import Undecided

__all__ = ["Wire", "parsed"]


class Wire(pydantic.BaseModel):
    """Base of what is read from a server; fields that nobody needs are let pass."""

    model_config = pydantic.ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)


W = TypeVar("W", bound=Wire)


def parsed(form: type[W], answer: Any) -> W:
    """Return ``answer`` as a ``form``.

    Raises:
        Undecided: it is of another form, as what stands between sends it; another attempt may bring a whole one.
    """
    try:
        return form.model_validate(answer)
    except pydantic.ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(map(str, fault["loc"])) or "the answer"
        raise Undecided(f"{where}: {fault['msg']} (got {fault['input']!r:.80})") from None
