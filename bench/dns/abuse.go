package main

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/fairlead-net/fairlead/model"
)

// Who asks: pods of the node, by their addresses.
const (
	victims    = 10
	victimRate = 100 // queries a second of each, one of twenty by TCP
	// openConnections are held by the abuser, or by a crowd of them.
	openConnections = 10_000
	crowd           = 200
)

func victim(n int) netip.Addr { return netip.AddrFrom4([4]byte{127, 1, 0, byte(n + 1)}) }
func abuser(n int) netip.Addr { return netip.AddrFrom4([4]byte{127, 66, byte(n), 1}) }

// attack is what somebody does all the while that others ask for names of the
// cluster.
type attack struct {
	name     string
	upstream behaviour
	run      func(ctx context.Context, at netip.AddrPort) (tally, error) // nil: nothing
}

// tally is what became of an attack.
type tally struct{ sent, answered int }

func attacks(rate int) []attack {
	flood := func(ports int, suffix string) func(context.Context, netip.AddrPort) (tally, error) {
		return func(ctx context.Context, at netip.AddrPort) (tally, error) {
			return floodFrom(ctx, abuser(0), at, ports, suffix, rate)
		}
	}
	hold := func(clients int) func(context.Context, netip.AddrPort) (tally, error) {
		return func(ctx context.Context, at netip.AddrPort) (tally, error) { return holdOpen(ctx, at, clients) }
	}
	return []attack{
		{"nobody", quick, nil},
		{"one port, names of the cluster that there are not", quick, flood(1, "namespace-7.svc.cluster.local.")},
		{"64 ports, the same", quick, flood(64, "namespace-7.svc.cluster.local.")},
		{"64 ports, names outside, of a quick upstream", quick, flood(64, "example.com.")},
		{"… of one that takes 2 s", slow, flood(64, "slow.example.com.")},
		{"… of one that lies", lying, flood(64, "lies.example.com.")},
		{"… of one that is dead", dead, flood(64, "dead.example.com.")},
		{"10,000 TCP connections of one client", quick, hold(1)},
		{"10,000 TCP connections of 200 clients", quick, hold(crowd)},
	}
}

// measureAbuse prints what others get during each attack, and by what name the
// metrics call the client that has asked most.
func measureAbuse(of *fairleadServer, up *upstream, s settings) error {
	at, err := freeAddress()
	if err != nil {
		return err
	}
	p, err := of.start(at)
	if err != nil {
		return err
	}
	defer p.stop()
	mix := of.objects.mixes()[0]
	if _, err := p.answers(at, mix.queries[0]); err != nil {
		return err
	}
	fmt.Printf("%d Services; %d clients ask %d times a second each, one asks %d times; %s of each attack\n\n", s.services, victims, victimRate, s.flood, s.during)
	table := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "abuser\tsends/s\tanswered/s\tothers ask/s\tlost\tp50\tp99\tlongest\tTCP p50\tTCP p99\tserver CPU\tby name")
	for _, attack := range attacks(s.flood) {
		up.behave(attack.upstream)
		if err := measureAttack(table, attack, p, at, mix.queries, s.during); err != nil {
			return fmt.Errorf("%s: %w", attack.name, err)
		}
	}
	return table.Flush()
}

func measureAttack(table *tabwriter.Writer, attack attack, p *process, at netip.AddrPort, queries [][]byte, during time.Duration) error {
	fmt.Fprintln(os.Stderr, attack.name)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var attacking sync.WaitGroup
	var done tally
	var failed error
	before, err := clientMetrics()
	if err != nil {
		return err
	}
	began := time.Now()
	if attack.run != nil {
		attacking.Go(func() { done, failed = attack.run(ctx, at) })
		time.Sleep(time.Second) // until it is at its worst
	}
	cpu, err := p.cpu()
	if err != nil {
		return err
	}
	udp, tcp, err := askAsOthers(at, queries, during)
	if err != nil {
		return err
	}
	spent, err := p.cpu()
	if err != nil {
		return err
	}
	cancel()
	attacking.Wait()
	lasted := time.Since(began).Seconds()
	after, err := clientMetrics()
	if err != nil || failed != nil {
		return fmt.Errorf("%w, %w", err, failed)
	}
	round := func(d time.Duration) time.Duration { return d.Round(10 * time.Microsecond) }
	fmt.Fprintf(table, "%s\t%.0f\t%.0f\t%.0f\t%d\t%v\t%v\t%v\t%v\t%v\t%.2f\t%s\n", attack.name,
		float64(done.sent)/lasted, float64(done.answered)/lasted, float64(udp.answered)/udp.took.Seconds(), udp.lost+tcp.lost,
		round(udp.percentile(50)), round(udp.percentile(99)), round(udp.percentile(100)),
		round(tcp.percentile(50)), round(tcp.percentile(99)),
		(spent-cpu).Seconds()/during.Seconds(), busiest(before, after))
	return table.Flush()
}

// askAsOthers asks for names of the cluster, as those who do nothing bad. What is
// lost counts as long as a resolver waits.
func askAsOthers(at netip.AddrPort, queries [][]byte, during time.Duration) (udp, tcp outcome, failed error) {
	var mu sync.Mutex
	var running sync.WaitGroup
	began := time.Now()
	for n := range victims {
		running.Go(func() {
			c, err := newClient(victim(n), at, queries, n*len(queries)/victims)
			if err == nil {
				err = c.steady(during, time.Second/victimRate)
				c.close()
			}
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				failed = err
				return
			}
			udp.add(&c.outcome)
		})
		running.Go(func() {
			var o outcome
			for end := time.Now().Add(during); time.Now().Before(end); time.Sleep(20 * time.Second / victimRate) {
				o.overTCP(victim(n), at, queries[n])
			}
			mu.Lock()
			defer mu.Unlock()
			tcp.add(&o)
		})
	}
	running.Wait()
	udp.took = time.Since(began)
	return udp, tcp, failed
}

func (o *outcome) add(other *outcome) {
	o.answered += other.answered
	o.lost += other.lost
	o.latencies = append(o.latencies, other.latencies...)
	for range other.lost {
		o.latencies = append(o.latencies, patience)
	}
}

// overTCP asks once, by a connection of its own.
func (o *outcome) overTCP(source netip.Addr, at netip.AddrPort, query []byte) {
	began := time.Now()
	dialer := net.Dialer{Timeout: patience, LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(source, 0))}
	conn, err := dialer.Dial("tcp", at.String())
	if err != nil {
		o.lost++
		return
	}
	defer conn.Close()
	_ = conn.SetDeadline(began.Add(patience))
	if _, err = conn.Write(append([]byte{0, byte(len(query))}, query...)); err == nil {
		_, err = conn.Read(make([]byte, 1500))
	}
	if err != nil {
		o.lost++
		return
	}
	o.answered++
	o.latencies = append(o.latencies, time.Since(began))
}

// clientMetrics reads what the server's metrics say of its clients.
func clientMetrics() (map[string]float64, error) {
	response, err := http.Get("http://" + healthAddress + "/metrics")
	if err != nil {
		return nil, fmt.Errorf("read metrics: %w", err)
	}
	defer response.Body.Close()
	all := map[string]float64{}
	for lines := bufio.NewScanner(response.Body); lines.Scan(); {
		var value float64
		series, text, _ := strings.Cut(lines.Text(), "} ")
		if name, ok := strings.CutPrefix(series, "fairlead_dns_client_"); ok {
			if _, err := fmt.Sscan(text, &value); err != nil {
				return nil, fmt.Errorf("read metrics: %w", err)
			}
			all[name] = value
		}
	}
	return all, nil
}

// busiest is the series that has grown most.
func busiest(before, after map[string]float64) string {
	most, name := 0.0, ""
	for series, value := range after {
		if grown := value - before[series]; grown > most {
			most, name = grown, series
		}
	}
	return fmt.Sprintf("%s} +%.0f", name, most)
}

// settle makes the clients pods of the node, and an upstream that which is asked.
func (c *cluster) settle(upstream netip.AddrPort) {
	pods := map[model.AttachmentKey]*model.Attachment{}
	add := func(name string, addr netip.Addr) {
		at := model.AttachmentKey{ContainerID: name, Interface: "eth0"}
		pods[at] = &model.Attachment{AttachmentKey: at, Pod: model.PodKey{Namespace: "default", Name: name}, Addresses: []netip.Addr{addr}}
	}
	for n := range victims {
		add(fmt.Sprintf("other-%d", n), victim(n))
	}
	for n := range crowd {
		add(fmt.Sprintf("abuser-%d", n), abuser(n))
	}
	c.snapshot.Attachments = model.MapOf(pods)
	network := *c.snapshot.Network
	c.upstream = upstream
	network.DNS.Upstreams = []model.Upstream{{At: upstream}}
	c.snapshot.Network = &network
}
