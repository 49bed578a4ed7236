-- Two roles with least privileges: one for the crawler, and a read-only one for web pages and
-- people.
--
--   psql -v database=bitdash -v crawler=bitdash -v web=bitdash_web -f scripts/roles.sql postgres
--
-- Run it as a superuser (on Debian: sudo -u postgres psql ...). It is idempotent. Then set
-- passwords (\password bitdash), or map system users to the roles in pg_hba.conf (peer).

\set ON_ERROR_STOP on

SELECT format('CREATE ROLE %I LOGIN', name) FROM (VALUES (:'crawler'), (:'web')) r (name)
    WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) \gexec
ALTER ROLE :"crawler" NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS;
ALTER ROLE :"web" NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS;

SELECT format('CREATE DATABASE %I TEMPLATE template0 ENCODING ''UTF8'' LOCALE ''C''', :'database')
    WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = :'database') \gexec

-- The crawler creates and changes its tables: it owns this database and has no right in any other
-- one.
ALTER DATABASE :"database" OWNER TO :"crawler";
REVOKE ALL ON DATABASE :"database" FROM PUBLIC;
GRANT CONNECT ON DATABASE :"database" TO :"web";

-- A transaction that stays open blocks compaction, which is due once a day.
ALTER ROLE :"web" IN DATABASE :"database" SET default_transaction_read_only = on;
ALTER ROLE :"web" IN DATABASE :"database" SET statement_timeout = '30s';
ALTER ROLE :"web" IN DATABASE :"database" SET idle_in_transaction_session_timeout = '30s';

\connect :"database"
ALTER SCHEMA public OWNER TO :"crawler";
REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO :"web";
-- Existing relations, and those that a later version creates. The schema bitdash_internal stays
-- closed: the views and functions of public read it with the rights of their owner.
GRANT SELECT ON ALL TABLES IN SCHEMA public TO :"web";
ALTER DEFAULT PRIVILEGES FOR ROLE :"crawler" IN SCHEMA public GRANT SELECT ON TABLES TO :"web";
