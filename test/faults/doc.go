// Package faults proves of the second shape what package crash proves of one
// machine: roles run as processes of the real binary on a real PostgreSQL and
// etcd, phones send reports without end, and something breaks; then nothing that
// was acknowledged may be lost, altered or counted twice.
//
// Two oracles judge: `tidegate verify --acks` against PostgreSQL, and
// test/verify2, which shares no code with the product, on a copy that
// `tidegate ship` makes; the phones (test/phones) share none with it either.
//
// TIDEGATE_LONG=1 runs all of it, one short test runs in `make test`.
package faults
