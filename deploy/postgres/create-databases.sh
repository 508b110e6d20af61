#!/bin/sh
# A database for each service that has one, which the other service's role cannot connect to.
set -eu
for name in identity auth_server; do
  psql -v ON_ERROR_STOP=1 --username "$POSTGRES_USER" --set "name=$name" --set "password=$(cat "/run/secrets/$name")" <<'SQL'
create role :"name" login password :'password';
create database :"name" owner :"name";
revoke connect on database :"name" from public;
SQL
done
