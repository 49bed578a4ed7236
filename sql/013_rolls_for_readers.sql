-- Rolls for readers: everything that exports need is in public, so that any role that reads the
-- relations of public may export.

CREATE VIEW public.roll_nodes AS SELECT host, port, ordinal FROM bitdash_internal.node_ordinals;
COMMENT ON VIEW public.roll_nodes IS 'The place of each node in the relations rolls, daily_rolls and closed_rolls.';
COMMENT ON COLUMN public.roll_nodes.host IS 'The node.';
COMMENT ON COLUMN public.roll_nodes.port IS 'Its port.';
COMMENT ON COLUMN public.roll_nodes.ordinal IS 'Its bit in rolls and its byte in daily_rolls, both from 0, in the order of first responses.';

CREATE VIEW public.daily_rolls AS SELECT day, passes, share FROM bitdash_internal.roll_days;
COMMENT ON VIEW public.daily_rolls IS 'Closed days (UTC), a byte per node.';
COMMENT ON COLUMN public.daily_rolls.day IS 'Its beginning.';
COMMENT ON COLUMN public.daily_rolls.passes IS 'Number of passes that have a roll.';
COMMENT ON COLUMN public.daily_rolls.share IS
    'get_byte(share, n): 0 to 250 for the share of the passes in which the node with ordinal n answered or was full; 255: no node then.';

CREATE VIEW public.closed_rolls AS
    SELECT t.answered, t.passes, (SELECT coalesce(max(s.last_pass), 0) FROM bitdash_internal.history_steps s
        WHERE s.dimension = 'status' AND s.step = 'd') AS last_pass
    FROM (SELECT) one LEFT JOIN bitdash_internal.roll_totals t ON true;
COMMENT ON VIEW public.closed_rolls IS 'One row: sums over all closed days. Newer passes are in rolls.';
COMMENT ON COLUMN public.closed_rolls.answered IS
    'answered[n + 1]: number of passes in which the node with ordinal n answered or was full.';
COMMENT ON COLUMN public.closed_rolls.passes IS 'passes[n + 1]: number of passes since it is known.';
COMMENT ON COLUMN public.closed_rolls.last_pass IS 'The newest pass of a closed day.';

-- Readers of the rolls read these, too.
DO $$
DECLARE
    reader regrole;
BEGIN
    FOR reader IN
        SELECT DISTINCT a.grantee FROM pg_class c CROSS JOIN aclexplode(c.relacl) a
        WHERE c.oid = 'public.rolls'::regclass AND a.privilege_type = 'SELECT' AND a.grantee NOT IN (0, c.relowner)
    LOOP
        EXECUTE format('GRANT SELECT ON public.roll_nodes, public.daily_rolls, public.closed_rolls TO %s', reader);
    END LOOP;
END $$;
