//go:build linux

package imaptest

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/template"
)

// dovecotCapability is what Dovecot 2.3 advertises after sign-in when nothing
// is configured; Hide has to spell out the whole list, as imap_capability can
// add to the default but not take from it.
const dovecotCapability = "IMAP4rev1 SASL-IR LOGIN-REFERRALS ID ENABLE IDLE SORT SORT=DISPLAY THREAD=REFERENCES THREAD=REFS THREAD=ORDEREDSUBJECT MULTIAPPEND URL-PARTIAL CATENATE UNSELECT CHILDREN NAMESPACE UIDPLUS LIST-EXTENDED I18NLEVEL=1 CONDSTORE QRESYNC ESEARCH ESORT SEARCHRES WITHIN CONTEXT=SEARCH LIST-STATUS BINARY MOVE SNIPPET=FUZZY PREVIEW=FUZZY PREVIEW STATUS=SIZE SAVEDATE LITERAL+ NOTIFY"

// dovecotBanner is the part of it that is advertised before sign-in.
const dovecotBanner = "IMAP4rev1 SASL-IR LOGIN-REFERRALS ID ENABLE IDLE LITERAL+"

// dovecotConf is a rootless Dovecot: every service runs as one user and none
// changes root. mdbox takes a tenth of the time that a file for each mail
// takes. A process of imap serves one session after another, which saves the start
// of one for each. Failed sign-ins answer at once, so that tests of them are quick.
const dovecotConf = `base_dir = {{.Base}}/run
state_dir = {{.Base}}/state
log_path = /dev/stderr
protocols = imap
listen = {{.Host}}
login_greeting = {{.Greeting}}
{{with .Capability}}imap_capability = {{.}}
{{end}}
default_internal_user = {{.Owner}}
default_login_user = {{.Owner}}
default_internal_group = {{.Group}}
first_valid_uid = {{.UID}}
last_valid_uid = {{.UID}}
first_valid_gid = 0
mail_uid = {{.UID}}
mail_gid = {{.GID}}
mail_home = {{.Base}}/home
mail_location = {{if .Maildir}}maildir{{else}}mdbox{{end}}:{{.Base}}/home/mail
mail_temp_dir = {{.Base}}
mail_fsync = never
mail_max_userip_connections = 50
{{if .Rotates}}mail_index_log_rotate_max_size = 600
mailbox_idle_check_interval = 1 hours
{{end}}
{{if .Compress}}mail_plugins = zlib
protocol imap {
  mail_plugins = zlib imap_zlib
}
{{end}}
{{with .Prefix}}namespace inbox {
  inbox = yes
  prefix = {{.}}
  separator = {{$.Separator}}
}
{{end}}
disable_plaintext_auth = no
auth_failure_delay = 0
{{with .Mechanisms}}auth_mechanisms = {{.}}
{{end}}
{{if .Bearer}}passdb {
  driver = oauth2
  mechanisms = oauthbearer xoauth2
  args = {{.Base}}/oauth2.conf
}
{{end}}
passdb {
  driver = static
  args = {{if .External}}nopassword=y{{else}}password={{.Password}}{{end}}
}
userdb {
  driver = static
  args = uid={{.UID}} gid={{.GID}} home={{.Base}}/home
}

{{if .TLS}}ssl = required
ssl_cert = <{{.Base}}/cert.pem
ssl_key = <{{.Base}}/key.pem
{{if .External}}ssl_ca = <{{.Base}}/cert.pem
ssl_verify_client_cert = yes
ssl_require_crl = no
auth_ssl_username_from_cert = yes
{{end}}{{else}}ssl = no
{{end}}
service imap-login {
  executable = imap-login{{if .StockBanner}} -o imap_capability={{end}}
  chroot =
  service_count = 0
  inet_listener imap {
    port = {{if .TLS}}0{{else}}{{.Port}}{{end}}
  }
  inet_listener imaps {
    port = {{if .TLS}}{{.Port}}{{else}}0{{end}}
    ssl = yes
  }
}
service imap {
  service_count = 100
}
service imap-urlauth-login {
  chroot =
}
service anvil {
  chroot =
  unix_listener anvil-auth-penalty {
    mode = 0
  }
}
service ipc {
  chroot =
}
service old-stats {
  chroot =
}
`

// writeConfig writes dovecot.conf and hands base over to the owner.
func (s *DovecotServer) writeConfig(o DovecotOptions, greeting string) error {
	hidden := func(c string) bool {
		return slices.ContainsFunc(o.Hide, func(h string) bool { return strings.EqualFold(h, c) })
	}
	capability := ""
	if len(o.Hide) > 0 {
		capability = strings.Join(slices.DeleteFunc(strings.Fields(dovecotCapability), hidden), " ")
	}
	// imap_capability holds for the banner as well, which is then longer than
	// a real server's. Take it back there unless the banner has to hide some.
	stockBanner := !slices.ContainsFunc(strings.Fields(dovecotBanner), hidden)
	offers := func(m string) bool {
		return slices.ContainsFunc(o.Mechanisms, func(n string) bool { return strings.EqualFold(n, m) })
	}
	bearer := offers("OAUTHBEARER") || offers("XOAUTH2")
	if bearer {
		if err := s.writeTokens(); err != nil {
			return err
		}
	}
	var conf bytes.Buffer
	err := template.Must(template.New("dovecot.conf").Parse(dovecotConf)).Execute(&conf, map[string]any{
		"Base": s.base, "Host": s.Host, "Port": s.Port, "TLS": o.TLS,
		"Greeting": greeting, "Capability": capability, "StockBanner": stockBanner, "Password": s.Password,
		"Maildir": o.Maildir, "Prefix": o.Prefix, "Separator": o.Prefix[max(0, len(o.Prefix)-1):],
		"Mechanisms": strings.ToLower(strings.Join(o.Mechanisms, " ")), "Bearer": bearer, "External": offers("EXTERNAL"), "Compress": o.Compress,
		"Rotates": o.Rotates,
		"Owner":   s.owner.name, "Group": s.owner.group, "UID": s.owner.uid, "GID": s.owner.gid,
	})
	if err != nil {
		return err
	}
	if err := os.WriteFile(s.conf(), conf.Bytes(), 0o600); err != nil {
		return err
	}
	for _, d := range []string{"run", "state", "home"} {
		if err := os.Mkdir(filepath.Join(s.base, d), 0o755); err != nil {
			return err
		}
	}
	if !s.owner.switched {
		return nil
	}
	return filepath.WalkDir(s.base, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, s.owner.uid, s.owner.gid)
	})
}
