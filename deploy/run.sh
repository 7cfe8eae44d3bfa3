#!/usr/bin/env bash
# Installs what is missing, builds the release, starts the server in the foreground.
# Arguments go to sluiced: ./deploy/run.sh --data-dir /var/lib/sluice
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

"$root/deploy/install-deps.sh" build

echo "==> Building the release in $root/build (the first time takes minutes, later seconds)"
"$root/deploy/build.sh" release sluiced sluice

cat <<TEXT

==> Starting sluiced. In another terminal:

      export PATH="$root/build/bin:\$PATH"
      sluice queue create orders
      sluice publish orders "hello"
      sluice subscribe orders --ack --count 1

TEXT
exec "$root/build/bin/sluiced" "$@"
