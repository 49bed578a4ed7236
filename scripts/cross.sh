# shellcheck shell=bash
# shellcheck disable=SC2034 # variables of the scripts that source this
# Cross-compilation against an old glibc, Debian packages, emulation. Sourced after lib.sh, never
# run.

# Rust's target triples.
board=aarch64-unknown-linux-gnu
desk=x86_64-unknown-linux-gnu

# The glibc to link for, and the maximum that the binaries may require: Debian 11 has 2.31.
glibc_floor=2.28
glibc_oldest=2.31

# Pinned tools, installed in the target directory, where `cargo clean` removes them.
zig_version=0.17.1
zigbuild_version=0.24.1
cargo_deb_version=3.8.0

build_root=${CARGO_TARGET_DIR:-$root/target}
tools=$build_root/tools
# A separate target directory: the compiler may differ from that of the tests.
cross_target=$build_root/cross

# rust_name ARCHITECTURE: prints Rust's target triple of a Debian architecture.
rust_name() {
    case $1 in
        arm64) echo "$board" ;;
        amd64) echo "$desk" ;;
    esac
}

has_std() { [ -d "$("$RUSTC" --print sysroot)/lib/rustlib/$1/lib" ]; }

# use_debians_rust: installs rustc-web, which builds Debian's browsers, and its standard library for
# the board.
use_debians_rust() {
    command -v apt-get >/dev/null || fail "please install Rust's standard library for $board (rustup target add $board)"
    if ! dpkg --print-foreign-architectures | grep -qx arm64; then
        say "adding the architecture arm64 to dpkg (to undo: dpkg --remove-architecture arm64)"
        as_root dpkg --add-architecture arm64
        lists_are_new=
    fi
    if [ ! -x /usr/bin/cargo ] || [ ! -x /usr/bin/rustc ] || [ ! -d "/usr/lib/rustlib/$board" ]; then
        install rustc-web cargo-web libstd-rust-web-dev libstd-rust-web-dev:arm64
    fi
    PATH=/usr/bin:$PATH
    # Otherwise Debian's cargo might run rustup's compiler from PATH.
    export RUSTC=/usr/bin/rustc CARGO=/usr/bin/cargo
    is_at_least "$("$RUSTC" --version | cut -d ' ' -f 2)" "$(rust_needed)" ||
        fail "Debian's Rust is older than $(rust_needed): please install Rust with rustup"
    has_std "$board" || fail "Debian's Rust has no standard library for $board"
}

# ensure_cross_rust: sets RUSTC and CARGO to a pair with the board's standard library.
ensure_cross_rust() {
    own_path=$PATH
    if find_rust; then
        export CARGO=${RUSTC%/*}/cargo
        has_std "$board" && return
        if [ -x "${RUSTC%/*}/rustup" ]; then
            say "fetching Rust's standard library for $board"
            "${RUSTC%/*}/rustup" -q target add "$board" >/dev/null 2>&1 && has_std "$board" && return
            say "rustup cannot fetch it: using Debian's Rust"
        fi
    fi
    use_debians_rust
}

# ensure_zig: installs zig, which links against any version of glibc.
ensure_zig() {
    local stamp=$tools/zig/.installed wanted="ziglang==$zig_version cargo-zigbuild==$zigbuild_version"
    if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
        rm -rf "$tools/zig"
        mkdir -p "$tools"
        if ! python3 -m venv "$tools/zig" >/dev/null 2>&1; then
            rm -rf "$tools/zig"
            install python3 python3-venv
            /usr/bin/python3 -m venv "$tools/zig"
        fi
        say "installing $wanted"
        # shellcheck disable=SC2086 # two packages
        "$tools/zig/bin/pip" -q install --disable-pip-version-check --no-compile $wanted || fail "cannot install $wanted"
        echo "$wanted" >"$stamp"
    fi
    export CARGO_ZIGBUILD_ZIG_PATH=$tools/zig/bin/python-zig
}

ensure_cross_tools() {
    command -v readelf >/dev/null || install binutils
    # Build scripts are linked for this machine.
    command -v gcc >/dev/null || install gcc libc6-dev
    ensure_cross_rust
    ensure_zig
    say "using $("$RUSTC" --version | cut -d ' ' -f 1-2), zig $zig_version"
}

# source_time: prints the time of the last commit, which dates all files so that builds are
# reproducible.
source_time() {
    if [ -n "${SOURCE_DATE_EPOCH:-}" ]; then
        echo "$SOURCE_DATE_EPOCH"
    else
        git -C "$root" log -1 --format=%ct 2>/dev/null || date +%s
    fi
}

# build_for TARGET: builds target/TARGET/release/bitdash and bitdash-simnet.
build_for() {
    say "building for $1, glibc $glibc_floor (a few minutes the first time)"
    (
        cd "$root"
        PATH=$tools/zig/bin:$PATH
        # No message of the program contains a path of this machine.
        local flags=("--remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=/cargo" "--remap-path-prefix=$root=/bitdash")
        CARGO_ENCODED_RUSTFLAGS=$(printf '%s\037%s' "${flags[@]}")
        export CARGO_ENCODED_RUSTFLAGS
        CARGO_TARGET_DIR=$cross_target cargo-zigbuild zigbuild --workspace --release --locked --bins --target "$1.$glibc_floor"
    ) || fail "the build failed"
    mkdir -p "$build_root/$1/release"
    local program
    for program in bitdash bitdash-simnet; do
        cmp -s "$cross_target/$1/release/$program" "$build_root/$1/release/$program" ||
            cp -p "$cross_target/$1/release/$program" "$build_root/$1/release/"
    done
}

# needed_libraries FILE, newest_glibc FILE: print what it requires at run time.
needed_libraries() { LC_ALL=C readelf -d "$1" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p' | tr '\n' ' '; }
newest_glibc() { LC_ALL=C readelf -VW "$1" | grep -o 'GLIBC_[0-9.]*' | sort -Vu | tail -n 1 | cut -d _ -f 2; }

# check_binary FILE MAX_BYTES: prints its size and requirements and checks them against the limits.
check_binary() {
    local bytes glibc
    bytes=$(stat -c %s "$1")
    glibc=$(newest_glibc "$1")
    say "${1#"$root"/}: $bytes bytes; needs $(needed_libraries "$1")and glibc $glibc"
    is_at_least "$glibc_oldest" "$glibc" || fail "it needs glibc $glibc; the maximum is $glibc_oldest"
    [ "$2" -ge "$bytes" ] || fail "it has $bytes bytes; the maximum is $2"
}

# --- Debian packages ------------------------------------------------------------------------------

packages=$build_root/packages
# Where [package.metadata.deb] of Cargo.toml expects generated files.
stage=$root/target/package

ensure_cargo_deb() {
    [ "$("$tools/bin/cargo-deb" --version 2>/dev/null)" = "cargo-deb $cargo_deb_version" ] ||
        {
            say "installing cargo-deb $cargo_deb_version"
            CARGO_TARGET_DIR=$cross_target/tools "$CARGO" install -q --debug --locked --root "$tools" \
                --no-default-features cargo-deb@$cargo_deb_version
        } || fail "cannot install cargo-deb"
    # cargo-deb without its features runs this program.
    command -v xz >/dev/null || install xz-utils
}

# package_version: prints the version of the workspace, with Debian's revision.
package_version() { sed -n 's/^version *= *"\(.*\)"/\1-1/p' "$root/Cargo.toml" | head -n 1; }
package_file() { echo "bitdash_$(package_version)_$1.deb"; }

# stage_package: generates the files that the package contains beside the program.
stage_package() {
    say "generating man pages, completions and the package's configuration"
    rm -rf "$stage"
    mkdir -p "$stage"
    # With the Rust of the tests, to share their build.
    (unset RUSTC CARGO && PATH=$own_path && find_rust && cargo run -q --locked --example manual -- "$stage") || fail "cannot generate the man pages"
    # Only log.file differs: logrotate rotates it.
    sed '/^\[log\]$/,/^\[/ s,^file = ""$,file = "/var/log/bitdash/bitdash.log",' bitdash.toml >"$stage/bitdash.toml"
    [ "$(diff bitdash.toml "$stage/bitdash.toml" | grep -c '^>')" = 1 ] || fail "bitdash.toml has no log.file to set"
    debian_changelog >"$stage/changelog"
    licences | gzip -9n >"$stage/licences.txt.gz"
}

# licences: prints the licence texts of every crate in the program; MIT where there is a choice.
licences() {
    local name version terms file directory texts
    echo "bitdash contains code of Rust's standard library (MIT or Apache-2.0, https://github.com/rust-lang/rust) and of"
    echo "the following crates, under these terms."
    # Without the crates of this workspace, which are listed with their path.
    "$CARGO" tree --locked --edges normal --prefix none --target "$board" --no-dedupe --format '{p} | {l}' | sed '/ (\//d; s/ (.*) | / | /' | sort -u |
        while read -r name version _ terms; do
            directory=$(find "${CARGO_HOME:-$HOME/.cargo}/registry/src" -maxdepth 2 -name "$name-${version#v}" | head -n 1)
            printf '\n=== %s %s: %s\n\n' "$name" "${version#v}" "$terms"
            texts=
            [[ $terms = *" AND "* ]] || texts=$(find "$directory" -maxdepth 1 -iname '*license*mit*' -type f)
            [ -n "$texts" ] || texts=$(find "$directory" -maxdepth 1 -type f \( -iname 'licen[cs]e*' -o -iname 'copying*' -o -iname 'copyright*' \) | sort)
            [ -n "$texts" ] || echo "(The crate contains no licence text.)"
            for file in $texts; do cat "$file"; done
        done
}

# debian_changelog: prints CHANGELOG.md in Debian's format.
debian_changelog() {
    local maintainer
    maintainer=$(sed -n 's/^maintainer = "\(.*\)"/\1/p' Cargo.toml)
    awk -v maintainer="$maintainer" -v now="$(LC_ALL=C date -uR -d "@$(source_time)")" '
        function close_entry() { if (open) printf "\n -- %s  %s\n\n", maintainer, date }
        /^## / {
            close_entry(); open = 1
            date = now
            if ($3 ~ /^\([0-9]/) {
                day = substr($3, 2, 10)
                command = "LC_ALL=C date -uR -d " day
                command | getline date; close(command)
            }
            printf "bitdash (%s-1) unstable; urgency=medium\n\n", $2
        }
        open && /^- / { sub(/^- /, "  * "); print; next }
        open && /^  / { print "  " $0 }
        END { close_entry() }' CHANGELOG.md
}

# build_package ARCHITECTURE VERSION DIRECTORY: packages the output of build_for and stage_package.
build_package() {
    local target
    target=$(rust_name "$1")
    mkdir -p "$3"
    SOURCE_DATE_EPOCH=$(source_time) CARGO_TARGET_DIR=$build_root "$tools/bin/cargo-deb" deb -q --no-build --no-strip --locked --offline \
        --target "$target" --deb-version "$2" -o "$3/bitdash_$2_$1.deb" >/dev/null || fail "cannot build the package for $1"
}

# --- Emulation ------------------------------------------------------------------------------------

# find_emulator: sets emulator, the command that runs a program of the board; fails if a part is
# missing.
find_emulator() {
    emulator=("$(command -v qemu-aarch64-static)") || return 1
    # The board's C library. With -L alone, libc.so.6 may be found through this machine's cache in
    # another package; with a loader and a libc of two packages, threads spin forever.
    if [ ! -e /lib/ld-linux-aarch64.so.1 ]; then
        [ -e /usr/aarch64-linux-gnu/lib/ld-linux-aarch64.so.1 ] || return 1
        emulator+=(-L /usr/aarch64-linux-gnu -E LD_LIBRARY_PATH=/usr/aarch64-linux-gnu/lib)
    fi
}

ensure_emulator() {
    [ "$(uname -m)" != aarch64 ] || fail "this machine is aarch64: scripts/test runs everything natively"
    find_emulator || install qemu-user-static libc6-arm64-cross
    find_emulator || fail "qemu-aarch64-static is missing: please install qemu-user-static"
}
