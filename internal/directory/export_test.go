package directory

import "time"

// Hurry makes a feed look and speak much more often than usual.
func (f *Feed) Hurry() {
	f.timing = timing{
		pace: 5 * time.Millisecond, firstRetry: time.Millisecond, idlePace: 20 * time.Millisecond, beat: 50 * time.Millisecond,
		quiet: 10 * time.Millisecond,
	}
}

// MaxFrames is how far behind a subscriber is told everything.
const MaxFrames = maxFrames

// Suffixes of the files beside a directory's.
const (
	NewSuffix   = newSuffix
	AsideSuffix = asideSuffix
)

// Save writes the file now.
func (d *Directory) Save() { d.save() }

// Followers is how many followers are at work.
func (f *Feed) Followers() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.follower == nil || f.follower.ended() {
		return 0
	}
	return 1
}

// Forget drops the steps that are kept.
func (f *Feed) Forget() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.follower.mu.Lock()
	defer f.follower.mu.Unlock()
	f.follower.first += uint64(len(f.follower.steps))
	f.follower.steps, f.follower.held = nil, 0
}
