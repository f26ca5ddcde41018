"""ALTER TABLE, command by command."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from server.rollbacks.statements.catalogue import Catalogue, Name, name_of, text_of
from server.rollbacks.statements.columns import added, retyped
from server.rollbacks.statements.constraints import passes_nulls
from server.rollbacks.statements.reading import Body
from server.rollbacks.statements.rows import calls
from server.rollbacks.statements.verdicts import Verdict

TABLES = frozenset({"OBJECT_TABLE", "OBJECT_FOREIGN_TABLE"})
LOCKS = "it checks every row under a lock: NOT VALID first, VALIDATE later"
BY_SUBTYPE: dict[str, str] = {
    "AT_DropNotNull": "drop_not_null",
    "AT_SetNotNull": "set_not_null",
    "AT_ValidateConstraint": "validate_constraint",
    "AT_DropConstraint": "drop_constraint",
    "AT_EnableRowSecurity": "row_security",
    "AT_ForceRowSecurity": "row_security",
    "AT_DetachPartition": "detach_partition",
    "AT_DropIdentity": "drop_default",
    "AT_DropExpression": "drop_default",
    "AT_AddIdentity": "set_default",
    **dict.fromkeys(
        (
            "AT_SetStatistics", "AT_SetOptions", "AT_ResetOptions", "AT_SetStorage", "AT_SetCompression", "AT_ClusterOn",
            "AT_DropCluster", "AT_SetTableSpace", "AT_SetRelOptions", "AT_ResetRelOptions", "AT_ReplicaIdentity",
        ),
        "storage",
    ),
}  # fmt: skip
"""Commands that need no second look."""


def altered(tag: str, body: Body, catalogue: Catalogue) -> Iterator[Verdict]:
    """What each command of the statement does."""
    table = name_of(body.get("relation", {}))
    commands = [one["AlterTableCmd"] for one in body.get("cmds", [])]
    if body.get("objtype") not in TABLES:
        stored = all(BY_SUBTYPE.get(one["subtype"]) == "storage" for one in commands)
        yield Verdict("storage" if stored else "other", text_of(table))
        return
    for command in commands:
        yield _command(command, table, catalogue)
    yield from calls(body, catalogue)


def _command(command: Body, table: Name, catalogue: Catalogue) -> Verdict:
    subtype, name = command["subtype"], command.get("name", "")
    if subtype in LOOKED_AT:
        return LOOKED_AT[subtype](command, table, catalogue)
    rule = BY_SUBTYPE.get(subtype, "other")
    about = text_of(table, name)
    return Verdict("new_in_release" if rule != "other" and catalogue.is_new(table) else rule, about)


def _add_column(command: Body, table: Name, catalogue: Catalogue) -> Verdict:
    return added(command["def"]["ColumnDef"], table, catalogue, is_sure=not command.get("missing_ok", False))


def _drop_column(command: Body, table: Name, catalogue: Catalogue) -> Verdict:
    column = command.get("name", "")
    held = catalogue.columns.pop((table, column), None)
    catalogue.types.get(table, {}).pop(column, None)
    is_new = catalogue.is_new(table, surely=True) or (held is not None and held.is_sure)
    return Verdict("new_in_release" if is_new else "drop_column", text_of(table, column))


def _default(command: Body, table: Name, catalogue: Catalogue) -> Verdict:
    about = text_of(table, command.get("name", ""))
    if catalogue.is_new(table):
        return Verdict("new_in_release", about)
    return Verdict("set_default" if "def" in command else "drop_default", about)


def _type(command: Body, table: Name, catalogue: Catalogue) -> Verdict:
    return retyped(command["def"]["ColumnDef"], command.get("name", ""), table, catalogue)


def _constraint(command: Body, table: Name, catalogue: Catalogue) -> Verdict:
    constraint = command.get("def", {}).get("Constraint", {})
    about = text_of(table, constraint.get("conname", ""))
    if catalogue.is_new(table):
        return Verdict("new_in_release", about)
    note = None if constraint.get("skip_validation") else LOCKS
    passes = passes_nulls(constraint, lambda column: catalogue.is_free(table, column))
    return Verdict("constraint_on_new_column" if passes else "add_constraint", about, note)


def _attach(command: Body, table: Name, catalogue: Catalogue) -> Verdict:
    partition = name_of(command.get("def", {}).get("PartitionCmd", {}).get("name", {}))
    return Verdict("create" if catalogue.is_new(partition) else "other", text_of(partition))


LOOKED_AT: dict[str, Callable[[Body, Name, Catalogue], Verdict]] = {
    "AT_AddColumn": _add_column,
    "AT_DropColumn": _drop_column,
    "AT_ColumnDefault": _default,
    "AT_AlterColumnType": _type,
    "AT_AddConstraint": _constraint,
    "AT_AttachPartition": _attach,
}
