// Package auth holds the keys of an installation, the tokens made with them,
// and who may do what: the one [Principal] to which every credential resolves.
//
// Three rules shape it. A participant's token is checked without any database,
// so that a wave of phones touches none. A staff credential names a staff id
// and nothing else; what that person may do comes from facts. What the matrix
// of roles does not allow is forbidden (docs/roles.md).
//
// No error, log value or printed form in this package holds a token, a secret
// or a key.
package auth
