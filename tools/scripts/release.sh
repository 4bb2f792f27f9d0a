#!/bin/sh
# Builds what is released into DIR: an archive per platform, an SBOM of each
# program (CycloneDX, read from the program itself), and SHA256SUMS. The same commit
# gives the same bytes, wherever and whenever it is built: no path, no time and no
# user of this machine goes in. An SBOM names the tool that wrote it with its hash,
# so that it is the same only where the builder's platform and Go are.
# Usage: release.sh VERSION DIR TOOLS, where TOOLS holds cyclonedx-gomod and nfpm.
# PLATFORMS="linux/amd64 …" builds fewer.
set -eu
version=$1 dist=$2 tools=$3
go=${GO:-go}
platforms=${PLATFORMS:-linux/amd64 linux/arm64 darwin/arm64 darwin/amd64}

tar=tar
command -v gtar >/dev/null && tar=gtar
"$tar" --version | grep -q 'GNU tar' || {
    echo "GNU tar is needed, for archives that are the same each time: brew install gnu-tar" >&2
    exit 1
}
sum=sha256sum
command -v sha256sum >/dev/null || sum="shasum -a 256"
# The time of the files is that of the commit.
epoch=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}

rm -rf "$dist/release"
mkdir -p "$dist/release"
temp=$(mktemp -d)
trap 'rm -rf "$temp"' EXIT
SOURCE_DATE_EPOCH=$epoch
export SOURCE_DATE_EPOCH

# The manual page and the completion are the program's own, by this machine's.
mkdir -p "$temp/manual/completion"
"$go" build -trimpath -ldflags "-X main.version=$version" -o "$temp/host" ./cmd/orphan-cleaner
"$temp/host" help --man > "$temp/manual/orphan-cleaner.1"
for shell in bash zsh fish; do
    "$temp/host" completion "$shell" > "$temp/manual/completion/$shell"
done

for platform in $platforms; do
    os=${platform%/*} arch=${platform#*/}
    name=orphan-cleaner_${version}_${os}_${arch}
    mkdir "$temp/$name"
    CGO_ENABLED=0 GOOS=$os GOARCH=$arch GOFLAGS="${GOFLAGS:-} -mod=readonly" "$go" build -trimpath -buildvcs=false \
        -ldflags "-s -w -buildid= -X main.version=$version" -o "$temp/$name/orphan-cleaner" ./cmd/orphan-cleaner
    "$tools/cyclonedx-gomod" bin -json -noserial -notimestamp -version "$version" \
        -output "$dist/release/$name.cdx.json" "$temp/$name/orphan-cleaner" 2>"$temp/sbom.log" || {
        cat "$temp/sbom.log" >&2
        exit 1
    }
    if [ "$os" = linux ]; then
        ./tools/scripts/package.sh "$version" "$arch" "$temp/$name/orphan-cleaner" "$temp/manual" "$dist/release" "$tools/nfpm"
    fi
    cp -R README.md CHANGELOG.md LICENSE sql/roles.sql "$temp/manual/"* "$temp/$name/"
    chmod -R u=rwX,go=rX "$temp/$name"
    "$tar" -C "$temp" --format=ustar --sort=name --mtime="@$epoch" --owner=0 --group=0 --numeric-owner -cf - "$name" |
        gzip -9n > "$dist/release/$name.tar.gz"
done
cd "$dist/release"
$sum -- *.tar.gz *.cdx.json *.deb *.rpm > SHA256SUMS
cat SHA256SUMS
