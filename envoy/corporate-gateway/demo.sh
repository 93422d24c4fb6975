# What a company brings, made for trying, once for a state folder, in FILES. To be sourced.
#
#   tls/               a certificate for 127.0.0.1 and localhost, with its key
#   ca/ca.crt          the authority that signed it, for clients; its key is thrown away
#   htpasswd           two users, alice and bob
#   alice.password, bob.password
#   groups             data-team has alice, web-team has bob
#
# Users of one's own: NIXGATE_HTPASSWD and NIXGATE_GROUPS name their files.
#
# shellcheck shell=bash

# For how long the certificate is good, and how long before its end another is made.
CERTIFICATE_DAYS=90
RENEW_SECONDS=$((7 * 86400))

make_certificate() {
  local new=$FILES/certificate.new
  ! openssl x509 -checkend "$RENEW_SECONDS" -noout -in "$FILES/tls/tls.crt" >/dev/null 2>&1 || return 0
  say "making a certificate for 127.0.0.1 and localhost"
  rm -rf "$new" "$FILES/tls" "$FILES/ca"
  mkdir -p "$new/tls" "$new/ca"
  # A certificate that an authority signed: one that signed itself is no server's to many clients.
  (umask 027 && : >"$FILES/openssl.log")
  (umask 077 && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days "$CERTIFICATE_DAYS" \
    -subj "/CN=nixgate demo authority" -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign \
    -keyout "$new/ca.key" -out "$new/ca/ca.crt" &&
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=localhost" \
      -keyout "$new/tls/tls.key" -out "$new/request" &&
    openssl x509 -req -in "$new/request" -CA "$new/ca/ca.crt" -CAkey "$new/ca.key" -days "$CERTIFICATE_DAYS" \
      -extfile <(printf '%s\n' 'subjectAltName=DNS:localhost,IP:127.0.0.1' 'extendedKeyUsage=serverAuth') \
      -out "$new/tls/tls.crt") >"$FILES/openssl.log" 2>&1 ||
    fail "openssl could not make a certificate" "read its log: $FILES/openssl.log"
  chmod go+rX "$new" "$new/ca" "$new/ca/ca.crt"
  mv "$new/ca" "$new/tls" "$FILES/"
  rm -rf "$new"
}

# Users and their passwords, which only the owner of the files can read.
make_users() {
  local user
  [[ ! -s $FILES/htpasswd ]] || return 0
  say "making the users alice and bob; their passwords are in $FILES"
  rm -f "$FILES/htpasswd.new"
  for user in alice bob; do
    (umask 077 && head -c 16 /dev/urandom | od -An -v -tx1 | tr -d ' \n' >"$FILES/$user.password" &&
      { [[ -e $FILES/htpasswd.new ]] || : >"$FILES/htpasswd.new"; } &&
      htpasswd -iBC 10 "$FILES/htpasswd.new" "$user" <"$FILES/$user.password" 2>/dev/null) ||
      fail "htpasswd could not make the user $user" "is $FILES writable?"
  done
  mv "$FILES/htpasswd.new" "$FILES/htpasswd"
  [[ -s $FILES/groups ]] || printf '%s\n' 'data-team: alice' 'web-team: bob' >"$FILES/groups"
}
