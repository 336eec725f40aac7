#!/bin/sh
# The linker of every build (.cargo/config.toml): the system's `cc`. A Rust toolchain brings no linker,
# so on a bare Debian not even xtask could be built; here the missing package is installed first, once,
# however many builds call at the same time.
if ! command -v cc >/dev/null 2>&1; then
    exec 9>/tmp/tapedeck-linker.lock
    flock 9
    if ! command -v cc >/dev/null 2>&1; then
        if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then
            echo "no C linker: install gcc and the C library's headers (Debian: apt-get install gcc libc6-dev)" >&2
            exit 1
        fi
        echo "tapedeck: no C linker here; installing gcc and libc6-dev" >&2
        { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends gcc libc6-dev; } >&2 || exit 1
    fi
    exec 9>&-
fi
exec cc "$@"
