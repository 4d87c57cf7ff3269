package servicehealth

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fairlead-net/fairlead/dataplane/conformance/netnstest"
	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan/service"
)

// node is a network namespace in that a server runs.
type node struct {
	t *testing.T
	*netnstest.Namespace
	*Server
	healthy atomic.Bool

	mu   sync.Mutex
	told []model.Problem
}

func start(t *testing.T) *node {
	t.Helper()
	n := &node{t: t, Namespace: netnstest.New(t)}
	n.healthy.Store(true)
	n.Server = New(n.healthy.Load, func(problems ...model.Problem) {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.told = problems
	}, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		n.Do(func() { // what it opens is in the namespace
			if err := n.Run(ctx); err != nil {
				t.Error(err)
			}
		})
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
		for _, at := range []string{"127.0.0.1:30100", "[::1]:30100"} {
			if code, _, _ := n.get(at); code != 0 {
				t.Errorf("%s answers although the server has ended", at)
			}
		}
	})
	return n
}

// get returns the answer at an address; 0 if nobody listens.
func (n *node) get(at string) (code int, header http.Header, body string) {
	n.t.Helper()
	n.Do(func() {
		client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
			DisableKeepAlives: true,
			DialContext: func(context.Context, string, string) (net.Conn, error) { // on this thread
				return nil, fmt.Errorf("dialled twice")
			},
		}}
		conn, err := net.Dial("tcp", at)
		if err != nil {
			return
		}
		client.Transport.(*http.Transport).DialContext = func(context.Context, string, string) (net.Conn, error) { return conn, nil }
		answer, err := client.Get("http://" + at + "/")
		if err != nil {
			return // it was closed meanwhile
		}
		defer answer.Body.Close()
		text, _ := io.ReadAll(answer.Body)
		code, header, body = answer.StatusCode, answer.Header, string(text)
	})
	return code, header, body
}

// eventually waits until an address answers with a code.
func (n *node) eventually(at string, want int) {
	n.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(2 * time.Millisecond) {
		code, _, _ := n.get(at)
		if code == want {
			return
		}
		if time.Now().After(deadline) {
			n.t.Fatalf("%s answers %d, want %d", at, code, want)
		}
	}
}

func (n *node) problems() []model.Problem {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.told
}

var web = model.ServiceKey{Namespace: "default", Name: "web"}

// wanted is port 30100 at all addresses, unless some are given, with this many
// endpoints of each family.
func wanted(ipv4, ipv6 int, at ...string) (w Wanted) {
	w.Checks = w.Checks.With(30100, &service.HealthCheck{Service: web, Local: [...]int{model.IPv4: ipv4, model.IPv6: ipv6}})
	if len(at) == 0 {
		at = []string{"0.0.0.0", "::"}
	}
	for _, addr := range at {
		w.Addresses = w.Addresses.With(netip.MustParseAddr(addr), struct{}{})
	}
	return w
}

// TestAnswers: the code, the weight and the body are those of kube-proxy, each
// family has its own, and what changes shows at once.
func TestAnswers(t *testing.T) {
	n := start(t)
	n.Follow(wanted(2, 0))
	n.eventually("127.0.0.1:30100", 200)
	n.eventually("[::1]:30100", 503)
	_, header, body := n.get("127.0.0.1:30100")
	for key, want := range map[string]string{
		"Content-Type": "application/json", "X-Content-Type-Options": "nosniff", "X-Load-Balancing-Endpoint-Weight": "2",
	} {
		if header.Get(key) != want {
			t.Errorf("%s is %q, want %q", key, header.Get(key), want)
		}
	}
	var got any
	if err := json.Unmarshal([]byte(body), &got); err != nil || !reflect.DeepEqual(got, map[string]any{
		"service": map[string]any{"namespace": "default", "name": "web"}, "localEndpoints": 2.0, "serviceProxyHealthy": true,
	}) {
		t.Errorf("%v: %s", err, body)
	}

	n.healthy.Store(false)
	if code, header, body := n.get("127.0.0.1:30100"); code != 503 || header.Get("X-Load-Balancing-Endpoint-Weight") != "2" || !strings.Contains(body, `"serviceProxyHealthy":false`) {
		t.Errorf("of a node that does not follow: %d %v %s", code, header, body)
	}
	n.healthy.Store(true)
	n.Follow(wanted(0, 1))
	if code, _, _ := n.get("127.0.0.1:30100"); code != 503 {
		t.Errorf("without endpoints: %d", code)
	}
	if code, _, _ := n.get("[::1]:30100"); code != 200 {
		t.Errorf("with an endpoint: %d", code)
	}
}

// TestDoors: ports and addresses open and close as they are wanted; one that
// stays is left alone.
func TestDoors(t *testing.T) {
	n := start(t)
	both := wanted(1, 1)
	both.Checks = both.Checks.With(30101, &service.HealthCheck{Service: web, Local: [...]int{1, 1}})
	n.Follow(both)
	n.eventually("127.0.0.1:30101", 200)
	n.eventually("[::1]:30100", 200)
	n.Follow(wanted(1, 1))
	n.eventually("127.0.0.1:30101", 0)
	n.Follow(wanted(1, 1, "127.0.0.2"))
	n.eventually("127.0.0.2:30100", 200)
	n.eventually("127.0.0.1:30100", 0)
	n.eventually("[::1]:30100", 0)
	n.Follow(Wanted{})
	n.eventually("127.0.0.2:30100", 0)
	if problems := n.problems(); len(problems) > 0 {
		t.Errorf("problems %v", problems)
	}
}

// TestTaken: a port that another program has is a Problem, the rest opens, and it
// is taken over when it is free.
func TestTaken(t *testing.T) {
	n := start(t)
	var other net.Listener
	n.Do(func() {
		var err error
		if other, err = net.Listen("tcp4", "0.0.0.0:30100"); err != nil {
			t.Error(err)
		}
	})
	n.Follow(wanted(1, 1))
	n.eventually("[::1]:30100", 200)
	for deadline := time.Now().Add(10 * time.Second); len(n.problems()) == 0 && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	problems := n.problems()
	if len(problems) != 1 || !strings.HasPrefix(problems[0].String(), "Service/default/web spec.healthCheckNodePort: ") || !strings.Contains(problems[0].Remedy, "30100") {
		t.Errorf("problems %v", problems)
	}
	if err := other.Close(); err != nil {
		t.Error(err)
	}
	n.eventually("127.0.0.1:30100", 200)
	for deadline := time.Now().Add(10 * time.Second); len(n.problems()) > 0 && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	if problems := n.problems(); len(problems) > 0 {
		t.Errorf("then there are problems %v", problems)
	}
}

// TestPauses: a port that stays taken is tried ever more seldom.
func TestPauses(t *testing.T) {
	s := New(func() bool { return true }, func(...model.Problem) {}, slog.New(slog.DiscardHandler))
	var serving sync.WaitGroup
	taken, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	at, d := netip.MustParseAddrPort(taken.Addr().String()), &door{}
	var pauses []float64
	for range 8 {
		d.due = time.Time{}
		if s.open(t.Context(), d, at, &serving) {
			t.Fatal("a port was opened that another has")
		}
		pauses = append(pauses, d.pause.Seconds())
		if s.open(t.Context(), d, at, &serving) || time.Until(d.due) > d.pause {
			t.Fatalf("due at %v with a pause of %v", d.due, d.pause)
		}
	}
	if fmt.Sprint(pauses) != "[1 2 4 8 16 30 30 30]" {
		t.Errorf("pauses in seconds: %v", pauses)
	}
}
