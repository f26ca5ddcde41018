-- The flags around a change: those that depend on what it writes, what they depend on, and who refers to a segment.

-- name: forget_prerequisites
DELETE FROM flagd.prerequisites WHERE environment = $1 AND flag = ANY($2::text []);

-- name: put_prerequisites
INSERT INTO flagd.prerequisites (environment, flag, prerequisite)
SELECT $1, p.flag, p.prerequisite FROM unnest($2::text [], $3::text []) AS p (flag, prerequisite)
ON CONFLICT DO NOTHING;

-- name: related
-- The flags that depend on these, through others too, and all that those and these depend on.
WITH RECURSIVE above AS (
    SELECT k.key FROM unnest($2::text []) AS k (key)
    UNION
    SELECT p.flag FROM flagd.prerequisites AS p INNER JOIN above AS a ON p.prerequisite = a.key WHERE p.environment = $1
), around AS (
    SELECT a.key FROM above AS a
    UNION
    SELECT p.prerequisite FROM flagd.prerequisites AS p INNER JOIN around AS b ON p.flag = b.key WHERE p.environment = $1
)
SELECT DISTINCT p.flag, p.prerequisite FROM flagd.prerequisites AS p INNER JOIN around AS b ON p.flag = b.key
WHERE p.environment = $1;

-- name: dependent_flags
SELECT DISTINCT p.flag FROM flagd.prerequisites AS p WHERE p.environment = $1;

-- name: requiring
-- Those that are not turned on before they were declared.
SELECT f.document::text AS document FROM flagd.flags AS f
WHERE f.environment = $1 AND f.archived_at IS NULL AND f.document ->> 'requires_declaration' = 'true' ORDER BY f.key;

-- name: in_service
SELECT f.document::text AS document FROM flagd.flags AS f
WHERE f.environment = $1 AND f.key = ANY($2::text []) AND f.archived_at IS NULL;

-- name: referring
-- Those that refer to any segment.
SELECT f.document::text AS document FROM flagd.flags AS f
WHERE f.environment = $1 AND f.archived_at IS NULL AND f.document::text LIKE '%"$ref"%' ORDER BY f.key;
