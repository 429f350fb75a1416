// Package crash proves what Tidegate promises under failure: the real binary
// runs under load, is killed, loses its power, its disk or its patience, and
// starts again on the same folder; then nothing that it acknowledged may be
// lost, altered or counted twice.
//
// Two oracles judge, and must agree: `tidegate verify --acks` and
// test/verify2, which shares no code with the product. The phones here share
// none with it either. Two controls, which break the promise on purpose, must
// be found out, or the tests would prove nothing.
//
// The short forms run in `make test` and need Go only. TIDEGATE_LONG=1 runs the
// long ones; those that need strace, root or loop devices say in one sentence
// why they are skipped. TIDEGATE_KILLS is the number of kills, TIDEGATE_SEED
// repeats the random choices of an earlier run (the moments themselves also
// depend on the machine).
package crash
