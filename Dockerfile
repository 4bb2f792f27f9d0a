# The program, the certificates of the public authorities, and nothing else: no shell,
# no libc, no package manager.
#   docker build --build-arg VERSION=$(git describe --tags --always) -t orphan-cleaner .
FROM --platform=$BUILDPLATFORM golang:1.26-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=dev
ARG TARGETOS
ARG TARGETARCH
RUN CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH \
    go build -trimpath -buildvcs=false -ldflags "-s -w -buildid= -X main.version=$VERSION" -o /out/orphan-cleaner ./cmd/orphan-cleaner

FROM scratch
LABEL org.opencontainers.image.title="orphan-cleaner" \
      org.opencontainers.image.source="https://github.com/nova-social/orphan-cleaner" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /out/orphan-cleaner /usr/local/bin/orphan-cleaner
ENV PATH=/usr/local/bin
USER 65532:65532
EXPOSE 9091
ENTRYPOINT ["/usr/local/bin/orphan-cleaner"]
CMD ["serve"]
