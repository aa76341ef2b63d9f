package cmd

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/notmuch-imap/notmuch-imap/internal/imaptest"
	"github.com/notmuch-imap/notmuch-imap/internal/ledger/ledgertest"
)

// mover is somebody who comes from mbsync: a Dovecot, the Maildirs that mbsync made of
// it, and notmuch, which knows them.
type mover struct {
	*machine
	dovecot *imaptest.DovecotServer
	root    string
}

// settle makes the machine of somebody whose mail is on the server at host and port, with
// no mail on it yet.
func settle(t *testing.T, s *imaptest.DovecotServer) (m *mover, host, port string) {
	t.Helper()
	host, port, err := net.SplitHostPort(s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	m = settleAt(t, host, port, s.User, s.Password)
	m.dovecot = s
	return m, host, port
}

// settleAt is settle with any server.
func settleAt(t testing.TB, host, port, user, password string) *mover {
	t.Helper()
	otherPrograms(t)
	m := &mover{machine: &machine{t: t, dir: ledgertest.Dir(t)}}
	m.root = filepath.Join(m.dir, "mail", "work")
	for _, d := range []string{m.root, filepath.Join(m.dir, "bin")} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	me, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(me, filepath.Join(m.dir, "bin", name)); err != nil {
		t.Fatal(err)
	}
	m.write("secret", password+"\n")
	m.write("notmuch", "[database]\npath="+m.dir+"/mail\n[user]\nname=Me\nprimary_email=me@example.org\n[new]\ntags=unread;inbox\nignore=.mbsyncstate;.uidvalidity\n")
	m.write("config.toml", fmt.Sprintf("[account.work]\nhost = %q\nport = %s\ntls = \"none\"\nallow_plaintext = true\nuser = %q\npassword_file = \"secret\"\n", host, port, user))
	m.env = []string{"HOME=" + m.dir, "PATH=" + m.dir + "/bin:" + os.Getenv("PATH"), "NOTMUCH_CONFIG=" + m.dir + "/notmuch",
		"NOTMUCH_IMAP_CONFIG=" + m.dir + "/config.toml", "XDG_STATE_HOME=" + m.dir + "/state", "GORACE=atexit_sleep_ms=0"}
	return m
}

// newMover lets mbsync fetch what is on the server. style is its SubFolders, state its
// SyncState.
func newMover(t *testing.T, s *imaptest.DovecotServer, style, state string) *mover {
	t.Helper()
	return moverIn(t, s, "work", style, state)
}

// moverIn is newMover with another folder of the account.
func moverIn(t *testing.T, s *imaptest.DovecotServer, folder, style, state string) *mover {
	t.Helper()
	m, host, port := settle(t, s)
	m.root = filepath.Join(m.dir, "mail", folder)
	m.write("mbsyncrc", fmt.Sprintf("IMAPAccount a\nHost %s\nPort %s\nUser %s\nPass %q\nSSLType None\nAuthMechs LOGIN\n\nIMAPStore far\nAccount a\n\n"+
		"MaildirStore near\nPath %[5]s/\nInbox %[5]s/INBOX\nSubFolders %[6]s\nMaxSize 20k\n\nChannel c\nFar :far:\nNear :near:\nPatterns *\nCreate Both\nExpunge Both\nSync All\nSyncState %[7]s\n",
		host, port, s.User, s.Password, m.root, style, state))
	if state == "" {
		m.write("mbsyncrc", strings.ReplaceAll(m.read("mbsyncrc"), "SyncState \n", ""))
	}
	if style == "Maildir++" {
		m.write("mbsyncrc", strings.ReplaceAll(strings.ReplaceAll(m.read("mbsyncrc"), "Path "+m.root+"/\n", ""), m.root+"/INBOX", m.root))
	}
	m.mbsync()
	m.must("notmuch", "new")
	return m
}

func (m *mover) write(file, text string) {
	m.t.Helper()
	if err := os.WriteFile(filepath.Join(m.dir, file), []byte(text), 0o600); err != nil {
		m.t.Fatal(err)
	}
}

// switchesTo configures another server, for the same folders, as the only account.
func (m *mover) switchesTo(s *imaptest.DovecotServer, account string) {
	m.t.Helper()
	host, port, err := net.SplitHostPort(s.Addr())
	if err != nil {
		m.t.Fatal(err)
	}
	m.write("secret", s.Password+"\n")
	m.write("config.toml", fmt.Sprintf("[account.%s]\nhost = %q\nport = %s\ntls = \"none\"\nallow_plaintext = true\nuser = %q\npassword_file = \"secret\"\nfolder = \"work\"\n", account, host, port, s.User))
}

func (m *mover) read(file string) string {
	m.t.Helper()
	text, err := os.ReadFile(filepath.Join(m.dir, file))
	if err != nil {
		m.t.Fatal(err)
	}
	return string(text)
}

func (m *mover) must(args ...string) string {
	m.t.Helper()
	out, status := m.run(args...)
	if status != 0 {
		m.t.Fatalf("%q: status %d: %s", args, status, out)
	}
	return out
}

func (m *mover) mbsync() { m.must("mbsync", "-c", filepath.Join(m.dir, "mbsyncrc"), "-a") }

// file gives the path of the one file of a message.
func (m *mover) file(id string) string {
	m.t.Helper()
	return strings.TrimSpace(m.must("notmuch", "search", "--output=files", "id:"+id))
}

// says wants lines in what a command said.
func says(t *testing.T, out string, lines ...string) {
	t.Helper()
	for _, l := range lines {
		if !strings.Contains("\n"+out, "\n"+l+"\n") {
			t.Errorf("there is no line %q in\n%s", l, out)
		}
	}
}

// TestMbsyncIsTakenOver in each layout: no mail is fetched or sent but what is new on one
// side, what was changed since mbsync's last run goes where it belongs, no tag changes,
// and the way back stays open.
func TestMbsyncIsTakenOver(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		style, state string
		back         bool // to mbsync
	}{{"Verbatim", "*", false}, {"Maildir++", "*", false}, {"Legacy", "*", false}, {"Verbatim", "", false}, {"Verbatim", "dir/", false}, {"Verbatim", "pre-", false}, {"Verbatim", "*", true}} {
		t.Run(fmt.Sprint(c), func(t *testing.T) {
			t.Parallel()
			s := dovecot(t)
			raws := rawsDovecot(12)
			const anonymous = "From: a@example.org\r\nSubject: no id\r\nDate: Mon, 01 Mar 2021 04:05:06 +0000\r\n\r\n"
			raws = append(raws, anonymous+"one\r\n", anonymous+"two\r\n", rawDovecot(3), // a second copy
				"Message-ID: <big@example.org>\r\nSubject: big\r\n\r\n"+strings.Repeat("xxxxxxxxxxxxxxxxxxxxxxxxxx\r\n", 1500))
			appendAll(t, s, "INBOX", raws...)
			appendAll(t, s, "Archiv&AOk-/2024", rawDovecot(100), rawDovecot(101))
			appendAll(t, s, "Trash", rawDovecot(200))
			state := c.state
			if state != "*" && state != "" {
				state = t.TempDir() + "/" + state
				if err := os.MkdirAll(filepath.Dir(state), 0o700); err != nil {
					t.Fatal(err)
				}
			}
			m := newMover(t, s, c.style, state)
			m.must("notmuch", "tag", "+mine", "--", "id:d1@example.org", "or", "id:d100@example.org")

			// Since then, on both sides.
			command(t, s, "SELECT INBOX", `UID STORE 3 +FLAGS (\Answered)`, `UID STORE 5 +FLAGS (\Deleted)`, "UID EXPUNGE 5")
			appendAll(t, s, "INBOX", rawDovecot(20))
			m.must("notmuch", "tag", "+flagged", "--", "id:d0@example.org")
			if err := os.Remove(m.file("d6@example.org")); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(filepath.Dir(m.file("d0@example.org")), "..", "cur", "mine:2,S"), []byte(strings.ReplaceAll(rawDovecot(30), "\r\n", "\n")), 0o600); err != nil {
				t.Fatal(err)
			}
			m.must("notmuch", "new")
			before := m.must("notmuch", "dump", "--include=properties", "--include=tags")
			words := []string{name, "import", "mbsync"}
			if state != c.state {
				words = append(words, "--from", state)
			}
			lines := []string{
				"work/Archivé/2024: 2 messages are paired",
				"work/INBOX: 13 messages are paired; 1 is only here: a sync uploads or moves it; 1 is only there: a sync fetches it; 1 was removed here since: a sync deletes it there; 1 is gone there since: a sync removes it here; 1 was left there by mbsync, and stays there",
				"work/Trash: 1 message is paired",
			}
			says(t, m.must(append(words, "-n")...), append(lines, "work: would pair 16 messages in 3 mailboxes")...)
			says(t, m.must(append(words, "work")...), append(lines, "work: paired 16 messages in 3 mailboxes; next: notmuch imap sync -n work")...)
			if out, status := m.run(words...); status != 0 || !strings.Contains(out, "work/INBOX: is synchronised already\n") {
				t.Errorf("status %d: %s", status, out)
			}
			if after := m.must("notmuch", "dump", "--include=properties", "--include=tags"); after != before {
				t.Errorf("tags were\n%s\nand are\n%s", before, after)
			}
			if c.back {
				m.mbsync()
			} else {
				foreseen := m.must(name, "sync", "-n")
				out := m.must(name, "sync", "--trace", filepath.Join(m.dir, "trace"))
				if n := strings.Count(m.read("trace"), "BODY[] "); n != 2 { // the new one, and that which goes to the Trash
					t.Errorf("%d bodies were fetched:\n%s", n, m.read("trace"))
				}
				last := func(s string) string {
					lines := strings.Split(strings.TrimSpace(s), "\n")
					return strings.Replace(lines[len(lines)-1], "would be: ", "", 1)
				}
				if last(foreseen) != last(out) {
					t.Errorf("foreseen was\n%s\nand done\n%s", foreseen, out)
				}
				for _, want := range []string{" 1 change of flags,", " 1 change of flags sent,", " 1 deleted on the server,", " 1 uploaded,", " 1 removed\n"} {
					if !strings.Contains(out, want) {
						t.Errorf("no %q in %s", want, out)
					}
				}
				says(t, m.must(name, "sync"), "work: nothing new")
				says(t, m.must(name, "verify", "--deep"), "work: all 19 messages are here, equal in every word; 1 stays on the server, see: notmuch-imap stubs --all")
				for query, tags := range map[string]string{"id:d0@example.org": "flagged inbox unread", "id:d1@example.org": "inbox mine unread",
					"id:d2@example.org": "inbox replied unread", "id:d20@example.org": "inbox unread", "id:d100@example.org": "inbox mine unread"} {
					if got := strings.Join(strings.Fields(m.must("notmuch", "search", "--output=tags", query)), " "); got != tags {
						t.Errorf("%s has %q, want %q", query, got, tags)
					}
				}
				if n := strings.TrimSpace(m.must("notmuch", "count", "--output=files", "*")); n != "20" { // the 19, and mbsync's placeholder
					t.Errorf("%s files", n)
				}
			}
			m.must("notmuch", "new")
			status, err := s.Command("STATUS INBOX (MESSAGES)", "STATUS Trash (MESSAGES)", `STATUS "Archiv&AOk-/2024" (MESSAGES)`)
			if err != nil {
				t.Fatal(err)
			}
			trash := 2
			if c.back {
				trash = 1 // mbsync expunges
			}
			for _, want := range []string{"INBOX (MESSAGES 16)", fmt.Sprintf("Trash (MESSAGES %d)", trash), "(MESSAGES 2)"} {
				if all := strings.Join(status, "\n"); !strings.Contains(all, want) {
					t.Errorf("no %s in %s", want, all)
				}
			}
		})
	}
}

// TestWhatMbsyncSaysIsNotBelieved where the server says otherwise: then the first sync
// pairs what is here by what it is, and doubles nothing.
func TestWhatMbsyncSaysIsNotBelieved(t *testing.T) {
	t.Parallel()
	s := dovecot(t)
	raws := rawsDovecot(6)
	for _, box := range []string{"Renumbered", "Exchanged", "Anonymous", "Short", "Well"} {
		appendAll(t, s, box, raws...)
	}
	const anonymous = "From: a@example.org\r\nSubject: number %d\r\nDate: Mon, 01 Mar 2021 04:05:06 +0000\r\n\r\nx\r\n"
	raws = nil
	for i := range 160 {
		raws = append(raws, fmt.Sprintf(anonymous, i))
	}
	appendAll(t, s, "Anonymous", raws...)
	appendAll(t, s, "Cut", fmt.Sprintf(anonymous, 1), fmt.Sprintf(anonymous, 2), fmt.Sprintf(anonymous, 3), fmt.Sprintf(anonymous, 4), rawDovecot(1), rawDovecot(2), rawDovecot(3))
	m := newMover(t, s, "Verbatim", "*")
	// As after a full disk, or a crash: what is left of a header tells nothing against the rest of them.
	for uid, text := range map[int]string{2: "From: a@example.org\nSubject: numb", 3: "", 5: "", 6: "Received: from", 7: strings.Repeat("\x00", len(rawDovecot(3))-2)} {
		names, err := filepath.Glob(filepath.Join(m.root, "Cut", "*", fmt.Sprintf("*,U=%d*", uid)))
		if err != nil || len(names) != 1 {
			t.Fatalf("%q, %v", names, err)
		}
		m.write(names[0][len(m.dir)+1:], text)
	}
	state := func(box, from, to string) {
		file := filepath.Join("mail", "work", box, ".mbsyncstate")
		text := m.read(file)
		if !strings.Contains(text, from) {
			t.Fatalf("no %q in %s", from, text)
		}
		m.write(file, strings.Replace(text, from, to, 1))
	}
	state("Renumbered", "FarUidValidity 1", "FarUidValidity 2")
	state("Exchanged", "\n1 1 \n2 2 \n", "\n1 2 \n2 1 \n")
	state("Short", "\n5 5 \n6 6 \n", "\n")
	state("Anonymous", "\n165 165 \n166 166 \n", "\n165 166 \n166 165 \n") // as the newest of a server that was restored
	out, status := m.run(name, "import", "mbsync")
	if status != exitPartly {
		t.Errorf("status %d", status)
	}
	for _, want := range []string{
		"work/INBOX: 0 messages are paired\n",
		"work/Well: 6 messages are paired\n",
		"work/Cut: 2 messages are paired; 5 are unsure: their files here have no whole header; a sync fetches those, too, and uploads none\n",
		"work/Renumbered: not taken over, the first sync pairs it by what the mail is: the server's UIDVALIDITY is ",
		"work/Exchanged: not taken over, the first sync pairs it by what the mail is: UID 1 has the Message-ID d0@example.org on the server, and d1@example.org in new/",
		"work/Short: not taken over, the first sync pairs it by what the mail is: it knows neither UID ",
		"work/Anonymous: not taken over, the first sync pairs it by what the mail is: UID 165 has another Subject on the server than new/",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	m.must(name, "sync")
	says(t, m.must(name, "sync"), "work: nothing new")
	if files, err := filepath.Glob(filepath.Join(m.root, "Cut", "[cn]*", "*")); err != nil || len(files) != 7+5 {
		t.Errorf("%q, %v", files, err)
	}
	if out, err := s.Command("STATUS Cut (MESSAGES)"); err != nil || !strings.Contains(strings.Join(out, ""), "MESSAGES 7") {
		t.Errorf("%q, %v", out, err)
	}
	if out := m.must("notmuch", "search", "--output=files", "id:d0@example.org"); strings.Count(out, "\n") != 5 {
		t.Errorf("not a file for each mailbox:\n%s", out)
	}
	if out, err := s.Command("STATUS Short (MESSAGES)"); err != nil || !strings.Contains(strings.Join(out, ""), "MESSAGES 6") {
		t.Errorf("%q, %v", out, err)
	}
	for _, words := range [][]string{{"--from", "/nix/states/"}, {"--from", "~/states/"}} {
		if out, status := m.run(append([]string{name, "import", "mbsync"}, words...)...); status != exitUsage || !strings.Contains(out, "no such file or directory") || strings.Contains(out, "~") {
			t.Errorf("status %d: %s", status, out)
		}
	}
	// Where the account's folder is elsewhere nothing is found, and that is said.
	m.write("config.toml", m.read("config.toml")+"folder = \"elsewhere\"\n")
	if err := os.RemoveAll(filepath.Join(m.dir, "state")); err != nil {
		t.Fatal(err)
	}
	out, status = m.run(name, "import", "mbsync", "--json")
	if status != exitPartly || !strings.Contains(out, `{"account":"work","mailbox":"Well","paired":0,"left":0,"only_here":0,"stay_here":0,"only_there":0,"tagged":0,"gone_here":0,"gone_there":0,"none":true}`) {
		t.Errorf("status %d: %s", status, out)
	}
}
