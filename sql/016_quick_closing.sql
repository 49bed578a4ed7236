-- Closing a day reads the steps that it changes by their index; before, it read all of them. A pass
-- changes fewer pages: its roll is kept in its row instead of a table beside it, and watched nodes
-- without an event are not locked.

ALTER TABLE public.rolls SET (toast_tuple_target = 4080);

-- Adds the passes from first_ to last_ to their hours or days. Within a step each pass is folded
-- alike, so the sums, lowest and highest of "(other)" are true.
CREATE OR REPLACE FUNCTION bitdash_internal.add_to_steps(step_ "char", first_ bigint, last_ bigint) RETURNS void LANGUAGE sql AS $$
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
    ), old_step AS MATERIALIZED (
        SELECT s.dimension, s.at, s.ids, s.sums, s.lows, s.highs
        FROM bitdash_internal.history_steps s JOIN new_step n ON n.dimension = s.dimension AND n.at = s.at
        WHERE s.dimension = ANY (bitdash_internal.history_dimensions()) AND s.step = step_
            AND s.at BETWEEN (SELECT min(at) FROM new_step) AND (SELECT max(at) FROM new_step)
    ), old_count AS MATERIALIZED (
        SELECT s.at, u.id, u.sum, u.low, u.high
        FROM old_step s CROSS JOIN LATERAL unnest(s.ids, s.sums, s.lows, s.highs) u (id, sum, low, high)
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
            (CASE WHEN count(*) < 1 + bool_or(o.at IS NOT NULL)::integer THEN 0 ELSE min(p.low) END)::integer AS low,
            max(p.high)::integer AS high
        FROM part p LEFT JOIN old_step o ON o.dimension = p.dimension AND o.at = p.at GROUP BY 1, 2, 3
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

-- The bounds count days with passes back from the newest one: a clock that ran ahead removes
-- nothing.
CREATE OR REPLACE FUNCTION bitdash_internal.thin_history() RETURNS void LANGUAGE plpgsql AS $$
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
    DELETE FROM bitdash_internal.history_steps s
        WHERE s.dimension = ANY (bitdash_internal.history_dimensions()) AND s.step = 'h' AND s.at < hours_from;
    DELETE FROM bitdash_internal.history_values v
        WHERE NOT v.in_days AND v.value <> '(other)' AND v.passes_until < passes_from
            AND (v.hours_until IS NULL OR v.hours_until < hours_from)
            AND v.id NOT IN (SELECT unnest(p.ids) FROM bitdash_internal.history_passes p WHERE p.pass > closed);
END $$;

-- Called in the transaction that ends the pass. A failure during a pass in which our own uplink was
-- down is none. Times of probes are compared for equality only: clocks jump.
CREATE OR REPLACE FUNCTION bitdash_internal.write_events(pass_ bigint) RETURNS void LANGUAGE sql AS $$
    WITH node AS MATERIALIZED (
        SELECT n.host, n.port, n.name, n.status AS is_now, n.species, n.user_agent, n.first_seen, n.last_seen,
            n.last_probed, n.species = 'TRB' OR n.name IS NOT NULL AS is_watched,
            w.host IS NOT NULL AS was_watched, coalesce(w.status, n.status) AS was, w.missed_at, w.missed_pass,
            w.species AS old_species, w.user_agent AS old_agent, p.started_at, p.finished_at,
            CASE WHEN n.status <> 'down' OR w.host IS NULL THEN n.status
                WHEN w.status <> 'down' AND (w.missed_at IS NULL OR w.missed_at = n.last_probed OR p.uplink_was_down)
                    THEN w.status
                ELSE 'down' END AS status,
            n.status = 'down' AND w.status <> 'down' AND w.missed_at IS NULL AND NOT p.uplink_was_down AS is_first_miss
        FROM public.nodes n LEFT JOIN bitdash_internal.watched_nodes w ON w.host = n.host AND w.port = n.port
        CROSS JOIN public.passes p
        WHERE p.pass = pass_ AND (n.species = 'TRB' OR n.name IS NOT NULL OR w.host IS NOT NULL)
    ), found AS (
        SELECT e.kind, e.at, e.pass, e.before, e.after, n.*, row_number() OVER (ORDER BY n.name IS NULL, n.first_seen,
            n.host, n.port, e.number) AS place
        FROM node n CROSS JOIN LATERAL (VALUES
            (1, 'new', NOT n.was_watched AND n.first_seen >= n.started_at, n.first_seen, pass_, NULL, n.user_agent),
            (2, 'lost', n.was_watched AND n.status = 'down' AND n.was <> 'down', n.missed_at, n.missed_pass, n.was, 'down'),
            (3, 'back', n.was_watched AND n.status = 'up' AND n.was <> 'up', n.last_seen, pass_, n.was, 'up'),
            (4, 'full', n.was_watched AND n.status = 'full' AND n.was <> 'full', n.last_probed, pass_, n.was, 'full'),
            (5, 'species', n.was_watched AND n.species <> n.old_species OR NOT n.was_watched AND n.species = 'TRB'
                AND n.first_seen < n.started_at, n.last_seen, pass_, n.old_species, n.species),
            (6, 'agent', n.was_watched AND n.user_agent IS DISTINCT FROM n.old_agent, n.last_seen, pass_, n.old_agent,
                n.user_agent)) e (number, kind, is_found, at, pass, before, after)
        WHERE e.is_found
    ), written AS (
        INSERT INTO public.events (id, at, pass, kind, host, port, name, before, after)
        SELECT (SELECT coalesce(max(id), 0) FROM public.events) + e.place, e.at, e.pass, e.kind, e.host, e.port, e.name,
            e.before, e.after
        FROM (
            SELECT place, at, pass, kind, host, port, name, before, after FROM found WHERE place <= 200
            UNION ALL
            SELECT 201, max(finished_at), pass_, 'many', NULL, NULL, NULL, NULL, count(*)::text FROM found
            WHERE place > 200 HAVING count(*) > 0
        ) e
    ), forgotten AS (
        DELETE FROM bitdash_internal.watched_nodes w USING node n
        WHERE w.host = n.host AND w.port = n.port AND NOT n.is_watched
    )
    INSERT INTO bitdash_internal.watched_nodes (host, port, status, missed_at, missed_pass, species, user_agent)
    SELECT s.host, s.port, s.status, s.now_missed_at, s.now_missed_pass, s.species, s.user_agent
    FROM (SELECT n.*,
        CASE WHEN n.is_first_miss THEN n.last_probed WHEN n.is_now = 'down' AND n.status <> 'down' THEN n.missed_at END
            AS now_missed_at,
        CASE WHEN n.is_first_miss THEN pass_ WHEN n.is_now = 'down' AND n.status <> 'down' THEN n.missed_pass END
            AS now_missed_pass
        FROM node n WHERE n.is_watched) s
    -- ON CONFLICT locks every row that it meets, which is written, too.
    WHERE NOT s.was_watched OR (s.status, s.now_missed_at, s.species, s.user_agent)
        IS DISTINCT FROM (s.was, s.missed_at, s.old_species, s.old_agent)
    ON CONFLICT (host, port) DO UPDATE SET status = excluded.status, missed_at = excluded.missed_at,
        missed_pass = excluded.missed_pass, species = excluded.species, user_agent = excluded.user_agent
$$;
