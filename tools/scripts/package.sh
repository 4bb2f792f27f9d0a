#!/bin/sh
# Makes the .deb and the .rpm of a program that was built, from the root of the tree.
# Usage: package.sh VERSION ARCH PROGRAM MANUAL OUT NFPM, where MANUAL is a directory with
# orphan-cleaner.1 and completion/. SOURCE_DATE_EPOCH is the time of all files.
set -eu
version=$1 arch=$2 program=$3 manual=$4 out=$5 nfpm=$6
# A version of a package begins with a digit; that of a clone without tags is a commit.
case $version in
    v[0-9]* | [0-9]*.*) ;;
    *) version=0.0.0-g$version ;;
esac
stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT

cp "$program" "$stage/orphan-cleaner"
cp -R "$manual/completion" "$stage/"
gzip -9nc "$manual/orphan-cleaner.1" > "$stage/orphan-cleaner.1.gz"
# A package's program is not in /usr/local.
mkdir -p "$stage/systemd"
cp -R deploy/systemd/*.service deploy/systemd/*.timer deploy/systemd/*.service.d "$stage/systemd/"
sed -i.was 's|/usr/local/bin/|/usr/bin/|' "$stage"/systemd/*.service
rm "$stage"/systemd/*.was
chmod -R u=rwX,go=rX "$stage"

sed "s|\${STAGE}|$stage|; s|\${ARCH}|$arch|; s|\${VERSION}|$version|" deploy/nfpm.yaml > "$stage/nfpm.yaml"
for packager in deb rpm; do
    "$nfpm" package --config "$stage/nfpm.yaml" --packager "$packager" --target "$out/" >"$stage/log" 2>&1 || {
        cat "$stage/log" >&2
        exit 1
    }
done
