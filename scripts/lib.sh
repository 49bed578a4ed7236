# shellcheck shell=bash
# Helpers shared by the scripts: messages, installation of missing tools, a private PostgreSQL,
# fuzzing. Sourced, never run. Works as root and as a normal user, from any directory.

set -euo pipefail
# ip, runuser and others are in /usr/sbin, which a user's PATH may lack.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
begun=$SECONDS

say() { printf '[%4ds] %s\n' $((SECONDS - begun)) "$*"; }

fail() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

# --- Packages -------------------------------------------------------------------------------------

# as_root COMMAND...: runs it as root.
as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        fail "this command needs root: $* (log in as root, or install sudo)"
    fi
}

# update_lists: fetches the package lists, once.
update_lists() {
    [ -z "${lists_are_new:-}" ] || return 0
    say "fetching the package lists"
    as_root apt-get -qq update || fail "cannot fetch the package lists: is this machine online?"
    lists_are_new=1
}

# install PACKAGE...: installs Debian packages.
install() {
    command -v apt-get >/dev/null || fail "apt-get is missing; please install: $*"
    update_lists
    say "installing $*"
    as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get -qq -y --no-install-recommends install "$@" >/dev/null || fail "cannot install: $*"
}

# --- Rust -----------------------------------------------------------------------------------------

# Minimum supported version of Rust.
rust_needed() { sed -n 's/^rust-version *= *"\(.*\)"/\1/p' "$root/Cargo.toml"; }

# is_at_least VERSION NEEDED
is_at_least() { [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]; }

# use_rust_of DIRECTORY: uses its cargo and rustc if they are new enough.
use_rust_of() {
    [ -x "$1/cargo" ] && [ -x "$1/rustc" ] || return 1
    local version
    version=$("$1/rustc" --version 2>/dev/null | cut -d ' ' -f 2)
    [ -n "$version" ] && is_at_least "$version" "$(rust_needed)" || return 1
    PATH=$1:$PATH
    # Otherwise this cargo might run another rustc from PATH.
    export RUSTC=$1/rustc
}

find_rust() {
    local found
    found=$(command -v cargo || true)
    use_rust_of "${found%/*}" || use_rust_of "${CARGO_HOME:-$HOME/.cargo}/bin" || use_rust_of /usr/bin
}

# candidate PACKAGE: prints the version that apt would install.
candidate() { apt-cache policy "$1" 2>/dev/null | sed -n 's/^ *Candidate: *\([0-9.]*\).*/\1/p'; }

ensure_rust() {
    find_rust && return
    local pair
    if command -v apt-get >/dev/null; then
        update_lists
        # Debian's rustc is often too old; rustc-web, which builds its browsers, is newer.
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

# ensure_rust_tools: installs rustfmt and clippy for the Rust in use.
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

# ensure_tools: installs what the build and PostgreSQL need.
ensure_tools() {
    local missing=()
    find_postgres || missing+=(postgresql)
    command -v gcc >/dev/null || missing+=(gcc libc6-dev)
    [ ${#missing[@]} = 0 ] || install "${missing[@]}"
    find_postgres || fail "PostgreSQL is missing: please install version 13 or newer"
    ensure_rust
    say "using $("$RUSTC" --version | cut -d ' ' -f 1-2), $("$pg_bin/postgres" --version)"
}

# --- Network isolation ----------------------------------------------------------------------------

# isolated COMMAND...: runs it in a network namespace with only loopback, if the system permits one.
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
        # The second namespace restores the user's own id: PostgreSQL refuses to run as root.
        unshare -rn sh -c "$up" sh unshare -U --map-user="$(id -u)" --map-group="$(id -g)" "$@"
        return
    fi
    echo "no network namespace is permitted here: relying on filter.only of every test"
    "$@"
}

# --- PostgreSQL: a private cluster on a Unix socket -----------------------------------------------

# find_postgres: sets pg_bin to the version of the existing cluster, or else to the newest installed
# one.
find_postgres() {
    local version directory
    if version=$(cat "$root/.postgres/data/PG_VERSION" 2>/dev/null) && [ -x "/usr/lib/postgresql/$version/bin/postgres" ]; then
        pg_bin=/usr/lib/postgresql/$version/bin
        return
    fi
    directory=$(printf '%s\n' /usr/lib/postgresql/*/bin | sort -V | tail -n 1)
    if [ ! -x "$directory/initdb" ]; then
        directory=$(command -v initdb) || return 1
        directory=${directory%/*}
    fi
    pg_bin=$directory
}

# as_postgres COMMAND...: runs it as a user other than root, which PostgreSQL requires.
as_postgres() {
    if [ "$(id -u)" = 0 ]; then
        (cd / && runuser -u postgres -- "$@")
    else
        (cd / && "$@")
    fi
}

# place_postgres: creates the directory `.postgres` and sets pg_dir and pg_socket.
place_postgres() {
    pg_dir=$root/.postgres
    if [ "$(id -u)" = 0 ]; then
        id postgres >/dev/null 2>&1 || fail "the user postgres, which runs PostgreSQL, does not exist"
        if [ ! -e "$pg_dir" ] && ! as_postgres test -x "$root"; then
            # Only root may enter the project's directory: put the cluster elsewhere, behind a link.
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
    # A socket's path has at most 107 bytes, and PostgreSQL's list of directories has no quoting.
    if [ $((${#pg_dir} + ${#pg_socket_file})) -gt 107 ] || [[ $pg_dir == *[!A-Za-z0-9/._-]* ]]; then
        pg_socket=/tmp/bitdash-$(id -u)-$(printf '%s' "$root" | cksum | cut -d ' ' -f 1)
        as_postgres mkdir -p -m 700 "$pg_socket"
        [ "$(stat -c %u "$pg_socket")" = "$(as_postgres id -u)" ] || fail "$pg_socket belongs to another user"
    fi
}
pg_socket_file=/.s.PGSQL.5432

# start_postgres: creates the cluster if it is missing and starts it if it is stopped.
start_postgres() {
    place_postgres
    if ! as_postgres test -s "$pg_dir/data/PG_VERSION"; then
        say "creating a private PostgreSQL cluster in ${pg_dir/#$root\//}"
        as_postgres rm -rf "$pg_dir/data" "$pg_dir/data.new" # left by an interrupted attempt
        as_postgres "$pg_bin/initdb" -D "$pg_dir/data.new" -U postgres -A trust -E UTF8 --locale=C >/dev/null
        as_postgres mv "$pg_dir/data.new" "$pg_dir/data"
    fi
    if ! as_postgres "$pg_bin/pg_ctl" -D "$pg_dir/data" status >/dev/null; then
        as_postgres "$pg_bin/pg_ctl" -D "$pg_dir/data" -w -s -l "$pg_dir/log" \
            -o "-c listen_addresses='' -c unix_socket_directories='$pg_socket'" start >/dev/null ||
            fail "PostgreSQL does not start: see $pg_dir/log"
        say "PostgreSQL started"
    else
        say "PostgreSQL is already running"
    fi
    run_psql postgres -c "DO \$\$ BEGIN CREATE ROLE bitdash LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END \$\$"
}

# run_psql DATABASE ARGUMENT...: runs psql as the superuser of the private cluster.
run_psql() {
    local database=$1
    shift
    PGOPTIONS="-c client_min_messages=warning" "$pg_bin/psql" -X -q -v ON_ERROR_STOP=1 "host=$pg_socket user=postgres dbname=$database" "$@"
}

# make_database NAME: creates it unless it exists.
make_database() {
    [ "$(run_psql postgres -At -c "SELECT 1 FROM pg_database WHERE datname = '$1'")" = 1 ] ||
        run_psql postgres -c "CREATE DATABASE $1 OWNER bitdash TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C'"
}

# database_url NAME: prints the value of database.url.
database_url() {
    local host
    host=$(printf '%s' "$pg_socket" | sed 's/%/%25/g; s,/,%2F,g; s/ /%20/g; s/?/%3F/g; s/&/%26/g; s/#/%23/g')
    printf 'postgresql://bitdash@/%s?host=%s' "$1" "$host"
}

# stop_command: prints the command that stops the private PostgreSQL.
stop_command() {
    local start=
    [ "$(id -u)" != 0 ] || start="runuser -u postgres -- "
    printf '%s%s/pg_ctl -D %q stop' "$start" "$pg_bin" "$pg_dir/data"
}

# --- Fuzzing: the targets of fuzz/, built with the stable compiler --------------------------------

# shellcheck disable=SC2034 # variables of the scripts that source this
fuzz_targets="decoder version addr probe crawler species"
# These need the program's crate, whose first build takes minutes.
# shellcheck disable=SC2034
fuzz_file_targets="nodes_file config libloc snapshot"

ensure_fuzz_tools() { command -v g++ >/dev/null || install g++; }

# build_fuzz TARGET...: builds them with coverage counters, as `cargo fuzz` does, but on a stable
# compiler; sets fuzz_programs. Comparisons are not traced: that costs more than half of the time,
# and the dictionaries make up for it.
build_fuzz() {
    local host name options=() directory=${CARGO_TARGET_DIR:-$root/target}/fuzz
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
        --target "$host" --target-dir "$directory" "${options[@]}" || return 1
    fuzz_programs=$directory/$host/release
}

# prepare_fuzz TARGET SCRATCH OPTION...: sets fuzz_command, which starts from the committed corpus.
# New inputs go to SCRATCH, the input of a failure to the directory `artifacts` beside the programs.
prepare_fuzz() {
    local target=$1 found=$2/corpus-$1 words=wire max_len=512
    local artifacts=${fuzz_programs%/*/*}/artifacts
    shift 2
    case $target in
        nodes_file | config | snapshot) words=files ;;
        decoder) max_len=2048 ;;
        libloc) max_len=4096 ;;
        crawler) max_len=256 ;;
    esac
    mkdir -p "$found" "$artifacts"
    # shellcheck disable=SC2034
    fuzz_command=("$fuzz_programs/$target" -dict="$root/fuzz/dictionaries/$words.dict" -max_len="$max_len" -timeout=60
        -artifact_prefix="$artifacts/$target-" -print_final_stats=1 "$@" "$found" "$root/fuzz/corpus/$target")
}
