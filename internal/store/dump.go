package store

import (
	"encoding/hex"
	"io"
	"strconv"
	"time"

	"github.com/tidegate/tidegate/internal/epro"
)

// DumpFormat is the first line of a canonical dump. The dump is UTF-8 text, a
// line for each row, each ended by one LF. A line is a JSON array without
// white space: the table's name, its key, the other columns. Tables come in the
// order below; rows in the order of their key, texts compared byte by byte.
//
//	["cursor",shard,position,frames,ruleSet,tz,era]
//	["frame",shard,position,headerHash,run,n,committedAt]
//	["tree",shard,index,hash]
//	["run",shard,run,n,headerHash,committedAt]
//	["trial",trial,name,status,shard,version,createdAt,instrument…]
//	["site",trial,site,name,createdAt]
//	["enrollment",trial,patient,site,status,minEpoch,version,enrolledAt,withdrawnAt]
//	["staff",staff,name,removed,version]
//	["grant",staff,role,trial,site]
//	["report",position,index,trial,patient,site,reportId,version,disposition,[reason…],instrument,score,comments,completedAt,
//	  receivedAt,committedAt,actorType,actor,device,clockApart,erased,meaning,resolution,resolutions,resolutionReason,resolvedBy,resolvedAt]
//	["duplicate",position,index,ofPosition,ofIndex,trial,patient,reportId,actorType,actor,device,occurredAt,receivedAt,committedAt]
//	["fact",position,index,kind,version,id,trial,subject,actorType,actor,device,occurredAt,receivedAt,committedAt,meaning,
//	  summary,reason,applied,code,rejection,entityVersion,repeatsPosition,repeatsIndex]
//	["key",position,index,kind,version,body]
//	["books",trial,recorded,duplicates,conflicts,quarantined]
//
// Integers are decimal; absent integers, scores and comments are null. Hashes,
// runs and key bodies are lower-case hexadecimal texts; ids of reports and facts the 8-4-4-4-12
// form; truths are true and false. Instants are texts: RFC 3339 with nine
// digits of nanoseconds and the offset that was sent (Z for none), "" for none.
// In texts " and \ have a \ before them and characters below U+0020 are \u00xx
// in lower-case; every other character stands as it is.
//
// Nothing in a dump depends on the engine, on surrogate ids or on a clock of
// the machine that wrote it.
const DumpFormat = `["tidegate-tables",1]`

// DumpWriter writes the lines of a canonical dump. Its methods are chained:
// Row, the columns, End. The first error of the writer sticks.
type DumpWriter struct {
	w     io.Writer
	buf   []byte
	comma bool
	err   error
}

// NewDumpWriter begins a dump on w.
func NewDumpWriter(w io.Writer) *DumpWriter {
	return &DumpWriter{w: w, buf: append(make([]byte, 0, dumpBuffer+4096), DumpFormat+"\n"...)}
}

const dumpBuffer = 64 << 10

// Row begins a row of a table.
func (d *DumpWriter) Row(table string) *DumpWriter {
	d.buf = append(d.buf, '[')
	d.comma = false
	return d.Text(table)
}

// End ends the row.
func (d *DumpWriter) End() {
	d.buf = append(d.buf, ']', '\n')
	if len(d.buf) >= dumpBuffer {
		d.flush()
	}
}

// Close writes what is left and returns the first error.
func (d *DumpWriter) Close() error {
	d.flush()
	return d.err
}

func (d *DumpWriter) flush() {
	if d.err == nil {
		_, d.err = d.w.Write(d.buf)
	}
	d.buf = d.buf[:0]
}

func (d *DumpWriter) sep() {
	if d.comma {
		d.buf = append(d.buf, ',')
	}
	d.comma = true
}

// Text adds a text.
func (d *DumpWriter) Text(s string) *DumpWriter {
	d.sep()
	d.buf = append(d.buf, '"')
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			d.buf = append(d.buf, '\\', c)
		case c < 0x20:
			const digits = "0123456789abcdef"
			d.buf = append(d.buf, '\\', 'u', '0', '0', digits[c>>4], digits[c&15])
		default:
			d.buf = append(d.buf, c)
		}
	}
	d.buf = append(d.buf, '"')
	return d
}

// Texts adds an array of texts.
func (d *DumpWriter) Texts(list []string) *DumpWriter {
	d.sep()
	d.buf = append(d.buf, '[')
	d.comma = false
	for _, s := range list {
		d.Text(s)
	}
	d.buf = append(d.buf, ']')
	d.comma = true
	return d
}

// Uint adds an integer.
func (d *DumpWriter) Uint(v uint64) *DumpWriter {
	d.sep()
	d.buf = strconv.AppendUint(d.buf, v, 10)
	return d
}

// Null adds a null.
func (d *DumpWriter) Null() *DumpWriter {
	d.sep()
	d.buf = append(d.buf, "null"...)
	return d
}

// Bool adds a truth.
func (d *DumpWriter) Bool(v bool) *DumpWriter {
	d.sep()
	d.buf = strconv.AppendBool(d.buf, v)
	return d
}

// Hex adds bytes in hexadecimal.
func (d *DumpWriter) Hex(b []byte) *DumpWriter {
	d.sep()
	d.buf = append(d.buf, '"')
	d.buf = hex.AppendEncode(d.buf, b)
	d.buf = append(d.buf, '"')
	return d
}

// UUID adds an id.
func (d *DumpWriter) UUID(u epro.UUID) *DumpWriter {
	d.sep()
	d.buf = append(d.buf, '"')
	d.buf, _ = u.AppendText(d.buf) // never fails
	d.buf = append(d.buf, '"')
	return d
}

// Ref adds a place: two integers, or two nulls for none.
func (d *DumpWriter) Ref(r *Ref) *DumpWriter {
	if r == nil {
		return d.Null().Null()
	}
	return d.Uint(uint64(r.Position)).Uint(uint64(r.Index))
}

// Actor adds an actor: type, id, device.
func (d *DumpWriter) Actor(a epro.Actor) *DumpWriter {
	return d.Uint(uint64(a.Type)).Text(a.ID).Text(a.Device)
}

// dumpTime is RFC 3339 with exactly nine digits.
const dumpTime = "2006-01-02T15:04:05.000000000Z07:00"

// Time adds an instant.
func (d *DumpWriter) Time(t time.Time) *DumpWriter {
	d.sep()
	d.buf = append(d.buf, '"')
	if !t.IsZero() {
		d.buf = t.AppendFormat(d.buf, dumpTime)
	}
	d.buf = append(d.buf, '"')
	return d
}

// Cursor adds the row of a cursor.
func (d *DumpWriter) Cursor(shard uint32, c Cursor) {
	d.Row("cursor").Uint(uint64(shard)).Uint(uint64(c.Position)).Uint(c.Frames).Text(c.RuleSet).Text(c.TZ).Uint(c.Era).End()
}

// Frame adds the row of a frame.
func (d *DumpWriter) Frame(shard uint32, f *FrameRow) {
	d.Row("frame").Uint(uint64(shard)).Uint(uint64(f.Position)).Hex(f.Hash[:]).Hex(f.Run[:]).Uint(f.N).Time(time.Unix(0, f.Time).UTC()).End()
}

// Tree adds the row of a hash of the checkpoint tree.
func (d *DumpWriter) Tree(shard uint32, index uint64, hash []byte) {
	d.Row("tree").Uint(uint64(shard)).Uint(index).Hex(hash).End()
}

// Run adds the row of a run's head.
func (d *DumpWriter) Run(shard uint32, run []byte, h *RunHead) {
	d.Row("run").Uint(uint64(shard)).Hex(run).Uint(h.N).Hex(h.Hash[:]).Time(time.Unix(0, h.Time).UTC()).End()
}

// Trial adds the row of a trial.
func (d *DumpWriter) Trial(t *Trial) {
	d.Row("trial").Text(t.ID).Text(t.Name).Text(string(t.Status)).Uint(uint64(t.Shard)).Uint(t.Version).Time(t.CreatedAt)
	for _, i := range t.Instruments {
		d.Text(i)
	}
	d.End()
}

// Site adds the row of a site.
func (d *DumpWriter) Site(s *Site) {
	d.Row("site").Text(s.TrialID).Text(s.ID).Text(s.Name).Time(s.CreatedAt).End()
}

// Enrollment adds the row of an enrolment.
func (d *DumpWriter) Enrollment(e *Enrollment) {
	d.Row("enrollment").Text(e.TrialID).Text(e.PatientID).Text(e.SiteID).Text(string(e.Status)).Uint(uint64(e.MinEpoch)).
		Uint(e.Version).Time(e.EnrolledAt).Time(e.WithdrawnAt).End()
}

// Staff adds the row of a staff member, without the grants.
func (d *DumpWriter) Staff(s *Staff) {
	d.Row("staff").Text(s.ID).Text(s.Name).Bool(s.Removed).Uint(s.Version).End()
}

// Grant adds the row of a grant.
func (d *DumpWriter) Grant(staff string, g Grant) {
	d.Row("grant").Text(staff).Text(g.Role).Text(g.TrialID).Text(g.SiteID).End()
}

// Report adds the row of a report.
func (d *DumpWriter) Report(r *Report, meaning []byte) {
	d.Row("report").Ref(&r.Ref).Text(r.TrialID).Text(r.PatientID).Text(r.SiteID).UUID(r.ReportID).Uint(uint64(r.Version)).Text(string(r.Disposition))
	reasons := make([]string, len(r.Reasons))
	for i, reason := range r.Reasons {
		reasons[i] = string(reason)
	}
	d.Texts(reasons).Text(r.Instrument)
	if r.Score == nil {
		d.Null()
	} else {
		d.Uint(uint64(*r.Score))
	}
	if r.Comments == nil {
		d.Null()
	} else {
		d.Text(*r.Comments)
	}
	d.Time(r.CompletedAt).Time(r.ReceivedAt).Time(r.CommittedAt).Actor(r.Actor).Bool(r.ClockApart).Bool(r.Erased).Hex(meaning).
		Text(string(r.Resolution)).Uint(r.ResolutionCount).Text(r.ResolutionReason).Text(r.ResolvedBy).Time(r.ResolvedAt).End()
}

// Duplicate adds the row of a repeated report.
func (d *DumpWriter) Duplicate(r *Duplicate) {
	d.Row("duplicate").Ref(&r.Ref).Ref(&r.Of).Text(r.TrialID).Text(r.PatientID).UUID(r.ReportID).Actor(r.Actor).
		Time(r.OccurredAt).Time(r.ReceivedAt).Time(r.CommittedAt).End()
}

// Fact adds the row of a fact that is no report.
func (d *DumpWriter) Fact(f *FactRow) {
	d.Row("fact").Ref(&f.Ref).Text(f.Kind.Name).Uint(uint64(f.Kind.Version)).UUID(f.FactID).Text(f.TrialID).Text(f.Subject).Actor(f.Actor).
		Time(f.OccurredAt).Time(f.ReceivedAt).Time(f.CommittedAt).Hex(f.Meaning[:]).Text(f.Summary).Text(f.AuditEntry.Reason).
		Bool(f.Applied).Text(f.Code).Text(f.Rejection).Uint(f.Version).Ref(f.Repeats).End()
}

// Key adds the row of a key fact.
func (d *DumpWriter) Key(k *KeyFact) {
	d.Row("key").Ref(&k.Ref).Text(k.Kind.Name).Uint(uint64(k.Kind.Version)).Hex(k.Body).End()
}

// Books adds the row of a trial's books.
func (d *DumpWriter) Books(b *Books) {
	d.Row("books").Text(b.TrialID).Uint(b.Recorded).Uint(b.Duplicates).Uint(b.Conflicts).Uint(b.Quarantined).End()
}
