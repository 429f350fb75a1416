// Package e2e uses Tidegate as people do: the real binary, started in a folder
// of its own, spoken to over real HTTP and by its own command line. What a
// README, a help text or the operations manual promises is tried here.
//
// The quick form takes under a minute; TIDEGATE_LONG=1 adds what needs a small
// file system of its own or a large wave.
package e2e
