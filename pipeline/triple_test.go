package pipeline

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/maildir"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
	"github.com/notmuch-imap/notmuch-imap/pipeline/stub"
)

// The table of what two ways mean: what became of one message on the server and
// here since both agreed on it, and what both have after one sync. A second and
// a third find nothing to do.
//
//	I A T    it is in INBOX, Archive, Trash; two letters: in both
//	I:FS     with these flags (Seen Flagged Replied Passed Draft, T is \Deleted)
//	I?       a stub stands for it
//	-        it is nowhere
//	*        it was nowhere, that is, it is new
//
// The last column has how the run is configured, and "twice" where it takes one
// sync more.
const triples = `
what                                 | agreed | server | here  -> server | here  | with
read here                            | I      | I      | I:S   -> I:S    | I:S   |
read there                           | I      | I:S    | I     -> I:S    | I:S   |
read on both sides                   | I      | I:S    | I:S   -> I:S    | I:S   |
unread again here                    | I:S    | I:S    | I     -> I      | I     |
unread again there                   | I:S    | I      | I:S   -> I      | I     |
unread again on both sides           | I:S    | I      | I     -> I      | I     |
flagged here, answered there         | I      | I:R    | I:F   -> I:FR   | I:FR  |
one flag off here, one on there      | I:F    | I:FR   | I     -> I:R    | I:R   |
one flag on here, one off there      | I:F    | I      | I:FS  -> I:S    | I:S   |
one flag off here, another off there | I:FS   | I:F    | I:S   -> I      | I     |
all flags here                       | I      | I      | I:DFPRS -> I:DFPRS | I:DFPRS |
all flags there                      | I      | I:DFPRS | I    -> I:DFPRS | I:DFPRS |
all flags off here                   | I:DFPRS | I:DFPRS | I   -> I      | I     |

deleted here                         | I      | I      | -     -> T      | T     |
marked for deletion here             | I      | I      | I:T   -> T      | T     |
read and marked for deletion here    | I      | I      | I:ST  -> T:S    | T:S   |
deleted there                        | I      | -      | I     -> -      | -     |
marked for deletion there            | I      | I:T    | I     -> I:T    | I:T   |
no longer marked there               | I:T    | I      | I:T   -> I      | I     |
deleted on both sides                | I      | -      | -     -> -      | -     |
marked on both sides                 | I      | I:T    | I:T   -> T:T    | T:T   |
deleted here, marked there           | I      | I:T    | -     -> T:T    | T:T   |
deleted here, read there             | I      | I:S    | -     -> T:S    | T:S   |
deleted here, flagged there          | I      | I:F    | -     -> I:F    | I:F   |
deleted here, unflagged there        | I:F    | I      | -     -> I      | I     |
marked here, flagged there           | I      | I:F    | I:T   -> I:F    | I:F   |
flagged here, deleted there          | I      | -      | I:F   -> -      | -     |
deleted in the Trash                 | T      | T      | -     -> -      | -     |
marked for deletion in the Trash     | T      | T      | T:T   -> -      | -     |
deleted in the Trash, flagged there  | T      | T:F    | -     -> T:F    | T:F   |
taken out of the Trash here          | T      | T      | I     -> I      | I     |
taken out of the Trash there         | T      | I      | T     -> I      | I     |
deleted here, moved there            | I      | A      | -     -> A      | A     |
marked here, moved there             | I      | A      | I:T   -> A      | A     |
deleted here, copied there           | I      | I A    | -     -> A T    | A T   |

moved here                           | I      | I      | A     -> A      | A     |
moved there                          | I      | A      | I     -> A      | A     |
moved and flagged here               | I      | I      | A:FS  -> A:FS   | A:FS  |
moved and unread again here          | I:S    | I:S    | A     -> A      | A     |
moved and marked for deletion here   | I      | I      | A:T   -> T      | T     | twice
moved on both sides                  | I      | A      | A     -> A      | A     |
moved on both sides, apart           | I      | A      | T     -> A      | A     |
moved on both sides, apart, read here | I     | A      | T:S   -> A:S    | A:S   |
moved here, flagged there            | I      | I:F    | A:S   -> A:FS   | A:FS  |
moved there, flagged here            | I      | A:F    | I:S   -> A:FS   | A:FS  |
moved here, deleted there            | I      | -      | A     -> A      | A     |
put into the Trash here              | I      | I      | T     -> T      | T     |
put into the Trash there             | I      | T      | I     -> T      | T     |
put into the Trash on both sides     | I      | T      | T     -> T      | T     |
copied here                          | I      | I      | I A   -> A I    | A I   |
copied there                         | I      | I A    | I     -> A I    | A I   |
copied on both sides                 | I      | I A    | I A   -> A I    | A I   |
one of two copies deleted here       | I A    | I A    | A     -> A T    | A T   |
one of two copies deleted there      | I A    | A      | I A   -> A      | A     |
one each                             | I A    | I      | A     -> T      | T     |

new here                             | *      | -      | I:S   -> I:S    | I:S   |
new there                            | *      | I:F    | -     -> I:F    | I:F   |
new on both sides                    | *      | I      | I     -> I      | I     |
new on both sides, read here         | *      | I      | I:S   -> I:S    | I:S   |
new on both sides, read there        | *      | I:S    | I     -> I:S    | I:S   |
new on both sides, apart             | *      | I      | A     -> A I    | A I   |
new in the Trash here                | *      | -      | T     -> T      | T     |
new and marked for deletion here     | *      | -      | I:T   -> T      | T     | twice
new in two folders here              | *      | -      | I A   -> A I    | A I   |
new in two mailboxes there           | *      | I A    | -     -> A I    | A I   |

a stub that is read                  | I?     | I      | I?:FS -> I      | I?:FS |
a stub that is flagged there         | I?     | I:F    | I?    -> I:F    | I?:F  |
a stub that is deleted               | I?     | I      | -     -> I      | -     |
a stub that is marked                | I?     | I      | I?:T  -> I      | I?:T  |
a stub that is moved                 | I?     | I      | A?    -> I      | A?    |
a stub that is copied                | I?     | I      | I? A? -> I      | A? I? |
a stub whose message is deleted      | I?     | -      | I?    -> -      | -     |

deleted here, to be expunged         | I      | I      | -     -> -      | -     | expunge
marked here, to be expunged          | I      | I      | I:T   -> -      | -     | expunge
deleted here, flagged there, expunge | I      | I:F    | -     -> I:F    | I:F   | expunge
deleted here, to be kept             | I      | I      | -     -> I      | -     | keep
marked here, to be kept              | I      | I      | I:T   -> I      | I:T   | keep
moved here, deletions kept           | I      | I      | A     -> A      | A     | keep

read here, read-only                 | I      | I      | I:S   -> I      | I:S   | readonly
deleted here, read-only              | I      | I      | -     -> I      | -     | readonly
moved here, read-only                | I      | I      | A     -> I      | A     | readonly
new here, read-only                  | *      | -      | A     -> -      | A     | readonly
flagged there, read-only             | I      | I:F    | I     -> I:F    | I:F   | readonly
deleted there, read-only             | I      | -      | I     -> -      | -     | readonly

read here, INBOX is locked           | I      | I      | I:S   -> I      | I:S   | locked
deleted here, INBOX is locked        | I      | I      | -     -> I      | -     | locked
moved here, INBOX is locked          | I      | I      | A     -> I      | A     | locked
new here, INBOX is locked            | *      | -      | I     -> -      | I     | locked
moved into INBOX, which is locked    | A      | A      | I     -> A      | I     | locked
flagged there, INBOX is locked       | I      | I:F    | I     -> I:F    | I:F   | locked

missing here, restore                | I      | I      | -     -> I      | I     | restore
marked here, restore                 | I      | I      | I:T   -> I      | I     | restore
read here, restore                   | I      | I      | I:S   -> I      | I     | restore
unread here, restore                 | I:S    | I:S    | I     -> I:S    | I:S   | restore
moved here, restore                  | I      | I      | A     -> I      | I     | restore
moved and read here, restore         | I      | I      | A:S   -> I      | I     | restore
missing here, read-only, restore     | I      | I      | -     -> I      | I     | readonly restore
moved here, read-only, restore       | I      | I      | A     -> I      | I     | readonly restore
missing here, INBOX alone, restore   | I      | I      | -     -> I      | I     | alone restore
moved here, INBOX alone, restore     | I      | I      | A     -> I      | I     | alone restore

read here, dry run                   | I      | I      | I:S   -> I      | I:S   | dry
deleted here, dry run                | I      | I      | -     -> I      | -     | dry
moved here, dry run                  | I      | I      | A     -> I      | A     | dry
new here, dry run                    | *      | -      | I     -> -      | I     | dry
new there, dry run                   | *      | I      | -     -> I      | -     | dry
missing here, restore, dry run       | I      | I      | -     -> I      | -     | dry restore
`

// triple is a row of it.
type triple struct {
	n                    int // of the mail
	name                 string
	agreed, server, here []placed
	then                 struct{ server, here string }
	with                 []string
}

// placed is where one copy of the message is.
type placed struct {
	box     string
	stub    bool
	letters string
}

func (p placed) String() string {
	s := p.box[:1]
	if p.stub {
		s += "?"
	}
	if p.letters != "" {
		s += ":" + p.letters
	}
	return s
}

func text(places []placed) string {
	var out []string
	for _, p := range places {
		out = append(out, p.String())
	}
	if slices.Sort(out); out == nil {
		return "-"
	}
	return strings.Join(out, " ")
}

func readTriples(t testing.TB) (out []triple) {
	t.Helper()
	boxes := map[byte]string{'I': "INBOX", 'A': "Archive", 'T': "Trash"}
	places := func(cell string) (out []placed) {
		for word := range strings.FieldsSeq(strings.Trim(cell, "-*")) {
			where, letters, _ := strings.Cut(word, ":")
			out = append(out, placed{boxes[where[0]], strings.HasSuffix(where, "?"), letters})
		}
		return out
	}
	for line := range strings.Lines(triples) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "what ") {
			continue
		}
		cells := strings.Split(strings.Replace(line, "->", "|", 1), "|")
		if len(cells) != 7 {
			t.Fatalf("%d cells: %s", len(cells), line)
		}
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		tr := triple{n: len(out) + 1, name: cells[0], agreed: places(cells[1]), server: places(cells[2]), here: places(cells[3]), with: strings.Fields(cells[6])}
		tr.then.server, tr.then.here = cells[4], cells[5]
		out = append(out, tr)
	}
	return out
}

func (tr triple) has(option string) bool { return slices.Contains(tr.with, option) }

// options configure the run as the row says.
func (tr triple) options(o *Options) {
	for _, w := range tr.with {
		switch w {
		case "expunge":
			o.Deletions = DeletionsExpunge
		case "keep":
			o.Deletions = DeletionsKeep
		case "readonly":
			o.ReadOnly = true
		case "restore":
			o.Restore = true
		case "alone":
			o.Only = []string{"INBOX"}
		case "dry":
			o.DryRun = true
		}
	}
}

// letterFlags are the flags for which letters stand.
func letterFlags(letters string) []string {
	out := []string{}
	for _, f := range plan.FlagRows() {
		if strings.Contains(letters, f.Letter) {
			out = append(out, f.Flag)
		}
	}
	return out
}

// agree puts the message, and some that nobody touches, on the server, and lets
// both sides agree.
func (tr triple) agree(s *server, h *home) {
	bystand(s)
	for _, p := range tr.agreed {
		tr.deliver(s, p)
	}
	h.sync(s)
	s.box("INBOX").readOnly = tr.has("locked")
}

func bystand(s *server) {
	for i, name := range standing() {
		s.box(name).add(plainMail(1000+i), `\Seen`)
	}
}

// standing are the mailboxes of messages that nobody touches.
func standing() []string { return []string{"INBOX", "INBOX", "Archive", "Trash"} }

func (tr triple) deliver(s *server, p placed) {
	b := s.box(p.box)
	m := b.msgs[b.add(plainMail(tr.n), letterFlags(p.letters)...)]
	m.date = s.box("INBOX").msgs[1].date
	if p.stub {
		m.fault = &serverFault{}
	}
}

// uidOf is a mail's UID in a mailbox; 0 if it is not there.
func (b *serverBox) uidOf(n int) imap.UID {
	for _, u := range b.uids() {
		if b.msgs[u].raw == plainMail(n) {
			return u
		}
	}
	return 0
}

func in(places []placed, box string) int {
	return slices.IndexFunc(places, func(p placed) bool { return p.box == box })
}

// change does what the user did here, and what happened on the server.
func (tr triple) change(s *server, h *home) {
	h.t.Helper()
	uids := make(map[string]imap.UID)
	for _, p := range tr.agreed {
		uids[p.box] = s.box(p.box).uidOf(tr.n)
	}
	left := slices.Clone(tr.here)
	var gone []placed
	for _, p := range tr.agreed {
		i := in(left, p.box)
		if i < 0 {
			gone = append(gone, p)
			continue
		}
		if left[i].letters != p.letters {
			h.flag(p.box, uids[p.box], left[i].letters)
		}
		left = slices.Delete(left, i, i+1)
	}
	for _, p := range gone {
		if len(left) == 0 {
			h.remove(p.box, uids[p.box])
			continue
		}
		if !p.stub {
			h.flag(p.box, uids[p.box], left[0].letters)
		}
		h.move(p.box, uids[p.box], left[0].box, true)
		left = left[1:]
	}
	for _, p := range left {
		raw := plainMail(tr.n)
		if p.stub {
			stub, err := os.ReadFile(h.path("INBOX", h.file("INBOX", uids["INBOX"])))
			h.do(err)
			raw = string(stub)
		}
		h.put(p.box, raw, p.letters)
	}
	h.notmuchNew()

	for _, p := range tr.agreed {
		b := s.box(p.box)
		if i := in(tr.server, p.box); i < 0 {
			b.expunge(uids[p.box])
		} else if tr.server[i].letters != p.letters {
			b.flag(uids[p.box], letterFlags(tr.server[i].letters)...)
		}
	}
	for _, p := range tr.server {
		if in(tr.agreed, p.box) < 0 {
			tr.deliver(s, p)
		}
	}
}

// sides tells where the message is, on the server and here.
func (tr triple) sides(s *server, h *home) (server, here string) {
	h.t.Helper()
	var there, local []placed
	for _, name := range []string{"INBOX", "Archive", "Trash"} {
		for _, u := range s.box(name).uids() {
			if m := s.box(name).msgs[u]; m.raw == plainMail(tr.n) {
				there = append(there, placed{name, false, plan.Letters(m.flags)})
			}
		}
		for file, raw := range h.files(name) {
			_, err := stub.ReadKey(strings.NewReader(raw))
			if _, l := maildir.ParseName(file); err == nil || raw == strings.ReplaceAll(plainMail(tr.n), "\r\n", "\n") {
				local = append(local, placed{name, err == nil, l})
			}
		}
	}
	return text(there), text(local)
}

// bystanders asserts that nobody touched what nobody was to touch.
func bystanders(s *server, h *home) {
	h.t.Helper()
	for i, name := range standing() {
		want := strings.ReplaceAll(plainMail(1000+i), "\r\n", "\n")
		n := 0
		for file, raw := range h.files(name) {
			if raw == want && strings.HasSuffix(file, ":2,S") {
				n++
			}
		}
		there := slices.ContainsFunc(s.box(name).uids(), func(u imap.UID) bool {
			m := s.box(name).msgs[u]
			return m.raw == plainMail(1000+i) && plan.SameFlags(m.flags, []string{`\Seen`})
		})
		if n != 1 || !there {
			h.t.Errorf("mail %d of %s: here %d times, on the server %v", 1000+i, name, n, there)
		}
	}
}

// as asserts that both sides have what they are to have.
func (tr triple) as(when string, s *server, h *home) {
	h.t.Helper()
	if server, here := tr.sides(s, h); server != tr.then.server || here != tr.then.here {
		h.t.Errorf("%s, %s: server %s, here %s; want %s, %s", tr.name, when, server, here, tr.then.server, tr.then.here)
	}
}

// settled asserts that both sides have what they are to have, and that two more
// syncs find nothing to do.
func (tr triple) settled(s *server, h *home) {
	h.t.Helper()
	tr.as("then", s, h)
	bystanders(s, h)
	for _, when := range []string{"second", "third"} {
		s.writes = 0
		rep := h.sync(s, tr.options)
		tr.as(when, s, h)
		bystanders(s, h)
		switch {
		case tr.has("dry"):
		case rep.New+rep.Flagged+rep.Pushed+rep.Moved+rep.Deleted+rep.Uploaded+rep.Removed != 0, !tr.has("locked") && (s.writes > 0 || !rep.Clean()):
			h.t.Errorf("%s: %d writes, %+v", when, s.writes, rep)
		}
	}
	if tr.then.server == tr.then.here {
		h.notmuchNew()
		h.check(s)
	}
	if !tr.has("dry") {
		h.atRest(s)
	}
}

// runs is how many syncs it takes.
func (tr triple) runs() int {
	if tr.has("twice") {
		return 2
	}
	return 1
}

func TestTriples(t *testing.T) {
	for _, tr := range readTriples(t) {
		for wire, caps := range wires() {
			for _, mute := range []bool{false, true} {
				if spared(tr.name, wire, mute) {
					continue
				}
				t.Run(fmt.Sprintf("%s/%s/%v", tr.name, wire, mute), func(t *testing.T) {
					t.Parallel()
					s, h := newServer(caps...), newHome(t)
					s.mute = mute
					tr.agree(s, h)
					tr.change(s, h)
					for range tr.runs() {
						h.sync(s, tr.options)
					}
					tr.settled(s, h)
				})
			}
		}
	}
}
