-- A database may be moved by a dump or by replication, which copies rows but no sequences. What
-- orders rows is computed from the rows: batch numbers continue after those in the journals, and
-- the base that has rows is in use.

ALTER TABLE bitdash_internal.store_state DROP COLUMN addresses_base, DROP COLUMN probes_base;
DROP SEQUENCE bitdash_internal.batch_number;

COMMENT ON COLUMN bitdash_internal.address_journal.batch IS
    'Orders the journal. A batch has two numbers: the second for the addresses that it forgets, the first for all other rows.';
