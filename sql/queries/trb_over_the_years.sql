-- TRB nodes that were up, month by month (UTC): the mean, the lowest and the highest number at the
-- end of a pass. Days that are not closed yet are counted by their passes.
WITH step AS (
    SELECT at, nodes, passes, lowest, highest FROM history_of('species', 'TRB', 'day')
    UNION ALL
    SELECT at, nodes, passes, lowest, highest FROM history_of('species', 'TRB', 'pass')
    WHERE pass > (SELECT last_pass FROM closed_rolls)
)
SELECT to_char(at AT TIME ZONE 'UTC', 'YYYY-MM') AS month, sum(passes) AS passes,
    round((sum(nodes * passes) / sum(passes))::numeric, 1) AS nodes, min(lowest) AS lowest, max(highest) AS highest,
    repeat('#', least(round(sum(nodes * passes) / sum(passes)), 60)::integer) AS bar
FROM step GROUP BY 1 ORDER BY 1;
