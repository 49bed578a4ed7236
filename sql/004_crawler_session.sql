-- A database may be moved by a dump or by replication, which copies rows but no sequences. What
-- orders rows is computed from the rows: batch numbers continue after those in the journals, and
-- the base that has rows is in use.

ALTER TABLE bitdash_internal.store_state DROP COLUMN addresses_base, DROP COLUMN probes_base,
    ADD COLUMN crawler_pid integer, ADD COLUMN crawler_started_at timestamptz, ADD COLUMN crawler_role oid;
DROP SEQUENCE bitdash_internal.batch_number;

-- The only index of a journal: few addresses are forgotten, and every look-up of a host asks which.
CREATE INDEX address_journal_forgotten ON bitdash_internal.address_journal (key) WHERE next_probe IS NULL;

COMMENT ON COLUMN bitdash_internal.store_state.crawler_pid IS
    'Backend of the only crawler, which runs as long as this backend does. No advisory lock: any role could take it.';
COMMENT ON COLUMN bitdash_internal.store_state.crawler_started_at IS 'When that backend started: process numbers are reused.';
COMMENT ON COLUMN bitdash_internal.store_state.crawler_role IS
    'The role of that backend: the start of a backend is hidden from other roles.';
COMMENT ON COLUMN bitdash_internal.address_journal.batch IS
    'Orders the journal. A batch has two numbers: the second for the addresses that it forgets, the first for all other rows.';
