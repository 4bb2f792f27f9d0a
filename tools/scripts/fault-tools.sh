#!/bin/sh
# Installs what some tests need: PgBouncer, libfaketime to set the clock of a
# throw-away server, and Redis. Does nothing where they are. No service is
# started, and none that runs is touched. Where they cannot be installed those
# tests are skipped, but not in CI.
set -eu

missing() {
    packages=
    [ -x /usr/sbin/pgbouncer ] || command -v pgbouncer >/dev/null || packages="$packages pgbouncer"
    command -v redis-server >/dev/null || packages="$packages redis-server"
    clock=
    for library in /usr/lib/*/faketime/libfaketime.so.1 /usr/lib*/faketime/libfaketime.so.1; do
        [ ! -e "$library" ] || clock=$library
    done
    [ -n "$clock" ] || packages="$packages faketime"
    [ -n "$packages" ]
}

give_up() {
    echo "not installed:$packages; the tests that need them are skipped" >&2
    [ "${CI:-}" != true ]
    exit
}

missing || exit 0
command -v apt-get >/dev/null || give_up
sudo=
if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null && sudo -n true 2>/dev/null || give_up
    sudo=sudo
fi
echo "installing$packages for the tests" >&2
# The package would start a PgBouncer of the machine's own.
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
    printf '#!/bin/sh\nexit 101\n' | $sudo tee $policy >/dev/null
    $sudo chmod +x $policy
    # shellcheck disable=SC2064 # expanded now, on purpose
    trap "$sudo rm -f $policy" EXIT
fi
apt="$sudo env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300"
$apt update
# shellcheck disable=SC2086 # several words
$apt install -y --no-install-recommends $packages >/dev/null
! missing || give_up
