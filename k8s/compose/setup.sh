#!/bin/sh
# Makes what compose.yaml needs and nobody else must know: the keys of edges and workers for
# NATS (secrets/), and .env with random secrets. It needs Go, and changes no key and no
# secret that is there already. Run it again after each natssetup rotate or retire.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
umask 077
random() { od -An -N32 -tx1 /dev/urandom | tr -d ' \n'; }

(cd "$here/../.." && go run -buildvcs=false ./scripts/natssetup -dir "$here/secrets" -hosts nats init)
# Public keys, in a folder of their own that the NATS server mounts: a file that is mounted
# by itself would stay the one from before when it is replaced.
mkdir -p "$here/secrets/nkeys"
cp "$here/secrets/nkeys.conf" "$here/secrets/nkeys/.new"
chmod 0644 "$here/secrets/nkeys/.new"
mv "$here/secrets/nkeys/.new" "$here/secrets/nkeys/nkeys.conf"
chmod 0755 "$here/secrets/nkeys"
chmod 0711 "$here/secrets"

user=$(id -u):$(id -g)
if [ "$(id -u)" -eq 0 ]; then # no container runs as root
	user=65532:65532
	chown -R "$user" "$here/secrets/edge" "$here/secrets/replay" "$here/secrets/worker"
fi

if [ -e "$here/.env" ]; then
	echo "$here/.env is there already"
	exit
fi
cat >"$here/.env" <<END
# Of compose.yaml, written by setup.sh. Whoever can read it can sign in as anybody.
KEYS_USER=$user
TAG=dev
PORT=8080

# Who signs your users' tokens. This secret is random; replace it by your own, or by the
# public key of whoever signs them: JWT_PUBLIC_KEY="-----BEGIN PUBLIC KEY----- …"
JWT_HS256_SECRET=$(random)
JWT_PUBLIC_KEY=
JWT_ISSUER=
JWT_AUDIENCE=

# Web origins whose pages may connect, such as https://chat.example.com
ALLOWED_ORIGINS=

# MongoDB: the workers' user, the user "admin", and the key of the replica set.
MONGODB_PASSWORD=$(random)
MONGODB_ADMIN_PASSWORD=$(random)
MONGODB_KEY=$(random)

# The user "admin" of Grafana, at http://127.0.0.1:3000
GRAFANA_PASSWORD=$(random)
END
echo "wrote $here/.env"
