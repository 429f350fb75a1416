// Package gateway is the HTTP edge: it turns requests into facts and rows into
// answers, and maps every error to HTTP once.
//
// On the way of a report it touches nothing but the token keys and intake: no
// table, no vault, no projector. Everything that shows data reads the tables;
// everything that changes something appends a command and waits, for a while,
// until the projector has passed it.
//
// No log line, metric, error text or recovered panic of this package holds what
// a participant wrote, a token or an id taken from a request.
package gateway
