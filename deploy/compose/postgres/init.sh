#!/bin/bash
# Runs once, when the volume is empty: a role for each owner of databases, so that neither can read the other's.
set -euo pipefail

psql --no-psqlrc --set ON_ERROR_STOP=1 --username "${POSTGRES_USER:-postgres}" --dbname postgres \
  --set temporal_password="$TEMPORAL_DB_PASSWORD" --set weir_password="$WEIR_DB_PASSWORD" <<'SQL'
create role temporal login password :'temporal_password';
create role weir login password :'weir_password';
create database temporal owner temporal;
create database temporal_visibility owner temporal;
create database weir owner weir;
revoke connect, temporary on database temporal, temporal_visibility, weir from public;
\connect weir
-- By the superuser, since the extension is not a trusted one.
create extension vector;
SQL
