-- History: how many nodes were up, by dimension and value. Every pass is kept for 30 days, hours
-- for 366 days, days forever. A row has the counts of all values of a dimension: a row per value
-- took ten times the space. Rows are appended; nothing is compacted.
--
-- Bounds hold against nodes that send a new user agent in every pass: a rare value, and one beyond
-- the bounds, counts as "(other)", so sums stay whole. Values of TRB nodes have bounds of their
-- own: others never crowd them out.
--
-- A day is closed once a pass of another day has ended. Which passes are in days is told by their
-- numbers, not by a clock: whatever the clock does, each pass is in one day once.

CREATE TABLE bitdash_internal.history_values (
    id           integer     PRIMARY KEY,
    dimension    text        NOT NULL,
    value        text        NOT NULL,
    is_trb       boolean     NOT NULL DEFAULT false,
    first_day    timestamptz,
    in_days      boolean     NOT NULL DEFAULT false,
    passes_until timestamptz,
    hours_until  timestamptz
);
-- Values may be long. A hash suffices to find one; only the crawler writes, so they are unique.
CREATE INDEX history_values_value ON bitdash_internal.history_values (dimension, hashtextextended(value, 0));

COMMENT ON TABLE bitdash_internal.history_values IS 'Values that rows of the history refer to.';
COMMENT ON COLUMN bitdash_internal.history_values.is_trb IS 'Whether a TRB node ever had it.';
COMMENT ON COLUMN bitdash_internal.history_values.first_day IS 'The day that it is new on: new values are bounded per day.';
COMMENT ON COLUMN bitdash_internal.history_values.in_days IS 'Whether a row of a day refers to it: then it stays forever.';
COMMENT ON COLUMN bitdash_internal.history_values.passes_until IS 'The newest closed day with a pass that refers to it.';
COMMENT ON COLUMN bitdash_internal.history_values.hours_until IS 'The newest day with an hour that refers to it.';

CREATE TABLE bitdash_internal.history_passes (
    pass      bigint      NOT NULL,
    at        timestamptz NOT NULL,
    dimension text        NOT NULL,
    ids       integer[]   NOT NULL,
    nodes     integer[]   NOT NULL,
    PRIMARY KEY (pass, dimension)
) WITH (toast_tuple_target = 4080, autovacuum_vacuum_insert_threshold = -1);

COMMENT ON TABLE bitdash_internal.history_passes IS 'Counts at the end of each pass: ids of values, and their nodes.';

-- One partition per dimension: a curve reads one of them.
CREATE TABLE bitdash_internal.history_steps (
    dimension text        NOT NULL,
    step      "char"      NOT NULL CHECK (step IN ('h', 'd')),
    at        timestamptz NOT NULL,
    passes    integer     NOT NULL CHECK (passes > 0),
    last_pass bigint      NOT NULL,
    ids       integer[]   NOT NULL,
    sums      integer[]   NOT NULL,
    lows      integer[],
    highs     integer[],
    PRIMARY KEY (dimension, step, at)
) PARTITION BY LIST (dimension);

COMMENT ON TABLE bitdash_internal.history_steps IS 'Sums over the passes of an hour or a day (UTC).';
COMMENT ON COLUMN bitdash_internal.history_steps.at IS 'Its beginning.';
COMMENT ON COLUMN bitdash_internal.history_steps.last_pass IS
    'The newest pass that is in it: passes up to the greatest of these are closed.';
COMMENT ON COLUMN bitdash_internal.history_steps.lows IS 'The lowest count of a pass; for days only.';

CREATE FUNCTION bitdash_internal.history_dimensions() RETURNS text[] IMMUTABLE PARALLEL SAFE LANGUAGE sql AS
    $$ SELECT '{status,species,release,user_agent,protocol_version,country,asn,port,services,peers}'::text[] $$;
CREATE FUNCTION bitdash_internal.is_never_folded(dimension text) RETURNS boolean IMMUTABLE PARALLEL SAFE LANGUAGE sql AS
    $$ SELECT dimension IN ('status', 'species', 'country', 'peers') $$;

COMMENT ON FUNCTION bitdash_internal.is_never_folded IS
    'Dimensions whose values nodes cannot invent: all of them are counted.';

DO $$
DECLARE
    dimension text;
BEGIN
    FOREACH dimension IN ARRAY bitdash_internal.history_dimensions() LOOP
        EXECUTE format('CREATE TABLE bitdash_internal.history_steps_%s PARTITION OF bitdash_internal.history_steps
            FOR VALUES IN (%L) WITH (toast_tuple_target = 4080, autovacuum_vacuum_insert_threshold = -1)',
            dimension, dimension);
    END LOOP;
END $$;

ALTER TABLE bitdash_internal.store_state
    ADD COLUMN history_passes_from timestamptz NOT NULL DEFAULT '-infinity',
    ADD COLUMN history_hours_from timestamptz NOT NULL DEFAULT '-infinity';

COMMENT ON COLUMN bitdash_internal.store_state.history_passes_from IS
    'Closed passes of the history before this time were removed: their hours are shown.';
COMMENT ON COLUMN bitdash_internal.store_state.history_hours_from IS
    'Hours of the history before this time were removed: their days are shown.';

CREATE FUNCTION bitdash_internal.last_closed_pass() RETURNS bigint STABLE LANGUAGE sql AS $$
    SELECT coalesce(max(last_pass), 0) FROM bitdash_internal.history_steps WHERE dimension = 'status' AND step = 'd'
$$;

COMMENT ON FUNCTION bitdash_internal.last_closed_pass IS 'The newest pass that is in a day.';

-- Every dimension has a value for the rest.
CREATE FUNCTION bitdash_internal.ensure_other_values() RETURNS void LANGUAGE sql AS $$
    INSERT INTO bitdash_internal.history_values (id, dimension, value)
    SELECT (SELECT coalesce(max(id), 0) FROM bitdash_internal.history_values) + row_number() OVER (), d.dimension, '(other)'
    FROM unnest(bitdash_internal.history_dimensions()) d (dimension)
    WHERE NOT EXISTS (SELECT FROM bitdash_internal.history_values h
        WHERE h.dimension = d.dimension AND hashtextextended(h.value, 0) = hashtextextended('(other)', 0)
            AND h.value = '(other)')
$$;

-- Called in the transaction that ends the pass. A node that is overdue by a week was excluded
-- since: it does not count forever.
CREATE FUNCTION bitdash_internal.write_history(pass_ bigint) RETURNS void LANGUAGE sql AS $$
    WITH counted AS MATERIALIZED (
        SELECT v.dimension, v.value, count(*)::integer AS nodes, bool_or(n.species = 'TRB') AS is_trb
        FROM public.passes s CROSS JOIN public.nodes n CROSS JOIN LATERAL (VALUES
            ('status', n.status), ('species', n.species), ('release', n.release), ('user_agent', n.user_agent),
            ('protocol_version', n.protocol_version::text), ('country', n.country), ('asn', n.asn::text),
            ('port', n.port::text), ('services', n.services::text),
            ('peers', CASE WHEN n.peers_sent > 0 THEN 'sent' END)) v (dimension, value)
        WHERE s.pass = pass_ AND v.value IS NOT NULL AND (n.status = 'up' OR v.dimension = 'status')
            AND n.next_probe > s.started_at - interval '7 days'
        GROUP BY 1, 2
    ), today AS (
        SELECT h.dimension, h.is_trb, count(*) AS newcomers
        FROM bitdash_internal.history_values h JOIN public.passes s ON h.first_day = date_trunc('day', s.finished_at, 'UTC')
        WHERE s.pass = pass_ GROUP BY 1, 2
    ), ranked AS (
        SELECT c.*, h.id, row_number() OVER best AS place,
            count(*) FILTER (WHERE h.id IS NULL) OVER best AS newcomers
        FROM counted c LEFT JOIN bitdash_internal.history_values h ON h.dimension = c.dimension AND h.value = c.value
        WINDOW best AS (PARTITION BY c.dimension, c.is_trb ORDER BY c.nodes DESC, c.value COLLATE "C"
            ROWS UNBOUNDED PRECEDING)
    ), bounded AS (
        SELECT r.dimension, r.nodes, r.is_trb,
            CASE WHEN bitdash_internal.is_never_folded(r.dimension) OR (r.place <= 200 AND (r.nodes >= 3 OR r.is_trb)
                AND (r.id IS NOT NULL OR r.newcomers <= least(200, 1000 - coalesce(t.newcomers, 0))))
                THEN r.value ELSE '(other)' END AS value
        FROM ranked r LEFT JOIN today t ON t.dimension = r.dimension AND t.is_trb = r.is_trb
    ), folded AS (
        SELECT dimension, value, sum(nodes)::integer AS nodes, bool_or(is_trb) AND value <> '(other)' AS is_trb
        FROM bounded GROUP BY 1, 2
    ), fresh AS (
        INSERT INTO bitdash_internal.history_values (id, dimension, value, is_trb, first_day)
        SELECT (SELECT coalesce(max(id), 0) FROM bitdash_internal.history_values) + row_number() OVER (),
            f.dimension, f.value, f.is_trb, date_trunc('day', s.finished_at, 'UTC')
        FROM folded f CROSS JOIN public.passes s
        WHERE s.pass = pass_ AND NOT EXISTS (SELECT FROM bitdash_internal.history_values h
            WHERE h.dimension = f.dimension AND h.value = f.value)
        RETURNING id, dimension, value
    ), marked AS (
        UPDATE bitdash_internal.history_values h SET is_trb = true FROM folded f
        WHERE f.is_trb AND NOT h.is_trb AND h.dimension = f.dimension AND h.value = f.value
    ), known AS (
        SELECT id, dimension, value FROM bitdash_internal.history_values
        UNION ALL SELECT id, dimension, value FROM fresh
    )
    INSERT INTO bitdash_internal.history_passes (pass, at, dimension, ids, nodes)
    SELECT s.pass, s.finished_at, d.dimension,
        coalesce(array_agg(k.id ORDER BY k.id) FILTER (WHERE k.id IS NOT NULL), '{}'),
        coalesce(array_agg(f.nodes ORDER BY k.id) FILTER (WHERE k.id IS NOT NULL), '{}')
    FROM public.passes s CROSS JOIN unnest(bitdash_internal.history_dimensions()) d (dimension)
    LEFT JOIN (folded f JOIN known k ON k.dimension = f.dimension AND k.value = f.value) ON f.dimension = d.dimension
    WHERE s.pass = pass_
    GROUP BY s.pass, s.finished_at, d.dimension
    HAVING d.dimension NOT IN ('country', 'asn') OR count(k.id) > 0
    ORDER BY d.dimension
    ON CONFLICT (pass, dimension) DO UPDATE SET at = excluded.at, ids = excluded.ids, nodes = excluded.nodes
$$;

COMMENT ON FUNCTION bitdash_internal.write_history IS
    'Counts the nodes at the end of a pass. Without places there is no row of countries and networks.';

-- Adds the passes from first_ to last_ to their hours or days. Within a step each pass is folded
-- alike, so the sums, lowest and highest of "(other)" are true.
CREATE FUNCTION bitdash_internal.add_to_steps(step_ "char", first_ bigint, last_ bigint) RETURNS void LANGUAGE sql AS $$
    WITH new_pass AS MATERIALIZED (
        SELECT p.pass, p.dimension, p.ids, p.nodes,
            date_trunc(CASE step_ WHEN 'h' THEN 'hour' ELSE 'day' END, p.at, 'UTC') AS at
        FROM bitdash_internal.history_passes p WHERE p.pass BETWEEN first_ AND last_
    ), new_step AS (
        SELECT dimension, at, count(*)::integer AS passes, max(pass) AS last_pass FROM new_pass GROUP BY 1, 2
    ), new_count AS MATERIALIZED (
        SELECT p.pass, p.at, u.id, u.n FROM new_pass p CROSS JOIN LATERAL unnest(p.ids, p.nodes) u (id, n)
    ), new_sum AS MATERIALIZED (
        SELECT c.at, c.id, sum(c.n) AS sum, min(c.n) AS low, max(c.n) AS high, count(*) AS passes FROM new_count c GROUP BY 1, 2
    ), old_count AS MATERIALIZED (
        SELECT s.at, u.id, u.sum, u.low, u.high
        FROM bitdash_internal.history_steps s JOIN new_step n ON n.dimension = s.dimension AND n.at = s.at
        CROSS JOIN LATERAL unnest(s.ids, s.sums, s.lows, s.highs) u (id, sum, low, high) WHERE s.step = step_
    ), total AS (
        SELECT c.at, c.id, sum(c.sum) AS sum
        FROM (SELECT at, id, sum FROM new_sum UNION ALL SELECT at, id, sum FROM old_count) c GROUP BY 1, 2
    ), ranked AS (
        SELECT t.at, t.id, v.dimension, o.id AS other_id, bitdash_internal.is_never_folded(v.dimension)
                OR row_number() OVER (PARTITION BY v.dimension, t.at, v.is_trb ORDER BY t.sum DESC, v.value COLLATE "C")
                    <= CASE WHEN v.dimension IN ('user_agent', 'asn') THEN 100 ELSE 200 END AS is_kept
        FROM total t JOIN bitdash_internal.history_values v ON v.id = t.id
        JOIN bitdash_internal.history_values o ON o.dimension = v.dimension AND o.value = '(other)'
    ), folded AS MATERIALIZED (
        SELECT at, id, dimension, other_id, is_kept AND id <> other_id AS is_kept FROM ranked
    ), rest AS (
        SELECT f.dimension, c.at, c.pass, f.other_id AS id, sum(c.n) AS n
        FROM new_count c JOIN folded f ON f.at = c.at AND f.id = c.id AND NOT f.is_kept
        GROUP BY 1, 2, 3, 4
    ), part AS (
        SELECT f.dimension, n.at, n.id, n.sum, CASE WHEN n.passes < s.passes THEN 0 ELSE n.low END AS low, n.high
        FROM new_sum n JOIN folded f ON f.at = n.at AND f.id = n.id AND f.is_kept
        JOIN new_step s ON s.dimension = f.dimension AND s.at = n.at
        UNION ALL
        SELECT r.dimension, r.at, r.id, sum(r.n), CASE WHEN count(*) < s.passes THEN 0 ELSE min(r.n) END, max(r.n)
        FROM rest r JOIN new_step s ON s.dimension = r.dimension AND s.at = r.at
        GROUP BY r.dimension, r.at, r.id, s.passes
        UNION ALL
        SELECT f.dimension, c.at, CASE WHEN f.is_kept THEN f.id ELSE f.other_id END, sum(c.sum), sum(c.low), sum(c.high)
        FROM old_count c JOIN folded f ON f.at = c.at AND f.id = c.id
        GROUP BY 1, 2, 3
    ), whole AS (
        SELECT p.dimension, p.at, p.id, sum(p.sum)::integer AS sum,
            (CASE WHEN count(*) < 1 + EXISTS (SELECT FROM bitdash_internal.history_steps o
                WHERE o.dimension = p.dimension AND o.step = step_ AND o.at = p.at)::integer
                THEN 0 ELSE min(p.low) END)::integer AS low,
            max(p.high)::integer AS high
        FROM part p GROUP BY 1, 2, 3
    ), written AS (
        INSERT INTO bitdash_internal.history_steps AS old (dimension, step, at, passes, last_pass, ids, sums, lows, highs)
        SELECT s.dimension, step_, s.at, s.passes, s.last_pass,
            coalesce(array_agg(w.id ORDER BY w.id) FILTER (WHERE w.id IS NOT NULL), '{}'),
            coalesce(array_agg(w.sum ORDER BY w.id) FILTER (WHERE w.id IS NOT NULL), '{}'),
            CASE step_ WHEN 'd' THEN coalesce(array_agg(w.low ORDER BY w.id) FILTER (WHERE w.id IS NOT NULL), '{}') END,
            CASE step_ WHEN 'd' THEN coalesce(array_agg(w.high ORDER BY w.id) FILTER (WHERE w.id IS NOT NULL), '{}') END
        FROM new_step s LEFT JOIN whole w ON w.dimension = s.dimension AND w.at = s.at
        GROUP BY s.dimension, s.at, s.passes, s.last_pass ORDER BY s.dimension, s.at
        ON CONFLICT (dimension, step, at) DO UPDATE SET passes = old.passes + excluded.passes,
            last_pass = greatest(old.last_pass, excluded.last_pass), ids = excluded.ids, sums = excluded.sums,
            lows = excluded.lows, highs = excluded.highs
        RETURNING ids
    )
    UPDATE bitdash_internal.history_values v SET in_days = v.in_days OR step_ = 'd',
        hours_until = CASE step_ WHEN 'h' THEN u.day ELSE v.hours_until END
    FROM (SELECT DISTINCT unnest(w.ids) AS id, (SELECT max(date_trunc('day', at, 'UTC')) FROM new_step) AS day FROM written w) u
    WHERE v.id = u.id AND NOT v.in_days AND (step_ = 'd' OR v.hours_until IS NULL OR v.hours_until < u.day)
$$;

-- Closes the oldest day that is not closed and over: its passes from first_ to last_. Null if there
-- is none.
CREATE FUNCTION bitdash_internal.close_history_day(OUT day timestamptz, OUT first_ bigint, OUT last_ bigint)
    LANGUAGE plpgsql AS $$
BEGIN
    SELECT date_trunc('day', p.at, 'UTC'), p.pass INTO day, first_ FROM bitdash_internal.history_passes p
        WHERE p.dimension = 'status' AND p.pass > bitdash_internal.last_closed_pass() ORDER BY p.pass LIMIT 1;
    SELECT p.pass - 1 INTO last_ FROM bitdash_internal.history_passes p
        WHERE p.dimension = 'status' AND p.pass > first_ AND date_trunc('day', p.at, 'UTC') <> day ORDER BY p.pass LIMIT 1;
    IF last_ IS NULL THEN
        day := NULL;
        RETURN;
    END IF;
    PERFORM bitdash_internal.ensure_other_values();
    -- Days first: a value that is in a day needs no other mark.
    PERFORM bitdash_internal.add_to_steps('d', first_, last_);
    PERFORM bitdash_internal.add_to_steps('h', first_, last_);
    UPDATE bitdash_internal.history_values v SET passes_until = day
        FROM (SELECT DISTINCT unnest(p.ids) AS id FROM bitdash_internal.history_passes p WHERE p.pass BETWEEN first_ AND last_) u
        WHERE v.id = u.id AND NOT v.in_days AND (v.passes_until IS NULL OR v.passes_until < day);
    PERFORM bitdash_internal.thin_history();
END $$;

COMMENT ON FUNCTION bitdash_internal.close_history_day IS
    'Adds the passes of the oldest day that is not closed to their hours and their day, once a pass of another day has ended.';

-- The bounds count days with passes back from the newest one: a clock that ran ahead removes
-- nothing.
CREATE FUNCTION bitdash_internal.thin_history() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    closed bigint := bitdash_internal.last_closed_pass();
    newest timestamptz;
    passes_from timestamptz;
    hours_from timestamptz;
BEGIN
    SELECT date_trunc('day', p.at, 'UTC') INTO newest FROM bitdash_internal.history_passes p
        WHERE p.dimension = 'status' ORDER BY p.pass DESC LIMIT 1;
    UPDATE bitdash_internal.store_state SET
        history_passes_from = greatest(history_passes_from, least(newest - interval '30 days', coalesce((
            SELECT s.at FROM bitdash_internal.history_steps s WHERE s.dimension = 'status' AND s.step = 'd'
            ORDER BY s.at DESC OFFSET 29 LIMIT 1), '-infinity'))),
        history_hours_from = greatest(history_hours_from, least(newest - interval '366 days', coalesce((
            SELECT s.at FROM bitdash_internal.history_steps s WHERE s.dimension = 'status' AND s.step = 'd'
            ORDER BY s.at DESC OFFSET 365 LIMIT 1), '-infinity')))
        RETURNING history_passes_from, history_hours_from INTO passes_from, hours_from;
    DELETE FROM bitdash_internal.history_passes p WHERE p.at < passes_from AND p.pass <= closed;
    DELETE FROM bitdash_internal.history_steps s WHERE s.step = 'h' AND s.at < hours_from;
    DELETE FROM bitdash_internal.history_values v
        WHERE NOT v.in_days AND v.value <> '(other)' AND v.passes_until < passes_from
            AND (v.hours_until IS NULL OR v.hours_until < hours_from)
            AND v.id NOT IN (SELECT unnest(p.ids) FROM bitdash_internal.history_passes p WHERE p.pass > closed);
END $$;

COMMENT ON FUNCTION bitdash_internal.thin_history IS
    'Removes passes older than 30 days, hours older than 366 days, and values that no row refers to any more.';

-- The rows of before are packed, without bounds.

INSERT INTO bitdash_internal.history_values (id, dimension, value, is_trb)
    SELECT row_number() OVER (ORDER BY h.dimension, h.value), h.dimension, h.value, EXISTS (
        SELECT FROM public.nodes n WHERE n.species = 'TRB' AND h.value = CASE h.dimension
            WHEN 'species' THEN n.species WHEN 'user_agent' THEN n.user_agent
            WHEN 'protocol_version' THEN n.protocol_version::text WHEN 'country' THEN n.country
            WHEN 'asn' THEN n.asn::text WHEN 'port' THEN n.port::text WHEN 'services' THEN n.services::text END)
    FROM (SELECT DISTINCT dimension, value FROM public.history) h;
INSERT INTO bitdash_internal.history_passes (pass, at, dimension, ids, nodes)
    SELECT h.pass, min(h.at), h.dimension, array_agg(v.id ORDER BY v.id), array_agg(h.nodes ORDER BY v.id)
    FROM public.history h JOIN bitdash_internal.history_values v ON v.dimension = h.dimension AND v.value = h.value
    GROUP BY h.pass, h.dimension ORDER BY h.pass, h.dimension;
ALTER TABLE public.history SET SCHEMA bitdash_internal;
ALTER TABLE bitdash_internal.history RENAME TO history_before;

-- What people read.

CREATE VIEW public.history AS
    SELECT p.pass, p.at, p.dimension, v.value, u.n::real AS nodes, 'pass'::text AS step, 1 AS passes,
        u.n AS lowest, u.n AS highest
    FROM bitdash_internal.history_passes p CROSS JOIN LATERAL unnest(p.ids, p.nodes) u (id, n)
    JOIN bitdash_internal.history_values v ON v.id = u.id
    UNION ALL
    SELECT NULL, s.at, s.dimension, v.value, (u.sum::real / s.passes)::real, CASE s.step WHEN 'h' THEN 'hour' ELSE 'day' END,
        s.passes, u.low, u.high
    FROM bitdash_internal.history_steps s CROSS JOIN LATERAL unnest(s.ids, s.sums, s.lows, s.highs) u (id, sum, low, high)
    JOIN bitdash_internal.history_values v ON v.id = u.id
    WHERE s.at < (SELECT CASE s.step WHEN 'h' THEN t.history_passes_from ELSE t.history_hours_from END
        FROM bitdash_internal.store_state t);

COMMENT ON VIEW public.history IS
    'Nodes that were up, by dimension and value, in the finest step that is kept: passes for 30 days, hours for 366, then days. For one curve use history_of().';
COMMENT ON COLUMN public.history.pass IS 'The pass; null for hours and days.';
COMMENT ON COLUMN public.history.at IS 'The end of the pass; the beginning of the hour or day (UTC). Without a pass there is no row.';
COMMENT ON COLUMN public.history.dimension IS
    'status (counts all nodes), species, release, user_agent, protocol_version, country, asn, port, services or peers (sent: nodes that returned peers).';
COMMENT ON COLUMN public.history.value IS
    'The value as nodes.COLUMN::text prints it; (other) for those that are rare or beyond the bounds. Nodes without a value are not counted.';
COMMENT ON COLUMN public.history.nodes IS 'The number of nodes, or its mean over the passes of the step.';
COMMENT ON COLUMN public.history.step IS 'pass, hour or day.';
COMMENT ON COLUMN public.history.passes IS 'Number of passes in the step.';
COMMENT ON COLUMN public.history.lowest IS 'The lowest number at the end of a pass in the step; null for hours.';
COMMENT ON COLUMN public.history.highest IS 'The highest number at the end of a pass in the step; null for hours.';

CREATE FUNCTION public.history_of(dimension text, value text, step text DEFAULT NULL) RETURNS SETOF public.history
    STABLE SECURITY DEFINER LANGUAGE sql SET search_path = pg_catalog, pg_temp SET jit = off AS $$
    WITH wanted AS (
        SELECT min(v.id) AS id FROM bitdash_internal.history_values v
        WHERE v.dimension = history_of.dimension AND v.value = history_of.value
            AND hashtextextended(v.value, 0) = hashtextextended(history_of.value, 0)
    ), curve AS (
        SELECT p.pass, p.at, coalesce(n.n, 0)::real AS nodes, 'pass' AS step, 1 AS passes, coalesce(n.n, 0) AS lowest,
            coalesce(n.n, 0) AS highest
        FROM bitdash_internal.history_passes p
        CROSS JOIN LATERAL (SELECT p.nodes[array_position(p.ids, (SELECT id FROM wanted))] AS n) n
        WHERE p.dimension = history_of.dimension AND coalesce(history_of.step, 'pass') = 'pass'
        UNION ALL
        SELECT NULL, s.at, (coalesce(s.sums[n.i], 0)::real / s.passes)::real, CASE s.step WHEN 'h' THEN 'hour' ELSE 'day' END,
            s.passes, CASE s.step WHEN 'd' THEN coalesce(s.lows[n.i], 0) END,
            CASE s.step WHEN 'd' THEN coalesce(s.highs[n.i], 0) END
        FROM bitdash_internal.history_steps s
        CROSS JOIN LATERAL (SELECT array_position(s.ids, (SELECT id FROM wanted)) AS i) n
        WHERE s.dimension = history_of.dimension AND (
            s.step = CASE history_of.step WHEN 'hour' THEN 'h' WHEN 'day' THEN 'd' END
            OR history_of.step IS NULL AND s.at < (
                SELECT CASE s.step WHEN 'h' THEN t.history_passes_from ELSE t.history_hours_from END
                FROM bitdash_internal.store_state t))
    )
    SELECT c.pass, c.at, history_of.dimension, history_of.value, c.nodes, c.step, c.passes, c.lowest, c.highest
    FROM curve c ORDER BY c.at, c.pass
$$;

COMMENT ON FUNCTION public.history_of IS
    'One curve, zeros included: by pass, hour or day, or, without a step, the finest that is kept.';

CREATE TABLE public.history_notes (
    at   timestamptz NOT NULL DEFAULT now(),
    text text        NOT NULL
);
COMMENT ON TABLE public.history_notes IS
    'Changes of how nodes are counted: they change later points of the history only.';
COMMENT ON COLUMN public.history_notes.at IS 'When it took effect.';
COMMENT ON COLUMN public.history_notes.text IS 'What changed.';

-- Readers keep their rights.
DO $$
DECLARE
    reader regrole;
BEGIN
    FOR reader IN
        SELECT DISTINCT a.grantee FROM pg_class c CROSS JOIN aclexplode(c.relacl) a
        WHERE c.oid = 'bitdash_internal.history_before'::regclass AND a.privilege_type = 'SELECT' AND a.grantee NOT IN (0, c.relowner)
    LOOP
        EXECUTE format('GRANT SELECT ON public.history, public.history_notes TO %s', reader);
    END LOOP;
END $$;
DROP TABLE bitdash_internal.history_before;
