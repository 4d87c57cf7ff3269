package lab

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func TestConfigDefaults(t *testing.T) {
	got, err := Config{}.Complete()
	want := Config{
		Name: "lab", Nodes: 3, Segments: 2, Family: Dual, MTU: []int{1500},
		KubeProxy: None, DNS: "coredns", Network: "fairlead",
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("the zero Config is %+v, %v; want %+v", got, err, want)
	}
	if other, err := (Config{Network: None}).Complete(); err != nil || other.KubeProxy != "nftables" {
		t.Errorf("without Fairlead, kube-proxy is %q, %v", other.KubeProxy, err)
	}
	if one, err := (Config{Nodes: 1}).Complete(); err != nil || one.Segments != 1 {
		t.Errorf("one node has %d segments, %v; want 1", one.Segments, err)
	}
}

func TestConfigMistakes(t *testing.T) {
	for _, test := range []struct {
		config Config
		want   string // part of the error
	}{
		{Config{Name: "My Lab"}, "name:"},
		{Config{Nodes: 201}, "nodes:"},
		{Config{Nodes: -1}, "nodes:"},
		{Config{Nodes: 2, Segments: 3}, "segments:"},
		{Config{Zones: -1}, "zones:"},
		{Config{MTU: []int{1279}}, "mtu:"},
		{Config{MTU: []int{1500, 1500, 1500}}, "mtu:"},
		{Config{MTU: []int{9000, 575}, Family: IPv4}, "mtu:"},
		{Config{Family: "ipx"}, "family:"},
		{Config{KubeProxy: "ipvs"}, "kube-proxy:"},
		{Config{DNS: "fairlead", Network: None}, "told of names by"},
		{Config{DNS: "bind"}, "dns:"},
		{Config{Network: "flannel"}, "network:"},
	} {
		if _, err := test.config.Complete(); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%+v: error %v, want one with %q", test.config, err, test.want)
		}
	}
	_, err := Config{Nodes: -1, Family: "ipx", Network: "flannel"}.Complete()
	for _, field := range []string{"nodes:", "family:", "network:"} {
		if err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("three mistakes at once give %v, without %q", err, field)
		}
	}
}

func TestPlanSpreadsNodes(t *testing.T) {
	for _, test := range []struct {
		config   Config
		segments string
		zones    string
	}{
		{Config{Nodes: 3, Segments: 2}, "aab", ""},
		{Config{Nodes: 6, Segments: 2, Zones: 3}, "aaabbb", "123123"},
		{Config{Nodes: 3, Segments: 3, Zones: 2}, "abc", "121"},
		{Config{Nodes: 4, Segments: 1}, "aaaa", ""},
		{Config{Nodes: 5, Segments: 3}, "aabbc", ""},
	} {
		var segments, zones string
		for _, node := range test.config.plan() {
			segments += segmentName(node.Segment)
			zones += strings.TrimPrefix(node.Zone, "zone")
		}
		if segments != test.segments || zones != test.zones {
			t.Errorf("%+v: segments %s, zones %s; want %s, %s", test.config, segments, zones, test.segments, test.zones)
		}
	}
}

// TestAddressPlan: no two machines of the largest lab share an address, and
// none is a pod's or a service's.
func TestAddressPlan(t *testing.T) {
	config := Config{Nodes: maxNodes, Segments: maxSegments, Family: Dual}
	l := &Lab{state: state{Config: config, Nodes: config.plan()}}
	machines := []string{Router, Control, Internet}
	for _, node := range l.state.Nodes {
		machines = append(machines, node.Name)
	}
	owner := map[netip.Addr]string{}
	for _, machine := range machines {
		for _, addr := range l.Addresses(machine) {
			if other, taken := owner[addr]; taken {
				t.Errorf("%s and %s both have %s", machine, other, addr)
			}
			owner[addr] = machine
			for _, cidr := range []string{podCIDR4, podCIDR6, serviceCIDR4, serviceCIDR6} {
				if netip.MustParsePrefix(cidr).Contains(addr) {
					t.Errorf("%s of %s lies in %s", addr, machine, cidr)
				}
			}
		}
	}
	if want := 2 * len(machines); len(owner) != want {
		t.Errorf("%d addresses, want %d", len(owner), want)
	}
	for family, want := range map[Family]string{IPv4: "172.30.0.10", IPv6: "fd00:172:30::10"} {
		l.state.Config.Family = family
		if got := l.Addresses(Control); len(got) != 1 || got[0].String() != want {
			t.Errorf("%s: the API server is at %v, want %s", family, got, want)
		}
	}
}

func TestAuthority(t *testing.T) {
	ca, err := newAuthority("test")
	if err != nil {
		t.Fatal(err)
	}
	again, err := parseAuthority(ca.certPEM, ca.keyPEM)
	if err != nil {
		t.Fatal(err)
	}
	addr := netip.MustParseAddr("fd00:172:30::10")
	certPEM, _, err := again.issue(identity{user: "system:node:node1", group: "system:nodes", names: []string{"node1"}, addrs: []netip.Addr{addr}})
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(certPEM)
	certificate, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(ca.certificate)
	for _, name := range []string{"node1", addr.String()} {
		if _, err := certificate.Verify(x509.VerifyOptions{DNSName: name, Roots: roots}); err != nil {
			t.Errorf("as a server at %s: %v", name, err)
		}
	}
	client := x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	if _, err := certificate.Verify(client); err != nil {
		t.Errorf("as a client: %v", err)
	}
	if s := certificate.Subject; s.CommonName != "system:node:node1" || !slices.Equal(s.Organization, []string{"system:nodes"}) {
		t.Errorf("the subject is %s", s)
	}
}

func TestPreflightNamesWhatIsMissing(t *testing.T) {
	none := func(string) (string, error) { return "", exec.ErrNotFound }
	err := errors.Join(checkPrograms(Config{KubeProxy: "iptables"}, none)...)
	const want = "apt-get install --no-install-recommends runc busybox-static mount iptables"
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("without any program: %v, want %q", err, want)
	}
	all := func(string) (string, error) { return "/bin/true", nil }
	if missing := checkPrograms(Config{KubeProxy: "nftables"}, all); missing != nil {
		t.Errorf("with all programs: %v", missing)
	}
	err = errors.Join(checkCapabilities("Name:\tx\nCapEff:\t000001ffffdfefff\nx")...)
	if err == nil || !strings.Contains(err.Error(), "capabilities NET_ADMIN, SYS_ADMIN") {
		t.Errorf("without two capabilities: %v", err)
	}
	if missing := checkCapabilities("CapEff:\t000001ffffffffff\n"); missing != nil {
		t.Errorf("with all capabilities: %v", missing)
	}
	if got := memoryAvailable("MemTotal: 9 kB\nMemAvailable:   1024 kB\n"); got != 1<<20 {
		t.Errorf("1024 kB are %d bytes", got)
	}
}

// TestPreflightLeavesTheProcessWhereItIs: /proc/self shows what the main thread
// sees, so that one must not stay behind in the namespaces that were tried.
func TestPreflightLeavesTheProcessWhereItIs(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("namespaces need root")
	}
	for _, kind := range []string{"mnt", "net"} {
		before, err := os.Readlink("/proc/self/ns/" + kind)
		if err != nil {
			t.Fatal(err)
		}
		for range 20 {
			checkKernel()
			if now, err := os.Readlink("/proc/self/ns/" + kind); now != before {
				t.Fatalf("the main thread was in %s and is in %s, %v", before, now, err)
			}
		}
	}
}
