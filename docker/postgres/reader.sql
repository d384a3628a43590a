-- Makes highwater_reader, a role that reads what the consumer stores, and changes nothing: for Grafana and for psql. For tables in the
-- schema public that belong to the role highwater. Run it once in their database, as a superuser, or as a role that may create roles
-- and is a member of highwater:
--
--   psql -d highwater -f reader.sql
--   psql -d highwater -c '\password highwater_reader'

CREATE ROLE highwater_reader LOGIN;
GRANT USAGE ON SCHEMA public TO highwater_reader;

-- Before PostgreSQL 15, everybody may create tables there.
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
GRANT CREATE ON SCHEMA public TO highwater;

-- Tables and views that are there, and those that the consumer makes later: at its first start, for a new month, in a new version.
GRANT SELECT ON ALL TABLES IN SCHEMA public TO highwater_reader;
ALTER DEFAULT PRIVILEGES FOR ROLE highwater IN SCHEMA public GRANT SELECT ON TABLES TO highwater_reader;

-- Retention waits for a query that reads what it drops.
ALTER ROLE highwater_reader SET statement_timeout = '30s';
ALTER ROLE highwater_reader SET idle_in_transaction_session_timeout = '60s';
ALTER ROLE highwater_reader SET default_transaction_read_only = on;
