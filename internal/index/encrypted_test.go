package index

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// encryptedText is a mail with this id that "secretword" is in.
func encryptedText(id string) string {
	return fmt.Sprintf(`From: a@example.org
To: b@example.org
Subject: ...
Message-ID: <%s>
MIME-Version: 1.0
Content-Type: multipart/encrypted; boundary=x; protocol="application/pgp-encrypted"

--x
Content-Type: application/pgp-encrypted

Version: 1

--x
Content-Type: application/octet-stream

-----BEGIN PGP MESSAGE-----

hF4DYbE/hFsheSsSAQdA3Gqp1aEl/mO69OqwNJyU9r6JBbZWG9xNKRDXo/Z2vhIw
EmIxPwD87s2j5rgLp340WJmCmGaqTCrOZXMYCC+FOQBqHKayYIMIeAPvTBlCQxAb
0m0BIkQO27lRNZlxM7HW5sGzEP0LACxmuloMpoGZkLN+gc4riXM/HFrRN98G6caT
POLfLv9YCIwjoNuu6pa0hu2/JuGyEGGK5RLs6uZiuBn3+GQ7IM3QYp5XrYYO0orX
x5MeQM7Qi84Z1CucRb0x
=L/Kk
-----END PGP MESSAGE-----

--x--
`, id)
}

// encryptedKey is the key of that alone.
const encryptedKey = "9:8963D96A662C96E1371F090A9B91C11092AD1BA2CE22EEB9480179FE1141FD99"

// encrypted makes a database of a mail that is readable by its key, and of another with a wrong one.
func encrypted(t *testing.T) *world {
	t.Helper()
	w := newWorld(t)
	for _, id := range []string{"good@x", "bad@x"} {
		w.write(filepath.Join(w.root, "cur", id+":2,S"), encryptedText(id))
	}
	w.notmuch("new", "--quiet")
	w.property("good@x", sessionKey, encryptedKey)
	w.property("bad@x", sessionKey, "9:AA")
	w.notmuch("reindex", "*")
	w.count("secretword and id:good@x", 1)
	return w
}

// The text of encrypted mail that was readable is found after a rebuild.
func TestARebuildReadsEncryptedMail(t *testing.T) {
	t.Parallel()
	w := encrypted(t)
	before := w.holds()
	w.rebuild(1)
	w.equals(before)
}

// It is found when the mail is read again.
func TestReadingEncryptedMailAgain(t *testing.T) {
	t.Setenv("GNUPGHOME", t.TempDir())
	w := encrypted(t)
	for _, id := range []string{"good@x", "bad@x"} {
		w.apply(mail.Change{Op: mail.OpReindex, Path: filepath.Join(w.root, "cur", id+":2,S"), ID: id})
	}
	w.count("secretword", 1)
	w.count("property:index.decryption=success", 1)
	w.count("property:index.decryption=failure", 1)
}
