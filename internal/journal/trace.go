package journal

import (
	"crypto/sha256"
	"encoding/binary"
)

// TraceOf names the trace of a frame, and the place in it to which whatever is
// done with the frame belongs: its commit, its projection. It is a function of
// (run, n), so that processes that have nothing in common but the journal speak
// of the same trace, and the frame's format needs no field for it.
func TraceOf(run Run, n uint64) (trace [16]byte, span [8]byte) {
	const tag = "tidegate-frame-trace"
	var buf [len(tag) + len(run) + 8]byte
	b := append(buf[:0], tag...)
	b = append(b, run[:]...)
	b = binary.BigEndian.AppendUint64(b, n)
	sum := sha256.Sum256(b)
	return [16]byte(sum[:16]), [8]byte(sum[16:24])
}
