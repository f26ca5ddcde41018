"""The sandbox in which templates of definitions are read and rendered: what users write never reaches Python.

Context: `effect` (payload, result, key, subject, id, kind), `effects` (all of them, when merged), `rollback` (id, reason,
incident). An unknown name is an error, never an empty string in a customer's mail.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from jinja2 import StrictUndefined, Template, TemplateSyntaxError, meta
from jinja2.sandbox import ImmutableSandboxedEnvironment

NAMES = frozenset({"effect", "effects", "rollback"})
RENDERED_MAX = 262_144
COMPILED_MAX = 1_024

_ENVIRONMENT = ImmutableSandboxedEnvironment(undefined=StrictUndefined, autoescape=False, keep_trailing_newline=True)


def fault(text: str) -> str | None:
    """What is wrong with the template, in words, or null.

    >>> fault("Dear {{ effect.payload.name }}")
    >>> fault("{{ effet.id }}")
    "knows no 'effet'; a template sees effect, effects, rollback"
    """
    try:
        tree = _ENVIRONMENT.parse(text)
        unknown = sorted(meta.find_undeclared_variables(tree) - NAMES - set(_ENVIRONMENT.globals))
    except TemplateSyntaxError as error:
        return f"line {error.lineno}: {error.message}"
    return f"knows no {unknown[0]!r}; a template sees {', '.join(sorted(NAMES))}" if unknown else None


def render(text: str, context: Mapping[str, Any]) -> str:
    """The template filled in. Raises `jinja2.TemplateError` for what is not there, `ValueError` past the limit."""
    rendered = _compiled(text).render(context)
    if len(rendered) > RENDERED_MAX:
        raise ValueError(f"a rendered template is at most {RENDERED_MAX} characters")
    return rendered


@lru_cache(maxsize=COMPILED_MAX)
def _compiled(text: str) -> Template:
    """A template as code: compiling one costs a hundred times what filling it in does."""
    return _ENVIRONMENT.from_string(text)
