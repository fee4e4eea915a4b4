#!/bin/sh
# Brings the tables of Temporal to the version of these tools. Safe to repeat: what is there already is left as it is. The databases
# themselves were made by Postgres' own init.sh; where they are comes as SQL_….
set -eu

for part in temporal visibility; do
  database=temporal
  if [ "$part" = visibility ]; then database=temporal_visibility; fi
  echo "schema of $database"
  SQL_DATABASE=$database temporal-sql-tool setup-schema --version 0.0
  SQL_DATABASE=$database temporal-sql-tool update-schema --schema-name "postgresql/v12/$part"
done
