package pgstore

import "time"

// SetBounds replaces the bounds of transactions until the returned function is called.
func SetBounds(lock, idle, longest time.Duration) (restore func()) {
	l, i, a := lockTimeout, idleTimeout, longestApply
	lockTimeout, idleTimeout, longestApply = lock, idle, longest
	return func() { lockTimeout, idleTimeout, longestApply = l, i, a }
}

// ErrElsewhere, for tests.
var ErrElsewhere = errElsewhere

// ErrBuilding, for tests.
var ErrBuilding = errBuilding
