package forward

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fairlead-net/fairlead/model"
)

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	// As programs do that take care: readers see the old one or the new one.
	if err := os.WriteFile(path+".new", []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// TestResolvConf: what files say.
func TestResolvConf(t *testing.T) {
	for _, test := range []struct {
		name, text string
		want       string
		wrong      int
	}{
		{"usual", "# made by hand\nsearch example.com\nnameserver 10.0.0.53\nnameserver fd00::53\noptions ndots:5\n", "[10.0.0.53:53 [fd00::53]:53]", 0},
		{"with spaces, comments behind, no end of line", "\tnameserver   10.0.0.53   # first\r\nnameserver 10.0.0.54", "[10.0.0.53:53 10.0.0.54:53]", 0},
		{"a scope", "nameserver fe80::1%eth0", "[[fe80::1%eth0]:53]", 0},
		{"twice the same", "nameserver ::ffff:10.0.0.53\nnameserver 10.0.0.53\n", "[10.0.0.53:53]", 0},
		{"nothing", "", "[]", 0},
		{"another server", "nameserver\nnameserver dns.example\nnameserver 0.0.0.0\nnameserver 10.0.0.53\n", "[10.0.0.53:53]", 3},
		{"garbage", strings.Repeat("nameserver \x00\xff\n", 1000), "[]", maxWrong},
		{"many", many(50), "[10.0.0.0:53 10.0.0.1:53 10.0.0.2:53 10.0.0.3:53 10.0.0.4:53 10.0.0.5:53 10.0.0.6:53 10.0.0.7:53]", 0},
	} {
		conf := parseResolvConf([]byte(test.text))
		if fmt.Sprint(conf.servers) != test.want || len(conf.wrong) != test.wrong {
			t.Errorf("%s: %v, %q", test.name, conf.servers, conf.wrong)
		}
	}
}

func many(n int) (text string) {
	for i := range n {
		text += fmt.Sprintf("nameserver 10.0.0.%d\n", i)
	}
	return text
}

func FuzzResolvConf(f *testing.F) {
	f.Add([]byte("nameserver 10.0.0.53\nnameserver fe80::1%eth0\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		conf := parseResolvConf(text)
		if len(conf.servers) > maxServers || len(conf.wrong) > maxWrong {
			t.Fatalf("%v", conf)
		}
		for _, at := range conf.servers {
			if !at.IsValid() || at.Addr().IsUnspecified() {
				t.Fatalf("%v", conf)
			}
		}
	})
}

// TestResolvedIsSeenThrough: a node whose resolv.conf is a link to that of
// systemd-resolved, seen from a container that has the node's files below /host.
func TestResolvedIsSeenThrough(t *testing.T) {
	root := t.TempDir()
	write(t, root+"/run/systemd/resolve/stub-resolv.conf", "nameserver 127.0.0.53\n")
	write(t, root+"/run/systemd/resolve/resolv.conf", "nameserver 10.0.0.53\nnameserver 10.0.0.54\n")
	if err := os.MkdirAll(root+"/etc", 0o755); err != nil {
		t.Fatal(err)
	}
	for _, link := range []string{"../run/systemd/resolve/stub-resolv.conf", "/run/systemd/resolve/stub-resolv.conf"} {
		_ = os.Remove(root + "/etc/resolv.conf")
		if err := os.Symlink(link, root+"/etc/resolv.conf"); err != nil {
			t.Fatal(err)
		}
		conf, err := readResolvConf(root, "/etc/resolv.conf")
		if err != nil || fmt.Sprint(conf.servers) != "[10.0.0.53:53 10.0.0.54:53]" {
			t.Errorf("by %s: %v, %v", link, conf.servers, err)
		}
	}
	write(t, root+"/run/systemd/resolve/resolv.conf", "# nothing yet\n")
	if conf, err := readResolvConf(root, "/etc/resolv.conf"); err != nil || fmt.Sprint(conf.servers) != "[127.0.0.53:53]" {
		t.Errorf("%v, %v", conf.servers, err)
	}
	_ = os.Remove(root + "/etc/resolv.conf")
	if err := os.Symlink("resolv.conf", root+"/etc/resolv.conf"); err != nil {
		t.Fatal(err)
	}
	if _, err := readResolvConf(root, "/etc/resolv.conf"); err == nil {
		t.Error("a link to itself is read")
	}
	write(t, root+"/etc/long", strings.Repeat("#\n", maxConf))
	if _, err := readResolvConf(root, "/etc/long"); err == nil {
		t.Error("a file without an end is read")
	}
}

// TestResolvConfChanges: it applies within seconds; what is of no use changes
// nothing, and is told.
func TestResolvConfChanges(t *testing.T) {
	conf := filepath.Join(t.TempDir(), "resolv.conf")
	write(t, conf, "nameserver 10.0.0.53\n")
	inBubble(t, Options{ResolvConf: conf, Node: "n1", Own: []netip.Addr{netip.MustParseAddr("10.96.0.10")}}, nil, func(t *testing.T, b *bench) {
		expect := func(want string, reasons ...string) {
			t.Helper()
			time.Sleep(lookEach)
			synctest.Wait()
			var is []string
			for _, u := range b.routes.Load().upstreams {
				is = append(is, u.to.String())
			}
			var told []string
			if all := b.told.Load(); all != nil {
				for _, p := range *all {
					if p.Reason != "UpstreamsDown" {
						told = append(told, p.Reason)
						if p.Object() != "Node/n1" || p.Message == "" || p.Remedy == "" {
							t.Errorf("told is %+v", p)
						}
					}
				}
			}
			if fmt.Sprint(is) != want || fmt.Sprint(told) != fmt.Sprint(reasons) {
				t.Errorf("upstreams are %v, told is %v; want %s and %v", is, told, want, reasons)
			}
		}
		expect("[10.0.0.53:53]")
		write(t, conf, "nameserver 10.0.0.54\nnameserver 10.0.0.53\n")
		expect("[10.0.0.53:53 10.0.0.54:53]")
		write(t, conf, "")
		expect("[10.0.0.53:53 10.0.0.54:53]", "NoUpstreams")
		_ = os.Remove(conf)
		expect("[10.0.0.53:53 10.0.0.54:53]", "ResolvConfNotRead")
		write(t, conf, "nameserver 10.96.0.10\n")
		expect("[10.0.0.53:53 10.0.0.54:53]", "NoUpstreams", "UpstreamIsOurselves")
		write(t, conf, "nameserver 10.96.0.10\nnameserver ten\nnameserver 10.0.0.55\n")
		expect("[10.0.0.55:53]", "ResolvConfInvalid", "UpstreamIsOurselves")
		write(t, conf, "nameserver 10.0.0.53\n")
		expect("[10.0.0.53:53]")
	})
}

// TestStubs: who is asked about what.
func TestStubs(t *testing.T) {
	up := func(addr string) []model.Upstream {
		return []model.Upstream{{At: netip.MustParseAddrPort(addr + ":53")}}
	}
	options := Options{
		Zone: "cluster.local", ResolvConf: "/nowhere", Own: []netip.Addr{netip.MustParseAddr("10.96.0.10")},
		Upstreams: up("192.0.2.1"),
		Stubs: []model.StubDomain{
			{Zone: "corp.example", Upstreams: up("192.0.2.2")},
			{Zone: "deep.corp.example", Upstreams: up("192.0.2.3")},
			{Zone: "local", Upstreams: up("192.0.2.4")},
			{Zone: "svc.cluster.local", Upstreams: up("192.0.2.5")},
			{Zone: "empty.example"},
			{Zone: "not..a.name", Upstreams: up("192.0.2.6")},
			{Zone: "own.example", Upstreams: up("10.96.0.10")},
		},
	}
	f := newWith(options, nil, nil, func(model.Upstream) transport { return &fake{do: refused} })
	for name, want := range map[string]string{
		"www.example": "192.0.2.1:53", ".": "192.0.2.1:53", "corp.example": "192.0.2.2:53", "a.CORP.example": "192.0.2.2:53",
		"xcorp.example": "192.0.2.1:53", "a.b.deep.corp.example": "192.0.2.3:53", "ad.local": "192.0.2.4:53",
		"empty.example": "192.0.2.1:53", "x.own.example": "",
	} {
		got := ""
		if g := f.routes.Load().match(string(question(name, typeA).Name)); g != nil && len(g.upstreams) > 0 {
			got = g.upstreams[0].to.String()
		}
		if got != want {
			t.Errorf("about %s, %q is asked instead of %q", name, got, want)
		}
	}
	problems := f.Problems()
	for _, p := range problems {
		t.Log(p)
		if p.Object() != "Network/default" || p.Field != "spec.dns.stubDomains" {
			t.Errorf("told is %+v", p)
		}
	}
	if len(problems) != 4 {
		t.Errorf("%d problems", len(problems))
	}
}
