#!/bin/sh
# Starts a Redis Cluster of three primaries and three replicas on this machine, for development and tests.
#
#     ops/cluster.sh start     starts the nodes and prints their `REDIS_URL`
#     ops/cluster.sh status    prints the nodes
#     ops/cluster.sh stop      stops them and removes their data
#
# The nodes listen on 127.0.0.1, on six ports from CLUSTER_PORT (7001) on, and on the ports 10000 above for each other. Their data is in
# CLUSTER_DIR (/tmp/cache-cluster-<port>). The programs are REDIS_SERVER (redis-server) and REDIS_CLI (redis-cli).
set -eu

port=${CLUSTER_PORT:-7001}
dir=${CLUSTER_DIR:-${TMPDIR:-/tmp}/cache-cluster-$port}
server=${REDIS_SERVER:-redis-server}
cli=${REDIS_CLI:-redis-cli}
ports=$(seq "$port" $((port + 5)))

# Returns whether the server at this port is the one that this script started.
runs() {
    pid=$(cat "$dir/$1/pid" 2>/dev/null) && "$cli" -p "$1" info server 2>/dev/null | tr -d '\r' | grep -qx "process_id:$pid"
}

stop() {
    for node in $ports; do
        if runs "$node"; then
            kill "$pid"
            while runs "$node"; do sleep 0.1; done
        fi
        rm -rf "${dir:?}/$node"
    done
    [ ! -d "$dir" ] || rmdir "$dir"
}

start() {
    if [ -d "$dir" ]; then
        echo "$dir exists; run \`$0 stop\` first" >&2
        exit 1
    fi
    trap 'stop' EXIT
    nodes=
    for node in $ports; do
        mkdir -p "$dir/$node"
        "$server" --port "$node" --bind 127.0.0.1 --dir "$dir/$node" --pidfile "$dir/$node/pid" --logfile "$dir/$node/log" \
            --daemonize yes --save '' --cluster-enabled yes --cluster-node-timeout 2000 \
            --cluster-require-full-coverage no --repl-diskless-sync-delay 0
        nodes="$nodes 127.0.0.1:$node"
    done
    for node in $ports; do
        tries=0
        until runs "$node"; do
            tries=$((tries + 1))
            if [ "$tries" -gt 50 ]; then
                tail -n 5 "$dir/$node/log" >&2
                exit 1
            fi
            sleep 0.1
        done
    done
    # shellcheck disable=SC2086  # a list of arguments
    "$cli" --cluster create $nodes --cluster-replicas 1 --cluster-yes >"$dir/create.log" || {
        cat "$dir/create.log" >&2
        exit 1
    }
    rm "$dir/create.log"
    for node in $ports; do
        until "$cli" -p "$node" cluster info | grep -q cluster_state:ok; do sleep 0.1; done
        # A node learns which others are replicas a little later.
        until [ "$("$cli" -p "$node" cluster nodes | grep -c slave)" -eq 3 ]; do sleep 0.1; done
    done
    trap - EXIT
    echo "REDIS_URL=redis+cluster://127.0.0.1:$port,127.0.0.1:$((port + 1)),127.0.0.1:$((port + 2))"
}

case ${1:-} in
start) start ;;
stop) stop ;;
status) "$cli" -p "$port" cluster nodes ;;
*)
    sed -n '2,/^set/{/^#/s/^# \{0,1\}//p;}' "$0" >&2
    exit 2
    ;;
esac
