"""Statements that write rows, and functions that statements call."""

from __future__ import annotations

from collections.abc import Iterator

from server.rollbacks.statements.catalogue import Catalogue, Name, name_of, text_of
from server.rollbacks.statements.reading import Body, nodes_of, strings_of
from server.rollbacks.statements.verdicts import Verdict

HARMLESS = frozenset(
    """
    abs age array_agg array_length array_to_string avg btrim cardinality ceil char_length clock_timestamp concat concat_ws
    count current_setting date date_bin date_part date_trunc decode encode extract floor format gen_random_uuid
    generate_series hashtext hashtextextended initcap json_agg json_array_elements json_build_array json_build_object
    json_each json_each_text json_object_agg jsonb_agg jsonb_array_elements jsonb_array_elements_text jsonb_array_length
    jsonb_build_array jsonb_build_object jsonb_each jsonb_each_text jsonb_object_agg jsonb_set jsonb_typeof lag lead left
    length lower lpad ltrim make_interval max md5 min mod now nullif overlay position random regexp_match regexp_replace
    repeat replace reverse right round row_number row_to_json rpad rtrim sha256 split_part starts_with string_agg
    string_to_array strpos substr substring sum timezone to_char to_date to_json to_jsonb to_number to_timestamp translate
    trim trunc unnest upper uuidv4 uuidv7
    """.split()  # noqa: SIM905
)
"""Functions of PostgreSQL that change nothing. Under `pg_catalog`, or under no schema."""
CONFIGURES = "set_config"


def inserted(body: Body, catalogue: Catalogue) -> Iterator[Verdict]:
    """Rows are added, and by ON CONFLICT DO UPDATE changed."""
    table = name_of(body.get("relation", {}))
    conflict = body.get("onConflictClause", {})
    if conflict.get("action") == "ONCONFLICT_UPDATE" and not catalogue.is_new(table, surely=True):
        yield Verdict("upsert", text_of(table))
    else:
        yield Verdict("insert", text_of(table))


def updated(body: Body, catalogue: Catalogue) -> Iterator[Verdict]:
    """Rows are changed: filled where only columns are set that are new, or null in every row that is touched."""
    table = name_of(body.get("relation", {}))
    columns = {one["ResTarget"].get("name", "") for one in body.get("targetList", []) if "ResTarget" in one}
    nulls = null_columns(body.get("whereClause", {}))
    if catalogue.is_new(table, surely=True):
        yield Verdict("new_in_release", text_of(table))
    elif all(column in nulls or (table, column) in catalogue.columns for column in columns):
        yield Verdict("fill", ", ".join(text_of(table, column) for column in sorted(columns)))
    else:
        yield Verdict("update", ", ".join(text_of(table, column) for column in sorted(columns)))


def null_columns(condition: Body) -> set[str]:
    """The columns that are null in every row for which the condition holds, as far as its conjunctions say so."""
    if "NullTest" in condition:
        test = condition["NullTest"]
        column = test.get("arg", {}).get("ColumnRef", {})
        return {strings_of(column.get("fields"))[-1]} if test.get("nulltesttype") == "IS_NULL" and column else set()
    both = condition.get("BoolExpr", {})
    if both.get("boolop") == "AND_EXPR":
        return {column for part in both.get("args", []) for column in null_columns(part)}
    return set()


def deleted(body: Body, catalogue: Catalogue) -> Iterator[Verdict]:
    """Rows are taken out."""
    yield _unless_new("delete", name_of(body.get("relation", {})), catalogue)


def merged(body: Body, catalogue: Catalogue) -> Iterator[Verdict]:
    """Rows are changed or taken out; a MERGE that only inserts adds."""
    table = name_of(body.get("relation", {}))
    commands = {node.get("commandType") for tag, node in nodes_of(body.get("mergeWhenClauses", [])) if tag == "MergeWhenClause"}
    if commands <= {"CMD_INSERT", "CMD_NOTHING"}:
        yield Verdict("insert", text_of(table))
    else:
        yield _unless_new("merge", table, catalogue)


def truncated(body: Body, catalogue: Catalogue) -> Iterator[Verdict]:
    """Every row is taken out; by CASCADE of tables that are not named, too."""
    cascades = body.get("behavior") == "DROP_CASCADE"
    for relation in body.get("relations", []):
        table = name_of(relation.get("RangeVar", {}))
        if cascades:
            yield Verdict("truncate", text_of(table), "CASCADE empties tables that are not named")
        else:
            yield _unless_new("truncate", table, catalogue)


WRITES = {"InsertStmt": inserted, "UpdateStmt": updated, "DeleteStmt": deleted, "MergeStmt": merged}


def written(tag: str, body: Body, catalogue: Catalogue) -> Iterator[Verdict]:
    """A statement of rows, what its WITH clauses write, and the functions that it calls."""
    if tag in WRITES:
        yield from WRITES[tag](body, catalogue)
    nested = [(name, node) for name, node in nodes_of(body) if name in WRITES]
    for name, node in nested:
        yield from WRITES[name](node, catalogue)
    called = list(calls(body, catalogue))
    yield from called
    if tag not in WRITES and not nested and not called:
        yield (
            Verdict("create", text_of(name_of(body["intoClause"].get("rel", {}))))
            if "intoClause" in body
            else Verdict("select")
        )


def calls(body: Body, catalogue: Catalogue) -> Iterator[Verdict]:
    """The functions that are called and not known to change nothing."""
    for tag, node in nodes_of(body):
        if tag != "FuncCall":
            continue
        *schema, name = strings_of(node.get("funcname")) or [""]
        if schema in ([], ["pg_catalog"]) and name == CONFIGURES:
            catalogue.forget_new()
        elif schema not in ([], ["pg_catalog"]) or name not in HARMLESS:
            yield Verdict("calls_function", ".".join([*schema, name]))


def _unless_new(rule: str, table: Name, catalogue: Catalogue) -> Verdict:
    return Verdict("new_in_release" if catalogue.is_new(table, surely=True) else rule, text_of(table))
