-- The 50 networks with the most nodes up, their share of all in percent, and their TRB nodes. The
-- /16 of an address stands in for a network that is not known: for all, where bitdash has no file
-- of places.
SELECT coalesce('AS' || n.asn, network(set_masklen(n.host::cidr, 16))::text) AS network,
    max(n.as_name) AS name, max(n.country) AS country, count(*) AS up,
    round(100.0 * count(*) / sum(count(*)) OVER (), 2) AS percent,
    count(*) FILTER (WHERE n.species = 'TRB') AS trb
FROM nodes n WHERE n.status = 'up'
GROUP BY 1 ORDER BY up DESC, network LIMIT 50;
