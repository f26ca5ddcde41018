"""What is created, dropped, renamed and granted; and what is no change at all."""

from __future__ import annotations

from collections.abc import Iterator

from server.rollbacks.statements.catalogue import Catalogue, Constant, Name, constant_of, name_from, name_of, text_of
from server.rollbacks.statements.columns import type_of
from server.rollbacks.statements.reading import Body, strings_of
from server.rollbacks.statements.rows import calls, written
from server.rollbacks.statements.verdicts import Verdict

BLOCKS = "it keeps writers out while it is built: CONCURRENTLY does not"
SUPPORT = frozenset({"OBJECT_INDEX", "OBJECT_TABCONSTRAINT", "OBJECT_TRIGGER", "OBJECT_POLICY"})
RELATIONS = frozenset({"OBJECT_TABLE", "OBJECT_VIEW", "OBJECT_MATVIEW", "OBJECT_FOREIGN_TABLE"})


def created_table(tag: str, body: Body, catalogue: Catalogue) -> Iterator[Verdict]:
    """A table is new; its columns' types are known from now on."""
    table, is_sure = name_of(body.get("relation", {})), _is_sure(body, body.get("relation", {}))
    if is_sure or table not in catalogue.types:
        catalogue.tables[table] = is_sure
    for element in body.get("tableElts", []):
        column = element.get("ColumnDef")
        found = type_of(column) if column else None
        if found is not None:
            catalogue.learn(table, column.get("colname", ""), found, is_sure=is_sure)
    yield Verdict("create", text_of(table))


def created_as(tag: str, body: Body, catalogue: Catalogue) -> Iterator[Verdict]:
    """A table, or a materialized view, of what a query answers."""
    relation = body.get("into", {}).get("rel", {})
    called = list(calls(body, catalogue))
    if "ExecuteStmt" in body.get("query", {}):
        called.append(Verdict("other", text_of(name_of(relation))))
    catalogue.tables[name_of(relation)] = _is_sure(body, relation)
    yield from called or [Verdict("create", text_of(name_of(relation)))]


def _is_sure(body: Body, relation: Body) -> bool:
    """Whether it cannot have been there before. What is temporary hides what has its name, and goes by itself."""
    return not body.get("if_not_exists", False) and relation.get("relpersistence") != "t"


def created_index(tag: str, body: Body, catalogue: Catalogue) -> Iterator[Verdict]:
    """Only a unique one refuses anything."""
    table, is_unique = name_of(body.get("relation", {})), body.get("unique", False)
    if "idxname" in body and not body.get("if_not_exists", False):
        catalogue.indexes[body["idxname"]] = is_unique
    about = text_of(table, body.get("idxname", ""))
    if catalogue.is_new(table):
        yield Verdict("new_in_release", about)
        return
    rule = "create_index"
    if is_unique:
        rule = "index_on_new_rows" if _passes_over(body, table, catalogue) else "unique_index"
    yield Verdict(rule, about, None if body.get("concurrent") else BLOCKS)


def _passes_over(index: Body, table: Name, catalogue: Catalogue) -> bool:
    """Whether a unique index passes over every row of an earlier artifact: by a key that is null there, or by its WHERE."""
    keys = [one.get("IndexElem", {}).get("name", "") for one in index.get("indexParams", [])]
    if not index.get("nulls_not_distinct") and any(catalogue.is_free(table, key) for key in keys):
        return True
    column, asked = _equals(index.get("whereClause", {}))
    held = catalogue.columns.get((table, column))
    if held is None or asked is None:
        return False
    return held.is_free or (held.constant is not None and held.constant[0] == asked[0] and held.constant != asked)


def _equals(condition: Body) -> tuple[str, Constant | None]:
    """The column and the literal of `column = literal`, or of a column alone, which is true; nothing for what is else."""
    if "ColumnRef" in condition:
        return strings_of(condition["ColumnRef"].get("fields"))[-1], ("boolval", True)
    compared = condition.get("A_Expr", {})
    left = compared.get("lexpr", {}).get("ColumnRef")
    if left is None or compared.get("kind") != "AEXPR_OP" or strings_of(compared.get("name")) != ["="]:
        return "", None
    return strings_of(left.get("fields"))[-1], constant_of(compared.get("rexpr", {}))


def created_view(tag: str, body: Body, catalogue: Catalogue) -> Iterator[Verdict]:
    """A view is new, unless it replaces one."""
    view = name_of(body.get("view", {}))
    if body.get("replace") and not catalogue.is_new(view, surely=True):
        yield Verdict("replace_view", text_of(view))
        return
    catalogue.tables[view] = _is_sure(body, body.get("view", {}))
    yield Verdict("create", text_of(view))


def created_trigger(tag: str, body: Body, catalogue: Catalogue) -> Iterator[Verdict]:
    """A function runs when rows are written: on a new table, by nobody who knew the schema before."""
    table = name_of(body.get("relation", {}))
    yield Verdict("new_in_release" if catalogue.is_new(table) else "create_trigger", text_of(table, body.get("trigname", "")))


def created_function(tag: str, body: Body, catalogue: Catalogue) -> Iterator[Verdict]:
    """Its body is not read."""
    yield Verdict("create_function", ".".join(strings_of(body.get("funcname"))))


def created_schema(tag: str, body: Body, catalogue: Catalogue) -> Iterator[Verdict]:
    """What it brings along in the same statement is not looked at."""
    yield Verdict("other" if body.get("schemaElts") else "create", body.get("schemaname", ""))


def dropped(tag: str, body: Body, catalogue: Catalogue) -> Iterator[Verdict]:
    """What this release surely created itself may go; by CASCADE more goes than is named."""
    kind, cascades = body.get("removeType"), body.get("behavior") == "DROP_CASCADE"
    for item in body.get("objects", []):
        name = name_from(parts_of(item))
        if kind == "OBJECT_INDEX":
            is_known = catalogue.indexes.pop(name[1], None) is False
            yield Verdict("new_in_release" if is_known else "drop_index", text_of(name))
            continue
        is_new = kind in RELATIONS and catalogue.is_new(name, surely=True) and not cascades
        catalogue.forget(name)
        rule = "drop_table" if kind in ("OBJECT_TABLE", "OBJECT_FOREIGN_TABLE", "OBJECT_SCHEMA") else "drop_object"
        note = "CASCADE drops what is not named, too" if cascades else None
        yield Verdict("new_in_release" if is_new else rule, text_of(name), note)


def parts_of(item: Body) -> list[str]:
    """The dotted name of one object to drop, in whichever of the grammar's forms."""
    held = (
        item.get("List", {}).get("items")
        or item.get("TypeName", {}).get("names")
        or item.get("ObjectWithArgs", {}).get("objname")
    )
    return strings_of(held) or strings_of([item])


def dropped_otherwise(tag: str, body: Body, catalogue: Catalogue) -> Iterator[Verdict]:
    """Databases, roles, what somebody owns: whatever is named."""
    catalogue.forget_new()
    yield Verdict("drop_object", str(body.get("dbname") or body.get("tablespacename") or body.get("subname") or ""))


def renamed(tag: str, body: Body, catalogue: Catalogue) -> Iterator[Verdict]:
    """Tables and columns are used by name; what supports them seldom is."""
    table, old = name_of(body.get("relation", {})), body.get("subname", "")
    if body.get("renameType") in SUPPORT:
        yield Verdict("rename_support", text_of(table, old))
        return
    new_column = catalogue.columns.get((table, old))
    is_new = catalogue.is_new(table, surely=True) or (new_column is not None and new_column.is_sure)
    about = text_of(table, old) or ".".join(strings_of(body.get("object", {}).get("List", {}).get("items")))
    catalogue.forget(table)
    yield Verdict("new_in_release" if is_new else "rename", f"{about} to {body.get('newname', '')}")


def moved(tag: str, body: Body, catalogue: Catalogue) -> Iterator[Verdict]:
    """Another schema is another name."""
    table = name_of(body.get("relation", {}))
    catalogue.forget(table)
    yield Verdict("rename", f"{text_of(table)} to schema {body.get('newschema', '')}")


def altered_enum(tag: str, body: Body, catalogue: Catalogue) -> Iterator[Verdict]:
    """A value more, or another name for one."""
    name = ".".join(strings_of(body.get("typeName")))
    if "oldVal" in body:
        yield Verdict("rename", f"{name}: {body['oldVal']} to {body.get('newVal', '')}")
    else:
        yield Verdict("add_enum_value", name, "the previous artifact may read a value that it does not know")


def granted(tag: str, body: Body, catalogue: Catalogue) -> Iterator[Verdict]:
    """More rights, or fewer."""
    yield Verdict("grant" if body.get("is_grant") else "revoke")


def copied(tag: str, body: Body, catalogue: Catalogue) -> Iterator[Verdict]:
    """COPY FROM adds rows; from or to a program it does what that does."""
    if "query" in body:
        ((kind, query),) = body["query"].items()
        yield from written(kind, query, catalogue)
    elif body.get("is_program"):
        yield Verdict("calls_function", "PROGRAM")
    else:
        yield Verdict("insert" if body.get("is_from") else "select", text_of(name_of(body.get("relation", {}))))


def settled(tag: str, body: Body, catalogue: Catalogue) -> Iterator[Verdict]:
    """Settings and transactions change no schema; but behind some of them names mean something else."""
    is_path = tag == "VariableSetStmt" and body.get("name", "").lower() in ("search_path", "role", "session_authorization", "")
    if is_path or tag == "DiscardStmt" or (tag == "TransactionStmt" and "ROLLBACK" in body.get("kind", "")):
        catalogue.forget_new()
    yield Verdict("session")
