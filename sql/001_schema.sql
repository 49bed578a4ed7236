-- Public are the views nodes, probes, addresses and sources and the tables passes and history.
-- Times are UTC instants.
--
-- PostgreSQL writes a whole page to its log when a row is changed for the first time after a
-- checkpoint, so changing ten thousand scattered rows costs eighty megabytes, which wears flash.
-- Therefore the results of a pass are appended to journals without an index: address_journal,
-- source_journal and result_journal. About once a day a compaction writes the base from the former
-- base and the journal, and empties the journal. Each base is a pair of tables, "a" and "b", one of
-- which is empty: a compaction fills the empty one and empties the other in one transaction. The
-- views show the newest state, base and journal together.
--
-- A row's key is its address in one number: the IPv4 address times 65536, plus the port.
-- A higher batch number is the later word: times do not order the journal, since clocks jump.

CREATE FUNCTION key_host(key bigint) RETURNS inet IMMUTABLE PARALLEL SAFE LANGUAGE sql AS
    $$ SELECT '0.0.0.0'::inet + (key >> 16) $$;
CREATE FUNCTION key_port(key bigint) RETURNS integer IMMUTABLE PARALLEL SAFE LANGUAGE sql AS
    $$ SELECT (key & 65535)::integer $$;
CREATE FUNCTION lowest_key(host inet) RETURNS bigint IMMUTABLE PARALLEL SAFE LANGUAGE sql AS
    $$ SELECT (host - '0.0.0.0'::inet) << 16 $$;
CREATE FUNCTION whole_time(seconds integer) RETURNS timestamptz IMMUTABLE PARALLEL SAFE LANGUAGE sql AS
    $$ SELECT to_timestamp(seconds + 946684800.0::float8) $$;
CREATE FUNCTION outcome_word(code smallint) RETURNS text IMMUTABLE PARALLEL SAFE LANGUAGE sql AS
    $$ SELECT ('{responded,refused,unreachable,connect_timeout,handshake_timeout,closed,not_bitcoin,malformed}'::text[])[code + 1] $$;

COMMENT ON FUNCTION key_host IS 'The IPv4 address of a key.';
COMMENT ON FUNCTION key_port IS 'The port of a key.';
COMMENT ON FUNCTION lowest_key IS 'The key of an IPv4 address with port 0; that of port 65535 is 65535 higher.';
COMMENT ON FUNCTION whole_time IS 'The time of a number of seconds since 2000-01-01.';
COMMENT ON FUNCTION outcome_word IS 'The outcome''s word: 0 is responded, 1 refused, and so on.';

CREATE SEQUENCE batch_number INCREMENT BY 2;
COMMENT ON SEQUENCE batch_number IS
    'Orders the journals. A batch has two numbers: the second one is for what it forgets, the first for all else.';

CREATE TABLE store_state (
    only_row            boolean     PRIMARY KEY DEFAULT true CHECK (only_row),
    results_per_node    integer     NOT NULL DEFAULT 25,
    addresses_base      text        NOT NULL DEFAULT 'a' CHECK (addresses_base IN ('a', 'b')),
    addresses_folded_at timestamptz NOT NULL DEFAULT '-infinity',
    nodes_base          text        NOT NULL DEFAULT 'a' CHECK (nodes_base IN ('a', 'b')),
    nodes_folded_at     timestamptz NOT NULL DEFAULT '-infinity'
);
INSERT INTO store_state DEFAULT VALUES;

COMMENT ON TABLE store_state IS 'One row: how the rows are kept.';
COMMENT ON COLUMN store_state.results_per_node IS 'The key crawl.results_per_node as it was last in force.';
COMMENT ON COLUMN store_state.addresses_base IS 'Which of the two base tables of addresses and sources is in use.';
COMMENT ON COLUMN store_state.nodes_base IS 'Which of the two base tables of nodes and probes is in use.';

-- Addresses.

CREATE TABLE address_journal (
    key        bigint   NOT NULL,
    batch      integer  NOT NULL,
    heard_at   integer,
    probed_at  integer,
    next_probe integer,
    source     smallint,
    failures   smallint,
    outcome    smallint,
    CONSTRAINT addresses_are_ipv4_and_have_a_port CHECK (
        key BETWEEN 0 AND 281474976710655 AND (key & 65535) > 0),
    CONSTRAINT candidates_never_responded CHECK (outcome BETWEEN 1 AND 7),
    CONSTRAINT candidates_outcome_has_a_time CHECK (
        (probed_at IS NULL) = (outcome IS NULL) AND (probed_at IS NULL) = (failures IS NULL)),
    CONSTRAINT heard_has_a_source CHECK ((heard_at IS NULL) = (source IS NULL)),
    CONSTRAINT times_are_after_2000 CHECK (heard_at >= 0 AND probed_at >= 0 AND next_probe >= 0),
    CONSTRAINT forgotten_says_nothing_else CHECK (
        (next_probe IS NULL) = (heard_at IS NULL AND probed_at IS NULL))
) WITH (autovacuum_vacuum_insert_threshold = -1);

COMMENT ON TABLE address_journal IS
    'What became of addresses since the last fold: heard of, failed, or (if all else is null) forgotten. Times are seconds since 2000-01-01.';

CREATE TABLE address_blocks_a (
    lowest      bigint     PRIMARY KEY,
    highest     bigint     NOT NULL,
    keys        bigint[]   NOT NULL,
    first_heard integer[]  NOT NULL,
    last_heard  integer[]  NOT NULL,
    source      smallint[] NOT NULL,
    failures    smallint[] NOT NULL,
    last_probed integer[]  NOT NULL,
    outcome     smallint[] NOT NULL,
    next_probe  integer[]  NOT NULL
) WITH (autovacuum_vacuum_insert_threshold = -1);
CREATE TABLE address_blocks_b (LIKE address_blocks_a INCLUDING ALL)
    WITH (autovacuum_vacuum_insert_threshold = -1);
CREATE VIEW address_blocks AS SELECT * FROM address_blocks_a UNION ALL SELECT * FROM address_blocks_b;

COMMENT ON TABLE address_blocks_a IS
    'Addresses as of the last fold, many to a row: a row''s own overhead is larger than what is known of an address.';
COMMENT ON TABLE address_blocks_b IS 'The other half of address_blocks_a: one of the two is empty.';
COMMENT ON COLUMN address_journal.source IS
    'The upper 16 bits, as a signed number, of the addresses of those who named it, if they have these in common; 0 once several unrelated ones or a person named it.';
COMMENT ON VIEW address_blocks IS 'The one of the two base tables of addresses that is in use.';

-- In the journal the later word is found by the greatest number of batch and value packed together.
CREATE FUNCTION address_state(low bigint, high bigint) RETURNS TABLE (
    key bigint, first_heard integer, last_heard integer, source smallint, failures smallint,
    last_probed integer, outcome smallint, next_probe integer) STABLE LANGUAGE sql AS $$
    WITH forgotten AS (
        SELECT j.key, max(j.batch) AS batch FROM address_journal j
        WHERE j.next_probe IS NULL AND j.key BETWEEN low AND high GROUP BY j.key)
    SELECT coalesce(b.key, c.key), coalesce(b.first_heard, c.first_heard),
        greatest(b.last_heard, c.last_heard), coalesce(c.source, b.source),
        coalesce((c.probe >> 3)::smallint, b.failures, 0::smallint),
        coalesce(c.last_probed, b.last_probed),
        coalesce((c.probe & 7)::smallint, b.outcome),
        coalesce(c.next_probe, b.next_probe, c.first_probe)
    FROM (
        SELECT u.* FROM address_blocks r, unnest(r.keys, r.first_heard, r.last_heard, r.source, r.failures,
            r.last_probed, r.outcome, r.next_probe)
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
            (max(j.batch::bigint << 18 | j.failures::integer << 3 | j.outcome) & 262143)::integer AS probe
        FROM address_journal j LEFT JOIN forgotten f ON f.key = j.key
        WHERE j.key BETWEEN low AND high AND j.next_probe IS NOT NULL
            AND (f.batch IS NULL OR j.batch > f.batch)
        GROUP BY j.key
    ) c ON c.key = b.key
    WHERE b.key IS NOT NULL OR c.first_heard IS NOT NULL
$$;

COMMENT ON FUNCTION address_state IS
    'What is known of the addresses between two keys, nodes included: base and journal together. Times are seconds since 2000-01-01; failures, outcome and times of probes are those of the time as a candidate.';

-- Nodes and their results.

CREATE TABLE result_journal (
    key              bigint      NOT NULL,
    at               timestamptz NOT NULL,
    pass             bigint,
    next_probe       timestamptz,
    services         bigint,
    seen_at          timestamptz,
    peers_asked_at   timestamptz,
    batch            integer     NOT NULL,
    failures         integer,
    protocol_version integer,
    start_height     integer,
    connect_ms       integer,
    version_ms       integer,
    peers_sent       integer,
    outcome          smallint    NOT NULL,
    relay            boolean,
    status           text,
    species          text,
    user_agent       text,
    CONSTRAINT nodes_are_ipv4_and_have_a_port CHECK (
        key BETWEEN 0 AND 281474976710655 AND (key & 65535) > 0),
    CONSTRAINT nodes_status_is_a_word CHECK (status IN ('up', 'full', 'down')),
    CONSTRAINT nodes_outcome_is_a_code CHECK (outcome BETWEEN 0 AND 7),
    CONSTRAINT nodes_up_means_responded CHECK ((status = 'up') = (outcome = 0)),
    CONSTRAINT nodes_full_means_closed CHECK (status <> 'full' OR outcome = 5),
    CONSTRAINT nodes_failures_are_in_a_row CHECK (failures >= 0 AND (failures = 0) = (outcome = 0)),
    CONSTRAINT nodes_state_is_whole CHECK (
        (status IS NULL) = (failures IS NULL) AND (status IS NULL) = (next_probe IS NULL)
        AND (status IS NOT NULL OR species IS NULL)),
    CONSTRAINT nodes_that_said_a_version_have_a_species CHECK (
        status IS NULL OR (species IS NULL) = (protocol_version IS NULL)),
    CONSTRAINT probes_only_a_response_has_a_version CHECK (
        pass IS NULL OR (outcome = 0) = (protocol_version IS NOT NULL)),
    CONSTRAINT results_say_something CHECK (pass IS NOT NULL OR status IS NOT NULL)
) WITH (autovacuum_vacuum_insert_threshold = -1);

COMMENT ON TABLE result_journal IS
    'Results of nodes since the last fold: a row of probes (if pass is not null), the node''s state after it (if status is not null), or both.';
COMMENT ON COLUMN result_journal.seen_at IS 'When it said what stands here, where that is not at.';
COMMENT ON COLUMN result_journal.peers_asked_at IS 'When it was asked for the peers_sent, where that is not at.';

CREATE TABLE node_rows_a (
    key              bigint      PRIMARY KEY,
    services         bigint      NOT NULL,
    first_seen       timestamptz NOT NULL,
    last_seen        timestamptz NOT NULL,
    last_probed      timestamptz NOT NULL,
    next_probe       timestamptz NOT NULL,
    peers_asked_at   timestamptz,
    peers_sent       integer,
    failures         integer     NOT NULL,
    protocol_version integer     NOT NULL,
    start_height     integer,
    connect_ms       integer,
    version_ms       integer,
    outcome          smallint    NOT NULL,
    relay            boolean,
    status           text        NOT NULL,
    species          text        NOT NULL,
    user_agent       text
) WITH (autovacuum_vacuum_insert_threshold = -1);
CREATE TABLE node_rows_b (LIKE node_rows_a INCLUDING ALL) WITH (autovacuum_vacuum_insert_threshold = -1);
CREATE VIEW node_rows AS SELECT * FROM node_rows_a UNION ALL SELECT * FROM node_rows_b;

COMMENT ON TABLE node_rows_a IS 'Nodes as of the last fold.';
COMMENT ON TABLE node_rows_b IS 'The other half of node_rows_a: one of the two is empty.';
COMMENT ON VIEW node_rows IS 'The one of the two base tables of nodes that is in use.';

CREATE TABLE probe_rows_a (
    key              bigint      NOT NULL,
    pass             bigint      NOT NULL,
    at               timestamptz NOT NULL,
    services         bigint,
    protocol_version integer,
    start_height     integer,
    connect_ms       integer,
    version_ms       integer,
    peers_sent       integer,
    outcome          smallint    NOT NULL,
    user_agent       text
) WITH (autovacuum_vacuum_insert_threshold = -1);
CREATE TABLE probe_rows_b (LIKE probe_rows_a INCLUDING ALL) WITH (autovacuum_vacuum_insert_threshold = -1);
CREATE VIEW probe_rows AS SELECT * FROM probe_rows_a UNION ALL SELECT * FROM probe_rows_b;

COMMENT ON TABLE probe_rows_a IS 'Results of nodes as of the last fold.';
COMMENT ON TABLE probe_rows_b IS 'The other half of probe_rows_a: one of the two is empty.';
COMMENT ON VIEW probe_rows IS 'The one of the two base tables of results that is in use.';

CREATE TABLE node_names (
    key  bigint PRIMARY KEY,
    name text   NOT NULL
);
COMMENT ON TABLE node_names IS 'The names from the nodes file, whether the address is a node or not.';

CREATE TABLE node_places (
    key     bigint PRIMARY KEY,
    country text,
    asn     bigint,
    as_name text
);
COMMENT ON TABLE node_places IS 'Where nodes are, as far as it was looked up.';

CREATE FUNCTION node_state(low bigint, high bigint) RETURNS TABLE (
    key bigint, services bigint, first_seen timestamptz, last_seen timestamptz, last_probed timestamptz,
    next_probe timestamptz, peers_asked_at timestamptz, peers_sent integer, failures integer,
    protocol_version integer, start_height integer, connect_ms integer, version_ms integer,
    outcome smallint, relay boolean, status text, species text, user_agent text) STABLE LANGUAGE sql AS $$
    WITH newest AS (
        SELECT j.key, max(j.batch) AS batch,
            min(j.batch) FILTER (WHERE j.protocol_version IS NOT NULL) AS first_version,
            max(j.batch) FILTER (WHERE j.protocol_version IS NOT NULL) AS version,
            max(j.batch) FILTER (WHERE j.peers_sent IS NOT NULL) AS peers
        FROM result_journal j WHERE j.status IS NOT NULL AND j.key BETWEEN low AND high GROUP BY j.key),
    -- Once through the journal for all four of them.
    picked AS MATERIALIZED (
        SELECT j.* FROM newest n JOIN result_journal j ON j.key = n.key
        WHERE j.status IS NOT NULL AND j.batch IN (n.batch, n.first_version, n.version, n.peers))
    SELECT coalesce(b.key, c.key),
        CASE WHEN v.key IS NULL THEN b.services ELSE v.services END,
        coalesce(b.first_seen, f.seen_at, f.at), coalesce(v.seen_at, v.at, b.last_seen),
        coalesce(c.at, b.last_probed), coalesce(c.next_probe, b.next_probe),
        coalesce(p.peers_asked_at, p.at, b.peers_asked_at), coalesce(p.peers_sent, b.peers_sent),
        coalesce(c.failures, b.failures),
        coalesce(v.protocol_version, b.protocol_version),
        CASE WHEN v.key IS NULL THEN b.start_height ELSE v.start_height END,
        CASE WHEN v.key IS NULL THEN b.connect_ms ELSE v.connect_ms END,
        CASE WHEN v.key IS NULL THEN b.version_ms ELSE v.version_ms END,
        coalesce(c.outcome, b.outcome),
        CASE WHEN v.key IS NULL THEN b.relay ELSE v.relay END,
        coalesce(c.status, b.status), coalesce(v.species, b.species),
        CASE WHEN v.key IS NULL THEN b.user_agent ELSE v.user_agent END
    FROM (
        newest n
        JOIN picked c ON c.key = n.key AND c.batch = n.batch
        LEFT JOIN picked f ON f.key = n.key AND f.batch = n.first_version
        LEFT JOIN picked v ON v.key = n.key AND v.batch = n.version
        LEFT JOIN picked p ON p.key = n.key AND p.batch = n.peers
    )
    FULL JOIN (SELECT * FROM node_rows r WHERE r.key BETWEEN low AND high) b ON b.key = n.key
    WHERE b.key IS NOT NULL OR v.key IS NOT NULL
$$;

COMMENT ON FUNCTION node_state IS 'The nodes between two keys: base and journal together.';

CREATE FUNCTION node_keys(low bigint, high bigint) RETURNS TABLE (key bigint) STABLE LANGUAGE sql AS $$
    SELECT r.key FROM node_rows r WHERE r.key BETWEEN low AND high
    UNION
    SELECT j.key FROM result_journal j WHERE j.status IS NOT NULL AND j.protocol_version IS NOT NULL
        AND j.key BETWEEN low AND high
$$;

COMMENT ON FUNCTION node_keys IS 'The keys of the nodes between two keys.';

CREATE FUNCTION probe_state(low bigint, high bigint) RETURNS TABLE (
    key bigint, pass bigint, at timestamptz, services bigint, protocol_version integer, start_height integer,
    connect_ms integer, version_ms integer, peers_sent integer, outcome smallint, user_agent text)
    STABLE LANGUAGE sql AS $$
    SELECT k.key, k.pass, k.at, k.services, k.protocol_version, k.start_height, k.connect_ms, k.version_ms,
        k.peers_sent, k.outcome, k.user_agent
    FROM (
        SELECT d.*, row_number() OVER (PARTITION BY d.key ORDER BY d.pass DESC) AS place
        FROM (
            SELECT DISTINCT ON (r.key, r.pass) r.* FROM (
                SELECT p.*, 0 AS batch FROM probe_rows p WHERE p.key BETWEEN low AND high
                UNION ALL
                SELECT j.key, j.pass, j.at, j.services, j.protocol_version, j.start_height, j.connect_ms,
                    j.version_ms, j.peers_sent, j.outcome, j.user_agent, j.batch
                FROM result_journal j WHERE j.pass IS NOT NULL AND j.key BETWEEN low AND high
            ) r
            WHERE r.key IN (SELECT n.key FROM node_keys(low, high) n)
            ORDER BY r.key, r.pass DESC, r.batch
        ) d
    ) k
    WHERE k.place <= (SELECT s.results_per_node FROM store_state s)
$$;

COMMENT ON FUNCTION probe_state IS
    'The newest results of the nodes between two keys: base and journal together. Of two results of one pass the first counts.';

-- Sources.

CREATE TABLE source_journal (
    batch    integer  NOT NULL,
    tried    integer  NOT NULL,
    answered integer  NOT NULL,
    source   smallint NOT NULL,
    CONSTRAINT sources_answered_were_tried CHECK (answered BETWEEN 0 AND tried)
) WITH (autovacuum_vacuum_insert_threshold = -1);
CREATE TABLE source_rows_a (
    source   smallint NOT NULL,
    tried    integer  NOT NULL,
    answered integer  NOT NULL
) WITH (autovacuum_vacuum_insert_threshold = -1);
CREATE TABLE source_rows_b (LIKE source_rows_a INCLUDING ALL) WITH (autovacuum_vacuum_insert_threshold = -1);
CREATE VIEW source_state AS
    SELECT DISTINCT ON (s.source) s.source, s.tried, s.answered FROM (
        SELECT 0 AS batch, a.* FROM source_rows_a a
        UNION ALL SELECT 0, b.* FROM source_rows_b b
        UNION ALL SELECT j.batch, j.source, j.tried, j.answered FROM source_journal j
    ) s ORDER BY s.source, s.batch DESC;

COMMENT ON TABLE source_journal IS 'Figures of sources since the last fold.';
COMMENT ON TABLE source_rows_a IS 'Figures of sources as of the last fold.';
COMMENT ON TABLE source_rows_b IS 'The other half of source_rows_a: one of the two is empty.';
COMMENT ON VIEW source_state IS 'The newest figures of each source; a source is the upper 16 bits of an address, as a signed number.';

-- What people and scripts read.

CREATE FUNCTION nodes_between(low bigint, high bigint) RETURNS TABLE (
    host inet, port integer, name text, status text, species text, protocol_version integer, user_agent text,
    services bigint, start_height integer, relay boolean, connect_ms integer, version_ms integer, country text,
    asn bigint, as_name text, first_seen timestamptz, last_seen timestamptz, last_probed timestamptz,
    last_outcome text, failures integer, next_probe timestamptz, peers_asked_at timestamptz, peers_sent integer)
    STABLE LANGUAGE sql AS $$
    SELECT key_host(n.key) AS host, key_port(n.key) AS port, m.name, n.status, n.species, n.protocol_version,
        n.user_agent, n.services, n.start_height, n.relay, n.connect_ms, n.version_ms, p.country, p.asn,
        p.as_name, n.first_seen, n.last_seen, n.last_probed, outcome_word(n.outcome) AS last_outcome,
        n.failures, n.next_probe, n.peers_asked_at, n.peers_sent
    FROM node_state(low, high) n
    LEFT JOIN node_names m ON m.key = n.key LEFT JOIN node_places p ON p.key = n.key
$$;

COMMENT ON FUNCTION nodes_between IS
    'The rows of the view nodes between two keys: quicker than the view where few are asked for.';

CREATE VIEW nodes AS SELECT * FROM nodes_between(0, 281474976710655);

COMMENT ON VIEW nodes IS 'Addresses that have answered with a version message at least once.';
COMMENT ON COLUMN nodes.name IS 'The name from the nodes file, for named nodes only.';
COMMENT ON COLUMN nodes.status IS
    'up: the last probe responded; full: it ended closed and the node responded within the last 7 days; down: else.';
COMMENT ON COLUMN nodes.species IS 'The lineage of the software: TRB, Core, Knots, BCH, ...';
COMMENT ON COLUMN nodes.user_agent IS
    'As stored text: bytes 0x20 to 0x7e as they are, a backslash doubled, every other byte as \xNN; at most 256 bytes of the original. Null if not sent.';
COMMENT ON COLUMN nodes.services IS 'The 64 service bits in two''s complement: a set highest bit makes it negative.';
COMMENT ON COLUMN nodes.start_height IS 'The height of its chain, as sent. Null if not sent.';
COMMENT ON COLUMN nodes.relay IS 'The relay byte. Null if not sent.';
COMMENT ON COLUMN nodes.connect_ms IS 'From dialling to connected, at the last response.';
COMMENT ON COLUMN nodes.version_ms IS 'From connected to version, at the last response.';
COMMENT ON COLUMN nodes.country IS 'Looked up in the file geo.country_db, if one is configured.';
COMMENT ON COLUMN nodes.asn IS 'The autonomous system, looked up in the file geo.asn_db, if one is configured.';
COMMENT ON COLUMN nodes.as_name IS 'Who runs the autonomous system.';
COMMENT ON COLUMN nodes.first_seen IS 'The first response.';
COMMENT ON COLUMN nodes.last_seen IS 'The last response.';
COMMENT ON COLUMN nodes.last_outcome IS
    'How the last probe ended: responded, refused, unreachable, connect_timeout, handshake_timeout, closed, not_bitcoin or malformed.';
COMMENT ON COLUMN nodes.failures IS 'Failures in a row; 0 after a response.';
COMMENT ON COLUMN nodes.next_probe IS 'A pass that starts at this time or later probes it.';
COMMENT ON COLUMN nodes.peers_asked_at IS 'When it was last asked for its peers. Null if never.';
COMMENT ON COLUMN nodes.peers_sent IS 'How many entries it sent when last asked. Null if never asked.';

CREATE FUNCTION probes_between(low bigint, high bigint) RETURNS TABLE (
    host inet, port integer, pass bigint, probed_at timestamptz, outcome text, protocol_version integer,
    user_agent text, services bigint, start_height integer, connect_ms integer, version_ms integer,
    peers_sent integer) STABLE LANGUAGE sql AS $$
    SELECT key_host(p.key) AS host, key_port(p.key) AS port, p.pass, p.at AS probed_at,
        outcome_word(p.outcome) AS outcome, p.protocol_version, p.user_agent, p.services, p.start_height,
        p.connect_ms, p.version_ms, p.peers_sent
    FROM probe_state(low, high) p
$$;

COMMENT ON FUNCTION probes_between IS
    'The rows of the view probes between two keys: much quicker than the view where few are asked for.';

CREATE VIEW probes AS SELECT * FROM probes_between(0, 281474976710655);

COMMENT ON VIEW probes IS
    'Results of nodes, the newest crawl.results_per_node of each. Candidates leave no row here.';
COMMENT ON COLUMN probes.probed_at IS 'When the outcome was known.';
COMMENT ON COLUMN probes.peers_sent IS 'How many entries it sent in reply to getaddr. Null if it was not asked.';

CREATE FUNCTION addresses_between(low bigint, high bigint) RETURNS TABLE (
    host inet, port integer, first_heard timestamptz, last_heard timestamptz, failures integer,
    last_probed timestamptz, last_outcome text, next_probe timestamptz, is_node boolean)
    STABLE LANGUAGE sql AS $$
    SELECT key_host(coalesce(n.key, a.key)), key_port(coalesce(n.key, a.key)),
        coalesce(whole_time(a.first_heard), n.first_seen), coalesce(whole_time(a.last_heard), n.first_seen),
        coalesce(n.failures, a.failures), CASE WHEN n.key IS NULL THEN whole_time(a.last_probed) ELSE n.last_probed END,
        outcome_word(CASE WHEN n.key IS NULL THEN a.outcome ELSE n.outcome END),
        coalesce(n.next_probe, whole_time(a.next_probe)), n.key IS NOT NULL
    FROM address_state(low, high) a FULL JOIN node_state(low, high) n ON n.key = a.key
$$;

COMMENT ON FUNCTION addresses_between IS
    'The rows of the view addresses between two keys: much quicker than the view where few are asked for.';

CREATE VIEW addresses AS
    SELECT host, port, first_heard, last_heard, failures, last_probed, last_outcome, next_probe
    FROM addresses_between(0, 281474976710655);

COMMENT ON VIEW addresses IS 'Every address heard of: the candidates and the nodes. To the second for candidates.';
COMMENT ON COLUMN addresses.first_heard IS 'When it was first heard of, in a seed list or from another node.';
COMMENT ON COLUMN addresses.last_heard IS 'When it was last heard of, about once a day at most.';
COMMENT ON COLUMN addresses.last_probed IS 'Null if it was never probed yet.';
COMMENT ON COLUMN addresses.failures IS 'Failures in a row: the wait until next_probe grows with them.';
COMMENT ON COLUMN addresses.next_probe IS 'A pass that starts at this time or later probes it.';

CREATE VIEW candidates AS
    SELECT host, port, first_heard, last_heard, failures, last_probed, last_outcome, next_probe
    FROM addresses_between(0, 281474976710655) WHERE NOT is_node;

COMMENT ON VIEW candidates IS 'Addresses heard of that have never answered.';

CREATE VIEW sources AS SELECT source::integer & 65535 AS source, tried, answered FROM source_state;

COMMENT ON VIEW sources IS
    'What became of the addresses that nodes of each /16 were the first to name: those who name dead ones get a smaller quota.';
COMMENT ON COLUMN sources.source IS 'The upper 16 bits of the nodes'' addresses.';
COMMENT ON COLUMN sources.tried IS 'How many of them were probed; halved from time to time together with answered.';
COMMENT ON COLUMN sources.answered IS 'How many of these responded.';

CREATE TABLE passes (
    pass          bigint      PRIMARY KEY,
    started_at    timestamptz NOT NULL,
    finished_at   timestamptz,
    probed        bigint      NOT NULL,
    responded     bigint      NOT NULL,
    failed        bigint      NOT NULL,
    new_nodes     bigint      NOT NULL,
    new_addresses bigint      NOT NULL
);

COMMENT ON TABLE passes IS 'Sweeps: in each, every address that is due, and every one that it brings to light, is probed once.';
COMMENT ON COLUMN passes.finished_at IS 'Null while it runs, or where it was cut short: the next start goes on with it.';
COMMENT ON COLUMN passes.new_nodes IS 'Addresses that answered for the first time.';
COMMENT ON COLUMN passes.new_addresses IS 'Addresses heard of for the first time.';

CREATE TABLE history (
    pass      bigint      NOT NULL,
    at        timestamptz NOT NULL,
    dimension text        NOT NULL,
    value     text        NOT NULL,
    nodes     integer     NOT NULL,
    PRIMARY KEY (pass, dimension, value)
);

COMMENT ON TABLE history IS 'Nodes up at the end of each pass, counted by every dimension.';
COMMENT ON COLUMN history.at IS 'The end of the pass.';
COMMENT ON COLUMN history.dimension IS
    'status (which counts all nodes), species, user_agent, protocol_version, country, asn, port or services.';
COMMENT ON COLUMN history.value IS 'The value as text, just as nodes.COLUMN::text prints it. Nodes where it is null are left out.';
