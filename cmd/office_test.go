package cmd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/notmuch-imap/notmuch-imap/internal/imaptest"
	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
)

// office is a user's machine beside the seed's server, after a first sync.
type office struct {
	*stage
	t      *testing.T
	server *imaptest.Server
}

func newOffice(t *testing.T) *office {
	t.Helper()
	server, err := imaptest.NewSeed()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	p := &program{stdout: &bytes.Buffer{}, stderr: &bytes.Buffer{}, getenv: os.Getenv}
	s, err := p.setStage(t.TempDir(), server)
	if err != nil {
		t.Fatal(err)
	}
	o := &office{s, t, server}
	o.run(exitPartly, "sync", "--quiet")
	return o
}

// run runs the program as one types it, and gives what it prints.
func (o *office) run(status int, args ...string) string {
	o.t.Helper()
	ctx, cancel := context.WithTimeout(o.t.Context(), tooLong)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(o.dir, "bin", name), args...)
	cmd.Env = o.env
	out, err := cmd.CombinedOutput()
	if exit, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok || ok && exit.ExitCode() != status || err == nil && status != 0 {
		o.t.Fatalf("%v: %v, want status %d: %s", args, err, status, out)
	}
	return string(out)
}

// open starts a reader in the INBOX, with the keys as the manual page has it.
func (o *office) open(program string) *reader {
	o.t.Helper()
	return o.openIn(program, "=work/INBOX", "Msgs:1233")
}

// openIn starts a reader in another folder, and waits for the screen.
func (o *office) openIn(program, folder string, patterns ...string) *reader {
	o.t.Helper()
	rc := filepath.Join(o.dir, "rc")
	text := "set folder=" + o.dir + "/Mail\nset sleep_time=0\nsource '" + name + " setup " + program + "|'\n"
	if err := os.WriteFile(rc, []byte(text), 0o600); err != nil {
		o.t.Fatal(err)
	}
	r := startReader(o.t, append([]string{"PAGER=less", "LESS="}, o.env...), program, "-n", "-F", rc, "-f", folder)
	r.shows(patterns...)
	return r
}

// rows gives the states of the messages that failed.
func (o *office) rows() (states []ledger.State) {
	o.t.Helper()
	l, err := ledger.OpenReadOnly(o.t.Context(), filepath.Join(o.dir, "state", name, "work"))
	if err != nil {
		o.t.Fatal(err)
	}
	rows, err := l.InState(o.t.Context(), ledger.Stub, ledger.GivenUp)
	if err := errors.Join(err, l.Close()); err != nil {
		o.t.Fatal(err)
	}
	for _, m := range rows {
		states = append(states, m.State)
	}
	return states
}

// What stands in the list for the stub, for the mail, and where the stub was:
// NeoMutt marks it as deleted.
const (
	seedStub = `Jane Doe .*\[not fetched\] Minutes of the meeting`
	seedMail = `Jane Doe .*\) Minutes of the meeting on Tuesday`
	seedGone = `Msgs:(0|.*1232)|^ *[0-9]+ [ N]D .*not fetched`
)

// The story of the seed in the mail reader, on the list of ,f: look, ask again,
// be rid of it, and have the mail at last.
func TestMuttListsInspectsRetriesAndDrops(t *testing.T) {
	t.Parallel()
	otherPrograms(t)
	for program := range readers() {
		t.Run(program, func(t *testing.T) {
			t.Parallel()
			o := newOffice(t)
			r := o.open(program)
			r.press(",f", "failed.*Msgs:1", seedStub)
			r.press(",i", "^work/INBOX/15541$")
			r.press("q", "^-.-"+statusLine, seedStub)
			r.press(",r", "^work/INBOX/15541: .*", "its stub stays", "Press any key")
			r.press(" ", "^-.-"+statusLine, seedStub)

			list := filepath.Join(o.dir, ".cache", name, "failed")
			r.rested(list)
			r.press(",d", seedGone, "!any key")
			r.press(",f", "failed.*Msgs:0", "!"+seedStub)
			if got := fmt.Sprint(o.rows()); got != "[givenup]" {
				t.Errorf("after drop: %v", got)
			}
			o.run(exitPartly, "retry", "work/INBOX/15541")
			r.press(",f", "failed.*Msgs:1", seedStub)

			o.server.Heal(imaptest.SeedBadUID)
			r.rested(list)
			r.press(",r", "^work/INBOX/15541: the mail came", "Press any key")
			r.press(" ", seedGone, "!any key")
			r.press("c=work/INBOX\r", "Msgs:1233")
			r.press("l~s Minutes.of.the.meeting\r", "Msgs:1/1233|Shown:1", seedMail)
			if got := o.rows(); len(got) > 0 {
				t.Errorf("after the mail came: %v", got)
			}
		})
	}
}

// In the mailbox itself, from list and pager: delete on the server, after a
// question.
func TestMuttDeletesOnTheServer(t *testing.T) {
	t.Parallel()
	otherPrograms(t)
	for program := range readers() {
		t.Run(program, func(t *testing.T) {
			t.Parallel()
			o := newOffice(t)
			r := o.open(program)
			r.press("l~y fetch-failed\r", seedStub)
			r.press(",D", "UID +15541", "subject +Minutes of the meeting", `delete it on the server\? \[y/N\]$`)
			r.press("n\r", "nothing was done", "any key")
			r.press(" ", "^-.-"+statusLine, seedStub)
			if got := fmt.Sprint(o.rows()); got != "[stub]" {
				t.Errorf("after no: %v", got)
			}
			r.press("\r", "This is not the mail itself")
			r.press(",D", `delete it on the server\? \[y/N\]$`)
			r.rested(filepath.Join(o.dir, "Mail/work/INBOX"))
			r.press("y\r", "deleted on the server; it is gone from the mailbox, and all 1232", "any key")
			r.press(" ", "!any key")
			r.press("q", seedGone)
			if program == "neomutt" {
				r.press("$", "Purge 1 deleted")
				r.press("y")
			}
			r.shows("Msgs:.*1232", "!"+seedStub)
			if got := o.run(exitDone, "inspect", "work/INBOX/15541"); !strings.Contains(got, "does not list UID 15541") {
				t.Errorf("on the server:\n%s", got)
			}
			if got := o.rows(); len(got) > 0 {
				t.Errorf("after yes: %v", got)
			}
		})
	}
}

// NeoMutt 20220429 crashes when it has a change to write to a mail of a virtual
// folder that is gone from the disk and from notmuch.
func TestNeoMuttOutlivesAStubOfAVirtualFolder(t *testing.T) {
	t.Parallel()
	otherPrograms(t)
	const (
		read   = `^ +[0-9]+     .*not fetched`
		marked = `^ +[0-9]+  D  .*Zoë`
	)
	for _, inPager := range []bool{false, true} {
		for _, key := range []string{",d", ",r"} {
			t.Run(fmt.Sprintf("%s %t", key, inPager), func(t *testing.T) {
				t.Parallel()
				o := newOffice(t)
				o.server.Heal(imaptest.SeedBadUID)
				r := o.openIn("neomutt", "notmuch://"+o.dir+"/Mail?query=tag:fetch-failed or from:Zoë subject:208", seedStub, "Zoë", "!"+read)
				r.press("/Zoë\r")
				r.press("d", marked)
				r.press("/not.fetched\r\r", "This is not the mail itself")
				list := []string{"^-.-" + statusLine, read, "Zoë", "!" + marked, "![Pp]ress any key"}
				if !inPager {
					r.press("q", list[0], read, marked)
				}
				r.press(key)
				if key == ",r" {
					r.shows("^work/INBOX/15541: the mail came", "Press any key")
					r.press(" ", "!any key")
				}
				r.within("the stub is gone", func() bool { return o.run(exitDone, "stubs", "--json") == "" })
				if inPager {
					r.press("q")
				}
				r.shows(list...)
				r.press(":set ?delete\r", `delete="ask-yes"`)
				r.press("$", append(list, "Mailbox is unchanged")...)
				r.press("c=work/INBOX\r", "Msgs:.*(1233|1232)")
			})
		}
	}
}

// notmuch-mutt makes a maildir of symbolic links. That of a stub leads nowhere
// when the stub is gone; nothing else suffers.
func TestMuttKeysOnTheResultsOfNotmuchMutt(t *testing.T) {
	t.Parallel()
	otherPrograms(t)
	for program := range readers() {
		t.Run(program, func(t *testing.T) {
			t.Parallel()
			o := newOffice(t)
			dir := filepath.Join(o.dir, ".cache", "notmuch", "mutt", "results")
			search := func() {
				t.Helper()
				cmd := exec.Command("notmuch-mutt", "-o", dir, "search", "tag:fetch-failed or from:Build subject:208")
				cmd.Env = o.env
				if out, err := cmd.CombinedOutput(); err != nil {
					t.Fatalf("notmuch-mutt: %v: %s", err, out)
				}
			}
			search()
			r := o.openIn(program, dir, "Msgs:2", seedStub)
			r.press("/not.fetched\r\r", "This is not the mail itself")
			r.press("q", "^-.-"+statusLine)
			r.press(",i", "^work/INBOX/15541$")
			r.press("q", "^-.-"+statusLine, seedStub)
			r.press(",r", "its stub stays", "Press any key")
			r.press(" ", "^-.-"+statusLine, seedStub)

			r.press(",d", "^-.-"+statusLine, "!any key")
			r.within("the stub is gone", func() bool { return fmt.Sprint(o.rows()) == "[givenup]" })
			r.press("$", "^---"+statusLine, "Msgs:2", seedStub)
			r.press("=\r", "Subject: nightly build failed")
			r.press("q", "^-.-"+statusLine)

			o.run(exitPartly, "retry", "work/INBOX/15541")
			search()
			r.press("c"+dir+"\r", "Msgs:2", seedStub)
			o.server.Heal(imaptest.SeedBadUID)
			r.press("/not.fetched\r,r", "^work/INBOX/15541: the mail came", "Press any key")
			r.press(" ", "^-.-"+statusLine, seedStub, "!any key")
			r.press("c=work/INBOX\r", "Msgs:1233")
			r.press("l~s Minutes.of.the.meeting\r", "Msgs:1/1233|Shown:1", seedMail)
			r.press("c"+dir+"\r", "Msgs:1", "!"+seedStub, "nightly build failed")
		})
	}
}

// The report to an administrator has what was said about the message, on each connection
// of an inspection, and nothing of a sign-in.
func TestTheReportHasNothingOfTheSignIn(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	got := o.run(exitDone, "inspect", "--report", "work/INBOX/15541")
	_, talk, _ := strings.Cut(got, "The commands and answers:")
	for _, part := range []string{" EXAMINE ", " UID SEARCH UID 15541", " UID FETCH 15541 (BODYSTRUCTURE)", " UID FETCH 15541 (BODY.PEEK[])", "S: "} {
		if !strings.Contains(talk, part) {
			t.Errorf("no %q in\n%s", part, got)
		}
	}
	for _, part := range []string{"AUTHENTICATE", "LOGIN", "CAPABILITY", "* OK IMAP"} {
		if strings.Contains(talk, part) {
			t.Errorf("%q in\n%s", part, got)
		}
	}
}
