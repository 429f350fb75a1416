package gateway

import "sync"

// buffer is a reusable slice for an answer that is built by hand.
type buffer struct{ b []byte }

const (
	firstBuffer = 4 << 10  // holds the answer to a report with its receipt
	keptBuffer  = 64 << 10 // larger ones are left to the collector
)

var buffers = sync.Pool{New: func() any { return &buffer{b: make([]byte, 0, firstBuffer)} }}

func getBuffer() *buffer { return buffers.Get().(*buffer) }

func putBuffer(b *buffer) {
	if cap(b.b) > keptBuffer {
		return
	}
	b.b = b.b[:0]
	buffers.Put(b)
}
