// Package fault marks the moments at which tests kill the process or make a
// step fail. In an ordinary build every call is an empty function that the
// compiler removes; only a binary built with the tag `faultpoints`, which is
// never shipped, reads TIDEGATE_FAULT.
package fault

// Points that exist, so that tests and code name the same ones.
const (
	BeforeAppend    = "before-append"    // intake: the frame is built, the journal not yet asked
	AfterAppend     = "after-append"     // intake: durable, nobody answered yet
	MidProjection   = "mid-projection"   // projector: in the transaction, before its commit
	AfterProjection = "after-projection" // projector: committed, memory not yet moved on
	MidRebuild      = "mid-rebuild"      // rebuild: between two transactions
	StartRecovery   = "start-recovery"   // start: before the journal is opened after an unclean stop
	AnswerFirst     = "answer-first"     // control: answer before the append (On only)
	SyncOff         = "synchronous-off"  // control: SQLite with synchronous=OFF (On only)
)
