#!/bin/sh
# Makes sure that a PostgreSQL server, 15 or newer, is installed; does nothing
# where one is. Only its programs are needed: no cluster is created or started
# by this script, and none that exists is touched.
# Usage: postgres.sh [--version | --bindir], which prints the major version, or where its programs are.
set -eu

minimum=15

# usable DIR: whether DIR holds initdb and a postgres that is new enough.
usable() {
    [ -x "$1/initdb" ] && [ -x "$1/postgres" ] || return 1
    version=$("$1/postgres" --version | sed -n 's/.*(PostgreSQL) \([0-9]*\).*/\1/p')
    bindir=$1
    [ "${version:-0}" -ge "$minimum" ]
}

# found: the same places in which internal/pgtemp looks.
found() {
    if [ -n "${ORPHAN_CLEANER_TEST_PG_BIN:-}" ]; then
        usable "$ORPHAN_CLEANER_TEST_PG_BIN" && return
        echo "ORPHAN_CLEANER_TEST_PG_BIN=$ORPHAN_CLEANER_TEST_PG_BIN holds no PostgreSQL server, version $minimum or newer" >&2
        exit 1
    fi
    if path=$(command -v postgres); then
        usable "$(dirname "$(readlink -f "$path")")" && return
    fi
    if command -v pg_config >/dev/null; then
        usable "$(pg_config --bindir)" && return
    fi
    for dir in /usr/lib/postgresql/*/bin /usr/pgsql-*/bin /usr/libexec/postgresql* \
        /opt/homebrew/opt/postgresql@*/bin /usr/local/opt/postgresql@*/bin \
        /home/linuxbrew/.linuxbrew/opt/postgresql@*/bin \
        /Applications/Postgres.app/Contents/Versions/*/bin; do
        usable "$dir" && return
    done
    return 1
}

install_debian() {
    sudo=
    if [ "$(id -u)" -ne 0 ]; then
        command -v sudo >/dev/null || give_up
        sudo=sudo
    fi
    apt="$sudo env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300"
    $apt update
    $apt install -y postgresql-common >/dev/null
    # The package would create and start a cluster on port 5432, which nobody
    # here asked for. The setting is taken back afterwards.
    drop_in=/etc/postgresql-common/createcluster.d/orphan-cleaner.conf
    $sudo mkdir -p "${drop_in%/*}"
    echo 'create_main_cluster = false' | $sudo tee "$drop_in" >/dev/null
    # shellcheck disable=SC2064 # expanded now, on purpose
    trap "$sudo rm -f $drop_in" EXIT
    offered=$(apt-cache show postgresql | sed -n 's/^Version: \([0-9]*\).*/\1/p' | head -n 1)
    if [ "${offered:-0}" -ge "$minimum" ]; then
        $apt install -y postgresql postgresql-contrib >/dev/null
    else
        # An older release of Debian or Ubuntu: PostgreSQL's own repository.
        $apt install -y ca-certificates curl >/dev/null
        $sudo /usr/share/postgresql-common/pgdg/apt.postgresql.org.sh -y >/dev/null
        $apt install -y postgresql-17 >/dev/null
    fi
}

give_up() {
    cat >&2 <<'HELP'
No PostgreSQL server, version 15 or newer, was found, and this machine has no
package manager that `make postgres` knows, or no right to use it. Install one:
  Debian, Ubuntu   sudo apt-get install postgresql
  Fedora           sudo dnf install postgresql-server
  macOS            brew install postgresql@17
or set ORPHAN_CLEANER_TEST_PG_BIN to the directory that holds its initdb and postgres.
HELP
    exit 1
}

# say OPTION: prints what is asked of the server that was found.
say() {
    case $1 in
        --version) echo "$version" ;;
        --bindir) echo "$bindir" ;;
    esac
}

if found; then
    say "${1:-}"
    exit 0
fi
echo "PostgreSQL is missing: installing it" >&2
if command -v apt-get >/dev/null; then
    install_debian
elif command -v brew >/dev/null; then
    brew install postgresql@17
else
    give_up
fi
found || give_up
say "${1:-}"
