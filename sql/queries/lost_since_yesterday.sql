-- Nodes that were up or full a day before the newest pass and are down now, the last seen first.
-- Nothing is listed before there are passes of two days.
WITH newest AS (
    SELECT r.at FROM rolls r ORDER BY r.pass DESC LIMIT 1
), yesterday AS (
    SELECT r.nodes, r.up, r."full" FROM rolls r CROSS JOIN newest n
    WHERE r.at <= n.at - interval '1 day' ORDER BY r.pass DESC LIMIT 1
)
SELECT n.host, n.port, n.name, n.species, n.user_agent, n.last_seen, n.last_outcome
FROM yesterday y JOIN roll_nodes o ON o.ordinal < y.nodes
JOIN nodes n ON n.host = o.host AND n.port = o.port
WHERE n.status = 'down' AND (get_bit(y.up, o.ordinal) = 1 OR get_bit(y."full", o.ordinal) = 1)
ORDER BY n.last_seen DESC, n.host, n.port;
