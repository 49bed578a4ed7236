-- The 50 nodes with the most passes in which they answered or were full, since they are known, and
-- the start of the run that lasts. They are chosen by their closed days from the 200 best, so that
-- this is quick. Before the first day is closed, they are chosen from those known longest.
WITH best AS MATERIALIZED (
    SELECT n.host, n.port, n.name, n.species, n.user_agent, n.first_seen
    FROM nodes n JOIN roll_nodes o ON o.host = n.host AND o.port = n.port
    LEFT JOIN (SELECT u.place - 1 AS ordinal, u.answered
        FROM closed_rolls c CROSS JOIN LATERAL unnest(c.answered) WITH ORDINALITY u (answered, place)) c
        ON c.ordinal = o.ordinal
    ORDER BY c.answered DESC NULLS LAST, n.first_seen, n.host, n.port LIMIT 200
)
SELECT b.host, b.port, b.name, b.species, b.user_agent, u.answered, u.passes,
    round(100 * u.share::numeric, 2) AS percent, b.first_seen, up_since(b.host, b.port) AS up_since
FROM best b CROSS JOIN LATERAL uptime(b.host, b.port) u
WHERE u.period = 'all' AND u.passes > 0
ORDER BY u.answered DESC, u.passes, b.first_seen, b.host, b.port LIMIT 50;
