#!/bin/sh
# After the installation of the .deb or .rpm: the user, and the units. No timer is
# started: first /etc/orphan-cleaner/env and the files with the URLs are written.
set -e
if [ -d /run/systemd/system ]; then
    systemd-sysusers orphan-cleaner.conf
    systemctl daemon-reload
fi
