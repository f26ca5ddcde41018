"""The source text of one compiled flag, under construction.

Nothing that comes from a user is ever formatted into the text: every constant (keys, strings, numbers, sets, results) is bound
by a generated name and handed to the compiled code as a value. So two flags of one shape have the same text, which is compiled
once.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from types import CodeType
from typing import Any, Final, NamedTuple

from rescind.evaluation.errors import FaultCode, UnreadableError
from rescind.evaluation.limits import EXPANSION_MAX, ITERATIONS_MAX

_CACHED_TEXT_MAX: Final = 8_000


class Code(NamedTuple):
    """An expression in the generated text, and what is known of its value beforehand."""

    text: str
    kind: str = "any"
    """"text", "boolean", "number", "null", "nullable boolean" or "any"."""
    name: bool = False
    """`text` is a name: it may be repeated without evaluating anything twice."""
    is_text: str = ""
    """The local that says whether the value is a string, where there is one."""

    @property
    def plain_truth(self) -> bool:
        """Whether Python's truth of the value is JsonLogic's."""
        return self.kind in ("text", "boolean", "nullable boolean", "null")


class Source:
    """Constants, helper functions and names of one flag."""

    def __init__(self) -> None:
        self.constants: list[Any] = []
        self.functions: list[str] = []
        self.tables: list[str] = []
        self.loops = False
        self._known: dict[object, str] = {}
        self._names = 0
        self._spent = 0

    def spend(self, steps: int = 1) -> None:
        """Count steps of the compilation. Raises `UnreadableError` beyond `EXPANSION_MAX`."""
        self._spent += steps
        if self._spent > EXPANSION_MAX:
            raise UnreadableError(FaultCode.TOO_LARGE, "the targeting has too many rules")

    def bind(self, value: Any) -> str:
        """The name under which the generated code finds `value`."""
        known = (type(value), value) if isinstance(value, str | int | float | bytes) else id(value)
        name = self._known.get(known)
        if name is None:
            name = f"k{len(self.constants)}"
            self.constants.append(value)
            self._known[known] = name
        return name

    def fresh(self, letter: str) -> str:
        """A name that nothing else has."""
        self._names += 1
        return f"{letter}{self._names}"

    def once(self, code: Code) -> tuple[str, str]:
        """`code` to be evaluated first, and then repeated: two texts."""
        if code.name:
            return code.text, code.text
        name = self.fresh("t")
        return f"({name} := {code.text})", name

    def function(self, lines: list[str]) -> str:
        """Add a helper function of (c, b), by the lines of its body; its name."""
        name = self.fresh("h")
        self.functions.append("\n".join([f" def {name}(c, b):", *lines]))
        return name

    def table(self, entries: dict[str, str]) -> str:
        """Add a dict of bound values and helper functions, each given by its name; its own name."""
        name = self.fresh("d")
        self.tables.append(f" {name} = {{{', '.join(f'{key}: {value}' for key, value in entries.items())}}}")
        return name

    def build(self, lines: list[str]) -> Callable[[Any], Any]:
        """The function of (c) whose body is `lines`."""
        start = []
        if self.loops:
            start.append(f"  b = [{self.bind(ITERATIONS_MAX)}]")
        elif self.functions:
            start.append("  b = None")
        names = "".join(f"k{index}, " for index in range(len(self.constants)))
        head = ["def make(constants):", *([f" {names}= constants"] if names else [])]
        body = [*head, *self.functions, *self.tables, " def served(c):", *start, *lines, " return served"]
        space: dict[str, Any] = {"__builtins__": {}}
        text = "\n".join(body)
        code = _cached(text) if len(text) <= _CACHED_TEXT_MAX else _compiled(text)
        exec(code, space)  # noqa: S102 - the text holds names of ours alone
        made: Callable[[Any], Any] = space["make"](tuple(self.constants))
        return made


def _compiled(text: str) -> CodeType:
    return compile(text, "<flag>", "exec", dont_inherit=True, optimize=2)


@lru_cache(maxsize=1024)
def _cached(text: str) -> CodeType:
    """The code of a shape that many flags share."""
    return _compiled(text)
