-- In the schema public stands what people and programs read: the tables nodes, passes and history,
-- the views probes, addresses, candidates and sources, and the functions address and service_names.
-- Everything else is in the schema bitdash_internal.
--
-- A node is a row that is updated in place. No index has a column that changes, and each page has
-- room for a second version of its rows, so updates are heap-only and later ones reuse their space
-- without a vacuum. Candidates are a hundred times as many and scattered: updating them in place
-- would log a whole page for each. They, the sources and the results of probes are appended to
-- journals without an index. About once a day, compaction merges each journal into its base. There
-- are two base tables of each kind, "a" and "b": compaction fills the empty one and truncates the
-- other one in the same transaction.
--
-- A key is an address as one number: the IPv4 address times 65536, plus the port.
-- The journal of addresses is ordered by batch number, not by time, because clocks jump.

SET LOCAL work_mem = '64MB';
SET LOCAL enable_nestloop = off;
SET LOCAL enable_mergejoin = off;
SET LOCAL jit = off;

-- A reader asks for the version first.
GRANT USAGE ON SCHEMA bitdash_internal TO PUBLIC;
GRANT SELECT ON bitdash_internal.schema_migrations TO PUBLIC;

DROP VIEW public.nodes, public.probes, public.addresses, public.candidates, public.sources;
DROP FUNCTION public.addresses_between;

-- Keys, times, outcomes.

ALTER FUNCTION public.key_host SET SCHEMA bitdash_internal;
ALTER FUNCTION public.key_port SET SCHEMA bitdash_internal;
ALTER FUNCTION public.whole_time SET SCHEMA bitdash_internal;
CREATE FUNCTION bitdash_internal.key(host inet, port integer) RETURNS bigint
    IMMUTABLE PARALLEL SAFE LANGUAGE sql AS
    $$ SELECT ((host - '0.0.0.0'::inet) << 16) + port $$;
CREATE FUNCTION bitdash_internal.outcome_word(code smallint) RETURNS text
    IMMUTABLE PARALLEL SAFE LANGUAGE sql AS
    $$ SELECT ('{responded,refused,unreachable,connect_timeout,handshake_timeout,closed,not_bitcoin,malformed}'::text[])[code + 1] $$;

COMMENT ON FUNCTION bitdash_internal.key IS 'The key of an IPv4 address and a port.';
COMMENT ON FUNCTION bitdash_internal.outcome_word IS 'The name of an outcome: 0 is responded, 1 refused, and so on.';

-- State of the store.

ALTER SEQUENCE public.batch_number SET SCHEMA bitdash_internal;
ALTER TABLE public.store_state SET SCHEMA bitdash_internal;
ALTER TABLE bitdash_internal.store_state RENAME COLUMN addresses_folded_at TO addresses_compacted_at;
ALTER TABLE bitdash_internal.store_state RENAME COLUMN nodes_base TO probes_base;
ALTER TABLE bitdash_internal.store_state RENAME COLUMN nodes_folded_at TO probes_compacted_at;
ALTER TABLE bitdash_internal.store_state RENAME CONSTRAINT store_state_nodes_base_check TO store_state_probes_base_check;

COMMENT ON SEQUENCE bitdash_internal.batch_number IS
    'Orders the journals. A batch has two numbers: the second for the addresses that it forgets, the first for all other rows.';
COMMENT ON TABLE bitdash_internal.store_state IS 'One row: state of the store.';
COMMENT ON COLUMN bitdash_internal.store_state.results_per_node IS 'The value of crawl.results_per_node that was last in effect.';
COMMENT ON COLUMN bitdash_internal.store_state.addresses_base IS 'Base tables of addresses and sources that are in use.';
COMMENT ON COLUMN bitdash_internal.store_state.probes_base IS 'Base table of probes that is in use.';
COMMENT ON COLUMN bitdash_internal.store_state.identity IS
    'Drawn when the schema is created: tells this database from a recreated one.';

-- Nodes.

CREATE TABLE public.nodes (
    host             inet        NOT NULL,
    port             integer     NOT NULL,
    name             text,
    status           text        NOT NULL,
    species          text        NOT NULL,
    release          text,
    protocol_version integer     NOT NULL,
    user_agent       text,
    services         bigint      NOT NULL,
    start_height     integer,
    relay            boolean,
    connect_ms       integer,
    version_ms       integer,
    country          text,
    asn              bigint,
    as_name          text,
    first_seen       timestamptz NOT NULL,
    last_seen        timestamptz NOT NULL,
    last_probed      timestamptz NOT NULL,
    last_outcome     text        NOT NULL,
    failures         integer     NOT NULL,
    next_probe       timestamptz NOT NULL,
    peers_asked_at   timestamptz,
    peers_sent       integer,
    PRIMARY KEY (host, port),
    CONSTRAINT nodes_are_ipv4_and_have_a_port CHECK (
        family(host) = 4 AND masklen(host) = 32 AND port BETWEEN 1 AND 65535),
    CONSTRAINT nodes_status_is_a_word CHECK (status IN ('up', 'full', 'down')),
    CONSTRAINT nodes_up_means_responded CHECK ((status = 'up') = (last_outcome = 'responded')),
    CONSTRAINT nodes_full_means_closed CHECK (status <> 'full' OR last_outcome = 'closed'),
    CONSTRAINT nodes_failures_are_consecutive CHECK (failures >= 0 AND (failures = 0) = (last_outcome = 'responded'))
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 2, autovacuum_vacuum_insert_threshold = -1,
    autovacuum_analyze_scale_factor = 0.5);

INSERT INTO public.nodes
    SELECT host, port, name, status, species,
        CASE WHEN species IN ('TRB', 'Core', 'Knots', 'BCH', 'BSV', 'XT', 'Classic', 'Unlimited', 'SegWit2x', 'btcd',
                'bcoin', 'Gocoin', 'libbitcoin')
            THEN species || ' ' || substring(user_agent FROM
                CASE species WHEN 'btcd' THEN '/btcd:' ELSE '^/[^:/(]*:' END || 'v?((?:0\.(?:\d|[1-9]\d)|[1-9]\d?)(?=[./(]|$))')
        END,
        protocol_version, user_agent, services, start_height, relay, connect_ms, version_ms, country, asn, as_name,
        first_seen, last_seen, last_probed, last_outcome, failures, next_probe, peers_asked_at, peers_sent
    FROM public.nodes_between(0, 281474976710655) ORDER BY host, port;

COMMENT ON TABLE public.nodes IS 'Addresses that have answered with a version message at least once.';
COMMENT ON COLUMN public.nodes.name IS 'The name from the nodes file; null for all other nodes.';
COMMENT ON COLUMN public.nodes.status IS
    'up: the last probe responded. full: it ended closed, and the node responded within the last 7 days. down: anything else.';
COMMENT ON COLUMN public.nodes.species IS 'The lineage of the software: TRB, Core, Knots, BCH, ...';
COMMENT ON COLUMN public.nodes.release IS 'Species and major version, such as Core 28 or Core 0.21. Null where the species has no versions.';
COMMENT ON COLUMN public.nodes.user_agent IS
    'As text: bytes 0x20 to 0x7e unchanged, a backslash doubled, every other byte as \xNN; at most 256 bytes of the original. Null if not sent.';
COMMENT ON COLUMN public.nodes.services IS
    'The 64 service bits in two''s complement: the highest bit makes it negative. service_names() returns their names.';
COMMENT ON COLUMN public.nodes.start_height IS 'Height of its chain, as sent. Null if not sent.';
COMMENT ON COLUMN public.nodes.relay IS 'The relay byte. Null if not sent.';
COMMENT ON COLUMN public.nodes.connect_ms IS 'Time from dialling to connected, at the last response.';
COMMENT ON COLUMN public.nodes.version_ms IS 'Time from connected to version, at the last response.';
COMMENT ON COLUMN public.nodes.country IS 'From the file geo.country_db.';
COMMENT ON COLUMN public.nodes.asn IS 'Autonomous system, from the file geo.asn_db.';
COMMENT ON COLUMN public.nodes.as_name IS 'Operator of the autonomous system.';
COMMENT ON COLUMN public.nodes.first_seen IS 'Time of the first response.';
COMMENT ON COLUMN public.nodes.last_seen IS 'Time of the last response.';
COMMENT ON COLUMN public.nodes.last_outcome IS
    'How the last probe ended: responded, refused, unreachable, connect_timeout, handshake_timeout, closed, not_bitcoin or malformed.';
COMMENT ON COLUMN public.nodes.failures IS 'Consecutive failures; 0 after a response.';
COMMENT ON COLUMN public.nodes.next_probe IS 'Passes that start at this time or later probe it.';
COMMENT ON COLUMN public.nodes.peers_asked_at IS 'When it was last sent a getaddr. Null if never.';
COMMENT ON COLUMN public.nodes.peers_sent IS 'Number of entries that it sent then. Null if never asked.';

CREATE TABLE bitdash_internal.node_names (
    host inet    NOT NULL,
    port integer NOT NULL,
    name text    NOT NULL,
    PRIMARY KEY (host, port)
);
INSERT INTO bitdash_internal.node_names
    SELECT bitdash_internal.key_host(key), bitdash_internal.key_port(key), name FROM public.node_names;
COMMENT ON TABLE bitdash_internal.node_names IS 'Names from the nodes file, of addresses that are no nodes too.';

-- Results of probes.

ALTER TABLE public.probe_rows_a SET SCHEMA bitdash_internal;
ALTER TABLE public.probe_rows_b SET SCHEMA bitdash_internal;
CREATE TABLE bitdash_internal.probe_journal (
    LIKE bitdash_internal.probe_rows_a,
    CONSTRAINT probes_are_of_ipv4_and_have_a_port CHECK (
        key BETWEEN 0 AND 281474976710655 AND (key & 65535) > 0),
    CONSTRAINT probes_only_a_response_has_a_version CHECK ((outcome = 0) = (protocol_version IS NOT NULL))
) WITH (autovacuum_vacuum_insert_threshold = -1);
INSERT INTO bitdash_internal.probe_journal
    SELECT DISTINCT ON (j.key, j.pass) j.key, j.pass, j.at, j.services, j.protocol_version, j.start_height,
        j.connect_ms, j.version_ms, j.peers_sent, j.outcome, j.user_agent
    FROM public.result_journal j
    WHERE j.pass IS NOT NULL AND (j.key, j.pass) NOT IN (SELECT r.key, r.pass FROM public.probe_rows r)
    ORDER BY j.key, j.pass, j.batch;

COMMENT ON TABLE bitdash_internal.probe_journal IS 'Results since the last compaction.';
COMMENT ON TABLE bitdash_internal.probe_rows_a IS 'Results as of the last compaction.';
COMMENT ON TABLE bitdash_internal.probe_rows_b IS 'The other half of probe_rows_a: one of the two is empty.';

DROP FUNCTION public.nodes_between, public.probes_between, public.node_state, public.probe_state, public.node_keys;
DROP VIEW public.probe_rows, public.node_rows;
DROP TABLE public.node_names, public.node_places, public.node_rows_a, public.node_rows_b, public.result_journal;
DROP FUNCTION public.outcome_word, public.lowest_key;

-- Host and port partition nothing that the key does not. They are there so that a condition on them
-- reaches the tables.
CREATE VIEW bitdash_internal.probe_state AS
    SELECT k.* FROM (
        SELECT d.*, row_number() OVER (PARTITION BY d.key, d.host, d.port ORDER BY d.pass DESC) AS place
        FROM (
            SELECT DISTINCT ON (r.key, r.host, r.port, r.pass) r.* FROM (
                SELECT p.*, bitdash_internal.key_host(p.key) AS host, bitdash_internal.key_port(p.key) AS port
                FROM (
                    SELECT * FROM bitdash_internal.probe_rows_a
                    UNION ALL SELECT * FROM bitdash_internal.probe_rows_b
                    UNION ALL SELECT * FROM bitdash_internal.probe_journal
                ) p
            ) r
            ORDER BY r.key, r.host, r.port, r.pass DESC, r.at
        ) d
        WHERE d.key IN (SELECT bitdash_internal.key(n.host, n.port) FROM public.nodes n)
    ) k
    WHERE k.place <= (SELECT s.results_per_node FROM bitdash_internal.store_state s);

COMMENT ON VIEW bitdash_internal.probe_state IS
    'The newest results of each node: base and journal together. Of two results of one pass the first counts.';

CREATE VIEW public.probes AS
    SELECT host, port, pass, at AS probed_at, bitdash_internal.outcome_word(outcome) AS outcome, protocol_version,
        user_agent, services, start_height, connect_ms, version_ms, peers_sent
    FROM bitdash_internal.probe_state;

COMMENT ON VIEW public.probes IS 'Results of nodes: the newest crawl.results_per_node of each. Candidates leave no row here.';
COMMENT ON COLUMN public.probes.probed_at IS 'When the outcome was known.';
COMMENT ON COLUMN public.probes.outcome IS 'How it ended; the words are those of nodes.last_outcome.';
COMMENT ON COLUMN public.probes.peers_sent IS 'Number of entries that it sent in reply to getaddr. Null if it was not asked.';

-- Addresses.

ALTER TABLE public.address_journal SET SCHEMA bitdash_internal;
ALTER TABLE public.address_blocks_a SET SCHEMA bitdash_internal;
ALTER TABLE public.address_blocks_b SET SCHEMA bitdash_internal;
ALTER VIEW public.address_blocks SET SCHEMA bitdash_internal;
DROP FUNCTION public.address_state;
ALTER TABLE bitdash_internal.address_journal DROP CONSTRAINT candidates_never_responded,
    ADD CONSTRAINT candidates_never_responded CHECK (outcome BETWEEN 1 AND 15);

COMMENT ON TABLE bitdash_internal.address_journal IS
    'Changes of addresses since the last compaction: heard of, failed, or (if all other columns are null) forgotten. Times are seconds since 2000-01-01.';
COMMENT ON COLUMN bitdash_internal.address_journal.source IS
    'The /16 of the only source that named it: the upper 16 bits as a signed number. 0 once unrelated sources or an operator named it.';
COMMENT ON TABLE bitdash_internal.address_blocks_a IS
    'Addresses as of the last compaction, many per row: the overhead of a row is larger than the data of an address.';
COMMENT ON TABLE bitdash_internal.address_blocks_b IS 'The other half of address_blocks_a: one of the two is empty.';
COMMENT ON VIEW bitdash_internal.address_blocks IS 'The base of addresses.';

-- The newest value in the journal is the greatest number of batch and value packed together. An
-- outcome takes 4 bits, the failures before it 15.
CREATE FUNCTION bitdash_internal.address_state(low bigint, high bigint) RETURNS TABLE (
    key bigint, first_heard integer, last_heard integer, source smallint, failures smallint,
    last_probed integer, outcome smallint, next_probe integer) STABLE LANGUAGE sql AS $$
    WITH forgotten AS (
        SELECT j.key, max(j.batch) AS batch FROM bitdash_internal.address_journal j
        WHERE j.next_probe IS NULL AND j.key BETWEEN low AND high GROUP BY j.key)
    SELECT coalesce(b.key, c.key), coalesce(b.first_heard, c.first_heard),
        greatest(b.last_heard, c.last_heard), coalesce(c.source, b.source),
        coalesce((c.probe >> 4)::smallint, b.failures, 0::smallint),
        coalesce(c.last_probed, b.last_probed),
        coalesce((c.probe & 15)::smallint, b.outcome),
        coalesce(c.next_probe, b.next_probe, c.first_probe)
    FROM (
        SELECT u.* FROM bitdash_internal.address_blocks r, unnest(r.keys, r.first_heard, r.last_heard, r.source,
            r.failures, r.last_probed, r.outcome, r.next_probe)
            u (key, first_heard, last_heard, source, failures, last_probed, outcome, next_probe)
        WHERE r.lowest <= high AND r.highest >= low AND u.key BETWEEN low AND high
            AND NOT EXISTS (SELECT FROM forgotten f WHERE f.key = u.key)
    ) b
    FULL JOIN (
        SELECT j.key,
            (min(j.batch::bigint << 32 | j.heard_at) & 4294967295)::integer AS first_heard,
            max(j.heard_at) AS last_heard,
            ((max(j.batch::bigint << 16 | (j.source + 32768)) & 65535) - 32768)::smallint AS source,
            (min(j.batch::bigint << 32 | j.next_probe) FILTER (WHERE j.heard_at IS NOT NULL)
                & 4294967295)::integer AS first_probe,
            (max(j.batch::bigint << 32 | j.probed_at) & 4294967295)::integer AS last_probed,
            (max(j.batch::bigint << 32 | j.next_probe) FILTER (WHERE j.probed_at IS NOT NULL)
                & 4294967295)::integer AS next_probe,
            (max(j.batch::bigint << 19 | j.failures::integer << 4 | j.outcome) & 524287)::integer AS probe
        FROM bitdash_internal.address_journal j LEFT JOIN forgotten f ON f.key = j.key
        WHERE j.key BETWEEN low AND high AND j.next_probe IS NOT NULL
            AND (f.batch IS NULL OR j.batch > f.batch)
        GROUP BY j.key
    ) c ON c.key = b.key
    WHERE b.key IS NOT NULL OR c.first_heard IS NOT NULL
$$;

COMMENT ON FUNCTION bitdash_internal.address_state IS
    'State of the addresses between two keys, nodes included: base and journal together. Times are seconds since 2000-01-01. Failures, outcome and times of probes are those before the first response.';

-- Readers need no right on the tables: the function has its owner's. It is volatile so that its
-- snapshot is taken after its locks: compaction truncates tables for older snapshots too.
CREATE FUNCTION bitdash_internal.addresses_between(low bigint, high bigint) RETURNS TABLE (
    host inet, port integer, first_heard timestamptz, last_heard timestamptz, failures integer,
    last_probed timestamptz, last_outcome text, next_probe timestamptz, is_node boolean)
    VOLATILE SECURITY DEFINER LANGUAGE sql
    SET search_path = pg_catalog, pg_temp SET work_mem = '32MB' SET enable_nestloop = off
    SET enable_mergejoin = off SET jit = off AS $$
    SELECT coalesce(n.host, bitdash_internal.key_host(a.key)), coalesce(n.port, bitdash_internal.key_port(a.key)),
        coalesce(bitdash_internal.whole_time(a.first_heard), n.first_seen),
        coalesce(bitdash_internal.whole_time(a.last_heard), n.first_seen),
        coalesce(n.failures, a.failures),
        CASE WHEN n.key IS NULL THEN bitdash_internal.whole_time(a.last_probed) ELSE n.last_probed END,
        coalesce(n.last_outcome, bitdash_internal.outcome_word(a.outcome)),
        coalesce(n.next_probe, bitdash_internal.whole_time(a.next_probe)), n.key IS NOT NULL
    FROM bitdash_internal.address_state(low, high) a
    FULL JOIN (
        SELECT bitdash_internal.key(r.host, r.port) AS key, r.* FROM public.nodes r
        WHERE bitdash_internal.key(r.host, r.port) BETWEEN low AND high
    ) n ON n.key = a.key
$$;

COMMENT ON FUNCTION bitdash_internal.addresses_between IS
    'The addresses between two keys, nodes included, as people read them.';

CREATE VIEW public.addresses AS
    SELECT host, port, first_heard, last_heard, failures, last_probed, last_outcome, next_probe
    FROM bitdash_internal.addresses_between(0, 281474976710655);

COMMENT ON VIEW public.addresses IS
    'Every address heard of: the candidates and the nodes. Times of candidates are whole seconds. For one host use address().';
COMMENT ON COLUMN public.addresses.first_heard IS 'When it was first heard of, from a seed or from a node.';
COMMENT ON COLUMN public.addresses.last_heard IS 'When it was last heard of; updated about once a day.';
COMMENT ON COLUMN public.addresses.last_probed IS 'Null if it was never probed.';
COMMENT ON COLUMN public.addresses.failures IS 'Consecutive failures: the back-off grows with them.';
COMMENT ON COLUMN public.addresses.next_probe IS 'Passes that start at this time or later probe it.';

CREATE VIEW public.candidates AS
    SELECT host, port, first_heard, last_heard, failures, last_probed, last_outcome, next_probe
    FROM bitdash_internal.addresses_between(0, 281474976710655) WHERE NOT is_node;

COMMENT ON VIEW public.candidates IS 'Addresses heard of that have never answered.';

CREATE FUNCTION public.address(host inet) RETURNS SETOF public.addresses
    VOLATILE SECURITY DEFINER LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    SELECT a.host, a.port, a.first_heard, a.last_heard, a.failures, a.last_probed, a.last_outcome, a.next_probe
    FROM bitdash_internal.addresses_between(
        bitdash_internal.key(address.host, 0), bitdash_internal.key(address.host, 65535)) a
    ORDER BY a.port
$$;

COMMENT ON FUNCTION public.address IS 'The rows of addresses with this host: much quicker than a condition on the view.';

-- Sources.

ALTER TABLE public.source_journal SET SCHEMA bitdash_internal;
ALTER TABLE public.source_rows_a SET SCHEMA bitdash_internal;
ALTER TABLE public.source_rows_b SET SCHEMA bitdash_internal;
ALTER VIEW public.source_state SET SCHEMA bitdash_internal;

COMMENT ON TABLE bitdash_internal.source_journal IS 'Changes of sources since the last compaction.';
COMMENT ON TABLE bitdash_internal.source_rows_a IS 'Sources as of the last compaction.';
COMMENT ON VIEW bitdash_internal.source_state IS
    'The newest figures of each source. A source is the upper 16 bits of an address as a signed number.';

CREATE VIEW public.sources AS
    SELECT set_masklen(('0.0.0.0'::inet + ((source::bigint & 65535) << 16))::cidr, 16) AS source, tried, answered
    FROM bitdash_internal.source_state;

COMMENT ON VIEW public.sources IS
    'Outcome of the addresses that nodes of each /16 were the first to name: a source of dead ones gets a smaller quota.';
COMMENT ON COLUMN public.sources.tried IS 'Number of them that were probed; halved from time to time together with answered.';
COMMENT ON COLUMN public.sources.answered IS 'Number of those that responded.';

-- Passes, history, services.

COMMENT ON TABLE public.passes IS 'Sweeps: each probes every address that is due and every address that it discovers, once.';
COMMENT ON COLUMN public.passes.finished_at IS 'Null while it runs. An interrupted pass is resumed at the next start.';
COMMENT ON COLUMN public.passes.new_nodes IS 'Number of addresses that answered for the first time.';
COMMENT ON COLUMN public.passes.new_addresses IS 'Number of addresses heard of for the first time.';
COMMENT ON TABLE public.history IS 'Number of nodes that were up at the end of each pass, by dimension and value.';
COMMENT ON COLUMN public.history.dimension IS
    'status (counts all nodes), species, user_agent, protocol_version, country, asn, port or services.';
COMMENT ON COLUMN public.history.value IS 'The value as nodes.COLUMN::text prints it. Nodes without a value are not counted.';

CREATE FUNCTION public.service_names(services bigint) RETURNS text[] IMMUTABLE STRICT PARALLEL SAFE LANGUAGE sql AS $$
    SELECT coalesce(array_agg(coalesce(n.name, 'BIT_' || b.bit) ORDER BY b.bit), '{}')
    FROM generate_series(0, 63) b (bit) LEFT JOIN (VALUES (0, 'NETWORK'), (1, 'GETUTXO'), (2, 'BLOOM'), (3, 'WITNESS'),
        (4, 'XTHIN'), (5, 'BITCOIN_CASH'), (6, 'COMPACT_FILTERS'), (10, 'NETWORK_LIMITED'), (11, 'P2P_V2'),
        (12, 'UTREEXO'), (26, 'REPLACE_BY_FEE'), (27, 'REDUCED_DATA')) n (bit, name) ON n.bit = b.bit
    WHERE services >> b.bit & 1 = 1
$$;

COMMENT ON FUNCTION public.service_names IS 'The names of the service bits that are set, lowest first.';

-- Readers keep no rights on the tables that have left the schema public.
DO $$
DECLARE
    reader regrole;
BEGIN
    FOR reader IN
        SELECT DISTINCT a.grantee FROM pg_class c CROSS JOIN aclexplode(c.relacl) a
        WHERE c.relnamespace = 'bitdash_internal'::regnamespace AND a.grantee NOT IN (0, c.relowner)
    LOOP
        EXECUTE format('REVOKE ALL ON ALL TABLES IN SCHEMA bitdash_internal FROM %s', reader);
    END LOOP;
END $$;
