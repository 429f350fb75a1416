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
