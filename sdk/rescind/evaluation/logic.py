"""JsonLogic by itself: a rule and its data, without a flag.

The standard is json-logic's own cases and, where they leave something open, ECMAScript, which the cores of flagd in Go and
JavaScript follow. The released Python core (openfeature-flagd-core 2.0) differs from that in these points, taken as faults of
its own, so that a flag gives one answer in every language (P7):

- `===`, `in`: it takes true for 1; `==`: it takes null for 0, and "" and " " for no number instead of 0;
- `<` and its like between a string and null or a boolean: it compares texts, not numbers;
- `/` and `%` by zero raise; `%` has the sign of the divisor;
- `cat`, `substr`: null is written "null" (a missing attribute in a bucketing value), true "True";
- `max`, `min`: a boolean stays a boolean, and NaN is ignored or not, by position;
- `reduce`: a start that is a rule is not evaluated;
- `-` with null as its second argument negates the first, `<` with null as its third ignores it;
- `fractional`: a weight that is a whole float (25.0, the quotient of two integers) is refused.

Beyond JsonLogic, an integer is given for a variant of 10.0 (flagd's numeric coercion contract), where that core refuses.
"""

from __future__ import annotations

from typing import Any

from rescind.evaluation.branches import HANDLERS
from rescind.evaluation.compiler import no_clock
from rescind.evaluation.errors import UnreadableError
from rescind.evaluation.frame import ITEM, Frame
from rescind.evaluation.limits import DEPTH_MAX, FLAG_NODES_MAX, FLAG_SIZE_MAX
from rescind.evaluation.measure import measure


def apply(rule: Any, data: Any = None) -> Any:
    """The value of a JsonLogic rule for `data`.

    Raises `UnreadableError` for an operator it does not know and a rule beyond the limits, `RuleError` for an evaluation beyond
    them.

    >>> apply({"if": [{">": [{"var": "age"}, 17]}, "adult", "minor"]}, {"age": 20})
    'adult'
    """
    excess = measure(rule, DEPTH_MAX, FLAG_NODES_MAX, FLAG_SIZE_MAX).excess
    if excess is not None:
        raise UnreadableError(*excess)
    frame = Frame("", {}, "v3", no_clock, HANDLERS)
    code = frame.value(rule, ITEM)
    return frame.source.build([f"  return {code.text}"])(data)
