-- Releases: what ships, and is rolled back, together. Nothing refers to them, and a kill waits for none of them.

CREATE TABLE IF NOT EXISTS flagd.releases (
    environment text NOT NULL REFERENCES flagd.environments,
    name text NOT NULL,
    document json NOT NULL,                   -- as it was put: flagd.core.releases.Release
    findings json NOT NULL,                   -- its migrations' statements, judged when it was put
    services text [] NOT NULL,
    flags text [] NOT NULL,
    deployed_at timestamptz NOT NULL,         -- as it was said, else when it was first put: the order of releases
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    created_by text NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_by text NOT NULL,
    reason text,
    PRIMARY KEY (environment, name)
);
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX IF NOT EXISTS releases_by_deployment ON flagd.releases (environment, deployed_at DESC, name DESC);
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX IF NOT EXISTS releases_by_service ON flagd.releases USING gin (services);
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX IF NOT EXISTS releases_by_flag ON flagd.releases USING gin (flags);
