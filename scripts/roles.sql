-- Roles with the least rights that do: one for the crawler, one that may only read, for web pages and people.
--
--   psql -v database=bitdash -v crawler=bitdash -v web=bitdash_web -f scripts/roles.sql postgres
--
-- Run it as a superuser (on Debian: sudo -u postgres psql ...), once or again; what is there already stays. Then give
-- them passwords (\password bitdash), or let pg_hba.conf know them by their system user (peer).

\set ON_ERROR_STOP on

SELECT format('CREATE ROLE %I LOGIN', name) FROM (VALUES (:'crawler'), (:'web')) r (name)
    WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) \gexec
ALTER ROLE :"crawler" NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS;
ALTER ROLE :"web" NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS;

SELECT format('CREATE DATABASE %I', :'database')
    WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = :'database') \gexec

-- The crawler makes and changes its tables: it owns the database, and has no right in any other one.
ALTER DATABASE :"database" OWNER TO :"crawler";
REVOKE ALL ON DATABASE :"database" FROM PUBLIC;
GRANT CONNECT ON DATABASE :"database" TO :"web";

-- A reader who takes all day would hold up what the crawler does once a day.
ALTER ROLE :"web" IN DATABASE :"database" SET default_transaction_read_only = on;
ALTER ROLE :"web" IN DATABASE :"database" SET statement_timeout = '30s';
ALTER ROLE :"web" IN DATABASE :"database" SET idle_in_transaction_session_timeout = '30s';

\connect :"database"
ALTER SCHEMA public OWNER TO :"crawler";
REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO :"web";
-- What is there, and what a later version brings.
GRANT SELECT ON ALL TABLES IN SCHEMA public TO :"web";
ALTER DEFAULT PRIVILEGES FOR ROLE :"crawler" IN SCHEMA public GRANT SELECT ON TABLES TO :"web";
