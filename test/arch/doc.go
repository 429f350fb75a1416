// Package arch holds no code. Its tests enforce what ARCHITECTURE.md says of
// the repository's shape: who may import whom, where each third-party library
// lives, and how long a file may grow.
package arch
