# Starts and stops the servers for run.sh. Each listens on loopback only, keeps its data in the
# folder given, and is a child of this shell.
#
# start_server NAME DIR: sets `port`, and `server_pid` for stop_server.

free_port() {
  python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# wait_for_port PORT: until something listens there.
wait_for_port() {
  for _ in $(seq 600); do
    if (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; then return; fi
    kill -0 "$server_pid" 2>/dev/null || break
    sleep 0.1
  done
  echo "run.sh: the server did not start:" >&2
  tail -n 20 "$log" >&2
  exit 1
}

start_sluice() {
  "$root/build/bin/sluiced" --listen "127.0.0.1:$port" --http-listen "127.0.0.1:$(free_port)" \
    --data-dir "$1" >"$log" 2>&1 &
}

# A node alone has quorum; a group of one is what one machine can have.
start_rabbitmq() {
  cat >"$1/rabbitmq.conf" <<CONF
listeners.tcp.default = 127.0.0.1:$port
CONF
  # An epmd of its own, so that stopping it hurts nobody.
  epmd_port=$(free_port)
  HOME=$1 ERL_EPMD_PORT=$epmd_port ERL_EPMD_ADDRESS=127.0.0.1 \
    RABBITMQ_NODENAME=peer@localhost RABBITMQ_DIST_PORT=$(free_port) \
    RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="-kernel inet_dist_use_interface {127,0,0,1}" \
    RABBITMQ_CONFIG_FILE=$1/rabbitmq.conf RABBITMQ_ENABLED_PLUGINS_FILE=$1/enabled_plugins \
    RABBITMQ_MNESIA_BASE=$1/mnesia RABBITMQ_LOG_BASE=$1/log RABBITMQ_PID_FILE=$1/pid \
    /usr/lib/rabbitmq/bin/rabbitmq-server >"$log" 2>&1 &
}
start_rabbitmq-quorum() { start_rabbitmq "$1"; }
start_rabbitmq-classic() { start_rabbitmq "$1"; }

# Does not sync before it confirms: 2.9 has no setting for it.
start_nats() {
  cat >"$1/nats.conf" <<CONF
listen: "127.0.0.1:$port"
jetstream: { store_dir: "$1/jetstream", max_file_store: 100GB }
CONF
  nats-server --config "$1/nats.conf" >"$log" 2>&1 &
}

start_redis() {
  redis-server --bind 127.0.0.1 --port "$port" --dir "$1" --save '' \
    --appendonly yes --appendfsync always >"$log" 2>&1 &
}

# -f0: syncs every write. -z: bodies of the size that Sluice takes.
start_beanstalkd() {
  beanstalkd -l 127.0.0.1 -p "$port" -b "$1" -f0 -z 1048576 >"$log" 2>&1 &
}

start_server() {
  local name=$1 dir=$2
  mkdir -p "$dir"
  log=$dir/server.log
  port=$(free_port)
  epmd_port=
  "start_$name" "$dir"
  server_pid=$!
  wait_for_port "$port"
}

stop_server() {
  [ -n "${server_pid:-}" ] || return 0
  kill "$server_pid" 2>/dev/null || true
  wait "$server_pid" 2>/dev/null || true
  server_pid=
  if [ -n "${epmd_port:-}" ]; then
    ERL_EPMD_PORT=$epmd_port epmd -kill >/dev/null 2>&1 || true
    epmd_port=
  fi
}
