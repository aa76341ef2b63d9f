package mail

import (
	"bytes"
	"crypto/sha1" //nolint:gosec // libnotmuch's choice; it is a name, not a proof
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"io"
	"strings"
)

// Digest is SHA-256 of a mail's content less what transport and other
// synchronisers add to it. Mails with one Digest are the same mail; of two that
// differ, one may still be the other with something added that is not known here.
//
// It is over the bytes of the mail, without:
//   - the header fields X-TUID (isync), X-OfflineIMAP, Status, X-Status,
//     Content-Length, Lines, X-Keywords and X-UID (mbox), in whatever case and with
//     their continuation lines; the header is as Header reads it, and those of mails
//     within the mail stay;
//   - CRs before LF;
//   - LFs (and CRs) at the end;
//
// and with byte 0x80 for NUL, which IMAP cannot carry (RFC 9051 4.3) and Dovecot
// replaces so.
type Digest [sha256.Size]byte

// IsZero tells of one that is not known.
func (d Digest) IsZero() bool { return d == Digest{} }

// String is in hexadecimal.
func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// Digester takes a mail piece by piece, however it is cut, and gives its Digest.
// It keeps a few hundred bytes, and never fails.
type Digester struct {
	fields  fields
	hash    hash.Hash
	drop    bool // the field that is being read does not count
	left    int64
	newline int // LFs that came last and are not hashed yet
	lf      []byte
}

// NewDigester begins a mail.
func NewDigester() *Digester { return newDigester(sha256.New()) }

func newDigester(h hash.Hash) *Digester {
	d := &Digester{hash: h, lf: bytes.Repeat([]byte("\n"), 64)}
	d.fields.field = func(start, name []byte) {
		d.drop = added(string(name))
		d.add(start)
	}
	d.fields.more = d.add
	d.fields.body = func(p []byte) {
		d.drop = false
		d.add(p)
	}
	return d
}

// added tells of a header field that is not the sender's.
func added(name string) bool {
	switch strings.ToLower(name) {
	case "x-tuid", "x-offlineimap", "status", "x-status", "content-length", "lines", "x-keywords", "x-uid":
		return true
	}
	return false
}

// add hashes what counts.
func (d *Digester) add(p []byte) {
	if d.drop {
		d.left += int64(len(p) + bytes.Count(p, []byte("\n")))
		return
	}
	content := bytes.TrimRight(p, "\n")
	if len(content) > 0 {
		d.newlines()
		if bytes.IndexByte(content, 0) >= 0 {
			content = bytes.ReplaceAll(content, []byte{0}, []byte{0x80})
		}
		d.hash.Write(content)
	}
	d.newline += len(p) - len(content)
}

func (d *Digester) newlines() {
	for d.newline > 0 {
		n := min(d.newline, len(d.lf))
		d.hash.Write(d.lf[:n])
		d.newline -= n
	}
}

// Write takes the next piece.
func (d *Digester) Write(p []byte) (int, error) {
	d.fields.write(p)
	return len(p), nil
}

// Sum gives the Digest. Nothing can be written afterwards.
func (d *Digester) Sum() Digest {
	d.fields.end()
	return Digest(d.hash.Sum(nil))
}

// Discard makes of it a Spool of which no more than this is kept.
func (*Digester) Discard() {}

// Left is the size of the header fields that the Digest left out, in bytes, with
// line ends of CRLF.
func (d *Digester) Left() int64 { return d.left }

// DigestOf reads a mail to its end, and gives its Digest.
func DigestOf(r io.Reader) (Digest, error) {
	d := NewDigester()
	_, err := io.Copy(d, r)
	return d.Sum(), err
}

// MadeUpID gives the id that libnotmuch makes of a file with a mail without
// Message-ID, "notmuch-sha1-" and SHA-1 of the file (lib/sha1.c): that of the file
// before another program added fields, since those that Digest leaves out are left
// out here, too.
func MadeUpID(r io.Reader) (string, error) {
	d := newDigester(sha1.New()) //nolint:gosec // see above
	if _, err := io.Copy(d, r); err != nil {
		return "", err
	}
	d.fields.end()
	d.newlines()
	return madeUp + hex.EncodeToString(d.hash.Sum(nil)), nil
}
