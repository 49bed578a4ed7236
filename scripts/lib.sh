# shellcheck shell=bash
# What the scripts share: saying things, installing what is missing, a private PostgreSQL.
# Sourced, never run. Works as root and as a normal user, from any folder.

set -euo pipefail
# So that a user without /usr/sbin in PATH finds ip, runuser and the like.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
begun=$SECONDS

say() { printf '[%4ds] %s\n' $((SECONDS - begun)) "$*"; }

fail() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

# --- Packages -------------------------------------------------------------------------------------------------

# as_root COMMAND...: runs it with root's rights.
as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        fail "root's rights are needed for: $* (log in as root, or install sudo)"
    fi
}

# update_lists: fetches the lists of packages, once.
update_lists() {
    [ -z "${lists_are_new:-}" ] || return 0
    say "fetching the lists of packages"
    as_root apt-get -qq update || fail "the lists of packages cannot be fetched: is this machine online?"
    lists_are_new=1
}

# install PACKAGE...: installs Debian packages.
install() {
    command -v apt-get >/dev/null || fail "please install, by this system's own means: $*"
    update_lists
    say "installing $*"
    as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get -qq -y --no-install-recommends install "$@" >/dev/null || fail "cannot install: $*"
}

# --- Rust -----------------------------------------------------------------------------------------------------

# The oldest Rust that builds this.
rust_needed() { sed -n 's/^rust-version *= *"\(.*\)"/\1/p' "$root/Cargo.toml"; }

# is_at_least VERSION NEEDED
is_at_least() { [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]; }

# use_rust_of FOLDER: takes cargo and rustc from there if they are new enough.
use_rust_of() {
    [ -x "$1/cargo" ] && [ -x "$1/rustc" ] || return 1
    local version
    version=$("$1/rustc" --version 2>/dev/null | cut -d ' ' -f 2)
    [ -n "$version" ] && is_at_least "$version" "$(rust_needed)" || return 1
    PATH=$1:$PATH
    # Another rustc in PATH must not be taken by this cargo.
    export RUSTC=$1/rustc
}

find_rust() {
    local found
    found=$(command -v cargo || true)
    use_rust_of "${found%/*}" || use_rust_of "${CARGO_HOME:-$HOME/.cargo}/bin" || use_rust_of /usr/bin
}

# candidate PACKAGE: the version that apt would install.
candidate() { apt-cache policy "$1" 2>/dev/null | sed -n 's/^ *Candidate: *\([0-9.]*\).*/\1/p'; }

ensure_rust() {
    find_rust && return
    local pair
    if command -v apt-get >/dev/null; then
        update_lists
        # Debian's own Rust is often too old; the one that it builds its browsers with is newer.
        for pair in "rustc cargo" "rustc-web cargo-web"; do
            # shellcheck disable=SC2086 # two packages
            if is_at_least "$(candidate ${pair% *})" "$(rust_needed)"; then install $pair && find_rust && return; fi
        done
    fi
    command -v curl >/dev/null || install ca-certificates curl
    say "installing Rust with rustup"
    curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y -q --profile minimal --no-modify-path ||
        fail "cannot install Rust: please install $(rust_needed) or newer"
    find_rust || fail "Rust $(rust_needed) or newer is needed"
}

# ensure_rust_tools: the formatter and the linter that belong to the Rust in use.
ensure_rust_tools() {
    if ! cargo fmt --version >/dev/null 2>&1 || ! cargo clippy --version >/dev/null 2>&1; then
        if dpkg -S "$(readlink -f "$RUSTC")" 2>/dev/null | grep -q web; then
            install rustfmt-web rust-web-clippy
        elif dpkg -S "$(readlink -f "$RUSTC")" >/dev/null 2>&1; then
            install rustfmt rust-clippy
        else
            rustup -q component add rustfmt clippy || fail "please install rustfmt and clippy"
        fi
    fi
}

# ensure_tools: what building and PostgreSQL need.
ensure_tools() {
    local missing=()
    find_postgres || missing+=(postgresql)
    command -v gcc >/dev/null || missing+=(gcc libc6-dev)
    [ ${#missing[@]} = 0 ] || install "${missing[@]}"
    find_postgres || fail "PostgreSQL's programs are not there: please install PostgreSQL 13 or newer"
    ensure_rust
    say "using $("$RUSTC" --version | cut -d ' ' -f 1-2), $("$pg_bin/postgres" --version)"
}

# --- No way out ------------------------------------------------------------------------------------------------

# isolated COMMAND...: runs it where no packet can leave, if this system allows that.
isolated() {
    local up='ip link set lo up && exec "$@"'
    if [ "$(id -u)" = 0 ]; then
        if unshare -n true 2>/dev/null; then
            echo "in a network namespace of its own: nothing but loopback"
            unshare -n sh -c "$up" sh "$@"
            return
        fi
    elif unshare -rn unshare -U --map-user="$(id -u)" --map-group="$(id -g)" true 2>/dev/null; then
        echo "in a network namespace of its own: nothing but loopback"
        # The second namespace gives the user its own number back: PostgreSQL refuses root.
        unshare -rn sh -c "$up" sh unshare -U --map-user="$(id -u)" --map-group="$(id -g)" "$@"
        return
    fi
    echo "this system allows no network namespace: relying on filter.only in every test"
    "$@"
}

# --- PostgreSQL: a private cluster, on a unix socket only ---------------------------------------------------------

# find_postgres: sets pg_bin; the newest one, or the one that an existing cluster was made with.
find_postgres() {
    local version folder
    if version=$(cat "$root/.postgres/data/PG_VERSION" 2>/dev/null) && [ -x "/usr/lib/postgresql/$version/bin/postgres" ]; then
        pg_bin=/usr/lib/postgresql/$version/bin
        return
    fi
    folder=$(printf '%s\n' /usr/lib/postgresql/*/bin | sort -V | tail -n 1)
    if [ ! -x "$folder/initdb" ]; then
        folder=$(command -v initdb) || return 1
        folder=${folder%/*}
    fi
    pg_bin=$folder
}

# as_postgres COMMAND...: PostgreSQL does not run as root.
as_postgres() {
    if [ "$(id -u)" = 0 ]; then
        (cd / && runuser -u postgres -- "$@")
    else
        (cd / && "$@")
    fi
}

# place_postgres: sets pg_dir and pg_socket; makes the folder `.postgres`.
place_postgres() {
    pg_dir=$root/.postgres
    if [ "$(id -u)" = 0 ]; then
        id postgres >/dev/null 2>&1 || fail "there is no user postgres to run PostgreSQL as"
        if [ ! -e "$pg_dir" ] && ! as_postgres test -x "$root"; then
            # The project lies in a folder that only root may enter: the cluster lies elsewhere, linked.
            local elsewhere
            elsewhere=/var/lib/postgresql/bitdash-$(printf '%s' "$root" | cksum | cut -d ' ' -f 1)
            mkdir -p "$elsewhere"
            ln -s "$elsewhere" "$pg_dir"
        fi
    fi
    mkdir -p "$pg_dir"
    pg_dir=$(cd "$pg_dir" && pwd -P)
    [ "$(id -u)" != 0 ] || chown postgres: "$pg_dir"
    chmod 700 "$pg_dir"
    pg_socket=$pg_dir
    # A socket's path holds at most 107 bytes, and PostgreSQL's list of folders knows no odd characters.
    if [ $((${#pg_dir} + ${#pg_socket_file})) -gt 107 ] || [[ $pg_dir == *[!A-Za-z0-9/._-]* ]]; then
        pg_socket=/tmp/bitdash-$(id -u)-$(printf '%s' "$root" | cksum | cut -d ' ' -f 1)
        as_postgres mkdir -p -m 700 "$pg_socket"
        [ "$(stat -c %u "$pg_socket")" = "$(as_postgres id -u)" ] || fail "$pg_socket belongs to somebody else"
    fi
}
pg_socket_file=/.s.PGSQL.5432

# start_postgres: makes the cluster if there is none, and starts it if it does not run.
start_postgres() {
    place_postgres
    if ! as_postgres test -s "$pg_dir/data/PG_VERSION"; then
        say "making a private PostgreSQL in ${pg_dir/#$root\//}"
        as_postgres rm -rf "$pg_dir/data" "$pg_dir/data.new" # left by an attempt that was cut short
        as_postgres "$pg_bin/initdb" -D "$pg_dir/data.new" -U postgres -A trust -E UTF8 --locale=C >/dev/null
        as_postgres mv "$pg_dir/data.new" "$pg_dir/data"
    fi
    if ! as_postgres "$pg_bin/pg_ctl" -D "$pg_dir/data" status >/dev/null; then
        as_postgres "$pg_bin/pg_ctl" -D "$pg_dir/data" -w -s -l "$pg_dir/log" \
            -o "-c listen_addresses='' -c unix_socket_directories='$pg_socket'" start >/dev/null ||
            fail "PostgreSQL does not start: see $pg_dir/log"
        say "PostgreSQL runs"
    else
        say "PostgreSQL runs already"
    fi
    run_psql postgres -c "DO \$\$ BEGIN CREATE ROLE bitdash LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END \$\$"
}

# run_psql DATABASE ARGUMENT...: as the superuser of the private cluster.
run_psql() {
    local database=$1
    shift
    PGOPTIONS="-c client_min_messages=warning" "$pg_bin/psql" -X -q -v ON_ERROR_STOP=1 "host=$pg_socket user=postgres dbname=$database" "$@"
}

# make_database NAME: unless it is there.
make_database() {
    [ "$(run_psql postgres -At -c "SELECT 1 FROM pg_database WHERE datname = '$1'")" = 1 ] ||
        run_psql postgres -c "CREATE DATABASE $1 OWNER bitdash"
}

# database_url NAME: what goes into database.url.
database_url() {
    local folder
    folder=$(printf '%s' "$pg_socket" | sed 's/%/%25/g; s,/,%2F,g; s/ /%20/g; s/?/%3F/g; s/&/%26/g; s/#/%23/g')
    printf 'postgresql://bitdash@/%s?host=%s' "$1" "$folder"
}

# stop_command: how a person stops the private PostgreSQL.
stop_command() {
    local start=
    [ "$(id -u)" != 0 ] || start="runuser -u postgres -- "
    printf '%s%s/pg_ctl -D %q stop' "$start" "$pg_bin" "$pg_dir/data"
}

# --- Fuzzing: the targets of fuzz/, built with the stable compiler -------------------------------------------------

# shellcheck disable=SC2034 # for those who source this
fuzz_targets="decoder version addr probe crawler"
# These need the whole crate, whose first build takes minutes.
# shellcheck disable=SC2034
fuzz_file_targets="nodes_file config"

ensure_fuzz_tools() { command -v g++ >/dev/null || install g++; }

# build_fuzz TARGET...: sets fuzz_programs. What `cargo fuzz` does with a nightly compiler, without it:
# every branch counts how often it ran. What is compared with what is not traced: that takes more than half of the
# time, and the dictionaries name what matters.
build_fuzz() {
    local host name options=() folder=${CARGO_TARGET_DIR:-$root/target}/fuzz
    for name in "$@"; do
        options+=(--bin "$name")
        case " $fuzz_file_targets " in *" $name "*) options+=(--features files) ;; esac
    done
    host=$("$RUSTC" -vV | sed -n 's/^host: //p')
    local flags="--cfg fuzzing -Cpasses=sancov-module" option
    for option in level=3 inline-8bit-counters pc-table; do
        flags+=" -Cllvm-args=-sanitizer-coverage-$option"
    done
    RUSTFLAGS=$flags cargo build --release --locked --manifest-path "$root/fuzz/Cargo.toml" \
        --target "$host" --target-dir "$folder" "${options[@]}" || return 1
    fuzz_programs=$folder/$host/release
}

# prepare_fuzz TARGET SCRATCH OPTION...: sets fuzz_command, which begins with the committed corpus; what it finds goes
# to SCRATCH, and the input of a failure to the folder `artifacts` beside the programs.
prepare_fuzz() {
    local target=$1 found=$2/corpus-$1 words=wire longest=512
    local artifacts=${fuzz_programs%/*/*}/artifacts
    shift 2
    case $target in
        nodes_file | config) words=files ;;
        decoder) longest=2048 ;;
        crawler) longest=256 ;;
    esac
    mkdir -p "$found" "$artifacts"
    # shellcheck disable=SC2034
    fuzz_command=("$fuzz_programs/$target" -dict="$root/fuzz/dictionaries/$words.dict" -max_len="$longest" -timeout=60
        -artifact_prefix="$artifacts/$target-" -print_final_stats=1 "$@" "$found" "$root/fuzz/corpus/$target")
}
