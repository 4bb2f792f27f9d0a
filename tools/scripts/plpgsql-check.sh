#!/bin/sh
# Makes sure that plpgsql_check, which finds mistakes in PL/pgSQL functions, is
# installed for the PostgreSQL that the tests use; the test that needs it says so
# where it is not. Only Debian's package is known here, as root or with sudo.
set -eu
version=$("$(dirname "$0")/postgres.sh" --version)
if [ -e "/usr/share/postgresql/$version/extension/plpgsql_check.control" ]; then
    exit 0
fi
sudo=
if [ "$(id -u)" -ne 0 ]; then
    sudo=$(command -v sudo) || sudo=none
fi
if ! command -v apt-get >/dev/null || [ "$sudo" = none ]; then
    echo "plpgsql_check is not installed: the test of the functions' bodies will be skipped" >&2
    exit 0
fi
apt="$sudo env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300"
package=postgresql-$version-plpgsql-check
apt-cache show "$package" >/dev/null 2>&1 || $apt update
echo "plpgsql_check is missing: installing $package" >&2
$apt install -y --no-install-recommends "$package" >/dev/null ||
    echo "$package could not be installed: the test of the functions' bodies will be skipped" >&2
