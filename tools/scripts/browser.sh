#!/bin/sh
# Installs what the tests of the status page look at it with: a headless Chromium,
# Debian's package, and axe-core, which tools/axe pins, at DIR/axe.min.js. Does nothing
# where they are. Where they cannot be installed those tests are skipped, but not in CI.
# Usage: browser.sh DIR [--fonts], which adds a font with Chinese characters, for pictures.
set -eu
dir=$1
fonts=${2:-}
cd "$(dirname "$0")/../.."

give_up() {
    echo "not installed: $1; the tests that need it are skipped" >&2
    [ "${CI:-}" != true ]
    exit
}

packages=
command -v chromium-headless-shell >/dev/null || command -v chromium >/dev/null || packages=chromium-headless-shell
command -v npm >/dev/null || [ -s "$dir/axe.min.js" ] || packages="$packages npm"
[ -z "$fonts" ] || fc-list 2>/dev/null | grep -qi -E 'cjk|wqy' || packages="$packages fontconfig fonts-wqy-microhei"
if [ -n "$packages" ]; then
    command -v apt-get >/dev/null || give_up "$packages"
    sudo=
    if [ "$(id -u)" -ne 0 ]; then
        command -v sudo >/dev/null && sudo -n true 2>/dev/null || give_up "$packages"
        sudo=sudo
    fi
    echo "installing $packages for the tests" >&2
    apt="$sudo env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300"
    $apt update
    # shellcheck disable=SC2086 # several words
    $apt install -y --no-install-recommends $packages >/dev/null
fi

if ! cmp -s tools/axe/package-lock.json "$dir/axe-package-lock.json" || [ ! -s "$dir/axe.min.js" ]; then
    temp=$(mktemp -d)
    trap 'rm -rf "$temp"' EXIT
    cp tools/axe/package.json tools/axe/package-lock.json "$temp"
    npm ci --prefix "$temp" --ignore-scripts --no-audit --no-fund --loglevel=error >/dev/null || give_up axe-core
    mkdir -p "$dir"
    cp "$temp/node_modules/axe-core/axe.min.js" "$dir/axe.min.js"
    # Last: whoever was interrupted begins again.
    cp tools/axe/package-lock.json "$dir/axe-package-lock.json"
fi
