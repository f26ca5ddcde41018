-- An effect is updated once, by its report, and an instance when it ends, mostly before their page is full of others: with as much room
-- left on a page as its rows take, the new version stays there and no index is written (a fifth of the WAL of a saga).
ALTER TABLE sagas.effects SET (fillfactor = 45);
ALTER TABLE sagas.instances SET (fillfactor = 45);
