-- Share of each species in the nodes that were up, day by day (UTC): the mean over the passes of
-- the day, in percent.
WITH day AS (
    SELECT date_trunc('day', h.at AT TIME ZONE 'UTC')::date AS day, h.value AS species,
        sum(h.nodes::float8 * h.passes) AS node_passes
    FROM history h WHERE h.dimension = 'species' GROUP BY 1, 2
)
SELECT d.day, d.species,
    round((100 * d.node_passes / sum(d.node_passes) OVER (PARTITION BY d.day))::numeric, 2) AS percent
FROM day d
ORDER BY d.day, d.node_passes DESC, d.species;
