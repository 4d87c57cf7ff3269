package certificate

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-net/fairlead/model"
)

const server = "https://ca.example/dir"

var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func wanted(hosts ...string) (all []Wanted) {
	for _, host := range hosts {
		all = append(all, Wanted{Host: host, Ingress: model.IngressKey{Namespace: "shop", Name: "web"}, Field: "f"})
	}
	return all
}

func held(days float64) Held {
	return Held{Server: server, From: start, Until: start.Add(time.Duration(days * float64(24*time.Hour)))}
}

// TestCompute: what is ordered, and when to look again, at a moment.
func TestCompute(t *testing.T) {
	day := func(n float64) time.Time { return start.Add(time.Duration(n * float64(24*time.Hour))) }
	other := held(90)
	other.Server = "https://staging.example/dir"
	for name, test := range map[string]struct {
		wanted []Wanted
		state  State
		server string
		at     time.Time
		want   string
	}{
		"nobody is asked": {wanted("a"), State{}, "", start, "order [] ended [] vain [] again never"},
		"there is none":   {wanted("a", "b"), State{}, server, start, "order [a b] ended [] vain [] again never"},
		"it is young":     {wanted("a"), State{Held: map[string]Held{"a": held(90)}}, server, day(59.9), "order [] ended [] vain [] again 61.0"},
		"it is young, and its attempt is still there": {wanted("a"), State{Held: map[string]Held{"a": held(90)}, Attempts: map[string]Attempt{"a": {Server: server, Failures: 2}}}, server, start,
			"order [] ended [] vain [a] again 61.0"},
		"two thirds":        {wanted("a"), State{Held: map[string]Held{"a": held(90)}}, server, day(64.5), "order [a] ended [] vain [] again never"},
		"another authority": {wanted("a"), State{Held: map[string]Held{"a": other}}, server, start, "order [a] ended [] vain [] again never"},
		"those without one, and then those that end first": {wanted("a", "b", "c"), State{Held: map[string]Held{"a": held(3), "b": held(2)}}, server, day(4),
			"order [c b a] ended [] vain [] again never"},
		"it has failed": {wanted("a"), State{Attempts: map[string]Attempt{"a": {Server: server, Failures: 1, After: day(1)}}}, server, start,
			"order [] ended [] vain [] again 1.0"},
		"it has failed, and the time has come": {wanted("a"), State{Attempts: map[string]Attempt{"a": {Server: server, Failures: 1, After: day(1)}}}, server, day(1),
			"order [a] ended [] vain [] again never"},
		"it has failed at another authority": {wanted("a"), State{Attempts: map[string]Attempt{"a": {Server: "x", Failures: 1, After: day(1)}}}, server, start,
			"order [a] ended [] vain [] again never"},
		"it is under way": {wanted("a"), State{Attempts: map[string]Attempt{"a": {Server: server}}}, server, start, "order [a] ended [] vain [] again never"},
		"nobody wants it any more": {nil, State{Held: map[string]Held{"a": held(2), "b": held(1)}, Attempts: map[string]Attempt{"c": {}}}, server, day(1),
			"order [] ended [b] vain [c] again 2.0"},
	} {
		plan := Compute(test.wanted, &test.state, test.server, test.at)
		again := "never"
		if !plan.Again.IsZero() {
			again = fmt.Sprintf("%.1f", plan.Again.Sub(start).Hours()/24)
		}
		if got := fmt.Sprintf("order %v ended %v vain %v again %s", plan.Order, plan.Ended, plan.Vain, again); got != test.want {
			t.Errorf("%s: %s, want %s", name, got, test.want)
		}
	}
}

// TestRenewal: hosts that came together are renewed apart, and long before the end.
func TestRenewal(t *testing.T) {
	h, days := held(90), map[int]int{}
	for i := range 1000 {
		at := h.renewal(fmt.Sprintf("host%d.example.org", i)).Sub(start).Hours() / 24
		if at < 60 || at > 64.5 {
			t.Fatalf("it is renewed after %.1f days", at)
		}
		days[int(at)]++
	}
	if len(days) != 5 || days[61] > 400 {
		t.Errorf("renewals by day: %v", days)
	}
}

// TestNext: in an hour there are at most five failures, and in a day a dozen.
func TestNext(t *testing.T) {
	now, hour, day := start, 0, 0
	for failures := 1; now.Before(start.Add(24 * time.Hour)); failures++ {
		if day++; now.Before(start.Add(time.Hour)) {
			hour++
		}
		now = Next(failures, 0, now)
	}
	if hour > 5 || day > 12 || day < 5 {
		t.Errorf("%d in an hour, %d in a day", hour, day)
	}
	if got := Next(1, 36*time.Hour, start); got.Sub(start) != 36*time.Hour {
		t.Errorf("who wants to be left alone is asked after %v", got.Sub(start))
	}
	if got := Next(1000, 0, start); got.Sub(start) != lastPause {
		t.Errorf("after many failures it is tried again after %v", got.Sub(start))
	}
}

// TestProblems: each says what, why, and what to do.
func TestProblems(t *testing.T) {
	state := &State{
		Held: map[string]Held{"old": held(1)},
		Attempts: map[string]Attempt{
			"old": {Server: server, Failures: 2, After: start.Add(time.Hour), Kind: "dns", Error: "no such name (dns)"},
			"new": {Server: server, Failures: 2, After: start.Add(time.Hour), Kind: "weird", Error: "no (weird)"},
			"now": {Server: server},
		},
	}
	got := []string{}
	for _, p := range Problems(wanted("new", "now", "old"), state, server, "no Secret may be written", "let it", start) {
		got = append(got, p.Reason+": "+p.Message+" | "+p.Remedy)
	}
	want := []string{
		"CertificateNotOrdered: no certificate could be ordered for new by ca.example: no (weird) | mend that; it is tried again ever more rarely, and at once after kubectl delete secret -n fairlead-certificates order.new",
		"CertificateNotOrdered: no certificate could be ordered for now by ca.example: no Secret may be written | let it",
		"CertificateNotRenewed: the certificate of old, which ends at 2026-01-02T00:00:00Z, could not be renewed by ca.example: no such name (dns) | give the name the addresses of the gateways, which kubectl get ingress shows; it is tried again ever more rarely, and at once after kubectl delete secret -n fairlead-certificates order.old",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if none := Problems(wanted("now"), state, server, "", "", start); len(none) > 0 {
		t.Errorf("what is under way has problems: %v", none)
	}
}
