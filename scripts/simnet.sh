# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154 # variables of the scripts that source this, and of lib.sh
# Crawls the simulated network step by step and compares the map with it. Sourced after lib.sh,
# never run. Nothing here leaves the machine.

# Variables that a script may change after sourcing this: the size of the network, more options of
# `serve`, the working directory, how the two programs are started (an emulator, another user, the
# configuration), the function that gets each new stats line, and two timeouts for slow machines.
nodes=2000
dead=6000
zoo=1
serve_options=()
scratch=$root/.simnet
simnet_command=(bitdash-simnet)
bitdash_command=(bitdash)
each_second=show_progress
candidate_connect_timeout=500ms
handshake_timeout=3s
network=
crawler=

clean_up() {
    local process
    for process in $crawler $network; do
        kill "$process" 2>/dev/null || continue
        wait "$process" 2>/dev/null || true
    done
}

# Stops the network and the crawler when the script exits.
end_with_what_was_started() {
    trap clean_up EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
}

start_network() {
    rm -rf "$scratch"
    mkdir -p "$scratch"
    local offset
    # Another program may use one of the ports: then all of them are shifted.
    for offset in 0 2000 4500 7000 11000; do
        "${simnet_command[@]}" serve "$scratch" --nodes "$nodes" --dead "$dead" --zoo "$zoo" --time-scale 0.05 \
            "${serve_options[@]}" --port-offset $offset >"$scratch/simnet.out" 2>"$scratch/simnet.err" &
        network=$!
        until grep -qs '^ready' "$scratch/simnet.out"; do
            kill -0 "$network" 2>/dev/null || break
            sleep 0.1
        done
        if grep -qs '^ready' "$scratch/simnet.out"; then
            say "the simulated network is up: $nodes nodes among $dead dead addresses and" \
                "$(figure zoo "$(cat "$scratch/simnet.out")") that misbehave, all in 127.0.0.0/8"
            return
        fi
        network=
        grep -q 'is in use' "$scratch/simnet.err" || break
    done
    fail "the simulated network does not start: $(cat "$scratch/simnet.err")"
}

# write_config MAX_SOCKETS URL: timeouts for a network that is 20 times as fast as the real one, and
# a filter that admits nothing but loopback. Nodes are asked at once, so that each is met once.
write_config() {
    # It takes precedence over the file.
    unset BITDASH_DATABASE_URL
    cat >"$scratch/bitdash.toml" <<TEXT
[crawl]
max_sockets = $1
connects_per_second = 2000
ask_share = 0
nodes_file = "$scratch/seeds.txt"
connect_timeout = "2s"
candidate_connect_timeout = "$candidate_connect_timeout"
handshake_timeout = "$handshake_timeout"
addr_timeout = "15s"
addr_quiet = "400ms"

[filter]
only = ["127.0.0.0/8"]

# Addresses of loopback are in no country.
[geo]
country_db = ""
asn_db = ""

[database]
url = "$2"
flush_interval = "1s"

[log]
file = "$scratch/crawl.log"
stats_interval = "1s"
TEXT
}

# figure KEY LINE
figure() { printf '%s\n' "$2" | sed -n "s/.* $1=\([^ ]*\).*/\1/p"; }

show_progress() {
    say "  probed $(figure probed "$1"), responded $(figure responded "$1"), queue $(figure queue "$1")"
}

# crawl_network LOG: crawls for one pass; LOG is the crawler's log file.
crawl_network() {
    local start=$SECONDS line last=
    # On a terminal the crawler shows its progress itself.
    [ -t 2 ] && [ "$each_second" = show_progress ] && each_second=:
    say "crawling it for one pass"
    "${bitdash_command[@]}" crawl --passes 1 &
    crawler=$!
    while kill -0 "$crawler" 2>/dev/null; do
        sleep 1
        line=$(grep ' stats pass=' "$1" 2>/dev/null | tail -n 1) || continue
        [ "$line" = "$last" ] || "$each_second" "$line"
        last=$line
    done
    wait "$crawler" || fail "the crawl failed: see $1"
    crawler=
    say "the pass took $((SECONDS - start)) s"
}

stop_network() {
    kill "$network"
    wait "$network" || fail "the simulated network failed"
    network=
    local report=$scratch/report.tsv
    count() { sed -n "s/^$1\t//p" "$report"; }
    say "the network saw $(count connections_total) connections, at most $(count most_at_once) at once and" \
        "$(count most_connections_per_address) per address; $(count whole_replies) of $(count asked) replies were whole;" \
        "$(count protocol_faults) protocol faults, $(count bans) bans"
}

# check_map URL: compares the crawled database with what the network served.
check_map() {
    local summary
    summary=$("${simnet_command[@]}" check "$1" "$scratch") || fail "the map is not the network: $summary"
    say "$summary"
}

# --- How long a start takes
# ---------------------------------------------------------------------------------------

# fill_candidates DATABASE NUMBER: inserts loopback addresses that failed once and are due.
fill_candidates() {
    run_psql "$1" -v number="$2" <<'SQL'
WITH batch AS (SELECT coalesce(max(batch), 0) + 1 AS batch FROM bitdash_internal.address_journal),
    clock AS (SELECT extract(epoch FROM now() - '2000-01-01 UTC'::timestamptz)::integer AS now)
INSERT INTO bitdash_internal.address_journal (key, batch, heard_at, probed_at, next_probe, source, failures, outcome)
    SELECT (('127.8.0.0'::inet + n - '0.0.0.0'::inet) << 16) + 9, batch, now - 86400, now - 7200, now - 3600, 0, 1, 1
    FROM batch, clock, generate_series(1, :number) n;
SQL
}

# milliseconds_between SECONDS WORD FILE: from that time to the first line of the log that contains
# the word.
milliseconds_between() {
    local at
    at=$(grep -m 1 "$2" "$3" | cut -d ' ' -f 1) || return 1
    at=$(date -d "$at" +%s.%N)
    awk -v from="$1" -v to="$at" 'BEGIN { printf "%d", (to - from) * 1000 }'
}

# time_start DATABASE NUMBER LIMIT_MS: time from the start of the program to the end of its first
# probe, with NUMBER known addresses. The first start compacts the journal; the second one is the
# usual case and must keep the limit.
time_start() {
    local which before pass first due
    rm -rf "$scratch"
    mkdir -p "$scratch"
    write_config 50 "$(database_url "$1")"
    : >"$scratch/seeds.txt"
    sed -i 's/^\[log\]$/&\nlevel = "debug"/' "$scratch/bitdash.toml"
    "${bitdash_command[@]}" migrate >/dev/null
    fill_candidates "$1" "$2"
    for which in "start with a compaction" "ordinary start"; do
        rm -f "$scratch/crawl.log"
        before=$EPOCHREALTIME
        "${bitdash_command[@]}" crawl &
        crawler=$!
        until grep -q ' probe ' "$scratch/crawl.log" 2>/dev/null; do
            kill -0 "$crawler" 2>/dev/null || fail "the crawl exited: see $scratch/crawl.log"
            sleep 0.1
        done
        kill "$crawler"
        wait "$crawler" || fail "the crawl failed: see $scratch/crawl.log"
        crawler=
        due=$(sed -n 's/.* pass pass=1 state=.* due=//p' "$scratch/crawl.log")
        [ "${due:-0}" -gt $(($2 * 9 / 10)) ] || fail "$due of $2 addresses are due: see $scratch/crawl.log"
        pass=$(milliseconds_between "$before" ' pass pass=1 state=' "$scratch/crawl.log")
        first=$(milliseconds_between "$before" ' probe ' "$scratch/crawl.log")
        say "with $2 known addresses, $which: $pass ms to the pass, $first ms to the end of its first probe"
    done
    [ "$first" -le "$3" ] || fail "the first probe ended after more than $3 ms"
}
