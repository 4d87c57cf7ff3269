package feed

import (
	"context"
	"log/slog"
	"net/netip"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan/dns"
)

// learner is an agent's part that learns resolutions when it is let.
type learner struct {
	let chan struct{} // closed: at once

	mu    sync.Mutex
	found []model.Resolution
}

func (l *learner) learn(ctx context.Context, found []model.Resolution) error {
	select {
	case <-l.let:
	case <-ctx.Done():
		return ctx.Err()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.found = append(l.found, found...)
	return nil
}

// learned are the addresses that it has learned, each once, sorted.
func (l *learner) learned() (all []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range l.found {
		for _, addr := range r.Addresses {
			all = append(all, r.Name+" "+addr.String())
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

func resolution(name string, ttl uint32, addresses ...string) []model.Resolution {
	r := model.Resolution{Name: name, TTL: ttl}
	for _, addr := range addresses {
		r.Addresses = append(r.Addresses, netip.MustParseAddr(addr))
	}
	return []model.Resolution{r}
}

func (r *Receiver) passed(t *testing.T, name, addr string, ttl uint32) bool {
	t.Helper()
	parsed, err := dns.ParseName(name)
	if err != nil {
		t.Fatal(err)
	}
	return r.Passed(parsed, netip.MustParseAddr(addr), ttl)
}

// meets are a Sender with a learner, and a Receiver of its.
func meets(t *testing.T, l *learner) (*Sender, *agent, *Receiver) {
	t.Helper()
	s := newSender(t)
	s.Learn = l.learn
	a := runSender(t, s)
	a.Serve(Serving{Domains: []string{"*.example.org"}})
	r := &Receiver{Path: filepath.Join(s.Dir, Socket), Apply: func(State) {}, Log: slog.New(slog.DiscardHandler)}
	runReceiver(t, r)
	a.Feed.Edit(know)
	eventually(t, "they do not meet", r.Connected)
	return s, a, r
}

// TestInstall: a server waits until the agent has learned what is new, and for
// nothing that it knows.
func TestInstall(t *testing.T) {
	l := &learner{let: make(chan struct{})}
	_, _, r := meets(t, l)
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.Install(t.Context(), resolution("www.example.org", 30, "192.0.2.1", "2001:db8::1"))
	}()
	select {
	case <-done:
		t.Error("it does not wait")
	case <-time.After(50 * time.Millisecond):
	}
	if r.passed(t, "www.example.org", "192.0.2.1", 30) {
		t.Error("what is not learned passes")
	}
	close(l.let)
	<-done
	for addr, want := range map[string]bool{"192.0.2.1": true, "2001:db8::1": true, "192.0.2.2": false} {
		if r.passed(t, "www.example.org", addr, 30) != want {
			t.Errorf("%s passes: %v", addr, !want)
		}
	}
	if r.passed(t, "www.example.org", "192.0.2.1", 3600) {
		t.Error("it passes for longer than the agent keeps it")
	}
	if r.Late() != 0 {
		t.Errorf("%d were late", r.Late())
	}
	want := []string{"www.example.org 192.0.2.1", "www.example.org 2001:db8::1"}
	if got := l.learned(); !slices.Equal(got, want) {
		t.Errorf("learned %q, want %q", got, want)
	}
}

// TestInstallLate: an answer does not wait for ever for an agent that does not learn,
// nor for one that is not there.
func TestInstallLate(t *testing.T) {
	l := &learner{let: make(chan struct{})}
	_, a, r := meets(t, l)
	began := time.Now()
	r.Install(t.Context(), resolution("www.example.org", 30, "192.0.2.1"))
	if took := time.Since(began); took < installTime || took > 10*installTime {
		t.Errorf("it took %v", took)
	}
	if r.Late() != 1 || r.passed(t, "www.example.org", "192.0.2.1", 30) {
		t.Errorf("%d were late", r.Late())
	}
	a.stop()
	eventually(t, "the agent is there", func() bool {
		began = time.Now()
		r.Install(t.Context(), resolution("b.example.org", 30, "192.0.2.1"))
		return time.Since(began) < installTime/2
	})
}

// TestInstallAgain: an agent that begins is told what is known, as far as anybody
// wants it, and so is one that has forgotten some.
func TestInstallAgain(t *testing.T) {
	l := &learner{let: make(chan struct{})}
	close(l.let)
	s, a, r := meets(t, l)
	for i := range 1000 {
		addr := netip.AddrFrom4([4]byte{192, 0, byte(i >> 8), byte(i)})
		r.Install(t.Context(), resolution("www.example.org", 3600, addr.String()))
	}
	r.Install(t.Context(), resolution("www.example.net", 3600, "192.0.2.1")) // of a policy that is gone
	a.stop()
	next := newSender(t)
	next.Dir = s.Dir
	other := &learner{let: l.let}
	next.Learn = other.learn
	b := runSender(t, next)
	b.Serve(Serving{Domains: []string{"*.example.org"}})
	eventually(t, "it is not told all", func() bool { return len(other.learned()) == 1000 })
	eventually(t, "it does not pass", func() bool { return r.passed(t, "www.example.org", "192.0.3.231", 3600) })
	other.mu.Lock()
	other.found = nil
	other.mu.Unlock()
	b.Serve(Serving{Domains: []string{"*.example.org"}, Forgotten: 1})
	eventually(t, "it is not told again", func() bool { return len(other.learned()) == 1000 })
	if slices.ContainsFunc(other.learned(), func(text string) bool { return text[:15] == "www.example.net" }) {
		t.Error("it is told what nobody wants")
	}
}
