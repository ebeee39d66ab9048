"""Templates of prompts and answers: texts with names between braces."""

from collections.abc import Sequence
from string import Formatter


def template_fields(key: str, template: str, known: Sequence[str] | None = None) -> list[str]:
    """Returns the names between the braces of a template, in order.

    Raises ValueError, which names `key`, if the template cannot be parsed, has no names, or has a
    name that is not among the `known` ones. Without `known`, every name is a column.
    """
    try:
        parts = [
            (name, spec, conversion)
            for _, name, spec, conversion in Formatter().parse(template)
            if name is not None
        ]
    except ValueError as error:
        raise ValueError(f"{key} is not a template ({error}); write {{{{ for a brace") from error
    names = [name for name, _, _ in parts]
    shown = " or ".join(f"{{{name}}}" for name in known or ())
    if not names:
        raise ValueError(f"{key} names no column; write one as {shown or '{instruction}'}")
    if any(not name or spec or conversion for name, spec, conversion in parts):
        raise ValueError(f"{key} may have nothing but the name of a column between braces")
    unknown = [name for name in names if known is not None and name not in known]
    if unknown:
        raise ValueError(f"{key} names {{{unknown[0]}}}, which does not exist here; write {shown}")
    return names
