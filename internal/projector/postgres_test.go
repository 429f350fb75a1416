package projector_test

import (
	"testing"

	"github.com/tidegate/tidegate/internal/postgres"
	"github.com/tidegate/tidegate/internal/store"
	"github.com/tidegate/tidegate/internal/store/pgstore"
	"github.com/tidegate/tidegate/test/services"
)

// openPostgres opens an empty store in a real server.
func openPostgres(t testing.TB) store.Store {
	t.Helper()
	s, err := pgstore.Open(t.Context(), pgstore.Options{Postgres: postgres.Options{URL: services.SharedPostgres(t).NewDatabase(t)}})
	return closing(t, s, err)
}

// TestOnPostgres runs the other tests of this package with their tables in
// PostgreSQL, where a Tx gathers what it writes and asks for much at once.
func TestOnPostgres(t *testing.T) {
	services.SharedPostgres(t)
	openStore = openPostgres
	defer func() { openStore = openSQLite }()
	for name, test := range map[string]func(*testing.T){
		"CommandOutcomes": TestCommandOutcomes, "CommandIDUsedTwice": TestCommandIDUsedTwice, "KeysAndSystemFacts": TestKeysAndSystemFacts, "Erasure": TestErasure,
		"FollowingAndWaiting": TestFollowingAndWaiting, "AppliesWhatIsThere": TestAppliesWhatIsThere, "RebuildTo": TestRebuildTo,
		"CheckpointIsTheTreeOfHeaders": TestCheckpointIsTheTreeOfHeaders, "QuarantineReasons": TestQuarantineReasons, "SameReportIDAgain": TestSameReportIDAgain,
		"ReportRowIsWhatWasSent": TestReportRowIsWhatWasSent, "StopsLoudly": TestStopsLoudly, "PanicInParsing": TestPanicInParsingHurtsOneReport,
		"WritersAtOnce": TestWritersAtOnce, "FailedTransactions": TestFailedTransactionsAreTriedAgain, "TwoProjectors": TestTwoProjectorsOnOneStore,
		"BadCommands": TestBadCommandsAreRejectedNotFatal,
	} {
		t.Run(name, test)
	}
}
