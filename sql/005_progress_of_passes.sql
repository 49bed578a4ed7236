-- How far a pass is, for people who look at it while it runs.

ALTER TABLE public.passes ADD COLUMN due bigint NOT NULL DEFAULT 0, ADD COLUMN candidates bigint;

COMMENT ON COLUMN public.passes.due IS
    'Addresses that were due at its start or were heard of since. Some are left for a later pass.';
COMMENT ON COLUMN public.passes.candidates IS 'Candidates at its end, or as long as it runs. Null in passes of old versions.';

UPDATE public.passes SET candidates = (SELECT count(*) FROM public.candidates)
    WHERE pass = (SELECT max(pass) FROM public.passes);

-- Readers may not read bitdash_internal.
CREATE FUNCTION public.is_crawling() RETURNS boolean STABLE SECURITY DEFINER LANGUAGE sql
    SET search_path = pg_catalog, pg_temp AS $$
    SELECT EXISTS (SELECT FROM bitdash_internal.store_state s JOIN pg_stat_activity a ON a.pid = s.crawler_pid
        WHERE a.backend_start = s.crawler_started_at OR a.backend_start IS NULL AND a.usesysid = s.crawler_role)
$$;

COMMENT ON FUNCTION public.is_crawling IS 'Whether a crawler is running with this database.';
