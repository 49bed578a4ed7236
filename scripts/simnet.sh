# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154 # variables of those who source it, and of lib.sh
# A crawl of the simulated network, step by step, and its map held against what the network serves.
# Sourced after lib.sh, never run. Nothing here leaves the machine.

# What the script that sources this may change before it begins: the size of the network, the folder that everything
# lies in, how the two programs are started (an emulator, another user; the crawler with its configuration), which
# function is called once a second with the newest stats line, how long the crawler waits where the machine is busy.
nodes=2000
dead=6000
zoo=1
scratch=$root/.simnet
simnet_command=(bitdash-simnet)
bitdash_command=(bitdash)
each_second=show_progress
candidate_connect_timeout=500ms
handshake_timeout=3s
network=
crawler=

# Ends what this script started, however it ends itself.
clean_up() {
    local process
    for process in $crawler $network; do
        kill "$process" 2>/dev/null || continue
        wait "$process" 2>/dev/null || true
    done
}

end_with_what_was_started() {
    trap clean_up EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
}

start_network() {
    rm -rf "$scratch"
    mkdir -p "$scratch"
    local offset
    # Another program may have one of its ports: then all of them are moved.
    for offset in 0 2000 4500 7000 11000; do
        "${simnet_command[@]}" --nodes "$nodes" --dead "$dead" --zoo "$zoo" --time-scale 0.05 --port-offset $offset \
            --dir "$scratch" >"$scratch/simnet.out" 2>"$scratch/simnet.err" &
        network=$!
        until grep -q '^ready' "$scratch/simnet.out"; do
            kill -0 "$network" 2>/dev/null || break
            sleep 0.1
        done
        if grep -q '^ready' "$scratch/simnet.out"; then
            say "the simulated network is up: $nodes nodes among $dead dead addresses and" \
                "$(figure zoo "$(cat "$scratch/simnet.out")") that misbehave, all in 127.0.0.0/8"
            return
        fi
        network=
        grep -q 'is in use' "$scratch/simnet.err" || break
    done
    fail "the simulated network does not start: $(cat "$scratch/simnet.err")"
}

# write_config MAX_SOCKETS URL: what belongs to a network that is twenty times as fast as life, and the belt: nothing
# but loopback.
write_config() {
    # It would win over the file.
    unset BITDASH_DATABASE_URL
    cat >"$scratch/bitdash.toml" <<TEXT
[crawl]
max_sockets = $1
connects_per_second = 2000
nodes_file = "$scratch/seeds.txt"
connect_timeout = "2s"
candidate_connect_timeout = "$candidate_connect_timeout"
handshake_timeout = "$handshake_timeout"
addr_timeout = "15s"
addr_quiet = "400ms"

[filter]
only = ["127.0.0.0/8"]

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

# crawl_network LOG: one pass, with the log there.
crawl_network() {
    local start=$SECONDS line last=
    say "crawling it, for one pass"
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
    say "the network's own account: $(count connections_total) connections, $(count most_at_once) at once," \
        "$(count most_connections_per_address) per address at most," \
        "$(count whole_replies) of $(count asked) replies whole," \
        "$(count protocol_faults) protocol faults, $(count bans) bans"
}

# compare DATABASE: holds the table nodes against the lists of what the network serves, field by field: nodes.tsv, and zoo.tsv,
# where a host that answers on every port is remembered with a part of them.
compare() {
    local found
    found=$(cd "$scratch" && run_psql "$1" -At -F ' ' <<'SQL'
CREATE TEMPORARY TABLE served (host inet, port integer, protocol_version integer, user_agent text, services bigint,
    start_height integer, relay boolean, species text, manner text, peers integer);
\copy served FROM 'nodes.tsv' WITH (FORMAT csv, HEADER true, DELIMITER E'\t', QUOTE E'\b')
CREATE TEMPORARY TABLE zoo (host inet, port integer, beast text, outcome text, protocol_version integer,
    user_agent text, services bigint, start_height integer, relay boolean, species text, recorded integer,
    statement text);
\copy zoo FROM 'zoo.tsv' WITH (FORMAT csv, HEADER true, DELIMITER E'\t', QUOTE E'\b', NULL '\N')
CREATE TEMPORARY VIEW tamed AS SELECT z.host, z.beast, min(z.recorded) AS most,
    count(*) FILTER (WHERE z.outcome = 'responded' AND n.status = 'up'
        AND (n.protocol_version, n.user_agent, n.services, n.start_height, n.relay, n.species)
        IS NOT DISTINCT FROM (z.protocol_version, z.user_agent, z.services, z.start_height, z.relay, z.species)
        OR z.outcome <> 'responded' AND n.host IS NULL AND c.last_outcome = z.outcome) AS same
    FROM zoo z LEFT JOIN nodes n USING (host, port) LEFT JOIN candidates c USING (host, port) GROUP BY 1, 2;
SELECT (SELECT count(*) FROM served),
    (SELECT count(*) FROM nodes JOIN served USING (host, port)),
    (SELECT count(*) FROM nodes n JOIN served s USING (host, port) WHERE n.status = 'up'
        AND (n.protocol_version, coalesce(n.user_agent, ''), n.services, n.start_height, n.relay, n.species)
        IS NOT DISTINCT FROM (s.protocol_version, coalesce(s.user_agent, ''), s.services, s.start_height, s.relay,
            coalesce(s.species, n.species))),
    (SELECT sum(most) FROM tamed), (SELECT sum(same) FROM tamed WHERE same <= most),
    (SELECT count(*) FROM nodes WHERE (host, port) NOT IN (SELECT host, port FROM served)
        AND (host, port) NOT IN (SELECT host, port FROM zoo WHERE outcome = 'responded'));
SQL
    ) || fail "the comparison with nodes.tsv and zoo.tsv failed"
    local served known same zoo_all zoo_same other
    read -r served known same zoo_all zoo_same other <<<"$found"
    say "compared with what the network serves: $known of $served nodes found, $same of them up with every field as served, $other other rows"
    say "and its zoo: $zoo_same of $zoo_all misbehaving addresses recorded as stated in zoo.tsv"
    [ "$served $zoo_all $other" = "$same $zoo_same 0" ] || fail "the map is not the network"
}

# --- How long a start takes ---------------------------------------------------------------------------------------

# fill_candidates DATABASE NUMBER: addresses of loopback that are known, were tried once, and are due.
fill_candidates() {
    run_psql "$1" -v number="$2" <<'SQL'
WITH batch AS (SELECT nextval('batch_number')::integer AS batch),
    clock AS (SELECT extract(epoch FROM now() - '2000-01-01 UTC'::timestamptz)::integer AS now)
INSERT INTO address_journal (key, batch, heard_at, probed_at, next_probe, source, failures, outcome)
    SELECT (('127.8.0.0'::inet + n - '0.0.0.0'::inet) << 16) + 9, batch, now - 86400, now - 7200, now - 3600, 0, 1, 1
    FROM batch, clock, generate_series(1, :number) n;
SQL
}

# milliseconds_between SECONDS WORD FILE: from that time to the first line of the log that holds the word.
milliseconds_between() {
    local at
    at=$(grep -m 1 "$2" "$3" | cut -d ' ' -f 1) || return 1
    at=$(date -d "$at" +%s.%N)
    awk -v from="$1" -v to="$at" 'BEGIN { printf "%d", (to - from) * 1000 }'
}

# time_start DATABASE NUMBER LIMIT_MS: how long it takes from the start of the program to the first probe, with NUMBER
# known addresses; the limit is what was promised. The second start is the usual one: the first folds the journal.
time_start() {
    local which before pass first due
    rm -rf "$scratch"
    mkdir -p "$scratch"
    write_config 50 "$(database_url "$1")"
    : >"$scratch/seeds.txt"
    sed -i 's/^\[log\]$/&\nlevel = "debug"/' "$scratch/bitdash.toml"
    "${bitdash_command[@]}" migrate >/dev/null
    fill_candidates "$1" "$2"
    for which in "a fold on the way" "an ordinary start"; do
        rm -f "$scratch/crawl.log"
        before=$EPOCHREALTIME
        "${bitdash_command[@]}" crawl &
        crawler=$!
        until grep -q ' probe ' "$scratch/crawl.log" 2>/dev/null; do
            kill -0 "$crawler" 2>/dev/null || fail "the crawl ended: see $scratch/crawl.log"
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
    [ "$first" -le "$3" ] || fail "at most $3 ms are promised"
}
