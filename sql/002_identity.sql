-- The identity tells a crawler that reconnects whether this is still the database that it left. A
-- recreated database of the same name draws another one.

ALTER TABLE store_state ADD COLUMN identity uuid NOT NULL DEFAULT gen_random_uuid();

COMMENT ON COLUMN store_state.identity IS 'Drawn once, when the schema is made: tells this database from another one.';
