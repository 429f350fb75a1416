#!/bin/sh
# A certificate authority of your own and certificates under it, for a developer's machine or a test site. In
# production your organisation's authority (or cert-manager) makes them; the names below are what it must put in.
#
#   certs.sh DIR NAME[,OTHER-NAME…] …     for each: DIR/NAME/{ca.crt,tls.crt,tls.key}, good for servers and clients
#
# What is there is kept, so that it may run at each start. Needs openssl 1.1.1 or newer.
set -eu
umask 077

dir=${1:?usage: certs.sh DIR NAME[,OTHER-NAME...] ...}
shift
days=825
mkdir -p "$dir/ca"
ca=$dir/ca

key() { # key FILE
	openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1" 2>/dev/null
}

if [ ! -s "$ca/ca.crt" ]; then
	key "$ca/ca.key"
	openssl req -x509 -new -key "$ca/ca.key" -days "$days" -subj "/CN=Tidegate test authority" \
		-addext keyUsage=critical,keyCertSign,cRLSign -out "$ca/ca.crt.new"
	mv "$ca/ca.crt.new" "$ca/ca.crt"
fi

for names in "$@"; do
	name=${names%%,*}
	to=$dir/$name
	[ -s "$to/tls.crt" ] && continue
	mkdir -p "$to"
	san=DNS:$(printf %s "$names" | sed 's/,/,DNS:/g')
	key "$to/tls.key"
	openssl req -new -key "$to/tls.key" -subj "/CN=$name" -out "$to/tls.csr"
	cat >"$to/tls.ext" <<-END
		basicConstraints=critical,CA:FALSE
		keyUsage=critical,digitalSignature
		extendedKeyUsage=serverAuth,clientAuth
		subjectAltName=$san,DNS:localhost,IP:127.0.0.1
	END
	openssl x509 -req -in "$to/tls.csr" -CA "$ca/ca.crt" -CAkey "$ca/ca.key" -CAcreateserial -days "$days" \
		-extfile "$to/tls.ext" -out "$to/tls.crt.new" 2>/dev/null
	cp "$ca/ca.crt" "$to/ca.crt"
	rm -f "$to/tls.csr" "$to/tls.ext"
	mv "$to/tls.crt.new" "$to/tls.crt"
	echo "certificate of $name"
done
