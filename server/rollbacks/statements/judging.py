"""Every statement against the table of rules. Pure: text in, findings out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from server.rollbacks.statements import objects, rows, tables
from server.rollbacks.statements.catalogue import Catalogue
from server.rollbacks.statements.classes import Finding, Migration
from server.rollbacks.statements.reading import Body, Statement, Unreadable, statements_of
from server.rollbacks.statements.rules import RULES
from server.rollbacks.statements.verdicts import Verdict

Judge = Callable[[str, Body, Catalogue], Iterable[Verdict]]
DETAIL_MAX = 300


def always(rule: str) -> Judge:
    """A judge of statements that all are of one rule."""
    return lambda tag, body, catalogue: (Verdict(rule),)


def truncated(tag: str, body: Body, catalogue: Catalogue) -> Iterator[Verdict]:
    """TRUNCATE."""
    return rows.truncated(body, catalogue)


CREATES = (
    "CreateSeqStmt", "CreateEnumStmt", "CompositeTypeStmt", "CreateRangeStmt", "CreateDomainStmt", "CreateExtensionStmt",
    "CreateStatsStmt", "CreateRoleStmt", "CreateFdwStmt", "CreateForeignServerStmt", "CreatePublicationStmt",
    "CreateTableSpaceStmt", "CreatedbStmt",
)  # fmt: skip
SESSION = (
    "TransactionStmt", "VariableSetStmt", "VariableShowStmt", "LockStmt", "DiscardStmt", "CheckPointStmt", "ConstraintsSetStmt",
    "NotifyStmt", "ListenStmt", "UnlistenStmt",
)  # fmt: skip
UPKEEP = ("VacuumStmt", "ReindexStmt", "ClusterStmt", "RefreshMatViewStmt", "CommentStmt")
ROWS = ("SelectStmt", "InsertStmt", "UpdateStmt", "DeleteStmt", "MergeStmt")
DROPS = (
    "DropdbStmt", "DropRoleStmt", "DropOwnedStmt", "DropTableSpaceStmt", "DropSubscriptionStmt", "DropUserMappingStmt",
)  # fmt: skip

JUDGES: dict[str, Judge] = {
    "AlterTableStmt": tables.altered,
    "CreateStmt": objects.created_table,
    "CreateForeignTableStmt": always("create"),
    "CreateTableAsStmt": objects.created_as,
    "IndexStmt": objects.created_index,
    "ViewStmt": objects.created_view,
    "CreateTrigStmt": objects.created_trigger,
    "CreateFunctionStmt": objects.created_function,
    "CreateSchemaStmt": objects.created_schema,
    "DropStmt": objects.dropped,
    "RenameStmt": objects.renamed,
    "AlterObjectSchemaStmt": objects.moved,
    "AlterEnumStmt": objects.altered_enum,
    "GrantStmt": objects.granted,
    "GrantRoleStmt": objects.granted,
    "TruncateStmt": truncated,
    "CopyStmt": objects.copied,
    "DoStmt": always("do_block"),
    "CallStmt": always("calls_function"),
    **dict.fromkeys(CREATES, always("create")),
    **dict.fromkeys(UPKEEP, always("storage")),
    **dict.fromkeys(SESSION, objects.settled),
    **dict.fromkeys(ROWS, rows.written),
    **dict.fromkeys(DROPS, objects.dropped_otherwise),
}
"""By the grammar's name of a statement. One that is not here is unknown."""


def judge(release: Sequence[Migration], *, before: Sequence[Migration] = ()) -> list[Finding]:
    """What each statement of one release's migrations does, in their order. `before`: earlier ones, for the types they tell.

    >>> [str(one.statement_class) for one in judge([Migration(name="1", sql="ALTER TABLE a DROP COLUMN b")])]
    ['destructive']
    """
    catalogue = Catalogue()
    for migration in before:
        list(_judge_one(migration, catalogue))
    catalogue.begin_release()
    return [finding for migration in release for finding in _judge_one(migration, catalogue)]


def judge_each(migrations: Sequence[Migration]) -> list[Finding]:
    """The same with each migration as a release of its own; those before it tell types."""
    catalogue = Catalogue()
    found: list[Finding] = []
    for migration in migrations:
        catalogue.begin_release()
        found += _judge_one(migration, catalogue)
    return found


def _judge_one(migration: Migration, catalogue: Catalogue) -> Iterator[Finding]:
    try:
        statements = statements_of(migration.sql)
    except Unreadable as error:
        catalogue.forget_new()
        unread = Statement("", {}, error.line, "")
        yield _finding(migration, unread, Verdict("unreadable", note=error.detail[:DETAIL_MAX]))
        return
    for statement in statements:
        judged = JUDGES.get(statement.tag, always("other"))
        for verdict in judged(statement.tag, statement.body, catalogue):
            yield _finding(migration, statement, verdict)


def _finding(migration: Migration, statement: Statement, verdict: Verdict) -> Finding:
    rule = RULES[verdict.rule]
    return Finding(
        migration=migration.name, line=statement.line, statement=statement.excerpt, about=verdict.about, rule=verdict.rule,
        statement_class=rule.statement_class, undoing=rule.undoing, reason=rule.reason, note=verdict.note,
    )  # fmt: skip
