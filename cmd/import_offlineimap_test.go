package cmd

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/notmuch-imap/notmuch-imap/internal/imaptest"
)

// offline runs OfflineIMAP once.
func (m *mover) offline() {
	m.must("offlineimap", "-c", filepath.Join(m.dir, "offlineimaprc"), "-o", "-u", "quiet")
}

// fromOfflineIMAP is newMover for somebody who comes from OfflineIMAP. sep is its setting.
func fromOfflineIMAP(t *testing.T, s *imaptest.DovecotServer, sep string) *mover {
	t.Helper()
	m, host, port := settle(t, s)
	m.write("offlineimaprc", fmt.Sprintf("[general]\naccounts = a\nmetadata = %[1]s/meta\n\n[Account a]\nlocalrepository = here\nremoterepository = there\n\n"+
		"[Repository here]\ntype = Maildir\nlocalfolders = %[2]s\nsep = %[3]s\n\n[Repository there]\ntype = IMAP\nremotehost = %[4]s\nremoteport = %[5]s\nremoteuser = %[6]s\nremotepass = %[7]s\nssl = no\nstarttls = no\nauth_mechanisms = LOGIN\n"+
		"[Account unused]\nlocalrepository = x\nremoterepository = y\n", m.dir, m.root, sep, host, port, s.User, s.Password))
	m.offline()
	m.must("notmuch", "new")
	return m
}

// TestOfflineIMAPIsTakenOver as mbsync is: no mail is fetched or sent but what is new on
// one side, what was changed since its last run goes where it belongs, no tag changes, and
// the way back stays open.
func TestOfflineIMAPIsTakenOver(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		sep  string
		back bool
	}{{"/", false}, {".", false}, {"/", true}} {
		t.Run(fmt.Sprint(c), func(t *testing.T) {
			t.Parallel()
			s := dovecot(t)
			raws := rawsDovecot(12)
			const anonymous = "From: a@example.org\r\nSubject: no id\r\nDate: Mon, 01 Mar 2021 04:05:06 +0000\r\n\r\n"
			raws = append(raws, anonymous+"one\r\n", anonymous+"two\r\n", rawDovecot(3))
			appendAll(t, s, "INBOX", raws...)
			appendAll(t, s, "Archiv/2024", rawDovecot(100), rawDovecot(101))
			appendAll(t, s, "Trash", rawDovecot(200))
			m := fromOfflineIMAP(t, s, c.sep)
			m.must("notmuch", "tag", "+mine", "--", "id:d1@example.org", "or", "id:d100@example.org")

			command(t, s, "SELECT INBOX", `UID STORE 3 +FLAGS (\Answered)`, `UID STORE 5 +FLAGS (\Deleted)`, "UID EXPUNGE 5")
			appendAll(t, s, "INBOX", rawDovecot(20))
			m.must("notmuch", "tag", "+flagged", "--", "id:d0@example.org")
			if err := os.Remove(m.file("d6@example.org")); err != nil {
				t.Fatal(err)
			}
			m.write("mail/work/INBOX/cur/mine:2,S", strings.ReplaceAll(rawDovecot(30), "\r\n", "\n"))
			m.must("notmuch", "new")
			before := m.must("notmuch", "dump", "--include=properties", "--include=tags")
			words := []string{name, "import", "offlineimap", "--from", filepath.Join(m.dir, "offlineimaprc")}
			lines := []string{
				"work/Archiv/2024: 2 messages are paired",
				"work/INBOX: 13 messages are paired; 1 is only here: a sync uploads or moves it; 1 is only there: a sync fetches it; 1 was removed here since: a sync deletes it there; 1 is gone there since: a sync removes it here",
				"work/Trash: 1 message is paired",
			}
			says(t, m.must(append(words, "-n")...), append(lines, "work: would pair 16 messages in 3 mailboxes")...)
			says(t, m.must(append(words, "work")...), append(lines, "work: paired 16 messages in 3 mailboxes; next: notmuch imap sync -n work")...)
			m.hasTags(before)
			trash := 2
			if c.back {
				m.offline()
				trash = 1 // it expunges
			} else {
				out := m.must(name, "sync")
				for _, want := range []string{"work/INBOX: 1 new message,", " 1 change of flags,", " 1 change of flags sent,", " 1 deleted on the server,", " 1 uploaded,", " 1 removed\n"} {
					if !strings.Contains(out, want) {
						t.Errorf("no %q in %s", want, out)
					}
				}
				says(t, m.must(name, "sync"), "work: nothing new")
				says(t, m.must(name, "verify", "--deep"), "work: all 19 messages are here, equal in every word")
			}
			m.holds(map[string]int{"INBOX": 15, "Archiv/2024": 2, "Trash": trash})
		})
	}
}
