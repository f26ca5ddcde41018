-- The effect ledger: admission under the fence, reports, acknowledgements, and what is shown of it.

-- name: prefer_indexes
-- A plan made while a table is empty must not read all of it later: on the writers' connections plans use indexes.
SELECT
    set_config('plan_cache_mode', 'force_generic_plan', false),
    set_config('enable_seqscan', 'off', false),
    set_config('enable_hashjoin', 'off', false),
    set_config('enable_mergejoin', 'off', false),
    set_config('enable_bitmapscan', 'off', false)

-- name: fences
SELECT
    f.environment, f.flag, f.scope_key, f.scope, f.lock_key, f.off_variant, f.epoch, f.closed, f.rollback_id,
    f.opened_generation, f.opened_revision
FROM unnest($1::text [], $2::text []) AS asked (environment, flag)
INNER JOIN sagas.fences AS f ON f.environment = asked.environment AND f.flag = asked.flag

-- name: flags_of
SELECT flag FROM sagas.fences WHERE environment = $1 AND scope_key = '' ORDER BY flag LIMIT $2

-- name: keys
-- Of one whose history is gone: what remains beside it.
SELECT
    k.environment, k.kind, k.key, k.generation, k.payload_hash, e.id IS NULL AS is_gone,
    coalesce(e.id, m.id) AS id, coalesce(e.flag, m.flag) AS flag, coalesce(e.is_off, m.is_off) AS is_off,
    coalesce(e.epoch, m.epoch) AS epoch, coalesce(e.attributes, '{}') AS attributes, coalesce(e.status, m.status) AS status,
    coalesce(e.attempt, m.attempt) AS attempt, coalesce(e.token, m.token) AS token, coalesce(e.begun, true) AS begun,
    coalesce(e.tombstoned, m.tombstoned) AS tombstoned, coalesce(e.undone, false) AS undone, coalesce(e.result, m.result) AS result,
    e.saga, e.saga_instance, e.step, e.saga_version, e.kind_version, e.subject, coalesce(e.revision_generation, 0) AS revision_generation,
    coalesce(e.revision, 0) AS revision, e.admitted_at,
    coalesce((extract(EPOCH FROM e.lease_until - clock_timestamp()) * 1000)::bigint, 0) AS lease_left_ms,
    coalesce((extract(EPOCH FROM e.start_until - clock_timestamp()) * 1000)::bigint, 0) AS start_left_ms,
    CASE WHEN e.id IS NULL THEN m.disposition ELSE d.state END AS disposition
FROM unnest($1::text [], $2::text [], $3::text []) AS asked (environment, kind, key)
INNER JOIN sagas.keys AS k ON k.environment = asked.environment AND k.kind = asked.kind AND k.key = asked.key
LEFT JOIN sagas.effects AS e ON e.id = k.effect_id
LEFT JOIN sagas.remains AS m ON m.id = k.effect_id
LEFT JOIN sagas.dispositions AS d ON d.effect_id = e.id
WHERE e.id IS NOT NULL OR m.id IS NOT NULL

-- name: lock_keys
-- In one order, so that two groups never wait for each other; what is decided on them is read after it.
SELECT k.effect_id
FROM unnest($1::text [], $2::text [], $3::text []) AS asked (environment, kind, key)
INNER JOIN sagas.keys AS k ON k.environment = asked.environment AND k.kind = asked.kind AND k.key = asked.key
INNER JOIN sagas.effects AS e ON e.id = k.effect_id
ORDER BY k.environment, k.kind, k.key
FOR UPDATE OF k, e

-- name: siblings
SELECT DISTINCT e.environment, e.saga, e.saga_instance, e.flag, e.epoch, e.attributes
FROM unnest($1::text [], $2::text [], $3::text []) AS asked (environment, saga, saga_instance)
INNER JOIN sagas.effects AS e
    ON e.environment = asked.environment AND e.saga = asked.saga AND e.saga_instance = asked.saga_instance
WHERE e.saga_instance IS NOT NULL AND NOT e.is_off AND e.status <> 'failed'

-- name: rollbacks
-- The unfinished rollbacks that claim effects of these flags.
SELECT
    f.environment, f.flag, f.scope, f.closes_epoch, f.since_at, f.since_generation, f.since_revision,
    f.closed_at IS NOT NULL AS is_closed, r.id AS rollback_id, r.state, r.compensate
FROM unnest($1::text [], $2::text []) AS asked (environment, flag)
INNER JOIN sagas.rollback_flags AS f ON f.environment = asked.environment AND f.flag = asked.flag
INNER JOIN sagas.rollbacks AS r ON r.id = f.rollback_id
WHERE r.state <> 'settled' OR r.outcome = 'not_compensated'

-- name: admit
-- New effects, and new keys with them; whoever lost a race for a key gets no row back and is decided again.
WITH asked AS (
    SELECT * FROM unnest(
        $1::uuid [], $2::text [], $3::text [], $4::text [], $5::bytea [], $6::integer [], $7::boolean [], $8::text [],
        $9::text [], $10::boolean [], $11::bigint [], $12::bigint [], $13::bigint [], $14::text [], $15::text [],
        $16::text [], $17::text [], $18::text [], $19::text [], $20::text [], $21::text [], $22::text [], $23::uuid [],
        $24::double precision []
    ) AS a (
        id, environment, kind, key, payload_hash, generation, is_first, flag, variant, is_off, revision_generation, revision,
        epoch, attributes, saga, saga_version, saga_instance, step, kind_version, subject, payload, instance_id, token,
        lease_seconds
    )
), claimed AS (
    INSERT INTO sagas.keys (environment, kind, key, effect_id, payload_hash)
    SELECT environment, kind, key, id, payload_hash FROM asked WHERE is_first ORDER BY environment, kind, key
    ON CONFLICT (environment, kind, key) DO NOTHING
    RETURNING effect_id
), moved AS (
    UPDATE sagas.keys AS k
    SET effect_id = a.id, generation = a.generation, payload_hash = a.payload_hash, last_used_at = clock_timestamp()
    FROM asked AS a
    WHERE NOT a.is_first AND k.environment = a.environment AND k.kind = a.kind AND k.key = a.key
        AND k.generation = a.generation - 1
    RETURNING k.effect_id
), won AS (
    SELECT effect_id FROM claimed
    UNION ALL
    SELECT effect_id FROM moved
)
INSERT INTO sagas.effects (
    id, environment, kind, key, generation, flag, variant, is_off, revision_generation, revision, epoch, attributes,
    saga, saga_version, saga_instance, step, kind_version, subject, payload, instance_id, token, start_until, lease_until,
    admitted_at)
SELECT
    a.id, a.environment, a.kind, a.key, a.generation, a.flag, a.variant, a.is_off, a.revision_generation, a.revision, a.epoch,
    a.attributes::jsonb, a.saga, a.saga_version, a.saga_instance, a.step, a.kind_version, a.subject, a.payload::jsonb,
    a.instance_id, a.token, clock_timestamp() + $25::double precision * interval '1 millisecond',
    clock_timestamp() + a.lease_seconds * interval '1 second',
    -- what the same transaction records as completed was completed before
    CASE WHEN $26::boolean THEN clock_timestamp() ELSE now() END
FROM asked AS a
WHERE a.id IN (SELECT effect_id FROM won)
RETURNING id

-- name: admit_again
-- The next attempt at an effect that is proven not done, or a new start window for the present one. An attempt is admitted now,
-- at what was served to whoever asks now: rollbacks since a revision or a moment, and the version in force, go by it. And under the epoch
-- that is open now: a kill that was lifted since has left it alone.
UPDATE sagas.effects AS e SET
    epoch = CASE WHEN e.attempt = a.attempt THEN e.epoch ELSE a.epoch END,
    status = 'admitted', begun = false, token = a.token, attempt = a.attempt, instance_id = a.instance_id,
    start_until = clock_timestamp() + $6::double precision * interval '1 millisecond',
    lease_until = greatest(
        CASE WHEN e.attempt = a.attempt THEN e.lease_until END, clock_timestamp() + a.lease_seconds * interval '1 second'),
    evidence = CASE
        WHEN e.attempt = a.attempt THEN e.evidence
        ELSE CASE WHEN jsonb_array_length(e.evidence) >= $7 THEN e.evidence - 0 ELSE e.evidence END || jsonb_build_object(
            'what', 'attempt', 'attempt', e.attempt, 'token', e.token, 'status', e.status, 'error', e.error,
            'at', clock_timestamp())
    END,
    error = CASE WHEN e.attempt = a.attempt THEN e.error END,
    variant = CASE WHEN e.attempt = a.attempt THEN e.variant ELSE a.variant END,
    revision_generation = CASE WHEN e.attempt = a.attempt THEN e.revision_generation ELSE a.revision_generation END,
    revision = CASE WHEN e.attempt = a.attempt THEN e.revision ELSE a.revision END,
    admitted_at = CASE WHEN e.attempt = a.attempt THEN e.admitted_at WHEN $11::boolean THEN clock_timestamp() ELSE now() END
FROM unnest(
    $1::uuid [], $2::uuid [], $3::integer [], $4::text [], $5::double precision [], $8::text [], $9::bigint [], $10::bigint [],
    $12::bigint []
) AS a (id, token, attempt, instance_id, lease_seconds, variant, revision_generation, revision, epoch)
WHERE e.id = a.id AND NOT e.tombstoned AND e.attempt >= a.attempt - 1
RETURNING e.id

-- name: tombstone
UPDATE sagas.effects SET tombstoned = true WHERE id = ANY($1::uuid [])

-- name: places
-- Which flags' locks a report has to take: the effect's own and those of its saga instance.
SELECT e.id, e.environment, e.flag, sagas.lock_key(e.environment, e.flag) AS lock_key, s.flag AS sibling_flag,
    sagas.lock_key(e.environment, s.flag) AS sibling_lock_key
FROM unnest($1::uuid []) AS asked (id)
INNER JOIN sagas.effects AS e ON e.id = asked.id
LEFT JOIN sagas.effects AS s
    ON s.environment = e.environment AND s.saga = e.saga AND s.saga_instance = e.saga_instance AND s.flag <> e.flag

-- name: reported
-- Locked in the order in which admission takes its keys.
SELECT
    e.id, e.environment, e.flag, e.is_off, e.epoch, e.attributes, e.status, e.token, e.begun, e.tombstoned, e.result,
    e.error ->> 'code' AS error_code, e.saga_instance, e.revision_generation, e.revision, e.admitted_at, e.attempt,
    e.saga, e.saga_version, e.step, e.kind, e.kind_version, e.evidence, d.state AS disposition
FROM sagas.effects AS e
LEFT JOIN sagas.dispositions AS d ON d.effect_id = e.id
WHERE e.id = ANY($1::uuid [])
ORDER BY e.environment, e.kind, e.key, e.id
FOR UPDATE OF e

-- name: record
UPDATE sagas.effects AS e SET
    status = coalesce(n.status, e.status),
    begun = n.begun,
    tombstoned = e.tombstoned OR n.tombstoned,
    result = CASE WHEN n.status = 'succeeded' THEN n.result::jsonb ELSE e.result END,
    error = CASE WHEN n.status IS NULL THEN e.error ELSE n.error::jsonb END,
    evidence = CASE
        WHEN n.evidence IS NULL OR jsonb_array_length(e.evidence) >= $9 THEN e.evidence
        ELSE e.evidence || (n.evidence::jsonb || jsonb_build_object('at', clock_timestamp()))
    END,
    completed_at = CASE WHEN n.status = 'succeeded' THEN clock_timestamp() ELSE e.completed_at END,
    traceparent = coalesce(n.traceparent, e.traceparent),
    -- who says "in doubt" will not act any more: only the settle delay is left
    lease_until = CASE
        WHEN n.status = 'in_doubt' THEN least(e.lease_until, clock_timestamp())
        ELSE greatest(e.lease_until, clock_timestamp() + n.extend_seconds * interval '1 second')
    END
FROM unnest(
    $1::uuid [], $2::text [], $3::boolean [], $4::boolean [], $5::text [], $6::text [], $7::text [], $8::double precision [],
    $10::text []
) AS n (id, status, begun, tombstoned, result, error, evidence, extend_seconds, traceparent)
WHERE e.id = n.id

-- name: record_seconds
-- What another attempt did again is an effect of its own, to be undone like the first (hazard 2): all that undoing it needs is the
-- first one's; the key's present generation stays where it is.
INSERT INTO sagas.effects (
    id, environment, kind, key, generation, flag, variant, is_off, revision_generation, revision, epoch, attributes,
    saga, saga_version, saga_instance, step, kind_version, subject, payload, instance_id, admitted_at, status, attempt, token,
    begun, start_until, lease_until, result, evidence, completed_at, proceeded_at)
SELECT
    n.id, e.environment, e.kind, e.key, e.generation, e.flag, e.variant, e.is_off, e.revision_generation, e.revision, e.epoch,
    e.attributes, e.saga, e.saga_version, e.saga_instance, e.step, e.kind_version, e.subject, n.payload::jsonb, e.instance_id,
    e.admitted_at, 'succeeded', n.attempt, n.token, true, clock_timestamp(), clock_timestamp(), n.result::jsonb,
    jsonb_build_array(n.evidence::jsonb || jsonb_build_object('at', clock_timestamp())), clock_timestamp(), e.proceeded_at
FROM unnest($1::uuid [], $2::uuid [], $3::uuid [], $4::integer [], $5::text [], $6::text [], $7::text [])
    AS n (id, effect_id, token, attempt, result, evidence, payload)
INNER JOIN sagas.effects AS e ON e.id = n.effect_id
ON CONFLICT (id) DO NOTHING

-- name: proceed
-- Effects that were begun without the server: their bodies have begun, nobody holds a permission any more. The keys follow
-- where it is the key's first or next generation.
WITH told AS (
    SELECT $1::uuid AS id, $2::text AS environment, $3::text AS kind, $4::text AS key, $5::bytea AS payload_hash,
        $6::integer AS generation, $7::boolean AS takes_key
), claimed AS (
    INSERT INTO sagas.keys (environment, kind, key, effect_id, payload_hash)
    SELECT environment, kind, key, id, payload_hash FROM told WHERE takes_key AND generation = 1
), moved AS (
    UPDATE sagas.keys AS k
    SET effect_id = t.id, generation = t.generation, payload_hash = t.payload_hash, last_used_at = clock_timestamp()
    FROM told AS t
    WHERE t.takes_key AND t.generation > 1 AND k.environment = t.environment AND k.kind = t.kind AND k.key = t.key
)
INSERT INTO sagas.effects (
    id, environment, kind, key, generation, flag, variant, is_off, revision_generation, revision, epoch, attributes,
    saga, saga_version, saga_instance, step, kind_version, subject, payload, instance_id, token, begun, start_until, lease_until,
    admitted_at, proceeded_at)
SELECT
    t.id, t.environment, t.kind, t.key, t.generation, $8::text, $9::text, $10::boolean, $11::bigint, $12::bigint, $13::bigint,
    $14::text::jsonb, $15::text, $16::text, $17::text, $18::text, $19::text, $20::text, $21::text::jsonb, $22::text, $23::uuid,
    true, now(), now(), now() - $24::double precision * interval '1 second',
    now() - $24::double precision * interval '1 second'
FROM told AS t

-- name: proceed_again
-- An attempt without the server at an effect that is on record: the present one where that is proven not done, else one beside it.
UPDATE sagas.effects AS e SET
    proceeded_at = coalesce(e.proceeded_at, now() - $3::double precision * interval '1 second'),
    begun = true,
    token = CASE WHEN e.status = 'failed' THEN $2::uuid ELSE e.token END,
    attempt = CASE WHEN e.status = 'failed' THEN e.attempt + 1 ELSE e.attempt END,
    status = CASE WHEN e.status = 'failed' THEN 'admitted' ELSE e.status END,
    error = CASE WHEN e.status = 'failed' THEN NULL ELSE e.error END,
    evidence = CASE WHEN jsonb_array_length(e.evidence) >= $4 THEN e.evidence - 0 ELSE e.evidence END || jsonb_build_object(
        'what', 'attempt', 'attempt', e.attempt, 'token', CASE WHEN e.status = 'failed' THEN e.token ELSE $2::uuid END,
        'status', CASE WHEN e.status = 'failed' THEN e.status ELSE 'proceeded' END, 'error', e.error, 'at', clock_timestamp())
WHERE e.id = $1

-- name: ended
-- When its body ended, by its own clock set right, for the order in which effects are undone.
UPDATE sagas.effects AS e SET
    completed_at = greatest(e.admitted_at, least(e.completed_at, now() - $3::double precision * interval '1 second'))
WHERE e.id = $1 AND e.token = $2 AND e.status = 'succeeded'

-- name: arm
SELECT sagas.arm_v1($1::uuid [])

-- name: kill_revisions
SELECT id, generation, revision FROM sagas.rollbacks WHERE id = ANY($1::uuid [])

-- name: permissions
-- What these instances may still begin under the killed flags of their environment: through the flags' index and the time in the
-- ids, never the ledger as a whole. Ids carry a server's clock, hence the margin. One that is named by its key carries none: it is
-- found if it has begun, and otherwise its start window runs out.
SELECT e.id, e.instance_id, e.token, e.flag, e.epoch, e.attributes, e.begun
FROM (
    SELECT DISTINCT f.flag FROM sagas.fences AS f WHERE f.environment = $1 AND f.closed
) AS killed
INNER JOIN sagas.effects AS e
    ON e.environment = $1 AND e.flag = killed.flag
    AND e.id >= uuidv7($4::double precision * interval '-1 second')
WHERE e.instance_id = ANY($2::text []) AND e.status = 'admitted' AND NOT e.is_off AND NOT e.tombstoned
    AND (e.start_until > clock_timestamp() - $5::double precision * interval '1 second' OR e.id = ANY($3::uuid []))
UNION ALL
SELECT e.id, e.instance_id, e.token, e.flag, e.epoch, e.attributes, e.begun
FROM sagas.effects AS e
WHERE e.id = ANY($3::uuid []) AND e.id < '01000000-0000-0000-0000-000000000000' AND e.environment = $1
    AND e.instance_id = ANY($2::text []) AND e.status = 'admitted' AND NOT e.is_off AND NOT e.tombstoned
    AND EXISTS (SELECT FROM sagas.fences AS f WHERE f.environment = $1 AND f.flag = e.flag AND f.closed)
LIMIT $6

-- name: listing
SELECT
    e.id, e.environment, e.kind, e.key, e.generation, e.flag, e.variant, e.is_off, e.revision_generation, e.revision, e.epoch,
    e.attributes, e.saga, e.saga_version, e.saga_instance, e.step, e.kind_version, e.subject, e.payload, e.instance_id,
    e.admitted_at, e.proceeded_at, e.attempt, e.tombstoned, e.result, e.error, e.evidence, e.completed_at, e.lease_until,
    CASE WHEN e.status = 'admitted' AND e.lease_until <= clock_timestamp() THEN 'in_doubt' ELSE e.status END AS status,
    d.state AS disposition, d.rollback_id, d.compensation_id
FROM sagas.effects AS e
LEFT JOIN sagas.dispositions AS d ON d.effect_id = e.id
WHERE e.environment = $1
    AND ($2::uuid IS NULL OR e.id > $2)
    AND ($3::text IS NULL OR e.flag = $3)
    AND ($4::text IS NULL OR e.saga = $4)
    AND ($5::text IS NULL
        OR CASE WHEN e.status = 'admitted' AND e.lease_until <= clock_timestamp() THEN 'in_doubt' ELSE e.status END = $5)
    AND ($6::bigint IS NULL OR e.epoch = $6)
    AND ($7::uuid IS NULL OR EXISTS (SELECT FROM sagas.members AS m WHERE m.rollback_id = $7 AND m.effect_id = e.id))
    AND ($8::text IS NULL OR e.saga_instance = $8)
    AND ($9::text IS NULL OR e.kind = $9)
    AND ($10::text IS NULL OR e.key = $10)
ORDER BY e.id
LIMIT $11
