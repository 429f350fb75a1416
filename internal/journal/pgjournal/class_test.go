package pgjournal_test

import (
	"testing"

	"github.com/tidegate/tidegate/internal/journal"
	"github.com/tidegate/tidegate/internal/journal/pgjournal"
)

func TestClassOfSettings(t *testing.T) {
	const then, now = "2026-11-24 08:00:00+00", "2026-11-24 09:00:00+00"
	base := []string{"on", "true", "on", "on", "false", then, "false"}
	with := func(i int, v string) []string {
		s := append([]string(nil), base...)
		s[i] = v
		return s
	}
	for name, c := range map[string]struct {
		before, after []string
		want          journal.Class
	}{
		"a standby":               {base, base, journal.ClassSyncReplica},
		"applied there":           {with(0, "remote_apply"), base, journal.ClassSyncReplica},
		"its memory only":         {with(0, "remote_write"), base, journal.ClassLocalFsync},
		"not waited for":          {with(0, "local"), base, journal.ClassLocalFsync},
		"not even the disk":       {with(0, "off"), base, journal.ClassDemo},
		"a setting of the future": {with(0, "perhaps"), base, journal.ClassDemo},
		"no standby":              {with(1, "false"), base, journal.ClassLocalFsync},
		"standby taken out":       {base, with(1, "false"), journal.ClassLocalFsync},
		"fsync off":               {with(2, "off"), base, journal.ClassDemo},
		"fsync off behind it":     {base, with(2, "off"), journal.ClassDemo},
		"torn pages":              {with(3, "off"), base, journal.ClassDemo},
		"warnings hidden":         {with(4, "true"), base, journal.ClassLocalFsync},
		"loaded in between":       {base, with(5, now), journal.ClassLocalFsync},
		"loaded a moment ago":     {base, with(6, "true"), journal.ClassLocalFsync},
		"loaded, and no standby":  {with(1, "false"), with(6, "true"), journal.ClassLocalFsync},
		"loaded, and fsync off":   {with(2, "off"), with(5, now), journal.ClassDemo},
	} {
		if got := pgjournal.ClassOf(c.before, c.after); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}
