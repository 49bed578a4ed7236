-- `bitdash import` puts addresses here, whether a crawl runs or not. The crawler takes them in and
-- removes them in the transaction that stores them as candidates.

CREATE TABLE bitdash_internal.imported (
    key bigint PRIMARY KEY,
    CONSTRAINT imported_are_ipv4_and_have_a_port CHECK (
        key BETWEEN 0 AND 281474976710655 AND (key & 65535) > 0)
);

COMMENT ON TABLE bitdash_internal.imported IS 'Addresses that were imported and that the crawler has not taken in yet.';

-- A condition on the view candidates reaches no table, and address() scans the journal for each
-- host. Both would take minutes for thousands of hosts.
CREATE FUNCTION bitdash_internal.addresses_of(hosts bigint[]) RETURNS TABLE (
    key bigint, last_outcome text) VOLATILE SECURITY DEFINER LANGUAGE sql
    SET search_path = pg_catalog, pg_temp SET work_mem = '32MB' SET enable_nestloop = off
    SET enable_mergejoin = off SET jit = off AS $$
    SELECT a.key, bitdash_internal.outcome_word(a.outcome)
    FROM bitdash_internal.address_state(0, 281474976710655) a
    WHERE a.key >> 16 IN (SELECT unnest(addresses_of.hosts))
$$;

COMMENT ON FUNCTION bitdash_internal.addresses_of IS
    'The addresses of these hosts, each an IPv4 address as a number, with the outcome of their last probe as candidates.';
