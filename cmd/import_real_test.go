package cmd

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"maps"
	"net"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
)

// tap is a relay that keeps what a program says to the server.
type tap struct {
	net.Listener
	mu   sync.Mutex
	said bytes.Buffer
}

func (w *tap) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.said.Write(b)
}

// tapped lets our program reach the server over a relay.
func (m *mover) tapped() *tap {
	m.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		m.t.Fatal(err)
	}
	w := &tap{Listener: l}
	m.t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			from, err := l.Accept()
			if err != nil {
				return
			}
			to, err := net.Dial("tcp", m.dovecot.Addr())
			if err != nil {
				_ = from.Close()
				continue
			}
			// What is answered has been kept before.
			go func() { _, _ = io.Copy(from, to); _ = from.Close() }()
			go func() { _, _ = io.Copy(io.MultiWriter(w, to), from); _ = to.Close() }()
		}
	}()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	m.write("config.toml", regexp.MustCompile(`port = \d+`).ReplaceAllString(m.read("config.toml"), "port = "+port))
	return w
}

// asked gives how many commands since the last call wanted whole messages, and how many gave
// the server one.
func (w *tap) asked() (bodies, uploads int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for l := range strings.Lines(w.said.String()) {
		if regexp.MustCompile(`FETCH .*BODY(\.PEEK)?\[\]`).MatchString(l) {
			bodies++
		}
		if strings.Contains(l, " APPEND ") {
			uploads++
		}
	}
	w.said.Reset()
	return bodies, uploads
}

// there gives all that the server has: mailbox, flags, and the mail, as often as it is there.
// What mbsync adds to a mail that it sends is left out.
func (m *mover) there() []string {
	m.t.Helper()
	var out []string
	list, err := m.dovecot.Command(`LIST "" *`)
	if err != nil {
		m.t.Fatal(err)
	}
	for _, l := range list {
		f := regexp.MustCompile(`^\* LIST \([^)]*\) "?.+?"? "?(.*?)"?$`).FindStringSubmatch(strings.TrimSpace(l))
		if f == nil || strings.Contains(l, `\Noselect`) {
			continue
		}
		lines, err := m.dovecot.Command(fmt.Sprintf("EXAMINE %q", f[1]), "UID FETCH 1:* (FLAGS BODY.PEEK[])")
		if err != nil {
			m.t.Fatal(err)
		}
		for _, l := range lines {
			head, text, is := strings.Cut(l, "BODY[]")
			flags := regexp.MustCompile(`FLAGS \(([^)]*)\)`).FindStringSubmatch(head)
			if !is || flags == nil {
				continue
			}
			_, text, _ = strings.Cut(text, "}")
			text = regexp.MustCompile(`X-TUID: \S+\s+`).ReplaceAllString(text, "")
			letters := slices.DeleteFunc(strings.Fields(flags[1]), func(f string) bool { return f == `\Recent` })
			slices.Sort(letters)
			name := regexp.MustCompile(`Message-ID: <(\S+)>`).FindStringSubmatch(text)
			id := fmt.Sprintf("%x", sha256.Sum256([]byte(strings.Join(strings.Fields(text), " "))))[:8]
			if name != nil {
				id = name[1] + " " + id
			}
			out = append(out, fmt.Sprint(f[1], " ", id, " ", strings.Join(letters, " ")))
		}
	}
	slices.Sort(out)
	return out
}

// files gives all files of mail here, by their names, with what is in them.
func (m *mover) files() string {
	return m.must("sh", "-c", "find "+m.root+" -type f \\( -path '*/cur/*' -o -path '*/new/*' \\) -exec sha256sum {} + | sort -k 2")
}

// other is a program that had the mail before.
type other struct {
	words []string // of import
	run   func()
}

// mbsyncOf is mbsync with the settings of its Maildirs.
func mbsyncOf(near string) func(m *mover, host, port string) other {
	return func(m *mover, host, port string) other {
		m.t.Helper()
		m.write(".mbsyncrc", fmt.Sprintf("IMAPStore far\nHost %s\nPort %s\nUser %s\nPassCmd \"cat %s/secret\"\nSSLType None\nAuthMechs LOGIN\n\nMaildirStore near\n%s\n\n"+
			"Channel c\nFar :far:\nNear :near:\nPatterns *\nCreate Both\nExpunge Both\nSyncState *\n", host, port, m.dovecot.User, m.dir, near))
		return other{[]string{name, "import", "mbsync"}, func() { m.must("mbsync", "-aq") }}
	}
}

// others are the other programs, with layouts and settings.
func others(t *testing.T) map[string]func(m *mover, host, port string) other {
	t.Helper()
	offlineimap := func(sep string) func(m *mover, host, port string) other {
		return func(m *mover, host, port string) other {
			m.write(".offlineimaprc", fmt.Sprintf("[general]\naccounts = a\n\n[Account a]\nlocalrepository = here\nremoterepository = there\n\n"+
				"[Repository here]\ntype = Maildir\nlocalfolders = %s\nsep = %s\n\n[Repository there]\ntype = IMAP\nremotehost = %s\nremoteport = %s\nremoteuser = %s\nremotepassfile = %s/secret\nssl = no\nstarttls = no\nauth_mechanisms = LOGIN\n",
				m.root, sep, host, port, m.dovecot.User, m.dir))
			return other{[]string{name, "import", "offlineimap"}, func() { m.must("offlineimap", "-o", "-u", "quiet") }}
		}
	}
	const usual = "Path ~/mail/work/\nInbox ~/mail/work/INBOX\n"
	return map[string]func(m *mover, host, port string) other{
		"mbsync Verbatim":  mbsyncOf(usual + "SubFolders Verbatim"),
		"mbsync Legacy":    mbsyncOf(usual + "SubFolders Legacy"),
		"mbsync Maildir++": mbsyncOf("Inbox ~/mail/work\nSubFolders Maildir++"),
		"mbsync Flatten":   mbsyncOf(usual + "Flatten _"),
		"OfflineIMAP /":    offlineimap("/"),
		"OfflineIMAP .":    offlineimap("."),
	}
}

// TestRealProgramsAreTakenOver with all that their users have: changes on both sides since the
// last run, mail that is here alone, mail without a Message-ID, copies of one mail, a folder that
// was renamed. On the wire no mail comes, and none goes but what is new on one side; the server,
// the files and the tags are as they were, but for that.
func TestRealProgramsAreTakenOver(t *testing.T) {
	t.Parallel()
	for what, from := range others(t) {
		for _, back := range []bool{false, true} {
			t.Run(fmt.Sprint(what, " ", back), func(t *testing.T) {
				t.Parallel()
				s := dovecot(t)
				const anonymous = "From: a@example.org\r\nSubject: no id\r\nDate: Mon, 01 Mar 2021 04:05:06 +0000\r\n\r\n"
				raws := []string{anonymous + "one\r\n", anonymous + "two\r\n", rawDovecot(3)} // a second copy
				for i := range 10 {
					raws = append(raws, rawDovecot(i))
				}
				appendAll(t, s, "INBOX", raws...)
				appendAll(t, s, "Archiv&AOk-/2024", rawDovecot(100), rawDovecot(101), rawDovecot(3))
				appendAll(t, s, "Old", rawDovecot(110), rawDovecot(111))
				appendAll(t, s, "Trash", rawDovecot(200))
				m, host, port := settle(t, s)
				m.write("config.toml", m.read("config.toml")+"deletions = \"expunge\"\n")
				program := from(m, host, port)
				program.run()
				m.must("notmuch", "new")
				m.must("notmuch", "tag", "+mine", "-inbox", "--", "id:d1@example.org", "or", "id:d100@example.org", "or", "id:d110@example.org")
				program.run() // and leaves all as it is

				command(t, s, "SELECT INBOX", `UID STORE 6 +FLAGS (\Answered)`, `UID STORE 8 +FLAGS (\Deleted)`, "UID EXPUNGE 8")
				appendAll(t, s, "INBOX", rawDovecot(20))
				m.must("notmuch", "tag", "+flagged", "--", "id:d0@example.org")
				m.must("rm", m.file("d6@example.org"))
				inbox := filepath.Dir(filepath.Dir(m.file("d0@example.org")))
				m.write(strings.TrimPrefix(inbox, m.dir)+"/cur/mine:2,S", strings.ReplaceAll(rawDovecot(30), "\r\n", "\n"))
				if !back { // else it makes the folder anew
					command(t, s, "RENAME Old New")
				}
				m.must("notmuch", "new")

				before, files, there := m.must("notmuch", "dump", "--include=properties", "--include=tags"), m.files(), m.there()
				wire := m.tapped()
				if out := m.must(program.words...); !strings.Contains(out, "INBOX: 11 messages are paired; 1 is only here: a sync uploads or moves it; 1 is only there: a sync fetches it; 1 was removed here since: a sync deletes it there; 1 is gone there since: a sync removes it here\n") ||
					!strings.Contains(out, "work: paired 17 messages in 4 mailboxes; next: ") {
					t.Errorf("%s", out)
				}
				if bodies, uploads := wire.asked(); bodies+uploads != 0 {
					t.Errorf("the take-over fetched %d and sent %d", bodies, uploads)
				}
				m.hasTags(before)
				if now := m.files(); now != files {
					t.Errorf("files were\n%s\nand are\n%s", files, now)
				}
				if now := m.there(); !slices.Equal(now, there) {
					t.Errorf("the server had\n%s\nand has\n%s", strings.Join(there, "\n"), strings.Join(now, "\n"))
				}

				if back {
					program.run()
				} else {
					foreseen := lastLine(m.must(name, "sync", "-n"))
					if bodies, uploads := wire.asked(); bodies+uploads != 0 {
						t.Errorf("a dry run fetched %d and sent %d", bodies, uploads)
					}
					out := m.must(name, "sync")
					if want := "work: 1 new, 1 change of flags, 1 change of flags sent, 1 deleted on the server, 1 uploaded, 1 removed"; lastLine(out) != want || strings.Replace(foreseen, "would be: ", "", 1) != want {
						t.Errorf("foreseen was %s\nand done\n%s", foreseen, out)
					}
					if bodies, uploads := wire.asked(); bodies != 1 || uploads != 1 {
						t.Errorf("the first sync fetched %d times and sent %d", bodies, uploads)
					}
					says(t, m.must(name, "sync"), "work: nothing new")
					says(t, m.must(name, "verify", "--deep"), "work: all 19 messages are here, equal in every word")
				}
				changes := func(l string) string {
					switch {
					case strings.Contains(l, "INBOX d0@example.org "):
						return l + `\Flagged`
					case strings.Contains(l, "INBOX d6@example.org "):
						return ""
					}
					return l
				}
				want := map[string]int{}
				for _, l := range there {
					want[strings.TrimSpace(changes(l))]++
				}
				got := map[string]int{}
				mine := false
				for _, l := range m.there() {
					if strings.HasPrefix(l, "INBOX d30@example.org ") && strings.HasSuffix(l, ` \Seen`) && !mine {
						mine = true
						continue
					}
					got[strings.TrimSpace(l)]++
				}
				delete(want, "")
				if !mine || !maps.Equal(got, want) {
					t.Errorf("the server has\n%v, and not\n%v", got, want)
				}
				m.must("notmuch", "new")
				tags := strings.ReplaceAll(before, "+inbox +unread -- id:d2@", "+inbox +replied +unread -- id:d2@")
				tags = regexp.MustCompile(`(?m)^.* -- id:d4@.*\n`).ReplaceAllString(tags, "")
				m.hasTags(tags, "id:d20@example.org")
				if n := strings.TrimSpace(m.must("notmuch", "count", "--output=files", "*")); n != "19" {
					t.Errorf("%s files:\n%s", n, m.files())
				}
			})
		}
	}
}
