package provider

import (
	"strings"
	"time"
)

// row is what the table knows of one provider.
type row struct {
	domains    []string // of addresses
	exchangers []string // hosts that take mail for domains of their customers: these, or below these
	host       string
	port       int    // 0 is 993 or, for starttls, 143
	tls        string // "" is implicit
	user       UserForm
	preset     Preset
}

func (r *row) server(source string) Server {
	s := Server{Host: r.host, Port: r.port, TLS: r.tls, User: r.user, OAuth: r.preset.OAuth != "", Source: source, Preset: r.preset}
	if s.TLS == "" {
		s.TLS = "implicit"
	}
	if s.Port == 0 {
		s.Port = map[bool]int{true: 993, false: 143}[s.TLS == "implicit"]
	}
	if s.User == "" {
		s.User = UserAddress
	}
	return s
}

func words(s string) []string { return strings.Fields(s) }

// table is our own knowledge of providers and of what a sign-in there needs,
// gathered in November 2026 from their pages and from Mozilla's public database.
// A domain stands in one row.
func table() []row {
	var (
		gmail = Preset{Name: "Gmail", Connections: 3, Poll: 2 * time.Minute, OAuth: "google", SkipAll: true,
			AppPassword: "https://myaccount.google.com/apppasswords", Help: "https://support.google.com/mail/answer/7126229",
			Note: "Gmail takes no ordinary password: an app password is the two-minute way (it wants 2-step verification), OAuth the other."}
		microsoft = Preset{Name: "Microsoft 365", Connections: 3, Poll: 2 * time.Minute, OAuth: "microsoft", NoPassword: true,
			Help: "https://support.microsoft.com/office/d088b986-291d-42b8-9564-9c414e2aa040",
			Note: "Microsoft takes no passwords here, only OAuth."}
		yahoo = Preset{Name: "Yahoo", Connections: 3, Poll: 5 * time.Minute, Shows: 10_000, BulkHost: "export.imap.mail.yahoo.com", BulkShows: 100_000, AppPassword: "https://login.yahoo.com/account/security", Help: "https://help.yahoo.com/kb/SLN4075.html",
			Note: "Yahoo takes an app password only, and registers no new programs for OAuth."}
		aol = Preset{Name: "AOL", Connections: 3, Poll: 5 * time.Minute, Shows: 10_000, BulkHost: "export.imap.aol.com", BulkShows: 100_000, AppPassword: "https://login.aol.com/account/security", Help: "https://help.aol.com/articles/how-do-i-use-other-email-applications-to-send-and-receive-my-aol-mail",
			Note: "AOL takes an app password only, and registers no new programs for OAuth."}
		icloud = Preset{Name: "iCloud", Connections: 3, AppPassword: "https://account.apple.com/account/manage", Help: "https://support.apple.com/102525",
			Note: "iCloud takes an app-specific password only."}
		fastmail = Preset{Name: "Fastmail", OAuth: "fastmail", AppPassword: "https://app.fastmail.com/settings/security/apps",
			Help: "https://www.fastmail.help/hc/en-us/articles/1500000278342", Note: "Fastmail takes an app password, or OAuth."}
		proton = Preset{Name: "Proton Mail", Help: "https://proton.me/mail/bridge",
			Note: "Proton's mail comes through its Bridge, a program that must run on this machine; the password is the one that Bridge shows, and its certificate wants tls_pin or tls_ca_file."}
		netease = Preset{Name: "NetEase", Connections: 2, Poll: 5 * time.Minute, Trash: "已删除", Help: "https://help.mail.163.com",
			Note: "NetEase takes an authorisation code, made in the web mail's settings, in place of the password."}
		tencent = Preset{Name: "QQ Mail", Connections: 2, Poll: 5 * time.Minute, Trash: "Deleted Messages", Help: "https://service.mail.qq.com",
			Note: "QQ takes an authorisation code, made in the web mail's settings, in place of the password."}
		gmx     = Preset{Name: "GMX", Trash: "Gelöscht", Archive: "Archiv", Help: "https://hilfe.gmx.net/pop-imap/imap/index.html", Note: "GMX wants IMAP to be switched on in the web mail's settings first."}
		webDE   = Preset{Name: "WEB.DE", Trash: "Papierkorb", Archive: "Archiv", Help: "https://hilfe.web.de/pop-imap/imap/index.html", Note: "WEB.DE wants IMAP to be switched on in the web mail's settings first."}
		mailCom = Preset{Name: "mail.com", Help: "https://support.mail.com/", Note: "mail.com wants IMAP to be switched on in the web mail's settings first."}
		zoho    = Preset{Name: "Zoho", Help: "https://www.zoho.com/mail/help/imap-access.html",
			Note: "Zoho wants IMAP to be switched on in its settings first, and an app password where two-factor sign-in is on."}
		yandex = Preset{Name: "Yandex", AppPassword: "https://id.yandex.com/security/app-passwords", Help: "https://yandex.com/support/mail/mail-clients/others.html",
			Note: "Yandex takes an app password, and wants IMAP to be switched on in the web mail's settings first."}
		mailRu  = Preset{Name: "Mail.ru", Help: "https://help.mail.ru/mail/mailer/popsmtp", Note: "Mail.ru takes a password for external programs only."}
		naver   = Preset{Name: "Naver", Note: "Naver wants IMAP to be switched on in the web mail's settings first."}
		telekom = Preset{Name: "Telekom", Help: "https://www.telekom.de/hilfe/apps-dienste/e-mail", Note: "Telekom takes a password of its own for e-mail programs, made in its customer centre."}
	)
	return []row{
		{domains: words("gmail.com googlemail.com google.com"), exchangers: words("google.com googlemail.com"), host: "imap.gmail.com", preset: gmail},
		{domains: words(`outlook.com hotmail.com live.com msn.com windowslive.com passport.com outlook.at outlook.be outlook.cl outlook.cz outlook.de outlook.dk
		outlook.es outlook.fr outlook.hu outlook.ie outlook.in outlook.it outlook.jp outlook.kr outlook.lv outlook.my outlook.ph outlook.pt outlook.sa
		outlook.sg outlook.sk outlook.co.id outlook.co.il outlook.co.th outlook.com.ar outlook.com.au outlook.com.br outlook.com.gr outlook.com.tr
		outlook.com.vn hotmail.be hotmail.ca hotmail.cl hotmail.cz hotmail.de hotmail.dk hotmail.es hotmail.fi hotmail.fr hotmail.gr hotmail.hu
		hotmail.it hotmail.nl hotmail.no hotmail.se hotmail.sg hotmail.co.id hotmail.co.il hotmail.co.in hotmail.co.jp hotmail.co.kr hotmail.co.th
		hotmail.co.uk hotmail.co.za hotmail.com.ar hotmail.com.au hotmail.com.br hotmail.com.tr hotmail.com.tw hotmail.com.vn live.at live.be live.ca
		live.cl live.cn live.de live.dk live.fi live.fr live.hk live.ie live.in live.it live.jp live.nl live.no live.ru live.se live.co.jp live.co.kr
		live.co.uk live.co.za live.com.ar live.com.au live.com.mx live.com.my live.com.ph live.com.pt live.com.sg office365.com onmicrosoft.com`),
			exchangers: words("mail.protection.outlook.com mx.microsoft"), host: "outlook.office365.com", preset: microsoft},
		{domains: words(`yahoo.com yahoo.ca yahoo.de yahoo.it yahoo.fr yahoo.es yahoo.se yahoo.co.in yahoo.co.uk yahoo.co.nz yahoo.com.au yahoo.com.ar
		yahoo.com.br yahoo.com.mx ymail.com myyahoo.com rocketmail.com cox.net`), exchangers: words("yahoodns.net"), host: "imap.mail.yahoo.com", preset: yahoo},
		{domains: words(`aol.com aim.com netscape.net compuserve.com cs.com wmconnect.com aol.de aol.it aol.fr aol.es aol.se aol.co.uk aol.com.au aol.com.br
		aol.com.mx verizon.net`), host: "imap.aol.com", preset: aol},
		{domains: words("att.net ameritech.net bellsouth.net currently.com flash.net nvbell.net pacbell.net prodigy.net sbcglobal.net snet.net swbell.net wans.net"),
			host: "imap.mail.att.net", preset: Preset{Name: "AT&T", Note: "AT&T takes a secure mail key in place of the password."}},
		{domains: words("icloud.com me.com mac.com"), host: "imap.mail.me.com", user: UserLocal, preset: icloud},
		{exchangers: words("mail.icloud.com"), host: "imap.mail.me.com", preset: icloud},
		{domains: words("fastmail.com fastmail.fm fastmail.net fastmail.org fastmail.to fastmail.uk fastmail.us sent.com messagingengine.com"),
			exchangers: words("messagingengine.com"), host: "imap.fastmail.com", preset: fastmail},
		{domains: words("pobox.com"), exchangers: words("pobox.com"), host: "mail.pobox.com", preset: Preset{Name: "Pobox"}},
		{domains: words("proton.me protonmail.com protonmail.ch pm.me"), exchangers: words("protonmail.ch"), host: "127.0.0.1", port: 1143, tls: "starttls", preset: proton},

		{domains: words("gmx.net gmx.de gmx.at gmx.ch gmx.eu gmx.biz gmx.org gmx.info"), host: "imap.gmx.net", preset: gmx},
		{domains: words(`gmx.com gmx.us gmx.co.uk gmx.es gmx.fr gmx.ca gmx.cn gmx.co.in gmx.com.br gmx.com.my gmx.hk gmx.ie gmx.ph gmx.pt gmx.ru gmx.se gmx.sg
		gmx.tw gmx.com.tr gmx.it gmx.li gmx.tm`), host: "imap.gmx.com", preset: gmx},
		{domains: words("web.de"), host: "imap.web.de", user: UserLocal, preset: webDE},
		{domains: words(`mail.com email.com post.com usa.com consultant.com dr.com engineer.com techie.com linuxmail.org europe.com london.com myself.com
		iname.com writeme.com programmer.net scientist.com`), host: "imap.mail.com", preset: mailCom},
		{domains: words("t-online.de magenta.de"), host: "secureimap.t-online.de", preset: telekom},
		{domains: words("online.de onlinehome.de sofortstart.de sofort-start.de sofortsurf.de sofort-surf.de go4more.de"), exchangers: words("kundenserver.de"),
			host: "imap.ionos.de", preset: Preset{Name: "IONOS"}},
		{exchangers: words("ionos.com 1and1.com perfora.net"), host: "imap.ionos.com", preset: Preset{Name: "IONOS"}},
		{domains: words("strato.de"), exchangers: words("rzone.de"), host: "imap.strato.de", preset: Preset{Name: "STRATO"}},
		{domains: words("vodafonemail.de arcor.de kabelmail.de"), host: "imap.vodafonemail.de", preset: Preset{Name: "Vodafone"}},
		{domains: words(`posteo.de posteo.net posteo.at posteo.ch posteo.eu posteo.org posteo.me posteo.uk posteo.us posteo.co posteo.com posteo.dk posteo.es
		posteo.fi posteo.fr posteo.it posteo.li posteo.nl posteo.no posteo.pl posteo.pt posteo.se`), host: "posteo.de", preset: Preset{Name: "Posteo", Help: "https://posteo.de/en/help"}},
		{domains: words("mailbox.org"), exchangers: words("mailbox.org"), host: "imap.mailbox.org",
			preset: Preset{Name: "mailbox.org", Note: "mailbox.org wants an app password where two-factor sign-in is on."}},
		{exchangers: words("your-server.de"), host: "mail.your-server.de", preset: Preset{Name: "Hetzner"}},
		{exchangers: words("ispgateway.de"), host: "sslin.df.eu", preset: Preset{Name: "DomainFactory"}},
		{domains: words("a1.net aon.at"), host: "securemail.a1.net", preset: Preset{Name: "A1"}},
		{domains: words("bluewin.ch bluemail.ch"), host: "imaps.bluewin.ch", preset: Preset{Name: "Bluewin"}},
		{domains: words("ik.me etik.com"), exchangers: words("infomaniak.ch"), host: "mail.infomaniak.com", preset: Preset{Name: "Infomaniak", Note: "Infomaniak takes a password made for one device."}},

		{domains: words("free.fr"), host: "imap.free.fr", user: UserLocal, preset: Preset{Name: "Free"}},
		{domains: words("orange.fr wanadoo.fr"), host: "imap.orange.fr", preset: Preset{Name: "Orange"}},
		{domains: words("sfr.fr neuf.fr club-internet.fr"), host: "imap.sfr.fr", preset: Preset{Name: "SFR"}},
		{domains: words("laposte.net"), host: "imap.laposte.net", user: UserLocal, preset: Preset{Name: "La Poste"}},
		{domains: words("ovh.net"), exchangers: words("mail.ovh.net"), host: "ssl0.ovh.net", preset: Preset{Name: "OVH"}},
		{domains: words("gandi.net"), exchangers: words("mail.gandi.net"), host: "mail.gandi.net", preset: Preset{Name: "Gandi"}},
		{domains: words("skynet.be proximus.be belgacom.net"), host: "imap.proximus.be", preset: Preset{Name: "Proximus"}},
		{domains: words(`kpnmail.nl kpnplanet.nl planet.nl hetnet.nl xs4all.nl telfort.nl`), host: "imap.kpnmail.nl", preset: Preset{Name: "KPN"}},
		{domains: words("ziggo.nl ziggomail.com casema.nl upcmail.nl chello.nl home.nl quicknet.nl"), host: "imap.ziggo.nl", preset: Preset{Name: "Ziggo"}},
		{domains: words("libero.it iol.it blu.it inwind.it giallo.it"), host: "imapmail.libero.it", preset: Preset{Name: "Libero"}},
		{domains: words("virgilio.it"), host: "in.virgilio.it", preset: Preset{Name: "Virgilio"}},
		{domains: words("alice.it"), host: "in.alice.it", tls: "starttls", preset: Preset{Name: "Alice"}},
		{domains: words("tim.it"), host: "imap.tim.it", tls: "starttls", preset: Preset{Name: "TIM"}},
		{domains: words("tiscali.it"), host: "imap.tiscali.it", preset: Preset{Name: "Tiscali"}},
		{domains: words("sapo.pt meo.pt"), host: "imap.sapo.pt", preset: Preset{Name: "SAPO"}},
		{domains: words("btinternet.com btopenworld.com talk21.com"), host: "mail.btinternet.com", preset: Preset{Name: "BT"}},
		{domains: words("virginmedia.com"), host: "imap.virginmedia.com", preset: Preset{Name: "Virgin Media"}},
		{domains: words("sky.com"), host: "imap.tools.sky.com", preset: Preset{Name: "Sky"}},
		{exchangers: words("one.com"), host: "imap.one.com", preset: Preset{Name: "one.com"}},
		{domains: words("mail.dk"), host: "imap.mail.dk", preset: Preset{Name: "mail.dk"}},
		{domains: words("seznam.cz email.cz post.cz spoluzaci.cz"), exchangers: words("seznam.cz"), host: "imap.seznam.cz", preset: Preset{Name: "Seznam"}},
		{domains: words("onet.pl onet.eu op.pl vp.pl autograf.pl buziaczek.pl poczta.onet.pl poczta.onet.eu onet.com.pl"), host: "imap.poczta.onet.pl", preset: Preset{Name: "Onet"}},
		{domains: words("wp.pl"), host: "imap.wp.pl", user: UserLocal, preset: Preset{Name: "WP"}},
		{domains: words("o2.pl go2.pl tlen.pl prokonto.pl"), host: "poczta.o2.pl", user: UserLocal, preset: Preset{Name: "o2"}},
		{domains: words("mail.ru inbox.ru list.ru bk.ru"), exchangers: words("mail.ru"), host: "imap.mail.ru", preset: mailRu},
		{domains: words("yandex.ru yandex.com yandex.net yandex.by yandex.kz ya.ru narod.ru"), exchangers: words("yandex.net yandex.ru"), host: "imap.yandex.com", preset: yandex},
		{domains: words("rambler.ru"), host: "imap.rambler.ru", preset: Preset{Name: "Rambler"}},

		{domains: words("comcast.net"), host: "imap.comcast.net", preset: Preset{Name: "Comcast", Note: "Comcast wants access by other programs to be switched on in its settings first."}},
		{domains: words("charter.net spectrum.net bresnan.net"), host: "mobile.charter.net", preset: Preset{Name: "Spectrum"}},
		{domains: words("earthlink.net mindspring.com ix.netcom.com"), host: "imap.earthlink.net", preset: Preset{Name: "EarthLink"}},
		{domains: words("centurylink.net embarqmail.com"), host: "mail.centurylink.net", preset: Preset{Name: "CenturyLink"}},
		{domains: words("bell.net sympatico.ca"), host: "imap.bell.net", preset: Preset{Name: "Bell"}},
		{domains: words("bigpond.com bigpond.net.au telstra.com bigpond.net"), host: "imap.telstra.com", preset: Preset{Name: "Telstra"}},
		{domains: words("xtra.co.nz"), host: "imap.xtra.co.nz", preset: Preset{Name: "Xtra"}},
		{domains: words("uol.com.br"), host: "imap.uol.com.br", user: UserLocal, preset: Preset{Name: "UOL"}},
		{domains: words("bol.com.br"), host: "imap.bol.com.br", user: UserLocal, preset: Preset{Name: "BOL"}},
		{exchangers: words("emailsrvr.com"), host: "secure.emailsrvr.com", preset: Preset{Name: "Rackspace"}},
		{exchangers: words("secureserver.net"), host: "imap.secureserver.net", preset: Preset{Name: "GoDaddy"}},
		{exchangers: words("privateemail.com"), host: "mail.privateemail.com", preset: Preset{Name: "Namecheap"}},
		{exchangers: words("migadu.com"), host: "imap.migadu.com", preset: Preset{Name: "Migadu"}},
		{exchangers: words("hostinger.com"), host: "imap.hostinger.com", preset: Preset{Name: "Hostinger"}},
		{exchangers: words("titan.email"), host: "imap.titan.email", preset: Preset{Name: "Titan"}},

		{domains: words("zoho.com zohomail.com"), exchangers: words("zoho.com"), host: "imap.zoho.com", preset: zoho},
		{domains: words("zoho.eu zohomail.eu"), exchangers: words("zoho.eu"), host: "imap.zoho.eu", preset: zoho},
		{domains: words("zoho.in zohomail.in"), exchangers: words("zoho.in"), host: "imap.zoho.in", preset: zoho},
		{domains: words("zoho.com.au zohomail.com.au"), exchangers: words("zoho.com.au"), host: "imap.zoho.com.au", preset: zoho},
		{domains: words("zoho.jp zohomail.jp"), exchangers: words("zoho.jp"), host: "imap.zoho.jp", preset: zoho},

		{domains: words("163.com"), host: "imap.163.com", preset: netease},
		{domains: words("126.com"), host: "imap.126.com", preset: netease},
		{domains: words("yeah.net"), host: "imap.yeah.net", preset: netease},
		{domains: words("qq.com foxmail.com"), exchangers: words("qq.com"), host: "imap.qq.com", preset: tencent},
		{domains: words("naver.com"), host: "imap.naver.com", preset: naver},
		{domains: words("daum.net"), host: "imap.daum.net", preset: Preset{Name: "Daum"}},
	}
}
