# One image for ctrler, kv and kvctl. Plain Dockerfile syntax: every builder can read it.

FROM rust:1-slim-bookworm AS build
WORKDIR /src
COPY . .
RUN cargo build --release --locked -p ctrler -p kv --bins \
 && mkdir /out \
 && cp target/release/ctrler target/release/kv target/release/kvctl /out/

FROM debian:bookworm-slim
# The servers write to /data alone, and own nothing else.
RUN useradd --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin holdfast \
 && mkdir /data \
 && chown holdfast:holdfast /data
COPY --from=build /out/ /usr/local/bin/
USER holdfast
WORKDIR /data
CMD ["kvctl", "--help"]
