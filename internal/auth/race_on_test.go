//go:build race

package auth_test

const raceDetector = true // it makes sync.Pool forget on purpose
