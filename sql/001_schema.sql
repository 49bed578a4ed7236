-- The relations that a person, a script or a web page relies on. Times are UTC instants.
-- A figure stands in one table only: an address is either a candidate or a node, and `addresses` shows both.

CREATE TABLE nodes (
    host             inet        NOT NULL,
    port             integer     NOT NULL,
    name             text,
    status           text        NOT NULL,
    species          text        NOT NULL,
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
    first_heard      timestamptz NOT NULL,
    last_heard       timestamptz NOT NULL,
    first_seen       timestamptz NOT NULL,
    last_seen        timestamptz NOT NULL,
    last_probed      timestamptz NOT NULL,
    last_outcome     text        NOT NULL,
    failures         integer     NOT NULL,
    next_probe       timestamptz NOT NULL,
    peers_asked_at   timestamptz,
    peers_sent       integer,
    PRIMARY KEY (host, port),
    CONSTRAINT nodes_host_is_one_ipv4_address CHECK (family(host) = 4 AND masklen(host) = 32),
    CONSTRAINT nodes_port_is_a_port CHECK (port BETWEEN 1 AND 65535),
    CONSTRAINT nodes_status_is_a_word CHECK (status IN ('up', 'full', 'down')),
    CONSTRAINT nodes_outcome_is_a_word CHECK (last_outcome IN ('responded', 'refused', 'unreachable',
        'connect_timeout', 'handshake_timeout', 'closed', 'not_bitcoin', 'malformed')),
    CONSTRAINT nodes_up_means_responded CHECK ((status = 'up') = (last_outcome = 'responded')),
    CONSTRAINT nodes_full_means_closed CHECK (status <> 'full' OR last_outcome = 'closed'),
    CONSTRAINT nodes_failures_are_in_a_row CHECK (
        failures >= 0 AND (failures = 0) = (last_outcome = 'responded')),
    CONSTRAINT nodes_peers_have_a_time CHECK ((peers_asked_at IS NULL) = (peers_sent IS NULL))
) WITH (fillfactor = 80); -- every pass rewrites every row: leave room for it on the same page

COMMENT ON TABLE nodes IS 'Addresses that have answered with a version message at least once.';
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
COMMENT ON COLUMN nodes.first_heard IS 'When the address was first heard of, in a seed list or from another node.';
COMMENT ON COLUMN nodes.last_heard IS 'When the address was last heard of, about once a pass at most.';
COMMENT ON COLUMN nodes.first_seen IS 'The first response.';
COMMENT ON COLUMN nodes.last_seen IS 'The last response.';
COMMENT ON COLUMN nodes.last_outcome IS
    'How the last probe ended: responded, refused, unreachable, connect_timeout, handshake_timeout, closed, not_bitcoin or malformed.';
COMMENT ON COLUMN nodes.failures IS 'Failures in a row; 0 after a response.';
COMMENT ON COLUMN nodes.next_probe IS 'A pass that starts at this time or later probes it.';
COMMENT ON COLUMN nodes.peers_asked_at IS 'When it was last asked for its peers. Null if never.';
COMMENT ON COLUMN nodes.peers_sent IS 'How many entries it sent when last asked. Null if never asked.';

CREATE TABLE candidates (
    host         inet        NOT NULL,
    port         integer     NOT NULL,
    first_heard  timestamptz NOT NULL,
    last_heard   timestamptz NOT NULL,
    failures     integer     NOT NULL,
    last_probed  timestamptz,
    last_outcome text,
    next_probe   timestamptz NOT NULL,
    source       integer     NOT NULL DEFAULT 0,
    PRIMARY KEY (host, port),
    CONSTRAINT candidates_host_is_one_ipv4_address CHECK (family(host) = 4 AND masklen(host) = 32),
    CONSTRAINT candidates_port_is_a_port CHECK (port BETWEEN 1 AND 65535),
    CONSTRAINT candidates_never_responded CHECK (last_outcome IN ('refused', 'unreachable',
        'connect_timeout', 'handshake_timeout', 'closed', 'not_bitcoin', 'malformed')),
    CONSTRAINT candidates_source_is_a_group CHECK (source BETWEEN 0 AND 65535),
    CONSTRAINT candidates_failures_are_in_a_row CHECK (failures >= 0),
    CONSTRAINT candidates_outcome_has_a_time CHECK ((last_probed IS NULL) = (last_outcome IS NULL))
) WITH (fillfactor = 80);

COMMENT ON TABLE candidates IS
    'Addresses heard of that have never answered. One that answers moves to nodes. Scripts read the view addresses.';
COMMENT ON COLUMN candidates.last_probed IS 'Null if it was never probed yet.';
COMMENT ON COLUMN candidates.failures IS 'Failures in a row: the wait until next_probe grows with them.';
COMMENT ON COLUMN candidates.next_probe IS 'A pass that starts at this time or later probes it.';
COMMENT ON COLUMN candidates.source IS
    'The upper 16 bits of the addresses of those who named it, if they have these in common; 0 once several unrelated ones or a person named it.';

CREATE VIEW addresses AS
    SELECT host, port, first_heard, last_heard, failures, last_probed, last_outcome, next_probe FROM candidates
    UNION ALL
    SELECT host, port, first_heard, last_heard, failures, last_probed, last_outcome, next_probe FROM nodes;

COMMENT ON VIEW addresses IS 'Every address heard of: the candidates and the nodes.';

CREATE TABLE probes (
    host             inet        NOT NULL,
    port             integer     NOT NULL,
    pass             bigint      NOT NULL,
    probed_at        timestamptz NOT NULL,
    outcome          text        NOT NULL,
    protocol_version integer,
    user_agent       text,
    services         bigint,
    start_height     integer,
    connect_ms       integer,
    version_ms       integer,
    peers_sent       integer,
    PRIMARY KEY (host, port, pass),
    CONSTRAINT probes_outcome_is_a_word CHECK (outcome IN ('responded', 'refused', 'unreachable',
        'connect_timeout', 'handshake_timeout', 'closed', 'not_bitcoin', 'malformed')),
    CONSTRAINT probes_only_a_response_has_a_version CHECK (
        (outcome = 'responded') = (protocol_version IS NOT NULL))
);

COMMENT ON TABLE probes IS
    'Results of nodes, the newest crawl.results_per_node of each. Candidates leave no row here.';
COMMENT ON COLUMN probes.probed_at IS 'When the outcome was known.';
COMMENT ON COLUMN probes.peers_sent IS 'How many entries it sent in reply to getaddr. Null if it was not asked.';

CREATE TABLE sources (
    source   integer PRIMARY KEY,
    tried    integer NOT NULL,
    answered integer NOT NULL,
    CONSTRAINT sources_source_is_a_group CHECK (source BETWEEN 0 AND 65535),
    CONSTRAINT sources_answered_were_tried CHECK (answered BETWEEN 0 AND tried)
);

COMMENT ON TABLE sources IS
    'What became of the addresses that nodes of each /16 were the first to name: those who name dead ones get a smaller quota.';
COMMENT ON COLUMN sources.source IS 'The upper 16 bits of the nodes'' addresses.';
COMMENT ON COLUMN sources.tried IS 'How many of the addresses were probed; halved from time to time together with answered.';
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
