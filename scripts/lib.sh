# shellcheck shell=bash
# Shared by the scripts beside it: messages, what is installed, the state of /dev/fuse. Sourced, not run.

# What `ask` answers without asking: set by --yes.
ASSUME_YES=${ASSUME_YES:-}

say() { printf '%s\n' "$*"; }
step() { printf '\n== %s\n' "$*"; }
fail() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

# elapsed SECONDS: as minutes and seconds.
elapsed() {
    if (($1 < 60)); then printf '%ss' "$1"; else printf '%sm %02ds' $(($1 / 60)) $(($1 % 60)); fi
}

# ask QUESTION: true for y. Without a terminal, and without --yes, it is a no.
ask() {
    local answer=
    if [[ -n $ASSUME_YES ]]; then return 0; fi
    if [[ ! -t 0 ]]; then return 1; fi
    read -r -p "$1 [y/N] " answer || true
    [[ $answer == [yY] || $answer == [yY][eE][sS] ]]
}

# is_there CHECK: CHECK is a program, or a path (with * in it) if it starts with a slash.
is_there() {
    if [[ $1 == /* ]]; then compgen -G "$1" >/dev/null; else command -v "$1" >/dev/null; fi
}

# need_packages CHECK=PACKAGE...: installs the Debian packages whose CHECK finds nothing.
need_packages() {
    local pair missing=() lacking=() sudo=()
    for pair in "$@"; do
        is_there "${pair%%=*}" && continue
        lacking+=("${pair%%=*}")
        # A package may stand for several checks.
        [[ " ${missing[*]} " == *" ${pair#*=} "* ]] || missing+=("${pair#*=}")
    done
    ((${#missing[@]})) || return 0
    if ! command -v apt-get >/dev/null; then
        fail "missing: ${lacking[*]}. This is no Debian or Ubuntu, so install them with your own package manager" \
            "(Debian calls the packages ${missing[*]}), then run this again."
    fi
    local command="apt-get install -y --no-install-recommends ${missing[*]}"
    if ((EUID == 0)); then
        say "Missing: ${lacking[*]}. Running as root, so this installs them: $command"
    else
        command -v sudo >/dev/null || fail "missing: ${lacking[*]}. As root, run: $command"
        say "Missing: ${lacking[*]}."
        ask "Run 'sudo $command'?" || fail "run 'sudo $command' yourself, or this script with --yes."
        sudo=(sudo)
    fi
    "${sudo[@]}" apt-get update -qq || say "apt-get update failed; trying with the package lists that are there."
    # shellcheck disable=SC2086
    "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive $command -qq </dev/null >/dev/null ||
        fail "apt-get failed, see above. Once '$command' works, run this again."
    for pair in "$@"; do
        is_there "${pair%%=*}" || fail "${pair%%=*} is still missing after installing ${pair#*=}."
    done
}

# What building objfs needs besides Rust: C code is compiled in (SQLite, ring), and lld links.
# shellcheck disable=SC2034 # the scripts that source this use it
BUILD_PACKAGES=(
    cc=gcc
    /usr/include/stdio.h=libc6-dev
    ld.lld=lld
    /etc/ssl/certs/ca-certificates.crt=ca-certificates
)

# need_rust: cargo is on PATH afterwards and new enough.
need_rust() {
    local wanted have
    if ! command -v cargo >/dev/null && [[ -x ${CARGO_HOME:-$HOME/.cargo}/bin/cargo ]]; then
        PATH=${CARGO_HOME:-$HOME/.cargo}/bin:$PATH
    fi
    wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
    if ! command -v cargo >/dev/null; then
        fail "cargo is missing. objfs is built with Rust $wanted or newer: install it as https://rustup.rs says" \
            "(for you alone, without root), open a new terminal, and run this again."
    fi
    have=$(rustc --version | cut -d' ' -f2)
    if [[ $(printf '%s\n%s\n' "$wanted" "${have%%-*}" | sort -V | head -n 1) != "$wanted" ]]; then
        fail "Rust $have is too old, objfs needs $wanted. Run 'rustup update stable', then this again."
    fi
}

# need_fuse: /dev/fuse exists, and we may open it.
need_fuse() {
    if [[ ! -e /dev/fuse ]]; then
        fail "there is no /dev/fuse, so nothing can be mounted. Load the kernel's module ('sudo modprobe fuse');" \
            "in a container, start it with '--device /dev/fuse --cap-add SYS_ADMIN'."
    fi
    if [[ ! -r /dev/fuse || ! -w /dev/fuse ]]; then
        fail "/dev/fuse is closed to $(id -un). Run 'sudo chmod 0666 /dev/fuse' (its usual mode), then this again."
    fi
}

# open_fuse: lets ordinary users mount, as udev does on a desktop. For root only.
open_fuse() {
    if [[ $(stat -c %a /dev/fuse) == 600 ]]; then
        say "/dev/fuse has mode 0600: setting its usual mode 0666, so that ordinary users can mount."
        chmod 0666 /dev/fuse || fail "/dev/fuse stays closed to ordinary users, and the tests need one."
    fi
}

# fuse_mounts: where FUSE file systems are mounted, be they hung or dead, one line each. The kernel writes a space as
# \040.
fuse_mounts() {
    local mountpoint kind
    while read -r _ mountpoint kind _; do
        if [[ $kind == fuse* ]]; then printf '%b\n' "$mountpoint"; fi
    done </proc/self/mounts
}

# is_mounted FOLDER: a FUSE file system is mounted at it.
# (No grep -q: it would break the pipe, which pipefail takes for a no.)
is_mounted() { fuse_mounts | grep -xF -e "$1" >/dev/null; }

# release_mounts FOLDER: unmounts all FUSE file systems below FOLDER, hung ones too.
release_mounts() {
    local mountpoint
    while IFS= read -r mountpoint; do
        [[ $mountpoint == "$1"/* ]] || continue
        # -f aborts what waits in the kernel.
        if ((EUID == 0)); then
            umount -f "$mountpoint" 2>/dev/null || umount -l "$mountpoint" 2>/dev/null || true
        else
            fusermount3 -uz "$mountpoint" 2>/dev/null || true
        fi
    done < <(fuse_mounts | tac)
}

# The store without conditional writes that tests and benchmarks run on.
GARAGE_VERSION=2.5.0

# need_garage CACHE: garage is on PATH afterwards, from CACHE/bin if it was not there.
need_garage() {
    local start=$SECONDS
    PATH=$PATH:$1/bin
    if command -v garage >/dev/null; then return 0; fi
    # It brings libsodium as source.
    need_packages make=make pkg-config=pkg-config
    say "Building garage $GARAGE_VERSION into $1 (about half an hour, once)"
    CARGO_TARGET_DIR=$1/build cargo install garage --version "$GARAGE_VERSION" --locked --root "$1" </dev/null ||
        fail "cannot install garage; the lines above say why."
    rm -rf "$1/build"
    say "Built garage in $(elapsed $((SECONDS - start)))"
}
