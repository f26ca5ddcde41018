-- Beside the product's tables: every value that a fence ever had, written down by the transaction that gave it.
CREATE SCHEMA chaos;

CREATE TABLE chaos.writes (
    number bigint GENERATED ALWAYS AS IDENTITY,
    what text NOT NULL,
    row_id text NOT NULL,
    fence bigint NOT NULL,
    holder text NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE FUNCTION chaos.note_lease() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO chaos.writes (what, row_id, fence, holder) VALUES ('lease', NEW.range::text, NEW.token, NEW.holder);
    RETURN NULL;
END $$;

CREATE FUNCTION chaos.note_attempt() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO chaos.writes (what, row_id, fence, holder) VALUES ('attempt', NEW.id::text, NEW.attempt, NEW.token::text);
    RETURN NULL;
END $$;

CREATE TRIGGER note_lease AFTER UPDATE ON sagas.leases
FOR EACH ROW WHEN (NEW.holder <> '') EXECUTE FUNCTION chaos.note_lease();
CREATE TRIGGER note_attempt AFTER INSERT OR UPDATE ON sagas.effects
FOR EACH ROW EXECUTE FUNCTION chaos.note_attempt();

-- Whether the instance of an effect goes on before it is undone, and waits for a person.
CREATE FUNCTION chaos.is_asked(d sagas.dispositions) RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT d.reason IS NOT DISTINCT FROM 'continues' AND EXISTS (
        SELECT FROM sagas.instances AS i
        WHERE i.environment = d.environment AND i.saga = d.saga AND i.id = d.saga_instance AND i.state = 'waiting')
$$;

-- Whether an effect is still to be undone by itself: nothing of its instance waits for a person, behind whom it stands (P14).
CREATE FUNCTION chaos.moves(d sagas.dispositions) RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT d.state = 'pending' AND NOT chaos.is_asked(d) AND NOT EXISTS (
        SELECT FROM sagas.dispositions AS w
        WHERE w.environment = d.environment AND w.saga = d.saga AND w.saga_instance = d.saga_instance AND w.state = 'waiting')
$$;

-- Whether all that is left of a rollback goes on first and waits for a person there: its state does not say so yet.
CREATE FUNCTION chaos.is_behind(r sagas.rollbacks) RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT r.state = 'compensating' AND r.enumerated_at IS NOT NULL
        AND EXISTS (SELECT FROM sagas.dispositions AS d WHERE d.rollback_id = r.id AND chaos.is_asked(d))
        AND NOT EXISTS (SELECT FROM sagas.dispositions AS d WHERE d.rollback_id = r.id AND chaos.moves(d))
$$;
