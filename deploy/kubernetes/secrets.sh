#!/bin/sh
# Prints, or with kubectl behind a pipe applies, the secrets of the roles: a value for each pod with keys of its own.
#
#   tidegate keys init --data ROOT                                  # once; keep ROOT with the operator
#   sh deploy/kubernetes/secrets.sh ROOT ISSUED gateway=2 trial=2 projector=2 | kubectl apply -f -
#
# ISSUED is a folder of yours in which the issued keys stay, so that the next run gives new keys to new pods only. To
# give a pod another signing key: tidegate keys issue --data ROOT --to ISSUED/POD --name POD, run this again, restart
# the pod, then retire the old key. Everything printed is secret. Certificates and the database's password are not
# made here: tidegate-tls-ROLE (ca.crt, tls.crt, tls.key) and tidegate-postgres (postgres-password).
set -eu
umask 077
root=${1:?usage: secrets.sh ROOT ISSUED ROLE=PODS ...}
issued=${2:?usage: secrets.sh ROOT ISSUED ROLE=PODS ...}
shift 2
tidegate=${TIDEGATE:-tidegate}

for pair in "$@"; do
	role=${pair%%=*} pods=${pair#*=}
	cat <<-END
		apiVersion: v1
		kind: Secret
		metadata:
		  name: tidegate-keys-$role
		  namespace: tidegate
		  labels: {app.kubernetes.io/name: tidegate, app.kubernetes.io/part-of: tidegate}
		type: Opaque
		data:
	END
	i=0
	while [ "$i" -lt "$pods" ]; do
		pod=tidegate-$role-$i
		[ -e "$issued/$pod/keys" ] || "$tidegate" keys issue --data "$root" --to "$issued/$pod" --name "$pod" >&2
		rm -f "$issued/$pod.pack"
		"$tidegate" keys pack --data "$issued/$pod" --to "$issued/$pod.pack" >&2
		printf '  %s: %s\n' "$pod" "$(base64 <"$issued/$pod.pack" | tr -d '\n')"
		rm -f "$issued/$pod.pack"
		i=$((i + 1))
	done
	echo ---
done
