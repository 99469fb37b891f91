#!/bin/sh
# What the demo in docker-compose.yml begins with: both sides' work up to a run that waits to be approved, by the commands that people type.
set -eu

hub=${RAINHILL_HUB:-/var/lib/rainhill}
demo=${RAINHILL_DEMO:-/demo}
recipe=${RAINHILL_RECIPE:-/recipe/rehearsal.toml}

if [ -e "$demo/ready" ]; then
    echo "the demo is set up already"
    exit 0
fi
if [ -e "$hub/coordinator" ]; then
    echo "an earlier attempt was cut off: docker compose --profile demo down --volumes, and begin again" >&2
    exit 2
fi

cd "$hub"
rainhill coordinator init demo --title "Demo" --host "${RAINHILL_HOST:-coordinator}" --database "${RAINHILL_DATABASE:-}"

for site in bury manchester oldham; do
    cd "$demo"
    rainhill phantom "$site"
    cd "$demo/$site"
    own=$(rainhill site init "$site.toml" | tail -n 1)
    mv "$site.request" "$hub"
    cd "$hub"
    rainhill coordinator enrol "$site.request" --fingerprint "$own"
    theirs=$(rainhill coordinator bundle "$site" | tail -n 1 | sed 's/.*: //')
    mv "$site.bundle" "$demo/$site"
    cd "$demo/$site"
    rainhill site join "$site.toml" "$site.bundle" --fingerprint "$theirs"
done

cd "$hub"
rainhill adapter "$recipe" --out first.safetensors
rainhill coordinator run "$recipe" --adapter first.safetensors --name rehearsal
touch "$demo/ready"
