#!/usr/bin/env bash
# Makes the consumer's role and its database, and the role that reads it: run once by the image's entry point, as the superuser.
set -euo pipefail

# psql reads the passwords itself, so that no list of processes shows them.
psql --username="$POSTGRES_USER" --dbname=postgres --set=ON_ERROR_STOP=1 <<'SQL'
\set highwater_password `cat /run/secrets/highwater-password`
\set reader_password `cat /run/secrets/reader-password`
CREATE ROLE highwater LOGIN PASSWORD :'highwater_password';
CREATE DATABASE highwater OWNER highwater ENCODING 'UTF8' TEMPLATE template0;
\connect highwater
\ir /etc/highwater/reader.sql
ALTER ROLE highwater_reader PASSWORD :'reader_password';
SQL
