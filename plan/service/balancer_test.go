package service

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/fairlead-net/fairlead/model"
)

// frontend is what a VIP of TCP is; nil if it is none.
func (p *Plan) frontend(at string) *Frontend {
	f, _ := p.Frontends.Get(VIP{model.TCP, netip.MustParseAddrPort(at)})
	return f
}

func ranges(texts ...string) (all []netip.Prefix) {
	for _, text := range texts {
		all = append(all, netip.MustParsePrefix(text))
	}
	return all
}

// TestSourceRanges: they are about load balancers' addresses alone, of the family
// that they name: who may not call there is free to call node ports and external
// IPs, and by a family without a range.
func TestSourceRanges(t *testing.T) {
	all := map[string]bool{} // VIPs, and whether a stranger may call
	for _, vip := range []string{
		"198.51.100.2:80", "[2001:db8:2::2]:80", "198.51.100.1:80", "[2001:db8:1::1]:80",
		"192.0.2.1:30080", "[2001:db8::1]:30080", "10.96.0.1:80", "[fd96::1]:80",
	} {
		all[vip] = true
	}
	for _, test := range []struct {
		name   string
		ranges []netip.Prefix
		closed []string
	}{
		{"none", nil, nil},
		{"of IPv4", ranges("203.0.113.0/24"), []string{"198.51.100.2:80"}},
		{"of IPv6", ranges("2001:db8:113::/48"), []string{"[2001:db8:2::2]:80"}},
		{"of both", ranges("203.0.113.0/24", "2001:db8:113::/48"), []string{"198.51.100.2:80", "[2001:db8:2::2]:80"}},
		{"all of one", ranges("203.0.113.0/24", "0.0.0.0/0", "2001:db8:113::/48"), []string{"[2001:db8:2::2]:80"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			c, s := newCluster(), service()
			s.LoadBalancerIPs = []netip.Addr{addr("198.51.100.2"), addr("2001:db8:2::2")}
			s.ExternalIPs = []netip.Addr{addr("198.51.100.1"), addr("2001:db8:1::1")}
			s.SourceRanges = test.ranges
			c.serve(s)
			p, _ := Compute(nil, &c.Snapshot, "a")
			for vip := range all {
				stranger := addr("198.18.0.1")
				if netip.MustParseAddrPort(vip).Addr().Is6() {
					stranger = addr("2001:db8:99::1")
				}
				if got, want := p.frontend(vip).Allows(stranger), !slices.Contains(test.closed, vip); got != want {
					t.Errorf("a stranger may call %s: %t, want %t", vip, got, want)
				}
			}
		})
	}
}

// TestSharedBalancer: two Services may have one load balancer's address, by ports
// of their own, and each says who may call its own (kubernetes#119791). One that
// goes leaves the other alone.
func TestSharedBalancer(t *testing.T) {
	c := newCluster()
	first, second := service(), service()
	second.Name, second.ClusterIPs = "mail", []netip.Addr{addr("10.96.0.2")}
	second.Ports = []model.ServicePort{{Name: "http", Protocol: model.TCP, Port: 25}}
	for _, s := range []*model.Service{first, second} {
		s.LoadBalancerIPs = []netip.Addr{addr("198.51.100.2")}
		c.serve(s)
	}
	first.SourceRanges = ranges("203.0.113.0/24")
	p, problems := Compute(nil, &c.Snapshot, "a")
	if len(problems) > 0 {
		t.Errorf("problems %v", problems)
	}
	const web, mail = "198.51.100.2:80", "198.51.100.2:25"
	stranger := addr("198.18.0.1")
	if p.frontend(web).Allows(stranger) || !p.frontend(mail).Allows(stranger) {
		t.Errorf("a stranger may call web: %t, mail: %t", p.frontend(web).Allows(stranger), p.frontend(mail).Allows(stranger))
	}
	c.Services = c.Services.Without(first.ServiceKey)
	p, _ = Compute(p, &c.Snapshot, "a")
	if p.frontend(web) != nil || p.frontend(mail) == nil {
		t.Errorf("after web went, web is %v and mail is %v", p.frontend(web), p.frontend(mail))
	}
}

// TestTransitions: a Service gets and loses families, types and ports, in both
// directions, and nothing stays of what it was.
func TestTransitions(t *testing.T) {
	c := newCluster()
	var p *Plan
	for _, step := range []struct {
		name   string
		change func(*model.Service)
		want   []string
	}{
		{"of IPv4", func(s *model.Service) { s.ClusterIPs = s.ClusterIPs[:1] }, []string{"10.96.0.1:80", "192.0.2.1:30080"}},
		{"of both", func(*model.Service) {}, []string{"10.96.0.1:80", "192.0.2.1:30080", "[2001:db8::1]:30080", "[fd96::1]:80"}},
		{"of IPv6", func(s *model.Service) { s.ClusterIPs = s.ClusterIPs[1:] }, []string{"[2001:db8::1]:30080", "[fd96::1]:80"}},
		{"a load balancer's", func(s *model.Service) {
			s.LoadBalancerIPs = []netip.Addr{addr("198.51.100.2")}
		}, []string{"10.96.0.1:80", "192.0.2.1:30080", "198.51.100.2:80", "[2001:db8::1]:30080", "[fd96::1]:80"}},
		{"a ClusterIP only", func(s *model.Service) { s.Ports[0].NodePort = 0 }, []string{"10.96.0.1:80", "[fd96::1]:80"}},
		{"by another port", func(s *model.Service) { s.Ports[0].NodePort, s.Ports[0].Port = 30081, 81 },
			[]string{"10.96.0.1:81", "192.0.2.1:30081", "[2001:db8::1]:30081", "[fd96::1]:81"}},
		{"and by the first", func(*model.Service) {}, []string{"10.96.0.1:80", "192.0.2.1:30080", "[2001:db8::1]:30080", "[fd96::1]:80"}},
		{"it has no address any more", nil, nil},
	} {
		s := service()
		if step.change != nil {
			step.change(s)
			c.serve(s)
		} else {
			c.Services = c.Services.Without(web)
		}
		p, _ = Compute(p, &c.Snapshot, "a")
		var got []netip.AddrPort
		for vip := range p.Frontends.All() {
			got = append(got, vip.At)
		}
		slices.SortFunc(got, netip.AddrPort.Compare)
		var texts []string
		for _, at := range got {
			texts = append(texts, at.String())
		}
		if !slices.Equal(texts, step.want) {
			t.Errorf("%s: %v, want %v", step.name, texts, step.want)
		}
	}
}

// TestServiceCIDRsChange: ranges come and go while all else stays; one that lies in
// another is in force when that goes.
func TestServiceCIDRsChange(t *testing.T) {
	c := newCluster()
	var p *Plan
	for _, step := range []struct{ name, prefix, want string }{
		{"one", "10.96.0.0/16", "[10.96.0.0/16]"},
		{"more", "10.96.8.0/24", "[10.96.0.0/16]"},
		{"other", "fd97::/112", "[10.96.0.0/16 fd97::/112]"},
		{"one", "", "[10.96.8.0/24 fd97::/112]"},
		{"more", "", "[fd97::/112]"},
	} {
		if step.prefix == "" {
			c.ServiceCIDRs = c.ServiceCIDRs.Without(step.name)
		} else {
			c.ServiceCIDRs = c.ServiceCIDRs.With(step.name, &model.ServiceCIDR{Name: step.name, Prefixes: ranges(step.prefix)})
		}
		p, _ = Compute(p, &c.Snapshot, "a")
		var got []netip.Prefix
		for prefix := range p.CIDRs.All() {
			got = append(got, prefix)
		}
		slices.SortFunc(got, netip.Prefix.Compare)
		if fmt.Sprint(got) != step.want {
			t.Errorf("after %s became %q: %v, want %s", step.name, step.prefix, got, step.want)
		}
	}
}
