package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fairlead-net/fairlead/kube"
	"github.com/fairlead-net/fairlead/model"
	plan "github.com/fairlead-net/fairlead/plan/gateway"
)

// book is a Register that notes what is written.
type book struct {
	wrote []string
	fails bool
}

var ownService = model.ServiceKey{Namespace: "kube-system", Name: "fairlead-gateway"}

func (b *book) Service() model.ServiceKey { return ownService }
func (b *book) Lead(ctx context.Context, lead func(context.Context) error) error {
	return lead(ctx)
}
func (b *book) Follow(ctx context.Context, _ func(func(*kube.Entries)), synced func()) error {
	synced()
	<-ctx.Done()
	return nil
}
func (b *book) note(text string) error {
	if b.fails {
		return fmt.Errorf("not now")
	}
	b.wrote = append(b.wrote, text)
	return nil
}
func (b *book) Publish(_ context.Context, key model.IngressKey, uid string, addresses []string) error {
	return b.note(fmt.Sprintf("%s %s: %s", key, uid, strings.Join(addresses, " ")))
}
func (b *book) ReadSecret(context.Context, model.SecretKey) (*model.Secret, error) { return nil, nil }
func (b *book) WriteSecret(context.Context, *model.Secret) error                   { return nil }
func (b *book) DeleteSecret(context.Context, model.SecretKey) error                { return nil }
func (b *book) WriteEvent(_ context.Context, event kube.Event) error {
	return b.note(fmt.Sprintf("%s %s %s: %s", event.Object(), event.UID, event.Reason, event.Message))
}

// desk has a clerk, and what he sees.
type desk struct {
	*testing.T
	book    *book
	clerk   *clerk
	served  served
	entries kube.Entries
	now     time.Time
}

func newDesk(t *testing.T, classes ...string) *desk {
	b := &book{}
	d := &desk{T: t, book: b, now: time.Unix(1e9, 0), clerk: &clerk{
		log: slog.New(slog.DiscardHandler), register: b, written: map[model.IngressKey]*writing{},
	}}
	d.served.snapshot = &model.Snapshot{Revision: 1, Network: model.DefaultNetwork()}
	slice := &model.EndpointSlice{SliceKey: model.SliceKey(ownService), Service: ownService.Name, Endpoints: []model.Endpoint{
		{Address: netip.MustParseAddr("10.0.0.1"), Node: "a", Ready: true},
	}}
	d.served.snapshot.Slices = d.served.snapshot.Slices.With(slice.SliceKey, slice)
	d.entries.Nodes = d.entries.Nodes.With("a", &model.Node{Name: "a", Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1")}})
	for i, class := range classes {
		d.class(i, class)
		d.entry(i, &kube.Entry{UID: "uid"})
	}
	return d
}

func keyOf(i int) model.IngressKey {
	return model.IngressKey{Namespace: "shop", Name: fmt.Sprint("i", i)}
}

// class makes an Ingress of a class.
func (d *desk) class(i int, class string) {
	next := *d.served.snapshot
	next.Ingresses = next.Ingresses.With(keyOf(i), &model.HTTPIngress{IngressKey: keyOf(i), Class: class})
	d.served.snapshot = &next
	d.served.table, _ = plan.Compute(d.served.table, d.served.snapshot)
}

func (d *desk) entry(i int, entry *kube.Entry) {
	d.entries.Ingresses = d.entries.Ingresses.With(keyOf(i), entry)
}

// writes looks, and wants this to be written.
func (d *desk) writes(want ...string) time.Duration {
	d.Helper()
	d.book.wrote = nil
	again := d.clerk.look(d.Context(), d.served, d.entries, d.now)
	slices.Sort(d.book.wrote)
	if !slices.Equal(d.book.wrote, want) {
		d.Errorf("written is\n  %s\nwant\n  %s", strings.Join(d.book.wrote, "\n  "), strings.Join(want, "\n  "))
	}
	return again
}

// TestStatus: Ingresses that are served tell the addresses, others are left alone,
// and nothing is written twice.
func TestStatus(t *testing.T) {
	d := newDesk(t, "fairlead", "other")
	d.entry(1, &kube.Entry{UID: "uid", Addresses: []string{"198.51.100.7"}, Writer: "somebody"})
	d.writes("shop/i0 uid: 192.0.2.1")
	d.writes() // the watch has not told of it yet
	d.entry(0, &kube.Entry{UID: "uid", Addresses: []string{"192.0.2.1"}, Ours: true})
	d.writes()

	// Another class: ours is taken away, once.
	d.class(0, "other")
	d.writes("shop/i0 uid: ")
	d.writes()
	d.entry(0, &kube.Entry{UID: "uid"})
	d.writes()
	// And ours again.
	d.class(0, "fairlead")
	d.writes("shop/i0 uid: 192.0.2.1")

	// Nobody knows an address: what there is stays.
	d.entry(0, &kube.Entry{UID: "uid", Addresses: []string{"192.0.2.1"}, Ours: true})
	d.entries.Nodes = model.Map[string, *model.Node]{}
	d.writes()
}

// TestStatusFails: what could not be written is written the next time.
func TestStatusFails(t *testing.T) {
	d := newDesk(t, "fairlead")
	d.book.fails = true
	if again := d.writes(); again != failPause {
		t.Errorf("it looks again after %v", again)
	}
	d.book.fails = false
	d.writes("shop/i0 uid: 192.0.2.1")
}

// TestContest: with one who writes at each change there is no fight, and the Ingress
// says who it is.
func TestContest(t *testing.T) {
	d := newDesk(t, "fairlead")
	const ours = "shop/i0 uid: 192.0.2.1"
	theirs := func() *kube.Entry {
		return &kube.Entry{UID: "uid", Addresses: []string{"198.51.100.7"}, Writer: "nginx-ingress-controller"}
	}
	d.entry(0, theirs())
	d.writes(ours) // once it is taken over
	d.entry(0, &kube.Entry{UID: "uid", Addresses: []string{"192.0.2.1"}, Ours: true})
	d.writes()
	d.entry(0, theirs())
	if again := d.writes(); again <= 0 || again > firstContest {
		t.Errorf("it looks again after %v", again)
	}
	d.now = d.now.Add(settleTime)
	d.writes("Ingress/shop/i0 uid StatusContested: status.loadBalancer: nginx-ingress-controller writes the status of this Ingress as well, so it is written here ever more rarely")
	times := 0
	for range 24 * 60 {
		d.now = d.now.Add(time.Minute)
		d.book.wrote = nil
		d.clerk.look(t.Context(), d.served, d.entries, d.now)
		if slices.Contains(d.book.wrote, ours) {
			times++
			d.entry(0, theirs())
		}
	}
	if times < 5 || times > 30 {
		t.Errorf("in a day it is written %d times", times)
	}
}

// TestEvents: one for each kind of problem of an Ingress, and for each change of it,
// once it has lasted.
func TestEvents(t *testing.T) {
	d := newDesk(t, "other")
	problem := func(field, reason, message string) model.Problem {
		return model.Problem{Kind: "Ingress", Namespace: "shop", Name: "i0", Field: field, Reason: reason, Message: message}
	}
	d.served.problems = []model.Problem{
		problem("b", "NoBackend", "no Service b"), problem("a", "NoBackend", "no Service a"), problem("c", "PathTaken", "taken"),
		{Kind: "Service", Namespace: "shop", Name: "x", Reason: "NotUnderstood", Message: "not ours to say"},
	}
	if again := d.writes(); again <= 0 || again > settleTime {
		t.Errorf("it looks again after %v", again)
	}
	d.now = d.now.Add(settleTime)
	d.writes("Ingress/shop/i0 uid NoBackend: a: no Service a (and 1 more: fairlead ingress lint names them)", "Ingress/shop/i0 uid PathTaken: c: taken")
	d.now = d.now.Add(time.Hour)
	d.writes()
	d.served.problems = []model.Problem{problem("b", "NoBackend", "no Service b"), problem("c", "NoEndpoints", "nobody is ready")}
	d.writes()
	d.now = d.now.Add(settleTime)
	d.writes("Ingress/shop/i0 uid NoBackend: b: no Service b")
	d.now = d.now.Add(endpointsMissTime)
	d.writes("Ingress/shop/i0 uid NoEndpoints: c: nobody is ready")

	// Of many, some at a time, and all in the end.
	d.served.problems = nil
	for i := range 50 {
		d.class(i, "other")
		d.entry(i, &kube.Entry{UID: "uid"})
		p := problem("", "Invalid", "wrong")
		p.Name = keyOf(i).Name
		d.served.problems = append(d.served.problems, p)
	}
	d.writes()
	d.now = d.now.Add(settleTime)
	total := 0
	for range 3 {
		for turn := range 2 { // something else changes meanwhile
			d.book.wrote = nil
			d.clerk.look(t.Context(), d.served, d.entries, d.now)
			if total += len(d.book.wrote); len(d.book.wrote) > mostEvents || turn > 0 && len(d.book.wrote) > 0 {
				t.Errorf("%d at once", len(d.book.wrote))
			}
		}
		d.now = d.now.Add(eventsPause)
	}
	if total != 50 {
		t.Errorf("%d of 50", total)
	}
}

// TestSecretsOfIngresses: what is wrong with a Secret is said of the Ingresses that
// name it.
func TestSecretsOfIngresses(t *testing.T) {
	d := newDesk(t)
	next := *d.served.snapshot
	next.Ingresses = next.Ingresses.With(keyOf(0), &model.HTTPIngress{IngressKey: keyOf(0), Class: "fairlead", TLS: []model.IngressTLS{{Secret: "pair"}}, Annotations: []model.Annotation{
		{Key: "nginx.ingress.kubernetes.io/auth-secret", Value: "users"}, {Key: "nginx.ingress.kubernetes.io/auth-type", Value: "basic"},
	}})
	table, _ := plan.Compute(nil, &next)
	got := ofIngresses([]model.Problem{
		{Kind: "Secret", Namespace: "shop", Name: "pair", Reason: "NoCertificate", Message: "it has none"},
		{Kind: "Secret", Namespace: "shop", Name: "users", Reason: "NoUsers", Message: "it has none"},
		{Kind: "Secret", Namespace: "else", Name: "pair", Reason: "NoCertificate", Message: "nobody names it"},
	}, table)
	if len(got) != 2 || got[0].Object() != "Ingress/shop/i0" || got[0].Field != "spec.tls[0].secretName" || got[0].Message != "Secret pair: it has none" ||
		got[1].Field != "metadata.annotations[nginx.ingress.kubernetes.io/auth-secret]" {
		t.Errorf("got %+v", got)
	}
}

// TestPauseAfterFailure: whatever changes meanwhile, an API server that refuses is not
// asked at each change.
func TestPauseAfterFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, "fairlead")
		asked := 0
		d.clerk.register = refusing{d.book, &asked}
		d.clerk.served = &current[served]{}
		ctx, cancel := context.WithTimeout(t.Context(), 10*failPause)
		defer cancel()
		var changing sync.WaitGroup
		defer changing.Wait()
		changing.Go(func() {
			for ctx.Err() == nil {
				d.clerk.served.edit(func(s *served) { *s = d.served })
				d.clerk.entries.edit(func(e *kube.Entries) { *e = d.entries })
				time.Sleep(100 * time.Millisecond)
			}
		})
		_ = d.clerk.run(ctx)
		changing.Wait()
		if asked < 5 || asked > 11 {
			t.Errorf("in %v it is asked %d times", 10*failPause, asked)
		}
	})
}

// refusing is a Register that fails, and counts.
type refusing struct {
	*book
	asked *int
}

func (r refusing) Publish(context.Context, model.IngressKey, string, []string) error {
	*r.asked++
	return fmt.Errorf("not now")
}
