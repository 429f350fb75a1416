package pgjournal_test

import (
	"testing"

	"github.com/tidegate/tidegate/internal/journal"
	"github.com/tidegate/tidegate/internal/journal/journaltest"
	"github.com/tidegate/tidegate/internal/journal/pgjournal"
	"github.com/tidegate/tidegate/test/services"
)

func TestMain(m *testing.M) { services.Main(m) }

func TestConformance(t *testing.T) {
	conform(t, services.SharedPostgres(t))
}

func TestConformanceWithStandby(t *testing.T) {
	t.Parallel()
	primary, _, _ := replicated(t)
	conform(t, primary)
}

func conform(t *testing.T, pg *services.PG) {
	t.Helper()
	spoilers, urls := map[journal.Journal]*spoiler{}, map[journal.Journal]string{}
	open := func(t *testing.T, url string) journal.Journal {
		s := &spoiler{}
		j, err := pgjournal.OpenDialed(t.Context(), options(url), s.dial)
		if err != nil {
			t.Fatal(err)
		}
		spoilers[j], urls[j] = s, url
		return j
	}
	journaltest.Run(t, journaltest.Adapter{
		Open: func(t *testing.T) journal.Journal { return open(t, fresh(t, pg)) },
		Reopen: func(t *testing.T, j journal.Journal) journal.Journal {
			if err := j.Close(); err != nil {
				t.Fatal(err)
			}
			return open(t, urls[j])
		},
		Faults: func(j journal.Journal) journaltest.Faults { return spoilers[j] },
	})
}
