-- Rolls: which nodes answered, pass by pass, for 30 days; then a byte per node and day, forever.
-- Uptime is the share of the passes in which a node answered or was full. A pass during which our
-- own uplink was down has no roll: it counts for no node.

ALTER TABLE public.passes ADD COLUMN uplink_was_down boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN public.passes.uplink_was_down IS 'Whether our own uplink was down during it: then it has no roll.';

CREATE TABLE bitdash_internal.node_ordinals (
    host    inet    NOT NULL,
    port    integer NOT NULL,
    ordinal integer NOT NULL UNIQUE CHECK (ordinal >= 0),
    PRIMARY KEY (host, port)
);
COMMENT ON TABLE bitdash_internal.node_ordinals IS 'Place of each node in the rolls, in the order of first responses.';

CREATE TABLE public.rolls (
    pass   bigint      PRIMARY KEY,
    at     timestamptz NOT NULL,
    nodes  integer     NOT NULL,
    up     bytea       NOT NULL,
    "full" bytea       NOT NULL
) WITH (autovacuum_vacuum_insert_threshold = -1);
COMMENT ON TABLE public.rolls IS 'Who was up or full at the end of each pass of 30 days, a bit per node. For one node use roll_of().';
COMMENT ON COLUMN public.rolls.pass IS 'The pass.';
COMMENT ON COLUMN public.rolls.at IS 'The end of the pass.';
COMMENT ON COLUMN public.rolls.nodes IS 'Number of nodes known then.';
COMMENT ON COLUMN public.rolls.up IS 'get_bit(up, n) is 1 if the node with ordinal n was up.';
COMMENT ON COLUMN public.rolls."full" IS 'get_bit("full", n) is 1 if the node with ordinal n was full.';

CREATE TABLE bitdash_internal.roll_days (
    day    timestamptz PRIMARY KEY,
    passes integer     NOT NULL,
    share  bytea       NOT NULL
) WITH (autovacuum_vacuum_insert_threshold = -1);
COMMENT ON TABLE bitdash_internal.roll_days IS
    'A byte per node and closed day (UTC): 0 to 250 for the share of its passes in which it answered or was full; 255: no node then.';

CREATE TABLE bitdash_internal.roll_totals (
    only_row boolean   PRIMARY KEY DEFAULT true CHECK (only_row),
    answered integer[] NOT NULL,
    passes   integer[] NOT NULL
);
COMMENT ON TABLE bitdash_internal.roll_totals IS
    'One row: of each node the passes in which it answered or was full, and all since it is known, by ordinal, in closed days.';

CREATE FUNCTION public.roll_of(host inet, port integer) RETURNS TABLE (pass bigint, at timestamptz, status text)
    STABLE SECURITY DEFINER LANGUAGE sql SET search_path = pg_catalog, pg_temp SET jit = off AS $$
    SELECT r.pass, r.at, CASE WHEN get_bit(r.up, o.ordinal) = 1 THEN 'up' WHEN get_bit(r."full", o.ordinal) = 1 THEN 'full'
        ELSE 'down' END
    FROM bitdash_internal.node_ordinals o JOIN public.rolls r ON r.nodes > o.ordinal
    WHERE o.host = roll_of.host AND o.port = roll_of.port
    ORDER BY r.pass
$$;
COMMENT ON FUNCTION public.roll_of IS 'The status of a node at the end of each pass of 30 days, since it is known.';

CREATE FUNCTION public.uptime(host inet, port integer) RETURNS TABLE (period text, passes bigint, answered bigint, share real)
    STABLE SECURITY DEFINER LANGUAGE sql SET search_path = pg_catalog, pg_temp SET jit = off AS $$
    WITH newest AS (SELECT r.at FROM public.rolls r ORDER BY r.pass DESC LIMIT 1),
    roll AS MATERIALIZED (
        SELECT r.pass, r.at, (r.status <> 'down')::integer AS answered FROM public.roll_of(uptime.host, uptime.port) r
    ), periods AS (
        SELECT p.number, p.period, count(r.pass) AS passes, coalesce(sum(r.answered), 0) AS answered
        FROM (VALUES (1, 'day', interval '1 day'), (2, 'week', interval '7 days'), (3, 'month', interval '30 days'))
            p (number, period, length)
        CROSS JOIN newest n LEFT JOIN roll r ON r.at > n.at - p.length AND r.at <= n.at
        GROUP BY 1, 2
        UNION ALL
        SELECT 4, 'all', coalesce(t.passes[o.ordinal + 1], 0) + r.passes, coalesce(t.answered[o.ordinal + 1], 0) + r.answered
        FROM bitdash_internal.node_ordinals o LEFT JOIN bitdash_internal.roll_totals t ON true
        CROSS JOIN (SELECT count(*) AS passes, coalesce(sum(answered), 0) AS answered FROM roll
            WHERE pass > (SELECT bitdash_internal.last_closed_pass())) r
        WHERE o.host = uptime.host AND o.port = uptime.port
    )
    SELECT p.period, p.passes, p.answered, (p.answered::float8 / nullif(p.passes, 0))::real
    FROM periods p WHERE EXISTS (SELECT FROM bitdash_internal.node_ordinals o WHERE o.host = uptime.host AND o.port = uptime.port)
    ORDER BY p.number
$$;
COMMENT ON FUNCTION public.uptime IS
    'In how many passes of the last day, week and month, and of all since it is known, a node answered or was full.';

CREATE FUNCTION public.up_since(host inet, port integer) RETURNS timestamptz
    STABLE SECURITY DEFINER LANGUAGE sql SET search_path = pg_catalog, pg_temp SET jit = off AS $$
    WITH roll AS MATERIALIZED (SELECT * FROM public.roll_of(up_since.host, up_since.port)),
    run AS (
        SELECT min(r.pass) AS first_pass FROM roll r
        WHERE r.pass > coalesce((SELECT max(m.pass) FROM roll m WHERE m.status = 'down'), 0)
    ), seen AS (
        SELECT r.at, NOT EXISTS (SELECT FROM roll o WHERE o.pass < r.pass) AS may_be_older
        FROM roll r JOIN run ON r.pass = run.first_pass
    ), days AS (
        SELECT d.day, get_byte(d.share, o.ordinal) AS share
        FROM bitdash_internal.node_ordinals o JOIN bitdash_internal.roll_days d ON length(d.share) > o.ordinal
        CROSS JOIN seen s
        WHERE o.host = up_since.host AND o.port = up_since.port AND s.may_be_older
            AND d.day < date_trunc('day', s.at, 'UTC')
    ), whole AS (
        SELECT min(d.day) AS day FROM days d WHERE d.share = 250
            AND d.day > coalesce((SELECT m.day FROM days m WHERE m.share < 250 ORDER BY m.day DESC LIMIT 1), '-infinity')
    )
    SELECT greatest(least(s.at, w.day), CASE WHEN s.may_be_older THEN n.first_seen END)
    FROM seen s CROSS JOIN whole w LEFT JOIN public.nodes n ON n.host = up_since.host AND n.port = up_since.port
$$;
COMMENT ON FUNCTION public.up_since IS
    'Start of the unbroken run of passes in which a node answered or was full; by days where it is older than 30 days. Null if it is down.';

INSERT INTO bitdash_internal.node_ordinals
    SELECT host, port, row_number() OVER (ORDER BY first_seen, host, port) - 1 FROM public.nodes;

-- Readers of the history read these, too.
DO $$
DECLARE
    reader regrole;
BEGIN
    FOR reader IN
        SELECT DISTINCT a.grantee FROM pg_class c CROSS JOIN aclexplode(c.relacl) a
        WHERE c.oid = 'public.history'::regclass AND a.privilege_type = 'SELECT' AND a.grantee NOT IN (0, c.relowner)
    LOOP
        EXECUTE format('GRANT SELECT ON public.rolls TO %s', reader);
    END LOOP;
END $$;
