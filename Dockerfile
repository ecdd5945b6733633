# narthex as an image: one static binary, CA certificates, and what it is made of with the licences of all that.
#
#   docker build --build-arg VERSION=0.1.0 --build-arg REVISION="$(git rev-parse HEAD)" -t narthex:0.1.0 .
#
# Both images can be replaced, by a mirror or by a digest. RUST_IMAGE needs cargo, a C compiler, glibc's static libraries and
# CA certificates, all of which the official one has. BASE_IMAGE may be any: nothing of it is used.
ARG RUST_IMAGE=docker.io/library/rust:1.95-slim-bookworm
ARG BASE_IMAGE=scratch

FROM ${RUST_IMAGE} AS build
WORKDIR /src
COPY . .
ARG REVISION=unknown
ARG BRANCH=unknown
# A target is named so that the flag does not reach build scripts and procedural macros, which cannot be static.
RUN set -eu; \
    target="$(rustc --print host-tuple)"; \
    NARTHEX_REVISION="${REVISION}" NARTHEX_BRANCH="${BRANCH}" NARTHEX_RUSTC="$(rustc --version)" \
    RUSTFLAGS="-C target-feature=+crt-static" \
    cargo build --locked --release --bin narthex --target "${target}"; \
    mkdir -p /image/bin /image/etc/ssl/certs /image/licenses; \
    cp "target/${target}/release/narthex" /image/bin/narthex; \
    cp /etc/ssl/certs/ca-certificates.crt /image/etc/ssl/certs/ca-certificates.crt; \
    cp LICENSE /image/licenses/LICENSE; \
    scripts/licenses /image/licenses "${target}"; \
    printf 'hosts: files dns\n' > /image/etc/nsswitch.conf; \
    /image/bin/narthex --version

FROM ${BASE_IMAGE}
ARG VERSION=unknown
ARG REVISION=unknown
ARG CREATED=unknown
LABEL org.opencontainers.image.title="narthex" \
      org.opencontainers.image.description="Ships Prometheus' blocks to object storage, proven complete, and answers queries; a drop-in for the Thanos sidecar" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}"
COPY --from=build /image/ /
# Writes nothing outside of the directories that its flags name: the root file system can be read-only, and any other user does as well.
USER 1001:1001
# The StoreAPI; metrics and probes.
EXPOSE 10901 10902
ENTRYPOINT ["/bin/narthex"]
