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

-- What `\d+` tells.
COMMENT ON COLUMN public.nodes.host IS 'Its address.';
COMMENT ON COLUMN public.nodes.port IS 'Its port; 8333 is the default of the main network.';
COMMENT ON COLUMN public.nodes.protocol_version IS 'Protocol version that it claims.';
COMMENT ON COLUMN public.nodes.last_probed IS 'When it was last probed.';
COMMENT ON COLUMN public.probes.host IS 'The node.';
COMMENT ON COLUMN public.probes.port IS 'Its port.';
COMMENT ON COLUMN public.probes.pass IS 'The pass; a node has one result for each.';
COMMENT ON COLUMN public.probes.protocol_version IS 'Protocol version that it claimed. Null if it did not respond.';
COMMENT ON COLUMN public.probes.user_agent IS 'User agent as safe text, as in nodes. Null if it did not respond or sent none.';
COMMENT ON COLUMN public.probes.services IS 'Service bits that it claimed: service_names() names them.';
COMMENT ON COLUMN public.probes.start_height IS 'Height of its chain, as sent.';
COMMENT ON COLUMN public.probes.connect_ms IS 'Time from dialling to connected: one round trip.';
COMMENT ON COLUMN public.probes.version_ms IS 'Time from connected to its version message.';
COMMENT ON COLUMN public.addresses.host IS 'The address.';
COMMENT ON COLUMN public.addresses.port IS 'The port.';
COMMENT ON COLUMN public.addresses.last_outcome IS
    'How the last probe ended: responded, refused, unreachable, connect_timeout, handshake_timeout, closed, not_bitcoin or malformed.';
COMMENT ON COLUMN public.candidates.host IS 'The address.';
COMMENT ON COLUMN public.candidates.port IS 'The port.';
COMMENT ON COLUMN public.candidates.first_heard IS 'When it was first heard of, from a seed or from a node.';
COMMENT ON COLUMN public.candidates.last_heard IS 'When it was last heard of; updated about once a day.';
COMMENT ON COLUMN public.candidates.failures IS 'Consecutive failures: the back-off grows with them.';
COMMENT ON COLUMN public.candidates.last_probed IS 'Null if it was never probed.';
COMMENT ON COLUMN public.candidates.last_outcome IS 'How the last probe ended, as in addresses.';
COMMENT ON COLUMN public.candidates.next_probe IS 'When it is due.';
COMMENT ON COLUMN public.sources.source IS 'The /16.';
COMMENT ON COLUMN public.passes.pass IS 'Its number.';
COMMENT ON COLUMN public.passes.started_at IS 'When it started.';
COMMENT ON COLUMN public.passes.probed IS 'Probes that ended.';
COMMENT ON COLUMN public.passes.responded IS 'Probes that a version message answered.';
COMMENT ON COLUMN public.passes.failed IS 'The other probes.';
COMMENT ON COLUMN public.history.pass IS 'The pass at whose end it was counted.';
COMMENT ON COLUMN public.history.nodes IS 'Number of nodes.';
