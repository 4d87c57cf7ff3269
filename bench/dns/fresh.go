package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/miekg/dns"

	"github.com/fairlead-net/fairlead/model"
)

// freshRounds is how often each kind of change is made.
const freshRounds = 300

// measureFresh changes what the agent's snapshot holds, and asks until the server
// answers so. It prints how long that takes.
func measureFresh(of *fairleadServer, s settings) error {
	if s.headless == 0 {
		return errors.New("--fresh changes an endpoint of a headless Service: let there be some (--headless)")
	}
	at, err := freeAddress()
	if err != nil {
		return err
	}
	p, err := of.start(at)
	if err != nil {
		return err
	}
	defer p.stop()
	if _, err := p.answers(at, of.objects.mixes()[0].queries[0]); err != nil {
		return err
	}
	conn, err := net.Dial("udp", at.String())
	if err != nil {
		return err
	}
	defer conn.Close()
	f := &freshness{feed: of.feed, wire: &dns.Conn{Conn: conn}, took: map[string][]time.Duration{}}
	headless := 0 // the first that is
	for !of.objects.isHeadless(headless) {
		headless++
	}
	for n := range freshRounds {
		if err := f.round(n, headless); err != nil {
			return err
		}
	}
	fmt.Printf("%d Services, %d endpoints each, %d %% headless; from the change of the agent's snapshot to the answer\n\n", s.services, s.endpoints, s.headless)
	for _, what := range changes {
		o := outcome{latencies: f.took[what]}
		fmt.Printf("%-28s %d times  p50 %v  p99 %v  longest %v\n", what, len(o.latencies),
			o.percentile(50).Round(10*time.Microsecond), o.percentile(99).Round(10*time.Microsecond), o.percentile(100).Round(10*time.Microsecond))
	}
	return nil
}

// changes are the kinds that are made.
var changes = []string{"a Service, denied before", "an endpoint is another", "a Service is gone"}

type freshness struct {
	feed *model.Feed
	wire *dns.Conn
	took map[string][]time.Duration
}

// round makes one change of each kind.
func (f *freshness) round(n, headless int) error {
	at := model.ServiceKey{Namespace: "namespace-0", Name: fmt.Sprintf("fresh-%d", n)}
	name := at.Name + ".namespace-0.svc.cluster.local."
	addr := netip.AddrFrom4([4]byte{10, 97, byte(n >> 8), byte(n)})
	if told, err := f.ask(name); err != nil || told != "NXDOMAIN" {
		return fmt.Errorf("%s is answered with %s (%v), and there is none yet", name, told, err)
	}
	if err := f.change(changes[0], name, addr.String(), func(s *model.Snapshot) {
		s.Services = s.Services.With(at, &model.Service{ServiceKey: at, ClusterIPs: []netip.Addr{addr}, Ports: []model.ServicePort{{Name: "http", Protocol: model.TCP, Port: 80}}})
	}); err != nil {
		return err
	}
	namespace, service := key(headless)
	if err := f.change(changes[1], fmt.Sprintf("pod-0.%s.%s.svc.cluster.local.", service, namespace), addr.String(), func(s *model.Snapshot) {
		for slice, hosts := range s.Hosts.All() {
			if slice.Namespace == namespace && hosts.Service == service {
				next := *hosts
				next.Hosts = slices.Clone(hosts.Hosts)
				next.Hosts[0].Address = addr
				s.Hosts = s.Hosts.With(slice, &next)
				return
			}
		}
	}); err != nil {
		return err
	}
	return f.change(changes[2], name, "NXDOMAIN", func(s *model.Snapshot) { s.Services = s.Services.Without(at) })
}

// change makes one, and waits until it is answered.
func (f *freshness) change(what, name, want string, edit func(*model.Snapshot)) error {
	f.feed.Edit(edit)
	for began := time.Now(); ; {
		told, err := f.ask(name)
		switch took := time.Since(began); {
		case err != nil:
			return err
		case told == want:
			f.took[what] = append(f.took[what], took)
			return nil
		case took > 5*time.Second:
			return fmt.Errorf("%s: %s is answered with %s after %s, and should be with %s", what, name, told, took, want)
		}
		time.Sleep(100 * time.Microsecond) // nobody tells
	}
}

// ask returns the address that a name has, or the rcode.
func (f *freshness) ask(name string) (string, error) {
	query := new(dns.Msg).SetQuestion(name, dns.TypeA)
	_ = f.wire.SetDeadline(time.Now().Add(patience))
	if err := f.wire.WriteMsg(query); err != nil {
		return "", fmt.Errorf("ask: %w", err)
	}
	answer, err := f.wire.ReadMsg()
	if err != nil {
		return "", fmt.Errorf("read the answer: %w", err)
	}
	if len(answer.Answer) != 1 {
		return dns.RcodeToString[answer.Rcode], nil
	}
	return answer.Answer[0].(*dns.A).A.String(), nil
}
