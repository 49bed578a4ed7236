//! The SQL of a batch: the staging tables, and one merge per relation out of them.
//!
//! Layer 3, text only. Invariants: 1. merges write absolute values, so that a batch which is written twice
//! changes nothing the second time; 2. an address is never in `candidates` and in `nodes` at once.

/// Made once per connection; emptied by every commit.
pub(super) const STAGING: &str = "
CREATE TEMPORARY TABLE IF NOT EXISTS stage_heard (
    host inet, port integer, at timestamptz, next_probe timestamptz, source integer) ON COMMIT DELETE ROWS;
CREATE TEMPORARY TABLE IF NOT EXISTS stage_failed (
    host inet, port integer, failures integer, last_probed timestamptz, last_outcome text,
    next_probe timestamptz) ON COMMIT DELETE ROWS;
CREATE TEMPORARY TABLE IF NOT EXISTS stage_nodes (
    host inet, port integer, status text, last_probed timestamptz, last_outcome text, failures integer,
    next_probe timestamptz, seen_at timestamptz, species text, protocol_version integer, user_agent text,
    services bigint, start_height integer, relay boolean, connect_ms integer, version_ms integer,
    peers_asked_at timestamptz, peers_sent integer) ON COMMIT DELETE ROWS;
CREATE TEMPORARY TABLE IF NOT EXISTS stage_probes (
    host inet, port integer, pass bigint, probed_at timestamptz, outcome text, protocol_version integer,
    user_agent text, services bigint, start_height integer, connect_ms integer, version_ms integer,
    peers_sent integer) ON COMMIT DELETE ROWS;
CREATE TEMPORARY TABLE IF NOT EXISTS stage_names (
    host inet, port integer, name text) ON COMMIT DELETE ROWS;
CREATE TEMPORARY TABLE IF NOT EXISTS stage_sources (
    source integer, tried integer, answered integer) ON COMMIT DELETE ROWS;
CREATE TEMPORARY TABLE IF NOT EXISTS stage_forgotten (
    host inet, port integer) ON COMMIT DELETE ROWS;
CREATE TEMPORARY TABLE IF NOT EXISTS stage_passes (
    pass bigint, started_at timestamptz, finished_at timestamptz, probed bigint, responded bigint,
    failed bigint, new_nodes bigint, new_addresses bigint) ON COMMIT DELETE ROWS;";

/// Addresses heard of: new ones become candidates, of the others only the time moves, and never back, and
/// whether a single source stands behind them.
pub(super) const HEARD: &str = "
UPDATE nodes n SET last_heard = s.at
FROM stage_heard s WHERE n.host = s.host AND n.port = s.port AND n.last_heard < s.at;
INSERT INTO candidates AS c (host, port, first_heard, last_heard, failures, next_probe, source)
SELECT s.host, s.port, s.at, s.at, 0, s.next_probe, s.source FROM stage_heard s
WHERE NOT EXISTS (SELECT FROM nodes n WHERE n.host = s.host AND n.port = s.port)
ON CONFLICT (host, port) DO UPDATE
SET last_heard = greatest(c.last_heard, excluded.last_heard), source = excluded.source
WHERE c.last_heard < excluded.last_heard OR c.source <> excluded.source;";

/// Candidates that failed.
pub(super) const FAILED: &str = "
UPDATE candidates c
SET failures = s.failures, last_probed = s.last_probed, last_outcome = s.last_outcome,
    next_probe = s.next_probe
FROM stage_failed s WHERE c.host = s.host AND c.port = s.port;";

/// Nodes: known ones are brought up to date, candidates that responded move over.
pub(super) const NODES: &str = "
UPDATE nodes n
SET status = s.status, last_probed = s.last_probed, last_outcome = s.last_outcome,
    failures = s.failures, next_probe = s.next_probe,
    peers_asked_at = coalesce(s.peers_asked_at, n.peers_asked_at),
    peers_sent = coalesce(s.peers_sent, n.peers_sent)
FROM stage_nodes s WHERE n.host = s.host AND n.port = s.port AND s.seen_at IS NULL;
UPDATE nodes n
SET status = s.status, last_probed = s.last_probed, last_outcome = s.last_outcome,
    failures = s.failures, next_probe = s.next_probe,
    peers_asked_at = coalesce(s.peers_asked_at, n.peers_asked_at),
    peers_sent = coalesce(s.peers_sent, n.peers_sent),
    last_seen = s.seen_at, species = s.species, protocol_version = s.protocol_version,
    user_agent = s.user_agent, services = s.services, start_height = s.start_height, relay = s.relay,
    connect_ms = s.connect_ms, version_ms = s.version_ms
FROM stage_nodes s WHERE n.host = s.host AND n.port = s.port AND s.seen_at IS NOT NULL;
INSERT INTO nodes (host, port, status, species, protocol_version, user_agent, services, start_height, relay,
    connect_ms, version_ms, first_heard, last_heard, first_seen, last_seen, last_probed, last_outcome,
    failures, next_probe, peers_asked_at, peers_sent)
SELECT s.host, s.port, s.status, s.species, s.protocol_version, s.user_agent, s.services, s.start_height,
    s.relay, s.connect_ms, s.version_ms, coalesce(c.first_heard, s.seen_at),
    coalesce(c.last_heard, s.seen_at), s.seen_at, s.seen_at, s.last_probed, s.last_outcome, s.failures,
    s.next_probe, s.peers_asked_at, s.peers_sent
FROM stage_nodes s LEFT JOIN candidates c ON c.host = s.host AND c.port = s.port
WHERE s.seen_at IS NOT NULL ON CONFLICT (host, port) DO NOTHING;
DELETE FROM candidates c USING stage_nodes s
WHERE c.host = s.host AND c.port = s.port AND s.seen_at IS NOT NULL;";

/// Results, of nodes only.
pub(super) const PROBES: &str = "
INSERT INTO probes (host, port, pass, probed_at, outcome, protocol_version, user_agent, services,
    start_height, connect_ms, version_ms, peers_sent)
SELECT s.host, s.port, s.pass, s.probed_at, s.outcome, s.protocol_version, s.user_agent, s.services,
    s.start_height, s.connect_ms, s.version_ms, s.peers_sent
FROM stage_probes s
WHERE EXISTS (SELECT FROM nodes n WHERE n.host = s.host AND n.port = s.port)
ON CONFLICT (host, port, pass) DO NOTHING;";

/// All but the newest `$1` results of each node of this batch. Found by the key's index, node by node:
/// the table holds half a million rows, the batch a few thousand.
pub(super) const TRIM: &str = "
DELETE FROM probes WHERE ctid = ANY (ARRAY(
    SELECT old.ctid FROM (SELECT DISTINCT host, port FROM stage_probes) s
    CROSS JOIN LATERAL (SELECT p.ctid FROM probes p WHERE p.host = s.host AND p.port = s.port
        ORDER BY p.pass DESC OFFSET $1) old))";

/// Names: what is not listed loses its own.
pub(super) const NAMES: &str = "
UPDATE nodes n SET name = s.name
FROM stage_names s WHERE n.host = s.host AND n.port = s.port AND n.name IS DISTINCT FROM s.name;
UPDATE nodes n SET name = NULL WHERE n.name IS NOT NULL
AND NOT EXISTS (SELECT FROM stage_names s WHERE s.host = n.host AND s.port = n.port);";

/// Passes, and the history of those that ended: counted here, after the nodes of the same batch.
pub(super) const PASSES: &str = "
INSERT INTO passes (pass, started_at, finished_at, probed, responded, failed, new_nodes, new_addresses)
SELECT pass, started_at, finished_at, probed, responded, failed, new_nodes, new_addresses FROM stage_passes
ON CONFLICT (pass) DO UPDATE SET started_at = excluded.started_at, finished_at = excluded.finished_at,
    probed = excluded.probed, responded = excluded.responded, failed = excluded.failed,
    new_nodes = excluded.new_nodes, new_addresses = excluded.new_addresses;
DELETE FROM history h USING stage_passes s WHERE h.pass = s.pass AND s.finished_at IS NOT NULL;
INSERT INTO history (pass, at, dimension, value, nodes)
SELECT s.pass, s.finished_at, v.dimension, v.value, count(*)
FROM stage_passes s CROSS JOIN nodes n CROSS JOIN LATERAL (VALUES
    ('status', n.status), ('species', n.species), ('user_agent', n.user_agent),
    ('protocol_version', n.protocol_version::text), ('country', n.country), ('asn', n.asn::text),
    ('port', n.port::text), ('services', n.services::text)) v (dimension, value)
WHERE s.finished_at IS NOT NULL AND v.value IS NOT NULL
    AND (n.status = 'up' OR v.dimension = 'status')
GROUP BY s.pass, s.finished_at, v.dimension, v.value;";

/// Sources.
pub(super) const SOURCES: &str = "
INSERT INTO sources (source, tried, answered) SELECT source, tried, answered FROM stage_sources
ON CONFLICT (source) DO UPDATE SET tried = excluded.tried, answered = excluded.answered;";

/// Candidates that are no longer remembered; a node never is forgotten.
pub(super) const FORGOTTEN: &str = "
DELETE FROM candidates c USING stage_forgotten s WHERE c.host = s.host AND c.port = s.port;";

/// What is read at start: every address, with what the crawler remembers of it.
pub(super) const LOAD: &str = "COPY (
SELECT host, port, last_heard, failures, last_probed, last_outcome, next_probe, source,
    NULL::timestamptz, NULL::timestamptz, NULL::integer, false FROM candidates
UNION ALL
SELECT host, port, last_heard, failures, last_probed, last_outcome, next_probe, 0,
    last_seen, peers_asked_at, peers_sent, species = 'TRB' FROM nodes) TO STDOUT";

/// The newest pass.
pub(super) const LAST_PASS: &str = "
SELECT pass, started_at::text, finished_at::text, probed, responded, failed, new_nodes, new_addresses
FROM passes ORDER BY pass DESC LIMIT 1";
