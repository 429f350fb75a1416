package verify_test

import (
	"bytes"
	"strings"
	"testing"
)

func TestSoundJournalHasNoFindings(t *testing.T) {
	w := newWorld(t)
	w.fill()
	res := w.audit(w.journalPath(), everything)
	if !res.OK() {
		t.Fatalf("findings in a sound journal:%s", list(res))
	}
	b := res.Books
	if b.Accepted != 16 || b.Recorded != 13 || b.Duplicates != 1 || b.Conflicts != 1 || b.Quarantined != 1 || b.Pending != 0 {
		t.Errorf("books %+v", b)
	}
	if res.Frames != 12 || res.Runs != 3 || res.Acks.Lines != 16 || res.Acks.Found != 16 || res.AnchorsHeld != 1 || !*res.RebuildSame {
		t.Errorf("result %+v acks %+v", res, res.Acks)
	}
	var text, js bytes.Buffer
	if err := res.WriteText(&text); err != nil {
		t.Fatal(err)
	}
	if err := res.WriteJSON(&js); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"accepted     16", "lost         0", "altered      0", "doubled      0", "no findings"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("text lacks %q:\n%s", want, &text)
		}
	}
	if !strings.Contains(js.String(), `"ok": true`) {
		t.Errorf("json: %s", &js)
	}
}

// Between the two renames of a rebuild, or when store.db was deleted, there are
// no tables: nothing has passed a report then, so all of them are pending.
func TestWithoutTablesAllIsPending(t *testing.T) {
	w := newWorld(t)
	w.fill()
	with := everything
	with.tables, with.rebuild = false, false
	res := w.audit(w.journalPath(), with)
	if !res.OK() || res.TablesChecked {
		t.Fatalf("tables checked: %v, findings:%s", res.TablesChecked, list(res))
	}
	if b := res.Books; b.Accepted != 16 || b.Pending != 16 || b.Recorded+b.Duplicates+b.Conflicts+b.Quarantined != 0 {
		t.Errorf("books %+v", b)
	}
	var text bytes.Buffer
	if err := res.WriteText(&text); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(text.String(), "pending      16") || strings.Contains(text.String(), "recorded") {
		t.Errorf("text:\n%s", &text)
	}
}
