-- After a step of the wall clock nothing is forgotten for a day, also where the crawler restarts.

ALTER TABLE bitdash_internal.store_state ADD COLUMN forgets_from timestamptz;

COMMENT ON COLUMN bitdash_internal.store_state.forgets_from IS
    'No address expires before this time: the wall clock was set a day earlier. Null if it never was.';
