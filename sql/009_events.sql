-- Events: what happened to TRB and named nodes, found when a pass ends.

CREATE TABLE public.events (
    id     bigint      PRIMARY KEY,
    at     timestamptz NOT NULL,
    pass   bigint      NOT NULL,
    kind   text        NOT NULL CHECK (kind IN ('new', 'lost', 'back', 'full', 'agent', 'species', 'many')),
    host   inet,
    port   integer,
    name   text,
    before text,
    after  text,
    CHECK ((host IS NULL) = (kind = 'many') AND (port IS NULL) = (host IS NULL))
);

COMMENT ON TABLE public.events IS
    'Changes of TRB and named nodes: at most 200 of a pass, and of all the newest 100,000.';
COMMENT ON COLUMN public.events.id IS 'In the order in which they were found.';
COMMENT ON COLUMN public.events.at IS 'When it happened: of a lost node, its first failure.';
COMMENT ON COLUMN public.events.pass IS 'The pass in which it happened.';
COMMENT ON COLUMN public.events.kind IS
    'new: it responded for the first time. lost: it did not respond in two passes in a row. back: it responded again. full: it accepts and closes connections. agent, species: it has another one. many: there were more.';
COMMENT ON COLUMN public.events.host IS 'The node; null for many.';
COMMENT ON COLUMN public.events.port IS 'Its port; null for many.';
COMMENT ON COLUMN public.events.name IS 'Its name at that time.';
COMMENT ON COLUMN public.events.before IS 'The status, user agent or species before.';
COMMENT ON COLUMN public.events.after IS 'The status, user agent or species since; of many, the number of events left out.';

CREATE TABLE bitdash_internal.watched_nodes (
    host        inet    NOT NULL,
    port        integer NOT NULL,
    status      text    NOT NULL CHECK (status IN ('up', 'full', 'down')),
    missed_at   timestamptz,
    missed_pass bigint,
    species     text    NOT NULL,
    user_agent  text,
    PRIMARY KEY (host, port)
);

COMMENT ON TABLE bitdash_internal.watched_nodes IS 'TRB and named nodes as the last events left them.';
COMMENT ON COLUMN bitdash_internal.watched_nodes.status IS 'down: it is lost.';
COMMENT ON COLUMN bitdash_internal.watched_nodes.missed_at IS 'Its first failure since it was up or full.';

INSERT INTO bitdash_internal.watched_nodes (host, port, status, species, user_agent)
    SELECT host, port, status, species, user_agent FROM public.nodes WHERE species = 'TRB' OR name IS NOT NULL;

-- Called in the transaction that ends the pass. A failure during a pass in which our own uplink was
-- down is none. Times of probes are compared for equality only: clocks jump.
CREATE FUNCTION bitdash_internal.write_events(pass_ bigint) RETURNS void LANGUAGE sql AS $$
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
    INSERT INTO bitdash_internal.watched_nodes AS w (host, port, status, missed_at, missed_pass, species, user_agent)
    SELECT n.host, n.port, n.status,
        CASE WHEN n.is_first_miss THEN n.last_probed WHEN n.is_now = 'down' AND n.status <> 'down' THEN n.missed_at END,
        CASE WHEN n.is_first_miss THEN pass_ WHEN n.is_now = 'down' AND n.status <> 'down' THEN n.missed_pass END,
        n.species, n.user_agent
    FROM node n WHERE n.is_watched
    ON CONFLICT (host, port) DO UPDATE SET status = excluded.status, missed_at = excluded.missed_at,
        missed_pass = excluded.missed_pass, species = excluded.species, user_agent = excluded.user_agent
    WHERE (w.status, w.missed_at, w.species, w.user_agent) IS DISTINCT FROM
        (excluded.status, excluded.missed_at, excluded.species, excluded.user_agent)
$$;

COMMENT ON FUNCTION bitdash_internal.write_events IS
    'Writes the events of a pass. Named nodes come first, then those known longest: others do not crowd them out.';

-- Readers of the history read these, too.
DO $$
DECLARE
    reader regrole;
BEGIN
    FOR reader IN
        SELECT DISTINCT a.grantee FROM pg_class c CROSS JOIN aclexplode(c.relacl) a
        WHERE c.oid = 'public.history'::regclass AND a.privilege_type = 'SELECT' AND a.grantee NOT IN (0, c.relowner)
    LOOP
        EXECUTE format('GRANT SELECT ON public.events TO %s', reader);
    END LOOP;
END $$;
