// Command verify2 is a second verifier of Tidegate's journal. It was written from
// docs/format.md and shares no code with the product: it has its own reader of
// SQLite files, its own hashing, its own canonical JSON, and nothing but the
// standard library. An error that the product makes when it writes and makes
// again when it checks does not pass here.
//
//	verify2 --data DIR [--acks FILE] [--keys FILE --root FINGERPRINT]
//
// It only reads, takes no lock, and runs beside a server. Exit status: 0 all is
// well, 1 a finding, 2 wrong use or a file that cannot be read at all.
package main
