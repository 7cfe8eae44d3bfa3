# Build:  docker build -t sluice .
# Run:    docker run --read-only --tmpfs /tmp -v sluice-data:/data -p 127.0.0.1:7070:7070 sluice
FROM debian:bookworm-slim AS build
WORKDIR /src
COPY deploy/packages.txt deploy/install-deps.sh deploy/
RUN deploy/install-deps.sh build
COPY CMakeLists.txt CMakePresets.json ./
COPY proto proto
COPY server server
COPY client client
RUN --mount=type=cache,target=/root/.cache/ccache \
    cmake --preset release -DSLUICE_BUILD_TESTS=OFF \
    && cmake --build build --target sluiced sluice \
    && strip --strip-debug build/bin/sluiced build/bin/sluice

FROM debian:bookworm-slim
COPY deploy/packages.txt deploy/install-deps.sh /tmp/deploy/
RUN /tmp/deploy/install-deps.sh run \
    && rm -rf /tmp/deploy /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --user-group --home-dir /data --no-create-home sluice \
    && install -d -o sluice -g sluice -m 0750 /data
COPY --from=build /src/build/bin/sluiced /src/build/bin/sluice /usr/local/bin/
USER 10001:10001
VOLUME /data
# A container has a network of its own: listening on all of its addresses is what publishing a port
# needs, and --insecure says that this network is trusted. Publish the ports to loopback only, or
# put mutual TLS in front (a proxy or a mesh).
ENV SLUICE_LISTEN=0.0.0.0:7070 \
    SLUICE_HTTP_LISTEN=0.0.0.0:7071 \
    SLUICE_DATA_DIR=/data \
    SLUICE_INSECURE=true
EXPOSE 7070 7071
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 CMD ["sluice", "health"]
ENTRYPOINT ["sluiced"]
