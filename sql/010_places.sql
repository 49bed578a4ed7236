-- Places: the files that countries and networks of nodes come from.

CREATE TABLE bitdash_internal.place_files (
    kind     text        PRIMARY KEY CHECK (kind IN ('country', 'network')),
    file     text        NOT NULL,
    name     text        NOT NULL,
    url      text,
    licence  text,
    built_at timestamptz NOT NULL
);
COMMENT ON TABLE bitdash_internal.place_files IS 'The files that all nodes were looked up in.';
COMMENT ON COLUMN bitdash_internal.place_files.file IS
    'Path, size, time and inode: when they change, all nodes are looked up in the file.';

CREATE VIEW public.place_sources AS SELECT kind, name, url, licence, built_at FROM bitdash_internal.place_files;
COMMENT ON VIEW public.place_sources IS
    'Where countries and networks of nodes come from. The licences ask that this is shown beside them.';
COMMENT ON COLUMN public.place_sources.kind IS 'country: the column country of nodes. network: asn and as_name.';
COMMENT ON COLUMN public.place_sources.name IS 'Name of the source.';
COMMENT ON COLUMN public.place_sources.url IS 'Its address.';
COMMENT ON COLUMN public.place_sources.licence IS 'Licence of the data.';
COMMENT ON COLUMN public.place_sources.built_at IS 'When the data were made.';

-- Readers of the history read these, too.
DO $$
DECLARE
    reader regrole;
BEGIN
    FOR reader IN
        SELECT DISTINCT a.grantee FROM pg_class c CROSS JOIN aclexplode(c.relacl) a
        WHERE c.oid = 'public.history'::regclass AND a.privilege_type = 'SELECT' AND a.grantee NOT IN (0, c.relowner)
    LOOP
        EXECUTE format('GRANT SELECT ON public.place_sources TO %s', reader);
    END LOOP;
END $$;
