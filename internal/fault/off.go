//go:build !faultpoints

package fault

// Enabled says whether this binary was built with fault points.
const Enabled = false

// Point does nothing in an ordinary build.
func Point(string) {}

// On is false in an ordinary build.
func On(string) bool { return false }
