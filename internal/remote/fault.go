package remote

import (
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// refusal makes a fault of a NO, BAD or BYE. Some servers say in words what has
// a response code elsewhere, or none at all.
func refusal(status, code, text string) *mail.Fault {
	code, _, _ = strings.Cut(code, " ") // without its arguments
	f := &mail.Fault{Code: code, Text: text}
	switch status {
	case "NO":
		f.Kind = mail.KindNo
	case "BAD":
		f.Kind = mail.KindBad
	default:
		f.Kind = mail.KindBye
	}
	lower := strings.ToLower(text)
	switch {
	// Office 365: BAD Request is throttled. Suggested Backoff Time: 299961 milliseconds (imapsync#272)
	case strings.Contains(lower, "throttled"):
		f.Kind, f.RetryAfter = mail.KindThrottled, backoff(lower)
	case tooManyConnections(lower), code == "LIMIT" && status == "BYE":
		f.Kind = mail.KindCrowded
	// Gmail: [OVERQUOTA] Account exceeded command or bandwidth limits (imapsync FAQ.Gmail); an hour is
	// what it takes at least. What fills a mailbox is APPEND alone (see there); elsewhere the quota is
	// one of reading.
	case strings.Contains(lower, "exceeded command or bandwidth limits"), code == "OVERQUOTA":
		f.Kind, f.RetryAfter = mail.KindThrottled, time.Hour
	// Office 365 after LOGIN (imapsync#411)
	case strings.Contains(lower, "authenticated but not connected"):
		f.Kind = mail.KindNotConnected
	}
	return f
}

// tooManyConnections tells whether a server says that it has no room for one more connection.
// Gmail: "Too many simultaneous connections." (wildduck#35); Dovecot: "Maximum number of
// connections from user+IP exceeded".
func tooManyConnections(text string) bool {
	return regexp.MustCompile(`too many( \w+){0,2} (connections|sessions)\b|maximum (number of )?(\w+ )?(connections|sessions)\b|(connection|session) limit (reached|exceeded)`).MatchString(text)
}

// backoff reads the time that a server asks for. 0 if it names none.
func backoff(text string) time.Duration {
	m := regexp.MustCompile(`backoff time:?\s*(\d{1,9})\s*(milliseconds|ms|seconds|s)\b`).FindStringSubmatch(text)
	if m == nil {
		return 0
	}
	n, err := strconv.Atoi(m[1])
	if err != nil {
		return 0
	}
	if strings.HasPrefix(m[2], "m") {
		return time.Duration(n) * time.Millisecond
	}
	return time.Duration(n) * time.Second
}
