"""Constraints, and whether what an earlier artifact writes passes them: it leaves columns null that it does not know."""

from __future__ import annotations

from collections.abc import Callable

from server.rollbacks.statements.reading import Body, nodes_of, strings_of

NULL_PASSES = frozenset({"ColumnRef", "String", "A_Const", "A_Expr", "TypeCast", "TypeName", "Integer", "List", "A_ArrayExpr"})
"""Of a CHECK made of these alone, null makes null, and null passes."""
NULL_OPERATORS = frozenset({"AEXPR_OP", "AEXPR_OP_ANY", "AEXPR_IN", "AEXPR_LIKE", "AEXPR_ILIKE", "AEXPR_BETWEEN"})


def passes_nulls(constraint: Body, is_free: Callable[[str], bool]) -> bool:
    """Whether rows that have null in the free columns pass, whatever is in the others."""
    match constraint.get("contype"):
        case "CONSTR_FOREIGN" if constraint.get("fk_matchtype") == "s":
            return any(map(is_free, strings_of(constraint.get("fk_attrs"))))
        case "CONSTR_UNIQUE" if not constraint.get("nulls_not_distinct"):
            return any(map(is_free, strings_of(constraint.get("keys"))))
        case "CONSTR_CHECK":
            columns = _columns_checked(constraint.get("raw_expr", {}))
            return bool(columns) and all(map(is_free, columns))
    return False


def judges_alone(constraint: Body, column: str) -> bool:
    """Whether a CHECK is about this column alone."""
    named = {strings_of(body.get("fields"))[-1] for tag, body in nodes_of(constraint.get("raw_expr")) if tag == "ColumnRef"}
    return named <= {column}


def _columns_checked(expression: Body) -> set[str]:
    """The columns of a CHECK in which null makes null; none where it is made of more than that."""
    nodes = list(nodes_of(expression))
    operators = {body.get("kind") for tag, body in nodes if tag == "A_Expr"}
    if not {tag for tag, _ in nodes} <= NULL_PASSES or not operators <= NULL_OPERATORS:
        return set()
    return {strings_of(body.get("fields"))[-1] for tag, body in nodes if tag == "ColumnRef"}
