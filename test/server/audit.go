package server

import "fmt"

// Audit is what `tidegate verify --json` printed.
type Audit struct {
	OK bool `json:"ok"`
	Counts
	Trials []struct {
		Trial string `json:"trial"`
		Counts
	} `json:"trials"`
	Frames  uint64 `json:"frames"`
	Facts   uint64 `json:"facts"`
	Runs    int    `json:"runs"`
	Lost    uint64 `json:"lost"`
	Altered uint64 `json:"altered"`
	Doubled uint64 `json:"doubled"`
	Acks    struct {
		Lines    uint64 `json:"lines"`
		Found    uint64 `json:"found"`
		Unproven uint64 `json:"unproven"`
	} `json:"acks"`
	TablesChecked bool  `json:"tablesChecked"`
	RebuildSame   *bool `json:"rebuildSame"`
}

// Counts are the books, of one trial or of all.
type Counts struct {
	Accepted    uint64 `json:"accepted"`
	Recorded    uint64 `json:"recorded"`
	Duplicates  uint64 `json:"duplicates"`
	Conflicts   uint64 `json:"conflicts"`
	Quarantined uint64 `json:"quarantined"`
	Pending     uint64 `json:"pending"`
}

// String is the line a person reads.
func (a Audit) String() string {
	return fmt.Sprintf("acks %d lost %d altered %d doubled %d; accepted %d = recorded %d + duplicates %d + conflicts %d + quarantined %d + pending %d; %d runs, %d frames",
		a.Acks.Lines, a.Lost, a.Altered, a.Doubled, a.Accepted, a.Recorded, a.Duplicates, a.Conflicts, a.Quarantined, a.Pending, a.Runs, a.Frames)
}
