"""The table: every rule by which a statement is judged, its class, how far one can go back behind it, and why.

The question is always the same: does the artifact that ran before, and still runs beside the new one during a rollout, go on
reading and writing as before? After parallel change (expand and contract): what expands is additive, what contracts
is destructive.
"""

from __future__ import annotations

from server.rollbacks.statements.classes import Rule, StatementClass, Undoing


def _additive(reason: str) -> Rule:
    return Rule(statement_class=StatementClass.ADDITIVE, undoing=Undoing.PREVIOUS, reason=reason)


def _backfill(reason: str) -> Rule:
    return Rule(statement_class=StatementClass.NEEDS_BACKFILL, undoing=Undoing.PREVIOUS, reason=reason)


def _breaks(reason: str) -> Rule:
    return Rule(statement_class=StatementClass.DESTRUCTIVE, undoing=Undoing.FORWARD, reason=reason)


def _loses(reason: str) -> Rule:
    return Rule(statement_class=StatementClass.DESTRUCTIVE, undoing=Undoing.NEVER, reason=reason)


def _unknown(reason: str) -> Rule:
    return Rule(statement_class=StatementClass.UNKNOWN, undoing=Undoing.UNKNOWN, reason=reason)


RULES: dict[str, Rule] = {
    # what expands
    "create": _additive("something new: nothing that was there changes"),
    "new_in_release": _additive("what it changes was created by this same release: no earlier artifact knows it"),
    "add_column": _additive("a new column that may be null: who does not name it goes on"),
    "add_column_default": _additive("a new column with a default: rows have it, and who does not name it goes on"),
    "constraint_on_new_column": _additive("an earlier artifact leaves its new columns null, and null passes"),
    "create_index": _additive("an index that is not unique refuses nothing"),
    "index_on_new_rows": _additive("it is unique among rows alone that an earlier artifact does not write"),
    "widen_type": _additive("every value of the old type is one of the new type"),
    "set_default": _additive("it is for rows to come, of writers that do not name the column"),
    "drop_not_null": _additive("what was written before may be written still"),
    "validate_constraint": _additive("the constraint holds for what is written already; rows that were there are checked"),
    "add_enum_value": _additive("a value more"),
    "insert": _additive("rows are added, none is changed"),
    "grant": _additive("somebody may do more"),
    "storage": _additive("how it is kept, not what"),
    "session": _additive("no schema and no row changes"),
    "select": _additive("it reads"),
    # what fills what was expanded
    "fill": _backfill(
        "it fills columns that are new or null: what the previous artifact writes meanwhile has to be filled again"
    ),
    # what contracts
    "drop_column": _breaks("the previous artifact may read or write the column; what was in it is in backups alone"),
    "drop_table": _breaks("the previous artifact may read or write the table; what was in it is in backups alone"),
    "drop_object": _breaks("the previous artifact may use what is dropped"),
    "rename": _breaks("the previous artifact knows it by its old name"),
    "narrow_type": _breaks("the previous artifact may write values that the new type does not hold"),
    "change_type": _breaks("the previous artifact may read and write values as of the old type"),
    "add_column_not_null": _breaks(
        "not null and without a default: it is refused where the table has rows, and so are rows of the previous artifact"
    ),
    "add_column_unique": _breaks("unique with one default for all: the second row of the previous artifact is refused"),
    "set_not_null": _breaks("the previous artifact may write null"),
    "drop_default": _breaks("the previous artifact may leave the column out: null then, or refused"),
    "add_constraint": _breaks("the previous artifact may write what the constraint refuses"),
    "unique_index": _breaks("the previous artifact may write what the index refuses"),
    "drop_constraint": _breaks("`ON CONFLICT` of the previous artifact may rest on it, and nothing else keeps what it kept"),
    "row_security": _breaks("rows without a policy vanish for the previous artifact"),
    "detach_partition": _breaks("the previous artifact no longer finds the rows of the partition"),
    "revoke": _breaks("the previous artifact may need the right"),
    # what overwrites or takes out rows
    "update": _loses("values that were in use are overwritten, and nothing keeps the old ones"),
    "upsert": _loses("`ON CONFLICT DO UPDATE` overwrites values that were in use"),
    "delete": _loses("rows are taken out, and nothing keeps them"),
    "merge": _loses("it overwrites or takes out rows that were in use"),
    "truncate": _loses("every row is taken out, and nothing keeps them"),
    # what nobody can tell
    "type_not_known": _unknown(
        "the column's present type is in none of these files: whether it widens or narrows cannot be told"
    ),
    "drop_index": _unknown(
        "if it is unique, `ON CONFLICT` of the previous artifact rests on it; if it is not, it is only slower"
    ),
    "rename_support": _unknown("code may name it: `ON CONFLICT ON CONSTRAINT`"),
    "do_block": _unknown("a DO block does what its code does, and that is not read"),
    "create_function": _unknown("its body is not read, and `OR REPLACE` changes what callers get"),
    "replace_view": _unknown("what the view answers may change"),
    "create_trigger": _unknown("it runs a function, which is not read, whenever the previous artifact writes"),
    "calls_function": _unknown("it calls a function that is not read"),
    "other": _unknown("no rule knows this statement"),
    "unreadable": _unknown("PostgreSQL's grammar cannot read it, so that no statement of the file is judged"),
    "given": _unknown("its class was given without the text"),
}
