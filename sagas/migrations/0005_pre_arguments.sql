-- What steps are given, by step: beside the document, so that a server of 0.1.0, which knows no arguments, reads the rest (P21).

ALTER TABLE sagas.definitions ADD COLUMN IF NOT EXISTS arguments jsonb NOT NULL DEFAULT '{}';
