"""Columns: what adding one does, and which change of a type widens it."""

from __future__ import annotations

from server.rollbacks.statements.catalogue import Catalogue, ColumnType, Name, NewColumn, constant_of, text_of
from server.rollbacks.statements.constraints import judges_alone, passes_nulls
from server.rollbacks.statements.reading import Body, nodes_of, strings_of
from server.rollbacks.statements.verdicts import Verdict

INTEGERS = ("int2", "int4", "int8")
FLOATS = ("float4", "float8")
SERIALS = {
    "smallserial": "int2",
    "serial2": "int2",
    "serial": "int4",
    "serial4": "int4",
    "bigserial": "int8",
    "serial8": "int8",
}
CONSTANT_NODES = frozenset({"A_Const", "TypeCast", "TypeName", "String", "A_ArrayExpr", "SQLValueFunction", "Integer"})
STEADY_FUNCTIONS = frozenset({"now", "transaction_timestamp", "statement_timestamp"})
"""Evaluated once for all rows that are there: no rewrite."""
REWRITES = "it rewrites the table under an exclusive lock"


def type_of(definition: Body) -> ColumnType | None:
    """The type of a ColumnDef; None where it names none."""
    named = definition.get("typeName")
    if not named:
        return None
    name = strings_of(named.get("names"))[-1]
    constants = [one.get("A_Const", {}).get("ival") for one in named.get("typmods", [])]
    modifiers = tuple(one.get("ival", 0) for one in constants if one is not None)
    return ColumnType(SERIALS.get(name, name), modifiers, bool(named.get("arrayBounds")))


def added(definition: Body, table: Name, catalogue: Catalogue, *, is_sure: bool) -> Verdict:
    """What adding the column does. Its name and type are known from now on."""
    column = definition.get("colname", "")
    kinds = {one["Constraint"]["contype"]: one["Constraint"] for one in definition.get("constraints", [])}
    given = _default_of(definition, kinds)
    is_required = not {"CONSTR_NOTNULL", "CONSTR_PRIMARY"}.isdisjoint(kinds)
    found = type_of(definition)
    if found is not None:
        catalogue.learn(table, column, found, is_sure=is_sure)
    catalogue.columns[table, column] = NewColumn(
        is_sure, is_free=given is None and not is_required, constant=constant_of(_default_expression(kinds))
    )
    about = text_of(table, column)
    if catalogue.is_new(table):
        return Verdict("new_in_release", about)
    checks = [one["Constraint"] for one in definition.get("constraints", []) if one["Constraint"]["contype"] == "CONSTR_CHECK"]
    if not all(judges_alone(one, column) if given else passes_nulls(one, column.__eq__) for one in checks):
        return Verdict("add_constraint", about, "its CHECK")
    if given is None:
        return Verdict("add_column_not_null" if is_required else "add_column", about)
    if given == "constant" and not {"CONSTR_UNIQUE", "CONSTR_PRIMARY"}.isdisjoint(kinds):
        return Verdict("add_column_unique", about)
    return Verdict(
        "add_column_default", about, None if given == "constant" else f"the default differs from row to row: {REWRITES}"
    )


def retyped(definition: Body, column: str, table: Name, catalogue: Catalogue) -> Verdict:
    """What another type does, as far as the old one is known. The new one is from now on."""
    after, held = type_of(definition), catalogue.types.setdefault(table, {})
    before = held.get(column)
    about = text_of(table, column)
    if after is not None:
        held[column] = after
    if catalogue.is_new(table):
        return Verdict("new_in_release", about)
    if before is None or after is None:
        return Verdict("type_not_known", about)
    change = f"{written(before)} to {written(after)}"
    if definition.get("raw_default") is not None and before != after:
        return Verdict("change_type", about, f"{change} by an expression; {REWRITES}")
    if widens(before, after):
        is_rewritten = after.name in INTEGERS and before.name != after.name
        return Verdict("widen_type", about, f"{change}; {REWRITES}" if is_rewritten else change)
    return Verdict("narrow_type" if widens(after, before) else "change_type", about, change)


def widens(before: ColumnType, after: ColumnType) -> bool:
    """Whether every value of the one is a value of the other, and reads the same.

    >>> widens(ColumnType("varchar", (10,)), ColumnType("varchar", (20,))), widens(ColumnType("int8"), ColumnType("int4"))
    (True, False)
    """
    if before == after:
        return True
    if before.is_array or after.is_array:
        return False
    for family in (INTEGERS, FLOATS):
        if before.name in family and after.name in family:
            return family.index(before.name) <= family.index(after.name)
    if before.name in ("varchar", "text") and after.name in ("varchar", "text"):
        return not after.modifiers or (bool(before.modifiers) and before.modifiers[0] <= after.modifiers[0])
    if before.name == after.name == "numeric":
        return not after.modifiers or _digits_fit(before.modifiers, after.modifiers)
    return False


def written(type_: ColumnType) -> str:
    """As people write it.

    >>> written(ColumnType("varchar", (20,)))
    'varchar(20)'
    """
    modifiers = f"({', '.join(map(str, type_.modifiers))})" if type_.modifiers else ""
    return f"{type_.name}{modifiers}{'[]' if type_.is_array else ''}"


def _digits_fit(before: tuple[int, ...], after: tuple[int, ...]) -> bool:
    """The same scale, and no fewer digits: a further scale would show other text for the same number."""
    if not before:
        return False
    return (before[1:] or (0,)) == (after[1:] or (0,)) and before[0] <= after[0]


def _default_of(definition: Body, kinds: dict[str, Body]) -> str | None:
    """What rows get that do not name the column: None, a constant, or a value of their own."""
    named = strings_of(definition.get("typeName", {}).get("names"))
    if not {"CONSTR_IDENTITY", "CONSTR_GENERATED"}.isdisjoint(kinds) or (named and named[-1] in SERIALS):
        return "own"
    if "CONSTR_DEFAULT" not in kinds:
        return None
    expression = _default_expression(kinds)
    nodes = list(nodes_of(expression))
    if any(tag == "A_Const" and body.get("isnull") for tag, body in nodes) and {tag for tag, _ in nodes} <= CONSTANT_NODES:
        return None
    steady = all(tag in CONSTANT_NODES or (tag == "FuncCall" and _is_steady(body)) for tag, body in nodes)
    return "constant" if steady else "own"


def _default_expression(kinds: dict[str, Body]) -> Body:
    found: Body = kinds.get("CONSTR_DEFAULT", {}).get("raw_expr", {})
    return found


def _is_steady(call: Body) -> bool:
    return strings_of(call.get("funcname"))[-1] in STEADY_FUNCTIONS
