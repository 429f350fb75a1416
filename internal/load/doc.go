// Package load plays a wave of phones against a server: each phone has its own
// token, report and bytes, and behaves as the app does when an answer is late,
// refused or lost.
//
// The loop is open. The schedule is fixed before the first request, so a slow
// server does not slow the phones down, and every latency counts from the
// moment a phone meant to send. A closed loop would wait while the server
// stalls and so hide the stall.
//
// Memory is bounded: about 40 bytes for each phone (its body and token are made
// anew, byte for byte the same, at each try) and about 70 KB for each request
// under way, of which there are at most Options.Connections. 100,000 phones
// with all 4,096 connections in use were measured at 290 MiB.
package load
