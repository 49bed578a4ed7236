-- What was learned of the ranks of candidates survives a restart.

ALTER TABLE bitdash_internal.store_state ADD COLUMN learned integer[];

COMMENT ON COLUMN bitdash_internal.store_state.learned IS
    'Per class of candidates: how many were tried and how many of them responded. Null before the first pass has ended.';
