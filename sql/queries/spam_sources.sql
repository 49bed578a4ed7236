-- Sources of dead addresses: the 50 networks (/16) whose nodes named the most addresses that did
-- not respond. `tried` and `answered` are halved from time to time.
SELECT s.source, s.tried, s.answered, round(100.0 * s.answered / s.tried, 1) AS percent,
    (SELECT count(*) FROM nodes n WHERE n.host <<= s.source AND n.status = 'up') AS nodes_up
FROM sources s WHERE s.tried > s.answered
ORDER BY s.tried - s.answered DESC, s.source LIMIT 50;
