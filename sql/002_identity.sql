-- A crawler that comes back to its database wants to know whether it is still the one that it left: another one of
-- the same name, made anew by hand, draws another identity.

ALTER TABLE store_state ADD COLUMN identity uuid NOT NULL DEFAULT gen_random_uuid();

COMMENT ON COLUMN store_state.identity IS 'Drawn once, when the schema is made: tells this database from another one.';
