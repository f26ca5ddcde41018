-- The ground: who may ask (tokens), what was done (audit), and writes that are repeated (Idempotency-Key).

CREATE SCHEMA IF NOT EXISTS runtime;

CREATE TABLE IF NOT EXISTS runtime.tokens (
    id text PRIMARY KEY,                      -- the public part of the token
    name text NOT NULL,
    secret_hash bytea NOT NULL CHECK (length(secret_hash) = 32),
    environment text,                         -- null: every environment
    scopes text [] NOT NULL CHECK (cardinality(scopes) > 0),
    created_by text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at timestamptz,
    revoked_at timestamptz
);

CREATE TABLE IF NOT EXISTS runtime.audit (
    id uuid PRIMARY KEY DEFAULT uuidv7(),
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    actor text NOT NULL,
    action text NOT NULL,                     -- flag.put, flag.kill, rollback.skip, token.create, ...
    environment text,
    object text NOT NULL,                     -- what it was done to, for example a flag's key
    reason text,
    detail jsonb NOT NULL DEFAULT '{}',
    trace_id text
);
CREATE INDEX IF NOT EXISTS audit_by_object ON runtime.audit (environment, object, id);

CREATE OR REPLACE FUNCTION runtime.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the audit log is append-only';
END $$;
CREATE OR REPLACE TRIGGER audit_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON runtime.audit
FOR EACH STATEMENT EXECUTE FUNCTION runtime.refuse_change();

CREATE TABLE IF NOT EXISTS runtime.requests (
    token_id text NOT NULL,
    idempotency_key text NOT NULL,
    fingerprint bytea NOT NULL,
    status integer,                           -- null: in progress
    content_type text,
    body bytea,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (token_id, idempotency_key)
);
