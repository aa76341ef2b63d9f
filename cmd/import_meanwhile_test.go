package cmd

import (
	"path/filepath"
	"strings"
	"testing"
)

// TestTheOtherProgramGoesOn between the take-over and the first sync: what it fetched, sent, moved
// and deleted meanwhile is paired, whatever the account may do on the server. A dry run says so. While
// that program remembers it, a sync does nothing, and another import takes it over; where it was put
// away, the sync goes by what the mail is.
func TestTheOtherProgramGoesOn(t *testing.T) {
	t.Parallel()
	for _, from := range []string{"mbsync", "offlineimap"} {
		for key, away := range map[string]bool{"": false, "read_only = true\n": true, "read_only = false\n": true} {
			t.Run(from+" "+strings.TrimSpace(key), func(t *testing.T) {
				t.Parallel()
				s := dovecot(t)
				appendAll(t, s, "INBOX", rawsDovecot(8)...)
				appendAll(t, s, "Archiv", rawDovecot(100))
				var m *mover
				run := func() { m.mbsync() }
				if from == "mbsync" {
					m = newMover(t, s, "Verbatim", "*")
				} else {
					m = fromOfflineIMAP(t, s, "/")
					run = m.offline
				}
				m.write("config.toml", m.read("config.toml")+key)
				words := []string{name, "import", from}
				if from == "offlineimap" {
					words = append(words, "--from", filepath.Join(m.dir, "offlineimaprc"))
				}
				m.must(words...)

				const anonymous = "From: a@example.org\r\nSubject: no id\r\nDate: Mon, 01 Mar 2021 04:05:06 +0000\r\n\r\n"
				command(t, s, "SELECT INBOX", `UID STORE 3 +FLAGS (\Answered)`, `UID STORE 5 +FLAGS (\Deleted)`, "UID EXPUNGE 5")
				appendAll(t, s, "INBOX", rawDovecot(20), anonymous+"one\r\n", rawDovecot(3), anonymous+"two\r\n") // the third is a second copy
				m.put("INBOX/cur/mine:2,S", rawDovecot(30))
				m.put("INBOX/cur/again:2,S", rawDovecot(2))
				m.must("mv", m.file("d6@example.org"), m.root+"/Archiv/cur/moved:2,F")
				m.must("rm", m.file("d7@example.org"))
				m.must("notmuch", "new")
				m.must("notmuch", "tag", "+flagged", "--", "id:d0@example.org")
				run()
				m.must("notmuch", "new")
				before := m.must("notmuch", "dump", "--include=properties", "--include=tags")
				files := m.must("notmuch", "count", "--output=files", "*")
				held := m.must("find", m.root, "-name", "*:2,*", "-o", "-path", "*/new/*")

				states := strings.Fields(m.must("find", m.dir, "-name", ".mbsyncstate", "-o", "-path", "*/LocalStatus*/*", "-type", "f"))
				if len(states) != 2 {
					t.Fatalf("states: %q", states)
				}
				if away {
					for _, s := range states {
						m.must("mv", s, s+".away")
					}
				} else {
					wentOn := "work: " + from + " has gone on with Archiv since that was taken over, and a sync would turn back what it did; nothing was done: end that program, and type `notmuch imap import " + from + " work` once more"
					for _, words := range [][]string{{name, "sync", "-n"}, {name, "sync"}} {
						if out, status := m.run(words...); status == 0 || strings.TrimSpace(out) != wentOn {
							t.Errorf("%q: status %d: %s", words, status, out)
						}
					}
					m.must(words...)
				}
				foreseen := lastLine(m.must(name, "sync", "-n"))
				out := m.must(name, "sync", "--trace", filepath.Join(m.dir, "trace"))
				if done := lastLine(out); strings.Replace(foreseen, "would be: ", "", 1) != done || strings.Contains(done, " new") && (away || done != "work: nothing new") {
					t.Errorf("foreseen was %q, and done\n%s", foreseen, out)
				}
				if strings.Contains(m.read("trace"), " APPEND ") {
					t.Error("something was uploaded")
				}
				m.must("notmuch", "new")
				if after := m.must("notmuch", "count", "--output=files", "*"); after != files {
					t.Errorf("files were %s and are %s:\n%s\n%s", files, after, held, m.must("find", m.root, "-name", "*:2,*", "-o", "-path", "*/new/*"))
				}
				m.hasTags(before)
				says(t, m.must(name, "verify", "--deep"), "work: all 13 messages are here, equal in every word")
				m.sync()
				m.holds(map[string]int{"INBOX": 11, "Archiv": 2})
				if away {
					for _, s := range states {
						m.must("mv", s+".away", s)
					}
				}
				run()
				m.holds(map[string]int{"INBOX": 11, "Archiv": 2})
			})
		}
	}
}

// lastLine gives the last line of what a command said.
func lastLine(out string) string {
	lines := strings.Split(strings.TrimSpace(out), "\n")
	return lines[len(lines)-1]
}
