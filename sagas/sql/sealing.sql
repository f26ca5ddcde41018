-- Keys that payloads are sealed with (docs/decisions/0032).

-- name: known
SELECT k.id, k.probe FROM sagas.payload_keys AS k ORDER BY k.id

-- name: used
INSERT INTO sagas.payload_keys (id, probe) VALUES ($1, $2::text::jsonb) ON CONFLICT (id) DO NOTHING

-- name: payloads
SELECT e.id, e.environment, e.payload FROM sagas.effects AS e WHERE e.id = ANY($1::uuid [])
