package pgstore_test

import (
	"os"
	"testing"

	"github.com/tidegate/tidegate/internal/postgres"
	"github.com/tidegate/tidegate/internal/store"
	"github.com/tidegate/tidegate/internal/store/pgstore"
	"github.com/tidegate/tidegate/internal/store/storetest"
	"github.com/tidegate/tidegate/test/services"
)

func TestMain(m *testing.M) {
	services.Main(m)
	os.Exit(2)
}

func options(url string) pgstore.Options {
	return pgstore.Options{Postgres: postgres.Options{URL: url}}
}

func open(t *testing.T, url string) *pgstore.Store {
	t.Helper()
	s, err := pgstore.Open(t.Context(), options(url))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func TestConformance(t *testing.T) {
	pg := services.SharedPostgres(t)
	storetest.Run(t, func(t *testing.T) store.Store { return open(t, pg.NewDatabase(t)) })
}
